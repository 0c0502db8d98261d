"""Pub/Sub messages as frames: what each holds, counted at the edge, and whose schema wrote it.

A message is one datum, an Avro object container (``Obj\\x01``) of many, or JSON: one event, or one a line (contract
section 1). A datum's writer schema is named by Pub/Sub's schema attributes or Avro's single-object header, else it is
version 1. Whatever the bytes, each message ends in a frame: what cannot be taken apart is one event that fails to decode.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from measurement.columnar.batch import AVRO, JSON, blobs, slices
from measurement.columnar.decode import Decoded, decode_blocks, decode_datums, decode_lines
from measurement.columnar.hashing import fingerprint
from measurement.io.framing import READER_SCHEMA, UnreadableInput, WriterSchema, container_pieces
from measurement.model import events as e

CONTAINER, SINGLE_OBJECT = b"Obj\x01", b"\xc3\x01"
_FIELDS = len(e.FIELDS)
_OTHER_FORMS = CONTAINER[:1], SINGLE_OBJECT[:1], b"{"  # how a message begins that is perhaps no bare datum


class Message(NamedTuple):
    """One message as received: its id, publish time (µs), attributes and bytes."""

    id: str
    published: int
    attributes: Mapping[str, str]
    data: bytes

    @property
    def order(self) -> tuple:
        """What messages are sorted by: publication, and within it the id, as the number that it is."""
        return self.published, len(self.id), self.id

    @property
    def position(self) -> int:
        """The id as a number, which the service's ids are; any other text's fingerprint."""
        if self.id.isdecimal() and len(self.id) < 19:
            return int(self.id)
        raw = np.frombuffer(self.id.encode(), np.uint8)
        return int(fingerprint(raw, 0, len(raw), 0)[0] >> np.uint64(1))


@dataclass
class MessageFrame:
    """Pieces of one encoding and writer's schema: the datum, block or line, whose message it is, its first event's index."""

    encoding: int
    schema: WriterSchema | None
    in_blocks: bool = False
    pieces: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)
    edge: dict[int, list[int]] = field(default_factory=dict)  # by hour of publication: messages, events, bytes

    def add(self, message: Message, pieces: list[tuple[bytes, int]]) -> None:
        """A message and its pieces, each with how many events it holds."""
        first, position = 0, message.position
        for piece, count in pieces:
            self.pieces.append(piece)
            self.counts.append(count)
            self.firsts.append(first)
            self.positions.append(position)
            self.clocks.append(message.published)
            first += count
        self._edge(message.published // e.MICROS_PER_HOUR, 1, first, len(message.data))

    def add_datums(self, messages: list[Message]) -> None:
        """Messages of one datum each: the common case, without a step in Python for each of their properties."""
        self.pieces += [m.data for m in messages]
        self.counts += [1] * len(messages)
        self.firsts += [0] * len(messages)
        self.positions += [m.position for m in messages]
        self.clocks += [m.published for m in messages]
        hours = np.array([m.published for m in messages]) // e.MICROS_PER_HOUR
        sizes = np.array([len(m.data) for m in messages])
        for hour in np.unique(hours).tolist():
            at = hours == hour
            self._edge(hour, int(at.sum()), int(at.sum()), int(sizes[at].sum()))

    def _edge(self, hour: int, messages: int, events: int, size: int) -> None:
        edge = self.edge.setdefault(hour * e.MICROS_PER_HOUR, [0, 0, 0])
        edge[0] += messages
        edge[1] += events
        edge[2] += size

    def decoded(self) -> Decoded:
        if self.encoding == JSON:
            decoded = decode_lines(self.pieces)
        elif self.schema is None:
            return _unknown(self.pieces)
        elif self.in_blocks:
            decoded = decode_blocks(self.pieces, self.counts, self.schema.parsed, self.schema.program)
        else:
            return decode_datums(self.pieces, self.schema.parsed, self.schema.program)
        firsts = np.array(self.firsts, np.int32)
        np.add(decoded.index, firsts[decoded.piece], out=decoded.index)
        decoded.failed[:] = [(piece, index + self.firsts[piece], why, raw) for piece, index, why, raw in decoded.failed]
        return decoded


def _unknown(pieces: list[bytes]) -> Decoded:
    """Nothing of these can be read."""
    none = np.zeros((0, _FIELDS), np.int64)
    return Decoded(np.zeros(0, np.uint8), none, none.astype(np.int32), slices(blobs([])), np.zeros(0, np.int64), np.zeros(0, np.int32),
                   np.zeros(0, np.int32), {}, [(i, 0, "no container, and its writer's schema is not known", raw)
                                              for i, raw in enumerate(pieces)])


class Schemas:
    """Writers' schemas by what names them. ``look_up``: a text by (Pub/Sub schema name, revision), None if there is none."""

    def __init__(self, known: list[str], look_up: Callable[[str, str], str | None]):
        self._by_fingerprint = {s.id: s for s in (READER_SCHEMA, *map(WriterSchema.parse, known))}
        self._by_revision: dict[tuple[str, str], WriterSchema | None] = {}
        self._by_text: dict[str, WriterSchema] = {}
        self._look_up = look_up

    def of_header(self, eight: bytes) -> WriterSchema | None:
        """By the little-endian CRC-64-AVRO fingerprint of a single-object header."""
        return self._by_fingerprint.get(eight.hex())

    def of_revision(self, name: str, revision: str) -> WriterSchema | None:
        if (name, revision) not in self._by_revision:
            text = self._look_up(name, revision)
            try:
                schema = None if text is None else WriterSchema.parse(text)
            except ValueError:
                schema = None
            self._by_revision[name, revision] = schema
        return self._by_revision[name, revision]

    def of_text(self, text: str) -> WriterSchema:
        """ValueError if it is no schema that can be read."""
        if text not in self._by_text:
            if len(self._by_text) > 1_000:  # a publisher that makes schemas up must not fill memory
                self._by_text.clear()
            self._by_text[text] = WriterSchema.parse(text)
        return self._by_text[text]


