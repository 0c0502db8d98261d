"""The contract's section 2 by worked examples, a test a sentence, and the laws that hold for every log.

What these tests fix is what the pipeline is then compared with.
"""

import dataclasses
import io
import itertools
import json
import math

import fastavro
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from oracle import (
    AVRO_SCHEMA, COUNTS, DAY, DIMENSIONS, EVENT_TYPES, FIRST_TIME, HOUR, JOIN_HORIZON, LAST_TIME, MINUTE,
    PLAIN_SCHEMA, REJECTED, SECOND, TYPES, Oracle, Received, Reject, Screening, Undecodable, Watermark, content_of, count,
    decode_avro, heads_of, identity_of, judge_one, time_of_text,
)
from strategies import (
    BROWSER, ROBOT, encode_avro, encode_json, event_logs, events, interleavings, json_payloads, rfc_3339,
    wrong_payloads,
)

LOGS = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

T = time_of_text("2024-05-06T10:00:00Z")  # the start of an hour
CLOCK = T + 100 * DAY


# --- Writing examples ----------------------------------------------------------------------------------------

def make(event_type: str, event_id: str, time: int = T, **fields) -> dict:
    event = {
        "event_id": event_id, "event_type": event_type, "event_time": time, "advertiser_id": "adv",
        "campaign_id": "camp", **fields,
    }
    unknown = set(event) - set(TYPES)
    assert not unknown, unknown
    return event


def impression(event_id: str = "i", time: int = T, **fields) -> dict:
    return make("impression", event_id, time, **fields)


def follow_up(event_type: str, event_id: str = "f", time: int = T, of: str = "i", **fields) -> dict:
    return make(event_type, event_id, time, impression_id=of, **fields)


def click(event_id: str = "k", time: int = T, of: str = "i", **fields) -> dict:
    return follow_up("click", event_id, time, of, **fields)


def viewability(event_id: str = "v", time: int = T, of: str = "i", **fields) -> dict:
    return follow_up("viewability", event_id, time, of, **fields)


def conversion(event_id: str = "c", time: int = T, **fields) -> dict:
    return make("conversion", event_id, time, **fields)


_pushes = itertools.count()


def push(time: int, **fields) -> list[dict]:
    """As many events at a time as carry the watermark there."""
    return [conversion(f"push-{next(_pushes)}", time, **fields) for _ in range(4)]


def json_event(event: dict, source: str = "events-0", receipt: int = CLOCK) -> Received:
    return Received(encode_json(event), "json", source, receipt)


def avro_event(event: dict, source: str = "events-0", receipt: int = CLOCK) -> Received:
    return Received(encode_avro({**dict.fromkeys(TYPES), **event}), "avro", source, receipt)


def counted(*log: dict | Received, screening: Screening | None = None) -> Oracle:
    """One file of events, counted to its end."""
    arrivals = [(0, item if isinstance(item, Received) else json_event(item)) for item in log]
    return count(arrivals, files=1, screening=screening)


def outcomes(*log: dict | Received, screening: Screening | None = None) -> list[str]:
    return counted(*log, screening=screening).outcomes()


def invalid(*log: dict | Received, screening: Screening | None = None) -> list[tuple[str, str, int]]:
    """(event_type, reason, events) of invalid_traffic, sorted; but for what moves the watermark."""
    return sorted((*key[-2:], events) for key, events in counted(*log, screening=screening).invalid_traffic().items())


def total(oracle: Oracle, name: str) -> int:
    return sum(row[COUNTS.index(name)] for row in oracle.delivery().values())


def row_of(oracle: Oracle) -> dict:
    """The one delivery row there is, by column."""
    [(key, counts)] = oracle.delivery().items()
    return dict(zip(("window_start", *DIMENSIONS, *COUNTS), (*key, *counts)))


def verdict(payload: bytes | dict, encoding: str = "json") -> str:
    """The reason of the reject, or 'accepted'."""
    if isinstance(payload, dict):
        payload = encode_json(payload) if encoding == "json" else encode_avro({**dict.fromkeys(TYPES), **payload})
    judged = judge_one(Received(payload, encoding, "events-0", CLOCK))
    return judged.reason if isinstance(judged, Reject) else "accepted"


def without(event: dict, name: str) -> dict:
    return {key: value for key, value in event.items() if key != name}


# --- Section 1: what is read ---------------------------------------------------------------------------------

def test_json_and_avro_say_the_same():
    event = impression(price_micros=5, format="video", test=False, received_time=T + 1)
    assert judge_one(json_event(event)) == judge_one(avro_event(event)) == {**dict.fromkeys(TYPES), **event}


@pytest.mark.parametrize("encode", [json_event, avro_event])
def test_empty_text_is_null(encode):
    assert judge_one(encode(impression(country="", user_agent="")))["country"] is None
    assert judge_one(encode(impression(advertiser_id=""))).reason == "missing_field"


def test_empty_text_is_null_in_a_number_too():
    assert judge_one(json_event(impression(price_micros="", test="", received_time="")))["price_micros"] is None


def test_unknown_json_fields_are_ignored():
    payload = encode_json({**impression(), "tomorrow": [1, {"event_id": None}]})
    assert verdict(payload) == "accepted"


def test_an_absent_json_field_is_null():
    assert judge_one(json_event(impression()))["user_id"] is None


def test_of_a_json_name_given_twice_the_last_value_stands():
    payload = encode_json(impression())[:-1] + b', "event_id": "second"}'
    assert judge_one(Received(payload, "json", "events-0", CLOCK))["event_id"] == "second"


