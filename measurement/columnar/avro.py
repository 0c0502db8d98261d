"""Avro binary data to columns, compiled: one pass over the bytes finds every datum's bounds and every field.

A decoded batch stays where it was received: ``values[i, f]`` is field ``f`` of event ``i`` (a number, or where its
text starts in ``buf``), ``lengths[i, f]`` the text's length in bytes, 0 for a number, -1 for null. No text is copied
and no Python object made per event. pyruhvro, the Rust decoder, is the yardstick in benchmarks/: it makes Arrow columns
but finds no bounds, accepts bytes behind a datum and does not look at UTF-8.

Only flat records of primitives and nullable primitives whose fields have the reader's types are read here
(``Program.for_schema``); any other writer's schema goes through fastavro and Avro's own resolution rules
(measurement/columnar/decode.py).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from measurement.columnar.hashing import word
from measurement.model.events import FIELD_INDEX, FIELDS, SCHEMA

NULL = np.int32(-1)

# Kinds of field, as the compiled reader knows them.
_TEXT, _LONG, _INT, _BOOLEAN = range(4)
_KINDS = {"string": _TEXT, "long": _LONG, "int": _INT, "boolean": _BOOLEAN}

ERRORS = (
    "",
    "the bytes end inside the datum",
    "a number has more than 64 bits",
    "a union has no such branch",
    "a text has a negative length",
    "a boolean is neither 0 nor 1",
    "bytes follow the datum",
    "a text is not UTF-8",
)
TRUNCATED, LONG_VARINT, BAD_BRANCH, NEGATIVE_LENGTH, BAD_BOOLEAN, TRAILING, NOT_UTF8 = range(1, 8)


@dataclass(frozen=True)
class Program:
    """A writer's schema as the compiled reader follows it: per written field its kind, null branch and target column."""

    kinds: np.ndarray  # int8, one a written field
    nulls: np.ndarray  # int8: the union branch that is null, -1 where the field is no union
    targets: np.ndarray  # int16: column of the reader's schema, -1 to skip

    @classmethod
    def for_schema(cls, schema: dict) -> "Program | None":
        """The program for a writer's schema, or None where Avro's full resolution rules are needed."""
        if not isinstance(schema, dict) or schema.get("type") != "record":
            return None
        if schema.get("name", "").rpartition(".")[2] != SCHEMA["name"]:
            return None  # records resolve by their unqualified name
        steps, seen = [], set()
        for field in schema["fields"]:
            step = _step(field["type"])
            if step is None:
                return None
            kind, null = step
            target = FIELD_INDEX.get(field["name"], -1)
            if target >= 0:
                if step != _step(SCHEMA["fields"][target]["type"]):
                    return None
                seen.add(field["name"])
            steps.append((kind, null, target))
        if any(f["name"] not in seen and "default" not in f for f in SCHEMA["fields"]):
            return None  # a required field is not written: resolution must say so for each datum
        kinds, nulls, targets = zip(*steps)
        return cls(np.array(kinds, np.int8), np.array(nulls, np.int8), np.array(targets, np.int16))


def _step(avro_type) -> tuple[int, int] | None:
    """(kind, null branch) of a primitive or a nullable primitive, logical types aside; None for anything else."""
    if isinstance(avro_type, list):
        if len(avro_type) != 2 or "null" not in avro_type:
            return None
        null = avro_type.index("null")
        inner = _step(avro_type[1 - null])
        return None if inner is None or inner[1] >= 0 else (inner[0], null)
    if isinstance(avro_type, dict):
        if avro_type.get("logicalType") not in (None, "timestamp-micros") and avro_type.get("type") != "string":
            return None  # e.g. milliseconds: resolution must convert or refuse; a text stays a text, also as a UUID
        avro_type = avro_type.get("type")
    return (_KINDS[avro_type], -1) if isinstance(avro_type, str) and avro_type in _KINDS else None


READER = Program.for_schema(SCHEMA)


@njit
def _varint(buf, at, end):
    """(value, next position, error) of a zigzag varint in ``buf[at:end]``."""
    if at < end and buf[at] < 128:  # nearly every union branch and text length
        low = np.int64(buf[at])
        return (low >> 1) ^ -(low & 1), at + 1, 0
    raw = np.uint64(0)
    shift = 0
    while True:
        if at >= end:
            return np.int64(0), at, TRUNCATED
        byte = np.uint64(buf[at])
        at += 1
        if shift == 63 and byte > 1:
            return np.int64(0), at, LONG_VARINT
        raw |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < 128:
            break
        shift += 7
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), at, 0


_HIGH_BITS = np.uint64(0x8080808080808080)


