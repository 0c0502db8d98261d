"""Which generation a launch takes, and what of the archive it must read before it may publish (contract section 3)."""

from dataclasses import dataclass

from measurement.columnar.batch import NO_WATERMARK
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy import Counting

_FUTURE = 600 * 1_000_000  # µs that an event may be ahead of its receipt; so far before its hour begins it may have come
_SLACK = 2 * MICROS_PER_HOUR


@dataclass(frozen=True)
class Archive:
    """``directory`` has what was received ``since`` (µs); ``first_began`` (µs) is when the job's first generation did."""

    directory: str
    since: int
    first_began: int


@dataclass(frozen=True)
class Reach:
    """What of an archive to read: published from ``read_from`` to before ``read_until`` (µs; None: all). Events older than
    ``accept_from`` are too late; hours from ``publish_from`` on (µs) are rebuilt whole."""

    read_from: int | None = None
    read_until: int | None = None
    accept_from: int = NO_WATERMARK
    publish_from: int = NO_WATERMARK


def before_streaming(archive: Archive, counting: Counting, now: int) -> Reach:
    """What a stream that begins without state must read: every hour that an event may still change.

    An accepted event is at most the dedup horizon old, its impression a join horizon older, and for that impression's
    follow-ups to be told from copies another join horizon is read. Where that is all there ever was, all of it is read and
    every row is rebuilt.
    """
    start = now - counting.dedup_horizon - 2 * counting.join_horizon - _SLACK
    if archive.since <= archive.first_began and archive.first_began >= start:
        return Reach()
    start = max(start, archive.since)
    accept_from = _hour_from(start + _FUTURE)
    return Reach(start, None, accept_from, _hour_from(accept_from + counting.join_horizon))


def of_hours(counting: Counting, start: int, stop: int) -> Reach:
    """What a rebuild of the hours from ``start`` to before ``stop`` (µs) must read: every event that counts in them."""
    latest = stop + counting.join_horizon + counting.dedup_horizon + 24 * MICROS_PER_HOUR
    return Reach(start - counting.join_horizon - _FUTURE, latest, NO_WATERMARK, start)


def _hour_from(time: int) -> int:
    return -(-time // MICROS_PER_HOUR) * MICROS_PER_HOUR
