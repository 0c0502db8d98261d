"""Receipts on their way with the rows that count their events, and what is told of them where the rows can be read.

They are metadata of the rows' Arrow schema, as is a name of the publication. A sink that wrote the rows tells of them in
table ``latency``; what is written again for a failure bears the same publication, and the last telling stands
(measurement/model/tables.py). Imports no Beam.
"""

import uuid
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa

from measurement.io.publication import schema
from measurement.model.latency import BUCKETS, waited
from measurement.model.tables import LATENCY

_PUBLICATION, _RECEIPTS = b"publication", b"receipts"


@dataclass(frozen=True)
class Received:
    """What a publication is the first to count. ``receipts``: see measurement/model/latency.py."""

    publication: str
    receipts: np.ndarray


def carrying(rows: pa.Table, receipts: np.ndarray) -> pa.Table:
    """The rows as a new publication of events of these receipts; without receipts the rows as they are."""
    if not len(receipts):
        return rows
    told = orjson.dumps(np.ascontiguousarray(receipts), option=orjson.OPT_SERIALIZE_NUMPY)
    return rows.replace_schema_metadata({_PUBLICATION: uuid.uuid4().hex.encode(), _RECEIPTS: told})


def carried(tables: list[pa.Table]) -> list[Received]:
    """What the rows of some publications carry."""
    told = [rows.schema.metadata or {} for rows in tables]
    return [Received(one[_PUBLICATION].decode(), np.array(orjson.loads(one[_RECEIPTS]), np.int64)) for one in told if _RECEIPTS in one]


def rows_of(sink: str, received: list[Received], now: int, since: int | None = None) -> pa.Table:
    """Rows of ``latency``: what could be read in ``sink`` from ``now`` (µs) on. ``since``: see waited()."""
    rows = [(it.publication, bound, n) for it in received
            for bound, n in zip(BUCKETS, waited(it.receipts, now, since).tolist()) if n]
    publications, bounds, events = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    at = pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), len(rows))
    revisions = pa.repeat(pa.scalar(now // 1_000, pa.int64()), len(rows))
    columns = [pa.repeat(sink, len(rows)), pa.array(publications, pa.string()), pa.array(bounds, pa.int64()),
               pa.array(events, pa.int64()), at, revisions, at]
    return pa.Table.from_arrays(columns, schema=schema(LATENCY))
