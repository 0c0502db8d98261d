"""Fingerprints of texts and of rows of texts, many at a time."""

import numpy as np
import pyarrow as pa
from numba import njit

from measurement.columnar.batch import Blobs
from measurement.columnar.hashing import combine, fingerprint


def text_fingerprints(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (hi, lo; uint64) of texts."""
    return blob_fingerprints(text_blobs(pa.array(texts, pa.large_string())))


def text_blobs(texts: pa.Array) -> Blobs:
    """The UTF-8 of a ``large_string`` array without nulls, not copied."""
    _, offsets, data = texts.buffers()
    if not len(texts):
        return Blobs(np.zeros(1, np.int64), np.zeros(0, np.uint8))
    offsets = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return Blobs(offsets, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8))


def texts_of_blobs(it: Blobs) -> list[str]:
    """UTF-8 texts."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(it.offsets)), pa.py_buffer(np.ascontiguousarray(it.data))]
    return pa.Array.from_buffers(pa.large_string(), len(it), buffers).to_pylist()


@njit(cache=True, nogil=True)
def _blob_fingerprints(offsets, data, hi, lo):
    for i in range(len(hi)):
        hi[i], lo[i] = fingerprint(data, offsets[i], offsets[i + 1] - offsets[i], 0)


def blob_fingerprints(texts: Blobs) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (hi, lo; uint64) of UTF-8 texts."""
    hi, lo = np.empty(len(texts), np.uint64), np.empty(len(texts), np.uint64)
    _blob_fingerprints(texts.offsets, texts.data, hi, lo)
    return hi, lo


@njit(cache=True, nogil=True)
def _of_rows(text_hi, text_lo, codes, hi, lo):
    for i in range(len(codes)):
        for c in codes[i]:
            # As a null differs from every text, so does a short row from a longer one.
            t_hi, t_lo = (text_hi[c], text_lo[c]) if c >= 0 else (np.uint64(0), np.uint64(0))
            hi[i], lo[i] = combine(hi[i], lo[i], t_hi, t_lo)


def fingerprints_of_rows(text_hi: np.ndarray, text_lo: np.ndarray, codes: np.ndarray, seed: np.ndarray | None = None):
    """Fingerprints (hi, lo; uint64) of rows of texts: ``codes`` (n, k) of texts with those fingerprints, -1 null. ``seed``
    (n,): a number that goes before the texts."""
    hi, lo = np.zeros(len(codes), np.uint64), np.zeros(len(codes), np.uint64)
    if seed is not None:
        hi[:] = seed.view(np.uint64)
    _of_rows(text_hi, text_lo, codes, hi, lo)
    return hi, lo


@njit(cache=True, nogil=True)
def combined(a_hi, a_lo, b_hi, b_lo):
    """Fingerprints of pairs of fingerprints, uint64 arrays of one length; where the first is 0, which is null, so is the
    pair's."""
    hi, lo = np.zeros(len(a_hi), np.uint64), np.zeros(len(a_hi), np.uint64)
    for i in range(len(a_hi)):
        if a_hi[i] or a_lo[i]:
            hi[i], lo[i] = combine(a_hi[i], a_lo[i], b_hi[i], b_lo[i])
    return hi, lo


@njit(cache=True, nogil=True)
def numbered(a_hi, a_lo, numbers):
    """Fingerprints of pairs of a fingerprint and a number, arrays of one length."""
    hi, lo = np.empty(len(a_hi), np.uint64), np.empty(len(a_hi), np.uint64)
    for i in range(len(a_hi)):
        hi[i], lo[i] = combine(a_hi[i], a_lo[i], np.uint64(numbers[i]), np.uint64(0))
    return hi, lo
