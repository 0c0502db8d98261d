"""`measurement query`: a question's text in, its rows out."""

import csv
import sys
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from measurement.failure import Failure
from measurement.local.query import query, text
from measurement.local.warehouse import Warehouse

_NUMBERS = (int, float, Decimal)


def show(warehouse: Warehouse, sql: str | None, file: Path | None, as_csv: bool) -> None:
    if (sql is None) == (file is None):
        raise Failure("query: give the SQL, or --file")
    if file is not None:
        try:
            sql = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"--file {file}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    rows = query(warehouse, sql)
    if as_csv or not sys.stdout.isatty():
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(rows.column_names)
        for batch in rows.to_batches():
            out.writerows([text(v) for v in row] for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
        return
    shown = Table(caption=f"{rows.num_rows:,} row{'' if rows.num_rows == 1 else 's'}", caption_justify="left")
    columns = [column.to_pylist() for column in rows.columns]
    for name, values in zip(rows.column_names, columns, strict=True):
        shown.add_column(name, justify="right" if any(isinstance(v, _NUMBERS) and not isinstance(v, bool) for v in values) else "left", overflow="fold")
    for row in zip(*columns, strict=True):
        shown.add_row(*map(text, row))
    Console().print(shown)
