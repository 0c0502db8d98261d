"""From undecoded pieces to columns, with rescue datum by datum: whatever the bytes, each becomes a row or a reject.

Three roads to the same columns: the compiled reader for Avro that it knows, fastavro with Avro's resolution rules for
every other writer's schema, orjson for JSON. A batch never fails for one datum's sake.
"""

import io
from dataclasses import dataclass

import fastavro
import numpy as np

from measurement.columnar import jsonl
from measurement.columnar.avro import ERRORS, READER, TRAILING, Program, read_blocks, read_each
from measurement.columnar.batch import Slices, blobs, slices
from measurement.model.events import FIELD_INDEX, SCHEMA

_READER = fastavro.parse_schema(SCHEMA)
_EVENT_ID = FIELD_INDEX["event_id"]


@dataclass(frozen=True)
class Decoded:
    """n decoded events in order of arrival and what could not be decoded.

    ``piece[i]`` and ``index[i]`` say where event i stood: in which piece, and at which place in it.
    """

    buf: np.ndarray  # uint8: where texts stand
    values: np.ndarray  # int64 (n, fields)
    lengths: np.ndarray  # int32 (n, fields)
    payloads: Slices  # n, the bytes as received
    piece: np.ndarray  # int64
    index: np.ndarray  # int32
    id_at: np.ndarray  # int32: where the event_id stands in the payload, -1 if it is not there as it is
    wrong: dict[int, set[int]]  # row: fields of a wrong type
    failed: list[tuple[int, int, str, bytes]]  # piece, index, why, the bytes as received


def decode_blocks(pieces: list[bytes], counts: list[int], schema: dict | None, program: Program | None) -> Decoded:
    """Avro container blocks of one writer's schema, ``counts[b]`` datums in block b.

    A datum that cannot be read hides where its followers begin: it becomes a reject with the rest of its block as
    payload, and each follower a reject that points to it.
    """
    if program is None:
        return _resolved_blocks(pieces, counts, schema)
    buf = np.frombuffer(b"".join(pieces), np.uint8)
    edges = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
    counts = np.array(counts, np.int64)
    got = read_blocks(buf, edges, counts, program)
    failed = []
    for b in np.flatnonzero(got.read < counts):
        first, at = int(got.read[b]), int(edges[b])
        if first:
            at = int(got.ends[int(got.read[:b].sum()) + first - 1])
        failed += _lost(int(b), first, int(counts[b]), ERRORS[got.errors[b]], buf[at : edges[b + 1]].tobytes())
    piece = np.repeat(np.arange(len(counts)), got.read)
    index = np.arange(len(piece)) - np.repeat(np.cumsum(got.read) - got.read, got.read)
    payloads = Slices(got.starts, got.ends - got.starts, buf)
    id_at = (got.values[:, _EVENT_ID] - got.starts).astype(np.int32)
    return Decoded(buf, got.values, got.lengths, payloads, piece, index.astype(np.int32), id_at, {}, failed)


def _lost(piece: int, first: int, count: int, why: str, rest: bytes) -> list[tuple[int, int, str, bytes]]:
    followers = f"its bytes are with the datum at index {first} of the block, which hides where this one begins"
    return [(piece, first, why, rest), *((piece, i, followers, b"") for i in range(first + 1, count))]


def decode_lines(lines: list[bytes]) -> Decoded:
    """One JSON event a line."""
    columns, kept, failed = jsonl.Columns(), [], []
    for i, line in enumerate(lines):
        event = jsonl.parse(line)
        if isinstance(event, dict):
            columns.add(event)
            kept.append(i)
        else:
            failed.append((i, 0, event, line))
    return _collected(columns, [lines[i] for i in kept], kept, [0] * len(kept), failed)


def decode_datums(datums: list[bytes], schema: dict | None = None, program: Program | None = READER) -> Decoded:
    """Bare datums of one writer's schema, one a piece."""
    if program is None:
        return _resolved_blocks(datums, [1] * len(datums), schema, whole=True)
    whole = blobs(datums)
    values, lengths, errors = read_each(whole.data, whole.offsets, program)
    good = np.flatnonzero(errors == 0)
    failed = [(int(i), 0, ERRORS[errors[i]], datums[i]) for i in np.flatnonzero(errors)]
    id_at = (values[good, _EVENT_ID] - whole.offsets[good]).astype(np.int32)
    return Decoded(whole.data, values[good], lengths[good], slices(whole).take(good), good,
                   np.zeros(len(good), np.int32), id_at, {}, failed)


def _resolved_blocks(pieces, counts, schema, whole=False) -> Decoded:
    """Through fastavro: each datum's bounds by its writer's schema, then resolution to the reader's."""
    writer, bare = fastavro.parse_schema(schema), fastavro.parse_schema(_bare(schema))
    columns, payloads, places, failed = jsonl.Columns(), [], [], []
    for p, (data, count) in enumerate(zip(pieces, counts)):
        stream = io.BytesIO(data)
        for i in range(count):
            start = stream.tell()
            try:
                fastavro.schemaless_reader(stream, bare)
                if whole and stream.tell() != len(data):
                    raise ValueError(ERRORS[TRAILING])
            except _UNREADABLE as error:
                failed += _lost(p, i, count, _why(error), data[start:])
                break
            payload = data[start : stream.tell()]
            try:
                event = fastavro.schemaless_reader(io.BytesIO(payload), writer, _READER)
            except _UNREADABLE as error:
                failed.append((p, i, _why(error), payload))
                continue
            columns.add(event)
            payloads.append(payload)
            places.append((p, i))
    return _collected(columns, payloads, [p for p, _ in places], [i for _, i in places], failed)


def _bare(schema):
    """A schema without logical types: where a datum ends does not hang on whether its values make sense."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key != "logicalType"}
    return schema


# What fastavro raises on bytes or schemas that do not fit; anything else is a fault of ours and must surface.
_UNREADABLE = (ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, StopIteration,
               MemoryError, AttributeError, fastavro.read.SchemaResolutionError)


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _collected(columns, payloads, piece, index, failed) -> Decoded:
    buf, values, lengths = columns.arrays()
    raw = buf.tobytes()
    ids = zip(payloads, values[:, _EVENT_ID].tolist(), lengths[:, _EVENT_ID].tolist())
    id_at = np.array([payload.find(raw[at : at + n]) if n > 0 else -1 for payload, at, n in ids], np.int32)
    return Decoded(buf, values, lengths, slices(blobs(payloads)), np.array(piece, np.int64), np.array(index, np.int32),
                   id_at, columns.wrong, failed)
