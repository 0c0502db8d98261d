"""`measurement status`: what the warehouse holds and how far its last run is."""

from dataclasses import dataclass
from datetime import datetime

from measurement.local.reconcile import reconcile
from measurement.local.warehouse import Warehouse


@dataclass
class Status:
    generation: int
    state: str
    began: datetime
    ended: datetime | None
    complete_until: datetime | None  # hours before it are closed
    received: int
    outcomes: dict[str, int]
    hours: dict[str, int]  # by the status of their delivery rows
    balanced: bool | None  # None while a run is under way

    @property
    def healthy(self) -> bool:
        return self.state in ("running", "complete") and self.balanced is not False


def status(warehouse: Warehouse) -> Status:
    result = reconcile(warehouse)
    with warehouse.read() as db:
        generation, began, ended = db.execute("SELECT generation, began, ended FROM job.runs ORDER BY generation DESC LIMIT 1").fetchone()
        hours = dict(db.execute(
            "SELECT worst, count(*) FROM (SELECT window_start, CASE WHEN bool_or(status = 'provisional') THEN 'provisional' "
            "WHEN bool_or(status = 'restated') THEN 'restated' ELSE 'final' END worst FROM delivery_latest GROUP BY 1) GROUP BY 1"
        ).fetchall())
        until = db.execute("SELECT max(window_start) + INTERVAL 1 HOUR FROM delivery_latest WHERE status <> 'provisional'").fetchone()[0]
    return Status(generation, result.state, began, ended, until, result.received, result.outcomes, hours, None if result.under_way else result.holds)
