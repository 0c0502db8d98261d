"""Event logs that try to break the count: few ids, times on every border, resends, conflicts and broken bytes.

`event_logs()` draws files of `Received`, `interleavings(files)` an order in which their events and ends arrive.
All events of a log share one reader's clock. A JSON payload never holds a line break and is never blank, so that
a file of them can be written one a line.
"""

import io
import json
from datetime import datetime, timedelta, timezone

import fastavro
from hypothesis import strategies as st

from oracle import (
    DAY, DEDUP_HORIZON, FIRST_TIME, FOLLOW_UP_TYPES, FUTURE_TOLERANCE, HOUR, JOIN_HORIZON, LAST_TIME,
    MINUTE, PLAIN_SCHEMA, SECOND, TYPES, WATERMARK_SUPPORT, Received, time_of_text,
)

START = time_of_text("2024-02-28T22:00:00Z")  # the hours after it cross midnight, a leap day and a month's end

ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0 Safari/537.36"


# --- Writing events ------------------------------------------------------------------------------------------

def encode_avro(event: dict) -> bytes:
    """A bare datum of schema version 1; times are integer microseconds and may lie outside every calendar."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, PLAIN_SCHEMA, event)
    return stream.getvalue()


def encode_json(event: dict, **options) -> bytes:
    """A JSON object of the values as they stand; `options` are those of json.dumps."""
    return json.dumps(event, **options).encode("utf-8", "surrogatepass")


def rfc_3339(time: int, offset_minutes: int = 0, digits: int = 6) -> str:
    """The time as RFC 3339 text in some offset; years 0001 to 9999 there."""
    zone = timezone(timedelta(minutes=offset_minutes))
    local = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=time)
    text = local.astimezone(zone).replace(tzinfo=None).isoformat(timespec="microseconds").ljust(26, "0")
    text += "0" * (digits - 6)
    if offset_minutes == 0:
        return text + "Z"
    sign = "+" if offset_minutes > 0 else "-"
    return f"{text}{sign}{abs(offset_minutes) // 60:02}:{abs(offset_minutes) % 60:02}"


def one_a_line(payload: bytes) -> bytes:
    """The payload as it can stand in a file of lines."""
    payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload if payload.strip() else b"-"


# --- Single events -------------------------------------------------------------------------------------------

# Impressions, conversions and follow-ups share ids on purpose; two sort differently as UTF-8 and as UTF-16.
IMPRESSION_IDS = ("i1", "i2", "i\x00")
FOLLOW_UP_IDS = ("f1", "f2", "f3", "f4", "f5", "i1")
CONVERSION_IDS = ("c1", "c\uff5e", "c\U0001f600", "i1")

SHORT_DISTANCES = (0, 1, -1, SECOND, MINUTE, 59 * MINUTE, HOUR - 1, HOUR, -HOUR)
DISTANCES = (
    *SHORT_DISTANCES, *SHORT_DISTANCES, FUTURE_TOLERANCE,
    JOIN_HORIZON, JOIN_HORIZON + 1, -JOIN_HORIZON, -JOIN_HORIZON - 1,
    -DEDUP_HORIZON, -DEDUP_HORIZON - 1, -DEDUP_HORIZON - JOIN_HORIZON, -DEDUP_HORIZON - JOIN_HORIZON - 1,
)

# Of addresses some are the same in other words; of consent strings the first two grant the measurement of ad performance.
ADDRESSES = ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.200", "2001:db8::7", "2001:DB8:0::7%eth0", "::")
GRANTS = "CPXuQIAPXuQIAAAAAAAAAHCgAP_AAAIAAAAAAAQAAAAgAAAA"

OPTIONAL_TEXT = {
    "line_item_id": (None, None, "l1"),
    "creative_id": (None, None, "cr1", "créa\x00tif"),
    "placement_id": (None, None, "p1"),
    "user_id": (None, "u1", "u2"),
    "household_id": (None, None, "h1"),
    "country": (None, "SE", "de"),
    "device_type": (None, None, "ctv"),
    "consent": (None, GRANTS, f"DBABM~{GRANTS}", "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", "C\x00 no consent"),
    "currency": (None, "EUR", "SEK"),
    "experiment_id": (None, None, "x1"),
    "experiment_arm": (None, None, "test", "control"),
    "publisher_id": (None, None, "pub1"),
    "session_id": (None, None, "s1"),
    "pricing_model": (None, None, "cpm", "cpc"),
}


KINDS = ("impression", "conversion", "follow-up", "follow-up")


@st.composite
def events(draw, now=st.just(START), distances=DISTANCES, kinds=KINDS) -> dict:
    """One event that every stateless rule accepts, at some distance from `now`."""

    def pick(*values):
        return draw(st.sampled_from(values))

    event = dict.fromkeys(TYPES)
    kind = pick(*kinds)
    event["event_type"] = pick(*FOLLOW_UP_TYPES) if kind == "follow-up" else kind
    event["event_time"] = draw(now) + pick(*distances)
    event["advertiser_id"] = pick("adv-1", "adv-1", "adv-2")
    event["campaign_id"] = pick("camp-1", "camp-1", "camp-2")
    event["source_id"] = pick(None, "ssp-1", "ssp-2")
    event["test"] = pick(None, None, None, None, False, True)
    event["user_agent"] = pick(None, BROWSER, BROWSER, ROBOT)
    event["ip"] = pick(None, None, *ADDRESSES)
    event["format"] = pick(None, "display", "display", "video", "video", "audio")
    if draw(st.booleans()):
        for name, values in OPTIONAL_TEXT.items():
            event[name] = pick(*values)
    else:
        event["currency"] = pick(None, "EUR")
    event["price_micros"] = pick(None, None, 0, 1, 2_500, 2**53 + 1)

    if kind == "impression":
        event["event_id"] = pick(*IMPRESSION_IDS)
        event["impression_id"] = pick(None, None, None, "i2")  # it says nothing there
        event["creative_width"], event["creative_height"] = pick((None, None), (300, 250), (970, 250), (2**31 - 1, -(2**31)))
    elif kind == "conversion":
        event["event_id"] = pick(*CONVERSION_IDS)
        event["campaign_id"] = pick(None, "camp-1")
        event["conversion_type"] = pick(None, "purchase", "purchase", "purchase", "purchase", "lead")
        event["order_id"] = pick(None, "o1", "o1", "o1", "o2")
        event["value_micros"] = pick(None, 0, 10_000_000, 2**57 - 1)  # of a whole log's an INT64 holds the sum
    else:
        event["event_id"] = pick(*FOLLOW_UP_IDS)
        event["impression_id"] = pick(*IMPRESSION_IDS)
    if event["event_type"] == "viewability":
        event["visible_percent"] = pick(None, 0, 49, 50, 50, 100)
        event["visible_ms"] = pick(None, 0, 999, 1000, 1999, 2000, 2000, 2**62)
        event["audible_ms"] = pick(None, 1999, 2000)
    if event["event_type"] in ("start", "firstQuartile", "midpoint", "thirdQuartile", "complete"):
        event["played_ms"] = pick(None, 0, 15_000)
        event["ad_duration_ms"] = pick(None, 30_000)
    return event


@st.composite
def partners(draw, event: dict, distances=DISTANCES) -> dict:
    """An event that belongs with this one: a follow-up or its impression, a conversion of the same order."""
    now = st.just(event["event_time"])
    if event["event_type"] == "conversion":
        partner = draw(events(now, distances, ("conversion",)))
        shared = {"order_id": event["order_id"] or "o1", "conversion_type": event["conversion_type"]}
        shared["advertiser_id"] = event["advertiser_id"]
    elif event["event_type"] == "impression":
        partner = draw(events(now, distances, ("follow-up",)))
        shared = {"impression_id": event["event_id"]}
    else:
        partner = draw(events(now, distances, ("impression", "follow-up")))
        shared = {"event_id" if partner["event_type"] == "impression" else "impression_id": event["impression_id"]}
    return {**partner, **shared, "test": event["test"]}


# Ids of a path's own beside shared ones: were all shared, most of a path would be refused as conflicts.
PATH_IMPRESSION_IDS = ("i1", "j1", "j2", "j3", "j\uff5e", "j\U0001f600")
PATH_CLICK_IDS = ("f1", "f1", "f6", "j1")
PATH_CONVERSION_IDS = ("c1", "d1", "d2", "d3")
LOOKBACKS = (DAY, DAY + 1, 7 * DAY, 7 * DAY + 1, 30 * DAY, 30 * DAY + 1)


@st.composite
def paths(draw, now: int, long: bool) -> list[dict]:
    """A user's way to conversions of one advertiser, as it arrives.

    Drawn one by one, events hardly ever meet in user, advertiser and time. Times are few here, so that many are
    equal; and now and then an event is a robot's, another user's or another advertiser's.
    """

    def pick(*values):
        return draw(st.sampled_from(values))

    shared = {
        "user_id": pick("u1", "u1", "u2"), "advertiser_id": pick("adv-1", "adv-1", "adv-2"),
        "campaign_id": "camp-1", "test": pick(*[None] * 6, False, True),
    }
    astray = (
        *[{}] * 20, {"user_id": None}, {"user_id": "u2"}, {"user_id": "u3"}, {"advertiser_id": "adv-2"},
        {"user_agent": ROBOT}, {"campaign_id": "camp-2", "line_item_id": "l1", "creative_id": "cr1"},
    )

    def event(event_type: str, event_id: str, time: int, **fields) -> dict:
        own = {"event_type": event_type, "event_id": event_id, "event_time": time, **fields}
        return {**dict.fromkeys(TYPES), **shared, **own, **pick(*astray)}

    touch_times = [now + pick(0, SECOND, MINUTE, HOUR) for _ in range(pick(1, 2))]
    first = draw(st.integers(0, len(PATH_IMPRESSION_IDS) - 1))
    impression_ids = (PATH_IMPRESSION_IDS * 2)[first:first + pick(1, 2, 3, 4)]
    path = [event("impression", name, pick(*touch_times)) for name in impression_ids]
    for _ in range(pick(0, 0, 0, 1, 2, 3, 4)):
        time = pick(*touch_times) + pick(0, 0, 1, MINUTE)
        path.append(event("click", pick(*PATH_CLICK_IDS), time, impression_id=pick(*impression_ids)))
    away = (1, MINUTE + 1, HOUR, HOUR, 2 * HOUR, 3 * HOUR)
    for _ in range(pick(1, 1, 2)):
        time = pick(*touch_times, max(touch_times)) + pick(0, *away, *away, *(LOOKBACKS if long else ()))
        path.append(event(
            "conversion", pick(*PATH_CONVERSION_IDS), time, conversion_type=pick(None, "purchase", "purchase"),
            value_micros=pick(None, 0, 1, 2, 10_000_000, 10_000_001, 2**57 - 1), currency=pick(None, "EUR", "EUR"),
            order_id=pick(None, None, None, "o1"),
        ))
    order = pick("as it happened", "backwards", "any")
    if order == "any":
        return draw(st.permutations(path))
    return path if order == "as it happened" else path[::-1]


def received_times(event_time: int, clock: int):
    """A time of receipt on either side of the border of `future`; None leaves it to the reader's clock."""
    allowed = [event_time, event_time + HOUR, event_time - FUTURE_TOLERANCE, clock, None, None]
    return st.sampled_from([*allowed * 4, event_time - FUTURE_TOLERANCE - 1])


