"""The generator: its files decoded by another reader, its truth against a slow recount of what they hold."""

import functools
import ipaddress
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
import orjson
import pytest
from crawleruseragents import is_crawler

from measurement.model.events import COUNTS, DIMENSIONS, EVENT_TYPES, FORMATS, NOT_NEGATIVE, SCHEMA
from measurement.simulate import SimulateOptions, simulate
from measurement.simulate.agents import AGENTS, FIRST_ROBOT, ROBOTS
from measurement.simulate.options import ADDING

RATES = [name for name in SimulateOptions.__dataclass_fields__ if name.endswith("_rate")]
NO_TROUBLE = dict.fromkeys(RATES, 0.0) | {"jitter_seconds": 0.0}
MUCH_TROUBLE = dict.fromkeys(RATES, 0.03) | {
    "resend_rate": 0.2, "late_rate": 0.15, "orphan_rate": 0.05, "robot_rate": 0.2, "order_repeat_rate": 0.6,
}
QUARTILES = {
    "start": "starts", "firstQuartile": "first_quartiles", "midpoint": "midpoints",
    "thirdQuartile": "third_quartiles", "complete": "completes",
}
NEEDS_IMPRESSION = {"click", "viewability", *QUARTILES}


def decode(path: Path) -> list[dict | None]:
    """Events in the file's order; None where a datum does not decode, which then is alone in its block."""
    events = []
    with path.open("rb") as file:
        for block in fastavro.block_reader(file):
            try:
                events += list(block)
            except (IndexError, ValueError, EOFError):
                assert block.num_records == 1
                events.append(None)
    return events


@functools.cache
def robot(user_agent: str | None) -> bool:
    return user_agent is not None and is_crawler(user_agent)


def reject_reason(event: dict, start: datetime) -> str | None:
    """The first reason to refuse one event, looked at alone."""
    if event["event_id"] is None or event["event_type"] is None or event["advertiser_id"] is None:
        return "missing_field"
    if event["event_type"] not in EVENT_TYPES:
        return "unknown_type"
    if event["event_type"] != "conversion" and event["campaign_id"] is None:
        return "missing_field"
    if event["event_type"] in NEEDS_IMPRESSION and event["impression_id"] is None:
        return "missing_field"
    if any(event[field] is not None and event[field] < 0 for field in NOT_NEGATIVE):
        return "bad_value"
    if event["visible_percent"] is not None and not 0 <= event["visible_percent"] <= 100:
        return "bad_value"
    if event["format"] not in (None, *FORMATS):
        return "bad_value"
    if event["ip"] is not None:
        try:
            ipaddress.ip_address(event["ip"])
        except ValueError:
            return "bad_value"
    if event["event_time"] - event["received_time"] > timedelta(minutes=10):
        return "future"
    if event["event_time"] < start - timedelta(days=10):
        return "too_late"
    return None


def judged(logs: list[list[dict | None]], start: datetime) -> tuple[Counter, dict[str, dict], list[tuple[dict, dict | None]]]:
    """Outcomes of whole logs by the rules of counting and without any watermark, the impressions that were accepted, and
    what is counted, each with its impression (conversions without)."""
    outcomes = Counter()
    accepted = {}  # identity -> event, of those that stand
    arrivals = []
    for log in logs:
        for event in log:
            if event is None:
                outcomes[None, "undecodable"] += 1
            else:
                arrivals.append({name: None if value == "" else value for name, value in event.items()})
    arrivals.sort(key=lambda event: event["received_time"])
    for event in arrivals:
        content = {name: value for name, value in event.items() if name != "received_time"}
        reason = reject_reason(event, start)
        if reason is None:
            owner = event["impression_id"] if event["event_type"] in NEEDS_IMPRESSION else event["event_id"]
            first = accepted.setdefault((event["event_id"], owner), content)
            if first is not content:
                reason = "duplicate" if first == content else "id_conflict"
        if reason:
            outcomes[event["event_type"], reason] += 1

    orders = defaultdict(list)
    for event in accepted.values():
        if event["event_type"] == "conversion" and event["order_id"] is not None:
            orders[event["advertiser_id"], event["conversion_type"], event["order_id"]].append(event)
    repeated = set()
    for reports in orders.values():
        reports.sort(key=lambda event: (event["event_time"], event["event_id"]))
        assert reports[-1]["event_time"] - reports[0]["event_time"] < timedelta(days=7)
        repeated.update(event["event_id"] for event in reports[1:])

    impressions = {event["event_id"]: event for event in accepted.values() if event["event_type"] == "impression"}
    counted = []
    for event in accepted.values():
        kind = event["event_type"]
        impression = impressions.get(event["impression_id"]) if kind in NEEDS_IMPRESSION else None
        if kind == "conversion" and event["event_id"] in repeated:
            outcome = "duplicate"
        elif kind in NEEDS_IMPRESSION and impression is None:
            outcome = "orphan"
        elif robot(event["user_agent"]) or (impression and robot(impression["user_agent"])):
            outcome = "invalid_traffic"
        else:
            outcome = "counted"
            counted.append((event, event if kind == "impression" else impression))
        if impression:
            assert abs(event["event_time"] - impression["event_time"]) < timedelta(hours=2)
        outcomes[kind, outcome] += 1
    return outcomes, impressions, counted


