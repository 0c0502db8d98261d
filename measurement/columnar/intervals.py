"""Networks as sorted intervals of addresses, looked up millions of times a second by compiled code.

Overlapping, doubled and adjoining networks are merged to disjoint intervals, so one address lies in one interval at most:
the last that begins at or before it. IPv4 (as RFC 4291's IPv4-mapped addresses, see ``addresses``) stands apart in 32 bits;
in both families the first 16 bits say between which intervals to search.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numba import njit

from measurement.columnar.addresses import FOUR, MAPPED

_MAPPED = IPv6Network("::ffff:0:0/96")
_TOP = 16  # bits of the first level
_LOW = (1 << 64) - 1
_SIXTEEN, _FORTY_EIGHT, _ZERO = np.uint64(16), np.uint64(48), np.uint64(0)


@njit
def _not_above(hi, lo, high, low):
    return hi < high or (hi == high and lo <= low)


@njit(cache=True, nogil=True)
def _has(hi, lo, first4, last4, index4, first6, last6, index6, out):
    for i in range(len(hi)):
        high, low = hi[i], lo[i]
        if high == _ZERO and low >> FOUR == MAPPED:
            four = np.uint32(low)
            top = np.int64(four >> np.uint32(_TOP))
            begin, end = index4[top], index4[top + 1]
            while begin < end:
                middle = (begin + end) >> 1
                if first4[middle] <= four:
                    begin = middle + 1
                else:
                    end = middle
            out[i] = begin > 0 and four <= last4[begin - 1]
        else:
            top = np.int64(high >> _FORTY_EIGHT)
            begin, end = index6[top], index6[top + 1]
            while begin < end:
                middle = (begin + end) >> 1
                if _not_above(first6[middle, 0], first6[middle, 1], high, low):
                    begin = middle + 1
                else:
                    end = middle
            out[i] = begin > 0 and _not_above(high, low, last6[begin - 1, 0], last6[begin - 1, 1])


class Networks:
    """A set of addresses given by networks; ``len`` is the number of disjoint intervals.

    An IPv6 network within ::ffff:0:0/96 means its IPv4 addresses; a wider one does not reach IPv4.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]):
        four, six = [], []
        for network in networks:
            first, last = int(network.network_address), int(network.broadcast_address)
            if network.version == 6 and network.prefixlen >= _MAPPED.prefixlen and first >> 32 == 0xFFFF:
                first, last = first & 0xFFFFFFFF, last & 0xFFFFFFFF
                four.append((first, last))
            else:
                (four if network.version == 4 else six).append((first, last))
        four, six = _merged(four), _merged(six)
        self.__setstate__((
            np.array([f for f, _ in four], np.uint32), np.array([l for _, l in four], np.uint32),
            np.array([(f >> 64, f & _LOW) for f, _ in six], np.uint64).reshape(-1, 2),
            np.array([(l >> 64, l & _LOW) for _, l in six], np.uint64).reshape(-1, 2)))

    def __getstate__(self):
        return self._first4, self._last4, self._first6, self._last6

    def __setstate__(self, state):
        self._first4, self._last4, self._first6, self._last6 = state
        tops = np.arange((1 << _TOP) + 1)
        self._index4 = np.searchsorted((self._first4 >> np.uint32(_TOP)).astype(np.int64), tops).astype(np.int32)
        self._index6 = np.searchsorted((self._first6[:, 0] >> _FORTY_EIGHT).astype(np.int64), tops).astype(np.int32)

    def __len__(self) -> int:
        return len(self._first4) + len(self._first6)

    def has(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """Whether each address (upper and lower 64 bits, uint64, as ``addresses.parse`` gives them) is in a network: bool."""
        out = np.empty(len(hi), bool)
        _has(hi, lo, self._first4, self._last4, self._index4, self._first6, self._last6, self._index6, out)
        return out


def _merged(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint intervals (first, last) in order, none adjoining the next."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged
