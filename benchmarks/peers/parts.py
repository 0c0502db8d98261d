"""The task's own steps, without an engine: a decoded frame's fields as a Part, the distinct ones of its events, their sums.

`counting.py` runs them as stages of a Beam pipeline and `kernels.py` one behind the other in one process.
"""

from dataclasses import dataclass

import numpy as np
import orjson
from numba import njit

from measurement.columnar.batch import kept, pack, unpack
from measurement.columnar.decode import Decoded
from measurement.columnar.deltas import ON_TIME, Deltas, keys_of
from measurement.columnar.hashing import combine, fingerprint
from measurement.columnar.labels import Labels, firsts
from measurement.columnar.shards import shard_of
from measurement.columnar.table import Keys
from measurement.model.events import FIELD_INDEX, MICROS_PER_HOUR
from measurement.state.ring import SLOTS, Changes
from measurement.state.totals import Revisions, TotalsShard

_ID, _TYPE, _TIME, _CAMPAIGN, _PRICE = (
    FIELD_INDEX[name] for name in ("event_id", "event_type", "event_time", "campaign_id", "price_micros"))
_TEXTS = np.array([_CAMPAIGN, _TYPE])
_VERSION = 1


@njit(cache=True, nogil=True)
def _columns(buf, values, lengths, hi, lo, row_hi, row_lo, price):
    """One pass over decoded events: fingerprints of the id and of (campaign, type, hour), and the price."""
    for i in range(len(values)):
        v, n = values[i], lengths[i]
        hi[i], lo[i] = fingerprint(buf, v[_ID], n[_ID], 0)
        h1, h2 = fingerprint(buf, v[_TYPE], n[_TYPE], 0)
        c1, c2 = np.uint64(0), np.uint64(0)
        if n[_CAMPAIGN] > 0:
            c1, c2 = fingerprint(buf, v[_CAMPAIGN], n[_CAMPAIGN], 0)
        h1, h2 = combine(h1, h2, c1, c2)
        row_hi[i], row_lo[i] = combine(h1, h2, np.uint64(v[_TIME] // MICROS_PER_HOUR), np.uint64(0))
        price[i] = v[_PRICE] if n[_PRICE] >= 0 else 0


@njit(cache=True, nogil=True)
def _add(row, price, counts):
    for i in range(len(row)):
        counts[row[i], 0] += 1
        counts[row[i], 1] += price[i]


@dataclass(frozen=True)
class Part:
    """n events: fingerprints of their ids, the number of each one's row, its price; and the r rows: hour (µs), codes of
    campaign and type among ``labels``."""

    hi: np.ndarray  # uint64 (n,)
    lo: np.ndarray
    row: np.ndarray  # int32 (n,)
    price: np.ndarray  # int64 (n,)
    hours: np.ndarray  # int64 (r,)
    codes: np.ndarray  # int32 (r, 2)
    labels: list[str]

    @classmethod
    def of(cls, decoded: Decoded) -> "Part":
        if decoded.failed:
            raise ValueError(f"an event of the log cannot be read: {decoded.failed[0][2]}")
        n = len(decoded.values)
        hi, lo, row_hi, row_lo = (np.empty(n, np.uint64) for _ in range(4))
        price = np.empty(n, np.int64)
        _columns(decoded.buf, decoded.values, decoded.lengths, hi, lo, row_hi, row_lo, price)
        row = Keys().add(row_hi, row_lo)
        first, labels = firsts(row), Labels()
        texts = np.ix_(first, _TEXTS)
        codes = labels.codes(decoded.buf, decoded.values[texts], decoded.lengths[texts])
        hours = decoded.values[first, _TIME] // MICROS_PER_HOUR * MICROS_PER_HOUR
        return cls(hi, lo, row, price, hours, codes, labels.texts)

    def __len__(self) -> int:
        return len(self.hi)

    @property
    def size(self) -> int:
        return sum(array.nbytes for array in self._arrays)

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.hi, self.lo, self.row, self.price, self.hours, self.codes

    def split(self, shards: int) -> list[tuple[str, "Part"]]:
        """(shard, its events in order of arrival) for each shard that has any."""
        shard = shard_of(self.hi, shards).astype(np.uint8)
        order = np.argsort(shard, kind="stable")
        edges = np.searchsorted(shard[order], np.arange(shards + 1))
        return [(str(s), self._take(order[a:b])) for s, (a, b) in enumerate(zip(edges[:-1], edges[1:])) if b > a]

    def _take(self, at: np.ndarray) -> "Part":
        rows, number = kept(len(self.hours), self.row[at])
        return Part(self.hi[at], self.lo[at], number[self.row[at]], self.price[at], self.hours[rows], self.codes[rows], self.labels)

    def sums(self, at: np.ndarray) -> Deltas:
        """What some of the events add to their rows."""
        rows, number = kept(len(self.hours), self.row[at])
        counts = np.zeros((len(rows), 2), np.int64)
        _add(number[self.row[at]], self.price[at], counts)
        hours, codes = self.hours[rows], self.codes[rows]
        return Deltas(keys_of(hours, codes, self.labels), hours, np.full(len(rows), ON_TIME, np.uint8), codes, counts, self.labels)

    def encode(self) -> bytes:
        return pack(_VERSION, (*(array.tobytes() for array in self._arrays), orjson.dumps(self.labels)))

    @classmethod
    def decode(cls, encoded: bytes) -> "Part":
        *arrays, labels = unpack(_VERSION, encoded)
        types = np.uint64, np.uint64, np.int32, np.int64, np.int64, np.int32
        hi, lo, row, price, hours, codes = (np.frombuffer(array, type_) for array, type_ in zip(arrays, types))
        return cls(hi, lo, row, price, hours, codes.reshape(-1, 2), orjson.loads(labels))


class Ids:
    """State machine: the ids of a shard, each once. Nothing is forgotten, as no peer is asked to forget."""

    def __init__(self):
        self._keys, self._logged = Keys(), 0

    def absorb(self, part: Part) -> np.ndarray:
        """Where the events stand that are the first of their id."""
        known = self._keys.rows
        found = self._keys.add(part.hi, part.lo)
        fresh = np.flatnonzero(found >= known)
        return fresh[firsts(found[fresh] - known)]

    def take_changes(self) -> Changes:
        at = slice(self._logged, self._keys.rows)
        self._logged = self._keys.rows
        run = pack(_VERSION, (self._keys.hi[at].tobytes(), self._keys.lo[at].tobytes()))
        return Changes(appended=[(SLOTS, run)] if at.stop > at.start else [])

    def restore(self, runs) -> None:
        halves = [unpack(_VERSION, run) for run in runs]
        hi, lo = (np.frombuffer(b"".join(half), np.uint64) for half in zip(*halves)) if halves else (None, None)
        self._keys = Keys(hi, lo)
        self._logged = self._keys.rows

    def next_due(self) -> None:
        return None


def totals() -> TotalsShard:
    """The job's own machine of totals, for rows of this task."""
    return TotalsShard(texts=2, counts=2, allowed_lateness=0, horizon=24 * MICROS_PER_HOUR)


def rows(revisions: Revisions) -> list[tuple]:
    """The task's rows of publications."""
    texts = [*revisions.labels, None]  # code -1 is the last
    campaigns, types = ([texts[code] for code in column] for column in revisions.codes.T.tolist())
    return list(zip(revisions.hours.tolist(), campaigns, types, *revisions.counts.T.tolist()))
