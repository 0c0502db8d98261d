"""The counting rules of the contract, sections 2 and 6, once more: slow, plain and apart from the pipeline.

One event at a time, dicts and loops, no batch, no shard, no state that expires early. Nothing here is imported
from the project but the event schema itself, so that a mistake in the pipeline is not repeated by its judge. The
order of this file is the order of the contract: decoding, the rules that need one event only, the watermark, and
the rules that need the other events.

    oracle = Oracle(files=2)
    oracle.receive(0, Received(payload, "json", "a.jsonl", receipt))
    oracle.end_file(0)
    oracle.finish()
    oracle.delivery(), oracle.ledger(), oracle.rejects(), oracle.invalid_traffic()

Declared robots are always screened; what else is, a `Screening` says.

All times and durations are integers: microseconds of UTC since 1970, or milliseconds where a field is named so.
"""

import functools
import io
import ipaddress
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import crawleruseragents
import fastavro

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

FUTURE_TOLERANCE = 10 * MINUTE  # an event may be this far ahead of its receipt
DEDUP_HORIZON = 7 * DAY  # of event time behind the watermark
JOIN_HORIZON = 24 * HOUR  # between a follow-up and its impression, either way
WATERMARK_SUPPORT = 4  # consecutive accepted events that must have reached a time before the watermark does

# --- What an event is: schemas/ad_event.avsc -----------------------------------------------------------------

AVRO_SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "ad_event.avsc").read_text())


def _avro_types() -> dict[str, tuple[str, bool]]:
    """Each field's type (string, int, long, boolean or time) and whether it may be null."""
    types = {}
    for described in AVRO_SCHEMA["fields"]:
        avro = described["type"]
        nullable = isinstance(avro, list)
        if nullable:
            assert avro[0] == "null" and len(avro) == 2
            avro = avro[1]
        if isinstance(avro, dict):
            assert avro == {"type": "long", "logicalType": "timestamp-micros"}
            avro = "time"
        assert avro in ("string", "int", "long", "boolean", "time")
        types[described["name"]] = (avro, nullable)
    return types


TYPES = _avro_types()

# The schema with times as plain longs: a reader's datetime cannot hold every long, and a long out of range is a
# bad value, not a broken datum.
PLAIN_SCHEMA = fastavro.parse_schema({
    "type": "record", "name": "AdEvent", "namespace": "measurement.v1",
    "fields": [
        {"name": name, "type": (["null", plain] if nullable else plain), **({"default": None} if nullable else {})}
        for name, (avro, nullable) in TYPES.items()
        for plain in ["long" if avro == "time" else avro]
    ],
})

