"""Heartbeat: whether the job is alive, by what it writes into its control row, or locally by the lock that a run holds."""

from dataclasses import dataclass

from measurement.model.events import MICROS_PER_SECOND
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import span

RUNNING = "running"
_OVER = {"ended", "complete"}  # meant to be


@dataclass(frozen=True)
class Job:
    """The last generation: its number, when it began (µs), its state and, if it is running, the age (µs) of its last heartbeat."""

    generation: int
    began: int
    state: str
    age: int | None = None


def judge(level: Level, job: Job | None, minutes: int) -> Sample:
    if job is None:
        return unknown(level.name, "no job has run")
    name = f"generation {job.generation}"
    if job.state in _OVER:
        return unknown(level.name, f"{name} has {'ended' if job.state == 'ended' else 'come to its end'}")
    if job.state != RUNNING:
        return at_look(level.name, False, minutes, None, f"{name} {'was ' if job.state == 'interrupted' else 'has '}{job.state}")
    age = job.age or 0
    return at_look(level.name, age <= level.at_most, minutes, age / MICROS_PER_SECOND, f"{name} was heard {span(age)} ago")
