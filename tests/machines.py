"""The job's machines without Beam: a small engine that may do whatever an engine is free to do.

`run(arrivals, files, engine)` reads an event log in frames, hands what each frame became from stage to stage through
the coders, fires timers late, lets shards run ahead of each other, fails bundles and throws machines away, to be
rebuilt from their logs. What it may not do is what Beam promises: a key's elements come in the order of their
timestamps, and no timer fires before every element that is older has been taken.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import numpy as np

from measurement.columnar.batch import AVRO, ENCODINGS, NO_WATERMARK, EventBatch
from measurement.columnar.decode import Decoded, decode_datums, decode_lines
from measurement.columnar.deltas import BECAUSE, NO_HOUR, Deltas, tallied
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Origin, accepted_times, take_in
from measurement.columnar.records import Activity, Verdicts
from measurement.columnar.screen import Screen
from measurement.io.watermark import END, FileWatermark
from measurement.model.events import INVALID_REASONS, MICROS_PER_HOUR
from measurement.model.policy import Policy
from measurement.model.tables import ATTRIBUTION, CREDITS, TOTALS
from measurement.state.orders import Decided
from measurement.state.totals import STATUSES, Revisions
from measurement.transforms.config import RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import SPLIT, facts_by_shard, tallies_by_shard
from measurement.transforms.join import Join
from measurement.transforms.orders import Orders
from measurement.transforms.rates import Rates
from measurement.transforms.totals import Totals
from oracle import Identity, Received, identity_of, judge_one

POLICY = Policy()


@dataclass(frozen=True)
class Engine:
    """What one run of an engine is like; every chance is from 0 to 1."""

    seed: int = 0
    event_shards: int = 1
    user_shards: int = 1
    delivery_shards: int = 1
    frame: int = 1_000  # events in a frame at most
    lag: float = 0.0  # chance that what a frame became is not taken before the next one is read
    rates_lag: bool = True  # whether rates lag like the other stages, or are ahead of the join
    timers: float = 1.0  # chance that after a frame a machine's timer fires, if it may
    flushes: float = 0.0  # chance that a totals machine publishes after a batch
    crashes: float = 0.0  # chance that a call fails and is made again, and that a machine is lost after it


@dataclass(frozen=True)
class Row:
    """One revision of a row."""

    number: int
    status: str
    because: str
    counts: tuple[int, ...]


@dataclass
class Outputs:
    """All that was published: revisions by row, in the order of publication, and rejects."""

    revisions: dict[str, dict[tuple, list[Row]]] = field(default_factory=lambda: {table: {} for table in TOTALS})
    rejects: list[tuple] = field(default_factory=list)  # as Oracle.rejects()
    reject_ids: list[tuple] = field(default_factory=list)

    def publish(self, table: str, revisions: Revisions) -> None:
        for i in range(len(revisions)):
            hour = int(revisions.hours[i])
            texts = [None if code < 0 else revisions.labels[code] for code in revisions.codes[i]]
            key = (None if hour == NO_HOUR else hour, *texts)
            self.revisions[table].setdefault(key, []).append(Row(
                int(revisions.number[i]), STATUSES[revisions.status[i]], BECAUSE[revisions.because[i]],
                tuple(revisions.counts[i].tolist()),
            ))

    def latest(self, table: str) -> dict[tuple, tuple[int, ...]]:
        """The counts of each row's highest revision, rows of zeros left out."""
        rows = {key: max(rows, key=lambda row: row.number).counts for key, rows in self.revisions[table].items()}
        return {key: counts for key, counts in rows.items() if any(counts)}

    def credits(self) -> dict[tuple, tuple[int, int]]:
        """Credit (10^-9) and micros by the columns of conversion_credits, as the oracle has them."""
        named = {key: dict(zip(["conversion_time", *(c.name for c in CREDITS.texts)], key)) for key in self.latest(CREDITS.name)}
        columns = [c.name for c in CREDITS.body if c.name not in ("credit", "value_micros")]
        return {
            tuple(int(of[c]) if c == "touch_time" and of[c] else of[c] for c in columns): self.latest(CREDITS.name)[key]
            for key, of in named.items()
        }

    def attribution(self) -> dict[tuple, tuple[int, int]]:
        return self.latest(ATTRIBUTION.name)

    def delivery(self) -> dict[tuple, tuple[int, ...]]:
        return self.latest("delivery")

    def invalid_traffic(self) -> dict[tuple, int]:
        return {key: events for key, (events,) in self.latest("invalid_traffic").items()}

    def ledger(self) -> dict[tuple, int]:
        return {key: events for key, (events,) in self.latest("ledger").items()}

    def arrivals(self) -> dict[tuple, int]:
        return {key: events for key, (events,) in self.latest("arrivals").items()}


