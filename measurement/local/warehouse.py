"""The local warehouse: one DuckDB file with the public tables and views, and what the runs that made it were.

DuckDB lets one process write, and nobody else read meanwhile. So nobody keeps it open: the writer opens it, commits what
has come and lets go; readers do the same. A lock file makes them wait for each other instead of failing.

The first generation's rows appear as they come. A later generation starts without the state of the one before and must
not show a row before it has rebuilt it (contract section 3): its rows are kept apart (schema ``staged``) until the run is
whole, and then what differs is published in one transaction.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from measurement.io import latency, spool
from measurement.local.ddl import create_table, latest, make
from measurement.local.inputs import Source
from measurement.model.revisions import revision
from measurement.model.tables import LATENCY, OPERATIONAL, REJECTS, RESOLVED, TABLES, TOTALS, Table

_JOB_TABLES = """
CREATE SCHEMA IF NOT EXISTS job;
CREATE TABLE IF NOT EXISTS job.runs (
    generation BIGINT PRIMARY KEY, began TIMESTAMPTZ NOT NULL, ended TIMESTAMPTZ, state VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL, watermark TIMESTAMPTZ);
ALTER TABLE job.runs ADD COLUMN IF NOT EXISTS backfill BOOLEAN DEFAULT false;
CREATE TABLE IF NOT EXISTS job.inputs (
    generation BIGINT NOT NULL, name VARCHAR NOT NULL, path VARCHAR NOT NULL, size BIGINT NOT NULL,
    sha256 VARCHAR NOT NULL, clock BIGINT NOT NULL, replay BOOLEAN NOT NULL);
