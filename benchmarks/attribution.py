"""Attribution's machine beside a batch join on the same data, and what a touch costs it.

Users have 1 to 100 touches over 60 days, 5 % of them clicks on an earlier impression of theirs; conversions are 1 % or 10 %
of the touches. The machine gets the facts as the job gives them: touches and conversions by time, 50,000 a batch. All that it
does is counted: appending, looking up, crediting, the changes of both tables, its log, and forgetting. The peers have all
rows at once. What each credits is compared row by row before its speed counts. One thread, no Beam, processor time.

    python -m benchmarks.attribution --touches 1000000 --runs 3 --remembered 100000 1000000 10000000
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.peers.batch_join import DAY, RULE, SQL, both_tables, polars
from benchmarks.report import Figures, interleaved, machine, publish
from measurement.columnar.batch import Blobs
from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import FACT, Facts, impressions, terms_of
from measurement.model import events as e
from measurement.model.attribution import Attribution, Terms
from measurement.model.policy import Counting
from measurement.rules.attribution import CREDIT_UNITS, credits, eligible
from measurement.state.credits import CreditsShard
from measurement.state.touches import Touches

SHARES = 0.01, 0.1  # conversions to touches
CLICKS = 0.05
SPAN = 60 * DAY
BATCH = 50_000  # facts, about a frame of the source
ADVERTISERS, TERMS_EACH = 20, 100  # terms: campaign, line item, creative and placement of a touch
_KINDS = 3  # types of conversion
_FEW = 500, 5_000, BATCH  # facts of a run of the log
_HEX = np.array([b"%02x" % i for i in range(256)]).view(np.uint16)
_APPENDED = 6  # batches timed on top of what is remembered


# -- data -------------------------------------------------------------------------------------------------------------

class Log:
    """Touches sorted by user and time, and conversions in no order. ``event`` is the order of the touches' event_ids."""

    def __init__(self, touches: int, share: float, seed: int):
        random = np.random.default_rng(seed)
        counts = random.integers(1, 101, touches // 50)
        user = np.repeat(np.arange(len(counts)), counts)
        n = len(user)
        time = random.integers(0, SPAN, n)
        by_time = np.lexsort((time, user))
        self.user, self.time = user[by_time], time[by_time]
        first = np.repeat(np.cumsum(counts) - counts, counts)
        # A click is on an earlier touch of its user where that is an impression; else it is an impression itself.
        target = first + (random.random(n) * (np.arange(n) - first)).astype(np.int64)
        self.click = random.random(n) < CLICKS
        self.click &= ~self.click[target] & (target < np.arange(n))
        self.impression = np.where(self.click, target, np.arange(n))
        self.event = random.permutation(n)
        # Weighted by touches, as whoever sees more ads buys more.
        self.conversion_user = self.user[random.integers(0, n, int(n * share))]
        self.conversion_time = random.integers(SPAN // 2, SPAN, len(self.conversion_user))
        self.value = random.integers(0, 10**9, len(self.conversion_user))
        self.key = self.user * SPAN + self.time
        self.impression_lo = self.impression.astype(np.uint64)
        self.impression_hi = np.zeros(n, np.uint64)
        self.touch_ids, self.conversion_ids = _ids(random, n)[self.event], _ids(random, len(self.value))

    def ours(self, model: str) -> tuple[np.ndarray, ...]:
        return self.credited(model, *self.candidates())

    def candidates(self) -> tuple[np.ndarray, ...]:
        """The touches of each conversion's user within the longer lookback: a slice of the sorted touches."""
        key = self.conversion_user * SPAN + self.conversion_time
        last = np.searchsorted(self.key, key)
        first = np.searchsorted(self.key, np.maximum(key - RULE.click_lookback, self.conversion_user * SPAN))
        starts = np.concatenate([[0], np.cumsum(last - first)])
        which = np.repeat(first - starts[:-1], last - first) + np.arange(starts[-1])
        return (which, starts, self.time[which], self.click[which], self.impression_hi[which], self.impression_lo[which],
                self.event[which])

    def credited(self, model: str, which: np.ndarray, *candidates: np.ndarray) -> tuple[np.ndarray, ...]:
        conversions = len(self.value)
        chosen = eligible(
            *candidates, self.conversion_time, np.full(conversions, RULE.click_lookback),
            np.full(conversions, RULE.view_lookback), np.zeros(conversions, np.bool_),
        )
        touch = which[chosen.order]
        conversion = np.repeat(np.arange(conversions), np.diff(chosen.starts))
        credit, micros = credits(model, RULE, chosen.starts, self.conversion_time[conversion] - self.time[touch], self.value)
        return conversion, touch, credit, micros

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        touches = pl.DataFrame({"touch": np.arange(len(self.user)), "person": self.user, "time": self.time,
                                "click": self.click, "impression": self.impression, "event": self.event})
        conversions = pl.DataFrame({"conversion": np.arange(len(self.value)), "person": self.conversion_user,
                                    "converted": self.conversion_time, "value": self.value})
        return touches, conversions

    def worded(self) -> tuple[pa.Table, pa.Table]:
        """`tables` with all that rows of conversion_credits say."""
        touches, conversions = (it.to_arrow() for it in self.tables())
        terms, found, labels = self.terms()
        texts = pa.array([*labels, None])
        codes, n = terms["codes"][found], len(self.user)
        more = {"touch_id": pa.array(self.touch_ids.astype(str))}
        more |= {name: texts.take(pa.array(codes[:n, i])) for i, name in enumerate(("campaign", "line_item", "creative", "placement"), 1)}
        for name, column in more.items():
            touches = touches.append_column(name, column)
        more = {"conversion_id": pa.array(self.conversion_ids.astype(str))}
        more |= {name: texts.take(pa.array(codes[n:, i])) for i, name in enumerate(("advertiser", "kind", "currency"))}
        for name, column in more.items():
            conversions = conversions.append_column(name, column)
        return touches, conversions

    def terms(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """TERMS, which of them each touch's and, behind those, each conversion's are, and their labels."""
        random, n, c = np.random.default_rng(2), len(self.user), len(self.value)
        booked = np.minimum(random.zipf(1.3, n) - 1, TERMS_EACH - 1)
        booked[self.click] = booked[self.impression[self.click]]
        kinds = self.conversion_user % ADVERTISERS * _KINDS + random.integers(0, _KINDS, c)
        return _terms(np.concatenate([self.user % ADVERTISERS * TERMS_EACH + booked, ADVERTISERS * TERMS_EACH + kinds]))

    def batches(self) -> list[Facts]:
        """The same as facts, by time; none comes late."""
        random, n, c = np.random.default_rng(1), len(self.user), len(self.value)
        people = random.integers(1, 2**64, (2, self.user[-1] + 1), np.uint64)
        facts = np.zeros(n + c, FACT)
        user = np.concatenate([self.user, self.conversion_user])
        facts["user_hi"], facts["user_lo"] = people[0, user], people[1, user]
        facts["id_hi"], facts["id_lo"] = random.integers(1, 2**64, (2, n + c), np.uint64)
        own = facts[self.impression]
        facts["time"] = facts["watermark"] = np.concatenate([self.time, self.conversion_time])
        facts["parent_hi"][:n], facts["parent_lo"][:n] = impressions(own["id_hi"], own["id_lo"], self.time[self.impression])
        facts["value"][n:], facts["delta"], facts["because"] = self.value, 1, 1
        facts["type"] = np.concatenate([np.where(self.click, e.CLICK, e.IMPRESSION), np.full(c, e.CONVERSION)])
        terms, facts["terms"], labels = self.terms()
        whole = Facts(facts, terms, _blobs(np.concatenate([self.touch_ids, self.conversion_ids])), labels)
        order = np.argsort(facts["time"], kind="stable")
        return [whole.take(order[at : at + BATCH]) for at in range(0, len(order), BATCH)]

    def told(self, changes: list[Deltas]) -> tuple[np.ndarray, ...]:
        """What the machine said of conversion_credits, by the numbers of conversions and touches. Exits if it did not say of
        every conversion what no touch earned."""
        of_conversions = {text: i for i, text in enumerate(self.conversion_ids.tolist())}
        of_touches = {text: i for i, text in enumerate(self.touch_ids.tolist())}
        conversion, touch = [], []
        for it in changes:
            texts = [text.encode() for text in it.labels]
            conversion += [of_conversions[texts[code]] for code in it.codes[:, 0].tolist()]
            touch += [-1 if code < 0 else of_touches[texts[code]] for code in it.codes[:, 2].tolist()]
        conversion, touch = np.array(conversion), np.array(touch)
        credit, micros = np.concatenate([it.counts for it in changes]).T
        if (np.bincount(conversion, credit, len(self.value)) != CREDIT_UNITS).any() or micros.sum() != self.value.sum():
            sys.exit("the machine's credits do not sum to the conversions")
        earned = np.flatnonzero(touch >= 0)
        return conversion[earned], touch[earned], credit[earned], micros[earned]


def _ids(random, n: int) -> np.ndarray:
    """n event_ids of 32 digits, in order."""
    halves = random.integers(0, 2**64, (n, 2), np.uint64)
    halves[:, 0].sort()
    return _HEX[halves.astype(">u8").view(np.uint8)].reshape(n, 16).view("S32").ravel()


def _blobs(ids: np.ndarray) -> Blobs:
    return Blobs(np.arange(len(ids) + 1) * ids.itemsize, np.ascontiguousarray(ids).view(np.uint8))


def _terms(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """TERMS, which of them each choice is, and the labels: those of touches, behind them those of conversions."""
    labels = ["EUR", *(f"type-{i}" for i in range(_KINDS))]
    codes = np.full((ADVERTISERS * (TERMS_EACH + _KINDS), 5), -1, np.int32)
    for advertiser in range(ADVERTISERS):
        at = len(labels)
        labels.append(f"adv-{advertiser}")
        for i in range(TERMS_EACH):
            codes[advertiser * TERMS_EACH + i] = [at, *range(len(labels), len(labels) + 4)]
            labels += [f"{name}-{advertiser}-{i}" for name in ("campaign", "line-item", "creative", "placement")]
        for i in range(_KINDS):
            codes[ADVERTISERS * TERMS_EACH + advertiser * _KINDS + i, :3] = at, 1 + i, 0
    terms, found = terms_of(codes, labels)
    return terms, found[chosen], labels


# -- beside a batch join ----------------------------------------------------------------------------------------------

def measured(touches: int, share: float, model: str, runs: int) -> Figures:
    log = Log(touches, share, seed=7)
    policy, batches = _policy(model), log.batches()
    of_touches, of_conversions = log.tables()
    with ExitStack() as stack:
        db = stack.enter_context(duckdb.connect(config={"threads": 1}))
        for name, table in ("touches", of_touches), ("conversions", of_conversions):
            db.register("given", table.to_arrow())
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
            db.unregister("given")
        given, worded = log.candidates(), log.worded()
        other = stack.enter_context(duckdb.connect(config={"threads": 1}))
        forms = {
            "CreditsShard": lambda: _machine(policy, batches),
            "its rules alone, touches sorted by user": lambda: log.ours(model),
            "its rules alone, candidates given": lambda: log.credited(model, *given),
            "DuckDB": lambda: db.execute(SQL[model]).fetchnumpy(),
            "Polars": lambda: polars(of_touches.lazy(), of_conversions.lazy(), model),
            "DuckDB, from Arrow to both tables": lambda: both_tables(other, *worded, model),
        }
        named = "conversion", "touch", "credit", "micros"
        of_credits, of_hours, log_bytes = forms["CreditsShard"]()
        ours = log.told(of_credits)
        _same(ours, "the rules alone", dict(zip(named, log.ours(model))), "linear")  # exactly
        for peer in "DuckDB", "Polars":
            _same(ours, peer, forms[peer](), model)
        if sum(it.counts.sum(axis=0) for it in of_hours).tolist() != [CREDIT_UNITS * len(log.value), log.value.sum()]:
            sys.exit(f"{model}: attribution does not sum to the conversions")
        rows, sums = forms["DuckDB, from Arrow to both tables"]()
        if model == "linear":
            _same_rows(of_credits, rows, log)
        if len(sums) != _rows(of_hours):
            sys.exit(f"{model}: attribution has not as many rows as DuckDB's sums")
        seconds = interleaved(forms, runs)
    base, credited = statistics.median(seconds["CreditsShard"]), len(ours[0])
    figures = Figures(f"{model}: {len(log.value):,} conversions ({share:.0%} of the touches)",
                      ("form", "credits/s", "min", "max", "touches/s", "CreditsShard's rate is"))
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        figures.add(name, credited / middle, credited / max(taken), credited / min(taken), len(log.user) / middle,
                    f"{middle / base:.2f} x")
    figures.notes += [
        f"{len(log.user):,} touches; {len(given[0]):,} candidates, of the user and within the longer lookback; {credited:,} "
        f"credits; {log_bytes / len(log.user):.0f} bytes of log a touch.",
        "The peers have their rows in tables of their own and end at numbers; the last one starts at columns, as CreditsShard does, "
        "and ends at all columns of both tables. CreditsShard also writes keys and its log.",
    ]
    if model == "time_decay":
        figures.notes.append("The peers weigh in float64, whose last places differ from machine to machine.")
    return figures


def _policy(model: str) -> Attribution:
    return Attribution((Terms(default=replace(RULE, models=(model,))),))


def _machine(policy: Attribution, batches: list[Facts]) -> tuple[list[Deltas], list[Deltas], int]:
    """Changes of conversion_credits and attribution, and bytes of log, of facts given to one machine as the job would."""
    shard, of_credits, of_hours, log_bytes = CreditsShard(policy, Counting()), [], [], 0
    for batch in batches:
        credited = shard.absorb(batch)
        watermark = int(batch.facts["watermark"][-1])
        if shard.next_due() < watermark:
            shard.advance(watermark)
        log_bytes += _bytes(shard.take_changes().appended)
        of_credits += [credited.credits] * (credited.credits is not None)
        of_hours += [credited.attribution] * (credited.attribution is not None)
    return of_credits, of_hours, log_bytes


def _bytes(appended: list[tuple[int, bytes]]) -> int:
    return sum(len(run) for _, run in appended)


def _same(ours: tuple[np.ndarray, ...], peer: str, theirs, model: str) -> None:
    """The same rows; credits by floats may differ by one where a remainder is nearly another's, and sum to the same. Who
    lists touches that earn nothing says the same."""
    columns = [np.asarray(theirs[name]) for name in ("conversion", "touch", "credit", "micros")]
    columns, ours = ([c[np.flatnonzero((some[2] != 0) | (some[3] != 0))] for c in some] for some in (columns, ours))
    order, mine = np.lexsort((columns[1], columns[0])), np.lexsort((ours[1], ours[0]))
    columns, ours = [c[order] for c in columns], [c[mine] for c in ours]
    most = 0 if model == "linear" else 1
    for name, x, y in zip(("conversion", "touch", "credit", "micros"), ours, columns):
        if len(x) != len(y) or np.abs(x - y).max(initial=0) > (most if name in ("credit", "micros") else 0):
            sys.exit(f"{model}: {name} differs between CreditsShard and {peer}")
    if ours[2].sum() != columns[2].sum() or ours[3].sum() != columns[3].sum():
        sys.exit(f"{model}: sums differ between CreditsShard and {peer}")


def _same_rows(ours: list[Deltas], theirs: pa.Table, log: Log) -> None:
    """All texts of all rows of conversion_credits."""
    names = "conversion_id", "model", "touch_id", "kind", "advertiser", "touch_type", "time", "campaign", "line_item", "creative", "placement", "currency"
    mine = sorted(
        (*("" if code < 0 else it.labels[code] for code in codes), hour, *counts)
        for it in ours for codes, hour, counts in zip(it.codes.tolist(), it.hours.tolist(), it.counts.tolist()))
    columns = [pc.fill_null(theirs[name].cast(pa.string()), "").to_pylist() for name in names]
    numbers = [theirs[name].cast(pa.int64()).to_pylist() for name in ("converted", "credit", "micros")]
    if mine != sorted(zip(*columns, *numbers)):
        sys.exit("the rows of conversion_credits differ between CreditsShard and DuckDB")


def _rows(changes: list[Deltas]) -> int:
    return len(np.unique(np.concatenate([it.keys for it in changes]), axis=0))


# -- what a touch costs -----------------------------------------------------------------------------------------------

class Crowd:
    """Touches within one bucket, of users in turn so that each has as many as the others."""

    def __init__(self, users: int):
        self._random = np.random.default_rng(users)
        self._people = self._random.integers(1, 2**64, (2, users), np.uint64)
        self._at = 0
        chosen = np.minimum(self._random.zipf(1.3, BATCH) - 1, TERMS_EACH - 1)
        self._terms, self._found, self._labels = _terms(chosen)

    def batch(self, size: int = BATCH) -> Facts:
        random, facts = self._random, np.zeros(size, FACT)
        user = (np.arange(self._at, self._at + size) * 7_919) % self._people.shape[1]  # neighbours lie apart
        self._at += size
        facts["user_hi"], facts["user_lo"] = self._people[:, user]
        facts["id_hi"], facts["id_lo"] = random.integers(1, 2**64, (2, size), np.uint64)
        facts["time"] = facts["watermark"] = np.sort(random.integers(0, DAY, size))
        facts["parent_hi"], facts["parent_lo"] = impressions(facts["id_hi"], facts["id_lo"], facts["time"])
        facts["terms"], facts["delta"], facts["because"] = self._found[:size], 1, 1
        return Facts(facts, self._terms, _blobs(_ids(random, size)), self._labels).take(np.arange(size))


    def conversions(self, touches: Facts) -> Facts:
        """One of each touch's user, a while later."""
        facts = touches.facts.copy()
        facts["time"] += DAY
        facts["watermark"] += DAY
        facts["id_hi"] ^= facts["id_lo"]
        facts["type"], facts["parent_hi"], facts["parent_lo"] = e.CONVERSION, 0, 0
        return Facts(facts, touches.terms, touches.ids, touches.labels)

    def mixed(self, size: int) -> Facts:
        touches = self.batch(size)
        both = self.conversions(touches).facts
        tenth = np.arange(size) % 10 == 0
        return Facts(np.where(tenth, both, touches.facts), touches.terms, touches.ids, touches.labels)


def appending(known: list[tuple[int, int]]) -> Figures:
    """By (touches that each user has, touches remembered)."""
    figures = Figures("a touch appended to one bucket, batches of 50,000", (
        "touches a user known", "remembered", "ns: appended to the bucket", "ns: all of absorb, with log", "all of it, mean from nothing",
        "bytes of memory a touch", "and a user in the bucket"))
    _append(1, BATCH)  # compiles
    for each, remembered in known:
        figures.add(each, remembered, *_append(each, remembered))
    figures.notes.append("The quickest of six batches; growing is in the mean, and the pages of a bucket that grew just now. Memory in use, room to "
                         "grow left out; a touch's with its event_id of 32 bytes.")
    return figures


def _append(each: int, remembered: int) -> tuple[float, ...]:
    alone = _timed_batches(Touches(), lambda some, it: _appended(some, it), each, remembered)
    shard = CreditsShard(_policy("linear"), Counting())
    whole = _timed_batches(shard, lambda machine, it: (machine.absorb(it), machine.take_changes()), each, remembered)
    held = shard.state_bytes()
    [some] = shard.touches.values()
    users = some.users.rows * 24 + some.users.table.nbytes
    last = slice(-_APPENDED, None)
    return (min(alone[last]), min(whole[last]), statistics.mean(whole[:-_APPENDED]),
            (held["touch bytes"] - users) / held["touches"], users / some.users.rows)


def _appended(some: Touches, it: Facts) -> None:
    some.append(it.facts, it.facts["terms"], it.ids)
    some.settle()


def _timed_batches(machine, act, each: int, remembered: int) -> list[float]:
    """Nanoseconds a touch of each batch: those that make the machine remember so many, then a few more."""
    crowd, taken = Crowd(max(1, remembered // each)), []
    for _ in range(remembered // BATCH + _APPENDED):
        batch = crowd.batch()
        began = time.process_time()
        act(machine, batch)
        taken.append((time.process_time() - began) / BATCH * 1e9)
    return taken


def calls(size: int, remembered: list[int]) -> Figures:
    """What a small call costs beside what is remembered: a touch to each conversion, each of another user."""
    figures = Figures(f"a call of {size} facts, 1 in 10 a conversion", ("touches and conversions remembered", "µs a call, median", "of which next_due",
                      "bytes of memory a conversion"))
    for count in remembered:
        crowd, shard = Crowd(count), CreditsShard(_policy("linear"), Counting())
        for _ in range(count // BATCH):
            touches = crowd.batch()
            for batch in touches, crowd.conversions(touches):
                shard.absorb(batch)
                shard.take_changes()
        whole, due = [], []
        for _ in range(40):
            batch = crowd.mixed(size)
            began = time.process_time()
            shard.absorb(batch)
            shard.take_changes()
            then = time.process_time()
            shard.next_due()
            whole.append(time.process_time() - began)
            due.append(time.process_time() - then)
        held = shard.state_bytes()
        figures.add(count, statistics.median(whole) * 1e6, statistics.median(due) * 1e6, held["conversion bytes"] / held["conversions"])
    return figures


def logged(touches: int, each: int) -> Figures:
    """Bytes of log a touch, and what it takes to restore it, by the size of the runs it is written in."""
    figures = Figures(f"the log of {touches:,} touches, {each} a user", ("facts a run", "bytes a touch", "restored, s a million", "MB a s"))
    for size in _FEW:
        crowd, shard, runs = Crowd(touches // each), CreditsShard(_policy("linear"), Counting()), []
        for batch in _batches(crowd, touches, size):
            shard.absorb(batch)
            runs += [run for _, run in shard.take_changes().appended]
        taken = []
        for _ in range(3):
            restored, began = CreditsShard(_policy("linear"), Counting()), time.process_time()
            restored.restore(runs)
            taken.append(time.process_time() - began)
        if restored.state_bytes()["touches"] != touches:
            sys.exit("the log does not restore every touch")
        seconds, all_ = statistics.median(taken), sum(map(len, runs))
        figures.add(size, all_ / touches, seconds / touches * 1e6, all_ / seconds / 1e6)
    return figures


def _batches(crowd: Crowd, touches: int, size: int) -> Iterator[Facts]:
    return (crowd.batch(size) for _ in range(touches // size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--touches", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--remembered", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    options = parser.parse_args()
    before = machine()
    cases = [(model, share) for model in ("linear", "time_decay") for share in SHARES]
    tables = [measured(options.touches, share, model, options.runs) for model, share in cases]
    million = max(1, min(options.touches, 1_000_000) // BATCH) * BATCH
    tables.append(appending([(each, million) for each in (1, 10, 100, 1_000)] + [(10, n) for n in options.remembered]))
    tables += [logged(million, 10), calls(500, [BATCH, 10 * BATCH])]
    publish("attribution", before, tables, touches=options.touches, runs=options.runs)


if __name__ == "__main__":
    main()
