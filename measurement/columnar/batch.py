"""The batch that travels: accepted events as packed rows, with their payloads and the texts that their rows name.

A batch is one Beam element. Fixed-width facts are a NumPy record array, so that a compiled state machine reads a whole
event from one or two cache lines; texts are interned once a batch (``labels``) and named by code, -1 for null.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
from numba import njit

from measurement.columnar.shards import shard_of
from measurement.model.events import DIMENSIONS

ROW = np.dtype([
    ("id_hi", "u8"), ("id_lo", "u8"),  # identity: fingerprint of (impression it belongs to, event_id)
    ("parent_hi", "u8"), ("parent_lo", "u8"),  # follow-up: its impression's identity; conversion: its order's, 0 if none
    ("user_hi", "u8"), ("user_lo", "u8"),  # fingerprint of the user_id, 0 if null
    ("digest", "u8"),  # of the content: every field but received_time
    ("time", "i8"),  # event_time, µs
    ("watermark", "i8"),  # µs, as it stood when the event was read; NO_WATERMARK where unknown
    ("price", "i8"),  # price_micros, of a conversion value_micros; 0 if null
    ("receipt", "i8"),  # µs
    ("position", "i8"), ("index", "i4"),  # in the source: file offset (or message number) and index behind it
    ("dims", "i4"),  # impression and conversion: row of ``dims``; else -1
    ("source", "i4"), ("file", "i4"), ("schema", "i4"),  # labels: source_id or file; where it was read; writer's schema
    ("id_at", "i4"), ("id_length", "i4"),  # slice of the payload that is the event_id; id_at -1 where JSON escapes it
    ("type", "u1"), ("verdict", "u1"), ("shows", "u1"), ("encoding", "u1"),
])  # 128 bytes
# A fingerprint and label codes: of an impression and a conversion the dimensions that it states, of a conversion its type too.
DIMS = np.dtype([("hi", "u8"), ("lo", "u8"), ("codes", "i4", (len(DIMENSIONS) + 1,))])

NO_WATERMARK = np.iinfo(np.int64).min
ENCODINGS = ("avro", "json")
AVRO, JSON = range(2)

_VERSION = 3


@dataclass(frozen=True)
class Blobs:
    """n byte strings end to end: ``offsets`` int64 of shape (n + 1,) into ``data`` uint8."""

    offsets: np.ndarray
    data: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> bytes:
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def take(self, order: np.ndarray) -> "Blobs":
        """The blobs in another order (int64 row numbers), copied together."""
        return gather(self.offsets[:-1], np.diff(self.offsets), self.data, order)


@njit(cache=True, nogil=True)
def _gather(starts, lengths, data, order):
    offsets = np.empty(len(order) + 1, np.int64)
    offsets[0] = 0
    for i in range(len(order)):
        offsets[i + 1] = offsets[i] + lengths[order[i]]
    out = np.empty(offsets[-1], np.uint8)
    for i in range(len(order)):
        start = starts[order[i]]
        out[offsets[i] : offsets[i + 1]] = data[start : start + lengths[order[i]]]
    return offsets, out


def gather(starts: np.ndarray, lengths: np.ndarray, data: np.ndarray, order: np.ndarray) -> Blobs:
    """The slices of ``data`` at the row numbers ``order``, copied together."""
    return Blobs(*_gather(starts, lengths, data, order))


@dataclass(frozen=True)
class Slices:
    """n byte strings that stand somewhere in ``data`` (uint8), from ``starts`` on, of ``lengths`` bytes (int64)."""

    starts: np.ndarray
    lengths: np.ndarray
    data: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> bytes:
        return self.data[self.starts[i] : self.starts[i] + self.lengths[i]].tobytes()

    def take(self, order: np.ndarray) -> "Slices":
        """The slices in another order (int64 row numbers); nothing of ``data`` is copied."""
        return Slices(self.starts[order], self.lengths[order], self.data)

    def packed(self) -> Blobs:
        return gather(self.starts, self.lengths, self.data, np.arange(len(self)))


def slices(parts: Blobs) -> Slices:
    return Slices(parts.offsets[:-1], np.diff(parts.offsets), parts.data)


def blobs(parts: list[bytes]) -> Blobs:
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(p) for p in parts], out=offsets[1:])
    return Blobs(offsets, np.frombuffer(b"".join(parts), np.uint8))


def joined(parts: list[Blobs]) -> Blobs:
    """The blobs of all parts, one part behind the other."""
    lengths = np.concatenate([np.diff(p.offsets) for p in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Blobs(offsets, np.concatenate([p.data[p.offsets[0] : p.offsets[-1]] for p in parts]))


# Between stages bytes cost more than instructions: an element is copied half a dozen times by gRPC and twice under
# Python's global lock, whereas zstd at its fastest runs beside it. On a simulated log 516 bytes an event become 170.
CODEC = pa.Codec("zstd", compression_level=-3)


class EventBatch:
    """n accepted events in order of arrival.

    ``rows``: ROW (n,); ``dims``: DIMS (m,); ``payloads``: n Blobs, the bytes as received; ``labels``: texts by code.
    """

    def __init__(self, rows: np.ndarray, dims: np.ndarray, payloads: Blobs | Slices | Callable[[], Blobs], labels: list[str]):
        self.rows, self.dims, self.labels = rows, dims, labels
        self._payloads = payloads

    @property
    def payloads(self) -> Blobs:
        # Copied once, when a shard's part is encoded; and unpacked if a waiting or a rejected event is asked for its bytes.
        if isinstance(self._payloads, Slices):
            self._payloads = self._payloads.packed()
        elif callable(self._payloads):
            self._payloads = self._payloads()
        return self._payloads

    @property
    def size(self) -> int:
        """About how many bytes the batch has, its payloads aside."""
        return self.rows.nbytes + self.dims.nbytes

    def encode(self) -> bytes:
        """Version byte, section lengths, then the sections; rows and payloads compressed."""
        payloads = self.payloads
        return pack(_VERSION, (
            np.array([self.rows.nbytes, payloads.data.nbytes], np.int64).tobytes(),
            _packed(self.rows), self.dims.tobytes(), payloads.offsets.tobytes(), _packed(payloads.data), orjson.dumps(self.labels),
        ))

    @classmethod
    def decode(cls, encoded: bytes) -> "EventBatch":
        sizes, rows, dims, offsets, data, labels = unpack(_VERSION, encoded)
        rows_size, data_size = np.frombuffer(sizes, np.int64).tolist()

        def payloads() -> Blobs:
            return Blobs(np.frombuffer(offsets, np.int64), _unpacked(data, data_size))

        return cls(_unpacked(rows, rows_size).view(ROW), np.frombuffer(dims, DIMS), payloads, orjson.loads(labels))

    def own(self) -> "EventBatch":
        """The same events with the dims and labels that they name and no others; a part of a batch names few of them.
        ``rows`` is changed, and must be nobody else's."""
        rows = self.rows
        of_dims, number = kept(len(self.dims), rows["dims"])
        dims = self.dims[of_dims]
        columns = rows["source"], rows["file"], rows["schema"]
        named, label = kept(len(self.labels), *columns, dims["codes"].ravel())
        for column in (*columns, dims["codes"]):
            column[:] = label[column]
        rows["dims"] = number[rows["dims"]]
        return EventBatch(rows, dims, self._payloads, [self.labels[c] for c in named.tolist()])

    def event_ids(self, at: np.ndarray) -> Blobs:
        """The event_id of the events at some places (int64), UTF-8."""
        rows, payloads = self.rows[at], self.payloads
        found = gather(payloads.offsets[at] + rows["id_at"], rows["id_length"].astype(np.int64), payloads.data,
                       np.flatnonzero(rows["id_at"] >= 0))
        if len(found) == len(at):
            return found
        plain, out = iter(range(len(found))), []
        for i, id_at in zip(at.tolist(), rows["id_at"].tolist()):
            out.append(found[next(plain)] if id_at >= 0 else orjson.loads(payloads[i])["event_id"].encode())
        return blobs(out)

    def split(self, shards: int) -> list[tuple[int, "EventBatch"]]:
        """(shard, its events in order of arrival) for each shard that has any.

        An impression and its follow-ups share a shard: both go by the impression's identity.
        """
        by_parent = (self.rows["type"] != 0) & (self.rows["type"] != 2)
        key = np.where(by_parent, self.rows["parent_hi"], self.rows["id_hi"])
        shard = shard_of(key, shards).astype(np.uint16)
        order = np.argsort(shard, kind="stable")
        rows, payloads = self.rows[order], self._payloads if isinstance(self._payloads, Slices) else slices(self.payloads)
        edges = np.searchsorted(shard[order], np.arange(shards + 1, dtype=np.uint16))
        return [
            (s, EventBatch(rows[a:b], self.dims, payloads.take(order[a:b]), self.labels).own())
            for s, (a, b) in enumerate(zip(edges[:-1], edges[1:]))
            if b > a
        ]


