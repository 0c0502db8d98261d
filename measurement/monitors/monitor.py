"""The monitor: looks, judges every service level, remembers, tells. Its clock is an argument; times are µs.

What is judged at a look is one row a level in table ``sla``, and a monitor that is started again goes on from there: with the budgets,
with the past that rates are judged by, and with the alerts that its predecessor opened.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from measurement.model.events import MICROS_PER_SECOND
from measurement.monitors import completeness, correctness, freshness, heartbeat, latency, probe, queries, rates, volume
from measurement.monitors.alerts import Alerts, Notice
from measurement.monitors.burn import Judged, burn, judged
from measurement.monitors.exporter import Facts
from measurement.monitors.history import History
from measurement.monitors.known import Known
from measurement.monitors.outage import Outage
from measurement.monitors.place import Place, Unread
from measurement.monitors.sample import Sample, unknown
from measurement.monitors.series import DAYS, Series
from measurement.monitors.slo import REASONS, Slo
from measurement.monitors.times import DAY, MINUTE, hour_of, instant

_LOG = logging.getLogger("measurement.monitor")
_MOST_MINUTES = 10  # that a look may speak for: of longer silence nothing is known
_FINE = 3 * DAY  # behind now for which the past is taken up by minutes; before that by hours
_WAITS = 6 * 60 * MINUTE  # the hours whose waiting follow-ups are counted
_NAMED = {"probe", "volume"}  # levels that say themselves whom they touch
_PAST = (*REASONS, "duplicates", "late", "restated", "invalid", "unjoined")


@dataclass(frozen=True)
class Look:
    """What a look at ``at`` came to."""

    at: int
    judged: list[Judged]
    notices: list[Notice]
    facts: Facts

    @property
    def complete(self) -> bool:
        """Whether everything could be read."""
        return not self.facts.unread


class Monitor:
    """``probing``: whether it sends probes."""

    def __init__(self, place: Place, slo: Slo, probing: bool = False):
        self.known = Known(place, slo)
        self._place, self._slo, self._probing = place, slo, probing
        self._series, self._counted = Series(tuple(slo.levels)), History(_PAST)
        self.alerts = Alerts(place.job, place.where, slo.levels, slo.windows)
        self._outage = Outage(min(slo.windows, key=lambda window: window.long).name)
        self._last: int | None = None
        self._probed: int | None = None  # the minute of the last probe
        self._outcomes: Counter = Counter()
        self._latency: Counter = Counter()
        self._found: dict[tuple[int, str | None], float] = {}  # completeness by (hour, source)
        self._shares: dict[str, tuple[int, int]] = {}  # by level: part and whole of this look

    def restore(self, now: int) -> list[tuple]:
        """Takes up what an earlier monitor wrote, and returns its last look (queries.last_look); Unread where that cannot be read."""
        ask, dataset = self._place.query, self._place.dataset
        fine, coarse = now - _FINE, now - DAYS * DAY
        for at in (*queries.past(ask, dataset, coarse, fine, "HOUR"), *queries.past(ask, dataset, fine, now, "MINUTE")):
            level, time, good, total, part, whole = at
            self._series.add(level, time, good, total)
            self._counted.add(level, time, part, whole)
        looks = queries.last_look(ask, dataset)
        self._last = max((look[1] for look in looks), default=None)
        left = {level: (firing.split(","), since) for level, *_, firing, since, _, _, _ in looks if firing}
        self.alerts.restore(left)
        for level, (windows, _) in left.items():
            self._outage.restore(self._last, level, windows)
        return looks

    def look(self, now: int) -> Look:
        """One look at ``now``. What cannot be read or written is told in the facts, and everything else goes on."""
        minutes = 1 if self._last is None else min(_MOST_MINUTES, now // MINUTE - self._last // MINUTE)
        self._last = now
        if self._probing:
            self._probe(now)
        known = self.known
        clock = known.look(now)
        self._count(now)
        found = []
        for sample in self._samples(now, clock, minutes):
            self._series.add(sample.level, now, sample.good, sample.total)
            level = self._slo.levels[sample.level]
            found.append(judged(level, self._touched(sample, clock), burn(self._series, level, self._slo.windows, now)))
            self._outage.see(now, found[-1])
        notices = self.alerts.update(now, found)
        self._write(now, found)
        return Look(now, found, notices, self._facts())

    def _probe(self, now: int) -> None:
        minute = now // MINUTE * MINUTE
        if minute == self._probed:
            return
        self._probed = minute
        # One that cannot be sent is one that is not found: who wants to send events cannot either.
        self.known.probes.sent(minute, now)
        try:
            self._place.send(probe.messages(minute))
        except Unread as error:
            _LOG.warning("the probe could not be sent: %s", error)

    def _count(self, now: int) -> None:
        """What levels judged by their own history have come to since the last look."""
        entered = self.known.entered
        outcomes, every = entered.outcomes, entered.events
        self._outcomes += outcomes
        self._latency += self.known.latency
        valid = outcomes["counted"] + outcomes["invalid_traffic"]
        for level, part, whole in (
            ("duplicates", outcomes["duplicate"], every), ("late", entered.restated["late"], every),
            ("restated", sum(entered.restated.values()), every), ("invalid", outcomes["invalid_traffic"], valid),
            ("unjoined", *self._waiting()),
            *((level, outcomes[level.removeprefix("rejected_")], every) for level in REASONS),
        ):
            self._counted.add(level, now, part, whole)
            self._shares[level] = part, whole

    def _waiting(self) -> tuple[int, int]:
        until = self.known.books.complete_until
        return (0, 0) if until is None else self.known.books.waiting(until - _WAITS, self._slo.levels["correctness"].settle)

    def _samples(self, now: int, clock: int, minutes: int) -> Iterable[Sample]:
        known, levels = self.known, self._slo.levels
        self._found = known.completeness(clock)
        yield freshness.judge(levels["freshness"], clock, known.complete_until, minutes)
        yield latency.judge(levels["latency"], known.latency)
        yield completeness.judge(levels["completeness"], clock, known.said, self._found, known.short, minutes)
        yield correctness.judge(levels["correctness"], known.books.begun, known.imbalance, known.probes.wrong, known.balanced, minutes)
        yield known.probes.judge(levels["probe"], now, known.found)
        yield heartbeat.judge(levels["heartbeat"], known.job, minutes)
        yield volume.judge(levels["volume"], self._slo.flights, known.volumes, minutes)
        for name in _PAST:
            why = self._outage.moves(name, now)
            yield unknown(name, why) if why else rates.judge(levels[name], self._counted, now, minutes)

    def _touched(self, sample: Sample, clock: int) -> Sample:
        """The sample with whom it touches and when, where the level cannot tell: for whom was delivered lately, and the hour."""
        if sample.holds is not False or sample.level in _NAMED:
            return sample
        return replace(sample, advertisers=sample.advertisers or self.known.advertisers, hours=sample.hours or (instant(hour_of(clock)),))

    def _write(self, now: int, found: list[Judged]) -> None:
        opened = self.alerts.open()
        try:
            self._place.store("sla", [self._row(now, of, *opened.get(of.level.name, ((), None))) for of in found])
        except Unread as error:
            self.known.unread["sla"] = str(error)
            _LOG.warning("sla could not be written: %s", error)

    def _row(self, now: int, of: Judged, firing: tuple[str, ...], since: int | None) -> dict:
        sample = of.sample
        part, whole = self._shares.get(of.level.name, (0, 0))
        return {
            "level": of.level.name, "measured_at": instant(now), "state": str(of.state), "good": sample.good, "total": sample.total,
            "part": part, "whole": whole, "value": _numeric(sample.value), "target": _numeric(of.level.target),
            "budget_spent": _numeric(of.burn.spent), "firing": ",".join(firing) or None, "since": since and instant(since),
            "text": sample.text, "advertisers": ",".join(sample.advertisers) or None,
            "hours": ",".join(f"{hour:%Y-%m-%dT%HZ}" for hour in sample.hours) or None, "revision": now // 1_000, "published_at": instant(now)}

    def _facts(self) -> Facts:
        known = self.known
        until, job = known.complete_until, known.job
        last = max((hour for hour, _ in self._found), default=None)  # the latest hour that was judged
        now = self._last
        return Facts(
            complete_until=until and instant(until), heartbeat_age=None if job is None or job.age is None else job.age / MICROS_PER_SECOND,
            generation=job and job.generation, latency=_buckets(self._latency), outcomes=dict(self._outcomes),
            imbalance=sum(map(abs, known.imbalance.values())),
            completeness={source or self._place.unnamed: ratio for (hour, source), ratio in self._found.items() if hour == last},
            silent_publishers=len(known.said.silent(now, self._slo.levels["completeness"].silent)),
            probes={(end, str(result)): n for (end, result), n in known.probes.judged.items()},
            alerts=self.alerts.severities(), unread=tuple(known.unread))


def _buckets(counts: Counter) -> dict[str, list[tuple[float, int]]]:
    """By sink, events by upper bound in seconds, the last infinite."""
    found: dict[str, dict[float, int]] = {}
    for (sink, bound), n in counts.items():
        found.setdefault(sink, {float("inf"): 0})[float("inf") if bound is None else bound / 1_000] = n
    return {sink: sorted(buckets.items()) for sink, buckets in found.items()}


def _numeric(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(f"{value:.9f}")