@pytest.mark.parametrize("text, time", [
    ("2024-05-06T10:00:00Z", T),
    ("2024-05-06t10:00:00z", T),
    ("2024-05-06T10:00:00+00:00", T),
    ("2024-05-06T10:00:00-00:00", T),
    ("2024-05-06T12:00:00+02:00", T),
    ("2024-05-06T00:30:00-09:30", T),
    ("2024-05-06T10:00:00.5Z", T + SECOND // 2),
    ("2024-05-06T10:00:00.000001Z", T + 1),
    ("2024-05-06T10:00:00.0000019Z", T + 1),
    ("1969-12-31T23:59:59.9999999Z", -1),
    ("0001-01-01T00:00:00Z", FIRST_TIME),
    ("9999-12-31T23:59:59.999999Z", LAST_TIME),
])
def test_json_times_are_rfc_3339_text(text, time):
    event = judge_one(json_event(impression(time=text, received_time=text)))
    assert (event["event_time"], event["received_time"]) == (time, time)


@pytest.mark.parametrize("value", [
    "2024-05-06T10:00:00", "2024-05-06", "2024-05-06T10:00Z", "20240506T100000Z", "2024-05-06 10:00:00Z",
    "2024-05-06T10:00:00+0200", "2024-05-06T10:00:00+02", "2024-05-06T10:00:00,5Z", "2024-05-06T10:00:00.Z",
    "2024-05-06T24:00:00Z", "2024-05-06T10:60:00Z", "2016-12-31T23:59:60Z", "2023-02-29T00:00:00Z",
    "2024-05-06T10:00:00+24:00", "2024-05-06T10:00:00+02:60", "0000-05-06T10:00:00Z", "yesterday", " ",
    "\u0662024-05-06T10:00:00Z", "2024-05-06T10:00:00Z\n", "1714989600000000", 1.5, 1714989600000000.0, True, [], {},
])
def test_a_time_that_is_neither_rfc_3339_nor_an_integer_is_a_bad_value_and_unread(value):
    judged = judge_one(json_event(impression(time=value)))
    assert (judged.reason, judged.event_time) == ("bad_value", None)


@pytest.mark.parametrize("value", [
    FIRST_TIME - 1, LAST_TIME + 1, -(2**63), 2**63, 10**40, "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
])
def test_a_time_outside_the_years_0001_to_9999_is_a_bad_value_and_unread(value):
    judged = judge_one(json_event(impression(time=value)))
    assert (judged.reason, judged.event_time, judged.event_id) == ("bad_value", None, "i")
    judged = judge_one(json_event(impression(received_time=value)))
    assert (judged.reason, judged.event_time, judged.event_id) == ("bad_value", T, "i")


def test_receipt_is_received_time_else_the_readers_clock():
    late = impression(time=T + HOUR)
    assert judge_one(json_event({**late, "received_time": T}, receipt=T + HOUR)).reason == "future"
    assert judge_one(json_event({**late, "received_time": T + HOUR}, receipt=T))["event_id"] == "i"
    assert judge_one(json_event(late, receipt=T)).reason == "future"
    assert judge_one(json_event(late, receipt=T + HOUR))["event_id"] == "i"


# --- One outcome each, the first that holds ------------------------------------------------------------------

@pytest.mark.parametrize("payload", [
    b"", b" ", b"nonsense", b"{", b"[]", b"null", b"5", b'"text"', b"{}{}", b"\xff", b'\xef\xbb\xbf{}', b"{}\x00",
    b'{"event_id": NaN}', b'{"x": Infinity}', b'{"x": -Infinity}', b'{"x": 1e400}', b'{"x": ' + b"9" * 5000 + b"}",
    b'{"x": "\xff"}', b'{"x": "\xed\xa0\x80"}', b'{"x": "\\ud800"}', b'{"\\udc00": 1}', b'{"x": [{"y": ["\\ud800"]}]}',
    b'{"x": "\\ud800", "x": 1}', b'{"x": "\n"}', b"{'x': 1}", b'{"x": 01}', b'{"x": 1,}', b"[" * 100_000,
])
def test_json_that_is_no_object_of_text_is_undecodable(payload):
    judged = judge_one(Received(payload, "json", "events-0", CLOCK))
    assert (judged.reason, judged.event_id, judged.event_time, judged.event_type, judged.source_id) == (
        "undecodable", None, None, None, None
    )


def test_both_halves_of_a_surrogate_pair_are_a_character():
    payload = encode_json(impression(event_id="\U0001f600"), ensure_ascii=True)
    assert b"\\ud83d\\ude00" in payload
    assert judge_one(Received(payload, "json", "events-0", CLOCK))["event_id"] == "\U0001f600"


def test_a_nul_in_text_is_text():
    assert judge_one(json_event(impression("i\x00")))["event_id"] == "i\x00"
    assert judge_one(avro_event(impression("i\x00")))["event_id"] == "i\x00"


def test_an_avro_datum_cut_short_anywhere_is_undecodable():
    datum = avro_event(impression(user_agent=BROWSER, price_micros=10**15, received_time=T)).payload
    for length in range(len(datum)):
        assert verdict(datum[:length], "avro") == "undecodable"


def test_bytes_after_an_avro_datum_are_undecodable():
    assert verdict(avro_event(impression()).payload + b"\x00", "avro") == "undecodable"


def _avro_with(old: bytes, new: bytes, **fields) -> bytes:
    """An impression's datum with some of its bytes replaced."""
    datum = avro_event(impression(**fields)).payload
    assert datum.count(old) == 1
    return datum.replace(old, new)


ID_I, CAMPAIGN, TEST_TRUE = b"\x02i\x14impression", b"\x02\x08camp", b"\x02\x01\x00"
TIME_1 = b"\x14impression\x02\x06adv"  # an event_time of one microsecond


@pytest.mark.parametrize("payload", [
    _avro_with(ID_I, b"\x02\xff\x14impression"),  # a byte that no UTF-8 has
    _avro_with(ID_I, b"\x06\xed\xa0\x80\x14impression"),  # a surrogate
    _avro_with(ID_I, b"\x01\x14impression"),  # length -1
    _avro_with(ID_I, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x14impression"),  # length 2^63 - 1
    _avro_with(ID_I, b"\x82\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00i\x14impression"),  # a varint of eleven bytes
    _avro_with(ID_I, b"\x82\x80\x80\x80\x80\x80\x80\x80\x80\x02i\x14impression"),  # a length of 65 bits
    _avro_with(TIME_1, b"\x14impression\x82\x80\x80\x80\x80\x80\x80\x80\x80\x02\x06adv", time=1),  # a time of 65 bits
    _avro_with(CAMPAIGN, b"\x01\x08camp"),  # union branch -1
    _avro_with(CAMPAIGN, b"\x04\x08camp"),  # union branch 2
    _avro_with(TEST_TRUE, b"\x02\x02\x00", test=True),  # a boolean of 2
])
def test_bytes_that_avro_does_not_define_are_undecodable(payload):
    assert verdict(payload, "avro") == "undecodable"


def test_a_varint_longer_than_it_need_be_is_read():
    assert verdict(_avro_with(ID_I, b"\x82\x80\x00i\x14impression"), "avro") == "accepted"


@pytest.mark.parametrize("name", ["event_id", "event_type", "event_time", "advertiser_id"])
@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_type_needs_these_fields(name, event_type):
    event = follow_up(event_type)
    assert verdict(without(event, name)) == "missing_field"
    assert verdict({**event, name: None}) == "missing_field"
    assert verdict({**event, name: ""}) == "missing_field"


def test_every_type_but_conversion_needs_a_campaign():
    for event_type in EVENT_TYPES:
        expected = "accepted" if event_type == "conversion" else "missing_field"
        assert verdict(without(follow_up(event_type), "campaign_id")) == expected


def test_clicks_viewability_and_quartiles_need_an_impression_id():
    for event_type in EVENT_TYPES:
        expected = "accepted" if event_type in ("conversion", "impression") else "missing_field"
        assert verdict(without(follow_up(event_type), "impression_id")) == expected


@pytest.mark.parametrize("event_type", ["Impression", "click ", "view", "firstquartile", "\x00", 5, True, [], {}])
def test_a_type_that_is_not_listed_is_unknown_whatever_its_json_type(event_type):
    judged = judge_one(json_event(make(event_type, "x")))
    assert judged.reason == "unknown_type"
    assert judged.event_type == (event_type if isinstance(event_type, str) else None)


@pytest.mark.parametrize(
    "name", ["price_micros", "value_micros", "visible_ms", "audible_ms", "played_ms", "ad_duration_ms"]
)
def test_a_negative_price_value_or_duration_is_a_bad_value(name):
    for encoding in ("json", "avro"):
        assert verdict(impression(**{name: -1}), encoding) == "bad_value"
        assert verdict(impression(**{name: 0}), encoding) == "accepted"


def test_a_percentage_outside_0_to_100_is_a_bad_value():
    for encoding in ("json", "avro"):
        found = [verdict(viewability(visible_percent=percent), encoding) for percent in (-1, 0, 100, 101)]
        assert found == ["bad_value", "accepted", "accepted", "bad_value"]


def test_an_unknown_format_is_a_bad_value():
    assert verdict(impression(format="Video")) == "bad_value"
    assert verdict(conversion(format="native")) == "bad_value"


@pytest.mark.parametrize("ip, expected", [
    ("192.0.2.1", "accepted"), ("2001:db8::1", "accepted"), ("::ffff:192.0.2.1", "accepted"),
    ("fe80::1%eth0", "accepted"), ("192.0.2.256", "bad_value"), ("192.0.2.01", "bad_value"),
    ("192.0.2.0/24", "bad_value"), ("localhost", "bad_value"), ("1", "bad_value"), (" 192.0.2.1", "bad_value"),
])
def test_an_address_that_does_not_parse_is_a_bad_value(ip, expected):
    assert verdict(impression(ip=ip)) == expected


WRONG_BY_TYPE = {
    "string": [5, True, 1.5, [], {}],
    "int": ["5", True, 1.0, -0.0, 1e3, [], {}, 2**31, -(2**31) - 1],
    "long": ["5", True, 1.0, -0.0, 1e3, [], {}, 2**63, -(2**63) - 1, 10**30],
    "boolean": ["true", 0, 1, 1.0, [], {}],
    "time": ["5", True, 1.0, -0.0, 1e3, [], {}, 2**63, -(2**63) - 1],
}


@pytest.mark.parametrize("name", TYPES)
def test_a_value_of_another_json_type_is_a_bad_value_and_not_missing(name):
    if name == "event_type":
        return  # unknown_type comes first
    for value in WRONG_BY_TYPE[TYPES[name][0]]:
        judged = judge_one(json_event({**follow_up("start"), name: value}))
        assert (judged.reason, value) == ("bad_value", value)
        if name in ("event_id", "event_time", "source_id"):
            assert getattr(judged, name) is None


def test_numbers_fit_their_avro_type():
    assert verdict(impression(creative_width=2**31 - 1, creative_height=-(2**31))) == "accepted"
    assert verdict(impression(price_micros=2**63 - 1)) == "accepted"


def test_a_number_beyond_32_bits_in_an_avro_int_is_a_bad_value():
    wide = {**AVRO_SCHEMA, "fields": [
        {**each, "type": ["null", "long"]} if each["name"] == "creative_width" else each
        for each in AVRO_SCHEMA["fields"]
    ]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(wide), {
        **dict.fromkeys(TYPES), **impression(creative_width=2**31),
    })
    assert verdict(stream.getvalue(), "avro") == "bad_value"


@pytest.mark.parametrize("event, reason", [
    ({}, "missing_field"),
    ({"event_type": "view"}, "missing_field"),  # before unknown_type: event_id is not there
    (without(make("view", "x", price_micros=-1), "campaign_id"), "unknown_type"),  # before missing_field of its type
    (without(click(price_micros=-1), "impression_id"), "missing_field"),  # before bad_value
    (impression(time=CLOCK + HOUR, price_micros=-1), "bad_value"),  # before future
    (impression(time=CLOCK + HOUR), "future"),
    (click(of=5), "bad_value"),  # of the wrong type, and there
])
def test_the_first_reason_that_holds_is_the_outcome(event, reason):
    assert verdict(event) == reason


def test_an_event_more_than_10_minutes_ahead_of_its_receipt_is_future():
    for encode in (json_event, avro_event):
        assert isinstance(judge_one(encode(impression(received_time=T - 10 * MINUTE))), dict)
        assert judge_one(encode(impression(received_time=T - 10 * MINUTE - 1))).reason == "future"


def test_future_comes_before_too_late_and_id_conflict():
    log = [impression(), *push(T + 8 * DAY), impression(price_micros=1, received_time=T - HOUR)]
    assert outcomes(*log)[-1] == "future"


def test_too_late_comes_before_id_conflict_and_duplicate():
    log = [impression(), *push(T + 7 * DAY + 1), impression(), impression(price_micros=1)]
    assert outcomes(*log)[-2:] == ["too_late", "too_late"]


def test_id_conflict_comes_before_orphan():
    log = [*push(T + 23 * HOUR), click(), *push(T + 23 * HOUR), click(price_micros=1)]
    assert outcomes(*log)[-1] == "id_conflict"


def test_duplicate_comes_before_invalid_traffic():
    assert outcomes(impression(user_agent=ROBOT), impression(user_agent=ROBOT)) == ["invalid_traffic", "duplicate"]


def test_orphan_comes_before_invalid_traffic():
    assert outcomes(click(user_agent=ROBOT)) == ["orphan"]


def test_counted_is_accepted_and_valid_also_where_it_adds_nothing():
    oracle = counted(impression(), follow_up("start", "f1"), follow_up("start", "f2"))
    assert oracle.outcomes() == ["counted"] * 3
    assert total(oracle, "starts") == 1


# --- Only accepted events move the watermark, and no single one far ----------------------------------------

def test_the_watermark_is_the_time_that_four_consecutive_accepted_events_have_reached():
    watermark = Watermark(files=1)
    seen = []
    for time in (50, 10, 40, 30, 20, 60, 70, 80, 10, 90):
        watermark.accept(0, time)
        seen.append(watermark.now())
    assert seen == [-math.inf] * 3 + [10, 10, 20, 20, 20, 20, 20]


def test_the_watermark_is_the_least_over_the_files():
    watermark = Watermark(files=3)
    for file, time in ((0, 30), (1, 20)):
        for _ in range(4):
            watermark.accept(file, time)
    assert watermark.now() == -math.inf  # file 2 has not begun
    watermark.end(2)
    assert watermark.now() == 20
    watermark.end(1)
    assert watermark.now() == 30
    watermark.end(0)
    assert watermark.now() == math.inf


def test_a_file_begins_where_its_first_four_accepted_events_will_bring_it():
    watermark = Watermark(files=3, heads=[[50, 40, 60, 70, 10], [20, 20, 20], [45, 45, 45, 45]])
    assert watermark.now() == -math.inf  # file 1 has too few
    watermark.end(1)
    seen = []
    for time in (50, 40, 60, 70, 10):
        watermark.accept(0, time)
        seen.append(watermark.now())
    assert seen == [40] * 5


def test_a_file_not_yet_read_does_not_hold_the_watermark_at_minus_infinity():
    ahead = [(0, json_event(event)) for event in push(T + 10 * DAY)]
    late = (0, json_event(impression("late", T)))
    other = [(1, json_event(event)) for event in push(T + 9 * DAY)]
    assert count([*ahead, late, *other], files=2).outcomes()[4] == "too_late"
    assert count([*ahead, late, *other[:3]], files=2).outcomes()[4] == "counted"


def test_a_heads_rejected_events_do_not_count():
    log = [(0, json_event(event)) for event in (impression("x", T - 20 * DAY, price_micros=-1), *push(T), click(time=T))]
    assert heads_of(log, 1) == [[T] * 4]


def test_a_single_event_far_ahead_of_its_fellows_does_not_move_the_watermark():
    ahead = [impression(f"ahead-{number}", T + 30 * DAY) for number in range(3)]
    assert outcomes(impression(), *ahead, impression("late"))[-1] == "counted"


def test_a_rejected_event_does_not_move_the_watermark():
    ahead = [
        impression(f"x{number}", T + 30 * DAY, price_micros=-1, received_time=T + 30 * DAY) for number in range(4)
    ] + [impression(f"y{number}", T + 30 * DAY, received_time=T) for number in range(4)]
    found = outcomes(*push(T), *ahead, impression("late"))
    assert set(found[4:12]) == {"bad_value", "future"} and found[12] == "counted"


def test_an_event_too_late_does_not_break_a_run_that_moves_the_watermark():
    log = [*push(T), *push(T + 10 * DAY)[:3], impression("old", T - 8 * DAY), *push(T + 10 * DAY)[:1]]
    assert outcomes(*log, impression("then", T + 3 * DAY - 1), impression("now", T + 3 * DAY))[-2:] == [
        "too_late", "counted",
    ]


def test_duplicates_and_conflicts_are_accepted_events_to_the_watermark():
    ahead = impression("a", T + 10 * DAY)
    log = [ahead, ahead, {**ahead, "price_micros": 1}, ahead, impression("old", T)]
    assert outcomes(*log) == ["counted", "duplicate", "id_conflict", "duplicate", "too_late"]


def test_an_event_is_judged_by_the_watermark_as_it_stood_before_it():
    again = impression(time=T + 8 * DAY)  # with it the watermark passes the first one's horizon
    assert outcomes(impression(), *push(T + 8 * DAY)[:3], again)[-1] == "id_conflict"
    assert outcomes(impression(), *push(T + 8 * DAY), again)[-1] == "counted"


# --- Identity, duplicates, conflicts -------------------------------------------------------------------------

def test_the_same_identity_again_with_the_same_content_is_a_duplicate_counted_once():
    oracle = counted(impression(), impression(), impression())
    assert oracle.outcomes() == ["counted", "duplicate", "duplicate"]
    assert total(oracle, "gross_impressions") == 1


def test_received_time_is_no_content():
    assert outcomes(impression(received_time=T), impression(received_time=T + HOUR)) == ["counted", "duplicate"]


def test_the_encoding_is_no_content():
    event = impression(country="SE")
    spelt = {**event, "event_time": rfc_3339(T, 120), "user_id": "", "user_agent": None}
    assert outcomes(json_event(event), avro_event(event), json_event(spelt)) == ["counted", "duplicate", "duplicate"]


def test_a_field_unknown_to_the_schema_is_no_content():
    later = Received(encode_json({**impression(), "tomorrow": 1}), "json", "events-0", CLOCK)
    assert outcomes(impression(), later) == ["counted", "duplicate"]


@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("event_id", "event_type", "received_time")])
def test_with_other_content_in_any_field_it_is_an_id_conflict(name):
    other = {"string": "other", "int": 7, "long": 7, "boolean": False, "time": T + 1}[TYPES[name][0]]
    if name in ("format", "ip"):
        other = {"format": "audio", "ip": "192.0.2.9"}[name]
    assert outcomes(impression(), {**impression(), name: other}) == [
        "counted", "id_conflict",
    ]


