"""Records of one kind that travel between stages and stand in logs: column by column and compressed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from measurement.columnar.batch import CODEC, pack, unpack


@dataclass(frozen=True)
class Records:
    """n records: ``rows`` of the class's ``DTYPE`` (n,). ``VERSION`` tells kinds of elements apart, and their versions."""

    VERSION: ClassVar[int]
    DTYPE: ClassVar[np.dtype]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        return self.rows.nbytes

    def encode(self) -> bytes:
        raw = b"".join([self.rows[name].tobytes() for name in self.DTYPE.names])
        return pack(self.VERSION, (np.int64(len(self.rows)).tobytes(), CODEC.compress(raw, asbytes=True)))

    @classmethod
    def decode(cls, encoded: bytes):
        count, packed = unpack(cls.VERSION, encoded)
        n = int(np.frombuffer(count, np.int64)[0])
        rows, at = np.zeros(n, cls.DTYPE), 0
        raw = CODEC.decompress(packed, decompressed_size=n * cls.DTYPE.itemsize, asbytes=True)
        for name in cls.DTYPE.names:
            rows[name] = np.frombuffer(raw, cls.DTYPE[name], n, at)
            at += n * cls.DTYPE[name].itemsize
        return cls(rows)

    def by(self, shard: np.ndarray) -> list:
        """(shard, its records in order) for each shard that has any; ``shard``: of each record, an integer."""
        return [(int(s), type(self)(self.rows[shard == s])) for s in np.unique(shard)]


ROUTE_SHIFT = 40  # as events are parted (EventBatch.split)


class Activity(Records):
    """What a rate is counted by: that an accepted event was somebody's in an hour, ``hi`` and ``lo`` being a keyed hash of who
    and which hour."""

    VERSION = 101
    DTYPE = np.dtype([
        ("hi", "u8"), ("lo", "u8"), ("id_hi", "u8"), ("id_lo", "u8"), ("digest", "u8"), ("time", "i8"), ("watermark", "i8"),
        ("route", "u4"),  # what the event's shard is chosen by: its impression's identity's upper half, shifted
        ("kind", "u1"),  # USER or ADDRESS
    ])

    def split(self, shards: int) -> list[tuple[int, "Activity"]]:
        return self.by((self.rows["hi"] >> np.uint64(40)) % np.uint64(shards))


USER, ADDRESS = range(2)


class Verdicts(Records):
    """Verdicts on events, given after they came: a code of INVALID_REASONS, on the content (digest) that an identity came with."""

    VERSION = 102
    DTYPE = np.dtype([
        ("hi", "u8"), ("lo", "u8"), ("digest", "u8"), ("time", "i8"), ("watermark", "i8"),
        ("order_hi", "u8"), ("order_lo", "u8"),  # of a conversion that names an order, where its order is told
        ("route", "u4"), ("code", "u1"),
    ])

    def split(self, shards: int) -> list[tuple[int, "Verdicts"]]:
        return self.by(self.rows["route"] % np.uint32(shards))

    def split_by_order(self, shards: int) -> list[tuple[int, "Verdicts"]]:
        return self.by((self.rows["order_hi"] >> np.uint64(40)) % np.uint64(shards))
