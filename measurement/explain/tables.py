"""The rows of the tables that an event should be in, asked for in BigQuery's SQL, for either warehouse."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlglot import exp

from measurement.model.events import DIMENSIONS
from measurement.model.tables import CREDITS, DELIVERY, REJECTS, RESOLVED
from measurement.monitors.ledger import micros

Query = Callable[[str], list[dict]]
Row = dict

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REJECT = ", ".join(c.name for c in REJECTS.columns if c.name != "payload")
_CREDIT = ", ".join(c.name for c in CREDITS.columns)
_HISTORY = ", ".join(c.name for c in DELIVERY.columns if c.name not in ("window_start", *DIMENSIONS))


class Tables:
    """``dataset`` is project.dataset, or a DuckDB schema."""

    def __init__(self, query: Query, dataset: str):
        self._query, self._dataset = query, dataset

    def ledger(self, hour: int | None, source: str, event_type: str | None, outcome: str) -> Row | None:
        return self._one("ledger", {"window_start": hour, "source": source, "event_type": event_type, "outcome": outcome})

    def reject(self, reject_id: str) -> Row | None:
        """The reject that stands; one that a later generation resolved does not."""
        row = self._one("rejects", {"reject_id": reject_id}, _REJECT)
        return None if row is None or row["reason"] == RESOLVED else row

    def rejects_of(self, event_id: str, event_type: str) -> list[Row]:
        rows = self._rows("rejects", {"event_id": event_id, "event_type": event_type}, _REJECT)
        return sorted((row for row in rows if row["reason"] != RESOLVED), key=lambda row: row["reject_id"])

    def delivery(self, hour: int, dimensions: dict[str, str | None]) -> list[Row]:
        """Every revision of a row, by rising revision."""
        rows = self._rows("delivery", {"window_start": hour, **dimensions}, _HISTORY, latest=False)
        return sorted(rows, key=lambda row: (row["revision"], row["published_at"]))

    def invalid(self, hour: int, dimensions: dict[str, str | None], event_type: str, reason: str) -> Row | None:
        return self._one("invalid_traffic", {"window_start": hour, **dimensions, "event_type": event_type, "reason": reason})

    def credits_of(self, conversion_id: str, time: int, advertiser: str) -> list[Row]:
        """What a conversion's touches earned of it."""
        rows = self._rows("conversion_credits", {"conversion_id": conversion_id, "advertiser_id": advertiser}, _CREDIT)
        return _by_model(row for row in rows if micros(row["conversion_time"]) == time)

    def credits_by(self, touch_id: str, touch_type: str, time: int, advertiser: str) -> list[Row]:
        """What a touch earned, of which conversions."""
        where = {"touch_id": touch_id, "touch_type": touch_type, "advertiser_id": advertiser}
        return _by_model(row for row in self._rows("conversion_credits", where, _CREDIT) if micros(row["touch_time"]) == time)

    def _one(self, table: str, where: dict, columns: str = "*") -> Row | None:
        rows = self._rows(table, where, columns)
        return rows[0] if rows else None

    def _rows(self, table: str, where: dict, columns: str = "*", latest: bool = True) -> list[Row]:
        conditions = " AND ".join(_equals(column, value) for column, value in where.items())
        return self._query(f"SELECT {columns} FROM `{self._dataset}.{table}{'_latest' if latest else ''}` WHERE {conditions}")


def _by_model(rows) -> list[Row]:
    return sorted(rows, key=lambda row: (row["model"], row["conversion_time"], row["conversion_id"], row["touch_time"] or _EPOCH,
                                         row["touch_id"] or ""))


def _equals(column: str, value: str | int | None) -> str:
    """A condition; a whole number is a time (µs)."""
    if value is None:
        return f"{column} IS NULL"
    if isinstance(value, int):
        return f"{column} = TIMESTAMP '{(_EPOCH + timedelta(microseconds=value)).isoformat(sep=' ')}'"
    return f"{column} = {exp.Literal.string(value).sql('bigquery')}"


def second(at: datetime) -> str:
    """A time to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def plain(value):
    """A table's value as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return f"{value:f}" if isinstance(value, Decimal) else value
