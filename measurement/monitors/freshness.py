"""Freshness: how far behind the clock the hours are complete. Times are µs."""

from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import hour_of, instant, span, text

_MOST_HOURS = 48  # that an alert names


def judge(level: Level, now: int, complete_until: int | None, minutes: int) -> Sample:
    """Good while ``now`` less ``complete_until`` is at most ``level.at_most``."""
    if complete_until is None:
        return unknown(level.name, "no hour has been closed yet")
    behind = now - complete_until
    said = f"hours are complete until {text(complete_until)}, {span(behind)} ago"
    if behind <= level.at_most:
        return at_look(level.name, True, minutes, behind / MICROS_PER_SECOND, said)
    missing = range(complete_until, min(hour_of(now), complete_until + _MOST_HOURS * MICROS_PER_HOUR), MICROS_PER_HOUR)
    return at_look(level.name, False, minutes, behind / MICROS_PER_SECOND, f"{said}; at most {span(level.at_most)} is promised",
                   since=instant(complete_until + level.at_most), hours=tuple(map(instant, missing)))