def kept(count: int, *codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which of ``count`` are named, in order; the new number of each, and -1 behind them for code -1)."""
    named = np.zeros(count + 1, bool)
    for some in codes:
        named[some] = True
    named[-1] = False
    number = np.cumsum(named, dtype=np.int32) - np.int32(1)
    number[-1] = -1
    return np.flatnonzero(named), number


def _packed(data: np.ndarray) -> bytes:
    return CODEC.compress(pa.py_buffer(np.ascontiguousarray(data)), asbytes=True)


def _unpacked(data: memoryview, size: int) -> np.ndarray:
    return np.frombuffer(CODEC.decompress(data, decompressed_size=size), np.uint8)


def pack(version: int, sections: tuple[bytes, ...]) -> bytes:
    """Sections of bytes behind a version and their lengths, each padded to 8 bytes so that arrays can be viewed."""
    head = np.array([version, len(sections), *(len(s) for s in sections)], np.int64).tobytes()
    return b"".join([head, *(part for s in sections for part in (s, bytes(-len(s) % 8)))])


def version(encoded: bytes) -> int:
    """The version that ``pack`` was given."""
    return int(np.frombuffer(encoded[:8], np.int64)[0])


def unpack(version: int, encoded: bytes) -> list[memoryview]:
    """The sections of ``pack``, not copied; ValueError for another version."""
    view = memoryview(encoded)
    found, count = np.frombuffer(view[:16], np.int64)
    if found != version:
        raise ValueError(f"batch of version {found} where {version} is read")
    at, sections = 16 + 8 * count, []
    for length in np.frombuffer(view[16:at], np.int64):
        sections.append(view[at : at + length])
        at += length + (-length % 8)
    return sections
