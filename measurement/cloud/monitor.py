"""The cloud's services, or their emulators, as the monitor looks at them."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import pyarrow as pa

from measurement.cloud.places import CloudError, Places, audits_of
from measurement.cloud.publish import send
from measurement.cloud.pubsub_admin import PubSubAdmin
from measurement.cloud.reconcile import reconcile
from measurement.io import bigtable_admin
from measurement.io.bigquery import Appender
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.bigtable_read import BigtableReader
from measurement.io.control import Control
from measurement.io.publication import schema
from measurement.io.pubsub.api import Subscriber
from measurement.io.pubsub.fence import heard
from measurement.io.retry import Patience, SinkError
from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_SECOND
from measurement.model.tables import TABLES
from measurement.monitors import queries
from measurement.monitors.audits import Audit, BadAudit, decode
from measurement.monitors.heartbeat import RUNNING, Job
from measurement.monitors.ledger import Result
from measurement.monitors.place import Unread
from measurement.monitors.probe import ADVERTISER, FIGURES, Found, found_in

T = TypeVar("T")
_LOG = logging.getLogger("measurement.monitor")
_PATIENCE = Patience(10)  # a look has a minute
_AWAY_SECONDS = 20.0  # for so long nothing is asked of a service that was away, so that one look does not wait for it again and again
_RECENT = 300 * MICROS_PER_SECOND
_PULL_MESSAGES, _PULLS, _PULL_SECONDS = 1_000, 20, 2.0
BIGTABLE, BIGQUERY = "bigtable", "bigquery"
_FAILURES = BigQueryError, SinkError, CloudError, grpc.RpcError


def _check(places: Places, reader: Reader) -> str:
    """The topic. CloudError, one line, of the first thing that is missing."""
    admin = PubSubAdmin(places.endpoints)
    topic = admin.subscription(places.subscription).topic
    admin.subscription(audits_of(places.subscription))
    try:
        bigtable_admin.check(places.endpoints, places.instance)
        reader.check()
    except (BigQueryError, SinkError) as error:
        raise CloudError(str(error)) from error
    return topic


class CloudPlace:
    """A Place (measurement/monitors/place.py). ``writes``: whether probes are sent, audits taken and looks kept. CloudError where
    something that this needs is not there."""

    ends = BIGTABLE, BIGQUERY

    def __init__(self, places: Places, profile: str, writes: bool = True):
        self._places, self._writes = places, writes
        self.job, self.unnamed, self.dataset = places.subscription, places.subscription, places.dataset
        self.where = (f"--profile {profile} --subscription {places.subscription} --bigtable {places.instance} --bigquery {places.dataset}")
        self._reader = Reader(places.endpoints, places.dataset)
        if writes:
            self._topic = _check(places, self._reader)
            self._audits = Subscriber(places.endpoints, audits_of(places.subscription))
        self._served = BigtableReader(places.endpoints, places.instance, _PATIENCE)
        self._control = Control(places.endpoints, places.instance, _PATIENCE)
        self._appender = Appender(places.endpoints, places.dataset, _PATIENCE)
        self._away: dict[str, tuple[float, str]] = {}

    def query(self, sql: str) -> list[tuple]:
        return [tuple(row.values()) for row in self._ask(BIGQUERY, lambda: self._reader.query(sql)).to_pylist()]

    def clock(self, now: int) -> int:
        return now

    def recent(self, now: int) -> int:
        return now - _RECENT

    def state(self) -> Job | None:
        last = self._ask(BIGTABLE, lambda: self._control.generation(self._places.subscription))
        if last is None:
            return None
        at = heard(last.state)
        age = None if at is None else max(0, round((time.time() - at) * MICROS_PER_SECOND))
        return Job(last.number, last.began, last.state if at is None else RUNNING, age)

    def balance(self) -> Result:
        return self._ask(BIGQUERY, lambda: reconcile(self._places))

    def probed(self, end: str, since: int) -> Found:
        found: Found = {}
        for table in FIGURES:
            if end == BIGTABLE:
                rows = self._ask(end, lambda table=table: self._served.read(table, ADVERTISER, since, MAX_TIME_MICROS))
                rows = rows.filter(pa.compute.is_valid(rows["campaign_id"]))
            else:
                rows = self._ask(end, lambda table=table: self._reader.query(queries.probed(self.dataset, table, since)))
            found |= found_in(table, rows)
        return found

    def send(self, messages: list[bytes]) -> None:
        if self._writes:
            self._ask("pubsub", lambda: send(self._places.endpoints, self._topic, iter(messages), lambda: None))

    @contextmanager
    def heard(self) -> Iterator[list[Audit]]:
        """Acknowledged when the context ends well; what is no audit is said in the log and acknowledged as well."""
        messages = self._ask("pubsub", self._pulled) if self._writes else []
        audits = []
        for received in messages:
            try:
                audits.append(decode(received.message.data))
            except BadAudit as error:
                _LOG.warning("message %s on %s: %s", received.message.message_id, audits_of(self._places.subscription), error)
        yield audits
        if messages:
            self._ask("pubsub", lambda: self._audits.acknowledge([received.ack_id for received in messages]))

    def _pulled(self) -> list:
        messages: list = []
        for _ in range(_PULLS):
            some = self._audits.pull(_PULL_MESSAGES, _PULL_SECONDS if not messages else 0.2)
            if not some:
                break
            messages += some
        return messages

    def store(self, table: str, rows: list[dict]) -> None:
        if not self._writes or not rows:
            return
        stored = pa.Table.from_pylist(rows, schema(TABLES[table]))
        self._ask(BIGQUERY, lambda: self._appender.append(table, stored))

    def close(self) -> None:
        for one in self._reader, self._served, self._control, self._appender, *([self._audits] if self._writes else []):
            one.close()

    def _ask(self, service: str, act: Callable[[], T]) -> T:
        until, why = self._away.get(service, (0.0, ""))
        if time.monotonic() < until:
            raise Unread(why)
        try:
            return act()
        except _FAILURES as error:
            code = getattr(error, "code", None)
            why = f"Pub/Sub: {code().name}" if isinstance(error, grpc.RpcError) and code else " ".join(str(error).split())
            self._away[service] = time.monotonic() + _AWAY_SECONDS, why
            raise Unread(why) from error
