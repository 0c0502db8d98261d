"""The monitor over tables of a test's own, by a clock of its own: what it takes up again, what it cannot read, what the commands say."""

import json
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pyarrow as pa
import pytest

from measurement.io.publication import schema
from measurement.local.inputs import Source
from measurement.local.place import LocalPlace
from measurement.local.warehouse import Warehouse, create_table, latest
from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.model.sql import duckdb as in_duckdb
from measurement.model.tables import TABLES
from measurement.monitors import probe, slo
from measurement.monitors.alerts import Action
from measurement.monitors.audits import Audit
from measurement.monitors.exporter import Exporter
from measurement.monitors.heartbeat import Job
from measurement.monitors.lasting import LOOKS
from measurement.monitors.ledger import Result
from measurement.monitors.levels import levels
from measurement.monitors.monitor import Monitor
from measurement.monitors.notify import Outbox
from measurement.monitors.place import Unread
from measurement.monitors.sample import State
from measurement.monitors.service import Service
from measurement.monitors.times import hour_of, instant

HOUR, MINUTE = MICROS_PER_HOUR, 60 * MICROS_PER_SECOND
NOW = hour_of(1_790_000_000 * MICROS_PER_SECOND)
SLO = slo.given(None)
COMMAND = [sys.executable, "-m", "measurement.cli"]


class Place:
    """Tables in memory. What ``away`` names cannot be read."""

    job, where, dataset, unnamed, ends = "a-job", "--out somewhere", "main", "sub", ("bigtable", "bigquery")

    def __init__(self):
        self.db = duckdb.connect()
        self.db.execute("SET TimeZone = 'UTC'")
        for name, table in TABLES.items():
            self.db.execute(create_table(table, name))
            self.db.execute(f"CREATE VIEW {name}_latest AS {latest(table)}")
        self.generation = Job(1, NOW, "running", 0)
        self.away: set[str] = set()
        self.sent: list[bytes] = []
        self.audits: list[Audit] = []
        self.found: dict[str, probe.Found] = {}
        self.stored = 0

    def query(self, sql: str) -> list[tuple]:
        self._there("query")
        return self.db.execute(in_duckdb(sql)).fetchall()

    def clock(self, now: int) -> int:
        return now

    def recent(self, now: int) -> int:
        return now

    def state(self) -> Job | None:
        self._there("state")
        return self.generation

    def balance(self) -> Result:
        return Result(0, {}, "running")

    def probed(self, end: str, since: int) -> probe.Found:
        self._there(end)
        return self.found.get(end, {})

    def send(self, messages: list[bytes]) -> None:
        self._there("topic")
        self.sent += messages

    @contextmanager
    def heard(self):
        self._there("audits")
        yield self.audits
        self.audits = []

    def store(self, table: str, rows: list[dict]) -> None:
        self._there("store")
        self.stored += 1
        made = pa.Table.from_pylist(rows, schema(TABLES[table]))
        self.db.register("made", made)
        self.db.execute(f"INSERT INTO {table} SELECT * FROM made")
        self.db.unregister("made")

    def _there(self, what: str) -> None:
        if what in self.away:
            raise Unread(f"{what} is away")


def ledger(place: Place, hour: int, events: int, status: str = "final", revision: int = 1, published: int | None = None,
           kind: str = "impression", outcome: str = "counted") -> None:
    stated = {"status": status, "restated_because": None, "rule_version": "r", "revision": revision,
              "published_at": instant(published or hour + HOUR)}
    place.store("ledger", [{"window_start": instant(hour), "source": "web", "event_type": kind, "outcome": outcome, "events": events, **stated}])
    place.store("delivery", [{**{c.name: 0 for c in TABLES["delivery"].values}, "window_start": instant(hour), "advertiser_id": "adv-1",
                              "campaign_id": "c-1", "gross_impressions": events, **stated}])


def arrived(place: Place, hour: int, events: int, revision: int = 1, published: int | None = None) -> None:
    place.store("arrivals", [{"window_start": instant(hour), "source": "web", "event_type": "impression", "events": events,
                              "revision": revision, "published_at": instant(published or hour + HOUR)}])


def state_of(look, level: str) -> State:
    return next(of.state for of in look.judged if of.level.name == level)


def told(look) -> set[tuple[str, str, str]]:
    return {(str(n.action), n.alert.level, n.alert.window) for n in look.notices}


