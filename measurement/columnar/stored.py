"""Rows of a table as they are stored, as the machines know them."""

import numpy as np
import pyarrow as pa

from measurement.columnar.deltas import NO_HOUR, Deltas, text_key
from measurement.columnar.identify import dimension_keys, row_keys
from measurement.columnar.labels import Labels
from measurement.model.tables import DELIVERY, Table


def of_rows(table: Table, rows: pa.Table) -> tuple[Deltas, np.ndarray]:
    """n latest rows of a totals table (its columns by name) and (n,) bool, whether they are of a closed hour."""
    n = rows.num_rows
    hours = rows[table.key[0].name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    texts = list(zip(*(rows[c.name].to_pylist() for c in table.texts))) if n else []
    labels = Labels()
    codes = np.array([[-1 if t is None else labels.code(t) for t in row] for row in texts], np.int32)
    packed = np.array([NO_HOUR if h is None else h for h in hours], np.int64)
    if table is DELIVERY:
        keys = np.column_stack(row_keys(*dimension_keys(texts), packed))
    else:
        keys = np.array([text_key(table.name, hour, *row) for hour, row in zip(hours, texts)], np.uint64)
    counts = np.column_stack([rows[c.name].to_numpy().astype(np.int64) for c in table.values])
    closed = np.array([s != "provisional" for s in rows["status"].to_pylist()], bool) if table.stated else np.ones(n, bool)
    return Deltas(keys.reshape(n, 2), packed, np.zeros(n, np.uint8), codes.reshape(n, len(table.texts)), counts, labels.texts), closed
