"""What `measurement explain` reads of a local run: its input files once more, and its warehouse."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measurement.explain.explanation import Reading
from measurement.explain.tables import Tables
from measurement.io.framing import WriterSchema
from measurement.local.again import files, intakes
from measurement.local.warehouse import Warehouse
from measurement.model.policy import Policy
from measurement.model.sql import duckdb

_STATES = {
    "running": "a run is under way: the tables do not hold everything yet",
    "failed": "the last run failed: run it again",
    "interrupted": "the last run was interrupted: run it again",
}


def reading(warehouse: Warehouse, policy: Policy) -> Reading:
    """WarehouseError where there was no run, or a file is gone."""
    files(warehouse)
    with warehouse.read() as db:
        state = warehouse.run_state(db)
        [(rules,)] = db.execute("SELECT rule_version FROM job.runs ORDER BY generation DESC LIMIT 1").fetchall()
        schemas = dict(db.execute("SELECT schema_id, text FROM job.schemas").fetchall())
    notes = [_STATES[state]] if state in _STATES else []
    notes += [f"{s.path} is not as large as the run read it: the tables are of what it was"
              for s in warehouse.inputs() if Path(s.path).stat().st_size != s.size]
    return Reading(f"--out {warehouse.out}", lambda: intakes(warehouse, policy),
                   {key: WriterSchema.parse(text) for key, text in schemas.items()}, lambda: _tables(warehouse), rules, notes)


@contextmanager
def _tables(warehouse: Warehouse) -> Iterator[Tables]:
    with warehouse.read() as db:
        yield Tables(lambda sql: db.sql(duckdb(sql)).to_arrow_table().to_pylist(), "main")
