"""BigQuery's dataset, tables and views made and read, and loaded with what people state: by REST, of the service or of its emulator.

Imports no Beam.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
import requests
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from measurement.io.endpoints import Endpoints
from measurement.io.turns import turn
from measurement.model.bookings import LOADED
from measurement.model.sql import LAYOUTS, bigquery_type, description, latest_description, latest_view
from measurement.model.tables import REJECT_DAYS, REJECTS, TABLES, Column, Table
from measurement.model.views import VIEWS

_SECONDS = 30  # that a request may take
# A query may take longer than an append's attempt (60 s): where the two hang together, as on the emulator, the append gives
# way and is tried again.
_QUERY_SECONDS = 90
# The client would try for ten minutes, and whoever asks waits. A job that failed is not started again.
_PATIENCE = {"retry": DEFAULT_RETRY.with_timeout(_SECONDS), "timeout": _SECONDS}
_AT_ONCE = {"retry": None, "timeout": _SECONDS}
_DAY = 24 * 3600 * 1000  # ms, as the API counts an expiration
_LEGACY = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}  # names that the API answers with
_NO_PROJECT = re.compile(
    r"project \S+ is not found|not found: project|not enabled bigquery|has not been used in project", re.IGNORECASE)


class BigQueryError(Exception):
    """BigQuery cannot be reached, or what is asked for is not there. The message is one line."""


def provision(endpoints: Endpoints, project: str, dataset: str,
              tables: Iterable[Table] = (*TABLES.values(), *LOADED.values()), location: str = "US",
              reject_days: int | None = None) -> None:
    """Dataset, tables, their ``_latest`` views and the analysts' views over them. Again it changes nothing but descriptions,
    the views' text, columns that are not there yet, which are added, and how long rejects are kept, where ``reject_days``
    says so; it drops nothing.
    ``location`` is that of a dataset which is made. A table of rejects that is made keeps them REJECT_DAYS if not told."""
    with _client(endpoints, project) as client, _told(endpoints, project):
        wanted = bigquery.Dataset(f"{project}.{dataset}")
        wanted.location = location
        try:
            client.get_dataset(wanted.reference, **_PATIENCE)
        except NotFound:
            client.create_dataset(wanted, exists_ok=True, **_PATIENCE)
        place, made = f"{project}.{dataset}", set()
        for table in tables:
            _make_table(client, place, table, reject_days if table is REJECTS else None)
            _make_view(client, f"{place}.{table.name}_latest", latest_view(table, place), latest_description(table), table.columns)
            made.add(table.name)
        for view in VIEWS.values():
            if made.issuperset(view.over):
                _make_view(client, f"{place}.{view.name}", view.select(place), view.description, view.columns)


def _make_table(client: bigquery.Client, place: str, table: Table, days: int | None) -> None:
    wanted = bigquery.Table(f"{place}.{table.name}", [
        bigquery.SchemaField(c.name, bigquery_type(c), "REQUIRED" if c.required else "NULLABLE", description=c.description)
        for c in table.columns])
    wanted.description = description(table)
    wanted.time_partitioning = bigquery.TimePartitioning(field=LAYOUTS[table.name].partition)
    wanted.clustering_fields = list(LAYOUTS[table.name].cluster)
    there = _existing(client, wanted)
    if there is None:
        if table is REJECTS:
            wanted.time_partitioning.expiration_ms = (days or REJECT_DAYS) * _DAY
        client.create_table(wanted, exists_ok=True, **_PATIENCE)
        return
    if days is not None and (parts := there.time_partitioning) is not None and parts.expiration_ms != days * _DAY:
        # By the column that is there: BigQuery changes when partitions expire, and never what they are.
        parts.expiration_ms = days * _DAY
        there.time_partitioning = parts
        there = client.update_table(there, ["time_partitioning"], **_PATIENCE)
    schema = _merged(wanted.reference, there.schema, wanted.schema)
    if schema != list(there.schema) or there.description != wanted.description:
        there.schema, there.description = schema, wanted.description
        client.update_table(there, ["schema", "description"], **_PATIENCE)


def _merged(where, there: Iterable[bigquery.SchemaField], wanted: Iterable[bigquery.SchemaField]) -> list[bigquery.SchemaField]:
    """The columns that are there, described anew, then those that are missing: nullable, since the rows there lack them."""
    ours, merged = {field.name: field for field in wanted}, []
    for field in there:
        new = ours.pop(field.name, None)
        if new and _LEGACY.get(field.field_type, field.field_type) != new.field_type:
            raise BigQueryError(f"BigQuery {where}: column {field.name} is {field.field_type} and not {new.field_type}")
        merged.append(_field(field, field.mode, new.description) if new and new.description != field.description else field)
    return merged + [_field(field, "NULLABLE", field.description) for field in ours.values()]


def _field(field: bigquery.SchemaField, mode: str, description: str | None) -> bigquery.SchemaField:
    return bigquery.SchemaField.from_api_repr({**field.to_api_repr(), "mode": mode, "description": description})


def _make_view(client: bigquery.Client, name: str, query: str, told: str, columns: Iterable[Column]) -> None:
    wanted = bigquery.Table(name)
    wanted.view_query = query
    there = _existing(client, wanted)
    if there is None:
        there = client.create_table(wanted, exists_ok=True, **_PATIENCE)
    elif there.view_query != wanted.view_query:
        there.view_query = wanted.view_query
        there = client.update_table(there, ["view_query"], **_PATIENCE)
    # A view gets its columns from its text; what they mean can be added afterwards.
    docs = {c.name: c.description for c in columns}
    schema = [_field(f, f.mode, docs.get(f.name, f.description)) for f in there.schema]
    if [f.description for f in there.schema] != [f.description for f in schema] or there.description != told:
        there.schema, there.description = schema, told
        client.update_table(there, ["schema", "description"], **_PATIENCE)


def _existing(client: bigquery.Client, table: bigquery.Table) -> bigquery.Table | None:
    try:
        return client.get_table(table.reference, **_PATIENCE)
    except NotFound:
        return None


class Reader:
    """Queries ``dataset`` (project.dataset). Use as a context manager, or close it."""

    def __init__(self, endpoints: Endpoints, dataset: str):
        self.dataset = dataset
        self._endpoints, self._project = endpoints, dataset.rpartition(".")[0]
        self._client = _client(endpoints, self._project)

    def query(self, sql: str, parameters: Mapping[str, str | int] | None = None) -> pa.Table:
        """All rows, at once in memory. ``parameters`` by the names that stand as ``@name`` in the query. BigQueryError where the
        query fails or the service is away."""
        given = [bigquery.ScalarQueryParameter(name, "STRING" if isinstance(value, str) else "INT64", value)
                 for name, value in (parameters or {}).items()]
        with turn(self._endpoints), _told(self._endpoints, self._project):
            # The emulator answers a wrong query as it would an accident, which the client would try again.
            retry = None if self._endpoints.bigquery else DEFAULT_RETRY.with_timeout(_QUERY_SECONDS)
            rows = self._client.query_and_wait(sql, job_config=bigquery.QueryJobConfig(query_parameters=given) if given else None,
                                               retry=retry, job_retry=None, api_timeout=_QUERY_SECONDS)
            return rows.to_arrow(create_bqstorage_client=False)

    def check(self, tables: Iterable[Table] = tuple(TABLES.values())) -> None:
        """BigQueryError that names what is missing: service, project, permission, dataset, or a table or view."""
        with _told(self._endpoints, self._project):
            self._there(lambda: self._client.get_dataset(self.dataset, **_AT_ONCE), f"dataset {self.dataset}")
            for table in tables:
                for name in (table.name, f"{table.name}_latest"):
                    path = f"{self.dataset}.{name}"
                    self._there(lambda: self._client.get_table(path, **_AT_ONCE), f"table {path}")

    def kept_days(self, table: Table) -> int | None:
        """How many days a table's rows are kept; None: for ever."""
        with _told(self._endpoints, self._project):
            parts = self._client.get_table(f"{self.dataset}.{table.name}", **_PATIENCE).time_partitioning
        return None if parts is None or not parts.expiration_ms else int(parts.expiration_ms) // _DAY

    def _there(self, ask, what: str) -> None:
        try:
            ask()
        except NotFound as error:
            if _NO_PROJECT.search(str(error.message)):
                raise
            raise BigQueryError(f"BigQuery: {what} is not there; run `measurement provision`") from error

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def append(endpoints: Endpoints, dataset: str, table: Table, changes: Callable[[list[dict]], list[dict]]) -> None:
    """Appends what ``changes`` makes of a table's latest rows to ``dataset`` (project.dataset), by a load job: all of it or nothing.
    BigQueryError where the service refuses it or the table is not there."""
    with Reader(endpoints, dataset) as reader:
        reader.check([table])
        names = ", ".join(c.name for c in table.columns)
        rows = changes(reader.query(f"SELECT {names} FROM `{dataset}.{table.name}_latest`").to_pylist())
    if not rows:
        return
    project = dataset.rpartition(".")[0]
    schema = [bigquery.SchemaField(c.name, bigquery_type(c), "REQUIRED" if c.required else "NULLABLE") for c in table.columns]
    config = bigquery.LoadJobConfig(schema=schema, write_disposition=bigquery.WriteDisposition.WRITE_APPEND)
    plain = [{k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]
    with turn(endpoints), _client(endpoints, project) as client, _told(endpoints, project):
        begun = client.load_table_from_json(plain, f"{dataset}.{table.name}", job_config=config, timeout=_SECONDS)
        # Asked for again: the emulator's first answer does not say that the job is done.
        client.get_job(begun.job_id, location=begun.location, **_PATIENCE).result(timeout=_QUERY_SECONDS)


def _client(endpoints: Endpoints, project: str) -> bigquery.Client:
    """``bigquery.Client`` closes itself as a context manager. BigQueryError where there are no credentials."""
    if endpoints.bigquery:
        options = {"api_endpoint": f"http://{endpoints.bigquery}"}
        return bigquery.Client(project=project, client_options=options, credentials=AnonymousCredentials())
    try:
        return bigquery.Client(project=project)
    except GoogleAuthError as error:
        raise BigQueryError(f"BigQuery: no credentials: {_one_line(error)}") from error


@contextmanager
def _told(endpoints: Endpoints, project: str) -> Iterator[None]:
    """The client's errors as a BigQueryError."""
    where = f"BigQuery emulator at {endpoints.bigquery}" if endpoints.bigquery else "BigQuery"
    try:
        yield
    except (requests.RequestException, RetryError) as error:
        raise BigQueryError(f"{where}: not reachable: {_one_line(error)}") from error
    except GoogleAuthError as error:
        raise BigQueryError(f"{where}: no credentials: {_one_line(error)}") from error
    except GoogleAPICallError as error:
        if _NO_PROJECT.search(str(error.message)):
            raise BigQueryError(f"{where}: no project {project} there: {_one_line(error)}") from error
        if isinstance(error, Forbidden | Unauthorized):
            raise BigQueryError(f"{where}: permission denied: {_one_line(error)}") from error
        raise BigQueryError(f"{where}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", error)).split())
