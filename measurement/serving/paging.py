"""One page of an answer, by hour or by day, and the cursor of the next."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace

from measurement.model.tables import Table
from measurement.serving.days import by_day
from measurement.serving.positions import hour_of, in_order, is_position, position
from measurement.serving.reports import Reports, Row, Scope
from measurement.serving.times import MICROS_PER_DAY, day_from

MOST_READ = 100_000  # hourly rows that one page of days may be made of, some 100 MB while it is made
_MOST_DAYS = 32  # that one read asks for
_CHECK_BYTES = 8


class TooMuch(Exception):
    """A single day has more hourly rows than a page may be made of."""


class BadCursor(Exception):
    """The cursor is none, or was given for other parameters."""


@dataclass(frozen=True)
class Page:
    """``after``: the position of the last row where more follow. ``open_from``: the earliest hour (µs) among those read that is
    still provisional."""

    rows: list[Row]
    after: bytes | None
    open_from: int | None


def hours(reports: Reports, scope: Scope, after: bytes | None, most: int) -> Page:
    rows = reports.rows(scope, after, most + 1)
    return _page(scope.table, rows, most, _open_from(scope.table, rows[:most]))


def days(reports: Reports, scope: Scope, after: bytes | None, most: int) -> Page:
    """Whole UTC days that start in the scope's range, the latest first. Read block by block: a page of days cannot know how many
    hourly rows it is made of."""
    table, start, stop = scope.table, day_from(scope.start), day_from(scope.stop)
    if after is not None:
        stop = min(stop, hour_of(after) + MICROS_PER_DAY)
    rows: list[Row] = []
    open_from: int | None = None
    span = 1
    while stop > start and len(rows) <= most:
        begin = max(start, stop - span * MICROS_PER_DAY)
        read = reports.rows(replace(scope, start=begin, stop=stop), None, MOST_READ + 1)
        if len(read) > MOST_READ:
            if span == 1:
                raise TooMuch
            span = 1
            continue
        rows += in_order(table, by_day(table, read), after, len(read))
        found = _open_from(table, read)
        open_from = found if found is not None else open_from  # blocks go back in time
        stop, span = begin, min(2 * span, _MOST_DAYS)
    return _page(table, rows, most, open_from)


def _page(table: Table, rows: list[Row], most: int, open_from: int | None) -> Page:
    more = len(rows) > most
    rows = rows[:most]
    return Page(rows, position(table, rows[-1]) if more else None, open_from)


def _open_from(table: Table, rows: list[Row]) -> int | None:
    names = [c.name for c in table.columns]
    status, hour = names.index("status"), names.index(table.time)
    return min((row[hour] for row in rows if row[status] == "provisional"), default=None)


# A cursor is a position and a check of it with all parameters that it was given for. It is not signed, since nothing rests on
# it: whose rows are read is decided by the key and the path, and a position only says where in them to go on.


def cursor(asked: tuple, after: bytes) -> str:
    return base64.urlsafe_b64encode(_check(asked, after) + after).decode().rstrip("=")


def after(asked: tuple, cursor: str) -> bytes:
    """The position. BadCursor unless it was made for what is ``asked``."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadCursor from error
    check, found = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if check != _check(asked, found) or not is_position(found):
        raise BadCursor
    return found


def _check(asked: tuple, after: bytes) -> bytes:
    return hashlib.sha256(repr((1, asked, after)).encode()).digest()[:_CHECK_BYTES]
