"""What a level's share usually is at this time, and how far from it one is. Pure; times are µs.

A share is held against the same hour of other weeks, since traffic has the week's rhythm and its shares often have, too; while too
few weeks are known, against the same hour of other days, then against any other hour of the last four days.

The score is the modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC 1993): the median for the mean,
1.4826 median absolute deviations (MAD) for the standard deviation. Four hours have a poor MAD, by chance one near 0. So it is taken
over more of them, the five hours around of every day kept, each one's deviation from the median of its own hour and weekday.

Nothing is taken out of the past, not even times at which the level was judged wrong. Of four weeks the median withstands one that was
wrong, of three weeks one, of n days or hours any number below half; the MAD withstands fewer than half of the hours. Where an hour was
wrong alike in two weeks of four the score is lenient, and where in three, that is what is usual.
"""

from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from measurement.monitors.series import MINUTE, Series

QUARTER, HOUR, DAY = 15 * MINUTE, 60 * MINUTE, 24 * 60 * MINUTE
WEEKS = 4
NEEDS = "12 hours of the last four days"  # the least that can be held against
# The hours of which the deviations are taken: by day back, then by hour around this one.
_AROUND = np.arange(-2, 3)
_DAYS = np.arange(1, 7 * WEEKS + 1)[:, None] * DAY + _AROUND * HOUR
_HOURS = np.arange(1, 4 * 24 + 1)[:, None] * HOUR
# The part of what is usual by which a share may be off in good health though the past's hours are alike: these weeks are 17 days
# old on average, and business moves on.
_DRIFT = 0.1


@dataclass(frozen=True)
class Usual:
    """``share`` is the median of the hours that ``of`` names, ``least`` the lowest of them; ``spread`` is the standard deviation from
    that median that another such hour would have."""

    share: float
    spread: float
    least: float
    of: str


class History(Series):
    """A Series of which ``good`` is a *part* and ``total`` its *whole*: duplicates, say, and the events decided."""

    def __init__(self, levels: tuple[str, ...]):
        super().__init__(levels)
        self._found: dict[str, tuple[int, int, Usual | None]] = {}

    def usual(self, level: str, now: int, events: int) -> Usual | None:
        """By the hours in which the whole is at least ``events``; None where they are too few.

        An hour is the 60 minutes around this quarter of an hour. So of a past that is known by hours alone, each added to any one
        minute of its hour, it holds exactly one. The past is asked once a quarter of an hour: what is added to it meanwhile
        tells from the next one on.
        """
        quarter = now // QUARTER
        found = self._found.get(level)
        if found is None or found[:2] != (quarter, events):
            found = self._found[level] = quarter, events, self._usual(level, quarter * QUARTER - 22 * MINUTE, events)
        return found[2]

    def _usual(self, level: str, begin: int, events: int) -> Usual | None:
        days = self._shares(level, begin - _DAYS, events)
        # A row a week, of its 35 hours: the last of the seven days' five is this hour, a week or more ago.
        return (_of(days.reshape(WEEKS, -1), 6 * len(_AROUND) + 2, 3, "this hour of {} weeks")
                or _of(days, 2, 4, "this hour of {} days")
                or _of(self._shares(level, begin - _HOURS, events), 0, 12, "{} other hours"))

    def _shares(self, level: str, starts: np.ndarray, events: int) -> np.ndarray:
        """The share of each hour; NaN where it has too few events."""
        parts, wholes = self.hours(level, starts)
        return np.divide(parts, wholes, out=np.full(starts.shape, np.nan), where=wholes >= events)


def _of(shares: np.ndarray, at: int, least: int, of: str) -> Usual | None:
    """By the column ``at``, if it has at least so many hours; spread by all columns, each from its own median."""
    ours = np.sort(shares[:, at][~np.isnan(shares[:, at])])
    if len(ours) < least:
        return None
    medians = _median(shares)
    away = np.abs(shares - medians)
    spread = 1.4826 * float(_median(away.reshape(-1, 1))[0]) * _wider(len(ours))
    return Usual(float(medians[at]), spread, float(ours[0]), of.format(len(ours)))


def _median(values: np.ndarray) -> np.ndarray:
    """Of each column, without its NaNs; NaN where it has nothing else."""
    ordered, known = np.sort(values, axis=0), np.count_nonzero(~np.isnan(values), axis=0)
    columns = np.arange(values.shape[1])
    return (ordered[(known - 1) // 2, columns] + ordered[known // 2, columns]) / 2


def _wider(n: int) -> float:
    """What the deviations from medians of ``n`` are multiplied by: a median of few is drawn to them, and is in error by itself.
    By simulation of normal shares; true to 5 %."""
    return 2.54 if n == 3 else 1 + 2.3 / n


def noise(usual: Usual, whole: int) -> float:
    """The standard deviation by chance alone of a share of ``whole`` events that is usually so: binomial, √(p (1 - p) / n), with one
    event more in the part, since the first event of a part that is usually empty says little. So of six deviations chance passes one
    look in a million at most, also where a handful of events or none is usual."""
    return sqrt((usual.share * (1 - usual.share) + 1 / whole) / whole)


def score(share: float, whole: int, usual: Usual) -> float:
    """How many standard deviations a ``share`` of ``whole`` events is above the usual one. The deviation has three parts: the past's
    spread, a tenth of what is usual, and the ``noise`` of what is judged. So a share has at least to grow by 60 % to pass six."""
    return (share - usual.share) / hypot(usual.spread, _DRIFT * usual.share, noise(usual, whole))
