"""An open-addressing hash table from 128-bit fingerprints to row numbers, compiled.

The table holds only ``int32`` row numbers (-1 empty); the keys stand in the caller's own row arrays, so a remembered
identity costs its row and, at a load of at most one half, 8 bytes of table. Linear probing, power-of-two size. Rows are
never removed from a table: whoever forgets rows compacts its arrays and rebuilds (``build``), which costs each row a
constant number of moves over its life.
"""

import numpy as np
from numba import njit

EMPTY = np.int32(-1)
MINIMUM = 1024


def size_for(rows: int) -> int:
    """Slots for ``rows`` keys at a load of at most one half."""
    return max(MINIMUM, 1 << int(2 * max(rows, 1) - 1).bit_length())


def empty(rows: int) -> np.ndarray:
    return np.full(size_for(rows), EMPTY, np.int32)


@njit(cache=True, nogil=True)
def build(table, hi, lo, rows):
    """Enters rows 0..``rows`` of the key columns ``hi`` and ``lo``; the keys must be distinct."""
    mask = len(table) - 1
    for row in range(rows):
        slot = np.int64(hi[row]) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = row


@njit(cache=True, nogil=True)
def upsert(table, hi, lo, rows, key_hi, key_lo, found):
    """Looks each key up, entering the unknown ones as new rows behind ``rows``.

    ``hi`` and ``lo`` must have room for ``rows + len(key_hi)``, ``table`` for twice that. ``found`` (int32, as long as
    the keys) receives each key's row. Returns the new number of rows.
    """
    mask = len(table) - 1
    for i in range(len(key_hi)):
        slot = np.int64(key_hi[i]) & mask
        while True:
            row = table[slot]
            if row < 0:
                table[slot] = rows
                hi[rows] = key_hi[i]
                lo[rows] = key_lo[i]
                found[i] = rows
                rows += 1
                break
            if hi[row] == key_hi[i] and lo[row] == key_lo[i]:
                found[i] = row
                break
            slot = (slot + 1) & mask
    return rows


@njit(cache=True, nogil=True)
def lookup(table, hi, lo, key_hi, key_lo, found):
    """Each key's row into ``found`` (int32), -1 where it is not known."""
    mask = len(table) - 1
    for i in range(len(key_hi)):
        slot = np.int64(key_hi[i]) & mask
        while True:
            row = table[slot]
            if row < 0 or (hi[row] == key_hi[i] and lo[row] == key_lo[i]):
                found[i] = row
                break
            slot = (slot + 1) & mask


class Keys:
    """Growing set of 128-bit keys: each distinct key gets the next row number, in order of first sight."""

    def __init__(self, hi: np.ndarray | None = None, lo: np.ndarray | None = None):
        self.rows = 0 if hi is None else len(hi)
        self.hi = np.zeros(MINIMUM, np.uint64) if hi is None else hi.copy()
        self.lo = np.zeros(MINIMUM, np.uint64) if lo is None else lo.copy()
        self.table = empty(len(self.hi))
        build(self.table, self.hi, self.lo, self.rows)

    def add(self, key_hi: np.ndarray, key_lo: np.ndarray) -> np.ndarray:
        """Row numbers of the keys, int32, shape of ``key_hi``; unknown keys are entered."""
        need = self.rows + len(key_hi)
        if need > len(self.hi):
            self.hi, self.lo = grown(self.hi, need), grown(self.lo, need)
        if 2 * need > len(self.table):
            self.table = empty(2 * need)
            build(self.table, self.hi, self.lo, self.rows)
        found = np.empty(len(key_hi), np.int32)
        self.rows = upsert(self.table, self.hi, self.lo, self.rows, key_hi, key_lo, found)
        return found

    def find(self, key_hi: np.ndarray, key_lo: np.ndarray) -> np.ndarray:
        """Row numbers of the keys, int32, -1 where a key is not known."""
        found = np.empty(len(key_hi), np.int32)
        lookup(self.table, self.hi, self.lo, key_hi, key_lo, found)
        return found


def grown(array: np.ndarray, need: int) -> np.ndarray:
    """``array`` with room for ``need`` rows, at least doubled, the new room zeroed."""
    bigger = np.zeros((max(need, 2 * len(array)), *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
