"""`measurement reconcile --out`: the balance of a local run's warehouse."""

from measurement.local.warehouse import Warehouse
from measurement.model.policy import Counting
from measurement.model.sql import duckdb
from measurement.monitors.ledger import Result, balance


def reconcile(warehouse: Warehouse) -> Result:
    """Compares what the warehouse holds. A run that is under way is only told of: its counts are not all there yet."""
    with warehouse.read() as db:
        state = warehouse.run_state(db)
        result = balance(lambda sql: db.execute(duckdb(sql)).fetchall(), "main", state, Counting.join_horizon)
    if not result.under_way and state != "complete":
        result.unbalanced.insert(0, f"the last run {'failed' if state == 'failed' else 'was interrupted'}: run it again")
    return result
