"""Hourly rows summed into rows of UTC days."""

from collections.abc import Iterable

from measurement.model.tables import Table
from measurement.serving.folds import Fold
from measurement.serving.reports import Row
from measurement.serving.times import day_of


def by_day(table: Table, rows: Iterable[Row]) -> list[Row]:
    """One row a day and combination of texts, in no order, folded as measurement/serving/folds.py says."""
    names = [c.name for c in table.columns]
    hour, texts = names.index(table.time), [names.index(c.name) for c in table.texts]
    fold = Fold(table, lambda row: (day_of(row[hour]), *(row[at] for at in texts)))
    fold.add(rows)
    # A totals table's columns are its time, its texts, its numbers, and what its rows state.
    return [(*key, *group.values, *group.stated) for key, group in fold.groups.items()]
