"""What the monitor knows of the pipeline, and how a look brings it up to date. Times are µs."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.monitors import audits, queries
from measurement.monitors.books import Books, Entered
from measurement.monitors.completeness import Said, ratios
from measurement.monitors.heartbeat import Job
from measurement.monitors.lasting import Lasting
from measurement.monitors.ledger import Result
from measurement.monitors.place import Place, Unread
from measurement.monitors.probe import Found, Probes
from measurement.monitors.slo import Slo
from measurement.monitors.times import DAY, hour_of
from measurement.monitors.volume import LEAST_PAST, Volume

T = TypeVar("T")
_LOG = logging.getLogger("measurement.monitor")
_WEEKS, _DAYS = 4, 7  # of volumes' past
_LATELY = 20  # advertisers named


@dataclass
class Known:
    """``unread`` says what of the last look could not be read, and why. ``overlap``: for so long (µs) a sink may have tried before a
    row that was published can be read."""

    place: Place
    slo: Slo
    overlap: int = 900 * MICROS_PER_SECOND
    books: Books = field(default_factory=Books)
    said: Said = field(default_factory=Said)
    entered: Entered = field(default_factory=Entered)  # since the last look
    latency: Counter = field(default_factory=Counter)  # the same: by (sink, bound)
    job: Job | None = None
    delivered: int | None = None  # the last hour of which delivery is closed
    balanced: Result | None = None
    volumes: list[Volume] = field(default_factory=list)
    found: dict[str, Found | None] = field(default_factory=dict)
    advertisers: tuple[str, ...] = ()  # for whom was delivered lately, the largest first
    unread: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.probes = Probes(self.place.ends)
        self.imbalance: dict[tuple[int, str], int] = {}  # by (hour, source), that has lasted
        self.short = Lasting()  # hours and sources of which too little has arrived
        self._unbalanced = Lasting()
        self._cursors: dict[str, int] = {}  # by table: published_at of the newest row
        self._latencies: dict[tuple, int] = {}  # (sink, publication) that were counted: published_at
        self._balanced_at = self._volumes_at = self._forgot_at = 0
        self._past: dict[int, tuple[list[dict], str]] = {}

    @property
    def complete_until(self) -> int | None:
        """The time before which hours are closed in the ledger and in delivery."""
        ledger = self.books.complete_until
        if ledger is None or self.delivered is None:
            return None
        return min(ledger, self.delivered + MICROS_PER_HOUR)

    def completeness(self, clock: int) -> dict[tuple[int, str | None], float]:
        """Of the hours of the last day, arrived of what was said to be sent, by (hour, source)."""
        until = self.complete_until
        if until is None:
            return {}
        return ratios(self.said, self.books, clock - DAY, until, self.slo.levels["completeness"].settle, self.place.unnamed)

    def look(self, now: int) -> int:
        """Reads what is new at ``now``; the time that the data are to be up to."""
        self.unread = {}
        place = self.place
        self._cursors.setdefault("audits", now - 2 * DAY)
        if "latency" not in self._cursors:
            self._cursors["latency"] = self._read("recent", lambda: place.recent(now), now) + self.overlap
        self.job = self._read("job", place.state, self.job)
        clock = self._read("clock", lambda: place.clock(now), now)
        self._hear(now)
        self._read("arrivals", lambda: self.books.arrive(self._news("arrivals", queries.arrivals_since, lambda row: row.published)))
        self.entered = self._read(
            "ledger", lambda: self.books.enter(self._news("ledger", queries.ledger_since, lambda row: row.published))) or Entered()
        wrong = self.books.imbalance(self.slo.levels["correctness"].settle)
        self._unbalanced.look(wrong)
        self.imbalance = self._unbalanced.of(wrong)
        self._read("audits", self._audited)
        self.latency = self._read("latency", self._latency) or Counter()
        self.delivered = self._read("delivery", self._delivered, self.delivered)
        if self.probes.since is not None:
            since = self.probes.since
            self.found = {end: self._read(f"probe at {end}", lambda end=end: place.probed(end, since)) for end in place.ends}
        if now - self._volumes_at >= self.slo.levels["volume"].every:
            self._volumes_at = now
            self.volumes = self._read("volumes", lambda: self._volume(clock), self.volumes)
        if now - self._balanced_at >= self.slo.levels["correctness"].reconcile:
            self.balance(now, self._read("balance", place.balance, self.balanced))
        if now - self._forgot_at >= DAY:
            self._forgot_at = now
            self.books.forget(now)
            self.said.forget(now - 2 * DAY)
        return clock

    def balance(self, now: int, result: Result | None) -> None:
        """Takes the balance of everything, made at ``now``."""
        self._balanced_at, self.balanced = now, result

    def _read(self, what: str, read: Callable[[], T], otherwise: T | None = None) -> T | None:
        """What it reads; what was known, where that cannot be."""
        try:
            return read()
        except Unread as error:
            self.unread[what] = str(error)
            _LOG.warning("%s could not be read: %s", what, error)
            return otherwise

    def _news(self, table: str, read: Callable, published: Callable) -> list:
        rows = read(self.place.query, self.place.dataset, max(0, self._cursors.get(table, 0) - self.overlap))
        self._cursors[table] = max([self._cursors.get(table, 0), *map(published, rows)])
        return rows

    def _hear(self, now: int) -> None:
        """Stores what publishers say, before it is acknowledged; what is stored is read like all else."""
        def hear():
            with self.place.heard() as heard:
                rows = [row for audit in heard for row in audits.rows(audit, now)]
                if rows:
                    self.place.store("audits", rows)
        self._read("publishers", hear)

    def _audited(self) -> None:
        for *row, _ in self._news("audits", queries.audits_since, lambda row: row[-1]):
            self.said.hear(*row)

    def _latency(self) -> Counter:
        """Events by bucket, each publication's once."""
        counts: Counter = Counter()
        news = self._news("latency", queries.latency_since, lambda row: row[-1])
        known = set(self._latencies)
        for sink, publication, bound, n, at in news:
            if (sink, publication) not in known:
                self._latencies[sink, publication] = at
                counts[sink, bound] += n
        oldest = self._cursors["latency"] - 2 * self.overlap
        self._latencies = {key: at for key, at in self._latencies.items() if at >= oldest}
        return counts

    def _delivered(self) -> int | None:
        found = queries.last_delivered(self.place.query, self.place.dataset, self.delivered or 0)
        return self.delivered if found is None else found

    def _volume(self, clock: int) -> list[Volume]:
        """The hour that is open and the one before, each with its past."""
        hours = [hour_of(clock) - MICROS_PER_HOUR, hour_of(clock)]
        found = queries.impressions(self.place.query, self.place.dataset, hours)
        total: Counter = Counter()
        for by_campaign in found.values():
            for (advertiser, _), n in by_campaign.items():
                total[advertiser] += n
        self.advertisers = tuple(advertiser for advertiser, _ in total.most_common(_LATELY))
        self._past = {hour: self._past.get(hour) or self._past_of(hour) for hour in hours}
        return [Volume(hour, _seen(hour, clock, found[hour], self._past[hour][0]), found[hour], *self._past[hour]) for hour in hours]

    def _past_of(self, hour: int) -> tuple[list[dict], str]:
        """The same hour of the weeks before, or of the days before where there are too few."""
        for step, count, name in ((7 * DAY, _WEEKS, "weeks"), (DAY, _DAYS, "days")):
            hours = [hour - k * step for k in range(1, count + 1)]
            past = [by for by in queries.impressions(self.place.query, self.place.dataset, hours).values() if by]
            if len(past) >= LEAST_PAST:
                return past, f"of {len(past)} {name}"
        return [], "of no week"


def _seen(hour: int, clock: int, impressions: dict, past: list[dict]) -> float:
    """The share of an hour that must have arrived: no more than the clock says, nor than all campaigns together have of what they
    usually do, so that what holds everybody up is no campaign's fault."""
    usual = sorted(sum(by.values()) for by in past)
    by_clock = min(1.0, max(0.0, (clock - hour) / MICROS_PER_HOUR))
    if not usual or not usual[len(usual) // 2]:
        return by_clock
    return min(by_clock, sum(impressions.values()) / usual[len(usual) // 2])
