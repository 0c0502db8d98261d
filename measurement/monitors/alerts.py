"""Which alerts are open, and what is said of them when they open and end. Pure; times are µs.

An alert is one of a level and a window, opened once and ended once, however many looks find it so; a fault that is bad enough
for several windows has an alert of each, the slower ones by way of escalation and of what is left when the quick ones have ended.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from measurement.monitors.burn import Judged
from measurement.monitors.sample import State
from measurement.monitors.series import DAYS
from measurement.monitors.slo import Level, Severity, Window

KEY_MOST = 255  # characters of PagerDuty's dedup_key

# The first command to run, by runbook; {where} is the job's own flags. The monitor's own page is for Prometheus's rules.
_STATUS, _RECONCILE = "measurement status {where}", "measurement reconcile {where}"
COMMANDS = {
    "freshness": _STATUS, "latency": _STATUS, "completeness": _STATUS, "correctness": _RECONCILE, "probe": _RECONCILE,
    "heartbeat": _STATUS, "duplicates": _STATUS, "late": _STATUS, "restated": _STATUS, "invalid": _STATUS, "unjoined": _STATUS,
    "rejected": _STATUS, "volume": _STATUS, "monitor": _STATUS,
}


class Action(StrEnum):
    trigger = "trigger"
    resolve = "resolve"


@dataclass(frozen=True)
class Alert:
    """What somebody is told. ``since`` is when it began to be wrong: where the data do not tell, the first look of those that all
    found it so, or that which opened the alert. ``spent``, ``rates``: as in Burn. ``hours`` are starts. ``runbook`` is a path in
    this repository; ``command`` what to run first."""

    job: str
    level: str
    window: str
    severity: Severity
    since: int
    summary: str
    value: float | None
    target: float
    spent: float
    rates: Mapping[str, float]
    advertisers: tuple[str, ...]
    hours: tuple[datetime, ...]
    runbook: str
    command: str

    @property
    def key(self) -> str:
        """By which receivers know the alert again. A job whose name is too long for it is known by a digest."""
        key = f"measurement/{self.job}/{self.level}/{self.window}"
        if len(key) <= KEY_MOST:
            return key
        return f"measurement/{hashlib.sha256(self.job.encode()).hexdigest()}/{self.level}/{self.window}"


@dataclass(frozen=True)
class Notice:
    action: Action
    alert: Alert


class Alerts:
    """The open alerts of a job. ``where``: the flags that commands find it by, such as ``--out DIR``."""

    def __init__(self, job: str, where: str, levels: Mapping[str, Level], windows: tuple[Window, ...]):
        self._job, self._where, self._levels = job, where, levels
        self._windows = {w.name: w for w in windows}
        self._open: dict[tuple[str, str], int] = {}  # by level and window: since
        self._wrong: dict[str, int] = {}  # by level: the first of the looks, without one between, at which it did not hold

    def restore(self, open: Mapping[str, tuple[Iterable[str], int]]) -> None:
        """Takes up what a predecessor left open, by level: the windows' names and since when. Only its end is told again."""
        for level, (windows, since) in open.items():
            self._open.update({(level, window): since for window in windows})

    def open(self) -> dict[str, tuple[tuple[str, ...], int]]:
        """What ``restore`` takes: of each level with open alerts their windows and since when the first is."""
        found: dict[str, tuple[tuple[str, ...], int]] = {}
        for (level, window), since in self._open.items():
            windows, first = found.get(level, ((), since))
            found[level] = (*windows, window), min(first, since)
        return found

    def severities(self) -> dict[tuple[str, str], Severity]:
        """How loud each open alert is, by level and window."""
        return {key: self._severity(*key) for key in self._open}

    def update(self, now: int, judged: Iterable[Judged]) -> list[Notice]:
        """What is to be told after a look at ``now``. Alerts of a level that was not judged stay; those of a level or a window that
        there is no more end."""
        notices = [Notice(Action.resolve, self._gone(level, window)) for level, window in self._open
                   if level not in self._levels or window not in self._windows]
        for of in judged:
            notices += self._update(now, of)
        for notice in notices:
            if notice.action is Action.resolve:
                del self._open[notice.alert.level, notice.alert.window]
        return notices

    def _update(self, now: int, of: Judged) -> list[Notice]:
        name = of.level.name
        if of.sample.holds is False:
            self._wrong.setdefault(name, now)
        elif of.sample.holds:
            self._wrong.pop(name, None)
        told = of.sample.since and round(of.sample.since.timestamp() * 1_000_000)
        firing = {w.name for w in of.burn.firing}
        notices = []
        for window in self._windows.values():
            key = name, window.name
            if window.name in firing and key not in self._open:
                self._open[key] = min(now, told or self._wrong.get(name, now))
                notices.append(Notice(Action.trigger, self._alert(of, window)))
            elif window.name not in firing and key in self._open:
                notices.append(Notice(Action.resolve, self._alert(of, window)))
        return notices

    def _alert(self, of: Judged, window: Window) -> Alert:
        level, sample = of.level, of.sample
        key = level.name, window.name
        return Alert(
            self._job, *key, self._severity(*key), self._open[key], _summary(of, window), sample.value, level.target, of.burn.spent,
            of.burn.rates, sample.advertisers, sample.hours, runbook(level.name), command(level.name, self._where))

    def _severity(self, level: str, window: str) -> Severity:
        """The lesser of the two's; a ticket where one of them is no more."""
        both = {found.severity for found in (self._levels.get(level), self._windows.get(window)) if found}
        return Severity.page if both == {Severity.page} else Severity.ticket

    def _gone(self, level: str, window: str) -> Alert:
        """An alert of which nothing is known any more but that it was open."""
        return Alert(
            self._job, level, window, self._severity(level, window), self._open[level, window],
            f"{level}: no longer watched over {window}", None, 0.0, 0.0, {}, (), (), runbook(level), command(level, self._where))


def runbook(level: str) -> str:
    return f"docs/runbooks/{_page(level)}.md"


def command(level: str, where: str) -> str:
    """The first command to run. A level that there is no more, whose name a table has kept, is looked at like any."""
    return COMMANDS.get(_page(level), _STATUS).format(where=where)


def _page(level: str) -> str:
    """The reasons of rejection share a page."""
    return "rejected" if level.startswith("rejected_") else level


def _summary(of: Judged, window: Window) -> str:
    how = "is broken" if of.state is State.broken else "is too often broken"
    if window not in of.burn.firing:
        how = "burns its budget no more"
    gone = "it has no budget" if of.level.target >= 1 else f"{of.burn.spent:.1%} of the budget of {DAYS} days is gone"
    return f"{of.level.name} {how} ({window.name}): {' '.join(of.sample.text.split())}; {gone}"
