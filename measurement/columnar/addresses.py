"""Address text read by compiled code: IPv4 as four decimal octets, IPv6 in the text forms of RFC 4291, section 2.2.

What is an address is decided exactly as Python's ``ipaddress`` does: no leading zeros in an octet, at most one ``::``, an
IPv4 address as the last 32 bits, and behind ``%`` a scope id (RFC 4007), which is left out of the value. An IPv4 address is
given as the IPv4-mapped one (::ffff:a.b.c.d, RFC 4291, section 2.5.5.2), so both spellings of it are the same address.

A text is read once from its beginning; reading stops at the first byte that no address has.
"""

import numpy as np
from numba import njit

_PERCENT, _DOT, _SLASH, _COLON = np.frombuffer(b"%./:", np.uint8).tolist()
_GROUPS = 8  # of 16 bits
_16, _48, _LAST = np.uint64(16), np.uint64(48), np.uint64(0xFFFF)
_NOTHING = np.uint64(0)
_NO_DIGIT = 16
_HEX = np.full(256, _NO_DIGIT, np.int64)  # by byte: a look-up, where comparisons would go wrong at every other digit
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_HEX[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
MAPPED = np.uint64(0xFFFF)  # the low 64 bits of an IPv4 address, without its own 32
FOUR = np.uint64(32)


@njit
def _octets(buf, start, stop):
    """The 32 bits of four decimal octets, -1 if the bytes are something else."""
    if stop - start < 7 or stop - start > 15:
        return -1
    value, octet, digits, dots = 0, 0, 0, 0
    for i in range(start, stop):
        c = np.int64(buf[i])
        if 48 <= c <= 57:
            if digits == 3 or (digits == 1 and octet == 0):
                return -1
            octet = octet * 10 + (c - 48)
            digits += 1
        elif c == _DOT and digits > 0 and octet <= 255 and dots < 3:
            value = value << 8 | octet
            dots += 1
            octet, digits = 0, 0
        else:
            return -1
    return value << 8 | octet if dots == 3 and digits > 0 and octet <= 255 else -1


@njit
def _up(hi, lo, group):
    """A value of 128 bits, 16 bits further up, with ``group`` as its last."""
    return hi << _16 | lo >> _48, lo << _16 | np.uint64(group)


@njit
def _end(buf, start, stop):
    """Where the address ends: at the scope id's ``%`` or at ``stop``; -1 if the scope id is none."""
    for i in range(start, stop):
        if buf[i] == _PERCENT:
            for j in range(i + 1, stop):
                if buf[j] == _PERCENT or buf[j] == _SLASH:
                    return -1
            return i if i + 1 < stop else -1
    return stop


@njit
def address(buf, start, length):
    """(whether ``buf[start:start + length]`` is an address, its upper and its lower 64 bits)."""
    four = _octets(buf, start, start + length)
    if four >= 0:
        return True, _NOTHING, MAPPED << FOUR | np.uint64(four)
    hi, lo, before_hi, before_lo = _NOTHING, _NOTHING, _NOTHING, _NOTHING
    groups, gap, group, digits = 0, -1, 0, 0  # gap: groups in front of ``::``
    i, stop = start, start + length
    if length >= 2 and buf[i] == _COLON and buf[i + 1] == _COLON:
        gap = 0
        i += 2
    first = i  # of the group
    while i < stop:
        c = np.int64(buf[i])
        value = _HEX[c]
        if value < _NO_DIGIT:
            if digits == 4:
                return False, hi, lo
            group = group << 4 | value
            digits += 1
            i += 1
            continue
        if digits == 0 and not (c == _PERCENT and gap == groups):
            return False, hi, lo
        if c == _COLON:
            if groups == _GROUPS - 1:
                return False, hi, lo
            hi, lo = _up(hi, lo, group)
            groups += 1
            group, digits = 0, 0
            i += 1
            if i < stop and buf[i] == _COLON:
                if gap >= 0:
                    return False, hi, lo
                gap, before_hi, before_lo, hi, lo = groups, hi, lo, _NOTHING, _NOTHING
                i += 1
            elif i == stop or buf[i] == _PERCENT:
                return False, hi, lo
            first = i
            continue
        if c != _DOT and c != _PERCENT:
            return False, hi, lo
        stop = _end(buf, i, stop)
        if c == _DOT:
            four = _octets(buf, first, stop)
            if four < 0:
                return False, hi, lo
            hi, lo = _up(hi, lo, four >> 16)
            group, digits = four & 65535, 1
            groups += 1
        break
    if stop < 0:
        return False, hi, lo
    if digits > 0:
        hi, lo = _up(hi, lo, group)
        groups += 1
    if gap < 0:
        return groups == _GROUPS, hi, lo
    if groups >= _GROUPS:
        return False, hi, lo
    for _ in range(_GROUPS - gap):
        before_hi, before_lo = _up(before_hi, before_lo, 0)
    return True, before_hi | hi, before_lo | lo


@njit(cache=True, nogil=True)
def _parse(buf, starts, lengths, hi, lo, good):
    for i in range(len(starts)):
        good[i], hi[i], lo[i] = False, _NOTHING, _NOTHING
        if lengths[i] > 0:
            is_one, h, l = address(buf, starts[i], lengths[i])
            if is_one:
                good[i], hi[i], lo[i] = True, h, l


def parse(buf: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses of n text slices: upper and lower 64 bits (uint64, 0 where there is none), and whether it is one (bool).

    A length that is not positive is no address.
    """
    hi, lo, good = np.empty(len(starts), np.uint64), np.empty(len(starts), np.uint64), np.empty(len(starts), bool)
    _parse(buf, starts, lengths, hi, lo, good)
    return hi, lo, good
