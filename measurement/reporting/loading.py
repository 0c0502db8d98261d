"""What a load of rows that people state changes: those that are new or say something else become revisions, the others nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from measurement.model.tables import Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Appends what is given the table's latest rows and answers the rows to append, all or none of them.
Append = Callable[[Table, Callable[[list[dict]], list[dict]]], None]


class Loaded(NamedTuple):
    """Rows of a load by what they were."""

    new: int
    changed: int
    same: int


def load(table: Table, rows: list[dict], now: int, append: Append) -> Loaded:
    """``rows`` are dicts of the table's body, each key once; ``now`` is µs. Loading the same rows again changes nothing."""
    loaded = Loaded(0, 0, 0)

    def changes(latest: list[dict]) -> list[dict]:
        nonlocal loaded
        there = {_of(table.key, row): row for row in latest}
        same = [row for row in rows if _of(table.body, row) == _of(table.body, there.get(_of(table.key, row), {}))]
        changed = [row for row in rows if row not in same and _of(table.key, row) in there]
        loaded = Loaded(len(rows) - len(same) - len(changed), len(changed), len(same))
        # A clock that went back must not hide what is said last.
        number = max([now, *(row["revision"] + 1 for row in latest)])
        return [row | {"revision": number, "published_at": _EPOCH + timedelta(microseconds=now)} for row in rows if row not in same]

    append(table, changes)
    return loaded


def _of(columns, row: dict) -> tuple:
    return tuple(row.get(c.name) for c in columns)