def test_of_two_contents_the_first_to_arrive_stays():
    oracle = counted(*(impression(country=country) for country in ("SE", "DE", "DE", "SE")))
    assert oracle.outcomes() == ["counted", "id_conflict", "id_conflict", "duplicate"]
    assert row_of(oracle)["country"] == "SE"


def test_an_event_id_is_unique_within_its_impression_only():
    oracle = counted(impression("a"), impression("b"), click("k", of="a"), click("k", of="b"))
    assert oracle.outcomes() == ["counted"] * 4
    assert total(oracle, "clicks") == 2


def test_two_types_of_one_impression_share_its_ids():
    assert outcomes(impression(), click("f"), follow_up("start", "f")) == ["counted", "counted", "id_conflict"]


def test_an_impression_and_a_conversion_of_one_id_are_one_identity():
    assert outcomes(impression("x"), conversion("x")) == ["counted", "id_conflict"]


def test_a_follow_up_of_its_impressions_own_id_is_the_impressions_identity():
    assert outcomes(impression("x"), click("x", of="x")) == ["counted", "id_conflict"]
    assert outcomes(click("x", of="x"), impression("x")) == ["orphan", "id_conflict"]


def test_an_impression_id_on_an_impression_or_conversion_changes_no_identity():
    log = [impression("a", impression_id="b"), impression("b"), conversion("c", impression_id="b"), click(of="a")]
    assert outcomes(*log) == ["counted"] * 4


def test_a_duplicate_is_found_up_to_the_dedup_horizon_and_is_too_late_after():
    assert outcomes(impression(), *push(T + 7 * DAY), impression())[-1] == "duplicate"
    assert outcomes(impression(), *push(T + 7 * DAY + 1), impression())[-1] == "too_late"


