"""JSON events to the same columns that the Avro reader makes.

Each event is read by orjson (RFC 8259, strict UTF-8, no NaN) and its known fields are appended to one text buffer. A
field of the wrong JSON type is entered as present but unusable, and named in ``wrong``, so that the contract's order of
reasons holds: a missing field is reported before a value of the wrong type.
"""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson

from measurement.columnar.avro import NULL
from measurement.model.events import FIELD_INDEX, FIELDS, SCHEMA

_TEXT, _LONG, _INT, _BOOLEAN, _TIME = range(5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# RFC 3339 section 5.6; the offset is mandatory. No leap seconds: event time has none.
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:[0-5]\d)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)


def _kind(avro_type) -> int:
    if isinstance(avro_type, list):
        avro_type = next(t for t in avro_type if t != "null")
    if isinstance(avro_type, dict):
        return _TIME
    return {"string": _TEXT, "long": _LONG, "int": _INT, "boolean": _BOOLEAN}[avro_type]


_KINDS = {f["name"]: (FIELD_INDEX[f["name"]], _kind(f["type"])) for f in SCHEMA["fields"]}


def micros(text: str) -> int | None:
    """µs since 1970 of an RFC 3339 date-time, digits past the microsecond cut off; None if it is none."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    date, time, fraction, offset = match.groups()
    try:
        at = datetime.fromisoformat(f"{date}T{time}{offset.upper()}")
    except ValueError:
        return None
    part = int((fraction or ".0")[1:7].ljust(6, "0"))
    return (at - _EPOCH) // _MICROSECOND + part


class Columns:
    """Collects events into ``buf``, ``values`` and ``lengths`` as measurement/columnar/avro.py describes them."""

    def __init__(self):
        self.rows = 0
        self.wrong: dict[int, set[int]] = {}  # row: fields present with a wrong type
        self._text, self._at = [b"?"], 1  # slice (0, 1) stands for a present but unusable text
        self._cells: list[int] = []
        self._values: list[int] = []
        self._lengths: list[int] = []

    def add(self, event: dict) -> None:
        """Enters one event; unknown fields are ignored, null and empty text alike are null."""
        base = self.rows * len(FIELDS)
        for name, value in event.items():
            if value is None or value == "" or name not in _KINDS:
                continue
            f, kind = _KINDS[name]
            length = 0
            if kind == _TEXT:
                if type(value) is str:
                    raw = value.encode()
                    length = len(raw)
                    value = self._at
                    self._text.append(raw)
                    self._at += length
                else:
                    self.wrong.setdefault(self.rows, set()).add(f)
                    value, length = 0, 1
            else:
                if kind == _TIME and type(value) is str:
                    value = micros(value)
                elif kind == _TIME and isinstance(value, datetime) and value.tzinfo:  # of another writer's logical type
                    value = (value - _EPOCH) // _MICROSECOND
                right = bool if kind == _BOOLEAN else int
                bits = 31 if kind == _INT else 63
                if type(value) is not right or not -(1 << bits) <= value < 1 << bits:
                    self.wrong.setdefault(self.rows, set()).add(f)
                    value = 0
            self._cells.append(base + f)
            self._values.append(value)
            self._lengths.append(length)
        self.rows += 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(buf, values, lengths)."""
        values = np.zeros(self.rows * len(FIELDS), np.int64)
        lengths = np.full(self.rows * len(FIELDS), NULL, np.int32)
        values[self._cells] = self._values
        lengths[self._cells] = self._lengths
        shape = (self.rows, len(FIELDS))
        return np.frombuffer(b"".join(self._text), np.uint8), values.reshape(shape), lengths.reshape(shape)


def parse(line: bytes) -> dict | str:
    """The event's object, or why the bytes are none."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return str(error)
    return event if isinstance(event, dict) else f"a JSON {type(event).__name__} is no event"