@st.composite
def json_payloads(draw, event: dict) -> bytes:
    """One of the many ways to write the event as JSON that all say the same."""
    written = {}
    names = draw(st.sampled_from([tuple(TYPES), tuple(reversed(TYPES))]))
    null_as = draw(st.sampled_from(["absent", "absent", "null", "empty"]))
    time_as = draw(st.sampled_from(["micros", "Z", "offset", "nanoseconds"]))
    for name in names:
        value = event[name]
        if value is None:
            if null_as == "null":
                written[name] = None
            elif null_as == "empty":
                written[name] = ""
        elif TYPES[name][0] == "time" and time_as != "micros" and FIRST_TIME + DAY < value < LAST_TIME - DAY:
            offset = draw(st.sampled_from([60, -570, 1439])) if time_as == "offset" else 0
            written[name] = rfc_3339(value, offset, digits=9 if time_as == "nanoseconds" else 6)
        else:
            written[name] = value
    if draw(st.integers(0, 3)) == 0:
        written["a_field_of_tomorrow"] = {"event_id": ["x", None, 1e300, {"": "\U0001f600"}]}
    payload = encode_json(written, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 7)) == 0:  # a value that the last of its name replaces
        payload = b'{"event_id": 5, "price_micros": -1, "test": "", ' + payload[1:]
        if event["price_micros"] is None and null_as == "absent":
            payload = payload[:-1] + b', "price_micros": null}'
        if event["test"] is None and null_as == "absent":
            payload = payload[:-1] + b', "test": null}'
    return payload


