"""Attribution of a day's conversions: candidates found, touches chosen and credited, beside a batch join in SQL.

Users have 1 to 100 touches over 60 days, 5 % of them clicks on an earlier impression of theirs; conversions are 1 % or 10 %
of the touches. Touches lie sorted by user and time, as the state machine keeps them; the peers get them in the same order.
All forms end in a column each of conversion, touch, credit and micros, which are compared before their speed counts. One
thread, no Beam, processor time.

    python -m benchmarks.attribution --touches 1000000 --runs 3
"""

import argparse
import os
import sys

os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported

import duckdb
import numpy as np
import polars as pl

from benchmarks.report import Figures, interleaved, machine, publish, rates
from measurement.model.attribution import NO_PRIORITY, AttributionRule
from measurement.model.events import MICROS_PER_HOUR
from measurement.rules.attribution import CREDIT_UNITS, credits, eligible

DAY = 24 * MICROS_PER_HOUR
RULE = AttributionRule(view_lookback=7 * DAY, priority=NO_PRIORITY)  # so that most candidates become touches
SHARES = 0.01, 0.1  # conversions to touches
CLICKS = 0.05
SPAN = 60 * DAY


class Log:
    """Touches sorted by user and time, and conversions in no order. Event ids are numbers, whose order is the text's."""

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


# -- peers ------------------------------------------------------------------------------------------------------------

_CHOSEN = f"""
    WITH pairs AS (
        SELECT * FROM conversions JOIN touches USING (person)
        WHERE time < converted
          AND converted - time <= CASE WHEN click THEN {RULE.click_lookback} ELSE {RULE.view_lookback} END
    ), touched AS (
        SELECT * FROM pairs
        QUALIFY row_number() OVER (PARTITION BY conversion, impression ORDER BY click DESC, time DESC, event DESC) = 1
    )"""
_SQL = {
    "linear": _CHOSEN + f""", placed AS (
        SELECT *, row_number() OVER (PARTITION BY conversion ORDER BY time, event) AS place,
               count(*) OVER (PARTITION BY conversion) AS n
        FROM touched
    )
    SELECT conversion, touch, {CREDIT_UNITS} // n + (place <= {CREDIT_UNITS} % n)::BIGINT AS credit,
           value // n + (place <= value % n)::BIGINT AS micros
    FROM placed""",
    "time_decay": _CHOSEN + f""", weighed AS (
        SELECT *, pow(2.0, (time - max(time) OVER (PARTITION BY conversion))::DOUBLE / {RULE.half_life}) AS weight
        FROM touched
    ), shared AS (
        SELECT *, {CREDIT_UNITS} * (weight / sum(weight) OVER (PARTITION BY conversion)) AS c,
               value * (weight / sum(weight) OVER (PARTITION BY conversion)) AS v
        FROM weighed
    ), placed AS (
        SELECT *, row_number() OVER (PARTITION BY conversion ORDER BY floor(c) - c, time, event) AS c_place,
               row_number() OVER (PARTITION BY conversion ORDER BY floor(v) - v, time, event) AS v_place,
               {CREDIT_UNITS} - sum(floor(c)) OVER (PARTITION BY conversion) AS c_left,
               value - sum(floor(v)) OVER (PARTITION BY conversion) AS v_left
        FROM shared
    )
    SELECT conversion, touch, (floor(c) + (c_place <= c_left)::BIGINT)::BIGINT AS credit,
           (floor(v) + (v_place <= v_left)::BIGINT)::BIGINT AS micros
    FROM placed""",
}


