"""Each question of docs/cookbook.md, asked of the real job's warehouse, against the simulator's own bookkeeping in plain Python."""

import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import duckdb
import orjson
import pytest
from cookbook import BOOKINGS, QUESTIONS

from measurement.model.sql import duckdb as in_duckdb
from measurement.simulate import SimulateOptions, simulate

POLICY = "attribution:\n  default: {models: [last_touch, first_touch, linear]}\n"
BERLIN = ZoneInfo("Europe/Berlin")  # of adv-6
FIRST, UNTIL = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)  # of the log's impressions


def command(*arguments) -> str:
    done = subprocess.run([sys.executable, "-m", "measurement.cli", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def asked(prism, tmp_path_factory):
    """By question its rows; and the simulator's truth: rows of delivery, invalid traffic, attribution and credits."""
    at = tmp_path_factory.mktemp("cookbook")
    (at / "policy.yaml").write_text(POLICY)
    simulate(SimulateOptions(20_000, seed=7, hours=48, late_rate=0.03, policy=at / "policy.yaml"), at / "log")
    command("run", "--input", at / "log" / "events*.avro", "--policy", at / "policy.yaml", "--out", at / "out")
    (at / "bookings.csv").write_text(BOOKINGS)
    assert command("bookings", "load", at / "bookings.csv", "--out", at / "out").startswith("5 bookings: 5 new")
    command("time-zone", "Europe/Berlin", "--advertiser", "adv-6", "--out", at / "out")
    truth = orjson.loads((at / "log" / "truth.json").read_bytes())
    def rows(columns, values):
        return [dict(zip(columns, v)) | {"at": datetime.fromisoformat(v[0])} for v in values]
    told = SimpleNamespace(
        delivery=rows(truth["delivery_columns"], truth["delivery"]),
        invalid=rows(**{"columns": truth["invalid_traffic"]["columns"], "values": truth["invalid_traffic"]["rows"]}),
        attribution=rows(truth["attribution"]["columns"], truth["attribution"]["rows"]),
        credits=[dict(zip(truth["conversion_credits"]["columns"], v)) for v in truth["conversion_credits"]["rows"]])
    with duckdb.connect(str(at / "out" / "warehouse.duckdb"), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        told.db = db
        told.answers = {q.number: db.sql(in_duckdb(q.over("main"))).to_arrow_table().to_pylist() for q in QUESTIONS}
        yield told


def summed(rows, by, *figures, **only) -> dict:
    """Sums of figures by a column, or by what a function makes of a row, of the rows that have these values."""
    found = defaultdict(lambda: [0] * len(figures))
    for one in rows:
        if all(one[k] == v for k, v in only.items()):
            key = by(one) if callable(by) else one[by]
            found[key] = [a + one[f] for a, f in zip(found[key], figures)]
    return {key: tuple(values) for key, values in found.items()}


def shown(rows, key, *figures) -> dict:
    found = {row[key]: tuple(row[f] for f in figures) for row in rows}
    assert len(found) == len(rows) > 0
    return found


def test_there_are_ten_questions():
    assert [q.number for q in QUESTIONS] == list(range(1, 11))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.asks)
def test_an_answer_has_rows_of_the_columns_that_are_told(asked, question):
    rows = asked.answers[question.number]
    assert rows and list(rows[0]) == question.columns


def test_1_a_day_is_the_advertisers_own(asked):
    day = datetime(2026, 3, 3).date()
    of_day = [r for r in asked.delivery if r["at"].astimezone(BERLIN).date() == day]
    assert shown(asked.answers[1], "campaign_id", "gross_impressions", "impressions", "clicks") == summed(
        of_day, "campaign_id", "gross_impressions", "impressions", "clicks", advertiser_id="adv-6")
    assert {r["complete"] for r in asked.answers[1]} == {True}


def test_2_pacing_is_even_and_by_the_last_closed_hour(asked):
    (three,), (seven,) = (summed(asked.delivery, "campaign_id", f)[c] for c, f in (("cmp-0003", "impressions"), ("cmp-0007", "viewable_impressions")))
    begun = datetime(2026, 3, 2, tzinfo=UTC) - timedelta(hours=1)  # in Berlin
    length = datetime(2026, 3, 31, 22, tzinfo=UTC) - begun
    (spent,) = summed(asked.delivery, "line_item_id", "spend_micros", currency="EUR", campaign_id="cmp-0002")["li-00002"]
    found = {r["booking_id"]: r for r in asked.answers[2]}
    due = {"2026-0117": (three, 4000 * 2 / 3), "2026-0118": (seven, 90 * 2 / 7), "2026-0119": (spent, 900_000_000 * ((UNTIL - begun) / length))}
    assert found.keys() == {id_ for id_, (delivered, expected) in due.items() if delivered < expected} and "2026-0117" in found
    for id_, one in found.items():
        delivered, expected = due[id_]
        assert (one["delivered"], one["expected"]) == (delivered, round(expected))
        assert one["pace"] == pytest.approx(delivered / expected, abs=0.0005) and one["remaining"] == one["goal"] - delivered
    assert found["2026-0117"]["needed_per_day"] == pytest.approx(4000 - three)  # one of three days is left


def test_3_money_is_exact_by_currency(asked):
    spent = summed(asked.delivery, lambda r: (r["currency"], r["campaign_id"]), "spend_micros", advertiser_id="adv-2")
    assert {(r["currency"], r["campaign_id"]): (r["spend_micros"],) for r in asked.answers[3]} == {k: v for k, v in spent.items() if v[0]}


def test_4_the_rate_of_all_is_the_ratio_of_sums(asked):
    def rate(measurable, viewable):
        return (measurable, viewable, None if not measurable else f"{(20000 * viewable + measurable) // (2 * measurable) / 10000:.4f}")
    of = summed(asked.delivery, "campaign_id", "measurable_impressions", "viewable_impressions", advertiser_id="adv-6")
    expected = {name: rate(*counts) for name, counts in of.items()} | {None: rate(*map(sum, zip(*of.values())))}
    assert shown(asked.answers[4], "campaign_id", "measurable_impressions", "viewable_impressions", "viewability") == expected
    shares = [Decimal(r["viewability"]) for r in asked.answers[4] if r["campaign_id"] and r["viewability"]]
    assert sum(shares) / len(shares) != Decimal(expected[None][2])  # the mean of rates would be wrong here


def test_5_completion_by_creative(asked):
    of = summed(asked.delivery, "creative_id", "completes", "starts", format="video")
    assert shown(asked.answers[5], "creative_id", "completes", "starts", "completion") == {
        creative: (completes, starts, completes / starts) for creative, (completes, starts) in of.items() if starts >= 20}


def test_6_models_side_by_side(asked):
    spent = summed(asked.delivery, "campaign_id", "spend_micros", currency="EUR")
    earned = [r | {"n": Decimal(r["conversions"])} for r in asked.attribution if r["currency"] == "EUR" and r["campaign_id"]]
    by = {model: summed(earned, "campaign_id", "n", model=model) for model in ("last_touch", "first_touch", "linear")}
    expected = {campaign: (spent.get(campaign, (0,))[0], *(by[model].get(campaign, (0,))[0] for model in by))
                for campaign, (n,) in by["linear"].items() if n}
    figures = ("spend_micros", "conversions_last_touch", "conversions_first_touch", "conversions_linear")
    # A model that never credited a campaign has NULL there, and 0 where it took back what it had.
    assert {c: tuple(n or 0 for n in row) for c, row in shown(asked.answers[6], "campaign_id", *figures).items()} == expected
    for one in asked.answers[6]:
        assert one["cost_linear"] == pytest.approx(float(one["spend_micros"] / one["conversions_linear"]) / 1e6, abs=0.0051)


def test_7_invalid_traffic_is_what_gross_has_above_net(asked):
    of = summed(asked.invalid, "reason", "events", advertiser_id="adv-6", event_type="impression")
    [(gross, net)] = summed(asked.delivery, "advertiser_id", "gross_impressions", "impressions", advertiser_id="adv-6").values()
    assert shown(asked.answers[7], "reason", "impressions", "gross_impressions") == {reason: (n, gross) for reason, (n,) in of.items()}
    assert sum(r["impressions"] for r in asked.answers[7]) == gross - net


def test_8_the_invoice_and_what_changed_since_sum_to_the_truth(asked):
    """Invoiced: what was published as final, of the rows as they were appended."""
    invoiced = asked.db.execute("SELECT campaign_id, sum(spend_micros)::BIGINT FROM delivery WHERE status = 'final' "
                                "AND window_start < TIMESTAMPTZ '2026-03-03 00:00:00+00' GROUP BY 1").fetchall()
    due = summed([r for r in asked.delivery if r["at"] < FIRST + timedelta(days=1)], "campaign_id", "spend_micros")
    changed = defaultdict(int)
    for one in asked.answers[8]:
        changed[one["campaign_id"]] += int(one["spend_micros"])
    for campaign, first in invoiced:
        changed[campaign] += first
    assert {k: v for k, v in changed.items() if v} == {k: v for k, (v,) in due.items() if v}
    assert {"late"} <= {r["restated_because"] for r in asked.answers[8]} <= {"late", "invalid_traffic"}


def test_9_hours_of_the_day_elsewhere(asked):
    york = ZoneInfo("America/New_York")
    assert shown(asked.answers[9], "hour", "impressions", "clicks") == summed(
        asked.delivery, lambda r: r["at"].astimezone(york).hour, "impressions", "clicks")


def test_10_lags_of_the_last_touch(asked):
    def lag(one):
        apart = datetime.fromisoformat(one["conversion_time"]) - datetime.fromisoformat(one["touch_time"])
        hour = timedelta(hours=1)
        return one["touch_type"], "within an hour" if apart <= hour else "within a day" if apart <= 24 * hour else "later"
    touched = [r | {"n": Decimal(r["credit"])} for r in asked.credits if r["model"] == "last_touch" and r["touch_id"]]
    assert {(r["touch_type"], r["lag"]): (r["conversions"],) for r in asked.answers[10] if r["conversions"]} == summed(touched, lag, "n")