def test_a_late_event_within_the_dedup_horizon_is_counted():
    oracle = counted(*push(T + 7 * DAY), impression())
    assert oracle.outcomes()[-1] == "counted"
    assert row_of(oracle)["window_start"] == T


def test_an_identity_is_forgotten_behind_the_dedup_horizon():
    again = impression(time=T + 7 * DAY)
    assert outcomes(impression(), *push(T + 7 * DAY), again)[-1] == "id_conflict"
    oracle = counted(impression(), *push(T + 7 * DAY + 1), again)
    assert oracle.outcomes()[-1] == "counted"
    assert total(oracle, "gross_impressions") == 2


def test_an_impression_that_takes_a_forgotten_id_over_is_the_one_joined():
    again = impression(time=T + 2, country="SE")
    oracle = counted(impression(), *push(T + 7 * DAY + 1), again, click(time=T + 1 + HOUR))
    assert oracle.outcomes()[-2:] == ["counted", "counted"]
    country, clicks = 1 + DIMENSIONS.index("country"), COUNTS.index("clicks")
    assert {key[country]: counts[clicks] for key, counts in oracle.delivery().items()} == {None: 0, "SE": 1}


# --- Orders --------------------------------------------------------------------------------------------------

def test_conversions_of_one_order_are_one_the_earliest():
    late, early = conversion("a", T + 1, order_id="o"), conversion("b", T, order_id="o")
    assert outcomes(late, early) == ["duplicate", "counted"]
    assert outcomes(early, late) == ["counted", "duplicate"]


def test_conversions_of_one_order_at_one_time_go_by_event_id_as_utf_8():
    first, second = conversion("\uff5e", order_id="o"), conversion("\U0001f600", order_id="o")
    assert outcomes(first, second) == ["counted", "duplicate"]
    assert outcomes(second, first) == ["duplicate", "counted"]


@pytest.mark.parametrize("other", [
    {"advertiser_id": "adv-2"}, {"conversion_type": "lead"}, {"conversion_type": None}, {"order_id": "p"},
    {"order_id": None}, {"test": True},
])
def test_an_order_is_of_one_advertiser_conversion_type_and_order_id(other):
    one = conversion("a", order_id="o", conversion_type="purchase")
    assert outcomes(one, {**one, "event_id": "b", **other}) == ["counted", "counted"]
    assert outcomes(one, {**one, "event_id": "b"}) == ["counted", "duplicate"]


def test_without_an_order_id_conversions_are_each_their_own():
    assert outcomes(conversion("a"), conversion("b"), conversion("c", order_id="")) == ["counted"] * 3


def test_an_order_id_means_nothing_outside_conversions():
    assert outcomes(impression("a", order_id="o"), impression("b", order_id="o")) == ["counted", "counted"]


def test_of_many_conversions_of_an_order_the_earliest_stays_in_every_order_of_arrival():
    log = [conversion(name, T + time, order_id="o") for name, time in (("a", 2), ("b", 0), ("c", 0), ("d", 1))]
    for arrived in itertools.permutations(log):
        found = dict(zip((event["event_id"] for event in arrived), outcomes(*arrived)))
        assert found == {"a": "duplicate", "b": "counted", "c": "duplicate", "d": "duplicate"}


def test_the_earliest_of_an_order_is_judged_by_its_own_verdict():
    robot, person = conversion("a", T, order_id="o", user_agent=ROBOT), conversion("b", T + 1, order_id="o")
    assert outcomes(person, robot) == ["duplicate", "invalid_traffic"]


def test_an_order_is_one_within_the_dedup_horizon_and_forgotten_behind_it():
    first, second = conversion("a", T, order_id="o"), conversion("b", T + 7 * DAY, order_id="o")
    assert outcomes(first, *push(T + 7 * DAY), second)[-1] == "duplicate"
    assert outcomes(first, *push(T + 7 * DAY + 1), second)[-1] == "counted"


def test_a_copy_of_a_conversion_that_lost_its_order_is_a_duplicate():
    assert outcomes(conversion("a", T, order_id="o"), *[conversion("b", T + 1, order_id="o")] * 2) == [
        "counted", "duplicate", "duplicate",
    ]


def test_a_conflicting_copy_of_the_earliest_does_not_touch_the_order():
    log = [conversion("a", T, order_id="o"), conversion("a", T - 1, order_id="o"), conversion("b", T - 1, order_id="p")]
    assert outcomes(*log) == ["counted", "id_conflict", "counted"]


# --- Follow-ups ----------------------------------------------------------------------------------------------

def test_a_click_two_hours_after_its_impression_counts_in_the_impressions_hour():
    row = row_of(counted(impression(), click(time=T + 2 * HOUR)))
    assert (row["window_start"], row["impressions"], row["clicks"]) == (T, 1, 1)


def test_a_follow_up_counts_under_the_dimensions_of_the_impression():
    ours = dict(
        advertiser_id="a1", campaign_id="c1", line_item_id="l1", creative_id="cr1", placement_id="p1", format="video",
        country="SE", device_type="ctv", currency="SEK",
    )
    theirs = {name: None for name in ours} | {"advertiser_id": "a2", "campaign_id": "c2", "currency": "EUR"}
    row = row_of(counted(impression(**ours), click(**theirs)))
    assert {name: row[name] for name in DIMENSIONS} == ours
    assert row["clicks"] == 1


def test_a_follow_up_before_its_impression_in_arrival_is_joined_the_same():
    log = [click("k"), viewability("v"), follow_up("start", "s"), impression()]
    assert counted(*log).delivery() == counted(*reversed(log)).delivery()
    assert outcomes(*log) == ["counted"] * 4


def test_a_follow_up_earlier_than_its_impression_is_joined_too():
    assert outcomes(click(time=T - 24 * HOUR), impression()) == ["counted", "counted"]


@pytest.mark.parametrize("event_type, column", [
    ("start", "starts"), ("firstQuartile", "first_quartiles"), ("midpoint", "midpoints"),
    ("thirdQuartile", "third_quartiles"), ("complete", "completes"),
])
def test_an_impression_has_at_most_one_of_each_quartile(event_type, column):
    row = row_of(counted(impression(), follow_up(event_type, "a"), follow_up(event_type, "b", T + SECOND)))
    assert {name: row[name] for name in COUNTS if row[name]} == {"gross_impressions": 1, "impressions": 1, column: 1}


def test_an_impression_is_at_most_once_measurable_viewable_and_audible():
    seen = dict(visible_percent=100, visible_ms=5000, audible_ms=5000)
    row = row_of(counted(impression(format="video"), viewability("a", **seen), viewability("b", **seen)))
    assert (row["measurable_impressions"], row["viewable_impressions"], row["audible_impressions"]) == (1, 1, 1)


def test_clicks_are_counted_each():
    assert total(counted(impression(), click("a"), click("b"), click("c")), "clicks") == 3


@pytest.mark.parametrize("distance, outcome", [
    (JOIN_HORIZON, "counted"), (-JOIN_HORIZON, "counted"), (JOIN_HORIZON + 1, "orphan"), (-JOIN_HORIZON - 1, "orphan"),
])
def test_a_follow_up_joins_an_impression_at_most_24_hours_away(distance, outcome):
    assert outcomes(impression(), click(time=T + distance)) == ["counted", outcome]
    assert outcomes(click(time=T + distance), impression()) == [outcome, "counted"]


def test_a_follow_up_waits_until_the_watermark_is_24_hours_past_its_own_time():
    late_impression = impression(time=T)
    assert outcomes(click(), *push(T + 24 * HOUR - 1), late_impression)[0] == "counted"
    assert outcomes(click(), *push(T + 24 * HOUR), late_impression)[0] == "orphan"


def test_a_follow_up_that_waits_has_no_other_outcome_yet():
    oracle = Oracle(files=1)
    oracle.receive(0, json_event(click()))
    assert oracle.ledger() == {(T, "events-0", "click", "waiting"): 1}
    assert oracle.rejects() == []
    oracle.finish()
    assert oracle.ledger() == {(T, "events-0", "click", "orphan"): 1}


def test_a_follow_up_that_arrives_when_its_wait_is_over_joins_an_impression_already_known():
    assert outcomes(impression(), *push(T + 3 * DAY), click())[-1] == "counted"


def test_a_follow_up_that_arrives_when_its_wait_is_over_and_finds_no_impression_is_an_orphan_at_once():
    oracle = Oracle(files=1)
    for event in [*push(T + 24 * HOUR), click()]:
        oracle.receive(0, json_event(event))
    assert oracle.outcomes()[-1] == "orphan"


def test_an_impression_stays_joinable_for_24_hours_behind_the_dedup_horizon():
    log = [impression(), *push(T + 8 * DAY), click(time=T + 24 * HOUR)]
    assert outcomes(*log)[-1] == "counted"


