"""What a copy says of itself, decoded again from its bytes. Personal data are only said to be there."""

from collections.abc import Mapping
from dataclasses import dataclass

from measurement.columnar.batch import AVRO, ENCODINGS
from measurement.columnar.decode import decode_datums, decode_lines
from measurement.explain.copies import Copy
from measurement.io.framing import READER_SCHEMA, WriterSchema
from measurement.model.events import FIELD_INDEX, SCHEMA

PERSONAL = ("ip", "user_agent", "user_id", "household_id", "session_id", "consent")
TIMES = ("event_time", "received_time")
_KINDS = {f["name"]: str(f["type"]) for f in SCHEMA["fields"]}


@dataclass(frozen=True)
class Said:
    """``fields``: those set, times in µs; also the personal ones, which are for rules alone and never shown. ``wrong``: fields of a
    wrong type, which have no value."""

    fields: dict[str, str | int | bool]
    wrong: tuple[str, ...]

    @property
    def shown(self) -> dict[str, str | int | bool]:
        """What may be shown."""
        return {name: value for name, value in self.fields.items() if name not in PERSONAL}

    def get(self, name: str):
        return self.fields.get(name)

    def differs(self, other: "Said") -> list[str]:
        """The fields in which two events differ, but for their receipt."""
        return [name for name in FIELD_INDEX if name != "received_time" and self.get(name) != other.get(name)]

    def has(self, name: str) -> bool:
        return name in self.fields or name in self.wrong


def said(copy: Copy, schemas: Mapping[str, WriterSchema]) -> Said:
    """``schemas``: the writers', by id."""
    if copy.encoding == ENCODINGS[AVRO]:
        schema = schemas.get(copy.schema_id, READER_SCHEMA)
        decoded = decode_datums([copy.payload], schema.parsed, schema.program)
    else:
        decoded = decode_lines([copy.payload])
    unusable = decoded.wrong.get(0, set())
    fields = {}
    for name, f in FIELD_INDEX.items():
        value, length = int(decoded.values[0, f]), int(decoded.lengths[0, f])
        if length < 0 or f in unusable:
            continue
        if "string" in _KINDS[name]:
            fields[name] = decoded.buf[value : value + length].tobytes().decode()
        else:
            fields[name] = bool(value) if "boolean" in _KINDS[name] else value
    return Said(fields, tuple(name for name, f in FIELD_INDEX.items() if f in unusable))