def _polars(touches: pl.LazyFrame, conversions: pl.LazyFrame, model: str) -> pl.DataFrame:
    age = pl.col("converted") - pl.col("time")
    lookback = pl.when(pl.col("click")).then(RULE.click_lookback).otherwise(RULE.view_lookback)
    touched = (
        conversions.join(touches, on="person").filter((age > 0) & (age <= lookback))
        .sort("conversion", "impression", "click", "time", "event")
        .unique(["conversion", "impression"], keep="last", maintain_order=True)
        .sort("conversion", "time", "event")
    )
    if model == "linear":
        n, place = pl.len().over("conversion").cast(pl.Int64), pl.int_range(1, pl.len() + 1).over("conversion")
        shared = touched.with_columns(credit=CREDIT_UNITS // n + (place <= CREDIT_UNITS % n).cast(pl.Int64),
                                      micros=pl.col("value") // n + (place <= pl.col("value") % n).cast(pl.Int64))
    else:
        lag = pl.col("time").max().over("conversion") - pl.col("time")
        weight = pl.lit(2.0).pow(-lag.cast(pl.Float64) / RULE.half_life)
        share = pl.col("weight") / pl.col("weight").sum().over("conversion")
        shared = touched.with_columns(weight=weight).with_columns(c=CREDIT_UNITS * share, v=pl.col("value") * share)
        for exact, total, name in ("c", pl.lit(CREDIT_UNITS), "credit"), ("v", pl.col("value"), "micros"):
            floor = pl.col(exact).floor()
            place = (floor - pl.col(exact)).rank("ordinal").over("conversion")
            left = total - floor.sum().over("conversion")
            shared = shared.with_columns((floor + (place <= left)).cast(pl.Int64).alias(name))
    return shared.select("conversion", "touch", "credit", "micros").collect()


def _same(ours: tuple[np.ndarray, ...], peer: str, theirs, model: str) -> None:
    """The same rows; credits by floats may differ by one where a remainder is nearly another's, and sum to the same."""
    columns = [np.asarray(theirs[name]) for name in ("conversion", "touch", "credit", "micros")]
    order, mine = np.lexsort((columns[1], columns[0])), np.lexsort((ours[1], ours[0]))
    columns, ours = [c[order] for c in columns], [c[mine] for c in ours]
    most = 0 if model == "linear" else 1
    for name, x, y in zip(("conversion", "touch", "credit", "micros"), ours, columns):
        if len(x) != len(y) or np.abs(x - y).max(initial=0) > (most if name in ("credit", "micros") else 0):
            sys.exit(f"{model}: {name} differs between measurement.rules.attribution and {peer}")
    if ours[2].sum() != columns[2].sum() or ours[3].sum() != columns[3].sum():
        sys.exit(f"{model}: sums differ between measurement.rules.attribution and {peer}")


def measured(touches: int, share: float, model: str, runs: int) -> Figures:
    log = Log(touches, share, seed=7)
    of_touches, of_conversions = log.tables()
    with duckdb.connect(config={"threads": 1}) as db:
        for name, table in ("touches", of_touches), ("conversions", of_conversions):
            db.register("given", table.to_arrow())
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
            db.unregister("given")
        ours = log.ours(model)
        given = log.candidates()
        forms = {
            "ours": lambda: log.ours(model),
            "ours, candidates given": lambda: log.credited(model, *given),
            "DuckDB": lambda: db.execute(_SQL[model]).fetchnumpy(),
            "Polars": lambda: _polars(of_touches.lazy(), of_conversions.lazy(), model),
        }
        assert all(map(np.array_equal, ours, forms["ours, candidates given"]()))
        _same(ours, "DuckDB", forms["DuckDB"](), model)
        _same(ours, "Polars", forms["Polars"](), model)
        seconds = interleaved(forms, runs)
    credited = len(ours[0])
    title = f"{model}: {len(log.value):,} conversions ({share:.0%} of the touches)"
    figures = rates(title, seconds, credited, "ours", "credits")
    figures.notes.append(f"{len(log.user):,} touches; {len(given[0]):,} candidates, of the user and within the longer "
                         f"lookback; {credited:,} credits.")
    if model == "time_decay":
        figures.notes.append("The peers weigh in float64, whose last places differ from machine to machine.")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--touches", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    before = machine()
    cases = [(model, share) for model in ("linear", "time_decay") for share in SHARES]
    tables = [measured(options.touches, share, model, options.runs) for model, share in cases]
    publish("attribution", before, tables, touches=options.touches, runs=options.runs)


if __name__ == "__main__":
    main()