def recount(logs: list[list[dict | None]], start: datetime) -> dict:
    """Outcomes and delivery of whole logs."""
    outcomes, impressions, counted = judged(logs, start)
    following = defaultdict(list)
    for event, impression in counted:
        if impression:
            following[impression["event_id"]].append(event)
    delivery = defaultdict(Counter)
    for impression_id, impression in impressions.items():
        hour = impression["event_time"].replace(minute=0, second=0, microsecond=0)
        row = delivery[hour.strftime("%Y-%m-%dT%H:%M:%SZ"), *(impression[name] for name in DIMENSIONS)]
        row["gross_impressions"] += 1
        once = set()
        for event in following[impression_id]:
            row["spend_micros"] += event["price_micros"] or 0
            match event["event_type"]:
                case "impression":
                    row["impressions"] += 1
                case "click":
                    row["clicks"] += 1
                case "viewability":
                    once.add("measurable_impressions")
                    percent, ms = event["visible_percent"] or 0, event["visible_ms"] or 0
                    size = (impression["creative_width"] or 0) * (impression["creative_height"] or 0)
                    enough = 30 if impression["format"] == "display" and size >= 242_500 else 50
                    if percent >= enough and ms >= {"display": 1000, "video": 2000}.get(impression["format"], 10**9):
                        once.add("viewable_impressions")
                    if impression["format"] in ("audio", "video") and (event["audible_ms"] or 0) >= 2000:
                        once.add("audible_impressions")
                case quartile:
                    once.add(QUARTILES[quartile])
        row.update(once)
    rows = [[*key, *(row[name] for name in COUNTS)] for key, row in delivery.items()]
    return {"outcomes": outcomes, "delivery": sorted(rows, key=sort_key)}


def sort_key(row: list) -> list:
    return [(value is not None, value or "") for value in row[: 1 + len(DIMENSIONS)]]


def make(out: Path, **options) -> tuple[list[list[dict | None]], dict]:
    summary = simulate(SimulateOptions(**options), out)
    truth = orjson.loads((out / "truth.json").read_bytes())
    assert summary.files == tuple(sorted(out.glob("events*.avro")))
    assert summary.bytes == sum(path.stat().st_size for path in summary.files)
    assert summary.outcomes == truth["outcomes"] and summary.delivery_rows == len(truth["delivery"])
    assert not list(out.glob(".*"))
    return [decode(path) for path in summary.files], truth


def check(logs: list, truth: dict) -> None:
    """The truth is that of the decoded events, and says so in the form it promises."""
    count = recount(logs, datetime.fromisoformat(truth["options"]["start"]))
    assert truth["events"] == sum(map(len, logs))
    assert {(kind, outcome): n for kind, outcome, n in truth["outcomes_by_type"]} == count["outcomes"]
    by_outcome = Counter()
    for (_, outcome), n in count["outcomes"].items():
        by_outcome[outcome] += n
    assert truth["outcomes"] == by_outcome
    assert truth["delivery_columns"] == ["window_start", *DIMENSIONS, *COUNTS]
    assert truth["delivery"] == count["delivery"]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> tuple[list[list[dict | None]], dict]:
    return make(tmp_path_factory.mktemp("troubled"), events=20_000, seed=11, **MUCH_TROUBLE)


