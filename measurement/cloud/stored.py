"""What is published, read back from BigQuery: what a rebuild compares its rows with."""

import threading
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from measurement.io.bigquery_admin import Reader
from measurement.io.endpoints import Endpoints
from measurement.model.tables import Table
from measurement.monitors.ledger import text


@dataclass(frozen=True)
class StoredRows:
    """A Stored (measurement/transforms/config.py) over the ``_latest`` views of ``dataset``."""

    endpoints: Endpoints
    dataset: str
    run: str  # rows are read once a run

    def latest(self, table: Table, since: int | None, until: int | None) -> pa.Table:
        limits = [f"{table.time} {sign} TIMESTAMP '{text(limit)}'" for sign, limit in ((">=", since), ("<", until)) if limit is not None]
        where = f" WHERE {' AND '.join(limits)}" if limits else ""
        with _one_reads:  # the shards of a table in one process ask for the same
            return _read(self, f"SELECT * FROM `{self.dataset}.{table.name}_latest`{where}")


_one_reads = threading.Lock()


@lru_cache(maxsize=1)
def _read(stored: StoredRows, sql: str) -> pa.Table:
    with Reader(stored.endpoints, stored.dataset) as reader:
        return reader.query(sql)
