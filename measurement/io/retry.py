"""Patience with a service that is away: backoff with jitter up to a deadline, then one SinkError. Imports no Beam."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.api_core.exceptions import GoogleAPICallError
from grpc import StatusCode

T = TypeVar("T")

# What a service answers, or a connection gives, where the same request may do better a little later.
RETRYABLE = frozenset({
    StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED, StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.INTERNAL, StatusCode.CANCELLED})
_FIRST, _MOST = 0.1, 30.0  # seconds that the first wait and any wait may take


class SinkError(Exception):
    """A sink cannot go on. The message is one line: which table, what the service said, what to do."""


@dataclass(frozen=True)
class Patience:
    """How long a request is tried: seconds, by which clock, and what waits. The last two are for tests."""

    seconds: float = 600
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


class Backoff:
    """The waits of one request to ``what``; its time begins now."""

    def __init__(self, what: str, patience: Patience):
        self._what, self._patience = what, patience
        self._until = patience.clock() + patience.seconds
        self._attempts = 0

    def timeout(self, most: float = 60) -> float:
        """Seconds that the next attempt may take."""
        return max(1.0, min(most, self._until - self._patience.clock()))

    def again(self, why: str) -> None:
        """Waits before the next attempt; SinkError where the time is up. ``why`` is what the last one failed of."""
        self._attempts += 1
        left = self._until - self._patience.clock()
        if left <= 0:
            raise SinkError(f"{self._what}: gave up after {self._patience.seconds:.0f} s and {self._attempts} attempts: {why}")
        # Anything up to the bound, so that workers that failed together do not come back together.
        bound = min(_MOST, _FIRST * 2 ** min(self._attempts - 1, 30))
        self._patience.wait(min(left, random.uniform(bound / 10, bound)))


def retrying(what: str, attempt: Callable[[float], T], patience: Patience) -> T:
    """What ``attempt`` (given its timeout in seconds) returns; SinkError as above, or at once where it is of no use."""
    backoff = Backoff(what, patience)
    while True:
        try:
            return attempt(backoff.timeout())
        except GoogleAPICallError as error:
            if error.grpc_status_code not in RETRYABLE:
                raise SinkError(f"{what}: {said(error)}") from error
            backoff.again(said(error))


def said(error: GoogleAPICallError) -> str:
    """A service's error on one line."""
    code = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
    return f"{code}: {' '.join(str(error.message).split())}"
