"""The spool: rows on their way to the local warehouse, one Arrow file a batch.

DuckDB takes one writing process, and the job's workers are others. A worker writes a file whole under a hidden name and
renames it; the writer takes the files in order of name, and what it has taken is remembered in the warehouse's own
transaction (measurement/local/warehouse.py), so that no crash between commit and removal loses or repeats a row.
"""

import time
import uuid
from pathlib import Path

SUFFIX = ".arrow"


def write(directory: str, table: str, rows: bytes) -> None:
    """An Arrow stream to a file TABLE.TIME.ID.arrow."""
    name = f"{table}.{time.time_ns()}.{uuid.uuid4().hex[:12]}{SUFFIX}"
    half = Path(directory, f".{name}")
    half.write_bytes(rows)
    half.rename(half.with_name(name))


def ready(directory: Path) -> list[Path]:
    """The files that wait to be taken, oldest first."""
    return sorted((p for p in directory.glob(f"*{SUFFIX}") if not p.name.startswith(".")), key=lambda p: p.name.split(".")[1])


def table_of(path: Path) -> str:
    return path.name.partition(".")[0]