# --- What is refused -----------------------------------------------------------------------------------------

WRONG_VALUES = (
    True, False, 0, 5, -1, 101, 1.0, 1.5, -0.0, 1e300, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 10**30,
    "", " ", "\x00", "5", "true", "yesterday", "Impression", "Video", "impression", "x" * 3000,
    "2024-02-29T00:00:00", "2024-02-29 00:00:00Z", "2024-02-29", "2023-02-29T00:00:00Z", "2024-02-29T24:00:00Z",
    "2024-12-31T23:59:60Z", "2024-02-29T00:00:00+0100", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    "0000-01-01T00:00:00Z", "2024-02-29t00:00:00.1234567891z", "2024-02-29T00:00:00-00:00",
    "192.0.2.256", "192.0.2.07", "::ffff:192.0.2.1", "fe80::1%eth0", "1",
    [], {}, [1], {"a": 1}, None, FIRST_TIME - 1, FIRST_TIME, LAST_TIME, LAST_TIME + 1,
)

BROKEN_JSON = (
    b"[]", b"null", b"5", b'"text"', b"{", b"{}", b"{}{}", b"{'event_id': 1}", b'{"a": NaN}', b'{"a": -Infinity}',
    b'{"a": 1e400}', b'{"a": 01}', b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\\ud800"}',
    b'{"\\udfff": 1}', b'{"a": ["\\ud800"], "a": 1}', b'\xef\xbb\xbf{}', b'{"a": "\x00"}', b"{}\x00", b"{},",
    b"\x00", b" ", b"Obj\x01", b"\xc3\x01",
)