def test_truth_is_the_recount_of_a_troubled_log(troubled) -> None:
    logs, truth = troubled
    check(logs, truth)
    assert truth["outcomes"].keys() == {
        "undecodable", "missing_field", "unknown_type", "bad_value", "future", "too_late",
        "id_conflict", "duplicate", "orphan", "invalid_traffic", "counted",
    }
    counts = {name: sum(row[len(DIMENSIONS) + 1 + i] for row in truth["delivery"]) for i, name in enumerate(COUNTS)}
    assert all(counts.values())
    assert any(row[len(DIMENSIONS) + 1] and not row[len(DIMENSIONS) + 2] for row in truth["delivery"])  # gross only


@pytest.mark.parametrize(
    "options",
    [
        {"events": 20_000, "seed": 0},
        {"events": 8_000, "seed": 3, "hours": 240, "files": 4, **MUCH_TROUBLE},
        {"events": 3_000, "seed": 4, "hours": 0.5, "start": datetime(2026, 12, 31, 23, 45, tzinfo=UTC), **MUCH_TROUBLE},
        {"events": 20_000, "seed": 7, "order_repeat_rate": 1.0, "robot_rate": 0.5},
        {"events": 2_000, "seed": 5, "orphan_rate": 1.0},
        {"events": 2_000, "seed": 6, "robot_rate": 1.0},
        *({"events": events, "seed": seed, **trouble}
          for events in (1, 2, 10, 1000) for seed in range(3) for trouble in ({}, NO_TROUBLE, MUCH_TROUBLE)),
    ],
    ids=lambda options: "-".join(f"{k}{v}" for k, v in list(options.items())[:3]),
)
def test_truth_is_the_recount(tmp_path: Path, options: dict) -> None:
    check(*make(tmp_path, **options))


