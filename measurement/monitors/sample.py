"""What one look says of one service level."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    unknown = "unknown"  # nothing could be told
    ok = "ok"
    burning = "burning"  # it holds now, and its budget goes faster than it may
    broken = "broken"  # it does not hold now


@dataclass(frozen=True)
class Sample:
    """``total`` things (events, minutes, probes) were judged at this look and ``good`` of them were as promised; 0 of 0: nothing could be told.

    ``value`` is the figure in the level's unit; ``holds`` whether the promise holds now, None where that cannot be told; ``text``
    says what is wrong or, where nothing is, what was found, in one line. ``since``: when it began to be so, where the data
    tells that. ``advertisers`` and ``hours`` (starts) are those touched.
    """

    level: str
    good: int
    total: int
    holds: bool | None
    value: float | None
    text: str
    since: datetime | None = None
    advertisers: tuple[str, ...] = ()
    hours: tuple[datetime, ...] = ()


def unknown(level: str, why: str) -> Sample:
    return Sample(level, 0, 0, None, None, why)


def at_look(level: str, holds: bool, minutes: int, value: float | None, text: str, **touched) -> Sample:
    """Of a level that is judged by time: the ``minutes`` since the last look were as this one."""
    return Sample(level, minutes if holds else 0, minutes, holds, value, text, **touched)