def test_an_impression_whose_id_another_event_has_taken_is_not_followed_any_more():
    log = [impression(), *push(T + 7 * DAY + 1), conversion("i", T + DAY), click(time=T + DAY)]
    assert outcomes(*log)[-2:] == ["counted", "orphan"]


def test_an_impression_out_of_reach_does_not_end_the_wait():
    oracle = Oracle(files=1)
    oracle.receive(0, json_event(impression()))
    oracle.receive(0, json_event(click(time=T + 25 * HOUR)))
    assert oracle.outcomes() == ["counted", "waiting"]


def test_a_copy_of_one_that_waits_is_a_duplicate():
    oracle = counted(click(), click(), impression())
    assert oracle.outcomes() == ["counted", "duplicate", "counted"]
    assert total(oracle, "clicks") == 1
    assert outcomes(click(), click()) == ["orphan", "duplicate"]


def test_another_content_under_the_id_of_one_that_waits_is_an_id_conflict():
    assert outcomes(click(), click(price_micros=1), impression()) == ["counted", "id_conflict", "counted"]


def test_the_rejection_of_an_orphan_frees_its_id_and_a_later_copy_is_judged_afresh():
    log = [click(), *push(T + 24 * HOUR), impression(), click(), click()]
    assert outcomes(*log) == ["orphan", *["counted"] * 4, "counted", "counted", "duplicate"]


def test_a_later_copy_of_an_orphan_may_have_other_content():
    log = [click(), *push(T + 24 * HOUR), impression(), click(price_micros=7)]
    assert outcomes(*log)[-1] == "counted"


def test_a_later_copy_of_an_orphan_without_an_impression_is_an_orphan_again():
    log = [click(), *push(T + 24 * HOUR), click(), click()]
    oracle = counted(*log)
    assert [oracle.outcomes()[i] for i in (0, 5, 6)] == ["orphan", "orphan", "orphan"]
    assert len(oracle.rejects()) == 3


def test_waits_end_before_the_next_event_is_judged():
    log = [click(), *push(T + 24 * HOUR)[:3]]
    last = push(T + 24 * HOUR)[0]
    # The watermark passes with the fourth event, so the fifth finds the wait over.
    assert outcomes(*log, last, impression())[0] == "orphan"
    assert outcomes(*log, impression(), last)[0] == "counted"


def test_a_file_that_ends_lets_the_watermark_pass_it():
    log = [(0, json_event(event)) for event in [click(), *push(T + 2 * DAY)]]
    late = (0, json_event(impression()))
    assert count([*log, late, (1, None)], files=2).outcomes()[0] == "counted"
    assert count([(1, None), *log, late], files=2).outcomes()[0] == "orphan"


# --- Viewable, audible, spend --------------------------------------------------------------------------------

def test_measurable_is_an_impression_with_at_least_one_viewability_event():
    row = row_of(counted(impression(), viewability()))
    assert (row["measurable_impressions"], row["viewable_impressions"], row["audible_impressions"]) == (1, 0, 0)


@pytest.mark.parametrize("impression_format, percent, milliseconds, viewable", [
    ("display", 50, 1000, 1), ("display", 49, 1000, 0), ("display", 50, 999, 0), ("display", 100, 10**9, 1),
    ("video", 50, 2000, 1), ("video", 50, 1999, 0), ("video", 49, 2000, 0),
    ("audio", 100, 10**9, 0), (None, 100, 10**9, 0),
    ("display", None, 1000, 0), ("display", 50, None, 0), ("video", None, None, 0),
])
def test_viewable_is_a_percentage_and_a_time_by_the_impressions_format(
    impression_format, percent, milliseconds, viewable
):
    event = viewability(visible_percent=percent, visible_ms=milliseconds, format="display")
    assert total(counted(impression(format=impression_format), event), "viewable_impressions") == viewable


@pytest.mark.parametrize("width, height, percent, milliseconds, viewable", [
    (970, 250, 30, 1000, 1), (970, 250, 29, 1000, 0), (970, 250, 30, 999, 0), (970, 250, 49, 5000, 1),  # 242,500 px
    (242_499, 1, 49, 1000, 0), (242_499, 1, 50, 1000, 1), (1, 242_500, 30, 1000, 1), (300, 1050, 30, 1000, 1),
    (-970, -250, 30, 1000, 0), (0, 0, 49, 1000, 0), (None, 250, 49, 1000, 0), (970, None, 49, 1000, 0),
    (2**31 - 1, 2**31 - 1, 30, 1000, 1),
])
def test_of_a_large_display_ad_30_percent_are_enough(width, height, percent, milliseconds, viewable):
    event = viewability(visible_percent=percent, visible_ms=milliseconds)
    large = dict(creative_width=width, creative_height=height)
    assert total(counted(impression(format="display", **large), event), "viewable_impressions") == viewable
    on_video = counted(impression(format="video", **large), {**event, "visible_ms": 5000})
    assert total(on_video, "viewable_impressions") == (percent >= 50)


def test_the_size_is_the_impressions():
    event = viewability(visible_percent=30, visible_ms=1000, creative_width=970, creative_height=250, format="display")
    assert total(counted(impression(format="display"), event), "viewable_impressions") == 0


def test_viewable_needs_percentage_and_time_of_one_event():
    log = [
        impression(format="display"),
        viewability("a", visible_percent=100, visible_ms=500), viewability("b", visible_percent=20, visible_ms=5000),
    ]
    assert total(counted(*log), "viewable_impressions") == 0


@pytest.mark.parametrize("impression_format, milliseconds, audible", [
    ("audio", 2000, 1), ("audio", 1999, 0), ("video", 2000, 1), ("video", None, 0), ("display", 5000, 0),
    (None, 5000, 0),
])
def test_audible_is_two_seconds_of_an_audio_or_video_impression(impression_format, milliseconds, audible):
    log = [impression(format=impression_format), viewability(audible_ms=milliseconds, format="audio")]
    assert total(counted(*log), "audible_impressions") == audible


def test_spend_is_the_price_of_every_valid_event_counted_under_the_impression():
    log = [
        impression(price_micros=100, currency="SEK"), click("k", price_micros=20, currency="EUR"),
        click("l", price_micros=None), viewability(price_micros=3),
        follow_up("start", "s1", price_micros=1000), follow_up("start", "s2", price_micros=1000),
        click("r", price_micros=5_000_000, user_agent=ROBOT),
    ]
    row = row_of(counted(*log))
    assert (row["spend_micros"], row["currency"], row["starts"]) == (2123, "SEK", 1)


def test_a_duplicate_and_a_conflict_spend_nothing():
    log = [impression(price_micros=100)] * 2 + [impression(price_micros=200)]
    assert total(counted(*log), "spend_micros") == 100


def test_spend_is_an_exact_integer():
    log = [impression(name, price_micros=price) for name, price in (("a", 2**53 + 1), ("b", 2**53 + 1), ("c", 1))]
    assert total(counted(*log), "spend_micros") == 2**54 + 3


def test_a_conversions_value_and_price_are_not_spend_and_make_no_row():
    assert counted(conversion(price_micros=5, value_micros=7, order_id="o")).delivery() == {}


# --- Invalid traffic -----------------------------------------------------------------------------------------

def test_an_invalid_impression_counts_in_gross_and_not_in_net():
    row = row_of(counted(impression(user_agent=ROBOT, price_micros=5)))
    assert {name: row[name] for name in COUNTS if row[name]} == {"gross_impressions": 1}


def test_what_follows_an_invalid_impression_is_invalid():
    seen = dict(visible_percent=100, visible_ms=5000, audible_ms=5000)
    log = [
        impression(user_agent=ROBOT, format="video"), click(price_micros=1), viewability(**seen),
        follow_up("complete", "f"),
    ]
    oracle = counted(*log)
    assert oracle.outcomes() == ["invalid_traffic"] * 4
    assert {name: row_of(oracle)[name] for name in COUNTS if row_of(oracle)[name]} == {"gross_impressions": 1}


def test_an_invalid_follow_up_adds_nothing_to_a_valid_impression():
    oracle = counted(impression(price_micros=5), click(user_agent=ROBOT, price_micros=7))
    assert oracle.outcomes() == ["counted", "invalid_traffic"]
    assert {name: row_of(oracle)[name] for name in COUNTS if row_of(oracle)[name]} == {
        "gross_impressions": 1, "impressions": 1, "spend_micros": 5,
    }


def test_of_two_starts_the_valid_one_is_counted():
    log = [impression(), follow_up("start", "a", user_agent=ROBOT), follow_up("start", "b")]
    assert total(counted(*log), "starts") == 1


def test_an_invalid_conversion_is_invalid_traffic():
    assert outcomes(conversion(user_agent=ROBOT)) == ["invalid_traffic"]


def test_a_row_with_invalid_impressions_only_is_still_a_row():
    assert row_of(counted(impression(user_agent=ROBOT)))["gross_impressions"] == 1


