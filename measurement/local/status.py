"""`measurement status --out`: what a local run's warehouse holds and how far its last run is."""

from measurement.local.place import LocalPlace
from measurement.local.reconcile import reconcile
from measurement.local.warehouse import Warehouse
from measurement.model.sql import duckdb
from measurement.monitors.levels import levels
from measurement.monitors.slo import Slo
from measurement.monitors.status import Status, of_tables


def status(warehouse: Warehouse, slo: Slo, now: int) -> Status:
    result = reconcile(warehouse)
    found = levels(LocalPlace(warehouse, writes=False), slo, now, result)
    with warehouse.read() as db:
        generation, began, ended = db.execute("SELECT generation, began, ended FROM job.runs ORDER BY generation DESC LIMIT 1").fetchone()
        return of_tables(lambda sql: db.execute(duckdb(sql)).fetchall(), "main", result, generation, began, ended, found)
