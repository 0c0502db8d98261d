"""An analyst's question to a local warehouse, in the SQL that BigQuery takes too."""

from datetime import datetime

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from measurement.exports.request import instant
from measurement.failure import Failure
from measurement.local.warehouse import Warehouse
from measurement.model.sql import of_duckdb


def query(warehouse: Warehouse, sql: str) -> pa.Table:
    """The rows of one SELECT in BigQuery's dialect; times are of UTC. Datasets before tables' names, such as ``ads.`` or ``P.ads.``, are
    passed over: a warehouse is one dataset. Failure in one line where it is none, or fails."""
    text = _local(sql)
    with warehouse.read() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET enable_external_access = false")  # it asks the warehouse and no other file
        try:
            return db.sql(text).to_arrow_table()
        except duckdb.Error as error:
            raise Failure(f"query: {' '.join(str(error).split())}") from error


def _local(sql: str) -> str:
    try:
        trees = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        [first, *_] = getattr(error, "errors", None) or [{}]
        where = f"line {first['line']}, column {first['col']}: " if first else ""
        raise Failure(f"query: {where}{(first.get('description') or 'this is no SQL').split(' but got <')[0]}") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise Failure("query: one SELECT is asked at a time, and nothing is changed by it")
    for table in trees[0].find_all(exp.Table):
        table.set("db", None)
        table.set("catalog", None)
    return of_duckdb(trees[0])


def text(value) -> str:
    """A value for people and for csv: NULL is empty, times are RFC 3339, a NUMERIC has the digits that it needs."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}".rstrip("0").rstrip(".") if "." in str(value) and not isinstance(value, (str, float)) else str(value)
