"""A small world for the fault suite: publishers whose clock runs fast, the real job, and a monitor that goes by the same clock.

Two sources send impressions, what follows them and some resends, and say what they sent. An hour of theirs is half a minute, so that
hours close, budgets burn and alerts end while a test waits. What is late by the machine's clock is later still by theirs: limits in
``SLO`` are wide enough for a busy machine.
"""

import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fastavro

from measurement.cloud.monitor import CloudPlace
from measurement.cloud.places import Places, audits_of
from measurement.cloud.publish import send
from measurement.io.endpoints import Endpoints
from measurement.model.events import FIELDS, MICROS_PER_HOUR, MICROS_PER_SECOND, SCHEMA
from measurement.monitors import slo
from measurement.monitors.alerts import Action
from measurement.monitors.audits import Tally
from measurement.monitors.exporter import Exporter
from measurement.monitors.monitor import Look, Monitor
from measurement.monitors.notify import Outbox
from measurement.monitors.sample import State
from measurement.monitors.service import Service
from measurement.monitors.times import hour_of, instant
from tests.cloud import Cloud, Job, Proxy

SPEED = 120
MINUTE = 60 * MICROS_PER_SECOND
DAY = 24 * MICROS_PER_HOUR
SLO = """
levels:
  freshness: {at_most: 150m}
  latency: {at_most: 120s}
  completeness: {settle: 10s}
  correctness: {settle: 10s, reconcile: 30d}
  probe: {at_most: 40m}
  heartbeat: {at_most: 20s}
  volume: {every: 15m}
"""
CAMPAIGNS = {"web": ("adv-1", "c-web"), "app": ("adv-2", "c-app"), "video": ("adv-2", "c-video")}  # by name: the third is the app's too
_AVRO = fastavro.parse_schema(SCHEMA)
_IMPRESSIONS = 2  # a minute and campaign
_RESENT, _VIEWED = 0.02, 0.3
_PAST_DAYS = 3
_LOOKS = 12
_CALM = 5  # looks
_USUAL = {"duplicates": (20, 1_000)}  # what a quiet hour comes to where that is not nothing: part, whole


class Clock:
    """µs since 1970, ``SPEED`` times as fast as the machine's from ``began`` on."""

    def __init__(self, began: int):
        self.began, self._at = began, time.monotonic()

    def __call__(self) -> int:
        return self.began + round((time.monotonic() - self._at) * SPEED * MICROS_PER_SECOND)


def datum(event: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _AVRO, {**dict.fromkeys(FIELDS), **event})
    return out.getvalue()


