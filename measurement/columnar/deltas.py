"""Changes to totals that travel: for each touched row of one table, what is to be added to it."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import orjson

from measurement.columnar.batch import pack, unpack
from measurement.columnar.shards import parted, shard_of
from measurement.columnar.texts import fingerprints_of_rows, text_fingerprints
from measurement.model.latency import no_receipts

_VERSION = 2
NO_HOUR = np.iinfo(np.int64).min  # the window of events whose time could not be read

# Why a closed hour changes (``restated_because``), by code; 0: the hour was open when the event was read.
BECAUSE = ("", "late", "invalid_traffic", "order", "rebuild", "policy", "erasure")
ON_TIME, LATE, INVALID_TRAFFIC, ORDER, REBUILD, POLICY = range(6)


@dataclass(frozen=True)
class Deltas:
    """n changes: key fingerprints (n, 2) uint64, hour (n,) int64 µs, because (n,) uint8, label codes (n, k) int32,
    counts (n, m) int64. ``receipts``: of the events that these changes are the first to count (measurement/model/latency.py)."""

    keys: np.ndarray
    hours: np.ndarray
    because: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    labels: list[str]
    receipts: np.ndarray = field(default_factory=no_receipts)

    def __len__(self) -> int:
        return len(self.hours)

    @property
    def size(self) -> int:
        """About how many bytes the changes have."""
        return self.keys.nbytes + self.codes.nbytes + self.counts.nbytes

    def encode(self) -> bytes:
        arrays = (self.keys, self.hours, self.because, self.codes, self.counts, self.receipts)
        return pack(_VERSION, (*(a.tobytes() for a in arrays), orjson.dumps(self.labels)))

    @classmethod
    def decode(cls, encoded: bytes) -> "Deltas":
        keys, hours, because, codes, counts, receipts, labels = unpack(_VERSION, encoded)
        hours = np.frombuffer(hours, np.int64)
        n = len(hours)
        return cls(
            np.frombuffer(keys, np.uint64).reshape(n, 2), hours, np.frombuffer(because, np.uint8),
            np.frombuffer(codes, np.int32).reshape(n, -1) if n else np.zeros((0, 0), np.int32),
            np.frombuffer(counts, np.int64).reshape(n, -1) if n else np.zeros((0, 0), np.int64),
            orjson.loads(labels), np.frombuffer(receipts, np.int64).reshape(-1, 2),
        )

    def take(self, at: np.ndarray) -> "Deltas":
        """The changes at some places, without receipts."""
        return Deltas(self.keys[at], self.hours[at], self.because[at], self.codes[at], self.counts[at], self.labels)

    def shard(self, shards: int) -> np.ndarray:
        """The shard of each change, uint64."""
        return shard_of(self.keys[:, 0], shards)

    def split(self, shards: int) -> list[tuple[int, "Deltas"]]:
        """(shard, its changes) for each shard that has any. Receipts go whole with the first: all shards of a table are published
        at the same ticks, and an event is to be told of once."""
        parts = [(s, self.take(at)) for s, at in parted(self.shard(shards), shards)]
        if parts:
            first, part = parts[0]
            parts[0] = first, replace(part, receipts=self.receipts)
        return parts

    @classmethod
    def tally(cls, counted: dict[tuple, tuple[int, ...]]) -> "Deltas":
        """Changes of a small table from ``{(hour or None, because, *texts or None): counts}``."""
        labels: dict[str, int] = {}
        n = len(counted)
        codes = []
        hours, because = np.empty(n, np.int64), np.empty(n, np.uint8)
        for i, (hour, why, *texts) in enumerate(counted):
            hours[i] = NO_HOUR if hour is None else hour
            because[i] = why
            codes.append([-1 if t is None else labels.setdefault(t, len(labels)) for t in texts])
        codes = np.array(codes, np.int32).reshape(n, -1)
        counts = np.array(list(counted.values()), np.int64).reshape(n, -1)
        return cls(keys_of(hours, codes, list(labels)), hours, because, codes, counts, list(labels))


def tallied(counted: Counter) -> Deltas | None:
    """Changes of a table of one count by (hour or None, because, *texts); None where there are none."""
    counts = {key: (events,) for key, events in counted.items() if events}
    return Deltas.tally(counts) if counts else None


def keys_of(hours: np.ndarray, codes: np.ndarray, labels: list[str]) -> np.ndarray:
    """Key fingerprints (n, 2) of rows of any table but delivery: of their times (µs) and texts."""
    return np.column_stack(fingerprints_of_rows(*text_fingerprints(labels), codes, hours))
