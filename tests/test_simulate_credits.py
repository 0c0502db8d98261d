"""The truth of attribution: against a slow recount of what the files hold, and what its rows must add up to."""

import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import orjson
import pytest
from test_simulate import MUCH_TROUBLE, NO_TROUBLE, decode, judged

from measurement.model.attribution import MODELS, AttributionRule
from measurement.model.policy_file import PolicyError
from measurement.model.tables import ATTRIBUTION, CREDITS
from measurement.simulate import SimulateOptions, simulate
from measurement.simulate.credits import Conversion, Touch, credited

ALL_MODELS = "models: [last_touch, first_touch, linear, time_decay, position_based]"
BOTH_PRIORITIES = f"""
attribution:
  default: {{{ALL_MODELS}, click_lookback: 30d, view_lookback: 1d, half_life: 1h, position_weights: [0.3, 0.3, 0.4]}}
  advertisers:
    ODD: {{priority: none, click_lookback: 1h, view_lookback: 6h, half_life: 7d, position_weights: [0.5, 0, 0.5]}}
"""
# What BOTH_PRIORITIES says of its two kinds of advertiser: lookbacks of views and clicks, half-life, position weights.
EVEN = timedelta(days=1), timedelta(days=30), timedelta(hours=1), (3, 3, 4)
ODD = timedelta(hours=6), timedelta(hours=1), timedelta(days=7), (1, 0, 1)
PLACES = ("campaign_id", "line_item_id", "creative_id", "placement_id")


def odd(advertiser_id: str) -> bool:
    return int(advertiser_id.removeprefix("adv-")) % 2 == 1


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """All five models; the advertisers of odd numbers treat views and clicks alike."""
    head, _, rule = BOTH_PRIORITIES.rpartition("    ODD: ")
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(head + "".join(f"    adv-{number}: {rule}" for number in range(1, 60, 2)))
    return path


def make(out: Path, **options) -> tuple[dict, list[dict], list[dict]]:
    """The truth, and the rows of its two tables by column name."""
    simulate(SimulateOptions(**options), out)
    truth = orjson.loads((out / "truth.json").read_bytes())
    told = []
    for table in CREDITS, ATTRIBUTION:
        assert truth[table.name]["columns"] == [column.name for column in table.body]
        rows = [dict(zip(truth[table.name]["columns"], row, strict=True)) for row in truth[table.name]["rows"]]
        assert rows == sorted(rows, key=lambda row: [(v is not None, v or "") for v in row.values() if type(v) is not int])
        told.append(rows)
    return truth, *told


def read(out: Path) -> list[list[dict | None]]:
    return [decode(path) for path in sorted(out.glob("events*.avro"))]


def brute(logs: list, start: datetime) -> list[tuple]:
    """Rows of credits by the contract's words, by looking at every touch for every conversion."""
    _, _, counted = judged(logs, start)
    rows = []
    for conversion, _ in counted:
        if conversion["event_type"] != "conversion":
            continue
        is_odd, at = odd(conversion["advertiser_id"]), conversion["event_time"]
        view_lookback, click_lookback, half_life, weights = ODD if is_odd else EVEN
        touches = []
        for event, impression in counted if conversion["user_id"] else ():
            lookback = {"impression": view_lookback, "click": click_lookback}.get(event["event_type"])
            if (
                lookback and event["user_id"] == conversion["user_id"]
                and impression["advertiser_id"] == conversion["advertiser_id"]
                and event["event_time"] < at <= event["event_time"] + lookback
            ):
                touches.append((event["event_time"], event["event_id"], event["event_type"], impression))
        touches.sort(key=lambda touch: touch[:2])
        clicks = [touch for touch in touches if touch[2] == "click"]
        clicked = {touch[3]["event_id"] for touch in clicks}
        touches = [
            touch for i, touch in enumerate(touches)
            if touch[2] == "click" and touch[3] not in [later[3] for later in touches[i + 1:] if later[2] == "click"]
            or touch[2] == "impression" and touch[1] not in clicked and (is_odd or not clicks)
        ]
        value = conversion["value_micros"] or 0
        for model in MODELS:
            if not touches:
                earned = [(None, None, None, dict.fromkeys(PLACES), 10**9, value)]
            else:
                shares = model_weights(model, [at - touch[0] for touch in touches], half_life, weights)
                earned = [(*touch, credit, micros) for touch, credit, micros in zip(
                    touches, largest_remainder(10**9, shares), largest_remainder(value, shares))]
            rows += [
                (conversion["event_id"], model, touch_id, said(at), conversion["conversion_type"],
                 conversion["advertiser_id"], kind, said(time), *(impression[name] for name in PLACES),
                 f"{Decimal(credit).scaleb(-9):.9f}", micros, conversion["currency"])
                for time, touch_id, kind, impression, credit, micros in earned if credit or micros
            ]
    return rows


