"""`measurement explain`: one small log of every kind of trouble, run once on Prism, and each of its events explained."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import duckdb
import numpy as np
import pytest

from measurement import cli
from measurement.columnar.batch import JSON
from measurement.columnar.decode import decode_lines
from measurement.columnar.intake import Origin, take_in
from measurement.columnar.screen import Screen
from measurement.explain import screened, words
from measurement.explain.find import MOST, find
from measurement.explain.follow import follow
from measurement.explain.said import said
from measurement.explain.steps import NOT_REACHED, STOPPED
from measurement.explain.tables import Tables
from measurement.failure import Failure
from measurement.io.watermark import END, FileWatermark
from measurement.model.lists import ListFacts
from measurement.model.policy import Policy
from measurement.model.policy import load
from measurement.model.screening import Rate, Screening
from measurement.model.sql import duckdb as in_duckdb
from measurement.rules.iab import Entry, Iab
from measurement.rules.networks import NetworkList

POLICY = """
attribution:
  default: {models: [last_touch, linear]}
screening:
  networks: [datacentres.txt]
  rate: {per_user_hour: 5, per_ip_hour: 1000}
  consent: {required_in: [DE], purposes: [7], otherwise: OTHERWISE}
"""
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0 Safari/537.36"
ODD = 'od"d\\ \u2028é\t[bold]\n\'; --'
START = datetime(2026, 3, 2, 10, tzinfo=UTC)


def event(event_id: str, seconds: float, event_type: str = "impression", **fields) -> dict:
    """An event so many seconds into the hour, received a second later; None leaves a field out."""
    made = {"event_id": event_id, "event_type": event_type, "event_time": at(seconds), "received_time": at(seconds + 1),
            "advertiser_id": "adv-1", "campaign_id": "camp-1", "user_agent": BROWSER, "ip": "198.51.100.7"}
    if event_type == "impression":
        made |= {"format": "display", "country": "US", "currency": "USD", "price_micros": 2_000}
    return {name: value for name, value in (made | fields).items() if value is not None}


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def followup(event_id: str, seconds: float, event_type: str, impression_id: str, **fields) -> dict:
    return event(event_id, seconds, event_type, impression_id=impression_id, **fields)


def bought(event_id: str, seconds: float, **fields) -> dict:
    return event(event_id, seconds, "conversion", campaign_id=None, conversion_type="purchase", currency="USD", **fields)


VIEW = {"visible_percent": 80, "visible_ms": 1_500}
CLICK = followup("click-1", 40, "click", "imp-1", user_id="u1", price_micros=500_000)
LOG = [
    *(event(f"filler-{i}", i) for i in range(6)),
    event("imp-1", 10, user_id="u1", household_id="secret-home", session_id="secret-session", consent="secret-consent"),
    event("shared", 12), followup("shared", 13, "start", "imp-1"),
    event("imp-dc", 14, ip="203.0.113.9"),
    event("imp-de", 16, country="de", user_id="u-de"),
    event("imp-far", 17),
    event(ODD, 18),
    *(event(f"busy-{i}", 20 + i, user_id="busy") for i in range(6)),
    followup("view-1", 30, "viewability", "imp-1", **VIEW),
    followup("view-2", 31, "viewability", "imp-1", **VIEW),
    followup("early", 33, "click", "imp-late"),
    CLICK, CLICK, {**CLICK, "campaign_id": "camp-2"},
    event("robot", 42, user_agent=ROBOT),
    followup("click-dc", 44, "click", "imp-dc"),
    followup("busy-click", 45, "click", "busy-0", ip="198.51.100.8"),
    followup("orphan", 46, "click", "never"),
    event("no-campaign", 47, campaign_id=None), followup("orphan-of-refused", 48, "click", "no-campaign"),
    event("bad", 49, price_micros=-1), event("bad-ip", 50, ip="10.0.0.300"), event("wrong-type", 51, price_micros="much"),
    event("unknown", 52, "hover"),
    event("old", -30 * 86_400), event("early-bird", 3_600, received_time=at(60)),
    event("imp-late", 55),
    bought("conv-b", 60, user_id="u1", order_id="o-1", value_micros=9_000_001),
    bought("conv-a", 58, user_id="u1", order_id="o-1", value_micros=9_000_001),
    bought("conv-2", 70, user_id="u1", value_micros=5_000_000), bought("conv-nobody", 71, value_micros=1),
    event("probe", 72, test=True),
    *(event(f"later-{i}", 90_000 + i) for i in range(6)),
    followup("click-far", 110_000, "click", "imp-far"),
]


def written(directory: Path, otherwise: str = "drop_user") -> Path:
    (directory / "datacentres.txt").write_text("# version: 7\n# date: 2026-02-01\n203.0.0.0/8\n203.0.113.0/24\n")
    path = directory / f"{otherwise}.yaml"
    path.write_text(POLICY.replace("OTHERWISE", otherwise))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def policy(place) -> Path:
    return written(place)


@pytest.fixture(scope="module")
def done(place, policy, prism) -> Path:
    """The log, run."""
    lines = [json.dumps(it) for it in LOG] + ['{"event_id": "torn"', json.dumps({"event_type": "click"})]
    (place / "log.jsonl").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "measurement.cli", "run", "--input", place / "log.jsonl", "--policy", policy, "--out", place / "out"]
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return place / "out"


def explain(*arguments) -> int:
    return cli.app(["explain", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def told(done, policy, capsys):
    """The copies of an event, as --json tells them; the command must have agreed with the tables."""
    def ask(event_id: str, code: int = 0, policy: Path = policy) -> list[dict]:
        found = explain(event_id, "--out", done, "--policy", policy, "--json")
        tree = json.loads(capsys.readouterr().out)
        wrong = [check for copy in tree["copies"] for check in copy["checks"] if not check["agrees"]]
        assert found == code, wrong
        assert tree["agrees"] == (not wrong) and tree["event_id"] == event_id
        return tree["copies"]
    return ask


def step(copy: dict, rule: str) -> dict:
    return next(each for each in copy["rules"] if each["rule"] == rule)


def stopped(copy: dict) -> str:
    """The rule that decided; none behind it was asked."""
    results = [each["result"] for each in copy["rules"]]
    last = results.index(STOPPED)
    assert set(results[last + 1 :]) <= {NOT_REACHED} and NOT_REACHED not in results[:last]
    return copy["rules"][last]["rule"]


# --- what counts ---------------------------------------------------------------------------------------------

def test_a_counted_impression(told):
    [copy] = told("imp-1")
    assert (copy["outcome"], copy["source"], copy["received_at"]) == ("counted", "log.jsonl", "2026-03-02T10:00:11Z")
    assert copy["counted_under"] == {
        "window_start": "2026-03-02T10:00:00Z", "advertiser_id": "adv-1", "campaign_id": "camp-1", "line_item_id": None, "creative_id": None,
        "placement_id": None, "format": "display", "country": "US", "device_type": None, "currency": "USD"}
    assert copy["adds"] == {"gross_impressions": 1, "impressions": 1, "spend_micros": 2_000}
    assert copy["touch"]
    assert step(copy, "rate")["facts"]["user"] == {"events": 5, "most": 5}  # itself, the click and three conversions
    assert [each["status"] for each in copy["history"]][-1] in ("final", "restated")
    assert copy["history"][-1]["gross_impressions"] >= 6


def test_a_click_that_is_counted_under_it_with_its_copies(told):
    counted, copy, other = told("click-1")
    assert counted["outcome"] == "counted" and counted["adds"] == {"clicks": 1, "spend_micros": 500_000}
    assert step(counted, "join")["facts"] == {"impression": told("imp-1")[0]["source"] + "@" + told("imp-1")[0]["source_position"],
                                              "apart_micros": 30_000_000, "waited": False}
    assert copy["outcome"] == "duplicate" and stopped(copy) == "identity"
    assert step(copy, "identity")["facts"]["first"] == f"log.jsonl@{counted['source_position']}"
    assert other["outcome"] == "id_conflict" and step(other, "identity")["facts"]["differ"] == ["campaign_id"]
    assert {row["conversion_id"] for row in counted["credits"]} == {"conv-a", "conv-2"} and not copy["credits"]


def test_a_click_that_came_before_its_impression(told):
    [copy] = told("early")
    assert copy["outcome"] == "counted" and step(copy, "join")["facts"] | {"impression": ""} == {
        "impression": "", "apart_micros": -22_000_000, "waited": True}
    assert "22 s before it" in step(copy, "join")["says"] and copy["adds"] == {"clicks": 1}
    assert "it came first and waited" in step(copy, "join")["says"]


def test_what_counts_once_an_impression(told):
    assert told("view-1")[0]["adds"] == {"measurable_impressions": 1, "viewable_impressions": 1}
    [second] = told("view-2")
    assert (second["outcome"], second["adds"]) == ("counted", {})
    assert "had been counted for this impression before" in step(second, "counted")["says"]


def test_an_id_that_two_identities_share(told):
    assert [(copy["event"]["event_type"], copy["outcome"]) for copy in told("shared")] == [("impression", "counted"), ("start", "counted")]


def test_an_id_of_odd_characters(told, done, policy, capsys):
    assert told(ODD)[0]["outcome"] == "counted"
    assert explain(ODD, "--out", done, "--policy", policy) == 0
    assert "od\"d\\ �é�[bold]�'; --" in capsys.readouterr().out


def test_a_probe(told):
    [copy] = told("probe")
    assert copy["outcome"] == "counted" and copy["counted_under"]["advertiser_id"] == "test:adv-1"


# --- invalid traffic -----------------------------------------------------------------------------------------

def test_a_robot(told):
    [copy] = told("robot")
    assert (copy["outcome"], copy["reason"], stopped(copy)) == ("invalid_traffic", "robot", "robot")
    facts = step(copy, "robot")["facts"]
    assert facts["list"] == "crawler-user-agents" and "Googlebot" in facts["entry"]
    assert copy["adds"] == {"gross_impressions": 1}


def test_a_data_centres_impression_and_the_click_that_follows_it(told):
    [copy], [click] = told("imp-dc"), told("click-dc")
    assert (copy["reason"], stopped(copy)) == ("datacentre", "datacentre")
    assert step(copy, "datacentre")["facts"] == {
        "list": "datacentres.txt", "version": "7", "date": "2026-02-01", "entry": "203.0.113.0/24"}
    assert (click["outcome"], click["reason"], stopped(click)) == ("invalid_traffic", "datacentre", "its impression")
    assert step(click, "its impression")["facts"]["entry"] == "203.0.113.0/24" and click["touch"] is False


def test_a_rate_offender_and_what_follows_it(told):
    for event_id in "busy-0", "busy-4":
        [copy] = told(event_id)
        assert (copy["reason"], stopped(copy)) == ("rate", "rate")
        assert step(copy, "rate")["facts"]["user"] == {"events": 6, "most": 5}
    [click] = told("busy-click")
    assert (click["reason"], stopped(click)) == ("rate", "its impression")


# --- consent -------------------------------------------------------------------------------------------------

def test_consent_that_is_not_there(told, place, done, capsys):
    [copy] = told("imp-de")
    assert (copy["outcome"], step(copy, "consent")["result"], copy["touch"]) == ("counted", "noted", False)
    assert step(copy, "consent")["facts"] == {"country": "de", "purposes": [7], "vendor": 0, "granted": False}
    # By a policy that refuses it the tables say something else, and that the rules are others is told.
    [copy] = told("imp-de", 1, written(place, "reject"))
    assert (copy["outcome"], stopped(copy)) == ("consent_denied", "consent")
    assert explain("imp-de", "--out", done, "--policy", place / "reject.yaml") == 1
    said = capsys.readouterr().out
    assert "note: derived by other rules" in said and "only in the run: policy:" in said
    assert "does not agree: copy 1 with ledger, copy 1 with rejects" in said


# --- rejects -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("event_id", "outcome", "rule"), [
    ("no-campaign", "missing_field", "fields of its type"), ("bad", "bad_value", "values"), ("bad-ip", "bad_value", "values"),
    ("wrong-type", "bad_value", "values"), ("unknown", "unknown_type", "type"), ("old", "too_late", "too late"),
    ("early-bird", "future", "future"), ("orphan", "orphan", "join"), ("click-far", "orphan", "join"),
])
def test_a_reject(told, event_id, outcome, rule):
    [copy] = told(event_id)
    assert (copy["outcome"], stopped(copy)) == (outcome, rule)
    assert [check["table"] for check in copy["checks"]] == ["ledger", "rejects"]
    assert copy["counted_under"] is None and not copy["credits"]


def test_how_far_a_reject_was_from_being_none(told):
    assert "59 min ahead of its receipt; 10 min are allowed" in step(told("early-bird")[0], "future")["says"]
    old = step(told("old")[0], "too late")
    assert "30 d" in old["says"] and "7 d are allowed" in old["says"] and old["facts"]["watermark"].startswith("2026-03-02T10:00:")
    far = step(told("click-far")[0], "join")
    assert len(far["facts"]["impressions"]) == 1 and "1 d 6 h after it" in far["says"]
    assert told("orphan-of-refused")[0]["rejects_of_its_impression"][0]["detail"] == "campaign_id"
    assert "10.0.0.300" not in json.dumps(told("bad-ip"))  # an address is not shown, right or wrong


# --- conversions ---------------------------------------------------------------------------------------------

def test_the_conversion_of_an_order_that_does_not_stand(told):
    [loses], [stands] = told("conv-b"), told("conv-a")
    assert (loses["outcome"], stopped(loses)) == ("duplicate", "order")
    assert step(loses, "order")["facts"]["stands"] == f"log.jsonl@{stands['source_position']}"
    assert stands["outcome"] == "counted" and "the earliest of 2 conversions" in step(stands, "order")["says"]


def test_a_conversions_credits(told):
    [copy] = told("conv-2")
    assert {(row["model"], row["touch_id"], row["credit"]) for row in copy["credits"] if row["touch_id"]} == {
        ("last_touch", "click-1", "1.000000000"), ("linear", "click-1", "1.000000000")}
    assert [check["says"] for check in copy["checks"] if check["table"] == "conversion_credits"] == [
        f"{model}: credit 1 over 1 row, value 5,000,000 of 5,000,000 micros" for model in ("last_touch", "linear")]
    [copy] = told("conv-nobody")
    assert {row["touch_id"] for row in copy["credits"]} == {None}


# --- the command ---------------------------------------------------------------------------------------------

def test_personal_data_are_not_shown(done, policy, capsys):
    for form in [], ["--json"]:
        assert explain("imp-1", "--out", done, "--policy", policy, *form) == 0
        said = capsys.readouterr().out
        assert not any(secret in said for secret in ("secret", "u1", "198.51.100", "Chrome"))
        assert "household_id" in said


def test_plain_text_off_a_terminal(done, policy, capsys):
    assert explain("click-1", "--out", done, "--policy", policy) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "event click-1: 3 copies received"
    assert lines[-1] == "everything agrees"
    assert "copy 1 of 3: counted" in lines and "copy 3 of 3: id_conflict" in lines
    assert "adds: 1 to clicks, 0.500000 of spend" in lines
    assert not any("\x1b" in line for line in lines)


def test_an_unknown_id(done, policy, capsys):
    assert explain("torn", "--out", done, "--policy", policy) == 1
    said = capsys.readouterr().out
    assert "event torn: not found" in said and "these hold the id's bytes: log.jsonl@" in said
    assert explain("torn", "--out", done, "--policy", policy, "--json") == 1
    tree = json.loads(capsys.readouterr().out)
    assert tree["found"] == 0 and tree["searched"]["events"] == len(LOG) + 2
    assert (tree["searched"]["undecodable"], tree["searched"]["without_event_id"]) == (1, 1)
    assert len(tree["searched"]["undecodable_with_its_bytes"]) == 1


@pytest.mark.parametrize(("event_id", "tamper", "table"), [
    ("imp-1", "DELETE FROM ledger WHERE outcome = 'counted' AND event_type = 'impression'", "ledger"),
    ("robot", "DELETE FROM invalid_traffic WHERE reason = 'robot'", "invalid_traffic"),
    ("bad", "UPDATE rejects SET detail = 'else' WHERE event_id = 'bad'", "rejects"),
    ("imp-1", "DELETE FROM delivery", "delivery"),
    ("conv-2", "UPDATE conversion_credits SET credit = credit / 2 WHERE model = 'linear'", "conversion_credits"),
    ("robot", "INSERT INTO conversion_credits SELECT * REPLACE ('robot' AS touch_id, 'impression' AS touch_type, "
              "TIMESTAMPTZ '2026-03-02 10:00:42+00' AS touch_time) FROM conversion_credits WHERE credit > 0 ORDER BY ALL LIMIT 1", "conversion_credits"),
])
def test_tables_that_say_something_else(done, policy, capsys, tmp_path, event_id, tamper, table):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    with duckdb.connect(str(out / "warehouse.duckdb")) as db:
        db.execute(tamper)
    assert explain(event_id, "--out", out, "--policy", policy) == 1
    said = capsys.readouterr().out
    assert said.endswith(f"does not agree: copy 1 with {table}\n") and f"{table}: DOES NOT AGREE" in said


def test_wrong_use(done, policy, place, tmp_path, monkeypatch):
    def refused(*arguments) -> str:
        with pytest.raises(Failure) as failure:
            explain(*arguments)
        return str(failure.value)

    assert "no run's input is known there" in refused("a", "--out", tmp_path)
    assert "--out is needed" in refused("a")
    assert "is empty" in refused("", "--out", done)
    assert "no UTF-8" in refused("\udcff", "--out", done)
    assert "nowhere.yaml" in refused("a", "--out", done, "--policy", tmp_path / "nowhere.yaml")
    shutil.copytree(done, tmp_path / "out")
    log = place / "log.jsonl"
    log.rename(place / "gone")
    try:
        assert "is not there any more" in refused("a", "--out", tmp_path / "out")
    finally:
        (place / "gone").rename(log)


# --- without an engine ---------------------------------------------------------------------------------------

def intakes(events: list[dict], policy: Policy, frame: int = 1_000):
    """What a file of these events becomes at the source."""
    screen, watermark = Screen(policy.screening), FileWatermark()
    for start in range(0, len(events), frame):
        lines = [json.dumps(it).encode() for it in events[start : start + frame]]
        origin = Origin("log", np.arange(start, start + len(lines)), JSON, None, np.zeros(len(lines), np.int64))
        yield take_in(decode_lines(lines), origin, {}, policy, watermark, END, screen)


def fates(events: list[dict], event_id: str, policy: Policy = Policy(), frame: int = 1_000):
    found = find(intakes(events, policy, frame), event_id)
    return follow(intakes(events, policy, frame), [copy for copy in found.copies if copy.batch is not None], policy)


def test_the_parts_need_no_beam():
    code = "import sys, measurement.explain.command; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("frame", [1, 3, 1_000])
def test_fates_do_not_hang_on_frames(place, policy, frame):
    rules = load(policy)
    expected = {"imp-1": ["counted"], "click-1": ["counted", "duplicate", "id_conflict"], "early": ["counted"], "busy-0": ["invalid_traffic"],
                "click-dc": ["invalid_traffic"], "orphan": ["orphan"], "conv-b": ["duplicate"], "conv-a": ["counted"], "view-2": ["counted"]}
    found = {event_id: fates(LOG, event_id, rules, frame) for event_id in expected}
    assert {event_id: [fate.outcome for fate in told] for event_id, told in found.items()} == expected
    assert found["early"][0].adds == {"clicks": 1} and found["view-2"][0].adds == {}
    assert [(rate.events, rate.most) for rate in found["busy-0"][0].rates] == [(6, 5), (found["busy-0"][0].rates[1].events, 1_000)]


def test_an_orphans_id_is_judged_afresh():
    """The rejection frees it: the second copy is no duplicate, and joins."""
    click, day = followup("c", 0, "click", "i"), 86_400
    log = [click, *(event(f"f-{i}", day + 10 + i) for i in range(6)), event("i", 3_600), click]
    for frame in 1, 1_000:
        first, second = fates(log, "c", frame=frame)
        assert (first.outcome, second.outcome, second.adds) == ("orphan", "counted", {"clicks": 1})


def test_one_id_for_everything():
    log = [followup("1", i, "click", f"i-{i}") for i in range(MOST + 30)]
    found = find(intakes(log, Policy()), "1")
    assert (len(found.copies), found.more) == (MOST, 30)


def test_many_followups_of_one_impression_go_through_together():
    log = [event("i", 0), *(followup(f"c-{n}", 1, "click", "i") for n in range(3_000)), followup("c", 2, "click", "i")]
    [fate] = fates(log, "c")
    assert (fate.outcome, fate.adds) == ("counted", {"clicks": 1})
    [fate] = fates(log, "i")
    assert fate.adds["gross_impressions"] == 1


def test_a_rate_counts_distinct_events():
    policy = replace(Policy(), screening=Screening(rate=Rate(per_user_hour=2)))
    log = [event("a", 0, user_id="u"), event("a", 0, user_id="u"), event("b", 1, user_id="u"), event("c", 3_700, user_id="u")]
    first, second = fates(log, "a", policy)
    assert (first.outcome, second.outcome, first.rates[0].events) == ("counted", "duplicate", 2)


def test_what_a_copy_says():
    [copy] = find(intakes([event("x", 0, test=False, user_id="u", ip="10.0.0.300", creative_width="w")], Policy()), "x").copies
    told = said(copy, {})
    assert copy.refused == ("bad_value", "creative_width") and told.wrong == ("creative_width",)
    assert told.shown["test"] is False and "ip" not in told.shown and told.get("user_id") == "u"


def test_where_an_address_is_found():
    def facts(name: str) -> ListFacts:
        return ListFacts(name, "datacentre", None, None, 1, "0")

    lists = (NetworkList(facts("four"), (ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"))),
             NetworkList(facts("six"), (ip_network("::/0"), ip_network("::ffff:192.0.2.0/120"))))
    assert screened.address("10.1.2.3", lists).entry == "10.1.0.0/16"
    assert screened.address("::ffff:10.2.0.1", lists).entry == "10.0.0.0/8"
    assert screened.address("192.0.2.9", lists).entry == "::ffff:c000:200/120"
    assert screened.address("2001:db8::1", lists).entry == "::/0"
    assert screened.address("192.0.3.9", lists) is None and screened.address(None, lists) is None


def test_which_pattern_finds_a_user_agent():
    licensed = Iab((Entry("scan", False, ("scanner pro",)), Entry("bot", True)), (Entry("mozilla", True),),
                   (ListFacts("robots", "robot", "1", None, 2, "0"), ListFacts("browsers", "robot", "1", None, 1, "0")))
    screening = Screening(iab=licensed)
    assert screened.agent(ROBOT, screening).list.name == "crawler-user-agents"
    assert screened.agent("Mozilla scan", screening).entry == "scan"
    assert screened.agent("Mozilla Scanner Pro", screening) is None
    assert screened.agent("something else", screening).list.name == "browsers"
    assert screened.agent(None, screening) is None


@pytest.mark.parametrize(("micros", "text"), [
    (0, "0 s"), (1, "0.000001 s"), (77_587, "0.078 s"), (1_000_000, "1 s"), (952_719_038, "15 min 53 s"), (600_000_000, "10 min"),
    (600_000_001, "10 min 0.000001 s"), (-90_000_000_000, "1 d 1 h"), (7 * 86_400_000_000, "7 d")])
def test_spans(micros, text):
    assert words.span(micros) == text


def test_conditions_hold_whatever_stands_in_a_text():
    asked = []
    Tables(lambda sql: asked.append(sql) or [], "main").reject(ODD)
    [sql] = asked
    with duckdb.connect() as db:
        db.execute("CREATE TABLE rejects_latest (reject_id VARCHAR, n INTEGER)")
        db.execute("INSERT INTO rejects_latest VALUES (?, 1), ('else', 2)", [ODD])
        where = in_duckdb(f"SELECT n FROM `main.rejects_latest` WHERE {sql.partition(' WHERE ')[2]}")
        assert db.execute(where).fetchall() == [(1,)]