def frames(messages: list[Message], schemas: Schemas) -> list[MessageFrame]:
    """The messages in their order, gathered by encoding and schema."""
    out: dict[tuple, MessageFrame] = {}
    plain, others = [], []
    for message in messages:
        (others if message.attributes or message.data[:1] in _OTHER_FORMS else plain).append(message)
    if plain:
        out[AVRO, READER_SCHEMA.id, False] = frame = MessageFrame(AVRO, READER_SCHEMA)
        frame.add_datums(plain)
    for message in others:
        encoding, schema, in_blocks, pieces = _taken_apart(message, schemas)
        key = encoding, schema.id if schema else None, in_blocks
        if key not in out:
            out[key] = MessageFrame(encoding, schema, in_blocks)
        out[key].add(message, pieces)
    return list(out.values())


def _taken_apart(message: Message, schemas: Schemas) -> tuple[int, WriterSchema | None, bool, list[tuple[bytes, int]]]:
    """(encoding, schema, whether the pieces are blocks, pieces with their events)."""
    data, attributes = message.data, message.attributes
    if data.startswith(CONTAINER):
        try:
            text, pieces = container_pieces(io.BytesIO(data), f"message {message.id}")
            return AVRO, schemas.of_text(text), True, pieces
        except (UnreadableInput, EOFError, ValueError):
            return AVRO, None, False, [(data, 1)]
    if attributes.get("googclient_schemaencoding") == "JSON" or data.startswith(b"{"):
        return JSON, None, False, [(line, 1) for line in _lines(data)]
    if name := attributes.get("googclient_schemaname"):
        return AVRO, schemas.of_revision(name, attributes.get("googclient_schemarevisionid", "")), False, [(data, 1)]
    if data.startswith(SINGLE_OBJECT) and len(data) >= 10:
        schema = schemas.of_header(data[2:10])
        return AVRO, schema, False, [(data if schema is None else data[10:], 1)]
    return AVRO, READER_SCHEMA, False, [(data, 1)]


def _lines(data: bytes) -> list[bytes]:
    """One event, which may be written over several lines, or several, one a line."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].lstrip().startswith(b"{") and lines[0].rstrip().endswith(b"}"):
        return lines
    return [data]