class Keyed:
    """A machine, the bags that an engine keeps its log in, and the elements that wait for it."""

    def __init__(self, make: Callable):
        self.make = make
        self.machine = make()
        self.bags: dict[int, list[bytes]] = {}
        self.queue: deque[tuple[int, object]] = deque()  # (timestamp, element)
        self.fired = NO_WATERMARK  # the latest time that a timer told of

    def commit(self) -> None:
        changes = self.machine.take_changes()
        for slot in changes.cleared:
            self.bags.pop(slot, None)
        for slot, run in changes.appended:
            self.bags.setdefault(slot, []).append(run)

    def lose(self) -> None:
        """The worker is gone: what its machine knew is what its log says."""
        self.machine = self.make()
        self.machine.restore(run for slot in sorted(self.bags) for run in self.bags[slot])

    def held(self) -> int:
        """The watermark in front of the elements that wait."""
        return min((stamp for stamp, _ in self.queue), default=END)

    def log_bytes(self) -> int:
        return sum(len(run) for runs in self.bags.values() for run in runs)


class Run:
    """One run of the job."""

    def __init__(self, engine: Engine, heads: list[np.ndarray], policy: Policy = POLICY):
        """`heads`: for each file the event times of its accepted events, the first four at least."""
        self.engine = engine
        self.random = Random(engine.seed)
        config = RunConfig("test", 1, 0, policy, engine.event_shards, engine.user_shards, engine.delivery_shards)
        self.config = config
        shards = range(engine.event_shards)
        self.screen = Screen(policy.screening)
        self.rates = {shard: Keyed(lambda: Rates(config).machine(shard)) for shard in range(config.rate_shards)}
        self.joins = {shard: Keyed(lambda: Join(config).machine(shard)) for shard in shards}
        self.orders = {shard: Keyed(lambda: Orders(config).machine(shard)) for shard in shards}
        self.credits = {shard: Keyed(lambda: Credits(config).machine(shard)) for shard in range(engine.user_shards)}
        keys = [key for t in TOTALS for key in ([f"{t}/{shard}" for shard in range(engine.delivery_shards)] if t in SPLIT else [t])]
        self.totals = {key: Keyed(lambda key=key: Totals(config).machine(key)) for key in keys}
        self.outputs = Outputs()
        self.tick = 0
        self.files = [FileWatermark() for _ in heads]
        self.ended = [False] * len(heads)
        for watermark, times in zip(self.files, heads):
            watermark.open(times)
        self.positions = [0] * len(heads)  # events read
        self.known: dict[Identity, dict[int, tuple[int, np.void]]] = {}  # of the identities seen, by content: shard and row
        self.judged: dict[Identity, str] = {}

    # -- the source

    def watermark(self) -> int:
        return min((w.value for w, ended in zip(self.files, self.ended) if not ended), default=END)

    def end_file(self, file: int) -> None:
        self.ended[file] = True
        self._between()

    def read(self, file: int, events: list[Received]) -> None:
        """Reads one frame."""
        others = min(
            (w.value for f, w in enumerate(self.files) if f != file and not self.ended[f]), default=END
        )
        first, encoding = events[0], ENCODINGS.index(events[0].encoding)
        origin = Origin(
            first.source, np.arange(self.positions[file], self.positions[file] + len(events)), encoding,
            "v1" if encoding == AVRO else None, np.full(len(events), first.receipt),
        )
        self.positions[file] += len(events)
        edge = {first.receipt // MICROS_PER_HOUR * MICROS_PER_HOUR: (len(events), len(events), sum(len(event.payload) for event in events))}
        intake = take_in(decoded(events), origin, edge, self.config.policy, self.files[file], others, self.screen)
        self._reject(intake.rejects)
        if intake.activity is not None:
            for shard, part in intake.activity.split(self.config.rate_shards):
                self.rates[shard].queue.append((intake.before, Activity.decode(part.encode())))
                if not self.engine.rates_lag:
                    self._take(self.rates[shard])
        again = []
        for shard, batch in intake.batch.split(self.engine.event_shards):
            self.joins[shard].queue.append((intake.before, travelled(batch)))
            again += self._identify(shard, batch, first)
        for table, deltas in intake.tallies.items():
            self._tally(intake.before, table, deltas)
        for identity in again:
            self._give(identity)
        if self.random.random() >= self.engine.lag:
            self.drain()
        self._between()

    def judge_identity(self, identity: Identity, reason: str) -> None:
        """A verdict from outside, '' to take one back."""
        self.judged[identity] = reason
        if identity in self.known:
            self._give(identity)

    def _identify(self, shard: int, batch: EventBatch, like: Received) -> list[Identity]:
        """Notes who came; those that a verdict was given on before."""
        again = []
        for i, row in enumerate(batch.rows):
            event = judge_one(Received(batch.payloads[i], like.encoding, like.source, like.receipt))
            identity = identity_of(event)
            self.known.setdefault(identity, {})[int(row["digest"])] = shard, row
            if self.judged.get(identity):
                again.append(identity)
        return again

    def _give(self, identity: Identity) -> None:
        """Sends a verdict after the event that it is on."""
        for shard, row in self.known[identity].values():
            verdict = np.zeros(1, Verdicts.DTYPE)
            verdict["hi"], verdict["lo"], verdict["digest"], verdict["time"] = (row[c] for c in ("id_hi", "id_lo", "digest", "time"))
            verdict["watermark"], verdict["code"] = self.watermark(), INVALID_REASONS.index(self.judged[identity])
            self.joins[shard].queue.append((self.watermark(), Verdicts(verdict)))

    # -- what an engine does

    def drain(self) -> None:
        """Takes every element that waits, keys in any order."""
        while waiting := [keyed for keyed in self._all() if keyed.queue]:
            self._take(self.random.choice(waiting))

    def finish(self) -> None:
        """The source is at its end."""
        assert all(self.ended)
        for stage in (self.rates, self.joins, self.orders, self.credits, self.totals):
            self.drain()
            for keyed in stage.values():
                while self._happens(self.engine.timers / 2) and keyed.machine.next_due() is not None:
                    self._fire(keyed, keyed.machine.next_due())
                self._fire(keyed, END)
        for key, keyed in self.totals.items():
            self._flush(key, keyed)

    def _all(self) -> list[Keyed]:
        return [*self.rates.values(), *self.joins.values(), *self.orders.values(), *self.credits.values(), *self.totals.values()]

    def _between(self) -> None:
        """What happens while nothing is read: timers, losses, publications; maybe some elements are taken."""
        if self.engine.lag:
            for _ in range(self.random.randrange(4)):
                if waiting := [keyed for keyed in self._all() if keyed.queue]:
                    self._take(self.random.choice(waiting))
        for keyed in self._all():
            if self._happens(self.engine.timers):
                time = self._time_of_a_timer(keyed)
                if time is not None:
                    self._fire(keyed, time)
        for key, keyed in self.totals.items():
            if self._happens(self.engine.flushes):
                self._flush(key, keyed)  # a wall-clock timer: it writes no log
            if self._happens(self.engine.crashes):
                keyed.lose()

    def _time_of_a_timer(self, keyed: Keyed) -> int | None:
        """Some time up to which everything has come, if there is one that the machine has not been told yet."""
        limit = self._limit(keyed)
        if limit <= keyed.fired:
            return None
        due = keyed.machine.next_due()
        at = [limit] if limit < END else []  # END is told last
        if keyed.fired != NO_WATERMARK and limit < END:
            at.append(self.random.randint(keyed.fired, limit))
        if due is not None and keyed.fired <= due <= limit:
            at += [due, -(-due // 1000) * 1000 if -(-due // 1000) * 1000 <= limit else due]
        return self.random.choice(at) if at else None

    def _limit(self, keyed: Keyed) -> int:
        """The watermark in front of a key: elements that wait before it hold it, and so do timers that have not fired."""
        limit = min(self.watermark(), keyed.held())
        if keyed in self.rates.values():
            return limit
        for before in self.rates.values():
            limit = min(limit, before.held())
        if keyed in self.joins.values():
            return limit
        for before in self.joins.values():
            limit = min(limit, before.held(), _due(before))
        if keyed in self.orders.values():
            return limit
        for before in self.orders.values():
            limit = min(limit, before.held())
        if keyed in self.credits.values():
            return limit
        for before in self.credits.values():
            limit = min(limit, before.held())
        return limit

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def _call(self, keyed: Keyed, act: Callable):
        """One bundle: it may fail, which leaves no trace, and its machine may be lost when it is done."""
        if self._happens(self.engine.crashes):
            act(keyed.machine)
            keyed.lose()
        result = act(keyed.machine)
        keyed.commit()
        if self._happens(self.engine.crashes):
            keyed.lose()
        return result

    def _take(self, keyed: Keyed) -> None:
        stamp, element = keyed.queue.popleft()
        if keyed in self.rates.values():
            for shard, part in self._call(keyed, lambda m: m.absorb(element)).split(self.engine.event_shards):
                self.joins[shard].queue.append((stamp, Verdicts.decode(part.encode())))
        elif keyed in self.joins.values():
            self._effects(stamp, self._call(keyed, lambda m: m.judge(element) if isinstance(element, Verdicts) else m.absorb(element)))
        elif keyed in self.orders.values():
            self._ordered(stamp, self._call(keyed, lambda m: m.judge(element) if isinstance(element, Verdicts) else m.absorb(element)))
        elif keyed in self.credits.values():
            credited = self._call(keyed, lambda m: m.absorb(element))
            for table, deltas in (CREDITS, credited.credits), (ATTRIBUTION, credited.attribution):
                if deltas is not None:
                    self._tally(stamp, table.name, deltas)
        else:
            self._call(keyed, lambda m: m.absorb(element))
            if self._happens(self.engine.flushes):
                key = next(key for key, other in self.totals.items() if other is keyed)
                self._publish(key, self._call(keyed, lambda m: [m.flush(self._next_tick())]))

    def _fire(self, keyed: Keyed, time: int) -> None:
        keyed.fired = max(keyed.fired, time)
        if keyed in self.joins.values():
            self._effects(time, self._call(keyed, lambda m: m.advance(time)))
        elif keyed in (*self.rates.values(), *self.orders.values(), *self.credits.values()):
            self._call(keyed, lambda m: m.advance(time))
        else:
            key = next(key for key, other in self.totals.items() if other is keyed)
            self._publish(key, self._call(keyed, lambda m: m.advance(time, self._next_tick())))

    def _flush(self, key: str, keyed: Keyed) -> None:
        self._publish(key, [keyed.machine.flush(self._next_tick())])

    def _next_tick(self) -> int:
        self.tick += 1
        return self.tick

    # -- from stage to stage

    def _effects(self, stamp: int, effects) -> None:
        if effects.delivery is not None:
            self._tally(stamp, "delivery", effects.delivery)
        if effects.invalid is not None:
            self._tally(stamp, "invalid_traffic", effects.invalid)
        self._decided(stamp, effects.ledger, effects.facts)
        for reason, event, _ in effects.rejects:
            row = event.row
            self.outputs.reject_ids.append((event.file, int(row["position"]), int(row["index"])))
            event_type = judge_one(Received(event.payload, ENCODINGS[row["encoding"]], "", END))["event_type"]
            self.outputs.rejects.append((reason, event.event_id, int(row["time"]), event_type, event.payload))
        if effects.orders is not None:
            batch = effects.orders
            shard = (batch.rows["parent_hi"] >> np.uint64(40)) % np.uint64(self.engine.event_shards)
            for s in np.unique(shard).tolist():
                part = EventBatch(batch.rows[shard == s], batch.dims, batch.payloads.take(np.flatnonzero(shard == s)), batch.labels)
                self.orders[s].queue.append((stamp, travelled(part)))
        if effects.judged is not None:
            for shard, part in effects.judged.split_by_order(self.engine.event_shards):
                self.orders[shard].queue.append((stamp, Verdicts.decode(part.encode())))

    def _ordered(self, stamp: int, decided: Decided) -> None:
        self._small(stamp, "invalid_traffic", decided.invalid)
        self._decided(stamp, decided.ledger, decided.facts)

    def _decided(self, stamp: int, ledger: Counter, facts: Facts | None) -> None:
        self._small(stamp, "ledger", ledger)
        for shard, part in facts_by_shard(facts, self.config):
            self.credits[int(shard)].queue.append((stamp, Facts.decode(part.encode())))

    def _small(self, stamp: int, table: str, counted: Counter) -> None:
        if (deltas := tallied(counted)) is not None:
            self._tally(stamp, table, deltas)

    def _tally(self, stamp: int, table: str, deltas: Deltas) -> None:
        for key, part in tallies_by_shard(table, deltas, self.config):
            self.totals[key].queue.append((stamp, Deltas.decode(part.encode())))

    def _publish(self, key: str, published: Iterable[Revisions | None]) -> None:
        for revisions in published:
            if revisions is not None:
                self.outputs.publish(key.partition("/")[0], revisions)

    def _reject(self, rejects: list[dict]) -> None:
        for reject in rejects:
            file, _, position = reject["reject_id"].rpartition("@")
            position, _, index = position.partition(":")
            self.outputs.reject_ids.append((file, int(position), int(index or 0)))
            self.outputs.rejects.append(tuple(
                reject[name] for name in ("reason", "event_id", "event_time", "event_type", "payload")
            ))


def _due(keyed: Keyed) -> int:
    due = keyed.machine.next_due()
    return END if due is None else due


def decoded(events: list[Received]) -> Decoded:
    """Events of one encoding."""
    payloads = [event.payload for event in events]
    return decode_datums(payloads) if events[0].encoding == "avro" else decode_lines(payloads)


def travelled(batch: EventBatch) -> EventBatch:
    return EventBatch.decode(batch.encode())


def frames(events: list[Received], most: int) -> Iterable[list[Received]]:
    """Consecutive events of one file, cut where the encoding changes and at `most` events."""
    frame: list[Received] = []
    for event in events:
        if frame and (len(frame) == most or frame[0].encoding != event.encoding):
            yield frame
            frame = []
        frame.append(event)
    if frame:
        yield frame


def heads(arrivals: list[tuple[int, Received | None]], files: int, policy: Policy = POLICY) -> list[np.ndarray]:
    """Each file's first accepted event times, by the pipeline's own rules; test files are shorter than a source's peek."""
    out = []
    for file in range(files):
        content = [received for f, received in arrivals if f == file and received is not None]
        times = [
            accepted_times(decoded(frame), frame[0].receipt, policy, Screen(policy.screening)) for frame in frames(content, len(content) or 1)
        ]
        out.append(np.concatenate([np.zeros(0, np.int64), *times]))
    return out


def run(
    arrivals: Iterable[tuple[int, Received | None]], files: int, engine: Engine = Engine(),
    verdicts: dict[int, list[tuple[Identity, str]]] | None = None, policy: Policy = POLICY,
) -> Run:
    """An event log through the job: (file, event) in the order of arrival, None where a file ends.

    `verdicts` are given before the arrival of their number.
    """
    arrivals = list(arrivals)
    verdicts = verdicts or {}
    job = Run(engine, heads(arrivals, files, policy), policy)
    at = 0
    while at < len(arrivals):
        for identity, reason in verdicts.get(at, ()):
            job.judge_identity(identity, reason)
        file, received = arrivals[at]
        if received is None:
            job.end_file(file)
            at += 1
            continue
        end = at + 1
        most = job.random.randint(1, engine.frame)
        while (
            end < len(arrivals) and end - at < most and end not in verdicts and arrivals[end][0] == file
            and arrivals[end][1] is not None and arrivals[end][1].encoding == received.encoding
        ):
            end += 1
        job.read(file, [event for _, event in arrivals[at:end]])
        at = end
    for identity, reason in verdicts.get(at, ()):
        job.judge_identity(identity, reason)
    for file in range(files):
        if not job.ended[file]:
            job.end_file(file)
    job.finish()
    return job
