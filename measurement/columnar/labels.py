"""Interning of text slices: each distinct text once, found by fingerprint, so that Python sees few texts and no event."""

from collections.abc import Iterable

import numpy as np
from numba import njit

from measurement.columnar.hashing import fingerprint
from measurement.columnar.table import Keys


@njit(cache=True, nogil=True)
def _slice_keys(buf, starts, lengths, hi, lo):
    for i in range(len(starts)):
        hi[i], lo[i] = fingerprint(buf, starts[i], lengths[i], 0)


class Labels:
    """Texts, each once, and the codes that name them; ``texts`` are the first."""

    def __init__(self, texts: Iterable[str] = ()):
        self.texts = list(texts)
        self._codes = {text: code for code, text in enumerate(self.texts)}

    def code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return code

    def codes(self, buf: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Codes (int32, the shape of ``starts``) of text slices; -1 where the length is not positive."""
        out = np.full(starts.shape, -1, np.int32)
        at = lengths > 0
        found, texts = distinct(buf, starts[at], lengths[at])
        out[at] = np.array([self.code(t) for t in texts], np.int32)[found] if texts else -1
        return out


def named(codes: np.ndarray, labels: list[str]) -> tuple[np.ndarray, list[str]]:
    """Codes (int32, any shape, -1 null) of the labels that they name and no others, and these."""
    used, local = np.unique(codes, return_inverse=True)
    shift = int(len(used) > 0 and used[0] == -1)
    return (local.reshape(codes.shape) - shift).astype(np.int32), [labels[c] for c in used[shift:].tolist()]


def distinct(buf: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(number of each slice's text among the distinct ones, the distinct texts in order of first sight)."""
    hi, lo = np.empty(len(starts), np.uint64), np.empty(len(starts), np.uint64)
    _slice_keys(buf, starts, lengths, hi, lo)
    found = Keys().add(hi, lo)
    first = firsts(found)
    return found, [buf[s : s + n].tobytes().decode() for s, n in zip(starts[first].tolist(), lengths[first].tolist())]


def begins(*columns: np.ndarray) -> np.ndarray:
    """Where rows of sorted columns begin that differ from the row before."""
    differs = np.ones(len(columns[0]), bool)
    differs[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(differs)


def firsts(found: np.ndarray) -> np.ndarray:
    """Where each number 0, 1, 2 … is first seen in ``found``, whose numbers were given in order of first sight."""
    if not len(found):
        return np.empty(0, np.int64)
    highest = np.maximum.accumulate(found)
    return np.flatnonzero(np.diff(highest, prepend=-1))
