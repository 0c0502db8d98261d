"""How fast a level's error budget goes, over several windows of time, and what that makes of the level. Pure; times are µs.

A budget is what may be other than promised in 30 days: 1 - target of all that is judged. A burn rate of 1 spends exactly it; 14.4
spends 2 % of it in an hour. Google's SRE Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts": the long window tells that
enough is gone to trouble somebody, the short one that it still goes, so that an alert ends soon after its cause.
"""

from dataclasses import dataclass

from measurement.model.policy_file import duration_text
from measurement.monitors.sample import Sample, State
from measurement.monitors.series import KEPT, MINUTE, Series
from measurement.monitors.slo import Level, Window

# What a level without a budget (target 100 %) burns as soon as anything is wrong, and the most that any level does: no window may
# ask for more (measurement/monitors/slo.py), and a table or a graph has a place for it, as it has not for infinity.
MOST = 1e6


@dataclass(frozen=True)
class Burn:
    """``rates``: of each long and short window, by its text such as "5m", how many times as fast as 30 days allow the budget goes.
    ``spent``: the share of the budget that is gone, 1 for all of it; it may be more. ``firing``: the windows whose alerts are due."""

    rates: dict[str, float]
    spent: float
    firing: tuple[Window, ...]


@dataclass(frozen=True)
class Judged:
    """One level at one look."""

    level: Level
    sample: Sample
    burn: Burn
    state: State


def burn(series: Series, level: Level, windows: tuple[Window, ...], now: int) -> Burn:
    """The burn of a level by what the series holds up to the minute of ``now``; a window in which nothing was judged burns nothing.

    Of a level that is judged by time a minute that was not judged was not bad: so a monitor that has just begun does not take the
    first bad minute for the whole of three days.
    """
    good, total = series.back(level.name, now, KEPT)
    lengths = sorted({length for w in windows for length in (w.long, w.short)})
    if good == total:  # as on nearly every look
        return Burn(dict.fromkeys(map(duration_text, lengths), 0.0), 0.0, ())
    rates = {}
    for length in lengths:
        minutes = -(-length // MINUTE)
        rates[length] = _rate(*_of(level, minutes, *series.back(level.name, now, minutes)))
    firing = tuple(w for w in windows if rates[w.long] >= w.burn and rates[w.short] >= w.burn)
    return Burn({duration_text(length): rate for length, rate in rates.items()}, _rate(*_of(level, KEPT, good, total)), firing)


def state(sample: Sample, burn: Burn) -> State:
    """What a person is told of the level, the worst that holds of it."""
    if sample.holds is False:
        return State.broken
    if burn.firing:
        return State.burning
    return State.unknown if sample.holds is None else State.ok


def judged(level: Level, sample: Sample, burn: Burn) -> Judged:
    return Judged(level, sample, burn, state(sample, burn))


def _of(level: Level, minutes: int, good: int, total: int) -> tuple[int, int, float]:
    """(bad, of how many, target)."""
    return total - good, max(total, minutes) if level.by_time else total, level.target


def _rate(bad: int, total: int, target: float) -> float:
    """The bad of ``total`` as a multiple of what the target leaves for it; to nine places, so that just 14.4 is 14.4."""
    budget = round(1 - target, 12)  # 1 - 0.999 is 0.0010000000000000009
    if bad == 0:
        return 0.0
    return min(round(bad / total / budget, 9), MOST) if budget > 0 else MOST
