"""A local run's warehouse, as the monitor looks at it: no topics, so neither audits nor probes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from measurement.io.publication import schema
from measurement.local.reconcile import reconcile
from measurement.local.warehouse import Warehouse, WarehouseError
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy import Counting
from measurement.model.sql import duckdb
from measurement.model.tables import TABLES
from measurement.monitors.audits import Audit
from measurement.monitors.heartbeat import RUNNING, Job
from measurement.monitors.ledger import Result, micros
from measurement.monitors.place import Unread
from measurement.monitors.probe import Found


class LocalPlace:
    """A Place (measurement/monitors/place.py) over OUT. ``writes``: whether looks are kept."""

    dataset, unnamed, ends = "main", "", ()

    def __init__(self, warehouse: Warehouse, writes: bool = True):
        self._warehouse, self._writes = warehouse, writes
        self.job, self.where = str(warehouse.out), f"--out {warehouse.out}"

    def query(self, sql: str) -> list[tuple]:
        return self._read(lambda db: db.execute(duckdb(sql)).fetchall())

    def clock(self, now: int) -> int:
        """Of files, the time when the last hour that has deliveries is due, if that is before ``now``: a log is of any day. While it is
        being read, as fast as that goes, no hour is due that is not closed."""
        closed = " WHERE status <> 'provisional'" if self.state().state == RUNNING else ""
        [(last,)] = self.query(f"SELECT max(window_start) FROM `main.delivery`{closed}")
        return now if last is None else min(now, micros(last) + MICROS_PER_HOUR + Counting.allowed_lateness)

    def recent(self, now: int) -> int:
        """All that the last run published."""
        return min(now, self.state().began)

    def state(self) -> Job:
        def read(db) -> Job:
            state = self._warehouse.run_state(db)
            generation, began = db.execute("SELECT generation, began FROM job.runs ORDER BY generation DESC LIMIT 1").fetchone()
            return Job(generation, micros(began), state, 0 if state == RUNNING else None)
        return self._read(read)

    def balance(self) -> Result:
        return self._told(lambda: reconcile(self._warehouse))

    def probed(self, end: str, since: int) -> Found:
        return {}

    def send(self, messages: list[bytes]) -> None:
        """Nowhere: a run's files are all that it reads."""

    @contextmanager
    def heard(self) -> Iterator[list[Audit]]:
        yield []

    def store(self, table: str, rows: list[dict]) -> None:
        if self._writes and rows:
            self._told(lambda: self._warehouse.append(table, pa.Table.from_pylist(rows, schema(TABLES[table]))))

    def _read(self, what):
        def read():
            with self._warehouse.read() as db:
                return what(db)
        return self._told(read)

    def _told(self, act):
        try:
            return act()
        except WarehouseError as error:
            raise Unread(str(error)) from error
