"""The watermark of files read together, and the lateness of each event against it.

A file's watermark is the latest time that ``SUPPORT`` accepted events in a row have all reached, so that no single
event, nor a few of them, can move it far ahead of its fellows; it never goes back. The watermark of the run is the least
over its files: a file not yet begun holds it at minus infinity, a file read to its end no longer holds it. Each event is
judged by the watermark as it stood before it, which makes the judgement a function of the files alone and not of batch
sizes or engine timing.
"""

import numpy as np
from numba import njit

from measurement.columnar.batch import NO_WATERMARK
from measurement.columnar.judge import ACCEPTED, TOO_LATE

# A clock that runs ahead is found in far fewer than one event of a hundred; four such in a row are then less likely
# than 10^-8, and a sparse log still moves on after a handful of events.
SUPPORT = 4
END = np.iinfo(np.int64).max
HELD = END  # a bound that no event gets over: the watermark stays where it is until the input is at its end


class FileWatermark:
    """One input's watermark: the last ``SUPPORT`` accepted event times and the running maximum of their minima less a
    ``bound``, µs. The bound is for transports that mix what was sent together."""

    def __init__(self, bound: int = 0):
        self._bound = bound
        self.recent = np.full(SUPPORT, NO_WATERMARK, np.int64)
        self.state = np.array([0, NO_WATERMARK], np.int64)  # accepted so far, watermark

    @property
    def value(self) -> int:
        return int(self.state[1])

    def open(self, times: np.ndarray) -> None:
        """Begins a file by the accepted event times (µs) at its head, so that it holds the run no further back."""
        if len(times) >= SUPPORT:
            self.advance(int(times[:SUPPORT].min()))

    def advance(self, time: int) -> None:
        """Moves it on to a time (µs) that is known from elsewhere, never back."""
        self.state[1] = max(self.state[1], time)

    def judge(self, times: np.ndarray, reason: np.ndarray, others: int, horizon: int, floor: int = NO_WATERMARK) -> np.ndarray:
        """The watermark before each event (int64 µs), the least of this input's and ``others``.

        Turns the ``reason`` of accepted events older than the ``horizon`` (µs) behind it, or than the ``floor`` (µs), into
        TOO_LATE.
        """
        before = np.empty(len(times), np.int64)
        _judge(times, reason, self.recent, self.state, others, horizon, floor, self._bound, before)
        return before


@njit(cache=True, nogil=True)
def _judge(times, reason, recent, state, others, horizon, floor, bound, before):
    for i in range(len(times)):
        watermark = min(state[1], others)
        before[i] = watermark
        if reason[i] != ACCEPTED:
            continue
        if times[i] < floor or (watermark != NO_WATERMARK and times[i] < watermark - horizon):
            reason[i] = TOO_LATE
            continue
        recent[state[0] % SUPPORT] = times[i]
        state[0] += 1
        if bound != HELD and recent.min() != NO_WATERMARK:
            state[1] = max(state[1], recent.min() - bound)
