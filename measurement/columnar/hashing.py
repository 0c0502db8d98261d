"""128-bit fingerprints of text, the identity that money is counted by.

MurmurHash3_x64_128 (Austin Appleby, public domain, 2011), compiled, over slices of one shared buffer. 64 bits would
not do: among 10^8 live ids about 3x10^-4 false duplicates are expected, each of them a lost event; with 128 bits
about 10^-23.

Slices are (start, length) pairs into a ``uint8`` buffer; fingerprints are pairs of ``uint64``.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_FIVE = np.uint64(5)
_N1 = np.uint64(0x52DCE729)
_N2 = np.uint64(0x38495AB5)
_F1 = np.uint64(0xFF51AFD7ED558CCD)
_F2 = np.uint64(0xC4CEB9FE1A85EC53)
_33 = np.uint64(33)


@njit
def _rotl(x, r):
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@njit
def avalanche(k):
    """The finaliser of MurmurHash3: every input bit reaches every output bit."""
    k ^= k >> _33
    k *= _F1
    k ^= k >> _33
    k *= _F2
    k ^= k >> _33
    return k


@intrinsic
def _load(typing_context, buf, at):
    """Eight bytes at any offset of a uint8 array as one machine load, which numba's indexing cannot express."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), cgutils.intp_t.as_pointer())
        loaded = builder.load(place)
        loaded.align = 1
        return builder.bitcast(loaded, ir.IntType(64))

    return types.uint64(buf, types.int64), generate


@njit
def word(buf, start, length):
    """Up to 8 bytes of ``buf`` from ``start``, little-endian, zero-padded."""
    if start + 8 <= len(buf):
        w = _load(buf, np.int64(start))
        if length < 8:
            w &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
        return w
    w = np.uint64(0)
    for i in range(min(length, 8)):
        w |= np.uint64(buf[start + i]) << np.uint64(8 * i)
    return w


@njit
def _block(h1, h2, k1, k2):
    h1 ^= _rotl(k1 * _C1, 31) * _C2
    h1 = (_rotl(h1, 27) + h2) * _FIVE + _N1
    h2 ^= _rotl(k2 * _C2, 33) * _C1
    h2 = (_rotl(h2, 31) + h1) * _FIVE + _N2
    return h1, h2


@njit
def _finish(h1, h2, length):
    h1 ^= np.uint64(length)
    h2 ^= np.uint64(length)
    h1 += h2
    h2 += h1
    h1 = avalanche(h1)
    h2 = avalanche(h2)
    h1 += h2
    h2 += h1
    return h1, h2


@njit(cache=True, nogil=True)
def fingerprint(buf, start, length, seed):
    """MurmurHash3_x64_128 of ``buf[start:start + length]``: two uint64."""
    h1 = np.uint64(seed)
    h2 = np.uint64(seed)
    whole = length - (length & 15)
    for at in range(0, whole, 16):
        h1, h2 = _block(h1, h2, word(buf, start + at, 8), word(buf, start + at + 8, 8))
    rest = length - whole
    if rest > 8:
        h2 ^= _rotl(word(buf, start + whole + 8, rest - 8) * _C2, 33) * _C1
    if rest > 0:
        h1 ^= _rotl(word(buf, start + whole, rest) * _C1, 31) * _C2
    return _finish(h1, h2, length)


@njit(cache=True, nogil=True)
def combine(a1, a2, b1, b2):
    """The fingerprint of an ordered pair of fingerprints (their 32 bytes hashed the same way)."""
    h1, h2 = _block(np.uint64(0), np.uint64(0), np.uint64(a1), np.uint64(a2))
    h1, h2 = _block(h1, h2, np.uint64(b1), np.uint64(b2))
    return _finish(h1, h2, 32)


@njit(cache=True, nogil=True)
def digest64(buf, start, length, h):
    """A running 64-bit digest ``h`` continued over a slice, its length included."""
    for at in range(0, length, 8):
        h = _rotl(h ^ (word(buf, start + at, length - at) * _C1), 29) * _C2 + _N1
    return avalanche(h ^ np.uint64(length))