@dataclass
class Publisher:
    """One source: what it sends of the time from ``since`` on, and what is wrong with it."""

    source: str
    campaigns: list[str]
    seed: int
    copies: int = 1  # of each event
    skew: int = 0  # µs that its clock is ahead
    poison: int = 0  # broken messages a minute
    silent: bool = False
    _number: int = 0

    def __post_init__(self):
        self._random = random.Random(self.seed)
        self.tally = Tally(f"run-of-{self.source}")

    def events(self, start: int, stop: int) -> list[bytes]:
        """Of each minute from ``start`` to before ``stop`` (µs)."""
        if self.silent:
            return []
        return [message for minute in range(start, stop, MINUTE) for message in self._minute(minute)]

    def _minute(self, minute: int) -> list[bytes]:
        out = []
        for campaign in self.campaigns:
            for i in range(_IMPRESSIONS):
                self._number += 1
                out += self._shown(campaign, minute + i * (MINUTE // _IMPRESSIONS))
        self._random.shuffle(out)
        for _ in range(self.poison):
            out.append(self._random.randbytes(40))
            self.tally.add(None, None)
        return out

    def _shown(self, campaign: str, at: int) -> list[bytes]:
        advertiser, name = CAMPAIGNS[campaign]
        ident, at = f"{self.source}-{self._number}", at + self.skew
        common = {"advertiser_id": advertiser, "campaign_id": name, "source_id": self.source, "received_time": None}
        events = [{**common, "event_id": ident, "event_type": "impression", "event_time": at, "format": "display", "price_micros": 1000,
                   "currency": "EUR"}]
        if self._random.random() < _VIEWED:
            events.append({**common, "event_id": f"{ident}-v", "event_type": "viewability", "impression_id": ident, "event_time": at + 1,
                           "visible_percent": 80, "visible_ms": 2_000})
        copies = self.copies + (self._random.random() < _RESENT)
        for event in events:
            self.tally.add(self.source, event["event_time"], copies)
        return [datum(event) for event in events for _ in range(copies)]


@contextmanager
def wrong(publisher: Publisher, **what) -> Iterator[None]:
    """The publisher's attributes are others, until left."""
    right = {name: getattr(publisher, name) for name in what}
    for name, value in what.items():
        setattr(publisher, name, value)
    try:
        yield
    finally:
        for name, value in right.items():
            setattr(publisher, name, value)


@dataclass
class World:
    """Use as a context manager. ``cloud`` is where everybody but the job goes directly; the job's ways can be cut."""

    cloud: Cloud
    publishers: list[Publisher] = field(default_factory=lambda: [Publisher("web", ["web"], 1), Publisher("app", ["app", "video"], 2)])

    @classmethod
    def at(cls, name: str, pubsub: Endpoints, bigtable: Endpoints, bigquery: Endpoints, scratch: Path) -> "World":
        """One of its own on emulators that others use as well."""
        ends = Endpoints(pubsub.pubsub, bigtable.bigtable, bigquery.bigquery, bigquery.bigquery_storage)
        return cls(Cloud(ends, name, scratch))

    def __enter__(self) -> "World":
        self._stack = ExitStack()
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _begin(self) -> None:
        cloud, ends, stack = self.cloud, self.cloud.endpoints, self._stack
        cloud.provision()
        self.to_pubsub, self.to_bigquery = Proxy(ends.pubsub), Proxy(ends.bigquery_storage)
        stack.callback(self.to_pubsub.close)
        stack.callback(self.to_bigquery.close)
        through = replace(cloud, endpoints=replace(ends, pubsub=self.to_pubsub.host, bigquery_storage=self.to_bigquery.host))
        began = hour_of(time.time_ns() // 1_000) - 26 * MICROS_PER_HOUR
        self.job = stack.enter_context(Job(through, ["run", *cloud.flags, "--idle-seconds", "3000", "--publish-seconds", "2"]))
        sent = sum(self._send(at, at + MICROS_PER_HOUR) for at in range(began - _PAST_DAYS * DAY, began, MICROS_PER_HOUR))
        self.service = self._monitoring(began)
        self._wait(lambda: self._entered() == sent, 180)
        self.clock, self._sent, self._stop = Clock(began), began, threading.Event()
        self.service.clock = self.clock
        publishing = threading.Thread(target=self._publish, daemon=True)
        publishing.start()
        stack.callback(publishing.join)
        stack.callback(self._stop.set)

    def _monitoring(self, began: int) -> Service:
        path = self.cloud.scratch / "slo.yaml"
        path.write_text(SLO)
        levels = slo.given(path)
        cloud = self.cloud
        self.place = CloudPlace(Places(cloud.endpoints, cloud.subscription, cloud.instance, cloud.dataset), "emulators")
        self._stack.callback(self.place.close)
        self.place.store("sla", list(_quiet_past(levels, began)))
        monitor = Monitor(self.place, levels, probing=True)
        monitor.known.overlap = 30 * MICROS_PER_SECOND
        monitor.known.balance(began, None)  # balancing everything takes this emulator half a minute
        monitor.restore(began)
        exporter = Exporter()
        served = exporter.serve("127.0.0.1", 0)
        self._stack.callback(served.close)
        self.metrics_port = served.port
        return Service(monitor, Outbox([]), exporter)

    def _entered(self) -> int:
        [(events,)] = self.place.query(f"SELECT sum(events) FROM `{self.cloud.dataset}.ledger_latest`")
        return int(events or 0)

    def _wait(self, holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end and self.job.process.poll() is None, self.job.said[-2_000:]
            threading.Event().wait(1.0)

    # -- publishers

    def publisher(self, source: str) -> Publisher:
        return next(p for p in self.publishers if p.source == source)

    def _publish(self) -> None:
        while not self._stop.wait(0.2):
            until = self.clock() // MINUTE * MINUTE
            if until > self._sent:
                self._send(self._sent, until)
                self._sent = until

    def _send(self, start: int, stop: int) -> int:
        """What the publishers send of that time, and what they say of it; how many events."""
        sent = 0
        for publisher in self.publishers:
            if not publisher.silent:
                said = publisher.events(start, stop), [audit.encode() for audit in publisher.tally.said(stop)]
                for topic, messages in zip((self.cloud.topic, audits_of(self.cloud.topic)), said, strict=True):
                    send(self.cloud.endpoints, topic, iter(messages), lambda: None)
                sent += len(said[0])
        return sent

    @contextmanager
    def cut(self, way: Proxy) -> Iterator[None]:
        """The job cannot go that way, until left."""
        way.cut()
        try:
            yield
        finally:
            way.mend()

    # -- the ledger

    def lose(self, hour: int) -> int:
        """Takes the impressions that the ledger has of the web in an hour (µs) down to none; how many they were."""
        self._kept = self._entry(hour)
        self._enter(self._kept, 0)
        return self._kept["events"]

    def give_back(self, hour: int) -> None:
        self._enter(self._entry(hour), self._kept["events"])

    def _entry(self, hour: int) -> dict:
        rows = self.cloud.query(f"SELECT * FROM `{{dataset}}.ledger_latest` WHERE window_start = TIMESTAMP '{instant(hour):%Y-%m-%d %H:%M:%S}' "
                                "AND source = 'web' AND event_type = 'impression' AND outcome = 'counted'").to_pylist()
        return rows[0]

    def _enter(self, entry: dict, events: int) -> None:
        self.place.store("ledger", [{**entry, "events": events, "revision": entry["revision"] + 1, "published_at": datetime.now(UTC)}])

    # -- the monitor

    def watch(self, until: Callable[[Look], bool], minutes: float) -> tuple[list[Look], bool]:
        """Looks until it says so, or so many of the world's minutes are over and a few looks were made, however slow the machine:
        the looks, and whether it has."""
        looks, end = [], self.clock() + round(minutes * MINUTE)
        while True:
            looks.append(self.service.look())
            with (self.cloud.scratch / "looks.txt").open("a") as log:
                print(seen(looks[-1:]), file=log)
            if until(looks[-1]):
                return looks, True
            if self.clock() >= end and len(looks) >= _LOOKS:
                return looks, False
            threading.Event().wait(0.2)


def opened(looks: list[Look]) -> set[str]:
    """Levels with alerts that opened in these looks."""
    return {notice.alert.level for look in looks for notice in look.notices if notice.action is Action.trigger}


def seen(looks: list[Look]) -> str:
    """What a failed test says: of each look what did not hold."""
    return "\n".join(f"{instant(look.at):%H:%M:%S} " + "; ".join(f"{of.level.name}: {of.sample.text}" for of in look.judged if of.sample.holds is False)
                     + "".join(f" [{notice.action} {notice.alert.level} {notice.alert.window}]" for notice in look.notices)
                     + "".join(f" [unread {what}]" for what in look.facts.unread) for look in looks)


def found(world: World, level: str, within: float, others: set[str] = frozenset()) -> list:
    """Watches until the level's alert is open, ``within`` minutes, and sees that no level but the ``others`` opens one."""
    looks, open_ = world.watch(lambda look: level in opened([look]), within)
    assert open_, f"{level} was not found within {within} minutes\n{seen(looks)}"
    assert opened(looks) <= {level, *others}, seen(looks)
    return looks


def mended(world: World, level: str, within: float, others: set[str] = frozenset()) -> None:
    """Watches until the level's quick alert has ended and nothing has been broken for some looks, and sees that nothing but the others
    opens meanwhile."""
    calm = 0

    def over(look) -> bool:
        nonlocal calm
        broken = any(of.state is State.broken for of in look.judged) or (level, "1h") in look.facts.alerts
        calm = 0 if broken else calm + 1
        return calm >= _CALM

    looks, is_over = world.watch(over, within)
    assert is_over, f"{level} is not over within {within} minutes\n{seen(looks)}"
    assert opened(looks) <= {level, *others}, seen(looks)


def _quiet_past(levels: slo.Slo, until: int) -> Iterator[dict]:
    """Rows of ``sla`` as a monitor would have written them in thirty quiet days, one an hour."""
    for at in range(until - 30 * DAY, until, MICROS_PER_HOUR):
        for level in levels.levels.values():
            part, whole = _USUAL.get(level.name, (0, 1_000))
            yield {"level": level.name, "measured_at": instant(at), "state": "ok", "good": 60, "total": 60, "part": part, "whole": whole,
                   "value": None, "target": Decimal(level.target).quantize(Decimal("1e-9")), "budget_spent": Decimal(0), "firing": None, "since": None, "text": "quiet",
                   "advertisers": None, "hours": None, "revision": at // 1_000, "published_at": instant(at)}
