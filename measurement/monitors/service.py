"""The monitor as a service: a look every so often, alerts sent, metrics served, and a sign of life behind each whole look."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from measurement.monitors.exporter import Exporter
from measurement.monitors.monitor import Look, Monitor
from measurement.monitors.notify import Deadman, Outbox
from measurement.monitors.times import instant

_LOG = logging.getLogger("measurement.monitor")


@dataclass
class Service:
    """``clock``: µs since 1970. ``every``: seconds between the starts of two looks."""

    monitor: Monitor
    outbox: Outbox
    exporter: Exporter
    deadman: Deadman | None = None
    every: float = 60.0
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000

    def look(self) -> Look:
        """One look, and all that is to be told of it."""
        found = self.monitor.look(self.clock())
        for notice in found.notices:
            alert = notice.alert
            _LOG.warning("%s: %s (%s, %s)", notice.action, alert.summary, alert.severity, alert.runbook)
        self.outbox.send(found.notices)
        self.exporter.show(instant(found.at), found.judged, replace(found.facts, notices=len(self.outbox)))
        if self.deadman is not None and found.complete:
            self.deadman.signal(instant(found.at))
        return found

    def run(self, stop: threading.Event, looks: int | None = None) -> Look | None:
        """Looks until ``stop`` is set, or so many times; the last look. One that took too long is followed at once."""
        done, last = 0, None
        while not stop.is_set() and (looks is None or done < looks):
            due = time.monotonic() + self.every
            last = self.look()
            done += 1
            if looks is None or done < looks:
                stop.wait(max(0.0, due - time.monotonic()))
        return last
