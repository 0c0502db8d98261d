"""Logs with traffic to be screened: their truth against the oracle's count of the written files under the written policy."""

import base64
import functools
import io
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import fastavro
import orjson
import pytest
import yaml
from oracle import (
    COUNTS, DIMENSIONS, EVENT_TYPES, HOUR, INVALID_REASONS, PLAIN_SCHEMA, Oracle, Received, Screening, address_of, count, hour_of,
)
from oracle_attribution import ATTRIBUTION_KEY, CREDIT_KEY, attribution, credits
from test_simulate import MUCH_TROUBLE, NO_TROUBLE

from measurement.simulate import SimulateOptions, simulate
from measurement.simulate.consents import BROKEN, CONSENTS, GRANTED, GRANTING, REFUSING
from measurement.simulate.screened import REQUIRED_IN

PURPOSE_7 = 152 + 6  # its bit in a TCF string's core segment
FIBONACCI = (1, 2, 3, 5, 8, 13, 21, 34)


# --- What consent strings say, by the specifications ----------------------------------------------------------

def bits_of(text: str) -> str:
    """Six a letter; ValueError for what is no base64url."""
    if not text or not set(text.encode()) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):
        raise ValueError("no base64url")
    return "".join(f"{byte:08b}" for byte in base64.urlsafe_b64decode(text + "A" * (-len(text) % 4)))[: 6 * len(text)]


def gpp_sections(header: str) -> list[int]:
    """Type 3, version 1, how many, and of each whether it is a range, and its distance from the last as Fibonacci's code."""
    bits = bits_of(header)
    assert (bits[:6], bits[6:12]) == ("000011", "000001")
    place, sections, last = 24, [], 0
    for _ in range(int(bits[12:24], 2)):
        assert bits[place] == "0", "a range"
        end = bits.index("11", place + 1) + 2
        last += sum(number for number, bit in zip(FIBONACCI, bits[place + 1 : end - 1]) if bit == "1")
        sections.append(last)
        place = end
    return sections


@functools.cache
def granted(consent: str) -> bool:
    """Purpose 7, by consent."""
    try:
        if "~" in consent:
            header, *texts = consent.split("~")
            sections = dict(zip(gpp_sections(header), texts))
            if 2 not in sections:
                return False
            consent = sections[2]
        bits = bits_of(consent.partition(".")[0])
    except ValueError:
        return False
    return len(bits) > 152 + 24 and bits[:6] == "000010" and bits[PURPOSE_7] == "1"


def test_the_strings_say_what_the_generator_takes_them_for() -> None:
    assert [consent is not None and granted(consent) for consent in CONSENTS] == list(GRANTED)
    assert all(map(granted, GRANTING)) and not any(map(granted, REFUSING + BROKEN))
    assert len(set(CONSENTS)) == len(CONSENTS) == 4 + len(GRANTING) + len(REFUSING) + len(BROKEN)
    assert gpp_sections("DBABMA") == [2] and gpp_sections("DBACNYA") == [2, 6] and gpp_sections("DBABLA") == [7]


@pytest.mark.parametrize("consent", [*GRANTING, *REFUSING[:-1]])
def test_strings_that_parse_are_whole(consent: str) -> None:
    """Core segments to their last bit: vendors by consent and by interest, publishers' restrictions, and zeros behind."""
    text = consent.split("~")[1] if "~" in consent else consent
    segments = [bits_of(segment) for segment in text.split(".")]
    assert all(len(segment) % 4 != 1 for segment in text.split("."))
    assert [segment[:3] for segment in segments[1:]] in ([], ["001"], ["001", "011"])  # disclosed vendors, publisher's
    core, place = segments[0], 213
    for _ in range(2):
        most, in_ranges = int(core[place : place + 16], 2), core[place + 16] == "1"
        place += 17
        if not in_ranges:
            place += most
            continue
        entries = int(core[place : place + 12], 2)
        place += 12
        for _ in range(entries):
            is_range = core[place] == "1"
            place += 17
            first = last = int(core[place - 16 : place], 2)
            if is_range:
                place += 16
                last = int(core[place - 16 : place], 2)
            assert 0 < first <= last <= most
    assert int(core[place : place + 12], 2) == 0
    assert len(core) >= place + 12 and "1" not in core[place + 12 :]


# --- The written log, counted by the written policy -----------------------------------------------------------

