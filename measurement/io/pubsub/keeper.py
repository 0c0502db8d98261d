"""The threads of one reader: they pull ahead of it, extend what it holds, and acknowledge what is covered.

A keeper outlives the reader object, which an engine may close and make again within a process, and is found by its key:
marks carry only numbers.
"""

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.api_core.exceptions import GoogleAPICallError

from measurement.io.pubsub.leases import Due, Leases
from measurement.io.retry import SinkError

_LOG = logging.getLogger(__name__)
_PULL_MESSAGES = 1_000  # the service's most
_PULL_SECONDS = 5.0
_TICK_SECONDS = 0.1  # of the acknowledging thread, when nothing wakes it
_BACKOFF_SECONDS = 0.2, 10.0
_FAILURES = grpc.RpcError, GoogleAPICallError, SinkError, ValueError  # ValueError: the channel was closed meanwhile


@dataclass(frozen=True)
class Flow:
    """How a reader pulls: threads, bytes that it may hold pulled or unacknowledged, the subscription's ack deadline (s: a
    message that nobody extends comes back after it) and the hold (s) of a finalized mark."""

    threads: int = 2
    most_bytes: int = 256 << 20
    lease: float = 60.0
    hold: float = 0.0


@dataclass
class Pulled:
    """The messages of one pull, protobuf."""

    messages: list
    size: int
    at: float


class Superseded(Exception):
    """Another generation of the job has begun; the message is one line."""


