"""Completeness: what has arrived of what publishers say they have sent, by source and hour; and publishers that fall silent.

An hour is judged when it has been closed and has settled, by the arrivals' own publications: until then what is missing may be on its
way, and if hours do not close at all, or nothing can be read, that is another level's. What counts as arrived is what was decoded; that all of it ends counted, duplicate, invalid, rejected or
waiting is correctness. Times are µs.
"""

from collections import Counter
from dataclasses import dataclass

from measurement.monitors.audits import ENDED
from measurement.monitors.books import Books
from measurement.monitors.lasting import Lasting
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import DAY, hour_of, instant, span

_SHOWN = 3


@dataclass
class _Publisher:
    sent_at: int = 0
    ended: bool = False


class Said:
    """What publishers have said so far."""

    def __init__(self):
        self._counts: dict[tuple, tuple[int, int]] = {}  # (publisher, source, minute): (revision, events)
        self.sums: Counter = Counter()  # (hour, source): events
        self._publishers: dict[str, _Publisher] = {}

    def hear(self, publisher: str, source: str | None, minute: int | None, events: int, state: str, sent_at: int, revision: int) -> None:
        """A row of ``audits``; whichever come again or late change nothing that a later one has said."""
        heard = self._publishers.setdefault(publisher, _Publisher())
        heard.sent_at = max(heard.sent_at, sent_at)
        heard.ended |= state == ENDED
        known = self._counts.get((publisher, source, minute))
        if known is not None and known[0] >= revision:
            return
        self._counts[publisher, source, minute] = revision, events
        if minute is not None:
            self.sums[hour_of(minute), source] += events - (known[1] if known else 0)

    def silent(self, now: int, for_: int) -> dict[str, int]:
        """Publishers that have said nothing for longer than ``for_``, did not say that they end, and spoke within a day: for how
        long."""
        ages = {name: now - p.sent_at for name, p in self._publishers.items() if not p.ended}
        return {name: age for name, age in ages.items() if for_ < age <= DAY}

    @property
    def speaking(self) -> int:
        return sum(not p.ended for p in self._publishers.values())

    def forget(self, before: int) -> None:
        """Drops hours before ``before``, and publishers last heard before it."""
        self._counts = {key: n for key, n in self._counts.items() if key[2] is not None and key[2] >= before}
        self._publishers = {name: p for name, p in self._publishers.items() if p.sent_at >= before}
        for key in [key for key in self.sums if key[0] < before]:
            del self.sums[key]


def ratios(said: Said, books: Books, since: int, until: int, settle: int, unnamed: str) -> dict[tuple[int, str | None], float]:
    """Arrived of said, at most 1, of the hours from ``since`` to before ``until`` that have settled, by (hour, source). ``unnamed`` is
    the arrivals' source of events that name none."""
    arrived = books.arrivals.every
    return {(hour, source): min(1.0, arrived.get((hour, unnamed if source is None else source), 0) / n)
            for (hour, source), n in said.sums.items() if since <= hour < until and n > 0 and books.settled(hour, settle)}


def judge(level: Level, now: int, said: Said, found: dict[tuple[int, str | None], float], lasting: Lasting, minutes: int) -> Sample:
    """Good while the hours of the last day, whose ratios were ``found``, have at least ``level.share`` of what was said of them, as
    they have at one of the last looks, and nobody is silent for longer than ``level.silent``."""
    silent = said.silent(now, level.silent)
    wrong = {key: ratio for key, ratio in found.items() if ratio < level.share}
    lasting.look(wrong)
    if not found and not silent and not said.speaking:
        return unknown(level.name, "no publisher says what it sends")
    short = sorted((ratio, hour, source or "") for (hour, source), ratio in lasting.of(wrong).items())
    worst = min(found.values(), default=None)
    told = [f"{name} has been silent for {span(age)}" for name, age in sorted(silent.items())]
    told += [f"{ratio:.4%} of what {source or 'publishers without a source_id'} sent for {instant(hour):%Y-%m-%dT%HZ} has arrived"
             for ratio, hour, source in short]
    if not told:
        least = "nothing is due yet" if worst is None else f"{worst:.4%} of what was sent has arrived, or more"
        return at_look(level.name, True, minutes, worst, f"{least}; {said.speaking} publishers speak")
    more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return at_look(level.name, False, minutes, worst, "; ".join(told[:_SHOWN]) + more, hours=tuple(sorted({instant(hour) for _, hour, _ in short})))
