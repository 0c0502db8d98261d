"""Revisions appended to BigQuery through the Storage Write API, which needs no Java and no insert ids.

A process has one committed stream a table: rows are there for queries when their append is answered. Where the answer is
lost they are appended again, which changes nothing: the views read one row of each revision.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import apache_beam as beam
import grpc
import pyarrow as pa
from apache_beam.metrics import Metrics
from google.api_core.exceptions import GoogleAPICallError, ServiceUnavailable, from_grpc_error, from_grpc_status
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, AppendRowsResponse, StorageError, WriteStream
from grpc import StatusCode

from measurement.io.bigquery_rows import PART_BYTES, cut_payloads, descriptor, parts, serialized
from measurement.io.endpoints import Endpoints
from measurement.io.readable import Readable
from measurement.io.retry import RETRYABLE, Backoff, Patience, SinkError, said
from measurement.io.turns import turn
from measurement.model.tables import LATENCY

_Request, _Response, _StorageError = AppendRowsRequest.pb(), AppendRowsResponse.pb(), StorageError.pb()
_STATUS = {code.value[0]: code for code in StatusCode}
# An append's answers that mean its stream and not its rows; UNKNOWN is the emulator's. A new stream is made then, and if it
# is the table that is gone, making one says so.
_STREAM_GONE = frozenset({StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION, StatusCode.UNKNOWN})
_STREAM_ERRORS = frozenset({_StorageError.STREAM_NOT_FOUND, _StorageError.STREAM_FINALIZED, _StorageError.INVALID_STREAM_STATE,
                            _StorageError.STREAM_ALREADY_COMMITTED})
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 5_000)]


class Connection(Protocol):
    """An open AppendRows call: requests in, an answer for each in their order."""

    def send(self, request) -> None: ...

    def receive(self, timeout: float):
        """The next answer; GoogleAPICallError where the call failed, ended, or did not answer in ``timeout`` seconds."""

    def close(self) -> None: ...


class WriteService:
    """The two calls that the sink needs of BigQuery, or of its emulator."""

    def __init__(self, endpoints: Endpoints):
        self._channel = None
        if endpoints.bigquery_storage:
            self._channel = grpc.insecure_channel(endpoints.bigquery_storage, _CHANNEL)
            self._client = BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=self._channel))
        else:
            try:
                self._client = BigQueryWriteClient()
            except GoogleAuthError as error:
                raise SinkError(f"BigQuery: no credentials: {' '.join(str(error).split())}") from error

    def create(self, table: str, timeout: float) -> str:
        """A new committed stream's name; ``table`` is projects/P/datasets/D/tables/T."""
        stream = WriteStream(type_=WriteStream.Type.COMMITTED)
        return self._client.create_write_stream(parent=table, write_stream=stream, timeout=timeout, retry=None).name

    def connect(self, stream: str) -> Connection:
        return _Call(self._client.transport.append_rows, stream)

    def close(self) -> None:
        self._client.transport.close()
        if self._channel:
            self._channel.close()


class _Call:
    def __init__(self, append_rows: Callable, stream: str):
        self._requests: SimpleQueue = SimpleQueue()
        self._call = append_rows(iter(self._requests.get, None), metadata=(("x-goog-request-params", f"write_stream={stream}"),))

    def send(self, request) -> None:
        self._requests.put(AppendRowsRequest.wrap(request))

    def receive(self, timeout: float):
        late = threading.Timer(timeout, self._call.cancel)  # a call has one deadline, and this one is to last for days
        late.daemon = True
        late.start()
        try:
            return AppendRowsResponse.pb(next(self._call))
        except StopIteration:
            raise ServiceUnavailable("the service ended the connection") from None
        except grpc.RpcError as error:
            raise from_grpc_error(error) from error
        finally:
            late.cancel()

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()


@dataclass(frozen=True)
class Appended:
    """``bytes``: of the rows as protobuf messages. ``retries``: attempts after the first."""

    rows: int
    bytes: int
    retries: int


class Appender:
    """Appends rows of the public tables to ``dataset`` (project.dataset). Connects at the first append; for one thread."""

    def __init__(self, endpoints: Endpoints, dataset: str, patience: Patience | None = None, service=None):
        """``service`` replaces WriteService, for tests."""
        self._service, self._endpoints = service or WriteService(endpoints), endpoints
        self._dataset, self._patience = dataset, patience or Patience()
        self._streams: dict[str, _Stream] = {}

    def append(self, name: str, rows: pa.Table) -> Appended:
        """Returns when all rows are stored. SinkError when the time is up, or at once where trying again is of no use."""
        if not rows.num_rows:
            return Appended(0, 0, 0)
        what, messages, retries = f"BigQuery {self._dataset}.{name}", serialized(name, rows), 0
        stream = self._streams.setdefault(name, _Stream(self._service, self._dataset, name))
        try:
            waiting = deque(parts(messages))
        except ValueError as error:
            raise SinkError(f"{what}: {error}") from None
        backoff = Backoff(what, self._patience)
        while True:
            try:
                with turn(self._endpoints):  # given up between attempts: a query must not wait for a service that is away
                    stream.append(waiting, backoff)
                return Appended(len(messages), sum(map(len, messages)), retries)
            except _Again as failure:
                retries += 1
                backoff.again(str(failure))
            except GoogleAPICallError as error:
                hint = "; run `measurement provision`" if _missing(error) else ""
                raise SinkError(f"{what}: {said(error)}{hint}") from error

    def close(self) -> None:
        for stream in self._streams.values():
            stream.disconnect()
        self._service.close()


