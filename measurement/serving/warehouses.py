"""Reports from a warehouse by SQL: BigQuery's, and the same text in DuckDB's dialect."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from measurement.columnar.numeric import to_units
from measurement.exports.source import Source, local
from measurement.failure import Failure
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.endpoints import Endpoints
from measurement.local.warehouse import Warehouse, WarehouseError
from measurement.model.bookings import BOOKINGS
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.sql import duckdb
from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC, NUMERIC, TIMESTAMP, Table
from measurement.model.views.pacing import PACING
from measurement.serving.positions import hour_of, in_order
from measurement.serving.reports import Advertiser, Newest, Row, Scope, Unavailable, is_probe

Ask = Callable[[str, dict], pa.Table]


class SqlReports(ABC):
    """``place``: project.dataset, or DuckDB's schema."""

    short: frozenset[str] = frozenset()

    def __init__(self, place: str):
        self._place = place

    @abstractmethod
    def _ask(self, sql: str, **parameters: str | int) -> pa.Table:
        """A query's rows; ``@name`` in it is the parameter of that name. Unavailable where it fails."""

    def rows(self, scope: Scope, after: bytes | None, most: int) -> list[Row]:
        if after is None:
            return in_order(scope.table, self._hours(scope, scope.start, scope.stop, most), None, most)
        # The rest of the hour in which the last page ended, then the hours before it.
        hour = hour_of(after)
        begun = self._hours(scope, max(hour, scope.start), min(hour + MICROS_PER_HOUR, scope.stop))
        rest = in_order(scope.table, begun, after, most)
        stop, left = min(hour, scope.stop), most - len(rest)
        if not left or stop <= scope.start:
            return rest
        return rest + in_order(scope.table, self._hours(scope, scope.start, stop, left), None, left)

    def _hours(self, scope: Scope, start: int, stop: int, most: int | None = None) -> list[Row]:
        """Rows of whole hours: all, or the latest of them that have at least ``most``."""
        table = scope.table
        given = {"advertiser_id": scope.advertiser_id, "start": start, "stop": stop}
        of = f"FROM {self._view(table)} WHERE advertiser_id = @advertiser_id AND window_start < TIMESTAMP_MICROS(@stop)"
        if scope.campaign_id is not None:
            of, given["campaign_id"] = f"{of} AND campaign_id = @campaign_id", scope.campaign_id
        since = "TIMESTAMP_MICROS(@start)"
        if most is not None:
            given["most"] = most
            last = f"SELECT window_start {of} AND window_start >= {since} ORDER BY window_start DESC"
            since = f"coalesce((SELECT min(window_start) FROM ({last} LIMIT @most)), {since})"
        return tuples(table, self._ask(f"SELECT {', '.join(c.name for c in table.columns)} {of} AND window_start >= {since}", **given))

    def newest(self, table: Table) -> Newest | None:
        # A closed hour stays closed, so any revision may tell.
        closed = f"FROM {self._table(table)} WHERE status <> 'provisional'"
        hour = f"(SELECT max(window_start) {closed})"
        told = self._ask(f"SELECT max(window_start) AS hour, max(published_at) AS published {closed} AND window_start = {hour}")
        [hour], [published] = (_micros(told[name]) for name in ("hour", "published"))
        return None if hour is None else Newest(hour + MICROS_PER_HOUR, published)

    def known(self, advertiser_id: str) -> bool:
        return any(self._ask(f"SELECT 1 AS one FROM {self._table(table)} WHERE advertiser_id = @advertiser_id LIMIT 1",
                             advertiser_id=advertiser_id).num_rows for table in (DELIVERY, ATTRIBUTION))

    def advertisers(self) -> list[Advertiser]:
        told = self._ask("SELECT advertiser_id, max(window_start) AS hour, max(published_at) AS published "
                         f"FROM {self._table(DELIVERY)} GROUP BY 1")
        everyone = zip(told["advertiser_id"].to_pylist(), _micros(told["hour"]), _micros(told["published"]), strict=True)
        return sorted((Advertiser(*one) for one in everyone if not is_probe(one[0])), key=lambda a: a.advertiser_id)

    def pacing(self, advertiser_id: str | None, most: int) -> list[Row]:
        """By the view's text and not by the view, which an older run's warehouse lacks or has as it was then."""
        if not self._booked():
            return []
        names = [c.name for c in PACING.columns]
        whose, given = "", {}
        if advertiser_id is not None:
            whose, given = "WHERE advertiser_id = @advertiser_id ", {"advertiser_id": advertiser_id}
        told = self._ask(f"SELECT {', '.join(names)} FROM ({PACING.select(self._place)}) AS pacing {whose}"
                         "ORDER BY advertiser_id, starts_at, booking_id LIMIT @most", most=most, **given)
        return list(zip(*(_plain(c.type, told[c.name]) for c in PACING.columns), strict=True))

    @abstractmethod
    def source(self) -> Source: ...

    def check(self) -> None:
        for table in (DELIVERY, ATTRIBUTION, INVALID_TRAFFIC):
            self._ask(f"SELECT 1 AS one FROM {self._table(table)} LIMIT 1")

    def close(self) -> None: ...

    def _booked(self) -> bool:
        """Whether there is a table of bookings."""
        return True  # made by `measurement provision`; a place that lacks it is asked in vain, and the log says what is missing

    def _table(self, table: Table) -> str:
        return f"`{self._place}.{table.name}`"

    def _view(self, table: Table) -> str:
        return f"`{self._place}.{table.name}_latest`"