CREATE TABLE IF NOT EXISTS job.spooled (file VARCHAR PRIMARY KEY);
CREATE TABLE IF NOT EXISTS job.schemas (schema_id VARCHAR PRIMARY KEY, text VARCHAR NOT NULL);
"""


class WarehouseError(Exception):
    """The warehouse cannot be read or written; the message is one line."""


class Warehouse:
    """OUT/warehouse.duckdb."""

    def __init__(self, out: Path):
        self.out = out
        self.path = out / "warehouse.duckdb"

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction that is committed at the end, or rolled back by an exception."""
        with self._locked(fcntl.LOCK_EX), self._connected(read_only=False) as connection:
            connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def there(self) -> "Warehouse":
        """Itself; WarehouseError if there is no warehouse."""
        if not self.path.is_file():
            raise WarehouseError(f"--out {self.out}: no warehouse.duckdb there; `measurement run` makes one")
        return self

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection; WarehouseError if there is no warehouse."""
        self.there()
        with self._locked(fcntl.LOCK_SH), self._connected(read_only=True) as connection:
            yield connection

    @contextmanager
    def _locked(self, kind: int):
        with (self.out / ".warehouse.lock").open("a") as lock:
            fcntl.flock(lock, kind)
            yield

    @contextmanager
    def _connected(self, read_only: bool):
        try:
            connection = duckdb.connect(str(self.path), read_only=read_only)
            connection.execute("SET TimeZone = 'UTC'")
        except duckdb.Error as error:
            raise WarehouseError(f"{self.path}: {_one_line(error)}") from error
        try:
            yield connection
        except duckdb.Error as error:
            raise WarehouseError(f"{self.path}: {_one_line(error)}") from error
        finally:
            connection.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held by a run from its begin to its end; WarehouseError if another one holds it."""
        with self._run_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WarehouseError(f"--out {self.out}: another run is writing there") from None
            yield

    def run_state(self, db: duckdb.DuckDBPyConnection) -> str:
        """running, complete, failed, or interrupted: a run that ended without a word."""
        if not db.execute("SELECT 1 FROM information_schema.tables WHERE table_schema = 'job' AND table_name = 'runs'").fetchone():
            raise WarehouseError(f"{self.path}: not made by a run")
        state = db.execute("SELECT state FROM job.runs ORDER BY generation DESC LIMIT 1").fetchone()[0]
        if state == "running":
            with self._run_lock() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return state
                return "interrupted"
        return state

    def _run_lock(self):
        return (self.out / ".run.lock").open("a")

    # -- runs -----------------------------------------------------------------------------------------------------

    def begin(self, inputs: list[Source], schemas: dict[str, str], rule_version: str, began: int, backfill: bool = False) -> int:
        """Notes a new run as begun; its generation. What an unfinished one left staged is dropped."""
        with self.write() as db:
            db.execute(_JOB_TABLES)
            make(db)
            generation = db.execute("SELECT coalesce(max(generation), 0) + 1 FROM job.runs").fetchone()[0]
            db.execute("UPDATE job.runs SET state = 'failed' WHERE state = 'running'")
            db.execute("INSERT INTO job.runs (generation, began, state, rule_version, backfill) "
                       "VALUES (?, make_timestamptz(?), 'running', ?, ?)", [generation, began, rule_version, backfill])
            db.executemany("INSERT INTO job.inputs VALUES (?, ?, ?, ?, ?, ?, ?)",
                           [[generation, s.name, s.path, s.size, s.sha256, s.clock, s.replay] for s in inputs])
            for schema_id, text in schemas.items():
                db.execute("INSERT OR IGNORE INTO job.schemas VALUES (?, ?)", [schema_id, text])
            db.execute("DROP SCHEMA IF EXISTS staged CASCADE")
            db.execute("DELETE FROM job.spooled")
            if generation > 1:
                db.execute("CREATE SCHEMA staged")
                for table in TABLES.values():
                    if table not in OPERATIONAL:
                        db.execute(create_table(table, f"staged.{table.name}"))
        return generation

    def inputs(self) -> list[Source]:
        """What the last run read or was to read; [] where there was none."""
        if not self.path.is_file():
            return []
        with self.read() as db:
            self.run_state(db)
            rows = db.execute("SELECT name, path, size, sha256, clock, replay FROM job.inputs "
                              "WHERE generation = (SELECT max(generation) FROM job.inputs) ORDER BY rowid").fetchall()
        return [Source(*row) for row in rows]

    def backfilled(self) -> bool:
        """Whether the last run took its files in any order of time."""
        with self.read() as db:
            [last] = db.sql("SELECT * FROM job.runs ORDER BY generation DESC LIMIT 1").to_arrow_table().to_pylist()
        return bool(last.get("backfill"))  # an older warehouse's runs did not say

    def take(self, directory: Path, generation: int, watermark: int | None) -> int:
        """Takes the spool's files that are ready, in one transaction; how many there were.

        With them goes the latency of what can then be read, which of a later generation is nothing yet. A log's receipts are of
        another day: they count from the run's begin, since what came before is no delay of the pipeline's.
        """
        files = spool.ready(directory)
        if files:
            with self.write() as db:
                fresh = [f for f in files if not db.execute("SELECT 1 FROM job.spooled WHERE file = ?", [f.name]).fetchone()]
                received = []
                for table in (TABLES[name] for name in sorted({spool.table_of(f) for f in fresh})):
                    read = [_read(f) for f in fresh if spool.table_of(f) == table.name]
                    staged = generation > 1 and table not in OPERATIONAL
                    _insert(db, table, pa.concat_tables(read), "staged" if staged else "main")
                    received += [] if staged else latency.carried(read)
                if received:
                    [(began,)] = db.execute("SELECT epoch_us(began) FROM job.runs WHERE generation = ?", [generation]).fetchall()
                    _insert(db, LATENCY, latency.rows_of("duckdb", received, time.time_ns() // 1_000, began))
                if fresh:
                    db.executemany("INSERT INTO job.spooled VALUES (?)", [[f.name] for f in fresh])
                if watermark is not None:
                    db.execute("UPDATE job.runs SET watermark = make_timestamptz(?) WHERE generation = ?", [watermark, generation])
            for file in files:
                file.unlink()
        return len(files)

    def append(self, name: str, rows: pa.Table) -> None:
        """Appends rows to a table; WarehouseError if there is no warehouse."""
        with self.there().write() as db:
            _insert(db, TABLES[name], rows)

    def finish(self, generation: int, state: str, ended: int, number: int) -> None:
        """Ends a run: ``complete`` publishes what a later generation rebuilt, ``failed`` drops it.

        ``number`` is n of the revisions that set rows to zero which the run no longer produced.
        """
        with self.write() as db:
            if generation > 1:
                if state == "complete":
                    because, rules = _reason(db, generation)
                    for table in TOTALS.values():
                        _publish_totals(db, table, revision(generation, number), ended, because, rules)
                    _publish_rejects(db, revision(generation, number), ended)
                db.execute("DROP SCHEMA IF EXISTS staged CASCADE")
            db.execute("DELETE FROM job.spooled")
            db.execute("UPDATE job.runs SET state = ?, ended = make_timestamptz(?) WHERE generation = ?", [state, ended, generation])


def _reason(db, generation: int) -> tuple[str, str]:
    """(why a generation restates what the last complete one published, the version of its rules)."""
    [(rules,)] = db.execute("SELECT rule_version FROM job.runs WHERE generation = ?", [generation]).fetchall()
    last = db.execute("SELECT rule_version FROM job.runs WHERE state = 'complete' AND generation < ? ORDER BY generation DESC LIMIT 1",
                      [generation]).fetchone()
    return "rebuild" if last is None or last[0] == rules else "policy", rules


def _publish_totals(db, table: Table, zero_revision: int, now: int, because: str, rules: str) -> None:
    """Appends the rebuilt rows that differ from the stored ones, and zeros for stored rows that were not rebuilt. ``because`` is
    why, and ``rules`` the version of the rules that they are counted by."""
    same = " AND ".join(f"new.{c.name} IS NOT DISTINCT FROM old.{c.name}" for c in table.identity)
    some = " OR ".join(f"{{0}}.{c.name} <> 0" for c in table.values)
    differs = " OR ".join(f"new.{c.name} <> old.{c.name}" for c in table.values)
    rebuilt = {c.name: f"new.{c.name}" for c in table.columns}
    zeroed = ({c.name: f"old.{c.name}" for c in table.columns} | {c.name: "0" for c in table.values}
              | {"revision": str(zero_revision), "published_at": f"make_timestamptz({now})"})
    if table.stated:
        # A row of an hour that had been published as closed is restated by the rebuild, or by other rules, not final a second time.
        hour = f"date_trunc('hour', {{0}}.{table.time})"
        closed = f"SELECT DISTINCT {hour.format('old')} FROM old WHERE status <> 'provisional'"
        restated = f"(old.status <> 'provisional' OR (old.status IS NULL AND {hour.format('new')} IN ({closed})))"
        rebuilt |= {"status": f"CASE WHEN {restated} THEN 'restated' ELSE new.status END",
                    "restated_because": f"CASE WHEN {restated} THEN '{because}' ELSE new.restated_because END"}
        zeroed |= {"status": "'restated'", "restated_because": f"'{because}'", "rule_version": "$rules"}
        differs = f"({differs}) OR old.status = 'provisional'"
    db.execute(f"CREATE OR REPLACE TEMP TABLE old AS {latest(table)}")
    db.execute(f"CREATE OR REPLACE TEMP TABLE new AS {latest(table, 'staged')}")
    into = f"INSERT INTO {table.name} ({_names(table.columns)}) SELECT"
    db.execute(f"{into} {', '.join(rebuilt.values())} FROM new LEFT JOIN old ON {same} "
               f"WHERE CASE WHEN old.revision IS NULL THEN {some.format('new')} ELSE {differs} END")
    db.execute(f"{into} {', '.join(zeroed.values())} FROM old ANTI JOIN new ON {same} WHERE {some.format('old')}",
               {"rules": rules} if table.stated else {})


def _publish_rejects(db, resolved_revision: int, now: int) -> None:
    columns = _names(REJECTS.columns)
    old = f"({latest(REJECTS)})"
    db.execute(f"INSERT INTO rejects SELECT {columns} FROM ({latest(REJECTS, 'staged')}) new WHERE NOT EXISTS "
               f"(SELECT 1 FROM {old} old WHERE old.reject_id = new.reject_id AND old.reason = new.reason)")
    values = ", ".join({"reason": f"'{RESOLVED}'", "detail": "'no longer rejected: was ' || reason",
                        "revision": str(resolved_revision), "published_at": f"make_timestamptz({now})"}.get(c.name, c.name)
                       for c in REJECTS.columns)
    db.execute(f"INSERT INTO rejects SELECT {values} FROM {old} old WHERE reason <> '{RESOLVED}' AND NOT EXISTS "
               "(SELECT 1 FROM staged.rejects new WHERE new.reject_id = old.reject_id)")


def _names(columns) -> str:
    return ", ".join(c.name for c in columns)


def _insert(db, table: Table, rows: pa.Table, schema: str = "main") -> None:
    db.register("rows", rows)
    db.execute(f"INSERT INTO {schema}.{table.name} SELECT {_names(table.columns)} FROM rows")
    db.unregister("rows")


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_stream(file).read_all()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
