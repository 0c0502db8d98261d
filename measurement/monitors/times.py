"""Times (µs) as the monitor says them."""

from datetime import UTC, datetime, timedelta

from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND

MINUTE = 60 * MICROS_PER_SECOND
DAY = 24 * MICROS_PER_HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def text(micros: int) -> str:
    return instant(micros).strftime("%Y-%m-%dT%H:%M:%SZ")


def hour_of(micros: int) -> int:
    """The start of its hour."""
    return micros // MICROS_PER_HOUR * MICROS_PER_HOUR


def span(micros: int) -> str:
    """A duration for people: 45 s, 12 min, 1 h 20 min, 3 d 4 h."""
    seconds = max(0, micros) // MICROS_PER_SECOND
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