@st.composite
def wrong_payloads(draw, event: dict) -> tuple[str, bytes]:
    """An event spoilt: most draws are refused by a stateless rule, some turn out to be fine."""
    kind = draw(st.sampled_from([
        "value", "value", "value", "missing", "type", "number", "bytes of JSON", "broken JSON",
        "truncated", "trailing", "flipped", "random",
    ]))
    if kind in ("value", "missing", "type"):
        written = {name: value for name, value in event.items() if value is not None}
        if kind == "value":
            written[draw(st.sampled_from(tuple(TYPES)))] = draw(st.sampled_from(WRONG_VALUES))
        elif kind == "type":
            written["event_type"] = draw(st.sampled_from(["Impression", "view", "\x00", 5, True, [], "click "]))
        if kind == "missing" or draw(st.integers(0, 3)) == 0:
            name = draw(st.sampled_from(
                ["event_id", "event_type", "event_time", "advertiser_id", "campaign_id", "impression_id"]
            ))
            written[name] = draw(st.sampled_from([None, ""]))
        return "json", encode_json(written)
    if kind == "number":  # what Avro can hold and no event may
        name, value = draw(st.sampled_from([
            ("event_time", FIRST_TIME - 1), ("event_time", LAST_TIME + 1), ("event_time", -(2**63)),
            ("event_time", 2**63 - 1), ("event_time", FIRST_TIME), ("event_time", -1), ("event_time", LAST_TIME),
            ("received_time", LAST_TIME + 1), ("received_time", FIRST_TIME - 1), ("price_micros", -1),
            ("value_micros", -(2**63)), ("visible_ms", -1), ("audible_ms", -1), ("played_ms", -1),
            ("ad_duration_ms", -1), ("visible_percent", 101), ("visible_percent", -1), ("format", "Display"),
            ("ip", "not an address"), ("event_type", "Click"), ("event_type", ""), ("event_id", ""),
            ("advertiser_id", ""), ("campaign_id", ""),
        ]))
        return "avro", encode_avro({**event, name: value})
    if kind == "broken JSON":
        return "json", draw(st.sampled_from(BROKEN_JSON))
    if kind == "bytes of JSON":
        payload = bytearray(encode_json({name: value for name, value in event.items() if value is not None}))
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
        return "json", bytes(payload)
    datum = encode_avro(event)
    if kind == "truncated":
        return "avro", datum[:draw(st.integers(0, len(datum) - 1))]
    if kind == "trailing":
        return "avro", datum + draw(st.binary(min_size=1, max_size=3))
    if kind == "flipped":
        spoilt = bytearray(datum)
        spoilt[draw(st.integers(0, len(datum) - 1))] = draw(st.sampled_from([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF]))
        return "avro", bytes(spoilt)
    return draw(st.sampled_from(["avro", "json"])), draw(st.binary(max_size=60))


