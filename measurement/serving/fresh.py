"""A value that costs something to find and may be some seconds old."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_LOG = logging.getLogger("measurement.serving")


class Fresh(Generic[T]):
    """``find``'s answer, found again when it is older than ``seconds``; one caller finds it, the others take the old one meanwhile, or
    wait where there is none. What ``find`` raises is raised to the one who called it.

    With ``waits_not`` callers take one that is up to so many seconds old at once, while it is found in a thread; a failure there is
    logged, and tried again by the next who asks.
    """

    def __init__(self, find: Callable[[], T], seconds: float, clock: Callable[[], float], waits_not: float = 0):
        self._find, self._seconds, self._clock, self._waits_not = find, seconds, clock, waits_not
        self._finding = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        kept = self._kept
        age = float("inf") if kept is None else self._clock() - kept[0]
        if age < self._seconds:
            return kept[1]
        if not self._finding.acquire(blocking=kept is None):
            return kept[1]
        if age < self._waits_not:
            threading.Thread(target=self._behind, daemon=True).start()
            return kept[1]
        try:
            return self._found(kept)
        finally:
            self._finding.release()

    def _behind(self) -> None:
        try:
            self._found(self._kept)
        except Exception:
            _LOG.exception("not refreshed")
        finally:
            self._finding.release()

    def _found(self, known: tuple[float, T] | None) -> T:
        if self._kept is known:  # nobody found it while this one waited
            began = self._clock()
            self._kept = began, self._find()
        return self._kept[1]
