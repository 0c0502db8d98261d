"""Revisions written to Bigtable: whole rows at a timestamp made from the revision, so that any replay ends the same.

Every row's own status is looked at, since a request can succeed for some rows and fail for others. What failed is sent
again, alone, until its time is up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigtable_v2.types import MutateRowsRequest, MutateRowsResponse
from grpc import StatusCode

from measurement.io import bigtable_keys as keys
from measurement.io.bigtable_service import FAMILY, MICROS_A_REVISION, QUALIFIER, SERVED, Service, elements, pack
from measurement.io.endpoints import Endpoints
from measurement.io.publication import ipc
from measurement.io.readable import Readable
from measurement.io.retry import RETRYABLE, Backoff, Patience, SinkError, said
from measurement.model.tables import LATENCY, Table

# Bigtable takes 100,000 mutations a request; less, so that what one failure sends again stays small.
_REQUEST_MUTATIONS = 10_000
_REQUEST_BYTES = 4 << 20
_STATUS = {code.value[0]: code for code in StatusCode}
_Request = MutateRowsRequest.pb()

# Sends a request (a protobuf message) with a timeout in seconds; its answers as protobuf messages.
Send = Callable[[object, float], Iterator]


class Mutation(NamedTuple):
    """One row's one cell. ``timestamp`` in µs."""

    key: bytes
    value: bytes
    timestamp: int


@dataclass(frozen=True)
class Written:
    """``retries``: mutations sent again; a row has two."""

    rows: int
    retries: int


class BigtableWriter:
    """Writes rows of the served tables. One connection, for one thread."""

    def __init__(self, endpoints: Endpoints, instance: str, patience: Patience | None = None, send: Send | None = None):
        """``send`` replaces the service's mutate_rows, for tests."""
        self._service = Service(endpoints, instance)
        self._patience = patience or Patience()
        self._send = send or sender(self._service)

    def write(self, name: str, rows: pa.Table) -> Written:
        """Returns when every row is stored. SinkError when the time is up, or at once where trying again is of no use."""
        if not rows.num_rows:  # before Arrow is asked about columns of no chunks, which some of its functions do not survive
            return Written(0, 0)
        retries, path = 0, self._service.table(name)
        for part in batches(mutations(SERVED[name], rows)):
            retries += self._store(path, part)
        return Written(rows.num_rows, retries)

    def _store(self, path: str, waiting: list[Mutation]) -> int:
        backoff, retries = Backoff(f"Bigtable {path}", self._patience), 0
        while True:
            waiting, why = self._attempt(path, waiting, backoff.timeout())
            if not waiting:
                return retries
            backoff.again(why)
            retries += len(waiting)

    def _attempt(self, path: str, waiting: list[Mutation], timeout: float) -> tuple[list[Mutation], str]:
        """Those that failed and may do better, and of what; all that have no answer are among them."""
        failed, why = dict(enumerate(waiting)), "the answer ended early"
        try:
            for answer in self._send(request_of(path, waiting), timeout):
                for entry in answer.entries:
                    status = _STATUS.get(entry.status.code, StatusCode.UNKNOWN)
                    if status == StatusCode.OK:
                        failed.pop(entry.index, None)
                        continue
                    why = f"{status.name}: {' '.join(entry.status.message.split())}"
                    if status not in RETRYABLE:
                        raise SinkError(f"Bigtable {path}: row {waiting[entry.index].key[:80]!r}: {why}")
        except GoogleAPICallError as error:
            why = said(error)
            if error.grpc_status_code not in RETRYABLE:
                hint = "; run `measurement provision`" if error.grpc_status_code == StatusCode.NOT_FOUND else ""
                raise SinkError(f"Bigtable {path}: {why}{hint}") from error
        return list(failed.values()), why

    def close(self) -> None:
        self._service.close()


class WriteBigtable(beam.DoFn):
    """(table's name, Arrow stream) elements, of which those of served tables are stored. Out come such elements too: rows of
    ``latency``, of what is stored.

    ``send`` replaces the service's mutate_rows, for tests.
    """

    def __init__(self, endpoints: Endpoints, instance: str, send: Send | None = None):
        self._endpoints, self._instance, self._send = endpoints, instance, send
        self._latency = Readable("bigtable")
        self._rows, self._retries = Metrics.counter("bigtable", "rows"), Metrics.counter("bigtable", "retries")
        self._writer: BigtableWriter | None = None

    def setup(self):
        self._writer = BigtableWriter(self._endpoints, self._instance, send=self._send)

    def process(self, element):
        name, stream = element
        if name not in SERVED:
            return
        rows = pa.ipc.open_stream(stream).read_all()
        written = self._writer.write(name, rows)
        self._rows.inc(written.rows)
        self._retries.inc(written.retries)
        if (latency := self._latency.rows([rows])) is not None:
            yield LATENCY.name, ipc(latency)

    def teardown(self):
        if self._writer:
            self._writer.close()


def sender(service: Service) -> Send:
    """The service's own mutate_rows, tried once. GoogleAPICallError where a request or the stream of answers fails."""
    def send(request, timeout: float) -> Iterator:
        answers = service.data.mutate_rows(request=MutateRowsRequest.wrap(request), timeout=timeout, retry=None)
        return map(MutateRowsResponse.pb, answers)

    return send


def mutations(table: Table, rows: pa.Table) -> list[Mutation]:
    """Two a row, one for each of its keys. ``rows`` has the table's columns."""
    hours = rows["window_start"].cast(pa.int64()).combine_chunks().dictionary_encode()
    packed_hours = [keys.hour(micros) for micros in hours.dictionary.to_pylist()]
    advertiser, campaign, *rest = (elements(rows[c.name], cut=True) for c in table.texts)
    rest = list(map(b"".join, zip(*rest, strict=True)))
    values = pack(table, rows, _cut(table, rows))
    times = [number * MICROS_A_REVISION for number in rows["revision"].to_pylist()]
    made = []
    for i, code in enumerate(hours.indices.to_pylist()):
        for order in (keys.by_hour, keys.by_campaign):
            made.append(Mutation(order(advertiser[i], packed_hours[code], campaign[i], rest[i]), values[i], times[i]))
    return made


def _cut(table: Table, rows: pa.Table) -> dict[int, bytes]:
    """By row with a text that its keys cannot take: all key texts in full."""
    columns = [rows[c.name] for c in table.texts]
    long = (pc.indices_nonzero(pc.greater(pc.binary_length(column), keys.LONGEST)) for column in columns)
    cut = {i for indices in long for i in indices.to_pylist()}
    return {i: b"".join(keys.text(column[i].as_py(), cut=False) for column in columns) for i in cut}


def batches(all_: list[Mutation]) -> Iterator[list[Mutation]]:
    """As many at a time as make a sensible request."""
    part, size = [], 0
    for one in all_:
        weight = len(one.key) + len(one.value) + 40
        if part and (len(part) == _REQUEST_MUTATIONS or size + weight > _REQUEST_BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += weight
    if part:
        yield part


def request_of(path: str, some: list[Mutation]):
    """A protobuf message: the wrapped kind is several times as slow to fill."""
    request = _Request(table_name=path)
    add = request.entries.add
    for one in some:
        entry = add(row_key=one.key)
        cell = entry.mutations.add().set_cell
        cell.family_name, cell.column_qualifier, cell.value, cell.timestamp_micros = FAMILY, QUALIFIER, one.value, one.timestamp
    return request
