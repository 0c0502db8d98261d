"""Hourly rows folded into one of several: numbers summed, and of what rows state the worst, the highest or all."""

from collections.abc import Callable, Iterable

from measurement.model.tables import Table
from measurement.serving.reports import Row

STATED = ("status", "restated_because", "rule_version", "revision", "published_at")
JOINED = " | "  # between the rule_versions of one row, which hold single spaces themselves


class Folded:
    """What was added to one group: ``rows`` of them, ``provisional`` and ``restated`` by their status, the sums of their ``values``."""

    __slots__ = ("rows", "provisional", "restated", "values", "_because", "_rules", "_revision", "_published_at")

    def __init__(self, numbers: int):
        self.rows = self.provisional = self.restated = self._revision = self._published_at = 0
        self.values = [0] * numbers
        self._because: set[str | None] = set()
        self._rules: set[str] = set()

    def add(self, values: list[tuple], status: tuple, because: tuple, rules: tuple, revision: tuple, published_at: tuple) -> None:
        """Rows by their columns."""
        self.rows += len(status)
        self.provisional += status.count("provisional")
        self.restated += status.count("restated")
        self.values = [so_far + sum(more) for so_far, more in zip(self.values, values, strict=True)]
        self._because.update(because)
        self._rules.update(rules)
        self._revision = max(self._revision, *revision)
        self._published_at = max(self._published_at, *published_at)

    @property
    def stated(self) -> tuple:
        """status the worst, restated_because the distinct reasons with commas, rule_version all that there were, revision and
        published_at the highest."""
        status = "provisional" if self.provisional else "restated" if self.restated else "final"
        because = ",".join(sorted(b for b in self._because if b is not None)) or None
        return status, because, JOINED.join(sorted(self._rules)), self._revision, self._published_at


class Fold:
    """Rows of a totals table by the groups that ``key`` names, added block by block, so that no more than a block is ever kept."""

    def __init__(self, table: Table, key: Callable[[Row], tuple]):
        names = [c.name for c in table.columns]
        self._values = [names.index(c.name) for c in table.values]
        self._stated = [names.index(name) for name in STATED]
        self._key = key
        self.groups: dict[tuple, Folded] = {}

    def add(self, rows: Iterable[Row]) -> None:
        blocks: dict[tuple, list[Row]] = {}
        for row in rows:
            blocks.setdefault(self._key(row), []).append(row)
        for key, block in blocks.items():
            columns = list(zip(*block, strict=True))
            group = self.groups.setdefault(key, Folded(len(self._values)))
            group.add([columns[at] for at in self._values], *(columns[at] for at in self._stated))