class DuckDbReports(SqlReports):
    """A local run's warehouse. A connection a query: whoever kept one would keep the job from writing."""

    def __init__(self, out: Path):
        super().__init__("main")
        self._warehouse = Warehouse(out)

    def source(self) -> Source:
        with _told(Failure, WarehouseError, OSError):
            found = local(self._warehouse.out)
        return _unavailing(found, WarehouseError, OSError)

    def _ask(self, sql: str, **parameters: str | int) -> pa.Table:
        with _told(WarehouseError, OSError), self._warehouse.read() as db:
            return db.sql(duckdb(sql), params=parameters).to_arrow_table()

    def _booked(self) -> bool:
        """Not in the warehouse of an older run."""
        there = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'main' AND table_name = ?"
        with _told(WarehouseError, OSError), self._warehouse.read() as db:
            return db.execute(there, [f"{BOOKINGS.name}_latest"]).fetchone() is not None


class BigQueryReports(SqlReports):
    """What Bigtable does not serve. A query takes a second or more."""

    def __init__(self, endpoints: Endpoints, dataset: str):
        super().__init__(dataset)
        self._reader = Reader(endpoints, dataset)

    def source(self) -> Source:
        return _unavailing(Source(self._reader.query, self._place, under_way=True), BigQueryError)

    def _ask(self, sql: str, **parameters: str | int) -> pa.Table:
        with _told(BigQueryError):
            return self._reader.query(sql, parameters)

    def close(self) -> None:
        self._reader.close()


@contextmanager
def _told(*errors: type[Exception]) -> Iterator[None]:
    """The warehouse's errors as Unavailable."""
    try:
        yield
    except errors as error:
        raise Unavailable(str(error)) from error


def _unavailing(source: Source, *errors: type[Exception]) -> Source:
    def query(sql: str) -> pa.Table:
        with _told(*errors):
            return source.query(sql)

    return replace(source, query=query)


def tuples(table: Table, rows: pa.Table) -> list[Row]:
    """Rows of a table's public columns."""
    return list(zip(*(_plain(c.type, rows[c.name]) for c in table.columns), strict=True))


def _plain(kind: str, values: pa.ChunkedArray) -> list:
    if kind == TIMESTAMP:
        return _micros(values)
    return to_units(values).tolist() if kind == NUMERIC else values.to_pylist()


def _micros(values: pa.ChunkedArray) -> list[int | None]:
    return values.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
