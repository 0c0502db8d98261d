"""The warehouse as SQL: one text for BigQuery, and the same text turned into DuckDB's dialect."""

from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp

from measurement.model.tables import BOOL, BYTES, DATE, FLOAT64, INT64, NUMERIC, STRING, TIMESTAMP, Column, Table

_DUCKDB = {STRING: "VARCHAR", TIMESTAMP: "TIMESTAMPTZ", INT64: "BIGINT", BYTES: "BLOB", NUMERIC: "DECIMAL(38, 9)", BOOL: "BOOLEAN",
           DATE: "DATE", FLOAT64: "DOUBLE"}


@dataclass(frozen=True)
class Layout:
    """Which column's days are BigQuery's partitions, and which columns order the rows in each."""

    partition: str
    cluster: tuple[str, ...]


# A query of some hours reads only these hours' days, and in them only the blocks of the advertiser or source it asks for.
# The ledger's and the arrivals' hours are what clients state, in any year and also none: days of theirs would be partitions
# without bound, and BigQuery refuses appends to days far in the past or future. These two go by when a row was published,
# and are in the order of their hours there. So do rejects, whose receipt is the sender's word too, and whose days expire.
LAYOUTS = {
    "delivery": Layout("window_start", ("advertiser_id", "campaign_id")),
    "invalid_traffic": Layout("window_start", ("advertiser_id", "campaign_id")),
    "conversion_credits": Layout("conversion_time", ("advertiser_id", "conversion_id")),
    "attribution": Layout("window_start", ("advertiser_id", "campaign_id")),
    "ledger": Layout("published_at", ("window_start", "source", "outcome")),
    "intake": Layout("received_hour", ("source",)),
    "arrivals": Layout("published_at", ("window_start", "source")),
    "rejects": Layout("published_at", ("reason", "source")),
    "audits": Layout("published_at", ("minute", "source")),
    "latency": Layout("published_at", ("sink",)),
    "sla": Layout("published_at", ("level",)),
    "bookings": Layout("published_at", ("advertiser_id", "campaign_id")),
    "reporting_time_zones": Layout("published_at", ("advertiser_id",)),
}


def latest_view(table: Table, dataset: str) -> str:
    """BigQuery's SELECT of ``NAME_latest``: of each key the row of the highest revision, the last published among equals;
    of rows that are written together those of the last write.

    ``dataset`` is project.dataset, or a DuckDB schema. NULLs are equal in a partition, in BigQuery as in DuckDB.
    """
    return f"SELECT {_names(table.columns)} FROM `{dataset}.{table.name}` {standing(table)}"


def standing(table: Table) -> str:
    """The clause that keeps of a table's rows, or of those that a condition on their key leaves, what ``NAME_latest`` shows."""
    whole = f" AND revision = max(revision) OVER (PARTITION BY {_names(table.key[:table.together])})" if table.together else ""
    return f"QUALIFY row_number() OVER (PARTITION BY {_names(table.identity)} ORDER BY revision DESC, published_at DESC) = 1{whole}"


@lru_cache(maxsize=256)
def duckdb(sql: str) -> str:
    """One statement of BigQuery's dialect in DuckDB's; a name of three parts must exist there as database.schema.table."""
    [tree] = sqlglot.parse(sql, read="bigquery")
    return of_duckdb(tree)


def of_duckdb(tree: exp.Expression) -> str:
    """The same of a statement that was read from BigQuery's dialect; the tree is changed."""
    # The day of a time in a zone: SQLGlot would take the time for one of the reader's session's zone.
    for day in list(tree.find_all(exp.Date)):
        if zone := day.args.get("zone"):
            day.replace(exp.cast(exp.AtTimeZone(this=day.this, zone=zone), exp.DataType.Type.DATE))
    # DIV of sums or in a product: SQLGlot writes the operator without the function's parentheses.
    for division in list(tree.find_all(exp.IntDiv)):
        for side in ("this", "expression"):
            division.set(side, exp.paren(division.args[side], copy=False))
        division.replace(whole := exp.Paren())
        whole.set("this", division)
    return tree.sql("duckdb")


def description(table: Table) -> str:
    """What both warehouses say of a table."""
    return f"{table.description} Key: {_names(table.key)}."


def latest_description(table: Table) -> str:
    """What both say of its view ``NAME_latest``."""
    return f"{description(table)} The highest revision of each key."


def bigquery_type(column: Column) -> str:
    return column.type


def duckdb_type(column: Column) -> str:
    return _DUCKDB[column.type]


def _names(columns) -> str:
    return ", ".join(c.name for c in columns)
