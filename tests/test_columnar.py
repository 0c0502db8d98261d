"""The compiled kernels against libraries and the oracle's strict reader, on good bytes and bad."""

import datetime
import gzip
import io
import json
import subprocess
import sys
from collections import Counter

import fastavro
import mmh3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.columnar.avro import Program, read_each
from measurement.columnar.batch import ENCODINGS, NO_WATERMARK, EventBatch, blobs
from measurement.columnar.decode import decode_blocks, decode_datums, decode_lines
from measurement.columnar.hashing import combine, digest64, fingerprint
from measurement.columnar.intake import Origin, take_in
from measurement.columnar.jsonl import micros
from measurement.columnar.screen import Screen
from measurement.columnar.table import Keys
from measurement.io.framing import READER_SCHEMA, UnreadableInput, WriterSchema, frames, verify
from measurement.io.watermark import FileWatermark
from measurement.model.events import FIELD_INDEX, FIELDS, SCHEMA
from measurement.model.policy import Policy
from oracle import Received, Reject, Undecodable, decode_avro, identity_of, judge_one, time_of_text
from strategies import encode_avro, events, json_payloads, wrong_payloads

EVENT = {**dict.fromkeys(FIELDS), "event_id": "e1", "event_type": "impression", "event_time": 1_772_409_600_000_000,
         "advertiser_id": "adv", "campaign_id": "å∫ç", "price_micros": 12, "visible_percent": 50, "test": True}
V1 = fastavro.parse_schema(SCHEMA)


def text(decoded, row: int, field: str) -> str | None:
    at, n = decoded.values[row, FIELD_INDEX[field]], decoded.lengths[row, FIELD_INDEX[field]]
    return bytes(decoded.buf[at : at + n]).decode() if n > 0 else None


def number(decoded, row: int, field: str) -> int | None:
    return int(decoded.values[row, FIELD_INDEX[field]]) if decoded.lengths[row, FIELD_INDEX[field]] >= 0 else None


def test_fingerprints_are_murmur3_x64_128_wherever_the_bytes_stand():
    raw = np.random.default_rng(1).integers(0, 256, 320, np.uint8)
    for length in range(301):
        for start, buf in ((3, raw), (3, raw[: 3 + length])):  # bytes behind it, and none
            expected = mmh3.hash64(raw[start : start + length].tobytes(), 7, signed=False)
            assert tuple(map(int, fingerprint(buf, start, length, 7))) == expected


def test_digests_do_not_depend_on_where_the_bytes_stand():
    raw = np.random.default_rng(2).integers(0, 256, 90, np.uint8)
    digests = set()
    for length in range(70):
        alone, within = digest64(raw[:length].copy(), 0, length, np.uint64(5)), digest64(raw, 0, length, np.uint64(5))
        assert alone == within
        digests.add(int(alone))
    assert len(digests) == 70


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


# --- Every payload is judged as the oracle judges it -----------------------------------------------------------

@settings(max_examples=150)
@given(st.lists(events().flatmap(
    lambda event: wrong_payloads(event) | json_payloads(event).map(lambda payload: ("json", payload))
), min_size=1, max_size=12))
def test_every_payload_is_judged_by_the_stateless_rules_as_the_oracle_judges_it(payloads):
    clock = EVENT["event_time"]
    for encoding in ENCODINGS:
        chosen = [payload for each, payload in payloads if each == encoding]
        if not chosen:
            continue
        decoded = decode_datums(chosen) if encoding == "avro" else decode_lines(chosen)
        origin = Origin("f", np.arange(len(chosen)), ENCODINGS.index(encoding), None, np.full(len(chosen), clock))
        intake = take_in(decoded, origin, {}, Policy(), FileWatermark(), NO_WATERMARK, Screen(Policy().screening))
        judged = [judge_one(Received(payload, encoding, "f", clock)) for payload in chosen]
        expected = Counter(
            (one.reason, one.event_id, one.event_time, one.event_type, payload)
            for one, payload in zip(judged, chosen) if isinstance(one, Reject)
        )
        assert Counter(
            tuple(reject[name] for name in ("reason", "event_id", "event_time", "event_type", "payload"))
            for reject in intake.rejects
        ) == expected
        accepted = [one for one in judged if isinstance(one, dict)]
        assert intake.batch.rows["time"].tolist() == [one["event_time"] for one in accepted]
        ids = [(int(row["id_hi"]), int(row["id_lo"])) for row in intake.batch.rows]
        assert len(set(zip(ids, map(identity_of, accepted)))) == len(set(ids)) == len(set(map(identity_of, accepted)))


