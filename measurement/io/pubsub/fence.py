"""Whether a reader may acknowledge: its generation must be the job's last, and it must be known that it has begun to.

A job that comes up without its state starts at the beginning of a source it has already acknowledged messages of, and can
tell by the mark left here. A job that another one has replaced learns of it here as well, within ``BEAT`` seconds, and
stops acknowledging messages that only its own state would count. The mark that says so is also the job's heartbeat.
"""

import time

from measurement.io.control import Control
from measurement.io.pubsub.keeper import Superseded

BEAT = 5.0  # seconds
_RUNNING = "running"


class Fence:
    """Of one reader of a generation of a job."""

    def __init__(self, control: Control, job: str, generation: int, reader: int, clock=time.monotonic):
        self._control, self._job, self._generation, self._reader = control, job, generation, str(reader)
        self._clock = clock
        self._beat: float | None = None
        self._witnessed = False

    def has_acknowledged(self) -> bool:
        return self._control.witnessed(self._job, self._generation, self._reader)

    def permit(self, acknowledging: bool = True) -> None:
        """Returns if it may; ``acknowledging``: whether it is about to. Superseded if another generation has begun; SinkError
        where that cannot be found out."""
        first = acknowledging and not self._witnessed
        if not first and self._beat is not None and self._clock() - self._beat < BEAT:
            return
        now = self._clock()
        last = self._control.generation(self._job)
        if last is None or last.number != self._generation:
            raise Superseded(f"{self._job}: generation {self._generation} is over, another has begun")
        if first:
            self._control.witness(self._job, self._generation, self._reader)
            self._witnessed = True
        self._control.set_state(self._job, self._generation, running(time.time()))
        self._beat = now


def running(at: float) -> str:
    """The state of a generation that was alive at a time (s since 1970)."""
    return f"{_RUNNING} {at:.0f}"


def heard(state: str) -> float | None:
    """When a generation in this state was last alive (s since 1970); None if it has ended."""
    word, _, at = state.partition(" ")
    return float(at) if word == _RUNNING else None
