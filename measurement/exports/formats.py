"""Rows as csv, parquet or xlsx: the same rows, the same bytes.

A spreadsheet evaluates a cell that begins with =, +, - or @, and ids are whatever senders put there. In xlsx every text is
written as text. In csv a text has an apostrophe before each such beginning, also behind a separator or line end within it, where
a spreadsheet set to that separator would begin a cell; ``unguarded`` takes them away again. Numbers are numbers and bear no mark.
"""

import csv
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter

from measurement.exports.request import Format, instant
from measurement.failure import Failure

SHEET_ROWS, CELL_TEXT = 1_048_576, 32_767  # that Excel takes
_EPOCH = datetime(1970, 1, 1)
# A text's beginnings: its own, and behind what may separate cells. Full-width forms are evaluated too.
_GUARDED = re.compile(r"(^|[;,|\t\r\n])(?=['=+\-@＝＋－＠\t\r\n])")
_GUARD = re.compile(r"(^|[;,|\t\r\n])'")


class Unfit(Failure):
    """The format cannot hold the rows."""


def write(path: Path, format_: Format, rows: pa.Table, about: dict) -> None:
    """``about``: what an xlsx file says of itself in a second sheet. Unfit where the format cannot hold the rows."""
    if format_ is Format.csv:
        _write_csv(path, rows)
    elif format_ is Format.parquet:
        pq.write_table(rows, path, compression="zstd")
    else:
        _write_xlsx(path, rows, about)


def guarded(text: str) -> str:
    return _GUARDED.sub(r"\1'", text)


def unguarded(text: str) -> str:
    return _GUARD.sub(r"\1", text)


def digits(number: Decimal) -> str:
    """Without exponent, and without zeros at its end."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Plain(Decimal):
    """What csv takes for a number, and writes by its digits."""

    __str__ = digits


def _write_csv(path: Path, rows: pa.Table) -> None:
    """RFC 4180, UTF-8 with the mark by which Excel knows it. Texts and times are quoted, numbers are not, NULL is empty."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(rows.schema.names)
        for batch in rows.to_batches(max_chunksize=10_000):
            columns = [[_csv(value) for value in column.to_pylist()] for column in batch.columns]
            writer.writerows(zip(*columns))


def _csv(value):
    if isinstance(value, str):
        return guarded(value)
    if isinstance(value, datetime):
        return instant(value)
    return _Plain(value) if isinstance(value, Decimal) else value


def _write_xlsx(path: Path, rows: pa.Table, about: dict) -> None:
    if rows.num_rows >= SHEET_ROWS:
        raise Unfit(f"--format xlsx: {rows.num_rows:,} rows are more than a sheet's {SHEET_ROWS - 1:,}; take csv or parquet, or a shorter range")
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(path, options) as book:
        book.set_properties({"created": _EPOCH})
        styles = {"head": book.add_format({"bold": True}), "hour": book.add_format({"num_format": "yyyy-mm-dd hh:mm"}),
                  "micro": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"}), "number": book.add_format({"num_format": "#,##0"}),
                  "exact": book.add_format({"num_format": "#,##0.#########"})}
        sheet = book.add_worksheet("rows")
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, rows.num_rows, max(0, rows.num_columns - 1))
        for at, field in enumerate(rows.schema):
            sheet.set_column(at, at, _width(rows, field))
        for at, name in enumerate(rows.schema.names):
            _put(sheet, 0, at, name, styles["head"], styles)
        line = 0
        looks = [_look(f, styles) for f in rows.schema]
        for batch in rows.to_batches(max_chunksize=10_000):
            for values in zip(*(column.to_pylist() for column in batch.columns)):
                line += 1
                for at, value in enumerate(values):
                    _put(sheet, line, at, value, looks[at], styles)
        sheet = book.add_worksheet("about")
        sheet.set_column(0, 0, 24)
        sheet.set_column(1, 1, 60)
        for line, (name, value) in enumerate(about.items()):
            _put(sheet, line, 0, name, styles["head"], styles)
            _put(sheet, line, 1, value, None, styles)


def _put(sheet, row: int, column: int, value, look, styles) -> None:
    """Times are UTC. A number of more digits than a spreadsheet keeps (15) is text, so that none is lost."""
    if value is None:
        return
    if isinstance(value, datetime):
        wrong = sheet.write_datetime(row, column, value.astimezone(UTC).replace(tzinfo=None), look or styles["hour"])
    elif isinstance(value, int | Decimal) and len(Decimal(value).normalize().as_tuple().digits) <= 15:
        wrong = sheet.write_number(row, column, value, look)
    else:
        text = value if isinstance(value, str) else digits(Decimal(value))
        wrong = sheet.write_string(row, column, text, look)
    if wrong:
        raise Unfit(f"--format xlsx: a text of {len(str(value)):,} characters is more than a cell's {CELL_TEXT:,}; take csv or parquet")


def _look(field: pa.Field, styles: dict):
    if pa.types.is_timestamp(field.type):
        return styles["hour" if field.name.startswith("window") else "micro"]
    if pa.types.is_decimal(field.type):
        return styles["exact"]
    return styles["number"] if pa.types.is_integer(field.type) and not field.name.endswith("revision") else None


def _width(rows: pa.Table, field: pa.Field) -> int:
    if pa.types.is_timestamp(field.type):
        return max(len(field.name) + 3, 17 if field.name.startswith("window") else 24)
    texts: Iterable = rows[field.name].slice(0, 1000).to_pylist()
    return min(40, max([len(field.name) + 3, *(len(str(v)) + 1 for v in texts if v is not None)]))