class _Again(Exception):
    """The same rows may do better a little later; the message says what went wrong."""


class _Stream:
    """A table's stream, made when it is needed, and the connection to it."""

    def __init__(self, service, dataset: str, table: str):
        project, _, dataset = dataset.rpartition(".")
        self._service, self._path, self._table = service, f"projects/{project}/datasets/{dataset}/tables/{table}", table
        self._name: str | None = None
        self._connection: Connection | None = None

    def append(self, waiting: deque[list[bytes]], backoff: Backoff) -> None:
        """Sends what is waiting, all requests before the first answer; what is answered waits no longer."""
        try:
            if self._name is None:
                self._name = self._service.create(self._path, backoff.timeout())
        except GoogleAPICallError as error:
            if error.grpc_status_code in RETRYABLE:
                raise _Again(said(error)) from error
            raise
        try:
            first = self._connection is None
            if first:
                self._connection = self._service.connect(self._name)
            for rows in waiting:
                self._connection.send(self._request(rows, first))
                first = False
            while waiting:
                _check(self._connection.receive(backoff.timeout()))
                waiting.popleft()
        except GoogleAPICallError as error:
            self.disconnect()
            if error.grpc_status_code == StatusCode.UNAVAILABLE or _stream_gone(error):
                self._name = None  # who comes back may not know it
            elif error.grpc_status_code not in RETRYABLE:
                raise
            raise _Again(said(error)) from error

    def _request(self, rows: list[bytes], first: bool):
        # A connection's first request says for all which stream and what the rows look like, to the service; its emulator
        # would put what names no stream into any.
        request = _Request(write_stream=self._name)
        if first:
            request.proto_rows.writer_schema.proto_descriptor.CopyFrom(descriptor(self._table))
        request.proto_rows.rows.serialized_rows.extend(rows)
        return request

    def disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _check(answer) -> None:
    """GoogleAPICallError where the rows were not stored; BigQuery stores all of a request's rows or none."""
    if answer.row_errors:
        row = answer.row_errors[0]
        told = f"{len(answer.row_errors)} rows refused, row {row.index}: {row.message}"
        raise from_grpc_status(StatusCode.INVALID_ARGUMENT, told)
    if answer.error.code:
        code = _STATUS.get(answer.error.code, StatusCode.UNKNOWN)
        raise from_grpc_status(code, answer.error.message, details=list(answer.error.details))


def _stream_gone(error: GoogleAPICallError) -> bool:
    return error.grpc_status_code in _STREAM_GONE or any(code in _STREAM_ERRORS for code in _storage_errors(error))


def _storage_errors(error: GoogleAPICallError):
    for detail in error.details:
        storage = _StorageError()
        if hasattr(detail, "Unpack") and detail.Unpack(storage):
            yield storage.code


def _missing(error: GoogleAPICallError) -> bool:
    # The emulator says UNKNOWN, and its message.
    return error.grpc_status_code == StatusCode.NOT_FOUND or "is not found" in str(error.message)


class WriteBigQuery(beam.DoFn):
    """(table's name, Arrow stream) elements. A bundle's rows are appended together: an append takes a round trip. The latency of
    the events that they count goes behind them, when they can be read.

    ``service`` replaces WriteService, for tests.
    """

    def __init__(self, endpoints: Endpoints, dataset: str, service=None):
        self._endpoints, self._dataset, self._service = endpoints, dataset, service
        self._latency = Readable("bigquery")
        self._rows, self._bytes = Metrics.counter("bigquery", "rows"), Metrics.counter("bigquery", "bytes")
        self._retries = Metrics.counter("bigquery", "retries")
        self._appender: Appender | None = None

    def setup(self):
        self._appender = Appender(self._endpoints, self._dataset, service=self._service)

    def start_bundle(self):
        self._held: dict[str, list[pa.Table]] = {}
        self._size = 0

    def process(self, element):
        name, stream = element
        rows = pa.ipc.open_stream(stream).read_all()
        self._held.setdefault(name, []).append(cut_payloads(rows) if name == "rejects" else rows)
        self._size += len(stream)
        if self._size >= PART_BYTES:
            self._append()

    def finish_bundle(self):
        self._append()

    def _append(self):
        measured = []
        for name, tables in self._held.items():
            self._store(name, tables)
            if (latency := self._latency.rows(tables)) is not None:
                measured.append(latency)
        if measured:
            self._store(LATENCY.name, measured)
        self.start_bundle()

    def _store(self, name: str, tables: list[pa.Table]) -> None:
        appended = self._appender.append(name, pa.concat_tables(tables))
        self._rows.inc(appended.rows)
        self._bytes.inc(appended.bytes)
        self._retries.inc(appended.retries)

    def teardown(self):
        if self._appender:
            self._appender.close()
