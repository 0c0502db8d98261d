"""Hourly rows summed by some of their columns, over a whole range."""

from dataclasses import dataclass
from functools import lru_cache

from measurement.model.tables import INT64, Column, Table
from measurement.serving.folds import STATED, Fold
from measurement.serving.positions import position
from measurement.serving.reports import Reports, Row, Scope

MOST_READ = 200_000  # hourly rows that one answer may be made of
MOST_BY = 4
_BLOCK = 25_000  # rows that are in memory at once, some 25 MB
_CURRENCY, _STATUS = "currency", "status"
COUNTED = (
    Column("hourly_rows", INT64, True, "Hourly rows that are in it."),
    Column("provisional_rows", INT64, True, "Those of them whose hour is open."),
    Column("restated_rows", INT64, True, "Those of them that changed after their hour had closed."),
)


class TooManyToSum(Exception):
    """The range has more hourly rows than an answer may be made of."""


@dataclass(frozen=True)
class Sums:
    """``open_from``: the earliest hour (µs) among those read that is still provisional."""

    table: Table
    rows: list[Row]
    open_from: int | None


def columns_by(table: Table) -> list[str]:
    """What its rows can be summed by: all that tells them apart, and the status that tells what of a sum may still change."""
    return [table.time, *(c.name for c in table.texts), _STATUS]


@lru_cache(maxsize=1000)
def summed(table: Table, by: tuple[str, ...]) -> Table:
    """The sums' own columns: those of ``by`` in their order, the currency also unasked, since money of two is never added, and how
    many rows of which kind went in; then as in the table."""
    own = {c.name: c for c in table.columns}
    keys = (*by, *(c for c in (_CURRENCY,) if c in own and c not in by))
    stated = [own[name] for name in STATED[:3] if name not in keys]  # revision and published_at every table has
    body = *(own[k] for k in keys), *COUNTED, *table.values, *stated
    return Table(f"{table.name}_sums", table.description, body, len(keys), stated=False)


def sums(reports: Reports, scope: Scope, by: tuple[str, ...]) -> Sums:
    """One row a combination of ``by``, in their order, NULL first. TooManyToSum beyond MOST_READ hourly rows."""
    table, made = scope.table, summed(scope.table, by)
    names = [c.name for c in table.columns]
    at, hour, status = [names.index(c.name) for c in made.key], names.index(table.time), names.index("status")
    fold = Fold(table, lambda row: tuple([row[i] for i in at]))
    after, read, open_from = None, 0, None
    while True:
        rows = reports.rows(scope, after, _BLOCK)
        read += len(rows)
        if read > MOST_READ:
            raise TooManyToSum
        fold.add(rows)
        open_from = min((row[hour] for row in rows if row[status] == "provisional"), default=open_from)  # blocks go back in time
        if len(rows) < _BLOCK:
            break
        after = position(table, rows[-1])
    keys = sorted(fold.groups, key=lambda key: [(part is not None, part) for part in key])
    groups = ((key, fold.groups[key]) for key in keys)
    first = STATED.index("restated_because") if _STATUS in by else 0  # of what is stated; a status asked for stands in the key
    return Sums(made, [(*key, g.rows, g.provisional, g.restated, *g.values, *g.stated[first:]) for key, g in groups], open_from)
