"""Rows that people state, appended to the local warehouse."""

from collections.abc import Callable

from measurement.local.ddl import make
from measurement.local.warehouse import Warehouse
from measurement.model.tables import Table


def append(warehouse: Warehouse, table: Table, changes: Callable[[list[dict]], list[dict]]) -> None:
    """In one transaction what ``changes`` makes of the latest rows. WarehouseError where there is no warehouse."""
    with warehouse.read() as db:
        warehouse.run_state(db)  # or it is not one
    with warehouse.write() as db:
        make(db)  # an older run's has no such table
        names = [c.name for c in table.columns]
        latest = db.sql(f"SELECT {', '.join(names)} FROM {table.name}_latest").to_arrow_table().to_pylist()
        if rows := changes(latest):
            db.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                           [[row[name] for name in names] for row in rows])