def test_a_look_finds_the_hours_closed_and_writes_a_row_a_level():
    place = Place()
    ledger(place, NOW - HOUR, 10)
    arrived(place, NOW - HOUR, 10)
    look = Monitor(place, SLO).look(NOW + 20 * MINUTE)
    assert {level: state_of(look, level) for level in ("freshness", "correctness", "heartbeat")} == dict.fromkeys(
        ("freshness", "correctness", "heartbeat"), State.ok)
    rows = place.query("SELECT level, state, measured_at, revision FROM `main.sla_latest`")
    assert {row[0] for row in rows} == set(SLO.levels) and all(row[2:] == (instant(NOW + 20 * MINUTE), (NOW + 20 * MINUTE) // 1_000) for row in rows)
    assert look.complete


def test_an_hour_is_complete_when_both_the_ledger_and_delivery_have_closed_it():
    place = Place()
    ledger(place, NOW - 3 * HOUR, 10)
    place.store("ledger", [{"window_start": instant(NOW - HOUR), "source": "web", "event_type": "impression", "outcome": "counted", "events": 1,
                            "status": "final", "restated_because": None, "rule_version": "r", "revision": 1, "published_at": instant(NOW)}])
    look = Monitor(place, SLO).look(NOW + 20 * MINUTE)
    assert look.facts.complete_until == instant(NOW - 2 * HOUR) and state_of(look, "freshness") is State.broken


def test_a_monitor_that_is_started_again_goes_on_where_the_last_one_stopped():
    place = Place()
    ledger(place, NOW - 5 * HOUR, 10)
    first = Monitor(place, SLO)
    first.restore(NOW)
    looks = [first.look(NOW + i * MINUTE) for i in range(4)]
    assert ("trigger", "freshness", "1h") in set().union(*map(told, looks))
    spent = {of.level.name: of.burn.spent for of in looks[-1].judged}
    second = Monitor(place, SLO)
    second.restore(NOW + 4 * MINUTE)
    look = second.look(NOW + 4 * MINUTE)
    assert told(look) <= {("trigger", "freshness", "6h"), ("trigger", "freshness", "1d"), ("trigger", "freshness", "3d")}
    again = {of.level.name: of.burn.spent for of in look.judged}
    assert again["freshness"] == pytest.approx(spent["freshness"] + 1 / 43.2)
    ledger(place, NOW - HOUR, 10)
    over = [second.look(NOW + i * MINUTE) for i in range(5, 16)]
    assert ("resolve", "freshness", "1h") in set().union(*map(told, over)) and state_of(over[-1], "freshness") is State.burning


def test_a_level_judged_by_its_past_takes_it_up_again():
    place = Place()
    first, at = Monitor(place, SLO), NOW - 26 * HOUR
    ledger(place, at, 0, "provisional", 1, at)
    for i in range(26 * 6):  # every ten minutes a hundred events
        at += 10 * MINUTE
        ledger(place, NOW, 100 * (i + 1), "provisional", i + 2, at)
        first.look(at)
    ledger(place, NOW, 100, "provisional", 1, at + MINUTE, outcome="duplicate")
    second = Monitor(place, SLO)
    second.restore(at + MINUTE)
    second.look(at + MINUTE)  # what is there when it begins is not new
    ledger(place, NOW, 200, "provisional", 2, at + 2 * MINUTE, outcome="duplicate")
    look = second.look(at + 2 * MINUTE)
    assert state_of(look, "duplicates") is State.broken
    assert "usually 0.0 %" in next(of.sample.text for of in look.judged if of.level.name == "duplicates")


def test_what_comes_behind_an_outage_is_not_held_against_other_hours():
    def text(look) -> str:
        return next(of.sample.text for of in look.judged if of.level.name == "duplicates")

    place = Place()
    for i in range(26):
        at = NOW - (26 - i) * HOUR
        place.store("sla", [{**dict.fromkeys(("value", "firing", "since", "advertisers", "hours")), "budget_spent": 0, "level": "duplicates",
                             "measured_at": instant(at), "state": "ok", "good": 60, "total": 60, "part": 0, "whole": 1_000, "target": 1,
                             "text": "quiet", "revision": at // 1_000, "published_at": instant(at)}])
    ledger(place, NOW, 1_000, "provisional", 1, NOW)
    monitor = Monitor(place, SLO)
    monitor.restore(NOW)
    place.generation = Job(1, NOW, "running", 20 * MINUTE)  # not heard for so long
    for minute in range(3):
        look = monitor.look(NOW + minute * MINUTE)
    assert ("heartbeat", "1h") in look.facts.alerts
    place.generation = Job(1, NOW, "running", 0)
    ledger(place, NOW, 500, "provisional", 2, NOW + 3 * MINUTE, outcome="duplicate")
    again = Monitor(place, SLO)
    again.restore(NOW + 3 * MINUTE)
    for which in (monitor, again):
        assert "not judged in an outage, found by heartbeat" in text(which.look(NOW + 3 * MINUTE))
    for minute in range(4, 75):
        look = monitor.look(NOW + minute * MINUTE)
        assert state_of(look, "duplicates") is State.unknown
    ledger(place, NOW, 2_000, "provisional", 3, NOW + 75 * MINUTE, outcome="duplicate")
    assert state_of(monitor.look(NOW + 75 * MINUTE), "duplicates") is State.broken


def test_what_cannot_be_read_is_told_and_all_else_goes_on():
    place = Place()
    ledger(place, NOW - HOUR, 10)
    monitor = Monitor(place, SLO)
    monitor.look(NOW + 20 * MINUTE)
    place.away = {"query"}
    look = monitor.look(NOW + 2 * HOUR)
    assert not look.complete and {"ledger", "arrivals"} <= set(look.facts.unread)
    assert state_of(look, "freshness") is State.broken  # what is known grows old
    assert state_of(look, "heartbeat") is State.ok
    place.away = {"state", "store", "audits", "topic"}
    look = monitor.look(NOW + 2 * HOUR + MINUTE)
    assert {"job", "sla", "publishers"} <= set(look.facts.unread) and state_of(look, "heartbeat") is State.ok


def test_only_a_whole_look_gives_a_sign_of_life():
    class Signs:
        def __init__(self):
            self.at: list[datetime] = []

        def signal(self, at: datetime) -> bool:
            self.at.append(at)
            return True

    place, signs, clock = Place(), Signs(), iter(range(NOW, NOW + HOUR, MINUTE))
    service = Service(Monitor(place, SLO), Outbox([]), Exporter(), signs, clock=lambda: next(clock))
    service.look()
    place.away = {"query"}
    service.look()
    place.away = set()
    service.look()
    assert signs.at == [instant(NOW), instant(NOW + 2 * MINUTE)]


def test_a_probe_goes_out_once_a_minute_and_one_that_cannot_be_sent_is_missing():
    place = Place()
    monitor = Monitor(place, SLO, probing=True)
    for seconds in (0, 20, 40, 60):
        monitor.look(NOW + seconds * MICROS_PER_SECOND)
    assert place.sent == [*probe.messages(NOW), *probe.messages(NOW + MINUTE)]
    place.away = {"topic"}
    monitor.look(NOW + 2 * MINUTE)
    look = monitor.look(NOW + 9 * MINUTE)
    assert state_of(look, "probe") is State.broken and look.facts.probes == {("bigtable", "missing"): 3, ("bigquery", "missing"): 3}


def test_audits_are_stored_before_they_are_acknowledged_and_judged_when_the_hour_has_settled():
    place = Place()
    place.audits = [Audit("p", 1, NOW, True, {("web", NOW - HOUR): 10})]
    place.away = {"store"}
    monitor = Monitor(place, SLO)
    monitor.look(NOW)
    assert place.audits  # they come again
    place.away = set()
    monitor.look(NOW + MINUTE)
    assert place.audits == [] and place.query("SELECT sum(events) FROM `main.audits_latest` WHERE source = 'web'") == [(10,)]
    ledger(place, NOW - HOUR, 9)
    arrived(place, NOW - HOUR, 9)
    arrived(place, NOW, 1)
    look = [monitor.look(NOW + (20 + i) * MINUTE) for i in range(LOOKS)][-1]
    assert state_of(look, "completeness") is State.broken and look.facts.completeness == {"web": 0.9}
    arrived(place, NOW - HOUR, 10, revision=2, published=NOW + 2 * HOUR)
    assert state_of(monitor.look(NOW + 25 * MINUTE), "completeness") is not State.broken


def test_one_look_at_a_time_speaks_for_no_more_than_ten_minutes():
    place = Place()
    ledger(place, NOW - HOUR, 10)
    monitor = Monitor(place, SLO)
    monitor.look(NOW)
    look = monitor.look(NOW + 3 * HOUR)
    assert {of.sample.total for of in look.judged if of.level.name == "heartbeat"} == {10}


def test_status_shows_what_a_monitor_saw_where_one_look_cannot_tell():
    place = Place()
    ledger(place, NOW - HOUR, 10)
    arrived(place, NOW - HOUR, 10)
    place.found = {end: {("delivery", probe.campaign(NOW + 15 * MINUTE)): probe.DELIVERED,
                         ("attribution", probe.campaign(NOW + 15 * MINUTE), "linear"): probe.ATTRIBUTED} for end in place.ends}
    monitor = Monitor(place, SLO, probing=True)
    monitor.look(NOW + 15 * MINUTE)
    shown = levels(place, SLO, NOW + 16 * MINUTE, Result(0, {}, "running"))
    line = next(line for line in shown.lines if line.level == "probe")
    assert (line.state, shown.watched) == (State.ok, True) and "bigquery" in line.text
    stale = levels(place, SLO, NOW + 30 * MINUTE, Result(0, {}, "running"))
    assert not stale.watched and next(line for line in stale.lines if line.level == "probe").state is State.unknown


def test_alerts_name_whom_they_touch_and_what_to_do_first():
    place = Place()
    ledger(place, NOW - 3 * HOUR, 10)
    ledger(place, NOW - HOUR, 70, "provisional")
    monitor = Monitor(place, SLO)
    alert = next(n.alert for n in monitor.look(NOW).notices if n.action is Action.trigger and n.alert.level == "freshness")
    assert alert.advertisers == ("adv-1",) and alert.hours == (instant(NOW - 2 * HOUR), instant(NOW - HOUR))
    assert alert.command == "measurement status --out somewhere" and alert.runbook == "docs/runbooks/freshness.md"
    assert alert.since == NOW - 2 * HOUR + SLO.levels["freshness"].at_most


# -- commands


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A warehouse as a run leaves it."""
    place = tmp_path_factory.mktemp("out")
    warehouse = Warehouse(place)
    generation = warehouse.begin([Source("web", "web.avro", 300, "", NOW)], {}, "rules", NOW)
    stated = {"status": "final", "restated_because": None, "rule_version": "rules", "revision": 1 << 32, "published_at": instant(NOW)}
    warehouse.append("delivery", pa.Table.from_pylist([
        {**{c.name: 0 for c in TABLES["delivery"].values}, "window_start": instant(NOW), "advertiser_id": "adv", "gross_impressions": 3, "impressions": 3, **stated}],
        schema(TABLES["delivery"])))
    warehouse.append("ledger", pa.Table.from_pylist([
        {"window_start": instant(NOW), "source": "web", "event_type": "impression", "outcome": "counted", "events": 3, **stated}], schema(TABLES["ledger"])))
    for name, time in (("arrivals", "window_start"), ("intake", "received_hour")):
        row = {time: instant(NOW), "source": "web", "events": 3, "revision": 1 << 32, "published_at": instant(NOW)}
        row |= {"event_type": "impression"} if name == "arrivals" else {"messages": 3, "bytes": 300}
        warehouse.append(name, pa.Table.from_pylist([row], schema(TABLES[name])))
    warehouse.finish(generation, "complete", NOW + HOUR, 1)
    return place


def test_status_says_each_level_and_ends_well_when_none_is_broken(out):
    done = command("status", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "freshness: ok" in done.stdout and "correctness: ok" in done.stdout and "balanced: yes" in done.stdout
    said = json.loads(command("status", "--out", out, "--json").stdout)
    assert said["healthy"] is True and {line["level"] for line in said["levels"]["lines"]} == set(SLO.levels)


def test_a_broken_level_is_told_with_what_to_do_first_and_exit_1(out, tmp_path):
    levels_file = tmp_path / "slo.yaml"
    levels_file.write_text("levels: {freshness: {at_most: 1s}}\n")
    done = command("status", "--out", out, "--slo", levels_file)
    assert done.returncode == 1
    assert "freshness: broken" in done.stdout and f"first: measurement status --out {out}" in done.stdout and "docs/runbooks/freshness.md" in done.stdout


def test_the_monitor_looks_so_many_times_and_keeps_what_it_saw(out):
    done = command("monitor", "--out", out, "--looks", 2, "--every", 0.1, "--listen", "127.0.0.1:0", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert "metrics at http://127.0.0.1:" in json.loads(done.stderr.splitlines()[0])["message"]
    place = LocalPlace(Warehouse(out))
    assert place.query("SELECT count(DISTINCT measured_at), count(DISTINCT level) FROM `main.sla`") == [(2, len(SLO.levels))]
    assert "no monitor has looked" not in command("status", "--out", out).stdout


@pytest.mark.parametrize(("flags", "said"), [
    ([], "--out is needed"), (["--out", "nowhere"], "--out nowhere: no warehouse.duckdb there"),
    (["--out", "{out}", "--listen", "9464"], "--listen 9464: must be HOST:PORT"), (["--out", "{out}", "--slo", "none.yaml"], "none.yaml: No such file"),
    (["--out", "{out}", "--webhook", "example.org/hook"], "--webhook: must be an address"), (["--out", "{out}", "--deadman", "ftp://x"], "--deadman: must be"),
    (["--out", "{out}", "--pagerduty-key-file", "none"], "--pagerduty-key-file none: No such file"), (["--out", "{out}", "--every", "0"], "--every"),
    (["--profile", "emulators"], "--subscription is needed"),
])
def test_wrong_use_is_one_line_and_exit_2(out, flags, said):
    done = command("monitor", *(flag.format(out=out) for flag in flags))
    assert done.returncode == 2 and done.stderr.startswith("measurement: ") and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_port_that_is_taken_is_one_line(out):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        done = command("monitor", "--out", out, "--listen", f"127.0.0.1:{server.getsockname()[1]}")
    assert done.returncode == 2 and "Address already in use" in done.stderr and done.stderr.count("\n") == 1
