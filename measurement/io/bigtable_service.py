"""One connection to Bigtable, or to its emulator; what of the public tables it serves, and how a row's value is laid out.

A row of a revision is one cell, packed, and not a cell a column: a reader can never see columns of two revisions, whatever
is NULL in one of them or was added later; and a cell a column would carry key, family, name and timestamp seventeen times.

The cell's timestamp is the revision in milliseconds, which is Bigtable's granularity: revision * 1000 µs. Revisions are
below 2^53 and 2^53 * 1000 = 9.007e18 < 2^63 - 1 = 9.223e18, so every one has a timestamp of its own. The highest is the
latest version in whatever order they were written, and all others may go: by their number, never by age.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from google.api_core import grpc_helpers
from google.api_core.gapic_v1 import routing_header
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigtable_admin_v2 import BaseBigtableTableAdminClient
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from google.cloud.bigtable_v2.types import ReadRowsRequest
from grpc import experimental, insecure_channel

from measurement.columnar.numeric import of_units, to_units
from measurement.io import bigtable_keys as keys
from measurement.io.endpoints import Endpoints
from measurement.io.retry import SinkError
from measurement.model.tables import ATTRIBUTION, DELIVERY, INT64, NUMERIC, STRING, TIMESTAMP, Column, Table

SERVED = {t.name: t for t in (DELIVERY, ATTRIBUTION)}
FAMILY, QUALIFIER = "r", b"v"
MICROS_A_REVISION = 1000
_ReadRequest = ReadRowsRequest.pb()
LAYOUT = 1  # the value's first byte
_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 5_000),
            # A stream of answers is taken by the thread that asked and not handed over by another: a fifth of the processor's
            # time where each row is an answer of its own, as the emulator has it.
            (experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]


class Service:
    """``instance``: projects/P/instances/I. Use as a context manager, or close it."""

    def __init__(self, endpoints: Endpoints, instance: str):
        self.instance = instance
        self.where = endpoints.bigtable or "bigtable.googleapis.com"
        self._emulator = endpoints.bigtable
        self._channels = []
        self._admin: BaseBigtableTableAdminClient | None = None
        channel = self._channel(BigtableGrpcTransport)
        self.data = BigtableClient(transport=BigtableGrpcTransport(channel=channel))
        self._read_rows = grpc_helpers.wrap_errors(channel.unary_stream(
            "/google.bigtable.v2.Bigtable/ReadRows", request_serializer=_ReadRequest.SerializeToString))

    def read_rows(self, table: str, timeout: float, **request) -> Iterator[bytes]:
        """ReadRows with each answer as the bytes that came, since many of a short row each are cheaper taken apart together.
        ``request``: its fields but the table. GoogleAPICallError where it fails."""
        message = _ReadRequest(table_name=self.table(table), **request)
        routed = routing_header.to_grpc_metadata((("table_name", message.table_name),))
        return self._read_rows(message, timeout=timeout, metadata=(routed,))

    @property
    def admin(self) -> BaseBigtableTableAdminClient:
        if self._admin is None:
            channel = self._channel(BigtableTableAdminGrpcTransport)
            self._admin = BaseBigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))
        return self._admin

    def _channel(self, transport):
        if self._emulator:
            channel = insecure_channel(self._emulator, _CHANNEL)
        else:
            try:
                channel = grpc_helpers.create_channel(
                    f"{transport.DEFAULT_HOST}:443", default_scopes=transport.AUTH_SCOPES, options=_CHANNEL)
            except GoogleAuthError as error:
                raise SinkError(f"Bigtable: no credentials: {' '.join(str(error).split())}") from error
        self._channels.append(channel)
        return channel

    def table(self, name: str) -> str:
        return f"{self.instance}/tables/{name}"

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def numbers(table: Table) -> list[Column]:
    """The columns that a value holds as int64 (counts, times in µs, NUMERIC in units of 10^-9)."""
    return [c for c in _values(table) if c.type in (INT64, TIMESTAMP, NUMERIC)]


def _int64(column: Column, values: pa.ChunkedArray) -> np.ndarray:
    return to_units(values) if column.type == NUMERIC else values.cast(pa.int64()).to_numpy()


def of_int64(column: Column, numbers: np.ndarray) -> pa.Array:
    """The column of what ``pack`` made int64 of; times are still µs."""
    return of_units(numbers) if column.type == NUMERIC else pa.array(numbers)


def words(table: Table) -> list[Column]:
    """The columns that a value holds as texts."""
    return [c for c in _values(table) if c.type == STRING]


def _values(table: Table) -> tuple[Column, ...]:
    return tuple(c for c in table.columns[len(table.key) :] if c.name != "revision")


def elements(column: pa.ChunkedArray, cut: bool) -> list[bytes]:
    """Each text as an element of a key (``cut``) or of a value; each distinct text is made once."""
    coded = column.combine_chunks().dictionary_encode()
    made = [keys.text(text, cut) for text in coded.dictionary.to_pylist()] + [keys.text(None)]
    return [made[code] for code in coded.indices.fill_null(len(made) - 1).to_numpy()]


def pack(table: Table, rows: pa.Table, cut: dict[int, bytes]) -> list[bytes]:
    """A value a row: layout, numbers as int64 big-endian, then texts; where key texts were ``cut``, those of that row."""
    head = np.empty((rows.num_rows, 1 + 8 * len(numbers(table))), np.uint8)
    head[:, 0] = LAYOUT
    for at, column in enumerate(numbers(table)):
        values = _int64(column, rows[column.name])
        head[:, 1 + 8 * at : 9 + 8 * at] = values.astype(">i8").view(np.uint8).reshape(-1, 8)
    packed, width = head.tobytes(), head.shape[1]
    texts = zip(*(elements(rows[c.name], cut=False) for c in words(table)), strict=True) if words(table) else [()] * rows.num_rows
    values = [packed[i * width : (i + 1) * width] + b"".join(t) for i, t in enumerate(texts)]
    for i, full in cut.items():
        values[i] += full
    return values


def unpack(table: Table, values: list[bytes]) -> tuple[np.ndarray, list[list[str | None]]]:
    """(rows, numbers) int64, and each row's texts: the values', then the key's in full where they were cut."""
    width = 1 + 8 * len(numbers(table))
    for value in values:
        if value[0] != LAYOUT:
            raise SinkError(f"Bigtable {table.name}: a value of layout {value[0]}, which this version cannot read")
    heads = np.frombuffer(bytearray().join(value[:width] for value in values), np.uint8).reshape(len(values), width)[:, 1:]
    return np.ascontiguousarray(heads).view(">i8").astype(np.int64), [keys.texts(value[width:]) for value in values]
