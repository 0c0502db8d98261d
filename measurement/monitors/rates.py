"""Levels that are judged by their own history: shares of events that are duplicates, late, rejected and so on. Pure; times are µs.

What share is right nobody can say; that it is another one than at this hour of other weeks can be. More of it is wrong; of invalid
traffic also none of it, since a list that is not loaded finds nothing.
"""

from measurement.monitors.history import NEEDS, History, Usual, noise, score
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level

_SPANS = (10, 20, 30, 40, 50, 60)  # minutes: the first in which enough events are judged
_NOW = {"unjoined": (1,)}  # what waits is counted again at each look: more looks are no more events
_SAYS = {
    "duplicates": "events are duplicates",
    "late": "events came after the close of their hour",
    "restated": "events restate an hour that was closed",
    "invalid": "events are invalid traffic",
    "unjoined": "follow-ups wait for their impression",
}
_GONE = 0.1  # of the least share of the past: below it, it is gone


def judge(level: Level, counted: History, now: int, minutes: int) -> Sample:
    """The level's share in the last ten minutes, or in so many tens, up to an hour, that ``level.events`` are judged; of what waits
    the share at this look.

    ``counted`` has the level's part and whole by minute, up to that of ``now``. It holds unless the share is more than ``level.z``
    robust standard deviations and more than ``level.least`` (of 1) above the usual one. Too few events, or too short a past:
    unknown. ``minutes`` is the time since the last look. The value is the share.
    """
    part, whole, span = _recent(level, counted, now)
    says = _SAYS.get(level.name) or f"events are rejected as {level.name.removeprefix('rejected_')}"
    things = says.split(maxsplit=1)[0]
    if whole < level.events:
        return unknown(level.name, f"{whole:,} {things} in {span} min are too few to judge, {level.events:,} are needed")
    past = counted.usual(level.name, now, level.events)
    if past is None:
        return unknown(level.name, f"no past to judge by: needs {NEEDS} with {level.events:,} {things} each")
    share = part / whole
    z = score(share, whole, past)
    high = z > level.z and share - past.share > level.least
    gone = level.name == "invalid" and _gone(level, share, whole, past)
    text = f"{_percent(share)} of {whole:,} {says}, usually {_percent(past.share)} ({past.of}), z {z:,.1f}"
    return at_look(level.name, not high and not gone, minutes, share, text)


def _recent(level: Level, counted: History, now: int) -> tuple[int, int, int]:
    """Part and whole of so many minutes."""
    for span in _NOW.get(level.name, _SPANS):
        part, whole = counted.back(level.name, now, span)
        if whole >= level.events:
            break
    return part, whole, span


def _gone(level: Level, share: float, whole: int, past: Usual) -> bool:
    """Whether next to nothing is left of what was there in every hour of the past, and by chance that cannot be."""
    return share < _GONE * past.least and (past.share - share) / noise(past, whole) > level.z


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share >= 0.001 or not share else 3}f} %"
