"""An export's rows: shaped from the tables by hour or day, in an order of their own, summed exactly."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from measurement.exports import told
from measurement.exports.request import DAY, HOUR, Grain, Request
from measurement.exports.source import Moment, Source
from measurement.io.publication import schema
from measurement.model.tables import ATTRIBUTION, NUMERIC, Table

_WORST = ("final", "restated", "provisional")  # a day's status is that of its worst hour
_TIME, _TEXT = pa.timestamp("us", "UTC"), pa.string()
_EXACT = pa.decimal128(38, 9)


@dataclass(frozen=True)
class Rows:
    """``told_until``: of attribution with few conversions withheld, the days before it are told; None where none is."""

    table: pa.Table
    told_until: datetime | None = None


def columns(table: Table) -> pa.Schema:
    """Of an export of the table: its own, and of attribution where the row's window ends and what it does not tell apart."""
    fields = list(schema(table))
    if table is not ATTRIBUTION:
        return pa.schema(fields)
    fields = [f.with_nullable(True) if f.name in figures(table) else f for f in fields]
    return pa.schema([fields[0], pa.field("window_end", _TIME, False), *fields[1:], pa.field("withheld", _TEXT)])


def key(table: Table) -> list[str]:
    """The columns that tell an export's rows apart."""
    own = [c.name for c in table.identity]
    return [own[0], "window_end", *own[1:], "withheld"] if table is ATTRIBUTION else own


def shaped(source: Source, request: Request, moment: Moment) -> Rows:
    """The rows that the request is for, as they stood at the moment, in the order of their keys."""
    until = None
    if moment.as_of is None:
        rows = columns(request.table).empty_table()
    elif request.withholds:
        given, until = told.rows(source, request, moment)
        rows = pa.Table.from_pylist(given, columns(request.table))
    else:
        rows = source.latest(request.table, request.advertiser, request.start, request.stop, moment.as_of)
        rows = _daily(rows, request.table) if request.grain is Grain.day else rows
        rows = _windowed(rows, HOUR if request.grain is Grain.hour else DAY) if request.table is ATTRIBUTION else rows
    if request.campaign is not None:
        rows = rows.filter(pc.equal(rows["campaign_id"], request.campaign))
    return Rows(rows.sort_by([(name, "ascending") for name in key(request.table)]).combine_chunks(), until)


def sums(rows: pa.Table, table: Table, by: tuple[str, ...] = ()) -> list[dict]:
    """Exact sums of the figures, of all rows or by some columns: these, ``rows``, then the figures, Decimal where NUMERIC."""
    summed = figures(table)
    exact = rows.select([*by, *summed])
    for name in summed:
        exact = exact.set_column(exact.schema.get_field_index(name), name, exact[name].cast(_EXACT))
    asked = [(name, "sum") for name in summed] + [([], "count_all")]
    found = exact.group_by(list(by), use_threads=False).aggregate(asked).to_pylist()
    if not by and not rows.num_rows:
        found = [{f"{name}_sum": None for name in summed} | {"count_all": 0}]
    numeric = {c.name for c in table.values if c.type == NUMERIC}
    made = [{**{b: one[b] for b in by}, "rows": one["count_all"],
             **{n: (one[f"{n}_sum"] or Decimal(0)) if n in numeric else int(one[f"{n}_sum"] or 0) for n in summed}} for one in found]
    return sorted(made, key=lambda one: [(one[b] is not None, one[b] or "") for b in by])


def figures(table: Table) -> list[str]:
    return [c.name for c in table.values]


def _daily(rows: pa.Table, table: Table) -> pa.Table:
    """Sums by UTC day. A day's status is its worst hour's; reasons and versions of rules are all that its hours have."""
    public = schema(table)
    rank = pc.index_in(rows["status"], pa.array(_WORST))
    days = pc.floor_temporal(rows[table.time], unit="day").cast(_TIME)
    counted = figures(table)
    given = rows.set_column(0, table.time, days).append_column("rank", rank)
    for name in counted:
        given = given.set_column(given.schema.get_field_index(name), name, given[name].cast(_EXACT))
    by = [c.name for c in table.identity]
    asked = [*((name, "sum") for name in counted), ("rank", "max"), ("restated_because", "distinct"), ("rule_version", "distinct"),
             ("revision", "max"), ("published_at", "max")]
    found = given.group_by(by, use_threads=False).aggregate(asked)
    made = {name: found[name] for name in by}
    made |= {name: found[f"{name}_sum"] for name in counted}
    made["status"] = pa.array(_WORST).take(found["rank_max"].combine_chunks())
    for name in ("restated_because", "rule_version"):
        made[name] = pa.array([_joined(some) for some in found[f"{name}_distinct"].to_pylist()], _TEXT)
    made |= {name: found[f"{name}_max"] for name in ("revision", "published_at")}
    return pa.table([_column(made[f.name], f.type) for f in public], schema=public)


def _column(values, type_: pa.DataType):
    return values.cast(type_) if values.type != type_ else values


def _windowed(rows: pa.Table, length) -> pa.Table:
    at = rows["window_start"]
    ends = pc.add(at, pa.scalar(length, pa.duration("us"))).cast(_TIME)
    nothing = pa.nulls(rows.num_rows, _TEXT)
    return rows.add_column(1, pa.field("window_end", _TIME, False), ends).append_column("withheld", nothing).cast(columns(ATTRIBUTION))


def _joined(texts: list[str | None]) -> str | None:
    return ", ".join(sorted(t for t in texts if t is not None)) or None
