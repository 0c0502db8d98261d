"""The facts that conversions may be credited to, brought together from the buckets that remember them."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from measurement.state.touches import TOUCH


@dataclass(frozen=True)
class Candidates:
    """n facts within the lookback of a reached conversion, ordered by ``conversion`` (int64): the fact (TOUCH), a number of its
    own (int64), and OLD, NEW or DROPPED."""

    conversion: np.ndarray
    touch: np.ndarray
    number: np.ndarray
    state: np.ndarray

    def bucket(self, at: np.ndarray) -> np.ndarray:
        """The buckets of those at some places."""
        return self.number[at] >> 32


def collected(conversions: int, found: list[tuple]) -> Candidates:
    """What buckets gave for so many conversions: of each (its rows, its number, which conversion's, which row, state)."""
    n = sum(len(which) for _, _, _, which, _ in found)
    at = np.zeros(conversions + 1, np.int64)
    for _, _, whose, _, _ in found:
        at[1:] += np.bincount(whose, minlength=conversions)
    np.cumsum(at, out=at)
    out = Candidates(np.empty(n, np.int64), np.empty(n, TOUCH), np.empty(n, np.int64), np.empty(n, np.uint8))
    for rows, bucket, whose, which, state in found:
        _collect(rows, bucket << 32, whose, which, state, at, out.conversion, out.touch, out.number, out.state)
    return out


def tied(candidates: Candidates) -> np.ndarray:
    """Where the candidates are that share their time with another of the same conversion."""
    marks = np.zeros(len(candidates.touch), np.bool_)
    _tied(candidates.conversion, np.ascontiguousarray(candidates.touch["time"]), marks)
    return np.flatnonzero(marks)


@njit(cache=True, nogil=True)
def _collect(rows, number, whose, which, state, at, conversions, touches, numbers, states):
    """Puts each candidate behind those that its conversion has; ``at``: where its next one stands."""
    for i in range(len(whose)):
        place = at[whose[i]]
        at[whose[i]] += 1
        conversions[place], touches[place] = whose[i], rows[which[i]]
        numbers[place], states[place] = number + which[i], state[i]


@njit(cache=True, nogil=True)
def _tied(conversions, times, marks):
    a = 0
    while a < len(times):
        b, rises = a + 1, True
        while b < len(times) and conversions[b] == conversions[a]:
            rises &= times[b] > times[b - 1]
            b += 1
        if not rises:  # mostly they come by time
            order = np.argsort(times[a:b]) + a
            for i in range(1, b - a):
                if times[order[i]] == times[order[i - 1]]:
                    marks[order[i]] = marks[order[i - 1]] = True
        a = b
