"""The compiled kernels against libraries and the oracle's strict reader, on good bytes and bad."""

import gzip
import io
import json

import fastavro
import mmh3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.columnar.avro import Program, read_each
from measurement.columnar.batch import EventBatch
from measurement.columnar.decode import blobs, decode_blocks, decode_datums, decode_lines
from measurement.columnar.hashing import combine, fingerprint
from measurement.columnar.jsonl import micros
from measurement.columnar.table import Keys
from measurement.io.framing import READER_SCHEMA, UnreadableInput, WriterSchema, frames, verify
from measurement.model.events import FIELD_INDEX, FIELDS, SCHEMA
from oracle import Undecodable, decode_avro
from strategies import encode_avro

EVENT = {**dict.fromkeys(FIELDS), "event_id": "e1", "event_type": "impression", "event_time": 1_772_409_600_000_000,
         "advertiser_id": "adv", "campaign_id": "å∫ç", "price_micros": 12, "visible_percent": 50, "test": True}
V1 = fastavro.parse_schema(SCHEMA)


def text(decoded, row: int, field: str) -> str | None:
    at, n = decoded.values[row, FIELD_INDEX[field]], decoded.lengths[row, FIELD_INDEX[field]]
    return bytes(decoded.buf[at : at + n]).decode() if n > 0 else None


def number(decoded, row: int, field: str) -> int | None:
    return int(decoded.values[row, FIELD_INDEX[field]]) if decoded.lengths[row, FIELD_INDEX[field]] >= 0 else None


@pytest.mark.parametrize("length", [*range(0, 70), 255, 256, 300])
def test_fingerprints_are_murmur3_x64_128(length):
    raw = np.random.default_rng(length).integers(0, 256, length + 1, np.uint8)
    expected = mmh3.hash64(raw[1:].tobytes(), 7, signed=False)
    assert tuple(map(int, fingerprint(raw, 1, length, 7))) == expected


def test_combining_hashes_the_32_bytes_of_two_fingerprints():
    words = np.random.default_rng(1).integers(0, 2**63, 4).astype(np.uint64)
    assert tuple(map(int, combine(*words))) == mmh3.hash64(words.tobytes(), 0, signed=False)


def test_keys_number_distinct_keys_in_order_of_first_sight():
    rng = np.random.default_rng(3)
    keys, seen = Keys(), {}
    for size in (1, 10, 5_000, 20_000):
        hi, lo = rng.integers(0, 300, size).astype(np.uint64), rng.integers(0, 300, size).astype(np.uint64)
        expected = [seen.setdefault(key, len(seen)) for key in zip(hi.tolist(), lo.tolist())]
        assert keys.add(hi, lo).tolist() == expected


@settings(max_examples=400)
@given(st.binary(max_size=120) | st.tuples(st.integers(0, 400), st.integers(0, 255)).map(
    lambda flip: bytes(b ^ (flip[1] if i == flip[0] else 0) for i, b in enumerate(encode_avro(EVENT)))))
def test_any_bytes_are_read_or_refused_as_the_strict_reader_does(raw):
    try:
        expected = decode_avro(raw)
    except Undecodable:
        expected = None
    # Bytes around the datum must not matter.
    around = blobs([b"\xff" * 9, raw, b"\x02" * 40])
    _, lengths, errors = read_each(around.data, around.offsets)
    decoded = decode_datums([raw])
    assert (errors[1] == 0) == (expected is not None) == (not decoded.failed)
    if expected is None:
        assert decoded.failed[0][3] == raw
        return
    for field in FIELDS:
        value = expected[field]
        got = text(decoded, 0, field) if isinstance(value, str) or value is None else number(decoded, 0, field)
        assert got == (value or None if isinstance(value, str) else value), field


def test_a_datum_that_cannot_be_read_takes_the_rest_of_its_block_and_no_more():
    good, bad = encode_avro(EVENT), encode_avro(EVENT)[:5] + b"\xff" * 20
    decoded = decode_blocks([good + bad + good, good], [3, 1], SCHEMA, READER_SCHEMA.program)
    assert decoded.piece.tolist() == [0, 1]
    assert [(piece, index) for piece, index, _, _ in decoded.failed] == [(0, 1), (0, 2)]
    assert decoded.failed[0][3] == bad + good and decoded.failed[1][3] == b""
    assert [decoded.payloads[i] for i in range(2)] == [good, good]


def evolved(*changes) -> dict:
    fields = {f["name"]: f for f in json.loads(json.dumps(SCHEMA["fields"]))}
    for name, change in changes:
        if change is None:
            del fields[name]
        else:
            fields[name] = {"name": name, **change}
    return {**SCHEMA, "fields": list(fields.values())}


