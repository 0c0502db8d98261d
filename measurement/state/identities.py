"""The identities that a shard remembers, each with the digest of its content, and the hash table that finds them.

A row is 24 bytes: 128 bits of identity, whole, so that no two are ever taken for one, and 64 of digest. A slot of the table
is 4 bytes: as many low bits as row numbers need hold the row's number + 1 (0: free), the bits above them a tag, some bits of
the identity. A search walks over neighbouring slots and looks at a row only where the tag is right, so one for an identity
that is not there reads a cache line of the table and, mostly, nothing else. The table is between 0.58 and 0.75 full as it
grows, whence 5.3 to 6.9 bytes an identity.

Rows are never removed: whoever forgets some moves the others together and builds the table anew.
"""

import numpy as np
from numba import njit

from measurement.columnar.table import grown

IDENTITY = np.dtype([("hi", "u8"), ("lo", "u8"), ("digest", "u8")])
MINIMUM = 1024  # slots
FULLEST = 0.75  # share of slots taken: searches that find nothing walk 8.5 slots there, half a cache line
GROWTH = 1.3  # a row is entered 1 / (1 - 1 / 1.3) = 4.3 times, all growing included
_AHEAD = 32  # searches whose cache lines are asked for together, before the first of them goes on
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)


def table_for(rows: int) -> np.ndarray:
    """An empty table with slots for ``rows`` identities."""
    return np.zeros(max(MINIMUM, int(rows / FULLEST) + 1), np.uint32)


def bits(table: np.ndarray) -> np.uint64:
    """Mask of the bits of a slot that hold a row's number."""
    return np.uint64((1 << len(table).bit_length()) - 1)


@njit
def slot_of(table, hi):
    """Where the search for an identity begins. A table may have any size: the hash is scaled, not masked. Shards are told
    apart by the bits above these."""
    return np.int64(((hi & _LOW_HALF) * np.uint64(len(table))) >> _HALF)


@njit
def find(table, low, ids, hi, lo):
    """(row or -1, slot where the search ended); ``low`` as ``bits`` gives it."""
    slot = slot_of(table, hi)
    tag = (lo >> _HALF) & ~low
    while True:
        cell = np.uint64(table[slot])
        if cell == 0:
            return np.int64(-1), slot
        if (cell & ~low) == tag:
            row = np.int64(cell & low) - 1
            if ids[row].hi == hi and ids[row].lo == lo:
                return row, slot
        slot += 1
        if slot == len(table):
            slot = 0


@njit
def enter(table, low, ids, slot, row, hi, lo):
    """Makes ``row`` the one of the identity whose search ended at ``slot``."""
    table[slot] = ((lo >> _HALF) & ~low) | np.uint64(row + 1)
    ids[row].hi = hi
    ids[row].lo = lo


@njit
def _build(table, low, ids, count):
    first = np.empty(_AHEAD, np.uint32)
    for start in range(0, count, _AHEAD):
        stop = min(count, start + _AHEAD)
        for row in range(start, stop):
            first[row - start] = table[slot_of(table, ids[row].hi)]  # all cache lines at once
        for row in range(start, stop):
            slot = slot_of(table, ids[row].hi)
            while table[slot]:
                slot += 1
                if slot == len(table):
                    slot = 0
            table[slot] = ((ids[row].lo >> _HALF) & ~low) | np.uint64(row + 1)
    return first[0]


@njit(cache=True, nogil=True)
def build(table, low, ids, count):
    """Enters rows 0..``count``, whose identities must be distinct."""
    _build(table, low, ids, count)


@njit(cache=True, nogil=True)
def upsert(table, low, ids, count, new, found):
    """Looks up IDENTITY rows ``new``, entering the unknown ones behind ``count``; ``found`` (int32) receives each one's row.
    Digests are not looked at and not entered. Returns the new number of rows."""
    for i in range(len(new)):
        row, slot = find(table, low, ids, new[i].hi, new[i].lo)
        if row < 0:
            row = count
            enter(table, low, ids, slot, row, new[i].hi, new[i].lo)
            count += 1
        found[i] = row
    return count


class Identities:
    """A growing set of identities. ``ids``: IDENTITY, the first ``count`` taken; row numbers are the caller's to pair with."""

    def __init__(self, room: int = MINIMUM):
        self.count = 0
        self.ids = np.zeros(room, IDENTITY)
        self._set(table_for(room))

    def _set(self, table: np.ndarray) -> None:
        self.table, self.low = table, bits(table)

    def room(self, more: int) -> None:
        """Makes room for ``more`` identities."""
        need = self.count + more
        if need > len(self.ids):
            self.ids = grown(self.ids, need)
        if need > FULLEST * len(self.table):
            self._set(table_for(max(need, int(GROWTH * FULLEST * len(self.table)))))
            build(self.table, self.low, self.ids, self.count)

    def find(self, hi: int, lo: int) -> int:
        """The row of an identity, -1 where it is not known."""
        return _find(self.table, self.low, self.ids, np.uint64(hi), np.uint64(lo))

    def upsert(self, new: np.ndarray) -> np.ndarray:
        """Row numbers (int32) of IDENTITY rows, of which the unknown are entered, without their digests."""
        self.room(len(new))
        found = np.empty(len(new), np.int32)
        self.count = upsert(self.table, self.low, self.ids, self.count, new, found)
        return found


@njit(cache=True, nogil=True)
def _find(table, low, ids, hi, lo):
    return find(table, low, ids, hi, lo)[0]
