"""Which rejects of one shard are new: a message that a transport delivers again is rejected again, and is one reject.

No Beam here. An accepted event that comes twice is a duplicate by its identity. A reject may have none, so it is known by
where it was read (``reject_id``), for as long as a transport may deliver again.
"""

import numpy as np

from measurement.columnar.batch import pack, unpack
from measurement.columnar.texts import text_fingerprints
from measurement.columnar.table import Keys
from measurement.model.events import MICROS_PER_HOUR
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 2
# Pub/Sub keeps what is not acknowledged for 7 days unless told otherwise; the eighth is for a job that lags.
REDELIVERY = 8 * 24 * MICROS_PER_HOUR


class RejectsShard:
    """State machine of one shard of reject ids, each remembered by its receipt (µs)."""

    def __init__(self):
        self.buckets = Buckets(REDELIVERY)
        self._changes = Changes()
        self._reset()

    def _reset(self, hi=None, lo=None, bucket=None) -> None:
        self._keys = Keys(hi, lo)
        self._bucket = np.zeros(0, np.int64) if bucket is None else bucket

    def __len__(self) -> int:
        return self._keys.rows

    def absorb(self, ids: list[str], received: np.ndarray) -> np.ndarray:
        """Enters rejects (n); bool (n,): whether each is the first of its id."""
        known = self._keys.rows
        found = self._enter(np.column_stack(text_fingerprints(ids)), self.buckets.of(received))
        first = np.zeros(len(ids), bool)
        rows, at = np.unique(found, return_index=True)
        first[at[rows >= known]] = True
        self._log(np.arange(known, self._keys.rows))
        return first

    def _enter(self, keys: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        known = self._keys.rows
        found = self._keys.add(keys[:, 0].copy(), keys[:, 1].copy())
        rows, at = np.unique(found, return_index=True)
        self._bucket = np.concatenate([self._bucket, bucket[at[rows >= known]]])
        return found

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return self.buckets.expires(int(self._bucket.min())) if len(self._bucket) else None

    def advance(self, watermark: int) -> None:
        """Forgets what is delivered no more."""
        gone = self._bucket < self.buckets.first_kept(watermark)
        expired = np.unique(self._bucket[gone]).tolist()
        if not expired:
            return
        kept = np.flatnonzero(~gone)
        self._reset(self._keys.hi[kept], self._keys.lo[kept], self._bucket[kept])
        for bucket in expired:
            self._changes.clear(bucket)
        # What shared a slot with a bucket that expired is written anew.
        self._log(np.flatnonzero(np.isin(self._bucket % SLOTS, [b % SLOTS for b in expired])))

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log(self, rows: np.ndarray) -> None:
        for bucket in np.unique(self._bucket[rows]).tolist():
            at = rows[self._bucket[rows] == bucket]
            keys = np.column_stack([self._keys.hi[at], self._keys.lo[at]])
            self._changes.append(bucket, pack(_VERSION, (np.int64(bucket).tobytes(), keys.tobytes())))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log."""
        self._reset()
        for run in runs:
            bucket, keys = unpack(_VERSION, run)
            keys = np.frombuffer(keys, np.uint64).reshape(-1, 2)
            self._enter(keys, np.full(len(keys), np.frombuffer(bucket, np.int64)[0]))
