"""Attribution as the obvious batch join: all touches and conversions at once, in SQL and as a data frame.

Both give conversion, touch, credit and micros, as numbers: no text, no row of a table, no sum by hour. ``both_tables`` gives
what the machine gives.
"""

import duckdb
import polars as pl
import pyarrow as pa

from measurement.model.attribution import NO_PRIORITY, AttributionRule
from measurement.model.events import MICROS_PER_HOUR
from measurement.rules.attribution import CREDIT_UNITS

DAY = 24 * MICROS_PER_HOUR
RULE = AttributionRule(view_lookback=7 * DAY, priority=NO_PRIORITY)  # so that most candidates become touches

_CHOSEN = f"""
    WITH pairs AS (
        SELECT * FROM conversions JOIN touches USING (person)
        WHERE time < converted
          AND converted - time <= CASE WHEN click THEN {RULE.click_lookback} ELSE {RULE.view_lookback} END
    ), touched AS (
        SELECT * FROM pairs
        QUALIFY row_number() OVER (PARTITION BY conversion, impression ORDER BY click DESC, time DESC, event DESC) = 1
    )"""
SQL = {
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


_TABLES = {
    "credited": """
    WITH earned AS ({earned})
    SELECT conversion_id, '{model}' AS model, touch_id, converted, kind, advertiser, CASE WHEN click THEN 'click' WHEN NOT click
           THEN 'impression' END AS touch_type, time, campaign, line_item, creative, placement,
           coalesce(credit, {whole}) AS credit, coalesce(micros, value) AS micros, currency
    FROM conversions LEFT JOIN earned USING (conversion) LEFT JOIN touches USING (touch)""",
    "summed": """
    SELECT converted // {hour} AS hour, advertiser, campaign, line_item, creative, placement, kind, model, touch_type, currency,
           sum(credit) AS credit, sum(micros) AS micros
    FROM credited GROUP BY ALL""",
}


def both_tables(db: duckdb.DuckDBPyConnection, touches: pa.Table, conversions: pa.Table, model: str) -> tuple[pa.Table, pa.Table]:
    """conversion_credits and attribution of Arrow tables with ids and texts."""
    for name, given in ("touches", touches), ("conversions", conversions):
        db.register("given", given)
        db.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM given")
        db.unregister("given")
    out = []
    for name, query in _TABLES.items():
        db.execute(f"CREATE OR REPLACE TABLE {name} AS " + query.format(
            earned=SQL[model], model=model, whole=CREDIT_UNITS, hour=MICROS_PER_HOUR))
        out.append(db.sql(f"FROM {name}").to_arrow_table())
    return tuple(out)


def polars(touches: pl.LazyFrame, conversions: pl.LazyFrame, model: str) -> pl.DataFrame:
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
