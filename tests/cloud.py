"""A user's view of the cloud profile: the console command against emulators, and what the far ends then hold."""

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import orjson

from measurement.io.bigquery_admin import Reader
from measurement.io.bigtable_read import scan_all
from measurement.io.endpoints import Endpoints
from measurement.model.tables import ATTRIBUTION, CREDITS, DELIVERY, INVALID_TRAFFIC, NUMERIC, TIMESTAMP, Table

COMMAND = [sys.executable, "-m", "measurement.cli"]
SERVED, ANALYSED = (DELIVERY, ATTRIBUTION), (DELIVERY, INVALID_TRAFFIC, CREDITS, ATTRIBUTION)  # by Bigtable, in BigQuery
ALL_HOURS = 0, 4_102_444_800_000_000  # µs: 1970 to 2100


@dataclass
class Cloud:
    """Emulators, with a topic and tables of a test's own."""

    endpoints: Endpoints
    name: str
    scratch: Path
    policy: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.endpoints.environment}

    topic = property(lambda self: f"projects/demo/topics/{self.name}")
    subscription = property(lambda self: f"projects/demo/subscriptions/{self.name}")
    instance = property(lambda self: f"projects/demo/instances/{self.name}")
    dataset = property(lambda self: f"demo.{self.name.replace('-', '_')}")

    @property
    def flags(self) -> list[str]:
        return ["--profile", "emulators", "--subscription", self.subscription, "--bigtable", self.instance, "--bigquery", self.dataset]

    def command(self, *arguments, **environment) -> subprocess.CompletedProcess:
        return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                              env={**self.environment, **environment})

    def provision(self) -> None:
        done = self.command("provision", "--profile", "emulators", "--project", "demo", "--topic", self.name, "--subscription", self.name,
                            "--instance", self.name, "--dataset", self.dataset.partition(".")[2], "--archive", self.scratch / "archive", "--ack-seconds", 10)
        assert done.returncode == 0, done.stderr

    def publish(self, *inputs: Path, batch: int = 1) -> str:
        files = [part for path in inputs for part in ("--input", path)]
        done = self.command("publish", "--profile", "emulators", *files, "--topic", self.topic, "--batch", batch)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def job(self, *arguments, idle: int = 25) -> "Job":
        """A job that ends when nothing has come for ``idle`` seconds."""
        return Job(self, ["run", *self.flags, *self.counted, "--until-idle", "--idle-seconds", str(idle), *arguments])

    @property
    def counted(self) -> list[str]:
        return [] if self.policy is None else ["--policy", str(self.policy)]

    def served(self, table: Table = DELIVERY) -> dict[tuple, tuple]:
        """Rows in Bigtable, rows of zeros left out."""
        return _rows(table, scan_all(self.endpoints, self.instance, table.name, *ALL_HOURS).to_pylist())

    def analysed(self, table: Table = DELIVERY) -> dict[tuple, tuple]:
        """Rows in BigQuery's latest view, rows of zeros left out."""
        return _rows(table, self.query(f"SELECT * FROM `{{dataset}}.{table.name}_latest`").to_pylist())

    def outcomes(self) -> dict[str, int]:
        rows = self.query("SELECT outcome, sum(events) AS n FROM `{dataset}.ledger_latest` GROUP BY 1").to_pylist()
        return {row["outcome"]: int(row["n"]) for row in rows if row["n"]}

    def query(self, sql: str):
        with Reader(self.endpoints, self.dataset) as reader:
            return reader.query(sql.format(dataset=self.dataset))


class Job:
    """A job in a process of its own; leave it as a context and it is gone, with its engine."""

    def __init__(self, cloud: Cloud, arguments: list[str]):
        self._cloud, self._arguments = cloud, arguments

    def __enter__(self) -> "Job":
        self._log = (self._cloud.scratch / f"job-{id(self)}.log").open("w+")
        self.process = subprocess.Popen([*COMMAND, *self._arguments], stdout=self._log, stderr=subprocess.STDOUT,
                                        env=self._cloud.environment, start_new_session=True)
        return self

    def ended(self, seconds: float = 240) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """As a machine that goes: the job, its workers and its engine at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __exit__(self, *_) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._log.close()


def _rows(table: Table, rows: list[dict]) -> dict[tuple, tuple]:
    """Sums by all other columns of the contract."""
    found = {tuple(_plain(row[c.name]) for c in table.identity): tuple(row[c.name] for c in table.values) for row in rows}
    return {key: sums for key, sums in found.items() if any(sums)}


def _plain(value):
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def truth(directory: Path, table: Table = DELIVERY) -> dict[tuple, tuple]:
    read = {TIMESTAMP: datetime.fromisoformat, NUMERIC: Decimal}
    rows = orjson.loads((directory / "truth.json").read_bytes())[table.name]
    rows = rows if table is DELIVERY else rows["rows"]
    return _rows(table, [{c.name: value if value is None or c.type not in read else read[c.type](value)
                          for c, value in zip(table.body, row)} for row in rows])


def stored(out: Path, table: Table) -> dict[tuple, tuple]:
    """Rows of a local run, rows of zeros left out."""
    with duckdb.connect(str(out / "warehouse.duckdb"), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        return _rows(table, db.sql(f"SELECT * FROM {table.name}_latest").to_arrow_table().to_pylist())


def outcomes(directory: Path) -> dict[str, int]:
    return {k: n for k, n in orjson.loads((directory / "truth.json").read_bytes())["outcomes"].items() if n}


class Proxy:
    """A way to a server at 127.0.0.1 that can be cut: connections break, and new ones are refused."""

    def __init__(self, target: str):
        self._target = target.rpartition(":")[0], int(target.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._lock, self._cut, self._closed = threading.Lock(), False, False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._cut = True
            for one in self._open:
                _break(one)
            self._open.clear()

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self._closed = True
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            _break(source)
            _break(sink)
            with self._lock:
                self._open -= {source, sink}


def _break(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