@pytest.mark.parametrize(("schema", "event", "fast"), [
    (evolved(("session_id", None), ("test", None)), {}, True),
    (evolved(("campaign_mood", {"type": ["null", "string"], "default": None})), {"campaign_mood": "calm"}, True),
    (evolved(("tags", {"type": {"type": "array", "items": "string"}})), {"tags": ["a", "b"]}, False),
    (evolved(("price_micros", {"type": "int"})), {}, False),
    (evolved(("event_type", {"type": "bytes"})), {"event_type": b"impression"}, False),
    (evolved(("event_time", {"type": {"type": "long", "logicalType": "timestamp-millis"}})), {"event_time": 1_772_409_600_000}, False),
    ({**SCHEMA, "fields": SCHEMA["fields"][::-1]}, {}, True),
])
def test_other_writers_schemas_resolve_as_avro_says(schema, event, fast):
    raw = io.BytesIO()
    names = {f["name"] for f in schema["fields"]}
    fastavro.schemaless_writer(raw, fastavro.parse_schema(schema), {k: v for k, v in {**EVENT, **event}.items() if k in names})
    program = Program.for_schema(schema)
    assert (program is not None) == fast
    decoded = decode_blocks([raw.getvalue() * 2], [2], schema, program)
    assert not decoded.failed and len(decoded.values) == 2
    assert text(decoded, 1, "event_id") == "e1" and text(decoded, 1, "event_type") == "impression"
    assert text(decoded, 1, "campaign_id") == "å∫ç" and number(decoded, 1, "event_time") == EVENT["event_time"]
    assert number(decoded, 1, "price_micros") == 12
    assert decoded.payloads[1] == raw.getvalue()
    assert decoded.payloads[1][decoded.id_at[1] :][:2] == b"e1"


@pytest.mark.parametrize("schema", [
    evolved(("event_id", None)),
    evolved(("price_micros", {"type": "string"})),
    evolved(("event_type", {"type": {"type": "enum", "name": "T", "symbols": ["click", "impression"]}})),
    {"type": "record", "name": "Other", "fields": [{"name": "a", "type": "string"}]},
])
def test_what_resolution_refuses_is_a_reject_with_its_bytes(schema):
    raw = io.BytesIO()
    names = {f["name"] for f in schema["fields"]}
    price = next((f for f in schema["fields"] if f["name"] == "price_micros"), {}).get("type")
    event = {**EVENT, "a": "x", "price_micros": "12" if price == "string" else 12}
    event = {k: v for k, v in event.items() if k in names}
    fastavro.schemaless_writer(raw, fastavro.parse_schema(schema), event)
    decoded = decode_blocks([raw.getvalue()], [1], schema, Program.for_schema(schema))
    assert not len(decoded.values)
    assert decoded.failed[0][3] == raw.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_containers_of_every_codec_frame_to_the_same_bytes(codec, tmp_path):
    path = tmp_path / "e.avro"
    with path.open("wb") as file:
        fastavro.writer(file, V1, [EVENT] * 500, codec=codec)
    got = list(frames(path, 100, 10))
    assert sum(frame.events for frame, _ in got) == 500
    assert b"".join(piece for frame, _ in got for piece in frame.pieces) == encode_avro(EVENT) * 500
    # A resumed file goes on where a frame ended.
    assert [f.pieces for f, _ in frames(path, 100, 100, got[0][1])][-1] == got[-1][0].pieces


def test_a_container_cut_anywhere_is_refused_or_ends_at_a_block(tmp_path):
    path, cut = tmp_path / "e.avro", tmp_path / "cut.avro"
    with path.open("wb") as file:
        fastavro.writer(file, V1, [EVENT] * 3, sync_interval=1)
    whole = path.read_bytes()
    got = list(frames(path, 1, 1))
    ends = {behind for _, behind in got} | {got[0][0].positions[0]}  # behind a block or the header
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            verify(cut)
        except UnreadableInput as error:
            assert "\n" not in str(error) and str(cut) in str(error)
        else:
            assert length in ends


def test_lines_are_events_whatever_ends_them_and_blank_ones_are_none(tmp_path):
    path = tmp_path / "e.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"event_id":"a"}\r\n\n   \n{"event_id":"b"}\n{"event_id":"' + b"c" * 3_000_000 + b'"}')
    (frame, _), = frames(path, 10, 10)
    assert frame.events == frame.messages == 3
    decoded = decode_lines(frame.pieces)
    assert [len(text(decoded, i, "event_id")) for i in range(3)] == [1, 1, 3_000_000]


def test_a_wrong_type_is_present_but_unusable():
    decoded = decode_lines([b'{"event_id": 5, "price_micros": 1.0, "test": 1, "event_time": "soon", "creative_width": 3000000000}'])
    assert decoded.wrong == {0: {FIELD_INDEX[f] for f in ("event_id", "price_micros", "test", "event_time", "creative_width")}}


@pytest.mark.parametrize(("stamp", "expected"), [
    ("1970-01-01T00:00:00Z", 0), ("1970-01-01t01:00:00.0000019+01:00", 1), ("1969-12-31T23:59:59.999999z", -1),
    ("1970-01-01T00:00:00", None), ("1970-01-01", None), ("1970-13-01T00:00:00Z", None), ("now", None),
    ("1970-01-01T00:00:00+24:00", None), ("١٩٧٠-01-01T00:00:00Z", None),
])
def test_times_are_rfc_3339(stamp, expected):
    assert micros(stamp) == expected


def test_a_batch_travels_unchanged():
    from measurement.columnar.batch import DIMS, ROW

    rows, dims = np.zeros(3, ROW), np.zeros(1, DIMS)
    rows["id_hi"], rows["time"] = [1, 2, 3], [-5, 0, 5]
    batch = EventBatch(rows, dims, blobs([b"a", b"", b"\x00c"]), ["x", "ü"])
    got = EventBatch.decode(batch.encode())
    assert (got.rows == rows).all() and (got.dims == dims).all() and got.labels == batch.labels
    assert [got.payloads[i] for i in range(3)] == [b"a", b"", b"\x00c"]


def test_a_schemas_id_is_its_crc_64_avro_fingerprint():
    assert WriterSchema.parse(json.dumps(SCHEMA)).id == READER_SCHEMA.id
    with pytest.raises(ValueError):
        WriterSchema.parse('{"type": "nonsense"}')
