"""The service levels as `measurement status` shows them: judged now, and where only a monitor's looks can tell, by its last."""

from dataclasses import dataclass
from datetime import datetime

from measurement.model.events import MICROS_PER_SECOND
from measurement.monitors import alerts
from measurement.monitors.ledger import Result
from measurement.monitors.monitor import Monitor
from measurement.monitors.place import Place, Unread
from measurement.monitors.sample import State
from measurement.monitors.slo import Slo
from measurement.monitors.times import instant

FRESH = 300 * MICROS_PER_SECOND  # a look of a monitor counts for so long


@dataclass(frozen=True)
class Line:
    """One level. ``spent``: the share of its budget of 30 days that is gone; None without a monitor's looks. ``since``: when the first
    of its open alerts began."""

    level: str
    state: State
    value: float | None
    target: float
    spent: float | None
    since: datetime | None
    text: str
    advertisers: tuple[str, ...]
    hours: tuple[str, ...]
    command: str  # the first to run, of its runbook
    runbook: str


@dataclass(frozen=True)
class Levels:
    lines: list[Line]
    looked: datetime | None  # when a monitor last did
    watched: bool  # whether that is recent
    unread: dict[str, str]  # what could not be read, and why

    @property
    def broken(self) -> list[Line]:
        return [line for line in self.lines if line.state is State.broken]


def levels(place: Place, slo: Slo, now: int, balanced: Result) -> Levels:
    """Judges each level at ``now`` (µs) without keeping it; ``balanced`` is the ledger's balance."""
    monitor, last = Monitor(place, slo), {}
    monitor.known.balance(now, balanced)
    try:
        last = {level: look for level, *look in monitor.restore(now)}
    except Unread:
        pass  # what the look below cannot read either, it tells
    looked = max((at for at, *_ in last.values()), default=None)
    watched = looked is not None and now - looked <= FRESH
    found = monitor.look(now)
    lines = []
    for of in found.judged:
        name, sample, state = of.level.name, of.sample, of.state
        kept = last.get(name)
        value, said, whom, when = sample.value, sample.text, sample.advertisers, tuple(f"{hour:%Y-%m-%dT%HZ}" for hour in sample.hours)
        if watched and sample.holds is None and kept is not None:
            _, state, value, _, _, _, _, said, names, hours = kept
            state, whom, when = State(state), _parts(names), _parts(hours)
        opened = monitor.alerts.open().get(name)
        lines.append(Line(name, state, None if value is None else float(value), of.level.target, of.burn.spent if last else None,
                          opened and instant(opened[1]), said, whom, when, alerts.command(name, place.where), alerts.runbook(name)))
    return Levels(lines, None if looked is None else instant(looked), watched, monitor.known.unread)


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