@njit
def _utf8(buf, start, end):
    """Whether the bytes are well-formed UTF-8 (Unicode 15, table 3-7: no overlong forms, no surrogates)."""
    high = np.uint64(0)
    for i in range(start, end, 8):
        high |= word(buf, i, end - i)
    if not high & _HIGH_BITS:
        return True
    i = start
    while i < end:
        c = buf[i]
        if c < 0x80:
            i += 1
            continue
        if 0xC2 <= c <= 0xDF:
            more, low, top = 1, 0x80, 0xBF
        elif 0xE0 <= c <= 0xEF:
            more, low, top = 2, 0xA0 if c == 0xE0 else 0x80, 0x9F if c == 0xED else 0xBF
        elif 0xF0 <= c <= 0xF4:
            more, low, top = 3, 0x90 if c == 0xF0 else 0x80, 0x8F if c == 0xF4 else 0xBF
        else:
            return False
        if i + more >= end:
            return False
        if not low <= buf[i + 1] <= top:
            return False
        for j in range(i + 2, i + more + 1):
            if not 0x80 <= buf[j] <= 0xBF:
                return False
        i += more + 1
    return True


@njit(cache=True, nogil=True)
def _read_one(buf, at, end, kinds, nulls, targets, values, lengths):
    """Reads one datum into a row of ``values`` and ``lengths``; (next position, error)."""
    lengths[:] = NULL
    for f in range(len(kinds)):
        if nulls[f] >= 0:
            branch, at, error = _varint(buf, at, end)
            if error:
                return at, error
            if branch == nulls[f]:
                continue
            if branch != 1 - nulls[f]:
                return at, BAD_BRANCH
        kind = kinds[f]
        target = targets[f]
        if kind == _BOOLEAN:
            if at >= end:
                return at, TRUNCATED
            if buf[at] > 1:
                return at, BAD_BOOLEAN
            value = np.int64(buf[at])
            at += 1
        else:
            value, at, error = _varint(buf, at, end)
            if error:
                return at, error
        if kind == _TEXT:
            if value < 0:
                return at, NEGATIVE_LENGTH
            if value > end - at:
                return at, TRUNCATED
            if not _utf8(buf, at, at + value):
                return at, NOT_UTF8
            if target >= 0 and value > 0:  # empty text is null
                values[target] = at
                lengths[target] = value
            at += value
        else:
            if target >= 0:
                values[target] = value
                lengths[target] = 0
    return at, 0


@njit(cache=True, nogil=True)
def _read_blocks(buf, edges, counts, kinds, nulls, targets, starts, ends, values, lengths, read, errors):
    row = 0
    for b in range(len(counts)):
        at = edges[b]
        for i in range(counts[b]):
            starts[row] = at
            at, error = _read_one(buf, at, edges[b + 1], kinds, nulls, targets, values[row], lengths[row])
            if error:
                errors[b] = error
                break
            ends[row] = at
            row += 1
            read[b] += 1
    return row


@njit(cache=True, nogil=True)
def _read_each(buf, bounds, kinds, nulls, targets, values, lengths, errors):
    for i in range(len(values)):
        at, error = _read_one(buf, bounds[i], bounds[i + 1], kinds, nulls, targets, values[i], lengths[i])
        if not error and at != bounds[i + 1]:
            error = TRAILING
        errors[i] = error


@dataclass(frozen=True)
class BlocksRead:
    """The datums of a container's blocks, in order; arrays of the n that were read."""

    starts: np.ndarray  # int64: the datum's slice of the buffer
    ends: np.ndarray
    values: np.ndarray  # int64 (n, fields)
    lengths: np.ndarray  # int32 (n, fields)
    read: np.ndarray  # int64, one a block: how many of its datums
    errors: np.ndarray  # int8, one a block: what stopped the reader before its count, 0 if nothing did


def read_blocks(buf: np.ndarray, edges: np.ndarray, counts: np.ndarray, program: Program = READER) -> BlocksRead:
    """Reads ``counts[b]`` datums, one behind the other, from each block ``buf[edges[b]:edges[b + 1]]``."""
    n = int(counts.sum())
    starts, ends = np.empty(n, np.int64), np.empty(n, np.int64)
    values, lengths = np.empty((n, len(FIELDS)), np.int64), np.empty((n, len(FIELDS)), np.int32)
    read, errors = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int8)
    rows = _read_blocks(buf, edges, counts, program.kinds, program.nulls, program.targets,
                        starts, ends, values, lengths, read, errors)
    return BlocksRead(starts[:rows], ends[:rows], values[:rows], lengths[:rows], read, errors)


def read_each(buf: np.ndarray, bounds: np.ndarray, program: Program = READER):
    """One datum in each slice of ``bounds`` (int64, n + 1): (values, lengths, errors), errors int8, 0 where it was read."""
    n = len(bounds) - 1
    values = np.empty((n, len(FIELDS)), np.int64)
    lengths = np.empty((n, len(FIELDS)), np.int32)
    errors = np.empty(n, np.int8)
    _read_each(buf, bounds, program.kinds, program.nulls, program.targets, values, lengths, errors)
    return values, lengths, errors
