"""What is published, read back from BigQuery: what a rebuild compares its rows with."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from measurement.io.bigquery_admin import Reader
from measurement.io.endpoints import Endpoints
from measurement.model.tables import Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoredRows:
    """A Stored (measurement/transforms/config.py) over the ``_latest`` views of ``dataset``."""

    endpoints: Endpoints
    dataset: str

    def latest(self, table: Table, since: int | None, until: int | None) -> pa.Table:
        hour = table.key[0].name
        limits = [f"{hour} {sign} TIMESTAMP '{_text(limit)}'" for sign, limit in ((">=", since), ("<", until)) if limit is not None]
        where = f" WHERE {' AND '.join(limits)}" if limits else ""
        with Reader(self.endpoints, self.dataset) as reader:
            return reader.query(f"SELECT * FROM `{self.dataset}.{table.name}_latest`{where}")


def _text(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S+00")