# --- Logs ----------------------------------------------------------------------------------------------------

def of_encodings(encoding: str | None):
    return st.sampled_from(["json", "avro"]) if encoding is None else st.just(encoding)


@st.composite
def payloads(draw, event: dict, encoding: str | None = None) -> tuple[str, bytes]:
    chosen = draw(of_encodings(encoding))
    return chosen, draw(json_payloads(event)) if chosen == "json" else encode_avro(event)


@st.composite
def conflicts(draw, event: dict) -> dict:
    """The same identity with other content."""
    name, values = draw(st.sampled_from([
        ("price_micros", (7, 8)), ("advertiser_id", ("adv-3", "adv-4")), ("country", ("NO", "FI")),
        ("event_time", (event["event_time"] + 1, event["event_time"] - HOUR)), ("source_id", ("ssp-3", "ssp-4")),
        ("order_id", ("o3", "o1")), ("test", (False, None)), ("user_agent", (ROBOT, BROWSER)),
    ]))
    return {**event, name: values[0] if event[name] != values[0] else values[1]}


@st.composite
def event_logs(draw, max_files=3, long=None, encoding=None, mixed=True, wrong=True) -> list[list[Received]]:
    """Files of events as they arrive.

    A log is a few phases about a moving `now`, each with a user's path or without; after a phase a run of
    WATERMARK_SUPPORT events in each file may carry the watermark there. `long` (either, if None) lets the phases
    go on for more than the horizons, so that waits end and ids are forgotten. `encoding` fixes one for all; with
    `mixed` false each file keeps to one. `wrong` false leaves out what is spoilt or ahead of its receipt; a short
    log without it stays within 24 hours, where the order of arrival does not matter.
    """
    number = draw(st.integers(1, max_files))
    long = draw(st.booleans()) if long is None else long
    file_encodings = [
        draw(of_encodings(encoding)) if encoding is not None or not mixed else None for _ in range(number)
    ]
    clock = START + 60 * DAY
    if wrong and long and draw(st.sampled_from([False] * 9 + [True])):
        clock = START + 8 * DAY  # a reader that is behind its publishers
    files: list[list[Received]] = [[] for _ in range(number)]
    sent: list[dict] = []
    pushes = 0
    now = START

    def put(file: int, event: dict) -> None:
        chosen, payload = draw(payloads(event, file_encodings[file]))
        files[file].append(received(file, chosen, payload))

    def put_path() -> None:
        for event in draw(paths(now, long)):
            if wrong:
                event["received_time"] = draw(received_times(event["event_time"], clock))
            sent.append(event)
            put(draw(st.integers(0, number - 1)), event)

    def received(file: int, chosen: str, payload: bytes) -> Received:
        if chosen == "json":
            payload = one_a_line(payload)
        return Received(payload, chosen, f"events-{file}", clock)

    steps = (
        0, MINUTE, HOUR, 23 * HOUR, DAY - 1, DAY, DAY + 1, 3 * DAY,
        7 * DAY, 7 * DAY + 1, 7 * DAY + HOUR, 7 * DAY + HOUR + 1, 8 * DAY, 8 * DAY + 1,
    )
    for _ in range(draw(st.integers(1, 5 if long else 2))):
        path = draw(st.sampled_from(["none", "before", "after"]))
        if path == "before":
            put_path()
        for _ in range(draw(st.integers(0, 10))):
            file = draw(st.integers(0, number - 1))
            kind = draw(st.sampled_from([
                *["new"] * 6, *["partner"] * 6, *["resend"] * 3, "conflict",
                *(["wrong", "wrong", "ahead"] if wrong else []),
            ]))
            if kind == "resend" and sent:
                event = dict(draw(st.sampled_from(sent)))
            elif kind == "conflict" and sent:
                event = draw(conflicts(draw(st.sampled_from(sent))))
            elif kind == "partner" and sent:
                borders = (HOUR, JOIN_HORIZON, -JOIN_HORIZON) * 3 if long else ()
                event = draw(partners(draw(st.sampled_from(sent)), (*SHORT_DISTANCES, *borders)))
            else:
                # About now, or (in a long log) about an earlier event, which the watermark may have left behind.
                about = [now, now, *(event["event_time"] for event in sent[-6:] if long)]
                event = draw(events(st.sampled_from(about), DISTANCES if long else SHORT_DISTANCES))
            if not long:
                event["event_time"] = min(max(event["event_time"], START - 11 * HOUR), START + 12 * HOUR)
            if wrong:
                event["received_time"] = draw(received_times(event["event_time"], clock))
            elif kind == "resend":
                event["received_time"] = event["event_time"] + HOUR
            if kind == "ahead":
                ahead = [FUTURE_TOLERANCE + 1, 400 * DAY, *([FUTURE_TOLERANCE] if long else [])]
                event["event_time"] = clock + draw(st.sampled_from(ahead))
            if kind == "wrong":
                chosen, payload = draw(wrong_payloads(event))
                if file_encodings[file] in (None, chosen):
                    files[file].append(received(file, chosen, payload))
                continue
            if kind != "ahead":
                sent.append(event)
            put(file, event)
        if path == "after":
            put_path()
        if not long:
            now += draw(st.sampled_from([0, MINUTE, HOUR]))
            continue
        now += draw(st.sampled_from(steps))
        if draw(st.integers(0, 3)) > 0:
            for file in range(number):
                for _ in range(WATERMARK_SUPPORT):
                    pushes += 1
                    put(file, {
                        **dict.fromkeys(TYPES), "event_id": f"push-{pushes}", "event_type": "conversion",
                        "event_time": now, "advertiser_id": "adv-1",
                    })
    return files


@st.composite
def interleavings(draw, files: list[list[Received]]) -> list[tuple[int, Received | None]]:
    """An order in which the events of the files arrive, each file in its own order; None is a file's end."""
    markers = [file for file, content in enumerate(files) for _ in range(len(content) + 1)]
    way = draw(st.sampled_from(["by turns", "any", "any", "one after another"]))
    if way == "any":
        markers = draw(st.permutations(markers))
    elif way == "by turns":
        markers = [
            file for turn in range(max(map(len, files), default=0) + 1)
            for file, content in enumerate(files) if turn <= len(content)
        ]
    rest = [iter([*content, None]) for content in files]
    return [(file, next(rest[file])) for file in markers]