def test_a_robot_is_told_by_the_first_2000_characters_of_its_user_agent():
    assert outcomes(impression(user_agent="x" * 1980 + " Googlebot/2.1")) == ["invalid_traffic"]
    assert outcomes(impression(user_agent="x" * 2000 + " Googlebot/2.1")) == ["counted"]
    assert outcomes(impression(user_agent=BROWSER)) == ["counted"]


def test_the_list_of_robots_can_be_any():
    oracle = count([(0, json_event(impression(user_agent="own agent")))], 1, is_robot=lambda agent: "own" in agent)
    assert oracle.outcomes() == ["invalid_traffic"]


def test_a_verdict_before_or_after_the_event_gives_the_same_rows():
    log = [json_event(event) for event in (impression(), click("k"), click("l"), *push(T + DAY))]
    identity = identity_of(judge_one(log[0]))
    before, after = Oracle(files=1), Oracle(files=1)
    before.judge_identity(identity, "datacentre")
    for received in log:
        before.receive(0, received)
        after.receive(0, received)
    after.finish()
    before.finish()
    assert after.outcomes()[:3] == ["counted"] * 3
    after.judge_identity(identity, "datacentre")
    assert after.outcomes()[:3] == ["invalid_traffic"] * 3
    assert (after.delivery(), after.ledger()) == (before.delivery(), before.ledger())


def test_a_verdict_taken_back_leaves_no_trace_and_does_not_clear_a_robot():
    log = [impression("a"), impression("b", user_agent=ROBOT)]
    oracle = counted(*log)
    for event in log:
        identity = identity_of(judge_one(json_event(event)))
        oracle.judge_identity(identity, "rate")
        oracle.judge_identity(identity, "")
    assert oracle.outcomes() == ["counted", "invalid_traffic"]


# --- Screening (section 6) -----------------------------------------------------------------------------------

NETWORKS = Screening(networks=["192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32"], listed=["192.0.2.128/25", "198.51.100.7/32"])


@pytest.mark.parametrize("ip, reason", [
    ("192.0.2.0", "datacentre"), ("192.0.2.255", "datacentre"), ("192.0.255.255", "datacentre"), ("192.1.0.0", None),
    ("191.255.255.255", None), ("192.0.2.200", "datacentre"), ("198.51.100.7", "listed"), ("198.51.100.8", None),
    ("2001:db8::", "datacentre"), ("2001:DB8:ffff:ffff:ffff:ffff:ffff:ffff", "datacentre"), ("2001:db9::", None),
    ("::ffff:198.51.100.7", "listed"), ("::ffff:c633:6407", "listed"), ("2001:db8::1%eth0", "datacentre"),
    ("::198.51.100.7", None), (None, None),
])
def test_an_address_in_any_network_of_a_list_is_invalid(ip, reason):
    expected = [("impression", reason, 1)] if reason else []
    assert invalid(impression(ip=ip), screening=NETWORKS) == expected
    assert invalid(impression(ip=ip)) == []


def test_the_first_reason_that_holds_is_kept():
    both = dict(ip="192.0.2.200", user_id="u")
    rate = dataclasses.replace(NETWORKS, per_user_hour=0)
    assert invalid(impression(**both, user_agent=ROBOT), screening=rate) == [("impression", "robot", 1)]
    assert invalid(impression(**both), screening=rate) == [("impression", "datacentre", 1)]
    assert invalid(impression(ip="198.51.100.7", user_id="u"), screening=rate) == [("impression", "listed", 1)]
    assert invalid(impression(user_id="u"), screening=rate) == [("impression", "rate", 1)]


def test_an_own_reason_stands_before_that_of_the_impression():
    listed, datacentre = "198.51.100.7", "192.0.2.1"
    log = [impression(ip=datacentre), click("k", ip=listed), click("l"), click("m", user_agent=ROBOT)]
    assert invalid(*log, screening=NETWORKS) == [
        ("click", "datacentre", 1), ("click", "listed", 1), ("click", "robot", 1), ("impression", "datacentre", 1),
    ]
    assert invalid(impression(), click(ip=listed), screening=NETWORKS) == [("click", "listed", 1)]


def test_a_verdict_from_outside_stands_between_the_lists_and_the_rate():
    oracle = counted(
        impression("a", ip="198.51.100.7"), impression("b", user_id="u"),
        screening=dataclasses.replace(NETWORKS, per_user_hour=0),
    )
    for name in "ab":
        oracle.judge_identity((False, name, name), "datacentre")
    assert sorted(key[-1] for key in oracle.invalid_traffic()) == ["datacentre", "listed"]
    oracle.judge_identity((False, "b", "b"), "")
    assert sorted(key[-1] for key in oracle.invalid_traffic()) == ["listed", "rate"]


BY_USER, BY_IP = Screening(per_user_hour=3), Screening(per_ip_hour=3)
RATES = pytest.mark.parametrize("screening, who", [(BY_USER, {"user_id": "u"}), (BY_IP, {"ip": "192.0.2.1"})])


@RATES
def test_as_many_events_as_the_threshold_are_a_person_and_one_more_makes_all_of_the_hour_invalid(screening, who):
    log = [impression(f"i{n}", T + n * MINUTE, **who) for n in range(4)]
    assert outcomes(*log[:3], screening=screening) == ["counted"] * 3
    assert outcomes(*log, screening=screening) == ["invalid_traffic"] * 4
    assert invalid(*log, screening=screening) == [("impression", "rate", 4)]


@RATES
def test_copies_are_no_activity(screening, who):
    log = [impression(f"i{n}", **who) for n in range(3)]
    assert outcomes(*log, *log, *log, screening=screening) == ["counted"] * 3 + ["duplicate"] * 6


@RATES
def test_the_hour_is_of_the_events_own_time(screening, who):
    times = [T, T + HOUR - 1, T + HOUR - 1, T + HOUR, T + HOUR, T + HOUR, T - 1]
    log = [impression(f"i{n}", time, **who) for n, time in enumerate(times)]
    assert outcomes(*log, screening=screening) == ["counted"] * 7
    more = impression("x", T + HOUR + 1, **who)
    assert outcomes(*log, more, screening=screening) == ["counted"] * 3 + ["invalid_traffic"] * 3 + ["counted", "invalid_traffic"]


@RATES
def test_the_rate_asks_for_no_order(screening, who):
    log = [impression("i", **who), click("k", T + 1, **who), conversion("c", T + 2, **who), click("l", T + 3, "j", **who),
           impression("j", T + 4)]
    expected = {"i": "invalid_traffic", "k": "invalid_traffic", "c": "invalid_traffic", "l": "invalid_traffic", "j": "counted"}
    for arrived in itertools.permutations(log):
        found = outcomes(*arrived, screening=screening)
        assert dict(zip((event["event_id"] for event in arrived), found)) == expected


def test_a_late_event_makes_its_hour_invalid_and_one_too_late_does_not():
    log = [impression(f"i{n}", T + n, user_id="u") for n in range(3)]
    assert invalid(*log, *push(T + 7 * DAY), impression("i3", T + 4, user_id="u"), screening=BY_USER) == [
        ("impression", "rate", 4)
    ]
    late = counted(*log, *push(T + 7 * DAY + 4), impression("i3", T + 3, user_id="u"), screening=BY_USER)
    assert late.outcomes()[-1] == "too_late" and late.invalid_traffic() == {}


def test_what_is_refused_by_itself_is_no_activity():
    log = [impression(f"i{n}", user_id="u") for n in range(3)]
    refused = [
        impression("a", user_id="u", price_micros=-1), impression("b", user_id="u", received_time=T - HOUR),
        without(impression("c", user_id="u"), "campaign_id"), make("view", "d", user_id="u"),
    ]
    assert outcomes(*log, *refused, screening=BY_USER)[:3] == ["counted"] * 3


def test_an_orphan_and_a_second_report_of_an_order_are_activity():
    log = [impression("i", user_id="u"), conversion("c", order_id="o", user_id="u")]
    again = conversion("d", T + 1, order_id="o", user_id="u")
    assert outcomes(*log, again, screening=BY_USER) == ["counted", "counted", "duplicate"]
    assert outcomes(*log, again, click(of="none", user_id="u"), screening=BY_USER) == [
        "invalid_traffic", "invalid_traffic", "duplicate", "orphan",
    ]


def test_another_content_is_activity_of_its_own_user_and_hour():
    log = [impression(f"i{n}", user_id="u") for n in range(3)]
    other = impression("v", user_id="v")
    assert outcomes(*log, other, {**other, "user_id": "u"}, screening=BY_USER) == [
        *["invalid_traffic"] * 3, "counted", "id_conflict",
    ]
    assert outcomes(*log, other, {**other, "user_id": "u", "event_time": T + HOUR}, screening=BY_USER)[:4] == ["counted"] * 4
    assert outcomes(*log, {**log[0], "country": "SE"}, screening=BY_USER)[:3] == ["counted"] * 3  # the identity is the same


