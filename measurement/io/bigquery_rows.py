"""A public table's rows as protobuf messages, which is how BigQuery's Storage Write API takes them. Imports no Beam.

The message has a field a column, of the column's name; a NULL is a field that is not set. The class is made from the
columns at run time and is protobuf's C implementation: a row costs some five microseconds.
"""

from collections.abc import Iterator
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from measurement.model.tables import BYTES, INT64, NUMERIC, STRING, TIMESTAMP, TABLES

_FIELD = descriptor_pb2.FieldDescriptorProto
# Times as int64 are µs since 1970; NUMERIC goes as text, which keeps every digit.
_KINDS = {STRING: _FIELD.TYPE_STRING, TIMESTAMP: _FIELD.TYPE_INT64, INT64: _FIELD.TYPE_INT64, BYTES: _FIELD.TYPE_BYTES,
          NUMERIC: _FIELD.TYPE_STRING}
# What a request may hold. The service takes 10 MB, its emulator 4 MiB with what is around the rows, and a row alone may be
# larger than a part.
PART_BYTES, ROW_BYTES = 3_000_000, 9_000_000
PAYLOAD_BYTES = 2_000_000  # of a reject; a message may have 10 MB, and a row that no request takes would stop the job for good


@cache
def message(name: str):
    """The message class of a table's rows; its DESCRIPTOR is what BigQuery is told."""
    table = TABLES[name]
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto")
    fields = file.message_type.add(name=name).field
    for number, column in enumerate(table.columns, 1):
        label = _FIELD.LABEL_REQUIRED if column.required else _FIELD.LABEL_OPTIONAL
        fields.add(name=column.name, number=number, type=_KINDS[column.type], label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def descriptor(name: str) -> descriptor_pb2.DescriptorProto:
    told = descriptor_pb2.DescriptorProto()
    message(name).DESCRIPTOR.CopyToProto(told)
    return told


def serialized(name: str, rows: pa.Table) -> list[bytes]:
    """A table's rows, each one message. ``rows`` has the table's columns, in any order."""
    row, names = message(name), [c.name for c in TABLES[name].columns]
    columns = [_plain(rows[n]) for n in names]
    return [row(**dict(zip(names, values))).SerializeToString() for values in zip(*columns)]


def cut_payloads(rejects: pa.Table) -> pa.Table:
    """Rows of ``rejects`` whose payload a request takes: a longer one is cut, and the detail says so."""
    lengths = pc.binary_length(rejects["payload"])
    if not (longest := pc.max(lengths).as_py()) or longest <= PAYLOAD_BYTES:
        return rejects
    said = [detail if n <= PAYLOAD_BYTES else f"{detail}; payload cut from {n:,} bytes, whole in the archive"
            for detail, n in zip(rejects["detail"].to_pylist(), lengths.to_pylist())]
    payloads = pa.array([p[:PAYLOAD_BYTES] for p in rejects["payload"].to_pylist()], pa.binary())
    at = rejects.schema.get_field_index
    return rejects.set_column(at("payload"), rejects.schema.field("payload"), payloads).set_column(
        at("detail"), rejects.schema.field("detail"), pa.array(said, pa.string()))


def parts(rows: list[bytes]) -> Iterator[list[bytes]]:
    """The rows cut into what one request may hold. ValueError for a row that no request may hold."""
    part, size = [], 0
    for row in rows:
        if len(row) > ROW_BYTES:
            raise ValueError(f"a row of {len(row):,} bytes; a request takes {ROW_BYTES:,}")
        if part and size + len(row) > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row) + 4  # and its length before it
    if part:
        yield part


def _plain(column: pa.ChunkedArray) -> list:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_decimal(column.type):  # Arrow's own text of a small one has an exponent
        return [None if value is None else f"{value:f}" for value in column.to_pylist()]
    return column.to_pylist()
