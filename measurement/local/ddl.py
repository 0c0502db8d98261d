"""What the local warehouse has, made in DuckDB: the public tables, those that people load, their ``_latest`` views and the analysts'."""

from collections.abc import Iterable

import duckdb

from measurement.model import sql
from measurement.model.bookings import LOADED
from measurement.model.tables import TABLES, Column, Table
from measurement.model.views import VIEWS


def make(db: duckdb.DuckDBPyConnection) -> None:
    """All of it, described, as far as it is not there; the views' text anew."""
    for table in (*TABLES.values(), *LOADED.values()):
        view = f"{table.name}_latest"
        db.execute(create_table(table, table.name))
        db.execute(f"CREATE OR REPLACE VIEW {view} AS {latest(table)}")
        _describe(db, "TABLE", table.name, sql.description(table), table.columns)
        _describe(db, "VIEW", view, sql.latest_description(table), table.columns)
    for view in VIEWS.values():
        db.execute(f"CREATE OR REPLACE VIEW {view.name} AS {sql.duckdb(view.select('main'))}")
        _describe(db, "VIEW", view.name, view.description, view.columns)


def create_table(table: Table, name: str) -> str:
    columns = ", ".join(f"{c.name} {sql.duckdb_type(c)}{' NOT NULL' if c.required else ''}" for c in table.columns)
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns})"


def latest(table: Table, schema: str = "main") -> str:
    """The SELECT of each key's highest revision."""
    return sql.duckdb(sql.latest_view(table, schema))


def _describe(db: duckdb.DuckDBPyConnection, kind: str, name: str, told: str, columns: Iterable[Column]) -> None:
    db.execute(f"COMMENT ON {kind} {name} IS {_text(told)}")
    for column in columns:
        db.execute(f"COMMENT ON COLUMN {name}.{column.name} IS {_text(column.description)}")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
