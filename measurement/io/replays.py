"""Rejects as input again: a file of their payloads as they were received, read behind all other files.

The file is a Parquet table of the columns payload, encoding and schema_id, with each writer's schema in its metadata.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from measurement.columnar.batch import AVRO, ENCODINGS, JSON
from measurement.columnar.decode import Decoded, decode_datums, decode_lines
from measurement.io.framing import READER_SCHEMA, WriterSchema

SUFFIX = ".replay.parquet"
_SCHEMAS = b"writer_schemas"


@dataclass
class Replayed:
    """Consecutive rejects of one encoding and writer's schema."""

    encoding: int
    schema: WriterSchema | None
    pieces: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return len(self.pieces)

    events = messages

    @property
    def bytes(self) -> int:
        return sum(map(len, self.pieces))

    def decoded(self) -> Decoded:
        if self.encoding == JSON:
            return decode_lines(self.pieces)
        return decode_datums(self.pieces, self.schema.parsed, self.schema.program)


def write(path: Path, rejects: pa.Table, schemas: dict[str, str]) -> None:
    """Writes a replay file whole: ``rejects`` has payload, encoding and schema_id, ``schemas`` the schemas' texts by id."""
    half = path.with_name(f".{path.name}")
    pq.write_table(rejects.replace_schema_metadata({_SCHEMAS: orjson.dumps(schemas)}), half)
    half.rename(path)


def frames(path: Path, events: int, start: int = 0) -> Iterator[tuple[Replayed, int]]:
    """(frame, rejects read by then) of at most ``events`` each, from reject number ``start`` on."""
    table = pq.read_table(path)
    schemas = {k: WriterSchema.parse(v) for k, v in orjson.loads(table.schema.metadata[_SCHEMAS]).items()}
    frame, of = None, None
    for i in range(start, table.num_rows):
        encoding, schema_id = table["encoding"][i].as_py(), table["schema_id"][i].as_py()
        if frame is not None and ((encoding, schema_id) != of or frame.messages >= events):
            yield frame, i
            frame = None
        if frame is None:
            of = encoding, schema_id
            schema = schemas.get(schema_id, READER_SCHEMA) if encoding == ENCODINGS[AVRO] else None
            frame = Replayed(ENCODINGS.index(encoding), schema)
        frame.pieces.append(table["payload"][i].as_py())
        frame.positions.append(i)
    if frame is not None:
        yield frame, table.num_rows
