"""Input files as frames: whole datums or lines with where they stood, counted at the source's edge.

Nothing is decoded to count it. What is counted as received (table ``intake``) comes from the container's own block
headers and from line ends, so that ``reconcile`` compares this count with what the decoder and the state machines say
became of each event.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fastavro
import orjson

from measurement.columnar.avro import Program
from measurement.columnar.batch import AVRO, JSON
from measurement.columnar.decode import Decoded, decode_blocks, decode_lines
from measurement.model.events import SCHEMA

SUFFIXES = (".avro", ".jsonl", ".avro.gz", ".jsonl.gz")


class UnreadableInput(ValueError):
    """A file that cannot be taken as input; the message is one line that names it."""


@dataclass
class Frame:
    """Consecutive pieces of one file, undecoded: Avro blocks (decompressed) or JSON lines."""

    encoding: int  # AVRO or JSON
    pieces: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # offset of each piece in the (uncompressed) file
    counts: list[int] = field(default_factory=list)  # events in each piece, as its header says
    schema: "WriterSchema | None" = None

    @property
    def messages(self) -> int:
        return len(self.pieces)

    @property
    def events(self) -> int:
        return sum(self.counts)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.pieces))

    def decoded(self) -> Decoded:
        if self.encoding == JSON:
            return decode_lines(self.pieces)
        return decode_blocks(self.pieces, self.counts, self.schema.parsed, self.schema.program)


@dataclass(frozen=True)
class WriterSchema:
    """A writer's schema: its text, its fingerprint (CRC-64-AVRO, hexadecimal) and the fast program if there is one."""

    text: str
    id: str
    parsed: dict
    program: Program | None

    @classmethod
    def parse(cls, text: str) -> "WriterSchema":
        """ValueError if fastavro does not take it for a schema."""
        try:
            schema = orjson.loads(text)
            canonical = fastavro.schema.to_parsing_canonical_form(schema)
            fastavro.parse_schema(schema)
            if _recurs(schema):  # fastavro follows nesting on the process's stack, which hostile bytes can exhaust
                raise ValueError("a type that contains itself is not read")
            program = Program.for_schema(schema)
        except (orjson.JSONDecodeError, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, KeyError,
                TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not an Avro schema: {error}") from error
        return cls(text, fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"), schema, program)


def _recurs(schema, inside: frozenset[str] = frozenset()) -> bool:
    """Whether a named type contains itself; names are compared without their namespaces."""
    if isinstance(schema, str):
        return schema.rpartition(".")[2] in inside
    if isinstance(schema, list):
        return any(_recurs(part, inside) for part in schema)
    if isinstance(schema.get("name"), str) and schema.get("type") in ("record", "error"):
        inside = inside | {schema["name"].rpartition(".")[2]}
        return any(_recurs(field["type"], inside) for field in schema["fields"])
    return any(_recurs(schema[key], inside) for key in ("type", "items", "values") if key in schema)


READER_SCHEMA = WriterSchema.parse(orjson.dumps(SCHEMA).decode())


def open_binary(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def frames(path: Path, events: int, first: int, start: int = 0) -> Iterator[tuple[Frame, int]]:
    """(frame, offset behind it) through the file, each of about ``events`` events, the first one of about ``first``.

    ``start`` is an offset that an earlier call gave. UnreadableInput if the file is truncated or no container.
    """
    read = _avro_pieces if path.name.removesuffix(".gz").endswith(".avro") else _json_pieces
    try:
        with open_binary(path) as file:
            frame, held, want = None, 0, first
            for encoding, schema, piece, position, count, behind in read(file, path, start):
                if frame is None:
                    frame = Frame(encoding, schema=schema)
                frame.pieces.append(piece)
                frame.positions.append(position)
                frame.counts.append(count)
                held += count
                if held >= want:
                    yield frame, behind
                    frame, held, want = None, 0, events
            if frame is not None:
                yield frame, behind
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableInput(f"{path}: truncated or damaged: {error}") from error
    except OSError as error:
        raise UnreadableInput(f"{path}: {error.strerror or error}") from error


def verify(path: Path) -> WriterSchema | None:
    """Reads a file's frame from end to end, not its events; the writer's schema of an Avro container.

    UnreadableInput if it is unreadable, truncated or no container.
    """
    if not path.name.endswith(SUFFIXES):
        raise UnreadableInput(f"{path}: not an input file; names end in {', '.join(SUFFIXES)}")
    schema = None
    for frame, _ in frames(path, 1 << 16, 1):
        schema = frame.schema
        if path.name.endswith(".jsonl"):
            break  # lines have no frame that could be cut
    return schema


def _json_pieces(file, path, start):
    file.seek(start)
    position = start
    while lines := file.readlines(1 << 20):
        for line in lines:
            text = line.strip()
            behind = position + len(line)
            if text:  # a blank line is no event
                yield JSON, None, text, position, 1, behind
            position = behind


def container_pieces(file: io.BufferedIOBase, name: str) -> tuple[str, list[tuple[bytes, int]]]:
    """The writer's schema (text) of a whole Avro object container and its blocks, decompressed, each with its events.

    UnreadableInput or EOFError where it is damaged anywhere: nothing is taken of half a container.
    """
    header, codec, sync = _avro_header(file, name)
    return header.metadata["avro.schema"], [(piece, count) for piece, _, count, _ in _blocks(file, name, codec, sync)]


def _avro_header(file, path):
    try:
        header = fastavro.reader(file)
    except EOFError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, StopIteration, fastavro.schema.SchemaParseException,
            fastavro.schema.UnknownType, MemoryError, OverflowError) as error:
        raise UnreadableInput(f"{path}: not an Avro object container: {error}") from error
    return header, header.metadata.get("avro.codec", "null"), _sync_marker(file, path)


def _avro_pieces(file, path, start):
    header, codec, sync = _avro_header(file, path)
    try:
        schema = WriterSchema.parse(header.metadata["avro.schema"])
    except ValueError as error:
        raise UnreadableInput(f"{path}: {error}") from error
    file.seek(max(start, file.tell()))
    for piece, position, count, behind in _blocks(file, path, codec, sync):
        yield AVRO, schema, piece, position, count, behind


def _blocks(file, path, codec: str, sync: bytes):
    """(bytes, offset, events, offset behind it) of each block from where the file stands."""
    position = file.tell()
    while True:
        count = _long(file, path, optional=True)
        if count is None:
            return
        size = _long(file, path)
        if count < 0 or size < 0:
            raise UnreadableInput(f"{path}: damaged: the block at byte {position} claims {count} events in {size} bytes")
        data = file.read(size)
        marker = file.read(16)
        if len(data) < size or len(marker) < 16:
            raise UnreadableInput(f"{path}: truncated: the block at byte {position} is cut short")
        if marker != sync:
            raise UnreadableInput(f"{path}: damaged: the block at byte {position} does not end in the sync marker")
        piece = _decompressed(data, codec, path, position)
        if count > len(piece):  # an event has a byte at least
            raise UnreadableInput(f"{path}: damaged: the block at byte {position} claims {count} events in {len(piece)} bytes")
        behind = file.tell()
        yield piece, position, count, behind
        position = behind


def _sync_marker(file, path) -> bytes:
    """The container's sync marker: the 16 bytes behind its header, where fastavro's reader has just stopped."""
    end = file.tell()
    file.seek(end - 16)
    marker = file.read(16)
    if len(marker) < 16:
        raise UnreadableInput(f"{path}: truncated in its header")
    return marker


def _decompressed(data: bytes, codec: str, path, position: int) -> bytes:
    if codec == "null":
        return data
    if codec not in fastavro.read.BLOCK_READERS:
        raise UnreadableInput(f"{path}: Avro codec {codec!r} is not supported")
    try:
        if codec == "deflate":
            return zlib.decompress(data, -15)
        # Every other codec is read by fastavro's own block reader, which frames the compressed bytes by their length.
        return fastavro.read.BLOCK_READERS[codec](io.BytesIO(zigzag(len(data)) + data)).read()
    except Exception as error:  # every codec's library has errors of its own
        raise UnreadableInput(f"{path}: damaged: the block at byte {position} does not decompress: {error}") from error


def zigzag(n: int) -> bytes:
    """Avro's encoding of a long that is not negative."""
    n, out = n << 1, bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _long(file, path, optional: bool = False) -> int | None:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            if optional and not shift:
                return None
            raise UnreadableInput(f"{path}: truncated inside a block's header")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value >> 1 ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise UnreadableInput(f"{path}: damaged: a block's header is no number")