def test_other_readers_read_the_container(tmp_path: Path) -> None:
    summary = simulate(SimulateOptions(events=20_000, seed=1, undecodable_rate=0), tmp_path)
    total = 0
    for path in summary.files:
        with path.open("rb") as file:
            reader = fastavro.reader(file, reader_schema=SCHEMA)
            assert reader.writer_schema["name"] == "measurement.v1.AdEvent" and reader.codec == "null"
            assert [f["name"] for f in reader.writer_schema["fields"]] == [f["name"] for f in SCHEMA["fields"]]
            total += sum(1 for _ in reader)
    assert total == 20_000 and len(summary.files) == 3


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def written(name: str, seed: int) -> dict[str, bytes]:
        simulate(SimulateOptions(events=5_000, seed=seed), tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = written("a", 5)
    assert first.keys() == {"bookings.csv", "events-01.avro", "events-02.avro", "events-03.avro", "truth.json"}
    assert written("b", 5) == first
    assert written("c", 6)["events-01.avro"] != first["events-01.avro"]


@pytest.mark.parametrize(
    ("rate", "outcome"),
    [
        ("orphan_rate", "orphan"), ("conflict_rate", "id_conflict"), ("robot_rate", "invalid_traffic"),
        ("missing_rate", "missing_field"), ("unknown_type_rate", "unknown_type"), ("bad_value_rate", "bad_value"),
        ("future_rate", "future"), ("too_late_rate", "too_late"), ("undecodable_rate", "undecodable"),
    ],
)
def test_rate_of_0_turns_its_trouble_off(tmp_path: Path, rate: str, outcome: str) -> None:
    logs, truth = make(tmp_path, events=5_000, seed=2, **MUCH_TROUBLE | {rate: 0})
    assert outcome not in truth["outcomes"]
    check(logs, truth)


def test_without_trouble_all_is_counted_and_in_order(tmp_path: Path) -> None:
    logs, truth = make(tmp_path, events=5_000, seed=2, **NO_TROUBLE)
    assert truth["outcomes"] == {"counted": 5_000}
    for log in logs:
        assert log == sorted(log, key=lambda event: event["event_time"])


def test_duplicates_come_from_resends_and_repeated_orders(tmp_path: Path) -> None:
    _, resent = make(tmp_path / "a", events=5_000, seed=2, **NO_TROUBLE | {"resend_rate": 0.1})
    assert resent["outcomes"]["duplicate"] == 500
    _, repeated = make(tmp_path / "b", events=20_000, seed=2, **NO_TROUBLE | {"order_repeat_rate": 1.0})
    assert [row[0] for row in repeated["outcomes_by_type"] if row[1] == "duplicate"] == ["conversion"]


def test_margins(troubled) -> None:
    """What the rules decide by a watermark is far from where any watermark may stand."""
    logs, _ = troubled
    longest = timedelta(0)
    impression_seen, before_impression = set(), 0
    for log in logs:
        events = [event for event in log if event is not None]
        received = [event["received_time"] for event in events]
        assert received == sorted(received)
        first_content: dict[tuple, tuple] = {}
        for place, event in enumerate(events):
            delay = event["received_time"] - event["event_time"]
            if delay > timedelta(days=10):
                assert 28 <= delay.days <= 32 and place > len(events) / 2
            elif delay < timedelta(0):
                assert delay <= -timedelta(hours=1)
            elif event["event_id"]:
                longest = max(longest, delay)
                if event["event_type"] == "impression":
                    impression_seen.add(event["event_id"])
                elif event["impression_id"] and event["impression_id"] not in impression_seen:
                    before_impression += 1
                content = tuple(value for name, value in event.items() if name != "received_time")
                identity = (event["event_id"], event["impression_id"])
                known = first_content.setdefault(identity, (content, event["received_time"]))
                if known[0] != content:
                    assert event["received_time"] - known[1] > timedelta(minutes=10)
    assert timedelta(hours=5) < longest <= timedelta(hours=6)
    assert before_impression > 100


def test_events_look_real(troubled) -> None:
    logs, _ = troubled
    events = [event for log in logs for event in log if event is not None]
    distinct = {event["event_id"] for event in events}
    assert all(len(event_id) == 32 for event_id in distinct if event_id)
    addresses = [ipaddress.ip_address(event["ip"]) for event in events if event["ip"] not in (None, "not-an-ip")]
    assert {address.version for address in addresses} == {4, 6}
    assert all(address.is_global for address in addresses)
    impressions = [event for event in events if event["event_type"] == "impression"]
    share = Counter(event["format"] for event in impressions)
    assert share["display"] > share["video"] > share["audio"] > share[None] > 0
    by_hour = Counter(event["event_time"].hour for event in impressions)
    assert by_hour[20] > 3 * by_hour[3]
    campaigns = Counter(event["campaign_id"] for event in impressions).most_common()
    assert campaigns[0][1] > 10 * campaigns[40][1]
    billed = {(event["pricing_model"], event["event_type"]) for event in events if (event["price_micros"] or -1) > 0}
    assert billed >= {("cpm", "impression"), ("cpc", "click"), ("cpv", "complete")}
    for field in ("line_item_id", "creative_id", "placement_id", "format", "country", "device_type", "user_id"):
        assert 0 < sum(event[field] is None for event in impressions) < len(impressions) / 10
    for event in events:
        assert event["source_id"] and event["received_time"] and event["test"] is None


def test_user_agents_are_what_the_screening_list_says() -> None:
    humans = AGENTS[1:FIRST_ROBOT]
    assert len(set(humans)) == len(humans) >= 200 and AGENTS[FIRST_ROBOT:] == ROBOTS
    for case_sensitive in (True, False):
        assert not [agent for agent in humans if is_crawler(agent, case_sensitive)]
        assert not [agent for agent in ROBOTS if not is_crawler(agent, case_sensitive)]


def test_refuses_to_mix_logs(tmp_path: Path) -> None:
    simulate(SimulateOptions(events=5_000), tmp_path)
    with pytest.raises(ValueError, match=r"^--out: .*events-01\.avro"):
        simulate(SimulateOptions(events=10), tmp_path)
    simulate(SimulateOptions(events=10), tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"bookings.csv", "events-01.avro", "truth.json"}


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"events": 0}, "--events"),
        ({"seed": -1}, "--seed"),
        ({"hours": 0}, "--hours"),
        ({"hours": 241}, "--hours"),
        ({"files": 0}, "--files"),
        ({"jitter_seconds": -1}, "--jitter-seconds"),
        ({"start": datetime(2026, 3, 2)}, "--start"),
        *(({rate: value}, "--" + rate.replace("_", "-")) for rate in RATES for value in (-0.1, 1.1, float("nan"))),
        (dict.fromkeys(ADDING, 0.2), "--resend-rate"),
    ],
)
def test_wrong_options_name_their_flag(options: dict, flag: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag}") as error:
        SimulateOptions(**{"events": 10} | options)
    assert "\n" not in str(error.value)