FOLLOW_UP_TYPES = ("click", "viewability", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete")
EVENT_TYPES = ("impression", "conversion", *FOLLOW_UP_TYPES)
FORMATS = ("display", "video", "audio")
NOT_NEGATIVE = ("price_micros", "value_micros", "visible_ms", "audible_ms", "played_ms", "ad_duration_ms")

DIMENSIONS = (
    "advertiser_id", "campaign_id", "line_item_id", "creative_id", "placement_id",
    "format", "country", "device_type", "currency",
)
COUNTS = (
    "gross_impressions", "impressions", "measurable_impressions", "viewable_impressions", "audible_impressions",
    "clicks", "starts", "first_quartiles", "midpoints", "third_quartiles", "completes", "spend_micros",
)
QUARTILE_COUNTS = {
    "start": "starts", "firstQuartile": "first_quartiles", "midpoint": "midpoints",
    "thirdQuartile": "third_quartiles", "complete": "completes",
}

# Of the outcomes of section 2, those that are rejects.
REJECTED = (
    "undecodable", "missing_field", "unknown_type", "bad_value", "consent_denied", "future", "too_late", "id_conflict",
    "orphan",
)
INVALID_REASONS = ("robot", "datacentre", "listed", "rate")  # in the order in which the first that holds is kept

LARGE_DISPLAY = 242_500  # px; of a display ad at least so large 30 % are enough

_YEAR_1970 = date(1970, 1, 1).toordinal()
FIRST_TIME = (date(1, 1, 1).toordinal() - _YEAR_1970) * DAY
LAST_TIME = (date(9999, 12, 31).toordinal() + 1 - _YEAR_1970) * DAY - 1


# --- What arrives and what is said of it ---------------------------------------------------------------------

@dataclass(frozen=True)
class Received:
    """One event as it arrived, before anybody looked into it."""

    payload: bytes
    encoding: str  # 'json', or 'avro': a bare datum of schema version 1
    source: str  # the name of the file
    receipt: int  # the reader's clock; stands where the event has no received_time


@dataclass(frozen=True)
class Reject:
    """An event refused by a rule that needs nothing but the event; what could be read of it is kept."""

    reason: str
    detail: str
    event_id: str | None
    event_time: int | None
    event_type: str | None
    source_id: str | None = None


class Undecodable(ValueError):
    """The payload is no event at all."""


# --- Decoding ------------------------------------------------------------------------------------------------

def decode(received: Received) -> dict:
    """The fields the payload holds, by name, values as they stand there; raises Undecodable."""
    if received.encoding == "json":
        return decode_json(received.payload)
    if received.encoding == "avro":
        return decode_avro(received.payload)
    raise ValueError(f"no such encoding: {received.encoding}")


def decode_json(payload: bytes) -> dict:
    """One JSON object in UTF-8; of a name given twice the last value stands, and names of no field are ignored."""
    try:
        document = json.loads(
            payload.decode("utf-8"),
            parse_int=lambda digits: int(_finite(digits)),
            parse_float=lambda digits: float(_finite(digits)),
            parse_constant=_no_constant,
            object_pairs_hook=_object_of_text,
        )
    except UnicodeDecodeError as error:
        raise Undecodable(f"not UTF-8: {error}") from None
    except RecursionError:
        raise Undecodable("nested too deep") from None
    except ValueError as error:  # Undecodable and JSONDecodeError are ValueErrors
        raise Undecodable(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Undecodable("not a JSON object")
    return {name: value for name, value in document.items() if name in TYPES}


def _finite(digits: str) -> str:
    """A number beyond every double is an infinity in other words."""
    if math.isinf(float(digits)):
        raise Undecodable("a number is infinite")
    return digits


def _no_constant(name: str):
    """NaN, Infinity and -Infinity are no JSON."""
    raise Undecodable(f"{name} is not JSON")


def _object_of_text(pairs: list[tuple]) -> dict:
    """A JSON object whose names and values are real text everywhere, also where a later value replaces them."""
    for name, value in pairs:
        _must_be_text(name)
        _must_be_text(value)
    return dict(pairs)


def _must_be_text(value) -> None:
    """Half of a surrogate pair is no character and cannot be written as UTF-8."""
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise Undecodable("lone surrogate in text")
    if isinstance(value, list):
        for item in value:
            _must_be_text(item)


def decode_avro(payload: bytes) -> dict:
    """One datum of schema version 1 and nothing after it.

    It is read twice: by the letter of Avro's specification, and by fastavro. fastavro alone would also take what
    the specification does not define: a negative union branch, a boolean byte other than 0 and 1, a varint of
    more than 64 bits.
    """
    by_the_letter = _AvroReader(payload).event()
    stream = io.BytesIO(payload)
    by_fastavro = fastavro.schemaless_reader(stream, PLAIN_SCHEMA)
    assert by_fastavro == by_the_letter, (by_fastavro, by_the_letter)
    assert stream.tell() == len(payload)
    return by_the_letter


class _AvroReader:
    """Avro 1.11 binary encoding, as far as the event schema needs it."""

    def __init__(self, payload: bytes):
        self.payload = payload
        self.position = 0

    def event(self) -> dict:
        fields = {}
        for name, (avro, nullable) in TYPES.items():
            branch = self.long() if nullable else 1
            if branch == 0:
                fields[name] = None
            elif branch == 1:
                fields[name] = self.value(avro)
            else:
                raise Undecodable(f"{name}: no branch {branch}")
        if self.position != len(self.payload):
            raise Undecodable("bytes after the datum")
        return fields

    def value(self, avro: str):
        if avro == "string":
            return self.text()
        if avro == "boolean":
            return self.boolean()
        return self.long()  # an int and a time are written like a long

    def take(self, length: int) -> bytes:
        if length < 0:
            raise Undecodable("negative length")
        if self.position + length > len(self.payload):
            raise Undecodable("truncated")
        taken = self.payload[self.position:self.position + length]
        self.position += length
        return taken

    def long(self) -> int:
        """Zigzag, seven bits a byte, the least significant first."""
        bits = 0
        for place in range(10):
            byte = self.take(1)[0]
            bits += (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        else:
            raise Undecodable("varint of more than ten bytes")
        if bits >= 2**64:
            raise Undecodable("varint of more than 64 bits")
        return bits // 2 if bits % 2 == 0 else -(bits // 2) - 1

    def boolean(self) -> bool:
        byte = self.take(1)[0]
        if byte not in (0, 1):
            raise Undecodable("boolean neither 0 nor 1")
        return byte == 1

    def text(self) -> str:
        try:
            return self.take(self.long()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Undecodable(f"not UTF-8: {error}") from None


# --- The rules that need one event only ----------------------------------------------------------------------

RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def time_of_text(text: str) -> int:
    """RFC 3339's date-time; digits beyond the microsecond are cut off. Raises ValueError."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError("not RFC 3339 with an offset")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hour, offset_minute = match.groups()[6:]
    days = date(year, month, day).toordinal() - _YEAR_1970  # ValueError where there is no such day
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no such time of day")
    time = days * DAY + hour * HOUR + minute * MINUTE + second * SECOND
    if fraction is not None:
        time += int(fraction[:6].ljust(6, "0"))
    if sign is not None:
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            raise ValueError("no such offset")
        offset = int(offset_hour) * HOUR + int(offset_minute) * MINUTE
        time = time - offset if sign == "+" else time + offset
    return time


def value_of(name: str, value):
    """The value as its field's type has it; raises ValueError where it is of another type or out of its range."""
    avro, _ = TYPES[name]
    if value is None or value == "":
        return None  # empty text is null
    if avro == "time":
        time = time_of_text(value) if type(value) is str else value
        if type(time) is not int:  # a boolean is no integer, and neither is 1.0
            raise ValueError("neither RFC 3339 text nor integer microseconds")
        if not FIRST_TIME <= time <= LAST_TIME:
            raise ValueError("outside the years 0001 to 9999")
        return time
    if avro == "string":
        if type(value) is not str:
            raise ValueError("not text")
        return value
    if avro == "boolean":
        if type(value) is not bool:
            raise ValueError("not a boolean")
        return value
    if type(value) is not int:
        raise ValueError("not an integer")
    bits = {"int": 32, "long": 64}[avro]
    if not -2**(bits - 1) <= value < 2**(bits - 1):
        raise ValueError(f"more than {bits} bits")
    return value


def judge_one(received: Received, screening: "Screening | None" = None) -> dict | Reject:
    """The event with every field of the schema, or why it is refused; the first reason that holds."""
    try:
        fields = decode(received)
    except Undecodable as error:
        return Reject("undecodable", str(error), None, None, None)

    event, wrong = {}, []
    for name in TYPES:
        try:
            event[name] = value_of(name, fields.get(name))
        except ValueError as error:
            event[name] = None
            wrong.append(f"{name}: {error}")

    def missing(name: str) -> bool:
        """Absent, null or empty text; a value of the wrong type is there, and wrong."""
        return fields.get(name) is None or fields.get(name) == ""

    def reject(reason: str, detail: str) -> Reject:
        return Reject(
            reason, detail, event["event_id"], event["event_time"], event["event_type"], event["source_id"]
        )

    for name in ("event_id", "event_type", "event_time", "advertiser_id"):
        if missing(name):
            return reject("missing_field", name)
    if event["event_type"] not in EVENT_TYPES:  # also what is no text
        return reject("unknown_type", repr(fields["event_type"]))
    if event["event_type"] != "conversion" and missing("campaign_id"):
        return reject("missing_field", "campaign_id")
    if event["event_type"] in FOLLOW_UP_TYPES and missing("impression_id"):
        return reject("missing_field", "impression_id")

    if wrong:
        return reject("bad_value", "; ".join(wrong))
    for name in NOT_NEGATIVE:
        if event[name] is not None and event[name] < 0:
            return reject("bad_value", f"{name} is negative")
    if event["visible_percent"] is not None and not 0 <= event["visible_percent"] <= 100:
        return reject("bad_value", "visible_percent is outside 0-100")
    if event["format"] is not None and event["format"] not in FORMATS:
        return reject("bad_value", "unknown format")
    if event["ip"] is not None:
        try:
            ipaddress.ip_address(event["ip"])
        except ValueError:
            return reject("bad_value", "ip is no address")

    if screening is not None and screening.otherwise == "reject" and screening.lacks_consent(event):
        return reject("consent_denied", "consent")

    receipt = event["received_time"] if event["received_time"] is not None else received.receipt
    if event["event_time"] > receipt + FUTURE_TOLERANCE:
        return reject("future", "more than 10 minutes ahead of its receipt")
    return event


# --- What is screened ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Screening:
    """The section `screening` of a policy, its files read; `granted` says of a consent string whether it is enough."""

    networks: list[str] = field(default_factory=list)  # CIDRs of data centres
    listed: list[str] = field(default_factory=list)
    per_user_hour: float = math.inf  # events; more than so many are no person's
    per_ip_hour: float = math.inf
    required_in: list[str] = field(default_factory=list)  # countries
    granted: Callable[[str], bool] = lambda consent: False
    otherwise: str = "drop_user"  # or "reject"

    def __post_init__(self):
        assert self.otherwise in ("drop_user", "reject")

    def lacks_consent(self, event: dict) -> bool:
        """Asked for by its country, whose case says nothing; an unknown country does not ask."""
        if event["country"] is None:
            return False
        if event["country"].lower() not in [country.lower() for country in self.required_in]:
            return False
        return event["consent"] is None or not self.granted(event["consent"])

    def network_reason(self, ip: str | None) -> str:
        if ip is None:
            return ""
        address = address_of(ip)
        for reason, networks in (("datacentre", self.networks), ("listed", self.listed)):
            if any(address in network_of(network) for network in networks):
                return reason
        return ""


network_of = functools.cache(ipaddress.ip_network)


@functools.cache
def address_of(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address behind a text: one for all its spellings, of whatever zone; one mapped from IPv4 is that."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


# --- The watermark -------------------------------------------------------------------------------------------

class Watermark:
    """The time up to which events are taken to have arrived: the least over all files, which are open together.

    Within a file it stands at the highest time that WATERMARK_SUPPORT consecutive accepted events have all
    reached, so that no single event moves it. A file begins where its first such run will bring it, so that the
    order in which files are read does not hold the others back; one without such a run, or whose content is not
    known beforehand, holds the watermark at minus infinity. A file read to its end no longer holds it.
    """

    def __init__(self, files: int, support: int = WATERMARK_SUPPORT, heads: Iterable[list[int]] = ()):
        """`heads`: for each file the event times of its accepted events, the first WATERMARK_SUPPORT at least."""
        self.support = support
        self.times: list[list[int]] = [[] for _ in range(files)]  # of the accepted events, as they arrived
        self.reached: list[float] = [-math.inf] * files
        for file, head in enumerate(heads):
            if len(head) >= support:
                self.reached[file] = min(head[:support])

    def accept(self, file: int, event_time: int) -> None:
        """An event of the file was accepted."""
        times = self.times[file]
        times.append(event_time)
        if len(times) >= self.support:
            self.reached[file] = max(self.reached[file], min(times[-self.support:]))

    def end(self, file: int) -> None:
        """The file was read to its end."""
        self.reached[file] = math.inf

    def ended(self, file: int) -> bool:
        return self.reached[file] == math.inf

    def now(self) -> float:
        return min(self.reached, default=math.inf)


# --- The rules that need the other events --------------------------------------------------------------------

Identity = tuple[bool, str, str]  # a probe's world or the real one, the impression it belongs to, event_id


def is_test(event: dict) -> bool:
    """A probe's event lives in a world of its own and never meets a real one."""
    return event["test"] is True


def impression_of(event: dict) -> tuple[bool, str]:
    """The impression an event belongs to: an impression and a conversion to themselves."""
    owner = event["impression_id"] if event["event_type"] in FOLLOW_UP_TYPES else event["event_id"]
    return is_test(event), owner


def identity_of(event: dict) -> Identity:
    """event_id within the impression the event belongs to."""
    return *impression_of(event), event["event_id"]


def content_of(event: dict) -> dict:
    """What two copies have in common: every field but received_time."""
    return {name: value for name, value in event.items() if name != "received_time"}


def order_of(event: dict) -> tuple | None:
    """The order a conversion reports, where it names one."""
    if event["event_type"] != "conversion" or event["order_id"] is None:
        return None
    return is_test(event), event["advertiser_id"], event["conversion_type"], event["order_id"]


def order_rank(event: dict) -> tuple:
    """Of the conversions of one order the one with the lowest rank counts."""
    return event["event_time"], event["event_id"].encode("utf-8")


def hour_of(time: int) -> int:
    return time // HOUR * HOUR


def declared_robot(user_agent: str) -> bool:
    """On the maintained list of robots by user agent; the first 2,000 characters are looked at."""
    return crawleruseragents.is_crawler(user_agent[:2000])


@dataclass(eq=False)
class Arrival:
    """One received event and what became of it so far."""

    received: Received
    event: dict | None = None  # None where it was refused unseen
    reject: Reject | None = None
    # A reject's reason, 'duplicate', 'waiting' for its impression, or 'accepted': counted, if it is valid.
    state: str = ""
    impression: "Arrival | None" = None  # what a follow-up joined
    follow_ups: list["Arrival"] = field(default_factory=list)  # what joined an impression


class Oracle:
    """The final figures of an event log, by the letter of the contract."""

    def __init__(
        self, files: int, is_robot: Callable[[str], bool] = declared_robot, heads: Iterable[list[int]] = (),
        screening: Screening | None = None,
    ):
        self.is_robot = is_robot
        self.screening = Screening() if screening is None else screening
        self.files = files
        self.watermark = Watermark(files, heads=heads)
        self.received = 0
        self.arrivals: list[Arrival] = []
        self.standing: dict[Identity, Arrival] = {}  # the first to arrive of each identity
        self.impressions: dict[tuple[bool, str], Arrival] = {}
        self.waiting: list[Arrival] = []
        self.orders: dict[tuple, Arrival] = {}  # the earliest conversion of each order
        self.judged: dict[Identity, str] = {}
        # Who did what in which hour, by identity: (a probe's world or not, user_id or address, hour).
        self.activity_of_user: dict[tuple, set[Identity]] = defaultdict(set)
        self.activity_of_address: dict[tuple, set[Identity]] = defaultdict(set)

    # -- what happens

    def receive(self, file: int, received: Received) -> None:
        """The next event of a file."""
        assert not self.watermark.ended(file), "an event after its file's end"
        watermark = self.watermark.now()  # as it stood before the event
        self.received += 1
        arrival = Arrival(received)
        self.arrivals.append(arrival)

        judged = judge_one(received, self.screening)
        if isinstance(judged, Reject):
            arrival.reject = judged
            arrival.state = judged.reason
            return
        arrival.event = judged
        if judged["event_time"] < watermark - DEDUP_HORIZON:
            arrival.state = "too_late"
            return

        self._note_activity(judged)
        self._end_waits(watermark)
        self._judge(arrival, watermark)
        self.watermark.accept(file, judged["event_time"])

    def end_file(self, file: int) -> None:
        """A file was read to its end."""
        self.watermark.end(file)
        self._end_waits(self.watermark.now())

    def finish(self) -> None:
        """All files were read to their ends."""
        for file in range(self.files):
            self.watermark.end(file)
        self._end_waits(self.watermark.now())

    def judge_identity(self, identity: Identity, reason: str) -> None:
        """A verdict from outside the event itself (datacentre, listed, rate); '' takes it back. At any time."""
        assert reason == "" or reason in INVALID_REASONS
        self.judged[identity] = reason

    # -- identity, duplicates and conflicts

    def _judge(self, arrival: Arrival, watermark: float) -> None:
        event = arrival.event
        identity = identity_of(event)

        first = self.standing.get(identity)
        if first is not None and first.event["event_time"] < watermark - DEDUP_HORIZON:
            # Remembered no longer; if it was an impression, what follows with its id does not follow it any more.
            if first.event["event_type"] == "impression":
                self.impressions.pop(impression_of(first.event), None)
            first = None
        if first is not None:
            same = content_of(first.event) == content_of(event)
            arrival.state = "duplicate" if same else "id_conflict"
            return

        self.standing[identity] = arrival
        if event["event_type"] == "impression":
            self._judge_impression(arrival)
        elif event["event_type"] == "conversion":
            self._judge_conversion(arrival, watermark)
        else:
            self._judge_follow_up(arrival, watermark)

    # -- the join of follow-ups to their impression

    def _judge_impression(self, impression: Arrival) -> None:
        impression.state = "accepted"
        self.impressions[impression_of(impression.event)] = impression
        for follow_up in list(self.waiting):
            if self._within_reach(follow_up, impression):
                self.waiting.remove(follow_up)
                self._join(follow_up, impression)

    def _judge_follow_up(self, follow_up: Arrival, watermark: float) -> None:
        # An impression is not forgotten here at all: one older than watermark - 8 d is out of reach of every
        # follow-up that is not too late.
        impression = self.impressions.get(impression_of(follow_up.event))
        if impression is not None and self._within_reach(follow_up, impression):
            self._join(follow_up, impression)
            return
        follow_up.state = "waiting"
        self.waiting.append(follow_up)
        self._end_waits(watermark)  # its wait may be over as it arrives

    def _within_reach(self, follow_up: Arrival, impression: Arrival) -> bool:
        return (
            impression_of(follow_up.event) == impression_of(impression.event)
            and abs(follow_up.event["event_time"] - impression.event["event_time"]) <= JOIN_HORIZON
        )

    def _join(self, follow_up: Arrival, impression: Arrival) -> None:
        follow_up.state = "accepted"
        follow_up.impression = impression
        impression.follow_ups.append(follow_up)

    def _end_waits(self, watermark: float) -> None:
        """What has waited in vain is an orphan, and its id is free again."""
        for follow_up in list(self.waiting):
            if watermark >= follow_up.event["event_time"] + JOIN_HORIZON:
                self.waiting.remove(follow_up)
                follow_up.state = "orphan"
                del self.standing[identity_of(follow_up.event)]

    # -- orders

    def _judge_conversion(self, conversion: Arrival, watermark: float) -> None:
        conversion.state = "accepted"
        order = order_of(conversion.event)
        if order is None:
            return
        winner = self.orders.get(order)
        if winner is not None and winner.event["event_time"] < watermark - DEDUP_HORIZON:
            winner = None  # remembered no longer
        if winner is None:
            self.orders[order] = conversion
        elif order_rank(conversion.event) < order_rank(winner.event):
            self.orders[order] = conversion
            winner.state = "duplicate"
        else:
            conversion.state = "duplicate"

    # -- invalid traffic

    def _note_activity(self, event: dict) -> None:
        """Whatever becomes of the event among the others: a copy is no more of it, another content is somebody's too."""
        test, hour, identity = is_test(event), hour_of(event["event_time"]), identity_of(event)
        if event["user_id"] is not None:
            self.activity_of_user[test, event["user_id"], hour].add(identity)
        if event["ip"] is not None:
            self.activity_of_address[test, address_of(event["ip"]), hour].add(identity)

    def _beyond_a_person(self, event: dict) -> bool:
        """By its user_id as it is stated, or by its address, of the event's own hour."""
        test, hour = is_test(event), hour_of(event["event_time"])
        if event["user_id"] is not None:
            if len(self.activity_of_user[test, event["user_id"], hour]) > self.screening.per_user_hour:
                return True
        if event["ip"] is not None:
            if len(self.activity_of_address[test, address_of(event["ip"]), hour]) > self.screening.per_ip_hour:
                return True
        return False

    def _own_reason(self, arrival: Arrival) -> str:
        """Why the event is invalid by itself: the first reason that holds, '' where none does."""
        event = arrival.event
        if event["user_agent"] is not None and self.is_robot(event["user_agent"]):
            return "robot"
        return (
            self.screening.network_reason(event["ip"])
            or self.judged.get(identity_of(event), "")
            or ("rate" if self._beyond_a_person(event) else "")
        )

    def _reason(self, arrival: Arrival) -> str:
        """What follows an invalid impression is invalid."""
        reason = self._own_reason(arrival)
        if reason == "" and arrival.impression is not None:
            reason = self._own_reason(arrival.impression)
        return reason

    # -- consent

    def user_of(self, event: dict) -> str | None:
        """Whom the event may be credited by: nobody, where consent is asked for and not given."""
        return None if self.screening.lacks_consent(event) else event["user_id"]

    # -- the figures

    def outcome(self, arrival: Arrival) -> str:
        if arrival.state != "accepted":
            return arrival.state
        return "invalid_traffic" if self._reason(arrival) else "counted"

    def outcomes(self) -> list[str]:
        """The outcome of each event, in the order of arrival."""
        return [self.outcome(arrival) for arrival in self.arrivals]

    def counted(self) -> list[Arrival]:
        """What is accepted and valid so far, in the order of arrival."""
        return [arrival for arrival in self.arrivals if self.outcome(arrival) == "counted"]

    def delivery(self) -> dict[tuple, tuple[int, ...]]:
        """(window_start, dimensions) -> counts, for every row with at least one impression, gross."""
        rows: dict[tuple, dict[str, int]] = {}
        for impression in self.arrivals:
            if impression.state != "accepted" or impression.event["event_type"] != "impression":
                continue
            row = rows.setdefault(self._row_key(impression.event), {count: 0 for count in COUNTS})
            for count, number in self._counts_of(impression).items():
                row[count] += number
        return {key: tuple(row[count] for count in COUNTS) for key, row in rows.items()}

    def _row_key(self, event: dict) -> tuple:
        dimensions = [event[name] for name in DIMENSIONS]
        if is_test(event):
            dimensions[0] = "test:" + dimensions[0]
        return hour_of(event["event_time"]), *dimensions

    def invalid_traffic(self) -> dict[tuple, int]:
        """(window_start, dimensions, event_type, reason) -> events; a follow-up's hour and dimensions are its impression's."""
        rows: dict[tuple, int] = {}
        for arrival in self.arrivals:
            if self.outcome(arrival) == "invalid_traffic":
                of = arrival.impression or arrival
                key = (*self._row_key(of.event), arrival.event["event_type"], self._reason(arrival))
                rows[key] = rows.get(key, 0) + 1
        return rows

    def _counts_of(self, impression: Arrival) -> dict[str, int]:
        """What one impression and all that joined it add to the impression's row."""
        counts = {"gross_impressions": 1}
        if self._reason(impression):
            return counts
        counts["impressions"] = 1
        counts["clicks"] = 0
        counts["spend_micros"] = impression.event["price_micros"] or 0
        for follow_up in impression.follow_ups:
            if self._reason(follow_up):
                continue
            event = follow_up.event
            counts["spend_micros"] += event["price_micros"] or 0
            if event["event_type"] == "click":
                counts["clicks"] += 1
            elif event["event_type"] == "viewability":
                counts["measurable_impressions"] = 1
                if is_viewable(event, impression.event):
                    counts["viewable_impressions"] = 1
                if is_audible(event, impression.event["format"]):
                    counts["audible_impressions"] = 1
            else:
                counts[QUARTILE_COUNTS[event["event_type"]]] = 1
        return counts

    def ledger(self) -> dict[tuple, int]:
        """(window_start of the event's own time, source, event_type, outcome) -> events; 'waiting' before the end."""
        rows: dict[tuple, int] = {}
        for arrival in self.arrivals:
            read = arrival.reject or Reject(
                "", "", arrival.event["event_id"], arrival.event["event_time"], arrival.event["event_type"],
                arrival.event["source_id"],
            )
            window_start = None if read.event_time is None else hour_of(read.event_time)
            source = arrival.received.source if read.source_id is None else read.source_id
            key = (window_start, source, read.event_type, self.outcome(arrival))
            rows[key] = rows.get(key, 0) + 1
        assert sum(rows.values()) == self.received, "an event without an outcome"
        return rows

    def rejects(self) -> list[tuple]:
        """(reason, event_id, event_time, event_type, payload) of each reject, in the order of arrival."""
        rows = []
        for arrival in self.arrivals:
            if arrival.reject is not None:
                read = arrival.reject
                rows.append((
                    read.reason, read.event_id, read.event_time, read.event_type, arrival.received.payload,
                ))
            elif arrival.state in REJECTED:
                event = arrival.event
                rows.append((
                    arrival.state, event["event_id"], event["event_time"], event["event_type"],
                    arrival.received.payload,
                ))
        return rows


def is_viewable(viewability: dict, impression: dict) -> bool:
    """One event's percentage and time together, by the impression's format and size."""
    percent, visible = viewability["visible_percent"], viewability["visible_ms"]
    if percent is None or visible is None:
        return False
    if impression["format"] == "display":
        return percent >= (30 if is_large(impression) else 50) and visible >= 1000
    if impression["format"] == "video":
        return percent >= 50 and visible >= 2000
    return False


def is_large(impression: dict) -> bool:
    width, height = impression["creative_width"], impression["creative_height"]
    if width is None or height is None or width <= 0 or height <= 0:
        return False
    return width * height >= LARGE_DISPLAY


def is_audible(viewability: dict, impression_format: str | None) -> bool:
    audible = viewability["audible_ms"]
    return impression_format in ("audio", "video") and audible is not None and audible >= 2000


def heads_of(
    arrivals: Iterable[tuple[int, Received | None]], files: int, screening: Screening | None = None
) -> list[list[int]]:
    """The event times of each file's first accepted events, as a source that has all files open can see them.

    None of them can be too late: the watermark is not ahead of them before all have been read.
    """
    heads: list[list[int]] = [[] for _ in range(files)]
    for file, received in arrivals:
        if received is not None and len(heads[file]) < WATERMARK_SUPPORT:
            judged = judge_one(received, screening)
            if not isinstance(judged, Reject):
                heads[file].append(judged["event_time"])
    return heads


def count(
    arrivals: Iterable[tuple[int, Received | None]], files: int, is_robot: Callable[[str], bool] = declared_robot,
    screening: Screening | None = None,
) -> Oracle:
    """An event log, counted: (file, event) in the order of arrival, None where a file ends."""
    arrivals = list(arrivals)
    oracle = Oracle(files, is_robot, heads_of(arrivals, files, screening), screening)
    for file, received in arrivals:
        if received is None:
            oracle.end_file(file)
        else:
            oracle.receive(file, received)
    oracle.finish()
    oracle.ledger()  # proves that every event received has one outcome
    return oracle
