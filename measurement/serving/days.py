"""Hourly rows summed into rows of UTC days."""

from collections.abc import Iterable

from measurement.model.tables import Table
from measurement.serving.reports import Row
from measurement.serving.times import day_of

_WORST = ("final", "restated", "provisional")  # a day is what the worst of its hours is
JOINED = " | "  # between the rule_versions of one day, which hold single spaces themselves


def by_day(table: Table, rows: Iterable[Row]) -> list[Row]:
    """One row a day and combination of texts, in no order: numbers summed, status the worst, revision and published_at the
    highest, restated_because the distinct reasons with commas, rule_version all that there were."""
    names = [c.name for c in table.columns]
    texts = [names.index(c.name) for c in table.texts]
    hour = names.index(table.time)
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((day_of(row[hour]), *(row[at] for at in texts)), []).append(row)
    how = {table.time: day_of_first, **{c.name: sum for c in table.values}, "status": worst, "restated_because": reasons,
           "rule_version": versions, "revision": max, "published_at": max}
    folds = [how.get(name, first) for name in names]
    return [tuple(fold(column) for fold, column in zip(folds, zip(*group, strict=True), strict=True)) for group in groups.values()]


def first(values: tuple):
    return values[0]


def day_of_first(hours: tuple[int, ...]) -> int:
    return day_of(hours[0])


def worst(statuses: tuple[str, ...]) -> str:
    return max(statuses, key=_WORST.index)


def reasons(because: tuple[str | None, ...]) -> str | None:
    return ",".join(sorted({b for b in because if b is not None})) or None


def versions(rules: tuple[str, ...]) -> str:
    return JOINED.join(sorted(set(rules)))
