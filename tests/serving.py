"""A small set of books served: rows made by hand, the readers over them, and a server on a port of its own."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
from books import row

from measurement.io.publication import ipc, schema
from measurement.local.inputs import Source
from measurement.local.warehouse import Warehouse
from measurement.model.events import COUNTS
from measurement.model.tables import TABLES
from measurement.serving.app import create_app
from measurement.serving.keys import KeyFile, KeyRing
from measurement.serving.limits import Limits
from measurement.serving.server import Deadlines, server

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG = "ü" * 300  # cut in a key
OPEN = DAY + 50 * HOUR  # the hour that has not closed
A = "/v1/advertisers/a"


def delivery(hour: int, n: int, advertiser: str = "a", campaign: str | None = "c1", **other) -> dict:
    """``n`` of everything in the hour so many after DAY; the row is ``n`` minutes later published than the others of its hour."""
    at = DAY + hour * HOUR
    stated = {"currency": "EUR", "rule_version": "rules 1", "revision": 2**32 + n, "published_at": at + 2 * HOUR + timedelta(minutes=n)}
    return row("delivery", window_start=at, advertiser_id=advertiser, campaign_id=campaign, **{**dict.fromkeys(COUNTS, n), **stated, **other})


def attribution(hour: int, credit: str, advertiser: str = "a", campaign: str | None = "c1", **other) -> dict:
    at = DAY + hour * HOUR
    return row("attribution", window_start=at, advertiser_id=advertiser, campaign_id=campaign, model="linear", touch_type="click", currency="EUR",
               conversions=Decimal(credit), value_micros=7, rule_version="rules 1", revision=2**32 + 1, published_at=at + 2 * HOUR, **other)


def books() -> dict[str, list[dict]]:
    """Two days of delivery and an open hour; every third hour was restated, one to nothing."""
    some = [delivery(h, h + 1, line_item_id=f"l{i}", creative_id=creative) for h in range(48)
            for i, creative in enumerate((None, "cr", LONG)) if h not in (30, 31)]
    for one in some:
        if one["window_start"].hour % 3 == 0:
            one |= {"status": "restated", "restated_because": "late" if one["window_start"].hour % 2 else "policy", "rule_version": "rules 2"}
    nothing = delivery(7, 0, line_item_id="gone", status="restated", restated_because="order")
    return {
        "delivery": [*some, nothing, delivery(20, 5, campaign="c2"), delivery(21, 6, campaign=None), delivery(50, 9, status="provisional"),
                     delivery(3, 11, advertiser="b"), delivery(3, 12, advertiser="a/b"), delivery(3, 13, advertiser="Ä ?&#%2F"),
                     delivery(49, 14, advertiser="b"), delivery(49, 15, advertiser="test:a")],
        "attribution": [attribution(2, "0.333333333"), attribution(2, "0.333333334", line_item_id="l"), attribution(40, "1234567890.000000001"),
                        attribution(40, "1", campaign=None, status="restated", restated_because="order"),
                        attribution(5, "2", advertiser="b"), attribution(49, "1", advertiser="b")],
        "invalid_traffic": [row("invalid_traffic", window_start=DAY + h * HOUR, advertiser_id="a", campaign_id="c1", event_type="impression",
                                reason="robot", events=h) for h in (1, 2)],
    }


def arrow(name: str, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema(TABLES[name]))


def write(out: Path, tables: dict[str, list[dict]]) -> Path:
    """A warehouse as one run leaves it."""
    out.mkdir(exist_ok=True)
    warehouse = Warehouse(out)
    generation = warehouse.begin([Source("e.jsonl", "/e.jsonl", 1, "sha", 0, False)], {}, "rules", 0)
    for name, rows in tables.items():
        (out / f"{name}.1.x.arrow").write_bytes(ipc(arrow(name, rows)))
    warehouse.take(out, generation, None)
    warehouse.finish(generation, "complete", 0, 7)
    return out


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Keys:
    """A key file with a key of each kind."""

    path: Path

    def __post_init__(self):
        self.file = KeyFile(self.path)
        self.entry, self.a = self.file.make("a")
        self.b = self.file.make("b")[1]
        self.sales = self.file.make(None)[1]

    def ring(self) -> KeyRing:
        return KeyRing(self.path)


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Asking:
    """A server's address; every request is sent as it is written, on a connection of its own."""

    port: int

    def get(self, target: str, key: str | None = None, headers: dict[str, str] | None = None, method: str = "GET", **query) -> Answer:
        if query:
            target += "?" + urlencode({name.rstrip("_"): value for name, value in query.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders()
            got = connection.getresponse()
            return Answer(got.status, got.headers, got.read())
        finally:
            connection.close()


@contextmanager
def serving(reports, keys: KeyRing, limits: Limits = Limits(rate=10_000, burst=10_000), deadlines: Deadlines = Deadlines(), **app) -> Iterator[Asking]:
    """A server in a thread, whose sockets are open when this returns."""
    one = server(create_app(reports, keys, limits, **app), "127.0.0.1", 0, deadlines)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=one.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Asking(listening.getsockname()[1])
    finally:
        one.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()
