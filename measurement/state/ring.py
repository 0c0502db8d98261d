"""The log that a state machine's truth is kept in: append-only runs by event-time bucket, expired bucket by bucket.

An engine's state holds ``SLOTS`` bags; a bucket of event time appends to bag ``bucket % SLOTS``. Nothing written is read
again unless a worker starts, moves or fails, and nothing is rewritten but a bag that two buckets share when one of them
expires (an event far ahead of the watermark) or that holds more superseded than live bytes. Expiring a bucket is
clearing a bag: the cost grows with new data alone.
"""

from dataclasses import dataclass, field

from measurement.model.events import MICROS_PER_HOUR

SLOTS = 12  # the horizon spans 8 buckets; the rest is for events ahead of the watermark


@dataclass(frozen=True)
class Buckets:
    """Event time cut into buckets of whole hours, 8 to a horizon (µs) of what must be remembered."""

    horizon: int
    width: int = field(init=False)

    def __post_init__(self):
        hours = -(-self.horizon // (8 * MICROS_PER_HOUR))
        object.__setattr__(self, "width", max(1, hours) * MICROS_PER_HOUR)

    def of(self, time):
        return time // self.width

    def first_kept(self, watermark: int) -> int:
        """The first bucket that may still be asked for when the watermark stands there."""
        return (watermark - self.horizon) // self.width

    def expires(self, bucket: int) -> int:
        """The watermark (µs) at which the bucket may be forgotten."""
        return (bucket + 1) * self.width + self.horizon


@dataclass
class Changes:
    """What one call of a machine asks of its log: bags to clear first, then runs to append; by slot."""

    cleared: set[int] = field(default_factory=set)
    appended: list[tuple[int, bytes]] = field(default_factory=list)

    def append(self, bucket: int, run: bytes) -> None:
        self.appended.append((bucket % SLOTS, run))

    def clear(self, bucket: int) -> None:
        slot = bucket % SLOTS
        self.cleared.add(slot)
        self.appended = [(s, run) for s, run in self.appended if s != slot]
