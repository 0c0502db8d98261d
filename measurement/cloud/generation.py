"""Which generation a launch takes, and what of the archive it must read before it may publish (contract section 3)."""

from dataclasses import dataclass

from measurement.columnar.batch import NO_WATERMARK
from measurement.io.pubsub.source import Rebuild
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


def before_streaming(archive: Archive, counting: Counting, now: int) -> Rebuild:
    """What a stream that begins without state must read: every hour that an event may still change.

    An accepted event is at most the dedup horizon old, its impression a join horizon older, and for that impression's
    follow-ups to be told from copies another join horizon is read. Where that is all there ever was, all of it is read and
    every row is rebuilt.
    """
    start = now - counting.dedup_horizon - 2 * counting.join_horizon - _SLACK
    if archive.since <= archive.first_began and archive.first_began >= start:
        return Rebuild(archive.directory)
    start = max(start, archive.since)
    accept_from = _hour_from(start + _FUTURE)
    return Rebuild(archive.directory, start, None, accept_from, _hour_from(accept_from + counting.join_horizon))


def of_hours(archive: Archive, counting: Counting, start: int, stop: int) -> Rebuild:
    """What a rebuild of the hours from ``start`` to before ``stop`` (µs) must read: every event that counts in them."""
    latest = stop + counting.join_horizon + counting.dedup_horizon + 24 * MICROS_PER_HOUR
    return Rebuild(archive.directory, start - counting.join_horizon - _FUTURE, latest, NO_WATERMARK, start)


def _hour_from(time: int) -> int:
    return -(-time // MICROS_PER_HOUR) * MICROS_PER_HOUR
