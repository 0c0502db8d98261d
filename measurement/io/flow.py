"""How far a source may run ahead of the first stateful stage, where the engine itself does not hold it back.

Prism keeps every element that a stage has not taken yet in memory and never slows a source. Where source and workers
share a process (Prism's LOOPBACK environment), the source counts what is under way here and pauses at a limit.
"""

import threading
from collections import Counter
from dataclasses import dataclass

_lock = threading.Lock()
_taken: Counter = Counter()  # by run: events that the join has taken


def released(run: str, events: int) -> None:
    with _lock:
        _taken[run] += events


def taken(run: str) -> int:
    return _taken[run]


@dataclass
class Progress:
    """What the source of a run in this process has read."""

    events: int = 0
    rejected: int = 0
    watermark: int | None = None  # µs


PROGRESS: dict[str, Progress] = {}


def progress(run: str, events: int, rejected: int, watermark: int) -> None:
    it = PROGRESS.setdefault(run, Progress())
    it.events += events
    it.rejected += rejected
    it.watermark = watermark


def ahead(run: str) -> int:
    """Events that the source of a run has emitted and the join has not taken; of the run, not of one of its readers."""
    it = PROGRESS.get(run)
    return it.events - it.rejected - _taken[run] if it else 0


def forget(run: str) -> None:
    with _lock:
        _taken.pop(run, None)
    PROGRESS.pop(run, None)