@settings(max_examples=300)
@given(st.from_regex(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,9})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
    fullmatch=True,
))
def test_times_are_read_as_the_oracle_reads_them(stamp):
    try:
        expected = time_of_text(stamp)
    except ValueError:
        expected = None
    assert micros(stamp) == expected


_BESIDE_A_GUARDED_PAGE = """
import ctypes, mmap, random
import numpy as np
from measurement.columnar.avro import READER, read_blocks, read_each
from measurement.columnar.hashing import fingerprint

memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
page = np.frombuffer(memory, np.uint8, mmap.PAGESIZE)
datum, chance = bytes.fromhex("{datum}"), random.Random(1)
for _ in range(20_000):
    spoilt = bytearray(datum[: chance.randint(0, len(datum))])
    for _ in range(chance.randint(0, 3)):
        if spoilt:
            spoilt[chance.randrange(len(spoilt))] = chance.choice([0, 1, 2, 4, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)])
    buf = page[mmap.PAGESIZE - len(spoilt):]  # the first byte behind it cannot be read
    buf[:] = bytearray(spoilt)
    read_each(buf, np.array([0, len(buf)]), READER)
    read_blocks(buf, np.array([0, len(buf)]), np.array([3]), READER)
    fingerprint(buf, 0, len(buf), 0)
"""


def test_the_compiled_readers_never_read_past_the_end():
    program = _BESIDE_A_GUARDED_PAGE.replace("{datum}", encode_avro(EVENT).hex())
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- Writers' schemas that ask for Avro's resolution -----------------------------------------------------------

def written(schema: dict, **fields) -> bytes:
    names = {field["name"] for field in schema["fields"]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(
        stream, fastavro.parse_schema(json.loads(json.dumps(schema))),
        {name: value for name, value in {**EVENT, **fields}.items() if name in names},
    )
    return stream.getvalue()


def test_a_text_with_a_logical_type_is_a_text():
    schema = evolved(("event_id", {"type": {"type": "string", "logicalType": "uuid"}}))
    name = "8C1E0C4E-0000-4000-8000-000000000001"
    decoded = decode_datums([written(schema, event_id=name)], schema, Program.for_schema(schema))
    assert text(decoded, 0, "event_id") == name


def test_a_time_without_a_zone_is_a_value_of_the_wrong_type():
    schema = evolved(("event_time", {"type": {"type": "long", "logicalType": "local-timestamp-micros"}}))
    decoded = decode_datums([written(schema, event_time=datetime.datetime(2026, 3, 2))], schema, Program.for_schema(schema))
    assert decoded.wrong == {0: {FIELD_INDEX["event_time"]}}


def test_nothing_of_one_event_is_left_in_the_next():
    schema = evolved(("received_time", {"type": ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]}))
    first = written(schema, received_time=datetime.datetime(2026, 3, 2), user_id="of the first")
    decoded = decode_datums([first, first[:-1], written(schema, event_id="e2")], schema, Program.for_schema(schema))
    assert [text(decoded, row, "user_id") for row in range(2)] == ["of the first", None]
    assert [(piece, payload) for piece, _, _, payload in decoded.failed] == [(1, first[:-1])]