def read(out: Path) -> list[list[Received]]:
    """The files' datums as they stand there."""
    files = []
    for path in sorted(out.glob("events*.avro")):
        received = []
        with path.open("rb") as file:
            for block in fastavro.block_reader(file):
                data = block.bytes_.getvalue()
                stream = io.BytesIO(data)
                for _ in range(block.num_records):
                    first = stream.tell()
                    try:
                        fastavro.schemaless_reader(stream, PLAIN_SCHEMA)
                    except (IndexError, ValueError, EOFError):
                        assert block.num_records == 1
                        stream.seek(0, io.SEEK_END)
                    received.append(Received(data[first : stream.tell()], "avro", path.name, 2**60))
        files.append(received)
    return files


def receipts(file: list[Received]) -> list[int]:
    """When each was received; one that cannot be read, with the one before it."""
    times = [0]
    for received in file:
        try:
            times.append(fastavro.schemaless_reader(io.BytesIO(received.payload), PLAIN_SCHEMA)["received_time"])
        except (IndexError, ValueError, EOFError):
            times.append(times[-1])
    return times[1:]


def screening_of(out: Path) -> tuple[Screening, dict]:
    """What the policy and the files that it names say."""
    policy = yaml.safe_load((out / "policy.yaml").read_text())
    assert policy.keys() == {"screening"}
    section = policy["screening"]
    assert section.keys() == {"networks", "listed", "rate", "consent"}
    consent = section["consent"]
    assert (consent["vendor"], consent["purposes"]) == (0, [7])
    networks, listed = (
        [line for name in section[key] for line in (out / name).read_text().splitlines() if line and line[0] != "#"]
        for key in ("networks", "listed")
    )
    return Screening(
        networks, listed, **section["rate"], required_in=consent["required_in"], granted=granted,
        otherwise=consent["otherwise"],
    ), policy


def counted(out: Path, one_by_one: bool = False) -> Oracle:
    """The log as it was received, or file by file."""
    files = read(out)
    arrivals = [
        (time, number, received) for number, file in enumerate(files) for time, received in zip(receipts(file), file)
    ]
    if not one_by_one:
        arrivals.sort(key=lambda arrival: arrival[0])
    return count([(number, received) for _, number, received in arrivals], len(files), screening=screening_of(out)[0])


def make(out: Path, **options) -> dict:
    simulate(SimulateOptions(screening=True, **options), out)
    return orjson.loads((out / "truth.json").read_bytes())


