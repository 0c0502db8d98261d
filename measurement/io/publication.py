"""Revisions and rejects as Arrow tables with the public tables' columns."""

import numpy as np
import pyarrow as pa

from measurement.columnar import numeric
from measurement.columnar.deltas import BECAUSE, NO_HOUR
from measurement.model.revisions import revision
from measurement.model.tables import BYTES, INT64, NUMERIC, REJECTS, STRING, TIMESTAMP, Column, Table
from measurement.state.totals import STATUSES, Revisions

_ARROW = {STRING: pa.string(), TIMESTAMP: pa.timestamp("us", "UTC"), INT64: pa.int64(), BYTES: pa.binary(),
          NUMERIC: numeric.TYPE}


def schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(c.name, _ARROW[c.type], not c.required) for c in table.columns])


def ipc(table: pa.Table) -> bytes:
    """A table as an Arrow stream, the form in which rows travel."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def of_revisions(table: Table, revisions: Revisions, generation: int, rule_version: str | pa.Array, now: int) -> pa.Table:
    """The rows to append to a totals table; ``now`` (µs) is their published_at. ``rule_version`` is one for all or each
    row's own."""
    n = len(revisions)
    made = _body(table, revisions)
    columns = [made[c.name] for c in table.body]
    if table.stated:
        columns.append(pa.array(STATUSES, pa.string()).take(pa.array(revisions.status.astype(np.int32))))
        because = revisions.because.astype(np.int32)
        columns.append(pa.array(BECAUSE, pa.string()).take(pa.array(because, mask=because == 0)))
        columns.append(pa.repeat(rule_version, n) if isinstance(rule_version, str) else rule_version.cast(pa.string()))
    columns.append(pa.array(revisions.number + revision(generation, 0)))
    columns.append(pa.array(np.full(n, now, np.int64)).cast(_ARROW[TIMESTAMP]))
    return pa.Table.from_arrays(columns, schema=schema(table))


def _body(table: Table, revisions: Revisions) -> dict[str, pa.Array]:
    """The columns that the contract lists, by name."""
    hours, labels = revisions.hours, pa.array(revisions.labels, pa.string())
    made = {table.time: pa.array(hours, pa.int64(), mask=hours == NO_HOUR).cast(_ARROW[TIMESTAMP])}
    for column, codes in zip(table.texts, revisions.codes.T, strict=True):
        made[column.name] = _of_texts(column, labels.take(pa.array(codes, pa.int32(), mask=codes < 0)))
    for column, sums in zip(table.values, revisions.counts.T, strict=True):
        made[column.name] = numeric.of_units(sums) if column.type == NUMERIC else pa.array(sums)
    return made


def _of_texts(column: Column, texts: pa.Array) -> pa.Array:
    """A time that is no hour travels as the digits of its microseconds."""
    return texts.cast(pa.int64()).cast(_ARROW[TIMESTAMP]) if column.type == TIMESTAMP else texts


# A reject on its way: the columns of its row that it brings along, and how the ledger entered it.
REJECTED = pa.schema([*list(schema(REJECTS))[:-2], pa.field("ledger_source", pa.string()), pa.field("late", pa.bool_())])


def of_rejects(rejects: pa.Table, generation: int, now: int) -> pa.Table:
    """The rows to append to ``rejects`` (of REJECTED); a reject's revision is its generation's first, however often it
    is written."""
    n, columns = rejects.num_rows, rejects.select(REJECTED.names[:-2]).columns
    stamps = pa.array([revision(generation, 0)] * n), pa.array([now] * n).cast(_ARROW[TIMESTAMP])
    return pa.Table.from_arrays([*columns, *stamps], schema=schema(REJECTS))
