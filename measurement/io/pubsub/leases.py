"""What one reader has pulled and not acknowledged: whose it is, until when, and when it may be acknowledged.

A message is acknowledged when a checkpoint surely covers it. An engine finalizes a mark when the bundle behind it is
committed; Flink, on a completed checkpoint, finalizes bundles finished after its snapshot as well. So a finalized mark is
held until one is finalized ``hold`` seconds later, by a later checkpoint's completion: two checkpoint intervals on such an
engine, nothing where a commit is durable by itself. The clock alone would not do: none completes while a sink is away.
Until then deadlines are extended. What no restored state covers is given back at once, and whatever a dead process held
is delivered again when its deadline has passed: both are harmless, since events are deduplicated.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass
class Held:
    """The messages of one element: ack ids, bytes, when they were pulled, when a mark behind them was finalized (s)."""

    ids: list[str]
    size: int
    pulled: float
    finalized: float | None = None


@dataclass
class Due:
    """What is to be done now: ids to acknowledge, those of elements up to ``through``, and ids to extend."""

    acknowledge: list[str] = field(default_factory=list)
    through: int = -1
    extend: list[str] = field(default_factory=list)


class Leases:
    """No clock and no calls of its own: a keeper asks what is due and does it (measurement/io/pubsub/keeper.py)."""

    def __init__(self, lease: float, hold: float):
        self.lease, self.hold = lease, hold
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Held] = OrderedDict()  # by element's number, rising
        self._extended = 0.0
        self._finalized = 0.0  # when the last mark was

    def emitted(self, number: int, ids: list[str], size: int, pulled: float) -> None:
        """An element with these messages was handed on; numbers rise by one."""
        with self._lock:
            self._held[number] = Held(ids, size, pulled)

    def finalized(self, number: int, now: float) -> None:
        """A mark behind element ``number`` was finalized, and with it all before."""
        with self._lock:
            self._finalized = now
            for at, held in self._held.items():
                if at > number:
                    break
                if held.finalized is None:
                    held.finalized = now

    def forget_after(self, number: int) -> list[str]:
        """Drops what was emitted behind element ``number``, which a restored mark does not cover; its ack ids."""
        with self._lock:
            gone = [at for at in self._held if at > number]
            return [i for at in gone for i in self._held.pop(at).ids]

    def due(self, now: float) -> Due:
        """Acknowledgements that have waited long enough, in order, and every third of a lease all that is to be extended."""
        due = Due()
        with self._lock:
            for number, held in self._held.items():
                if held.finalized is None or self._finalized - held.finalized < self.hold:
                    break
                due.acknowledge += held.ids
                due.through = number
            if now - self._extended >= self.lease / 3:
                self._extended = now
                due.extend = [i for held in self._held.values() for i in held.ids]
        return due

    def acknowledged(self, through: int) -> None:
        """What elements up to ``through`` held is no longer held."""
        with self._lock:
            while self._held and next(iter(self._held)) <= through:
                self._held.popitem(last=False)

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(held.size for held in self._held.values())

    def __len__(self) -> int:
        with self._lock:
            return sum(len(held.ids) for held in self._held.values())
