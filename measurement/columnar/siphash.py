"""SipHash-2-4 with a 128-bit result: a keyed hash that tells nothing of its input to who lacks the key.

Aumasson and Bernstein, "SipHash: a fast short-input PRF" (Indocrypt 2012); the 128-bit form is the reference
implementation's. There are so few IPv4 addresses that a hash without a key would give each of them away.
"""

import numpy as np
from numba import njit

_INITIAL = tuple(np.uint64(c) for c in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
_LONG = np.uint64(0xEE)


@njit
def _rotated(x, by):
    return (x << np.uint64(by)) | (x >> np.uint64(64 - by))


@njit
def _round(a, b, c, d):
    a += b
    b = _rotated(b, 13) ^ a
    a = _rotated(a, 32)
    c += d
    d = _rotated(d, 16) ^ c
    a += d
    d = _rotated(d, 21) ^ a
    c += b
    b = _rotated(b, 17) ^ c
    c = _rotated(c, 32)
    return a, b, c, d


@njit(cache=True, nogil=True)
def siphash(key, words):
    """The hash (two uint64) of ``words``, a tuple of uint64 read as their little-endian bytes; ``key`` (2,) uint64."""
    a, b, c, d = key[0] ^ _INITIAL[0], key[1] ^ _INITIAL[1] ^ _LONG, key[0] ^ _INITIAL[2], key[1] ^ _INITIAL[3]
    for word in words:
        d ^= word
        a, b, c, d = _round(*_round(a, b, c, d))
        a ^= word
    length = np.uint64(8 * len(words)) << np.uint64(56)
    d ^= length
    a, b, c, d = _round(*_round(a, b, c, d))
    a ^= length
    c ^= _LONG
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    first = a ^ b ^ c ^ d
    b ^= np.uint64(0xDD)
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    return first, a ^ b ^ c ^ d