def test_an_identity_is_an_event_id_within_its_impression():
    log = [impression("a"), impression("b")] + [click(name, of=of, user_id="u") for name in "kl" for of in "ab"]
    assert outcomes(*log, screening=BY_USER) == ["counted"] * 2 + ["invalid_traffic"] * 4


def test_addresses_are_compared_and_not_their_texts():
    spelled = ("::1", "0:0::1", "0000:0000:0000:0000:0000:0000:0000:0001", "::1%eth0")
    assert set(outcomes(*(impression(ip, ip=ip) for ip in spelled), screening=BY_IP)) == {"invalid_traffic"}
    mapped = ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "::ffff:192.0.2.1%7")
    assert set(outcomes(*(impression(ip, ip=ip) for ip in mapped), screening=BY_IP)) == {"invalid_traffic"}
    other = ("192.0.2.1", "::ffff:192.0.2.1", "::192.0.2.1", "192.0.2.2")
    assert set(outcomes(*(impression(ip, ip=ip) for ip in other), screening=BY_IP)) == {"counted"}


def test_users_are_texts_and_nobody_is_no_user():
    log = [impression(f"i{n}", user_id=user) for n, user in enumerate(("u", "U", "u", "u ", "U", "", None, "", None))]
    assert set(outcomes(*log, screening=Screening(per_user_hour=3, per_ip_hour=3))) == {"counted"}


def test_a_probe_is_another_user():
    log = [impression(f"i{n}", user_id="u", ip="192.0.2.1", test=n % 2 == 0) for n in range(6)]
    screening = Screening(per_user_hour=3, per_ip_hour=3)
    assert outcomes(*log, screening=screening) == ["counted"] * 6
    assert invalid(*log, impression("x", user_id="u", test=True), screening=screening) == [("impression", "rate", 4)]


def test_a_follow_up_in_a_persons_hour_of_an_impression_in_no_persons_hour_is_invalid_by_rate():
    log = [impression(f"i{n}", user_id="u") for n in range(4)]
    assert invalid(*log, click(time=T + HOUR, of="i0", user_id="u"), screening=BY_USER) == [
        ("click", "rate", 1), ("impression", "rate", 4),
    ]


def test_invalid_traffic_is_by_the_impressions_hour_and_dimensions():
    ours = dict(advertiser_id="a1", creative_id="cr", format="video", country="SE", currency="SEK")
    oracle = counted(
        impression(**ours, ip="192.0.2.1"), click(time=T + 2 * HOUR, advertiser_id="a2", country="DE"),
        click("l", time=T + HOUR), screening=NETWORKS,
    )
    place = (T, "a1", "camp", None, "cr", None, "video", "SE", None, "SEK")
    assert oracle.invalid_traffic() == {(*place, "impression", "datacentre"): 1, (*place, "click", "datacentre"): 2}


def test_an_invalid_conversion_is_by_its_own_hour_and_dimensions():
    stated = dict(advertiser_id="a2", campaign_id=None, placement_id="p", device_type="ctv", country="DE", currency="EUR")
    oracle = counted(
        impression(), conversion(time=T + 3 * HOUR + 1, impression_id="i", **stated, user_agent=ROBOT, test=True),
    )
    assert oracle.invalid_traffic() == {
        (T + 3 * HOUR, "test:a2", None, None, None, "p", None, "DE", "ctv", "EUR", "conversion", "robot"): 1
    }


def test_what_is_no_invalid_traffic_is_not_in_it():
    log = [impression(ip="192.0.2.1"), impression(ip="192.0.2.1"), impression(ip="192.0.2.2"), click("k", of="x", ip="192.0.2.1"),
           conversion("c", order_id="o"), conversion("d", T + 1, order_id="o", ip="192.0.2.1")]
    oracle = counted(*log, screening=NETWORKS)
    assert oracle.outcomes() == ["invalid_traffic", "duplicate", "id_conflict", "orphan", "counted", "duplicate"]
    assert sum(oracle.invalid_traffic().values()) == 1


def test_the_earliest_of_an_order_stands_also_if_it_is_invalid_by_its_address():
    log = [conversion("a", T, order_id="o", ip="192.0.2.1"), conversion("b", T + 1, order_id="o")]
    assert outcomes(*log, screening=NETWORKS) == ["invalid_traffic", "duplicate"]
    assert outcomes(*reversed(log), screening=NETWORKS) == ["duplicate", "invalid_traffic"]


# --- Consent (section 6) -------------------------------------------------------------------------------------

def asks(otherwise: str, **more) -> Screening:
    return Screening(required_in=["SE", "de"], granted=lambda consent: consent == "yes", otherwise=otherwise, **more)


@pytest.mark.parametrize("country, consent, denied", [
    ("SE", "yes", False), ("SE", "no", True), ("SE", None, True), ("SE", "", True), ("se", None, True), ("DE", None, True),
    ("US", "no", False), (None, None, False), ("", None, False), ("SE ", None, False),
])
def test_consent_is_asked_for_by_country(country, consent, denied):
    event = impression(country=country, consent=consent, user_id="u")
    assert outcomes(event, screening=asks("reject")) == ["consent_denied" if denied else "counted"]
    oracle = counted(event, screening=asks("drop_user"))
    assert oracle.outcomes() == ["counted"]
    assert oracle.user_of(oracle.arrivals[0].event) == (None if denied else "u")


def test_without_the_question_nobody_is_asked():
    assert outcomes(impression(country="SE"), screening=Screening(otherwise="reject")) == ["counted"]


@pytest.mark.parametrize("event, reason", [
    (impression(country="SE", price_micros=-1), "bad_value"),
    (impression(country="SE", time=CLOCK + HOUR), "consent_denied"),  # before future
    (without(click(country="SE"), "impression_id"), "missing_field"),
])
def test_consent_denied_stands_between_bad_value_and_future(event, reason):
    assert outcomes(event, screening=asks("reject")) == [reason]
    assert reason in REJECTED


def test_consent_denied_comes_before_too_late_conflict_and_duplicate():
    refused = impression(country="SE")
    log = [refused, refused, {**refused, "price_micros": 1}, *push(T + 8 * DAY), refused]
    found = outcomes(*log, screening=asks("reject"))
    assert found[:3] + found[-1:] == ["consent_denied"] * 4


def test_a_refused_event_is_a_reject_and_known_to_nobody():
    refused = impression(country="SE", user_id="u", user_agent=ROBOT)
    oracle = counted(refused, click(), impression(country="SE", consent="yes"), screening=asks("reject"))
    assert oracle.outcomes() == ["consent_denied", "counted", "counted"]  # the id is free
    assert [row[:4] for row in oracle.rejects()] == [("consent_denied", "i", T, "impression")]
    assert oracle.arrivals[0].reject.detail == "consent"
    assert outcomes(refused, click(), screening=asks("reject")) == ["consent_denied", "orphan"]


def test_a_refused_event_does_not_move_the_watermark():
    ahead = push(T + 30 * DAY, country="SE")
    assert outcomes(*push(T), *ahead, impression(), screening=asks("reject"))[-1] == "counted"
    assert outcomes(*push(T), *ahead, impression(), screening=asks("drop_user"))[-1] == "too_late"
    assert heads_of([(0, json_event(event)) for event in [*ahead, *push(T)]], 1, asks("reject")) == [[T] * 4]


def test_a_refused_event_is_no_activity_and_one_without_its_user_is():
    log = [impression(f"i{n}", user_id="u") for n in range(3)] + [impression("i3", user_id="u", country="SE")]
    assert outcomes(*log, screening=asks("reject", per_user_hour=3)) == ["counted"] * 3 + ["consent_denied"]
    assert outcomes(*log, screening=asks("drop_user", per_user_hour=3)) == ["invalid_traffic"] * 4


def test_a_refused_report_leaves_the_order_to_the_other():
    log = [conversion("a", T, order_id="o", country="SE"), conversion("b", T + 1, order_id="o")]
    assert outcomes(*log, screening=asks("reject")) == ["consent_denied", "counted"]
    assert outcomes(*log, screening=asks("drop_user")) == ["counted", "duplicate"]


def test_dropping_the_user_changes_no_figure_of_delivery():
    log = [impression(country="SE", user_id="u"), click(country="SE", user_id="u"), viewability(user_id="u")]
    assert counted(*log, screening=asks("drop_user")).delivery() == counted(*log).delivery()


# --- A probe's events ----------------------------------------------------------------------------------------

def test_a_probes_impression_is_in_no_advertisers_row():
    oracle = counted(impression("a", test=True), impression("b", test=False), impression("c"))
    assert {key[1]: row[0] for key, row in oracle.delivery().items()} == {"test:adv": 1, "adv": 2}