class Keeper:
    """Pulls, extends and acknowledges for one reader until it is closed.

    ``permit`` is asked before anything is acknowledged, and (given False) at any time: Superseded ends the reader, while any
    other failure of it lasts nothing is acknowledged.
    """

    def __init__(self, subscriber, flow: Flow, permit: Callable[[bool], None], clock=time.monotonic):
        self.leases = Leases(flow.lease, flow.hold)
        self.outages = 0  # failed calls
        self.acknowledged = 0
        self._subscriber, self._flow, self._clock = subscriber, flow, clock
        self._permit = permit
        self.superseded: Superseded | None = None
        self._waiting: deque[Pulled] = deque()
        self._bytes = self._messages = 0  # waiting
        self._taken = -1e9
        self._extended = -1e9  # when what waits was
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)  # something was pulled, or it is closed
        self._wake, self._closed = threading.Event(), threading.Event()
        self._closed_at = 0.0
        self._last_message = clock()  # or failed pull
        self._answers = 0  # pulls that were answered since then
        self._threads = [threading.Thread(target=self._pull, daemon=True, name="pull") for _ in range(flow.threads)]
        self._threads.append(threading.Thread(target=self._keep, daemon=True, name="acknowledge"))
        for thread in self._threads:
            thread.start()

    # -- the reader's side

    def take(self, most: int, most_bytes: int, linger: float, wait: float = 0.0) -> list[Pulled]:
        """What has been pulled: whole pulls, until they have ``most`` messages or ``most_bytes`` together. If less than that
        waits, it is taken only when nothing was within the last ``linger`` seconds. Waits for ``wait`` seconds at most until
        it may be; [] if it may not then."""
        taken, n, size, end = [], 0, 0, time.monotonic() + wait
        with self._news:
            while (due := self._due(most, most_bytes, linger)) > 0:
                if (left := end - time.monotonic()) <= 0 or self._closed.is_set():
                    return []
                self._news.wait(min(due, left))
            while self._waiting and n < most and size < most_bytes:
                pulled = self._waiting.popleft()
                n, size = n + len(pulled.messages), size + pulled.size
                taken.append(pulled)
            self._messages -= n
            self._bytes -= size
            if taken:
                self._taken = self._clock()
        return taken

    def _due(self, most: int, most_bytes: int, linger: float) -> float:
        """Seconds until what waits may be taken."""
        if not self._waiting:
            return math.inf
        full = self._messages >= most or self._bytes >= most_bytes
        return 0.0 if full else self._taken + linger - self._clock()

    def finalized(self, number: int) -> None:
        self.leases.finalized(number, self._clock())
        self._wake.set()

    def idle(self) -> float:
        """For how long (s) nothing came although the service answered; 0 while it does not, or while anything is held."""
        with self._lock:
            if self._waiting or self._answers < self._flow.threads:
                return 0.0
        return 0.0 if len(self.leases) else self._clock() - self._last_message

    def give_back(self, number: int) -> None:
        """Gives back what was emitted behind element ``number`` and what was pulled and not emitted."""
        ids = self.leases.forget_after(number)
        ids += [m.ack_id for pulled in self.take(1 << 62, 1 << 62, 0.0) for m in pulled.messages]
        if ids:
            self._try(lambda: self._subscriber.extend(ids, 0))

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """Stops pulling and gives back what was not emitted; what a mark in flight covers is still acknowledged."""
        self._closed_at = self._clock()
        self._close()

    def _close(self) -> None:
        self._closed.set()
        self._wake.set()
        with self._news:
            self._news.notify_all()

    def drain(self, seconds: float) -> None:
        """Closes it and waits for its last acknowledgements, at most so long."""
        self.close()
        self._threads[-1].join(seconds)
        self._subscriber.close()  # which ends the pulls

    # -- threads

    def _pull(self) -> None:
        wait = _BACKOFF_SECONDS[0]
        while not self._closed.is_set():
            if self._bytes + self.leases.bytes >= self._flow.most_bytes:
                self._closed.wait(_TICK_SECONDS)
                continue
            try:
                messages = self._subscriber.pull(_PULL_MESSAGES, _PULL_SECONDS)
            except _FAILURES as error:
                if self._closed.is_set():
                    return
                with self._lock:  # what comes meanwhile is not delivered: idleness begins anew behind an outage
                    self._last_message, self._answers = self._clock(), 0
                self._failed("pull", error)
                self._closed.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(2 * wait, _BACKOFF_SECONDS[1])
                continue
            wait = _BACKOFF_SECONDS[0]
            with self._lock:
                if messages:
                    size = sum(len(m.message.data) for m in messages)
                    self._waiting.append(Pulled(messages, size, self._clock()))
                    self._bytes += size
                    self._messages += len(messages)
                    self._last_message, self._answers = self._clock(), 0
                    self._news.notify_all()
                else:
                    self._answers += 1

    def _keep(self) -> None:
        while True:
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()
            due = self.leases.due(now := self._clock())
            self._acknowledge(due)
            if self.superseded:
                return
            waiting = []
            if now - self._extended >= self._flow.lease / 3:
                self._extended = now
                with self._lock:
                    waiting = [m.ack_id for p in self._waiting for m in p.messages]
            if ids := due.extend + waiting:
                self._try(lambda: self._subscriber.extend(ids, int(self._flow.lease)))
            if self._closed.is_set():
                self.give_back(1 << 62)
                # A bundle that failed finalizes nothing: what it held comes back when its deadline passes.
                if not len(self.leases) or self._clock() - self._closed_at > self._flow.lease:
                    return

    def _acknowledge(self, due: Due) -> None:
        try:
            permitted = self._try(lambda: self._permit(bool(due.acknowledge)))
        except Superseded as over:
            self.superseded = over
            self._close()
            return
        if due.acknowledge and permitted and self._try(lambda: self._subscriber.acknowledge(due.acknowledge)):
            self.leases.acknowledged(due.through)
            self.acknowledged += len(due.acknowledge)

    def _try(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except _FAILURES as error:
            self._failed("lease", error)
            return False
        return True

    def _failed(self, what: str, error: Exception) -> None:
        self.outages += 1
        code = error.code().name if isinstance(error, grpc.RpcError) else str(error)
        _LOG.warning("Pub/Sub %s failed: %s", what, code)
