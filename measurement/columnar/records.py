"""Records of one kind that travel between stages and stand in logs: column by column and compressed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from measurement.columnar.batch import CODEC, pack, unpack
from measurement.columnar.shards import parted, shard_of


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
        return pack(self.VERSION, (np.int64(len(self.rows)).tobytes(), packed(self.rows, self.DTYPE.names)))

    @classmethod
    def decode(cls, encoded: bytes):
        count, columns = unpack(cls.VERSION, encoded)
        return cls(unpacked(columns, int(np.frombuffer(count, np.int64)[0]), cls.DTYPE, cls.DTYPE.names))

    def by(self, shard: np.ndarray, shards: int) -> list:
        """(shard, its records in order) for each shard that has any; ``shard``: of each record."""
        return [(s, type(self)(self.rows[at])) for s, at in parted(shard, shards)]


def packed(rows: np.ndarray, names: tuple[str, ...]) -> bytes:
    """Some columns of records one behind the other, so that they compress, and compressed."""
    return CODEC.compress(b"".join([rows[name].tobytes() for name in names]), asbytes=True)


def unpacked(columns: memoryview, n: int, dtype: np.dtype, names: tuple[str, ...]) -> np.ndarray:
    """The n records of ``packed``; other columns are zeros."""
    rows, at = np.zeros(n, dtype), 0
    raw = CODEC.decompress(columns, decompressed_size=n * sum(dtype[name].itemsize for name in names), asbytes=True)
    for name in names:
        rows[name] = np.frombuffer(raw, dtype[name], n, at)
        at += n * dtype[name].itemsize
    return rows


class Activity(Records):
    """What a rate is counted by: that an accepted event was somebody's in an hour, ``hi`` and ``lo`` being a keyed hash of who
    and which hour."""

    VERSION = 101
    DTYPE = np.dtype([
        ("hi", "u8"), ("lo", "u8"), ("id_hi", "u8"), ("id_lo", "u8"), ("digest", "u8"), ("time", "i8"), ("watermark", "i8"),
        ("route", "u4"),  # what the event's shard is chosen by: its impression's identity's upper half, by ``shards.SHIFT``
        ("kind", "u1"),  # USER or ADDRESS
    ])

    def split(self, shards: int) -> list[tuple[int, "Activity"]]:
        return self.by(shard_of(self.rows["hi"], shards), shards)


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
        return self.by(self.rows["route"] % np.uint32(shards), shards)

    def split_by_order(self, shards: int) -> list[tuple[int, "Verdicts"]]:
        return self.by(shard_of(self.rows["order_hi"], shards), shards)