def hour_text(time: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(time: int | None) -> str | None:
    when = None if time is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return when and when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def numeric(units: int) -> str:
    return f"{Decimal(units).scaleb(-9):.9f}"


def check(truth: dict, oracle: Oracle) -> None:
    """The truth is the oracle's, table by table, in the order that it promises."""
    by_type = Counter()
    for (_, _, event_type, outcome), events in oracle.ledger().items():
        by_type[event_type, outcome] += events
    assert {(kind, outcome): events for kind, outcome, events in truth["outcomes_by_type"]} == by_type
    by_outcome = Counter(oracle.outcomes())
    assert truth["outcomes"] == by_outcome

    assert truth["delivery_columns"] == ["window_start", *DIMENSIONS, *COUNTS]
    delivery = [[hour_text(time), *names, *counts] for (time, *names), counts in oracle.delivery().items()]
    assert truth["delivery"] == sorted(delivery, key=lambda row: order_of(row[: -len(COUNTS)]))

    assert truth["invalid_traffic"]["columns"] == ["window_start", *DIMENSIONS, "event_type", "reason", "events"]
    invalid = [[hour_text(time), *names, events] for (time, *names), events in oracle.invalid_traffic().items()]
    assert truth["invalid_traffic"]["rows"] == sorted(invalid, key=lambda row: order_of(row[:-1]))

    rows = credits(oracle, None)
    columns = truth["conversion_credits"]["columns"]
    told = []
    for key, (credit, value) in rows.items():
        row = dict(zip(CREDIT_KEY, key), credit=numeric(credit), value_micros=value)
        row |= {name: instant(row[name]) for name in ("conversion_time", "touch_time")}
        told.append([row[name] for name in columns])
    assert Counter(map(tuple, truth["conversion_credits"]["rows"])) == Counter(map(tuple, told))
    columns = truth["attribution"]["columns"]
    told = []
    for key, (conversions, value) in attribution(rows).items():
        row = dict(zip(ATTRIBUTION_KEY, key), conversions=numeric(conversions), value_micros=value)
        row["window_start"] = hour_text(row["window_start"])
        told.append([row[name] for name in columns])
    assert Counter(map(tuple, truth["attribution"]["rows"])) == Counter(map(tuple, told))


def order_of(texts: list) -> list:
    return [(text is not None, text or "") for text in texts]


@pytest.mark.parametrize("consent", ["drop_user", "reject"])
@pytest.mark.parametrize(
    "options",
    [
        *({"events": 4_000, "seed": seed, "files": 2} for seed in range(3)),
        {"events": 4_000, "seed": 3, "hours": 6, **MUCH_TROUBLE},
        {"events": 4_000, "seed": 4, "hours": 0.5, "files": 1, **MUCH_TROUBLE},  # ordinary people go beyond, too
        {"events": 4_000, "seed": 5, "hours": 120, **NO_TROUBLE},
        {"events": 3_000, "seed": 6, "order_repeat_rate": 1.0, "orphan_rate": 0.3, "hours": 12},
        {"events": 2_500, "seed": 7, "robot_rate": 0.8},
        {"events": 15_000, "seed": 10, "hours": 48, "order_repeat_rate": 1.0},  # enough orders and conversions
        *({"events": events, "seed": 8} for events in (1, 10, 300)),
    ],
    ids=lambda options: "-".join(f"{k}{v}" for k, v in list(options.items())[:3]),
)
def test_truth_is_the_oracles(tmp_path: Path, options: dict, consent: str) -> None:
    check(make(tmp_path, consent=consent, **options), counted(tmp_path))


def test_truth_is_the_oracles_file_by_file(tmp_path: Path) -> None:
    check(make(tmp_path, events=4_000, seed=9), counted(tmp_path, one_by_one=True))


def test_without_screening_the_robots_are_in_invalid_traffic(tmp_path: Path) -> None:
    simulate(SimulateOptions(events=3_000, seed=1, **MUCH_TROUBLE), tmp_path)
    (tmp_path / "policy.yaml").write_text(
        "screening: {networks: [], listed: [], rate: {}, "
        "consent: {vendor: 0, purposes: [7], required_in: [], otherwise: drop_user}}")
    truth = orjson.loads((tmp_path / "truth.json").read_bytes())
    check(truth, counted(tmp_path))
    assert {row[-2] for row in truth["invalid_traffic"]["rows"]} == {"robot"}


# --- What such a log holds ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def log(tmp_path_factory) -> tuple[Path, dict, Oracle]:
    out = tmp_path_factory.mktemp("log")
    truth = make(out, events=6_000, seed=21, files=2)
    return out, truth, counted(out)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("large")
    return out, make(out, events=300_000, seed=1, files=1)


def test_every_reason_meets_every_type(large) -> None:
    _, truth = large
    events = Counter()
    for row in truth["invalid_traffic"]["rows"]:
        events[row[-3], row[-2]] += row[-1]
    assert sum(events.values()) == truth["outcomes"]["invalid_traffic"]
    assert events.keys() == {(kind, reason) for kind in EVENT_TYPES for reason in INVALID_REASONS}


def test_crowds_are_about_as_large_as_allowed(log) -> None:
    """Some have just as many events as are allowed, some one more; ordinary people have fewer."""
    out, _, oracle = log
    rate = screening_of(out)[0]
    by_user = Counter(len(identities) for identities in oracle.activity_of_user.values())
    by_address = Counter(len(identities) for identities in oracle.activity_of_address.values())
    for by, threshold in ((by_user, rate.per_user_hour), (by_address, rate.per_ip_hour)):
        assert by[threshold] and by[threshold + 1] and max(by) >= 2 * threshold
        assert sum(crowds for events, crowds in by.items() if events >= threshold) < 20
    assert rate == Screening(rate.networks, rate.listed, 40, 60, list(REQUIRED_IN), granted, "drop_user")


def test_another_content_takes_a_crowd_beyond(tmp_path: Path) -> None:
    """A conflict is activity of its own user, though nothing else comes of it."""
    make(tmp_path, events=6_000, seed=3, conflict_rate=0.05)
    oracle = counted(tmp_path)
    stood = defaultdict(set)
    for arrival in oracle.arrivals:
        if arrival.event and arrival.state not in ("too_late", "id_conflict") and arrival.event["user_id"]:
            event = arrival.event
            stood[event["user_id"], hour_of(event["event_time"])].add((event["impression_id"], event["event_id"]))
    seen = {(user, hour): len(identities) for (_, user, hour), identities in oracle.activity_of_user.items()}
    assert any(len(stood[key]) <= 40 < events for key, events in seen.items())


def test_one_address_is_spelled_in_several_ways(log) -> None:
    _, _, oracle = log
    spellings = defaultdict(set)
    for arrival in oracle.arrivals:
        if arrival.event and arrival.event["ip"]:
            spellings[address_of(arrival.event["ip"])].add(arrival.event["ip"])
    several = [address for address, texts in spellings.items() if len(texts) > 1]
    assert {address.version for address in several} == {4, 6}


def test_networks_are_of_both_versions_and_overlap(log) -> None:
    out, _, oracle = log
    screening, _ = screening_of(out)
    for networks in (screening.networks, screening.listed):
        assert {ip_network(network).version for network in networks} == {4, 6}
    data_centres = [network for network in map(ip_network, screening.networks) if network.version == 4]
    assert any(a != b and a.overlaps(b) for a in data_centres for b in data_centres)
    for name in ("datacentres.txt", "listed.txt"):
        lines = (out / name).read_text().splitlines()
        assert any(line.startswith("# version: ") for line in lines) and any(line.startswith("# date: ") for line in lines)
    addresses = {arrival.event["ip"] for arrival in oracle.arrivals if arrival.event and arrival.event["ip"]}
    found = Counter((screening.network_reason(ip), address_of(ip).version) for ip in addresses)
    assert all(found[reason, version] for reason in ("", "datacentre", "listed") for version in (4, 6))


def test_consent_is_granted_refused_broken_and_not_there(log) -> None:
    out, _, oracle = log
    screening, _ = screening_of(out)
    asked = [a.event for a in oracle.arrivals if a.event and a.event["country"] in screening.required_in]
    consents = {event["consent"] for event in asked}
    assert None in consents and consents & set(GRANTING) and consents & set(REFUSING) and consents & set(BROKEN)
    lacking = sum(map(screening.lacks_consent, asked))
    assert 0.15 * len(asked) < lacking < 0.6 * len(asked)
    assert {event["event_type"] for event in asked if screening.lacks_consent(event)} >= {"impression", "click", "conversion"}


def test_a_refusal_costs_credit_or_the_event(tmp_path: Path) -> None:
    dropped, refused = (
        make(tmp_path / consent, events=4_000, seed=2, consent=consent) for consent in ("drop_user", "reject")
    )
    assert "consent_denied" not in dropped["outcomes"] and refused["outcomes"]["consent_denied"] > 300
    assert refused["outcomes"]["orphan"] > dropped["outcomes"]["orphan"]
    for path in (tmp_path / "drop_user").glob("events*.avro"):
        assert path.read_bytes() == (tmp_path / "reject" / path.name).read_bytes()
    assert {dropped["policy"], refused["policy"]}.isdisjoint({"default"}) and dropped["policy"] != refused["policy"]


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def written(name: str, **options) -> dict[str, bytes]:
        make(tmp_path / name, events=3_000, **options)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = written("a", seed=5)
    assert first.keys() >= {"events-01.avro", "truth.json", "policy.yaml", "datacentres.txt", "listed.txt"}
    assert written("b", seed=5) == first
    assert written("c", seed=6)["events-01.avro"] != first["events-01.avro"]


def test_thresholds_are_above_people_in_larger_logs(large) -> None:
    """The written thresholds grow with what meets in an hour; most hours of most people are within them."""
    out, _ = large
    rate = screening_of(out)[0]
    assert rate.per_user_hour > 40 and rate.per_ip_hour > 60
    counts = Counter()
    for received in read(out)[0]:
        try:
            event = fastavro.schemaless_reader(io.BytesIO(received.payload), PLAIN_SCHEMA)
        except (IndexError, ValueError, EOFError):
            continue
        counts[event["user_id"], event["event_time"] // HOUR] += event["user_id"] is not None
    beyond = [events for events in counts.values() if events > 1.1 * rate.per_user_hour]
    assert 10 < len(beyond) < 100


# --- The flags ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("options", "flag"),
    [({"consent": "reject"}, "--consent"), ({"screening": True, "consent": "ask"}, "--consent"),
     ({"screening": True, "policy": Path("policy.yaml")}, "--policy")],
)
def test_flags_that_do_not_go_together_are_refused(options: dict, flag: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag}") as error:
        SimulateOptions(**{"events": 10} | options)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "measurement.cli", "simulate", "--screening", "--events", "500", "--out", str(tmp_path / "log")]
    done = subprocess.run([*command, "--consent", "reject"], capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert screening_of(tmp_path / "log")[0].otherwise == "reject"
    assert orjson.loads((tmp_path / "log" / "truth.json").read_bytes())["options"]["consent"] == "reject"
    done = subprocess.run([*command, "--policy", "p.yaml"], capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--policy" in done.stderr