def test_a_time_out_of_range_does_not_hide_where_the_next_datum_begins():
    schema = evolved(("event_time", {"type": {"type": "long", "logicalType": "timestamp-millis"}}))
    good = written(schema, event_time=EVENT["event_time"] // 1000)
    bad = written(evolved(("event_time", {"type": "long"})), event_time=2**62)
    decoded = decode_blocks([good + bad + good], [3], schema, Program.for_schema(schema))
    assert decoded.index.tolist() == [0, 2]
    assert [(index, payload) for _, index, _, payload in decoded.failed] == [(1, bad)]


def test_a_type_that_contains_itself_is_refused():
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    with pytest.raises(ValueError, match="contains itself"):
        WriterSchema.parse(json.dumps(evolved(("tree", {"type": node}))))


FOREIGN = evolved(
    ("price_micros", {"type": ["null", "int", "string"]}), ("event_type", {"type": "bytes"}),
    ("event_time", {"type": {"type": "long", "logicalType": "timestamp-millis"}}),
    ("tags", {"type": {"type": "array", "items": ["null", "long", {"type": "map", "values": "bytes"}]}}),
    ("mood", {"type": {"type": "enum", "name": "Mood", "symbols": ["calm", "wild"]}}),
    ("fee", {"type": {"type": "fixed", "name": "Fee", "size": 3}}), ("share", {"type": "double"}),
)
FOREIGN_DATUM = written(
    FOREIGN, event_type=b"impression", event_time=EVENT["event_time"] // 1000, tags=[None, 5, {"k": b"v"}], mood="wild",
    fee=b"123", share=0.5,
)


@settings(max_examples=400)
@given(st.integers(0, len(FOREIGN_DATUM)), st.lists(st.tuples(
    st.integers(0, len(FOREIGN_DATUM) - 1), st.sampled_from([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFE, 0xFF]),
), max_size=4))
def test_any_bytes_of_another_writers_schema_are_an_event_or_a_reject_with_its_bytes(length, changes):
    spoilt = bytearray(FOREIGN_DATUM)
    for at, byte in changes:
        spoilt[at] = byte
    spoilt = bytes(spoilt[:length])
    decoded = decode_datums([spoilt, FOREIGN_DATUM], FOREIGN, Program.for_schema(FOREIGN))
    assert sorted([*decoded.piece.tolist(), *(piece for piece, *_ in decoded.failed)]) == [0, 1]
    assert [payload for _, _, _, payload in decoded.failed] in ([], [spoilt])
    last = len(decoded.values) - 1
    assert decoded.piece[last] == 1 and text(decoded, last, "event_type") == "impression"
    assert (number(decoded, last, "price_micros"), number(decoded, last, "event_time")) == (12, EVENT["event_time"])
    assert text(decoded, last, "user_id") is None


# --- Frames that are damaged -----------------------------------------------------------------------------------

@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_a_container_with_a_flipped_bit_is_refused_in_one_line_or_read(codec, tmp_path):
    path, spoilt = tmp_path / "e.avro", tmp_path / "spoilt.avro"
    with path.open("wb") as file:
        fastavro.writer(file, V1, [EVENT] * 4, codec=codec, sync_interval=1)
    whole = path.read_bytes()
    header = next(frames(path, 1, 1))[0].positions[0]
    refused = 0
    for at in [*range(0, header, 7), *range(header, len(whole))]:
        spoilt.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
        try:
            for frame, _ in frames(spoilt, 100, 100):
                decode_blocks(frame.pieces, frame.counts, frame.schema.parsed, frame.schema.program)
        except UnreadableInput as error:
            refused += 1
            assert str(spoilt) in str(error) and "\n" not in str(error)
    assert refused


def test_a_block_that_claims_more_events_than_it_holds_loses_none_of_its_own(tmp_path):
    good = encode_avro(EVENT)
    decoded = decode_blocks([good * 2, good], [5, 1], SCHEMA, READER_SCHEMA.program)
    assert decoded.piece.tolist() == [0, 0, 1]
    assert [(piece, index, payload) for piece, index, _, payload in decoded.failed] == [(0, 2, b""), (0, 3, b""), (0, 4, b"")]


@pytest.mark.parametrize("name", ["e.avro.gz", "e.jsonl.gz"])
def test_a_gzip_file_cut_anywhere_is_refused(name, tmp_path):
    whole, cut = io.BytesIO(), tmp_path / name
    if name.endswith(".avro.gz"):
        fastavro.writer(whole, V1, [EVENT] * 3)
    else:
        whole.write(b'{"event_id": "a"}\n' * 3)
    packed = gzip.compress(whole.getvalue())
    for length in [*range(1, 40), *range(40, len(packed), 23), len(packed) - 1]:
        cut.write_bytes(packed[:length])
        with pytest.raises(UnreadableInput, match=name):
            list(frames(cut, 100, 100))
    cut.write_bytes(packed + packed if name.endswith(".jsonl.gz") else packed)
    assert sum(frame.events for frame, _ in frames(cut, 100, 100)) == (6 if name.endswith(".jsonl.gz") else 3)


def test_a_lines_position_is_its_offset_and_reading_goes_on_behind_it(tmp_path):
    path = tmp_path / "e.jsonl"
    lines = [b"{}\r\n", b"\n", b" \t\n", b'  {"a": "\x00"}\n', b"\x00\n", b'{"a": "' + b"x" * 5_000_000 + b'"}\n', b"[]"]
    path.write_bytes(b"".join(lines))
    got = list(frames(path, 1, 1))
    pieces = [piece for frame, _ in got for piece in frame.pieces]
    assert pieces == [line.strip() for line in lines if line.strip()]
    whole = path.read_bytes()
    for frame, behind in got:
        [position], [piece] = frame.positions, frame.pieces
        assert whole[position:].lstrip().startswith(piece)
        rest = [piece for frame, _ in frames(path, 1, 1, behind) for piece in frame.pieces]
        assert rest == pieces[pieces.index(piece) + 1:]
    assert len(decode_lines(pieces).values) == 2  # {} and the long one
