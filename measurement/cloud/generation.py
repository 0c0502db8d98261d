"""Which generation a launch takes, and what of the archive it must read before it may publish (contract section 3)."""

from dataclasses import dataclass

from measurement.columnar.batch import NO_WATERMARK
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy import Policy

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
    ``accept_from`` are too late; hours from ``publish_from`` on (µs) are rebuilt whole, the credits of their conversions from
    ``credit_from`` on."""

    read_from: int | None = None
    read_until: int | None = None
    accept_from: int = NO_WATERMARK
    publish_from: int = NO_WATERMARK
    credit_from: int = NO_WATERMARK


def before_streaming(archive: Archive, policy: Policy, now: int) -> Reach:
    """What a stream that begins without state must read: every hour that an event may still change.

    An accepted event is at most the dedup horizon old, and its impression a join horizon older: hours from then on are
    published. A touch is no older than its event, so the conversions that it changes are of these hours too; what they are
    credited with, now or later, is what else ``_behind`` reaches for. Where that is all there ever was, all of it is read and
    every row is rebuilt.
    """
    publish_from = _hour_from(now - policy.counting.dedup_horizon - policy.counting.join_horizon - _SLACK)
    start = publish_from - _behind(policy) - _FUTURE
    if archive.since <= archive.first_began and archive.first_began >= start:
        return Reach()
    if archive.since > start:
        return _of_a_later(archive, policy, start, publish_from, _hour_from(now))
    return Reach(start, None, start + _FUTURE, publish_from, publish_from)


def of_hours(archive: Archive, policy: Policy, start: int, stop: int) -> Reach:
    """What a rebuild of the hours from ``start`` to before ``stop`` (µs) must read: every event that counts in them, and all
    that their conversions may be credited to."""
    counting = policy.counting
    latest = stop + counting.join_horizon + counting.dedup_horizon + 24 * MICROS_PER_HOUR
    first = start - _behind(policy) - _FUTURE
    if archive.since <= max(first, archive.first_began):
        return Reach(first, latest, NO_WATERMARK, start, start)
    later = _of_a_later(archive, policy, first, start, stop)
    return Reach(first, latest, NO_WATERMARK, later.publish_from, later.credit_from)


def _behind(policy: Policy) -> int:
    """How far before the first published hour events still decide what stands in it.

    - Its conversions ask for touches of the longest lookback. A click's impression is up to a join horizon older, and without
      it the click would be an orphan and no touch.
    - An order's conversions are one within the dedup horizon, and so is an id with two contents: which of them came first must
      be known, or a duplicate would be counted. That is also as far as a follow-up is told from its copies.

    What is that old and itself decided by something older has nothing to do with those hours.
    """
    return max(policy.attribution.longest_lookback, policy.counting.dedup_horizon) + policy.counting.join_horizon


def _of_a_later(archive: Archive, policy: Policy, start: int, publish_from: int, begun: int) -> Reach:
    """Of an archive that was begun when the job had run for some time, within the reach: hours are published that it has with
    their follow-ups, and the credits of conversions that it has with their whole lookback. Others stay as they are, but what
    is of hours from ``begun`` on (µs), which nobody else would publish, is published with what is known."""
    start = max(start, archive.since)
    accept_from = _hour_from(start + _FUTURE)
    publish_from = max(publish_from, min(_hour_from(accept_from + policy.counting.join_horizon), begun))
    whole = _hour_from(accept_from + policy.attribution.longest_lookback + policy.counting.join_horizon)
    return Reach(start, None, accept_from, publish_from, max(publish_from, min(whole, begun)))


def _hour_from(time: int) -> int:
    return -(-time // MICROS_PER_HOUR) * MICROS_PER_HOUR
