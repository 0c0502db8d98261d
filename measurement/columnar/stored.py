"""Rows of a table as they are stored, as the machines know them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from measurement.columnar.deltas import NO_HOUR, POLICY, REBUILD, Deltas, keys_of
from measurement.columnar.identify import dimension_keys
from measurement.columnar.labels import Labels, begins
from measurement.columnar.numeric import to_units
from measurement.columnar.texts import numbered
from measurement.model.tables import DELIVERY, NUMERIC, TIMESTAMP, Column, Table


def of_rows(table: Table, rows: pa.Table, rules: str) -> tuple[Deltas, np.ndarray]:
    """n latest rows of a totals table (its columns by name) and (n,) bool, whether they are of a closed hour. A row that was
    counted by other rules than ``rules``, with which a ``rule_version`` begins, is restated because of the policy."""
    n = rows.num_rows
    hours = pc.fill_null(_micros(rows[table.time]), NO_HOUR).to_numpy()
    labels = Labels()
    codes = np.column_stack([_codes(labels, _texts(c, rows[c.name])) for c in table.texts])
    counts = np.column_stack([_sums(c, rows[c.name]) for c in table.values])
    closed = pc.not_equal(rows["status"], "provisional").to_numpy() if table.stated else np.ones(n, bool)
    keys = _keys(table, hours, codes, labels.texts).reshape(n, 2)
    same = pc.starts_with(rows["rule_version"], rules).to_numpy() if table.stated else np.ones(n, bool)
    return Deltas(keys, hours, np.where(same, REBUILD, POLICY).astype(np.uint8), codes, counts, labels.texts), closed


def of_ends(table: Table, ends: list[pa.Table], rules: str) -> tuple[Deltas, np.ndarray, np.ndarray]:
    """The same of what stands at several places, the latest of all; and (n,) bool, of which rows they do not have the same
    revision: a job that died between two of its writes."""
    rows = pa.concat_tables(ends)
    deltas, closed = of_rows(table, rows, rules)
    revisions = rows["revision"].to_numpy()
    order = np.lexsort((revisions, deltas.keys[:, 1], deltas.keys[:, 0]))
    first = begins(*deltas.keys[order].T)
    last = np.append(first, len(order))[1:] - 1
    apart = (last - first + 1 < len(ends)) | (revisions[order[first]] != revisions[order[last]])
    return deltas.take(order[last]), closed[order[last]], apart


def _keys(table: Table, hours: np.ndarray, codes: np.ndarray, labels: list[str]) -> np.ndarray:
    """The fingerprints that the machines gave the rows when they made them."""
    if table is not DELIVERY:
        return keys_of(hours, codes, labels)
    texts = [tuple(None if c < 0 else labels[c] for c in row) for row in codes.tolist()]
    return np.column_stack(numbered(*dimension_keys(texts), hours))


def _codes(labels: Labels, texts: pa.ChunkedArray) -> np.ndarray:
    coded = texts.combine_chunks().dictionary_encode()
    code_of = np.array([*(labels.code(text) for text in coded.dictionary.to_pylist()), -1], np.int32)
    return code_of[pc.fill_null(coded.indices, len(code_of) - 1).to_numpy()]


def _texts(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A time that is no hour travels as the digits of its microseconds."""
    return (_micros(values) if column.type == TIMESTAMP else values).cast(pa.string())


def _sums(column: Column, values: pa.ChunkedArray) -> np.ndarray:
    return to_units(values) if column.type == NUMERIC else values.cast(pa.int64()).to_numpy()


def _micros(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
