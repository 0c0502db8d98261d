"""The spool: rows on their way to the local warehouse, one Arrow file a batch.

DuckDB takes one writing process, and the job's workers are others. A worker writes a file whole under a hidden name and
renames it; the writer takes the files in order of name, and what it has taken is remembered in the warehouse's own
transaction (measurement/local/warehouse.py), so that no crash between commit and removal loses or repeats a row.
"""

import time
import uuid
from pathlib import Path

import apache_beam as beam

SUFFIX = ".arrow"


class WriteSpool(beam.DoFn):
    """(table, Arrow stream) to a file TABLE.TIME.ID.arrow."""

    def __init__(self, directory: str):
        self._directory = directory

    def process(self, element):
        table, rows = element
        name = f"{table}.{time.time_ns()}.{uuid.uuid4().hex[:12]}{SUFFIX}"
        directory = Path(self._directory)
        half = directory / f".{name}"
        half.write_bytes(rows)
        half.rename(directory / name)
        return ()


def ready(directory: Path) -> list[Path]:
    """The files that wait to be taken, oldest first."""
    return sorted((p for p in directory.glob(f"*{SUFFIX}") if not p.name.startswith(".")), key=lambda p: p.name.split(".")[1])


def table_of(path: Path) -> str:
    return path.name.partition(".")[0]
