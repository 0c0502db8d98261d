"""A file of bookings read: .csv with a header, or .jsonl, an object a line; either has the columns of the table ``bookings``.

A whole file or nothing: every line that is wrong is named, with its field and why.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from measurement.model.bookings import BOOKINGS, METRICS
from measurement.model.events import TEST_ADVERTISER
from measurement.model.tables import BOOL, INT64, TIMESTAMP

_MAY_LACK = ("line_item_id", "currency", "cancelled")
_MOST = 2**63 - 1
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:\d\d)")


class BadBookings(ValueError):
    """A file that is not taken; the message is one line that names the file and every bad line."""


class _Bad(ValueError):
    """What is wrong with a line: its field, and why."""


def read(path: Path) -> list[dict]:
    """The file's bookings, a dict of the table's columns (BOOKINGS.body) each. BadBookings where it cannot be read, or a line is
    wrong or names a booking that another line names."""
    lines = {".csv": _of_csv, ".jsonl": _of_jsonl}.get(path.suffix)
    if lines is None:
        raise BadBookings(f"{path}: neither .csv nor .jsonl")
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise BadBookings(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadBookings(f"{path}: not UTF-8 at byte {error.start}") from error
    rows, wrong, seen = [], [], {}
    for number, line in lines(text):
        try:
            row = _row(line())
            if (first := seen.setdefault(row["booking_id"], number)) != number:
                raise _Bad(f"booking_id {row['booking_id']}: also in line {first}")
            rows.append(row)
        except _Bad as error:
            wrong.append(f"line {number}: {' '.join(str(error).split())}")
    if wrong:
        raise BadBookings(f"{path}: {'; '.join(wrong)}")
    return rows


def _of_csv(text: str) -> Iterator[tuple[int, Callable[[], dict]]]:
    """By line the fields of its row, to be asked for."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    while True:
        number = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, lambda error=error: _fail(str(error))
            return  # where the next line begins is not known
        if head is None:
            head = cells
            if bad := _names(head):
                yield number, lambda bad=bad: _fail(bad)
                return
        elif cells:
            yield number, lambda cells=cells: _of_cells(head, cells)


def _of_cells(head: list[str], cells: list[str]) -> dict:
    if len(cells) != len(head):
        raise _Bad(f"{len(cells)} fields, and the header has {len(head)}")
    return {name: _typed(name, cell) for name, cell in zip(head, cells) if cell != ""}


def _typed(name: str, cell: str):
    """A cell as JSON would have it; what it should not be stays a text, and is refused as one."""
    kind = _TYPES.get(name)
    if kind == INT64 and re.fullmatch(r"-?\d{1,19}", cell):
        return int(cell)
    return {"true": True, "false": False}.get(cell.lower(), cell) if kind == BOOL else cell


def _of_jsonl(text: str) -> Iterator[tuple[int, Callable[[], dict]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, lambda line=line: _of_line(line)


def _of_line(line: str) -> dict:
    try:
        pairs = json.loads(line, object_pairs_hook=list)
    except ValueError as error:
        raise _Bad(f"not JSON: {error}") from None
    if not line.lstrip().startswith("{"):
        raise _Bad("not a JSON object")
    names = [name for name, _ in pairs]
    if bad := _names(names, whole=False):
        raise _Bad(bad)
    return {name: value for name, value in pairs if value is not None}


_TYPES = {c.name: c.type for c in BOOKINGS.body}


def _names(given: list[str], whole: bool = True) -> str | None:
    """What is wrong with a list of fields."""
    for name in given:
        if name not in _TYPES:
            return f"{name or 'a field without a name'}: not one of {', '.join(_TYPES)}"
        if given.count(name) > 1:
            return f"{name}: twice"
    lacking = [name for name in _TYPES if name not in (*given, *_MAY_LACK)] if whole else []
    return f"{lacking[0]}: missing" if lacking else None


def _row(given: dict) -> dict:
    row = {c.name: _value(c.name, given.get(c.name)) for c in BOOKINGS.body}
    if row["advertiser_id"].startswith(TEST_ADVERTISER):
        raise _Bad(f"advertiser_id {row['advertiser_id']}: a probe's")
    if row["metric"] not in METRICS:
        raise _Bad(f"metric {row['metric']}: not one of {', '.join(METRICS)}")
    if row["goal"] < 1:
        raise _Bad(f"goal {row['goal']}: not 1 or more")
    if row["starts_at"] >= row["ends_at"]:
        raise _Bad("ends_at: not after starts_at")
    if (row["currency"] is None) == (row["metric"] == "spend_micros"):
        raise _Bad("currency: spend_micros needs one" if row["currency"] is None else f"currency: {row['metric']} has none")
    if row["currency"] is not None and not re.fullmatch("[A-Z]{3}", row["currency"]):
        raise _Bad(f"currency {row['currency']}: not three capital letters")
    return row


def _value(name: str, value):
    """A field's value by its column's type."""
    if value is None or value == "":
        if name == "cancelled":
            return False
        if name in _MAY_LACK:
            return None
        raise _Bad(f"{name}: missing")
    kind = _TYPES[name]
    if kind == TIMESTAMP:
        return _time(name, value)
    if kind == INT64 and (type(value) is not int or abs(value) > _MOST):
        raise _Bad(f"{name} {value}: not a whole number below 2^63")
    if kind == BOOL and type(value) is not bool:
        raise _Bad(f"{name} {value}: neither true nor false")
    if kind not in (INT64, BOOL) and type(value) is not str:
        raise _Bad(f"{name} {value}: not a text")
    return value


def _time(name: str, value) -> datetime:
    if type(value) is not str or not _TIME.fullmatch(value):
        raise _Bad(f"{name} {value}: not a time with its offset, such as 2026-03-02T00:00:00Z")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise _Bad(f"{name} {value}: {error}") from None


def _fail(why: str):
    raise _Bad(why)