def test_a_probes_follow_up_never_joins_a_real_impression():
    oracle = counted(impression(), click(test=True))
    assert oracle.outcomes() == ["counted", "orphan"]
    assert outcomes(impression(test=True), click()) == ["counted", "orphan"]
    assert outcomes(impression(test=True), click(test=True)) == ["counted", "counted"]


def test_a_probes_id_is_not_a_real_id():
    assert outcomes(impression(), impression(test=True)) == ["counted", "counted"]


# --- Nothing is dropped silently -----------------------------------------------------------------------------

def test_every_event_received_stands_once_in_the_ledger():
    log = [
        Received(b"nonsense", "json", "events-0", CLOCK), impression(), impression(), impression(country="SE"),
        click(of="none"), click(user_agent=ROBOT), without(click(), "impression_id"), make("view", "x"),
        impression(format="x"), impression("ahead", received_time=T - DAY, source_id="ssp"),
        make(5, "x", "2024-05-06T11:30:00Z", source_id="ssp"), impression(source_id=7), {"event_id": "x"},
    ]
    oracle = counted(*log)
    assert oracle.ledger() == {
        (None, "events-0", None, "undecodable"): 1,
        (T, "events-0", "impression", "counted"): 1,
        (T, "events-0", "impression", "duplicate"): 1,
        (T, "events-0", "impression", "id_conflict"): 1,
        (T, "events-0", "click", "orphan"): 1,
        (T, "events-0", "click", "invalid_traffic"): 1,
        (T, "events-0", "click", "missing_field"): 1,
        (T, "events-0", "view", "unknown_type"): 1,
        (T, "events-0", "impression", "bad_value"): 2,
        (T, "ssp", "impression", "future"): 1,
        (T + HOUR, "ssp", None, "unknown_type"): 1,
        (None, "events-0", None, "missing_field"): 1,
    }
    assert oracle.received == len(log)


def test_the_ledger_is_by_the_events_own_hour():
    oracle = counted(impression(), click(time=T + 2 * HOUR), conversion("c", -1))
    assert {key[0] for key in oracle.ledger()} == {T, T + 2 * HOUR, -HOUR}


def test_the_ledgers_source_is_source_id_else_the_files_name():
    oracle = counted(impression("a", source_id="ssp"), impression("b", source_id=""), impression("c"))
    assert {key[1] for key in oracle.ledger()} == {"ssp", "events-0"}


def test_rejects_keep_the_bytes_and_what_could_be_read():
    log = [Received(b"\xff", "json", "events-0", CLOCK), json_event(make("view", "x")), json_event(click(of="none"))]
    assert counted(*log).rejects() == [
        ("undecodable", None, None, None, b"\xff"),
        ("unknown_type", "x", T, "view", log[1].payload),
        ("orphan", "k", T, "click", log[2].payload),
    ]


def test_duplicates_and_invalid_traffic_are_no_rejects():
    assert counted(impression(user_agent=ROBOT), impression(user_agent=ROBOT)).rejects() == []


# --- Laws ----------------------------------------------------------------------------------------------------

@given(event_logs().flatmap(lambda files: st.tuples(st.just(files), interleavings(files))))
@LOGS
def test_received_is_the_sum_of_the_outcomes(log):
    files, arrivals = log
    oracle = count(arrivals, len(files))
    assert oracle.received == sum(map(len, files)) == sum(oracle.ledger().values())
    assert "waiting" not in oracle.outcomes()
    assert len(oracle.rejects()) == sum(n for key, n in oracle.ledger().items() if key[3] in REJECTED)


@given(event_logs().flatmap(lambda files: st.tuples(st.just(files), interleavings(files))))
@LOGS
def test_gross_is_net_and_invalid_and_nothing_net_exceeds_it(log):
    files, arrivals = log
    oracle = count(arrivals, len(files))
    accepted = [outcome for arrival, outcome in zip(oracle.arrivals, oracle.outcomes())
                if arrival.event and arrival.event["event_type"] == "impression"]
    assert total(oracle, "gross_impressions") == accepted.count("counted") + accepted.count("invalid_traffic")
    assert total(oracle, "impressions") == accepted.count("counted")
    for counts in oracle.delivery().values():
        row = dict(zip(COUNTS, counts))
        assert row["gross_impressions"] >= max(1, row["impressions"])
        assert row["impressions"] >= row["measurable_impressions"] >= row["viewable_impressions"] >= 0
        assert row["measurable_impressions"] >= row["audible_impressions"]
        for name in ("starts", "first_quartiles", "midpoints", "third_quartiles", "completes"):
            assert row["impressions"] >= row[name]


def final_figures(oracle: Oracle) -> tuple:
    rejects = sorted(repr(row[:4]) for row in oracle.rejects())
    return oracle.delivery(), oracle.ledger(), rejects


@given(event_logs(long=False, wrong=False), st.data())
@LOGS
def test_order_inside_the_horizons_changes_no_final_figure(files, data):
    # One name for all files: which of two copies is the duplicate may depend on the order, what they say not.
    arrived = [dataclasses.replace(received, source="events") for content in files for received in content]
    shuffled = first_contents_first(arrived, data.draw(st.permutations(arrived)))
    number = data.draw(st.integers(1, 3))
    spread = [(data.draw(st.integers(0, number - 1)), received) for received in shuffled]
    assert final_figures(count(spread, number)) == final_figures(count([(0, item) for item in arrived], 1))


def first_contents_first(arrived: list[Received], shuffled: list[Received]) -> list[Received]:
    """The shuffled log with each identity's first content put where the identity first appears."""
    first_content = {}
    for received in arrived:
        event = judge_one(received)
        first_content.setdefault(identity_of(event), content_of(event))
    shuffled = list(shuffled)
    settled = set()
    for place, received in enumerate(shuffled):
        identity = identity_of(judge_one(received))
        if identity in settled:
            continue
        settled.add(identity)
        for other in range(place, len(shuffled)):
            event = judge_one(shuffled[other])
            if identity_of(event) == identity and content_of(event) == first_content[identity]:
                shuffled[place], shuffled[other] = shuffled[other], shuffled[place]
                break
    return shuffled


@given(event_logs().flatmap(lambda files: st.tuples(st.just(files), interleavings(files))), st.data())
@LOGS
def test_a_verdict_at_any_time_gives_the_rows_of_a_verdict_known_at_first(log, data):
    files, arrivals = log
    identities = [
        identity_of(event) for _, received in arrivals if received is not None
        for event in [judge_one(received)] if isinstance(event, dict)
    ]
    assume(identities)
    verdicts = data.draw(st.dictionaries(st.sampled_from(identities), st.sampled_from(["datacentre", "rate"])))
    when = {identity: data.draw(st.integers(0, len(arrivals))) for identity in verdicts}

    known, learnt = Oracle(len(files)), Oracle(len(files))
    for identity, reason in verdicts.items():
        known.judge_identity(identity, reason)
    for place, (file, received) in enumerate([*arrivals, (None, None)]):
        for identity in verdicts:
            if when[identity] == place:
                learnt.judge_identity(identity, verdicts[identity])
        if file is None:
            break
        for oracle in (known, learnt):
            if received is None:
                oracle.end_file(file)
            else:
                oracle.receive(file, received)
    assert final_figures(known) == final_figures(learnt)


@given(event_logs(long=False, wrong=False), st.data())
@LOGS
def test_a_log_received_twice_gives_the_same_rows(files, data):
    log = data.draw(interleavings(files))
    again = [item for item in log if item[1] is not None]
    assert count([*again, *log], len(files)).delivery() == count(log, len(files)).delivery()


@given(events().flatmap(lambda event: st.tuples(st.just(event), json_payloads(event))))
def test_all_spellings_of_an_event_in_json_are_its_avro_datum(case):
    event, payload = case
    assert judge_one(Received(payload, "json", "f", CLOCK)) == event
    assert judge_one(Received(encode_avro(event), "avro", "f", CLOCK)) == event


@given(events().flatmap(wrong_payloads))
@settings(max_examples=500)
@example(("avro", b""))
@example(("json", b""))
def test_no_bytes_are_more_than_a_reject(case):
    encoding, payload = case
    judged = judge_one(Received(payload, encoding, "f", CLOCK))
    if isinstance(judged, Reject):
        assert judged.reason in REJECTED
        assert judged.event_time is None or FIRST_TIME <= judged.event_time <= LAST_TIME
    else:
        assert set(judged) == set(TYPES)
        text = json.dumps(judged, ensure_ascii=False).encode("utf-8")
        assert judge_one(Received(text, "json", "f", CLOCK)) == judged


@given(st.binary(max_size=80) | events().map(encode_avro))
@settings(max_examples=300)
def test_what_avros_specification_reads_fastavro_reads_the_same(payload):
    try:
        event = decode_avro(payload)  # compares both
    except Undecodable:
        return
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, PLAIN_SCHEMA, event)
    assert decode_avro(stream.getvalue()) == event
