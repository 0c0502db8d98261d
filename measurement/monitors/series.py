"""A service level's past in memory: what was good, of how many, minute by minute for thirty days. Pure; times are µs.

Minutes are kept in rings, one for all levels, so that memory is bounded and what a look costs does not grow with the past.
"""

import numpy as np

from measurement.monitors.times import MINUTE

DAYS = 30  # the time over which a budget is counted
KEPT = DAYS * 24 * 60  # minutes
_HOUR = np.arange(60)


class Series:
    """``good`` and ``total`` of each of some ``levels`` by minute."""

    def __init__(self, levels: tuple[str, ...]):
        self.levels = levels
        self._row = {level: i for i, level in enumerate(levels)}
        self._kept = np.zeros((2, len(levels), KEPT), np.int64)
        self._last: int | None = None  # minute (number since 1970) of the newest slot

    def add(self, level: str, at: int, good: int, total: int) -> None:
        """Adds to the minute of ``at``. What is older than is kept is left out, and so is a level that is not among ours."""
        minute = at // MINUTE
        self._advance(minute)
        if level not in self._row or minute <= self._last - KEPT:
            return
        self._kept[0, self._row[level], minute % KEPT] += good
        self._kept[1, self._row[level], minute % KEPT] += total

    def sums(self, level: str, start: int, stop: int) -> tuple[int, int]:
        """(good, total) of the minutes from that of ``start`` to before that of ``stop``."""
        if self._last is None or level not in self._row:
            return 0, 0
        first, end = max(start // MINUTE, self._last - KEPT + 1), min(stop // MINUTE, self._last + 1)
        if first >= end:
            return 0, 0
        kept, a, b = self._kept[:, self._row[level]], first % KEPT, (end - 1) % KEPT + 1
        parts = (slice(a, b),) if a < b else (slice(a, KEPT), slice(0, b))
        good, total = sum(kept[:, part].sum(axis=1) for part in parts).tolist()
        return good, total

    def back(self, level: str, now: int, minutes: int) -> tuple[int, int]:
        """(good, total) of so many minutes, the last of which is that of ``now``."""
        end = (now // MINUTE + 1) * MINUTE
        return self.sums(level, end - minutes * MINUTE, end)

    def hours(self, level: str, starts: np.ndarray) -> np.ndarray:
        """Of the hours that begin at the minutes of ``starts`` (µs, an array of any shape): good and total, an axis before its own."""
        if self._last is None or level not in self._row:
            return np.zeros((2, *starts.shape), np.int64)
        minutes = (starts // MINUTE)[..., None] + _HOUR
        found = self._kept[:, self._row[level]].take(minutes % KEPT, axis=1)
        found[:, (minutes > self._last) | (minutes <= self._last - KEPT)] = 0
        return found.sum(axis=-1)

    def _advance(self, minute: int) -> None:
        """Makes ``minute`` the newest if it is newer, and clears the slots that it enters."""
        if self._last is None:
            self._last = minute
        for fresh in range(max(self._last + 1, minute - KEPT + 1), minute + 1):
            self._kept[:, :, fresh % KEPT] = 0
        self._last = max(self._last, minute)
