"""Where exports read: the local warehouse or BigQuery, by the same queries.

All that is read is as of one time: rows published after it are not seen, however long an export takes, so its files agree.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from sqlglot import exp

from measurement.model.events import TEST_ADVERTISER
from measurement.failure import Failure
from measurement.io.publication import schema
from measurement.model.revisions import GENERATION_BITS
from measurement.model.sql import duckdb, standing
from measurement.model.tables import ATTRIBUTION, DELIVERY, Table

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Moment:
    """What is seen: revisions published until ``as_of``, of which ``revision`` is the highest (None: there is none from
    ``first`` on). ``closed``: of each hour that had closed by then the generation that closed it first; of all advertisers, so that
    it says nothing of one. ``settled``: the hours before it are closed and all their rows are there."""

    first: datetime
    as_of: datetime | None
    revision: int | None
    closed: dict[datetime, int]
    complete_until: datetime | None
    settled: datetime | None

    def closed_by(self, end: datetime) -> int:
        """The generation that first closed the hour before ``end``, or one behind it."""
        return min(generation for hour, generation in self.closed.items() if hour >= end - _HOUR)

    def began(self, month: str) -> datetime | None:
        """The first day of a month (YYYY-MM) with an hour that the first generation of that month closed: what a later one adds
        before it changes it no more."""
        of_month = {hour: generation for hour, generation in self.closed.items() if f"{hour:%Y-%m}" == month}
        first = min(of_month.values(), default=None)
        return min((hour.replace(hour=0) for hour, generation in of_month.items() if generation == first), default=None)


@dataclass(frozen=True)
class Source:
    """``query`` runs a text of BigQuery's dialect over ``dataset``; ``under_way``: rows may still be written."""

    query: Callable[[str], pa.Table]
    dataset: str
    under_way: bool

    def moment(self, first: datetime, as_of: datetime | None = None) -> Moment:
        """Now, or as it was at ``as_of``. It is of all advertisers' rows from ``first`` on, so that nobody's own change shows."""
        until = "" if as_of is None else f" AND published_at <= {_time(as_of)}"
        newest, highest = [], []
        for table in (DELIVERY, ATTRIBUTION):
            [row] = self._rows(f"SELECT max(published_at) AS newest, max(revision) AS highest FROM {self._of(table)} "
                               f"WHERE window_start >= {_time(first)}{until}")
            if row["newest"] is not None:
                newest.append(row["newest"].astimezone(UTC))
                highest.append(int(row["highest"]))
        if not newest:
            return Moment(first, None, None, {}, None, None)
        seen = as_of or max(newest)
        hours = self._rows(f"SELECT window_start, min(revision) AS lowest FROM {self._of(DELIVERY)} WHERE status = 'final' "
                           f"AND window_start >= {_time(first)} AND published_at <= {_time(seen)} GROUP BY window_start")
        closed = {row["window_start"].astimezone(UTC): int(row["lowest"]) >> GENERATION_BITS for row in hours}
        until = max(closed) + _HOUR if closed else None
        # The tables close an hour one after the other; when a later hour has closed they all have.
        settled = until - _HOUR if until and self.under_way else until
        return Moment(first, seen, max(highest), closed, until, settled)

    def advertisers(self, tables: Iterable[Table], start: datetime, stop: datetime, as_of: datetime | None) -> list[str]:
        """Who has rows in the range, probes left out."""
        if as_of is None:
            return []
        found = set()
        for table in tables:
            rows = self._rows(f"SELECT DISTINCT advertiser_id FROM {self._of(table)} WHERE {_between(start, stop, as_of)}")
            found |= {row["advertiser_id"] for row in rows}
        return sorted(a for a in found if not a.startswith(TEST_ADVERTISER))

    def knows(self, advertiser: str) -> bool:
        """Whether any row was ever published of it."""
        return any(self._rows(f"SELECT advertiser_id FROM {self._of(t)} WHERE {_equals('advertiser_id', advertiser)} LIMIT 1")
                   for t in (DELIVERY, ATTRIBUTION))

    def latest(self, table: Table, advertiser: str, start: datetime, stop: datetime, as_of: datetime) -> pa.Table:
        """Of each key the highest revision that was published by then."""
        return self._read(table, advertiser, start, stop, as_of, f" {standing(table)}")

    def published(self, table: Table, advertiser: str, start: datetime, stop: datetime, as_of: datetime) -> pa.Table:
        """Every revision of closed hours that was published by then."""
        return self._read(table, advertiser, start, stop, as_of, " AND status <> 'provisional'")

    def _read(self, table: Table, advertiser: str, start: datetime, stop: datetime, as_of: datetime, also: str) -> pa.Table:
        public = schema(table)
        rows = self.query(f"SELECT {', '.join(public.names)} FROM {self._of(table)} WHERE {_equals('advertiser_id', advertiser)} "
                          f"AND {_between(start, stop, as_of)}{also}")
        return rows.select(public.names).cast(public)

    def _of(self, table: Table) -> str:
        return f"`{self.dataset}.{table.name}`"

    def _rows(self, sql: str) -> list[dict]:
        return self.query(sql).to_pylist()


def local(warehouse: Path) -> Source:
    """The warehouse that runs into the directory have made. Failure where there is none."""
    from measurement.local.warehouse import Warehouse

    stored = Warehouse(warehouse)
    if not stored.path.is_file():
        raise Failure(f"--warehouse {warehouse}: no warehouse.duckdb there; `measurement run` makes one")
    with stored.read() as db:
        state = stored.run_state(db)

    def query(sql: str) -> pa.Table:
        # Opened for each query: a run that goes on must not wait for a long export.
        with stored.read() as db:
            return db.sql(_duckdb(sql)).to_arrow_table()

    return Source(query, "main", state != "complete")


@contextmanager
def cloud(profile: str, bigquery: str | None) -> Iterator[Source]:
    """BigQuery, or its emulator. CloudError or BigQueryError where it is not named or not there."""
    from measurement.cloud.places import Profile, named
    from measurement.io.bigquery_admin import Reader

    with Reader(Profile(profile).endpoints, named("--bigquery", bigquery)) as reader:
        reader.check((DELIVERY, ATTRIBUTION))
        yield Source(reader.query, reader.dataset, under_way=True)


_duckdb = duckdb.__wrapped__  # each text is asked once: nothing to remember


def _between(start: datetime, stop: datetime, as_of: datetime) -> str:
    return f"window_start >= {_time(start)} AND window_start < {_time(stop)} AND published_at <= {_time(as_of)}"


def _time(at: datetime) -> str:
    return f"TIMESTAMP '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"


def _equals(column: str, text: str) -> str:
    return f"{column} = {exp.Literal.string(text).sql('bigquery')}"
