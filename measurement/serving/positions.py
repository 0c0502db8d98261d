"""The order of an answer's rows: that of Bigtable's keys, whoever reads them, so that a page can end and begin anywhere.

Latest hour first; within an hour by the dimensions in the table's order, unknown ones first, texts as their UTF-8 bytes and
those of more than 200 bytes by a digest. A row's *position* is its key by hour without the advertiser.
"""

from collections.abc import Iterable

from measurement.io import bigtable_keys as keys
from measurement.model.tables import Table
from measurement.serving.reports import Row


def position(table: Table, row: Row) -> bytes:
    start, texts = shape(table)
    return keys.hour(row[start]) + b"".join(keys.text(row[at]) for at in texts)


def in_order(table: Table, rows: Iterable[Row], after: bytes | None, most: int) -> list[Row]:
    """The first ``most`` rows behind ``after``."""
    placed = sorted((p, row) for row in rows if (p := position(table, row)) > (after or b""))
    return [row for _, row in placed[:most]]


def hour_of(position: bytes) -> int:
    """The hour (µs) of a position."""
    return keys.parse(b"\0" + keys.BY_HOUR + position[: keys.HOUR_BYTES])[1]


def in_campaign(advertiser: bytes, campaign: bytes, position: bytes) -> bytes:
    """The key by campaign of the row at a position; the advertiser and the campaign are the caller's."""
    rest = position[position.index(b"\0", keys.HOUR_BYTES) + 1 :]
    return keys.by_campaign(advertiser, position[: keys.HOUR_BYTES], campaign, rest)


def in_advertiser(advertiser: bytes, position: bytes) -> bytes:
    """The key by hour of the row at a position."""
    return advertiser + keys.BY_HOUR + position


def shape(table: Table) -> tuple[int, list[int]]:
    """Where a row has its hour, and where the texts of its position."""
    names = [c.name for c in table.columns]
    return names.index(table.time), [names.index(c.name) for c in table.texts if c.name != "advertiser_id"]


def is_position(raw: bytes) -> bool:
    """Whether the bytes could be one: an hour and at least the campaign behind it."""
    return len(raw) > keys.HOUR_BYTES and raw.endswith(b"\0") and b"\0" in raw[keys.HOUR_BYTES :]
