"""What is published, read back from BigQuery and Bigtable: what a rebuild compares its rows with."""

import threading
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from measurement.io.bigquery_admin import Reader
from measurement.io.bigtable_read import scan_all
from measurement.io.bigtable_service import SERVED
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.model.events import MAX_TIME_MICROS, MIN_TIME_MICROS
from measurement.model.tables import Table
from measurement.monitors.ledger import text


@dataclass(frozen=True)
class StoredRows:
    """A Stored (measurement/transforms/config.py) over the ``_latest`` views of ``dataset`` and the tables of ``instance``.

    A job that died had written some rows to one of them and not yet to the other.
    """

    endpoints: Endpoints
    dataset: str
    instance: str
    run: str  # rows are read once a run

    def latest(self, table: Table, since: int | None, until: int | None) -> list[pa.Table]:
        with _one_reads:  # the shards of a table in one process ask for the same
            return _read(self, table, since, until)


_one_reads = threading.Lock()


@lru_cache(maxsize=1)
def _read(stored: StoredRows, table: Table, since: int | None, until: int | None) -> list[pa.Table]:
    limits = [f"{table.time} {sign} TIMESTAMP '{text(limit)}'" for sign, limit in ((">=", since), ("<", until)) if limit is not None]
    where = f" WHERE {' AND '.join(limits)}" if limits else ""
    with Reader(stored.endpoints, stored.dataset) as reader:
        rows = reader.query(f"SELECT * FROM `{stored.dataset}.{table.name}_latest`{where}")
    public = schema(table)
    ends = [rows.select(public.names).cast(public)]
    if table.name in SERVED:
        first, end = MIN_TIME_MICROS if since is None else since, MAX_TIME_MICROS + 1 if until is None else until
        ends.append(scan_all(stored.endpoints, stored.instance, table.name, first, end))
    return ends