def model_weights(model: str, ages: list[timedelta], half_life: timedelta, weights: tuple) -> list[Fraction]:
    n = len(ages)
    if model == "time_decay":
        with localcontext(prec=80):
            halvings = [Decimal((age - min(ages)) // timedelta(microseconds=1)) / (half_life // timedelta(microseconds=1))
                        for age in ages]
            return [Fraction(int((2 ** (48 - h)).quantize(Decimal(1), ROUND_FLOOR))) for h in halvings]
    first, middle, last = {
        "last_touch": (0, 0, 1), "first_touch": (1, 0, 0), "linear": (1, n - 2, 1), "position_based": weights,
    }[model]
    if n == 1:
        return [Fraction(1)]
    if n == 2:
        return [Fraction(first), Fraction(last)]
    return [Fraction(first), *[Fraction(middle, n - 2)] * (n - 2), Fraction(last)]


def largest_remainder(total: int, weights: list[Fraction]) -> list[int]:
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    while sum(shares) < total:
        rests = [share - whole if whole <= share else Fraction(-1) for share, whole in zip(exact, shares)]
        shares[rests.index(max(rests))] += 1
    return shares


def said(time: datetime | None) -> str | None:
    return time and time.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    "options",
    [
        *({"events": 3_000, "seed": seed, **MUCH_TROUBLE} for seed in range(3)),
        {"events": 3_000, "seed": 4, "hours": 240},
        {"events": 30_000, "seed": 5, "hours": 72, **MUCH_TROUBLE},
        {"events": 30_000, "seed": 6, **NO_TROUBLE},
        {"events": 1, "seed": 1}, {"events": 1_000, "orphan_rate": 1.0}, {"events": 1_000, "robot_rate": 1.0},
    ],
    ids=lambda options: "-".join(f"{k}{v}" for k, v in list(options.items())[:3]),
)
def test_credits_are_the_recount(tmp_path: Path, policy: Path, options: dict) -> None:
    truth, _, _ = make(tmp_path, policy=policy, **options)
    expected = brute(read(tmp_path), datetime.fromisoformat(truth["options"]["start"]))
    assert Counter(map(tuple, truth["conversion_credits"]["rows"])) == Counter(expected)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("seed", "hours", "trouble"), [(11, 24, MUCH_TROUBLE), (7, 240, {})])
def test_rows_add_up(tmp_path: Path, policy: Path, given: bool, seed: int, hours: int, trouble: dict) -> None:
    truth, credits, attribution = make(
        tmp_path, events=20_000, seed=seed, hours=hours, policy=policy if given else None, **trouble)
    counted = {kind: n for kind, outcome, n in truth["outcomes_by_type"] if outcome == "counted"}["conversion"]
    models = MODELS if given else ("last_touch",)
    whole, by_hour = defaultdict(Decimal), defaultdict(lambda: [Decimal(), 0])
    for row in credits:
        assert len(row["credit"].partition(".")[2]) == 9
        assert Decimal(row["credit"]) or row["value_micros"]
        whole[row["conversion_id"], row["model"]] += Decimal(row["credit"])
        key = tuple(row[name] for name in truth["attribution"]["columns"][1:-2])
        total = by_hour[f"{row['conversion_time'][:13]}:00:00Z", *key]
        total[0] += Decimal(row["credit"])
        total[1] += row["value_micros"]
    assert set(whole.values()) == {1}
    assert Counter(model for _, model in whole) == dict.fromkeys(models, counted)
    assert by_hour == {
        tuple(row.values())[:-2]: [Decimal(row["conversions"]), row["value_micros"]] for row in attribution
    }


