"""`measurement status --out`: what a local run's warehouse holds and how far its last run is."""

from measurement.local.reconcile import reconcile
from measurement.local.warehouse import Warehouse
from measurement.model.sql import duckdb
from measurement.monitors.status import Status, of_tables


def status(warehouse: Warehouse) -> Status:
    result = reconcile(warehouse)
    with warehouse.read() as db:
        generation, began, ended = db.execute("SELECT generation, began, ended FROM job.runs ORDER BY generation DESC LIMIT 1").fetchone()
        return of_tables(lambda sql: db.execute(duckdb(sql)).fetchall(), "main", result, generation, began, ended)
