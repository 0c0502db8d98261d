"""`measurement replay`: rejects back through the job after a fix.

The rejects' payloads become one more input, read behind all others, and the job runs again over everything under a new
generation: what is accepted now is counted, what has been counted meanwhile is a duplicate, and nothing is counted twice.
"""

from pathlib import Path

from measurement.io import replays
from measurement.local.warehouse import Warehouse
from measurement.model.tables import RESOLVED


def prepare(warehouse: Warehouse, reasons: list[str]) -> tuple[Path, int] | None:
    """Writes OUT/replays/replay-N from the rejects that stand; (its path, events), None where there are none.

    A reject of an earlier replay stands for itself through its original, and one whose bytes are with another (a datum
    whose beginning was lost) has nothing to replay.
    """
    chosen = "AND reason IN (SELECT unnest(?))" if reasons else ""
    with warehouse.read() as db:
        rows = db.sql(
            "SELECT payload, encoding, schema_id FROM rejects_latest WHERE octet_length(payload) > 0 "
            f"AND reason <> '{RESOLVED}' AND source NOT IN (SELECT name FROM job.inputs WHERE replay) {chosen} "
            "ORDER BY received_at, reject_id", params=[reasons] if reasons else []).to_arrow_table()
        schemas = dict(db.execute("SELECT schema_id, text FROM job.schemas").fetchall())
    if not rows.num_rows:
        return None
    directory = warehouse.out / "replays"
    directory.mkdir(exist_ok=True)
    number = len(list(directory.glob(f"replay-*{replays.SUFFIX}"))) + 1
    path = directory / f"replay-{number}{replays.SUFFIX}"
    replays.write(path, rows, schemas)
    return path, rows.num_rows
