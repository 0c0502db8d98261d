"""Verdicts on texts, kept by value: many events share few user agents, so each distinct one is judged once.

A text is known by its fingerprint in a compiled table that lives across batches. The table is bounded: a flood of texts
that never come again makes it begin anew, which costs judgements and no memory.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

from measurement.columnar.hashing import fingerprint
from measurement.columnar.labels import firsts
from measurement.columnar.table import Keys, grown


@njit(cache=True, nogil=True)
def _known(buf, starts, lengths, at_most, table, hi, lo, kept, out, key_hi, key_lo, missed):
    """Fills ``out`` with what is ``kept``, the keys with the texts' fingerprints, and ``missed`` with the places of what is
    not known. Returns how many."""
    for i in range(len(starts)):
        if lengths[i] > 0:
            key_hi[i], key_lo[i] = fingerprint(buf, starts[i], min(lengths[i], at_most), 0)
    mask, count = len(table) - 1, 0
    for i in range(len(starts)):  # a loop of its own, so short that the processor fetches several events' slots at once
        out[i] = 0
        if lengths[i] <= 0:
            continue
        slot = np.int64(key_hi[i]) & mask
        while True:
            row = table[slot]
            if row < 0:
                missed[count] = i
                count += 1
                break
            if hi[row] == key_hi[i] and lo[row] == key_lo[i]:
                out[i] = kept[row]
                break
            slot = (slot + 1) & mask
    return count


class ByValue:
    """``judge`` gives the verdicts (bool, or numbers from 0 to 255) of distinct texts, and is asked once for each.

    Only the first ``at_most`` bytes of a text are looked at; a character that they cut is left out. Not for several threads.
    """

    def __init__(self, judge: Callable[[list[str]], np.ndarray], limit: int = 1_000_000, at_most: int = 2**31 - 1):
        self._judge, self._limit, self._at_most = judge, limit, at_most
        self._forget()

    def _forget(self) -> None:
        self._keys, self._kept = Keys(), np.zeros(0, np.uint8)

    def verdicts(self, buf: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Verdicts (uint8) of n text slices; 0 where the length is not positive."""
        n, keys = len(starts), self._keys
        out, missed = np.empty(n, np.uint8), np.empty(n, np.int64)
        hi, lo = np.empty(n, np.uint64), np.empty(n, np.uint64)
        count = _known(buf, starts, lengths, self._at_most, keys.table, keys.hi, keys.lo, self._kept, out, hi, lo, missed)
        if count:
            at = missed[:count]
            out[at] = self._learn(buf, starts[at], lengths[at], hi[at], lo[at])
        return out

    def _learn(self, buf, starts, lengths, hi, lo) -> np.ndarray:
        if self._keys.rows + len(hi) > self._limit:
            self._forget()
        before = self._keys.rows
        found = self._keys.add(hi, lo)
        new = firsts(found - before)
        if self._keys.rows > len(self._kept):
            self._kept = grown(self._kept, self._keys.rows)
        view, at_most, texts = memoryview(buf), self._at_most, []
        for start, length in zip(starts[new].tolist(), lengths[new].tolist()):
            if length <= at_most:
                texts.append(str(view[start : start + length], "utf-8"))
            else:
                texts.append(str(view[start : start + at_most], "utf-8", "ignore"))  # only the cut can be wrong
        self._kept[before : self._keys.rows] = self._judge(texts)
        return self._kept[found]
