"""Times in a request and in an answer: RFC 3339 there, µs here."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from measurement.model.events import MICROS_PER_HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROS_PER_DAY = 24 * MICROS_PER_HOUR


@lru_cache(maxsize=50_000)  # the same hours are asked for again and again
def text(micros: int) -> str:
    """UTC with Z; a fraction only where there is one."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().removesuffix("+00:00") + "Z"


def day_of(micros: int) -> int:
    """The start of the UTC day."""
    return micros // MICROS_PER_DAY * MICROS_PER_DAY


def day_from(micros: int) -> int:
    """The first start of a UTC day that is not before."""
    return -(-micros // MICROS_PER_DAY) * MICROS_PER_DAY