def test_value_is_shared_whole(tmp_path: Path, policy: Path) -> None:
    truth, credits, _ = make(tmp_path, events=20_000, seed=3, policy=policy, **MUCH_TROUBLE)
    _, _, counted = judged(read(tmp_path), datetime.fromisoformat(truth["options"]["start"]))
    values = {event["event_id"]: event["value_micros"] or 0 for event, _ in counted if event["event_type"] == "conversion"}
    shared = Counter()
    for row in credits:
        shared[row["conversion_id"], row["model"]] += row["value_micros"]
    assert shared == {(conversion, model): value for conversion, value in values.items() for model in MODELS}


def test_journeys_are_worth_crediting(tmp_path: Path, policy: Path) -> None:
    """Enough of what makes attribution hard, in a log of the usual rates."""
    _, credits, _ = make(tmp_path, events=200_000, seed=1, hours=48, policy=policy)
    linear = defaultdict(list)
    for row in credits:
        if row["model"] == "linear":
            linear[row["conversion_id"]].append(row)
    touches = Counter(sum(row["touch_id"] is not None for row in rows) for rows in linear.values())
    assert touches[0] > len(linear) / 10 and sum(n for many, n in touches.items() if many > 2) > len(linear) / 10
    kinds = Counter(frozenset(row["touch_type"] for row in rows) for rows in linear.values())
    assert kinds.keys() == {
        frozenset({None}), frozenset({"click"}), frozenset({"impression"}), frozenset({"click", "impression"}),
    }
    assert max(sum(row["touch_type"] == "click" for row in rows) for rows in linear.values()) > 2
    assert any(len({row["touch_time"] for row in rows}) < len(rows) for rows in linear.values())  # equal times
    ages = [datetime.fromisoformat(row["conversion_time"]) - datetime.fromisoformat(row["touch_time"])
            for rows in linear.values() for row in rows if row["touch_id"]]
    assert timedelta(days=1) in ages and timedelta(hours=1) in ages and max(ages) > timedelta(days=1)
    assert len({row["currency"] for row in credits}) == 5
    assert {0} < {sum(row["value_micros"] for row in rows) for rows in linear.values()}


def test_a_policy_changes_the_credits_and_no_event(tmp_path: Path, policy: Path) -> None:
    def written(name: str, given: Path | None) -> dict[str, bytes]:
        simulate(SimulateOptions(events=3_000, seed=5, policy=given), tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    elsewhere = tmp_path / "moved.yaml"
    elsewhere.write_bytes(policy.read_bytes())
    first, plain = written("a", policy), written("b", None)
    assert written("c", elsewhere) == first
    assert first.keys() == plain.keys() and {name for name in first if first[name] != plain[name]} == {"truth.json"}


def test_touches_that_no_column_tells_apart_are_one_row() -> None:
    one, other = (Touch("a", True, 0, impression, ("c", None, None, None)) for impression in (1, 2))
    last = one._replace(id="b", time=5)
    conversion = Conversion("x", 10, None, "adv-1", 10, "EUR")
    rows = credited("linear", AttributionRule(), conversion, [one, other, last])
    assert [(touch.id, credit, value) for touch, credit, value in rows] == [("a", 666_666_667, 7), ("b", 333_333_333, 3)]


@pytest.mark.parametrize("text", ["attribution: {default: {model: best}}", "counting: {join_horizon: 1h}", "screen: {}"])
def test_a_policy_that_cannot_be_followed_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=r"broken\.yaml"):
        simulate(SimulateOptions(events=10, policy=path), tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_the_command_refuses_a_broken_policy_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("attribution: {default: {model: best}}")
    command = [sys.executable, "-m", "measurement.cli", "simulate", "--events", "10", "--out", str(tmp_path / "log")]
    done = subprocess.run([*command, "--policy", str(path)], capture_output=True, check=False, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"{path}: attribution.default.model" in done.stderr
    path.write_text("attribution: {default: {model: linear}}")
    assert subprocess.run([*command, "--policy", str(path)], capture_output=True, check=False, timeout=60).returncode == 0
