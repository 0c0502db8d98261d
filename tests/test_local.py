"""The local profile as a user meets it: the console command, in processes of its own, on Prism."""

import csv
import fcntl
import gzip
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import orjson
import pytest

from measurement.model.policy import load
from measurement.simulate import SimulateOptions, simulate

COMMAND = [sys.executable, "-m", "measurement.cli"]
TABLES = ("delivery", "invalid_traffic", "conversion_credits", "attribution", "ledger", "intake", "arrivals", "rejects")
POLICY = """
attribution:
  default: {models: [last_touch, linear, time_decay], click_lookback: 12h, view_lookback: 6h, half_life: 2h}
  advertisers:
    adv-1: {models: [position_based, first_touch], priority: none}
    adv-2: {models: [last_touch, first_touch], view_lookback: 1h}
"""


def measurement(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def refused(*arguments) -> str:
    """The one line on standard error of a command that exits 2."""
    done = measurement(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("measurement: ")
    return done.stderr


def query(out: Path, sql: str) -> list[tuple]:
    with duckdb.connect(str(out / "warehouse.duckdb"), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        return db.execute(sql).fetchall()


def figures(out: Path) -> dict[str, list[tuple]]:
    """Every figure and dimension of every view."""
    aside = "revision, published_at"
    return {t: query(out, f"SELECT * EXCLUDE ({aside}) FROM {t}_latest ORDER BY ALL") for t in TABLES}


def delivered(out: Path) -> list[list]:
    columns = "strftime(window_start, '%Y-%m-%dT%H:%M:%SZ'), * EXCLUDE (window_start, status, restated_because, rule_version, revision, published_at)"
    return sorted(map(list, query(out, f"SELECT {columns} FROM delivery_latest")), key=str)


def left_out(out: Path) -> list[list]:
    columns = "strftime(window_start, '%Y-%m-%dT%H:%M:%SZ'), * EXCLUDE (window_start, status, restated_because, rule_version, revision, published_at)"
    return sorted(map(list, query(out, f"SELECT {columns} FROM invalid_traffic_latest WHERE events <> 0")), key=str)


def credited(out: Path, table: str) -> list[list]:
    """Rows of credits as the simulator's truth has them, those of nothing left out."""
    if table == "attribution":
        columns = "strftime(window_start, '%Y-%m-%dT%H:%M:%SZ'), * EXCLUDE (window_start, conversions, value_micros), conversions::VARCHAR, value_micros"
        earned = "conversions"
    else:
        columns = ("conversion_id, model, touch_id, strftime(conversion_time, '%Y-%m-%dT%H:%M:%S.%fZ'), conversion_type, advertiser_id, touch_type, "
                   "strftime(touch_time, '%Y-%m-%dT%H:%M:%S.%fZ'), campaign_id, line_item_id, creative_id, placement_id, credit::VARCHAR, value_micros, currency")
        earned = "credit"
    aside = "status, restated_because, rule_version, revision, published_at"
    rows = query(out, f"SELECT {columns} FROM (SELECT * EXCLUDE ({aside}) FROM {table}_latest) WHERE {earned} <> 0 OR value_micros <> 0")
    return sorted(map(list, rows), key=str)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """Several models."""
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def log(policy, tmp_path_factory) -> Path:
    """A small log with more of every trouble than usual."""
    path = tmp_path_factory.mktemp("log")
    simulate(SimulateOptions(events=20_000, seed=11, late_rate=0.05, resend_rate=0.1, conflict_rate=0.005, orphan_rate=0.01, policy=policy), path)
    return path


@pytest.fixture(scope="module")
def done(log, policy, prism, tmp_path_factory) -> Path:
    """That log, run."""
    out = tmp_path_factory.mktemp("run") / "out"
    finished = measurement("run", "--profile", "local", "--input", f"{log}/events*.avro", "--policy", policy, "--out", out)
    assert finished.returncode == 0, finished.stderr
    return out


def test_a_run_on_prism_equals_the_simulators_truth_row_by_row(log, done):
    truth = orjson.loads((log / "truth.json").read_bytes())
    assert delivered(done) == sorted(truth["delivery"], key=str)
    outcomes = dict(query(done, "SELECT outcome, sum(events)::BIGINT FROM ledger_latest GROUP BY 1 HAVING sum(events) > 0"))
    assert outcomes == truth["outcomes"]
    for table in ("conversion_credits", "attribution"):
        assert credited(done, table) == sorted(truth[table]["rows"], key=str)


@pytest.mark.parametrize("consent", ["drop_user", "reject"])
def test_screened_traffic_equals_the_simulators_truth_row_by_row(consent, prism, tmp_path):
    """Robots, data centres, listed networks, crowds behind a user or an address, and refused consent."""
    log, out = tmp_path / "log", tmp_path / "out"
    simulate(SimulateOptions(events=20_000, seed=12, late_rate=0.05, conflict_rate=0.005, screening=True, consent=consent), log)
    done = measurement("run", "--input", log, "--policy", log / "policy.yaml", "--out", out)
    assert done.returncode == 0, done.stderr
    truth = orjson.loads((log / "truth.json").read_bytes())
    assert delivered(out) == sorted(truth["delivery"], key=str)
    assert left_out(out) == sorted(truth["invalid_traffic"]["rows"], key=str)
    assert {row[-2] for row in truth["invalid_traffic"]["rows"]} == {"robot", "datacentre", "listed", "rate"}
    outcomes = dict(query(out, "SELECT outcome, sum(events)::BIGINT FROM ledger_latest GROUP BY 1 HAVING sum(events) > 0"))
    assert outcomes == truth["outcomes"]
    for table in ("conversion_credits", "attribution"):
        assert credited(out, table) == sorted(truth[table]["rows"], key=str)
    assert measurement("reconcile", "--out", out).returncode == 0

    # Another list: what it finds is restated because of it, in delivery and attribution alike.
    (log / "datacentres.txt").write_text("# date: 2026-11-01\n0.0.0.0/0\n::/0\n")
    done = measurement("run", "--input", log, "--policy", log / "policy.yaml", "--out", out)
    assert done.returncode == 0, done.stderr
    for table in ("delivery", "conversion_credits", "invalid_traffic"):
        because = query(out, f"SELECT restated_because, count(DISTINCT rule_version) FROM {table} WHERE status = 'restated' "
                             f"AND revision >= 2 * 4294967296 GROUP BY 1")
        assert [why for why, _ in because] == ["policy"]
    [(gross, net, invalid)] = query(out, "SELECT sum(gross_impressions), sum(impressions), (SELECT sum(events) FROM invalid_traffic_latest "
                                         "WHERE event_type = 'impression') FROM delivery_latest")
    assert gross - net == invalid and net < 0.2 * gross
    assert measurement("reconcile", "--out", out).returncode == 0


def test_a_run_measures_each_event_that_delivery_counts_once_and_logs_each_hour_in_json(prism, tmp_path):
    """Where nothing waits for its impression, all of them; a later generation, whose rows appear at its end, measures none."""
    log, out = tmp_path / "log", tmp_path / "out"
    none = dict.fromkeys(("late_rate", "orphan_rate", "future_rate", "too_late_rate", "undecodable_rate"), 0.0)
    simulate(SimulateOptions(events=20_000, seed=13, files=1, jitter_seconds=0, **none), log)
    for generation in 1, 2:
        done = measurement("run", "--input", log, "--out", out, "--log-format", "json")
        assert done.returncode == 0 and done.stderr == ""
        counted = query(out, "SELECT sum(events) FROM ledger_latest WHERE outcome IN ('counted', 'invalid_traffic') AND event_type <> 'conversion'")
        assert query(out, "SELECT sum(events) FROM latency_latest WHERE sink = 'duckdb'") == counted
        assert query(out, "SELECT count(DISTINCT publication) > 1, min(readable_at) > min(began) FROM latency, job.runs") == [(True, True)]
        lines = [json.loads(line) for line in (out / "run.log").read_text().splitlines()]
        assert all(line["level"] != "INFO" or line["logger"].startswith("measurement.") for line in lines)
        closed = [(line["hour"], line["events"]) for line in lines if line.get("event") == "hour_closed"]
        assert sorted(closed) == query(out, "SELECT strftime(window_start, '%Y-%m-%dT%H:%M:%SZ'), sum(events)::BIGINT FROM ledger "
                                            "WHERE status = 'final' AND window_start IS NOT NULL GROUP BY 1 ORDER BY 1")
        assert len(lines) < 3 * len(closed)


def test_off_a_terminal_a_run_prints_plain_lines_and_a_summary(log, done, prism, tmp_path):
    finished = measurement("run", "--input", log, "--out", tmp_path / "out")
    assert finished.stderr == ""
    assert "\x1b" not in finished.stdout
    assert re.search(r"^received: 20,000$", finished.stdout, re.M)
    assert re.search(r"^hours closed: \d+$", finished.stdout, re.M)
    assert str(tmp_path / "out" / "warehouse.duckdb") in finished.stdout


def test_on_a_terminal_a_run_shows_a_live_line_and_a_table(log, prism, tmp_path):
    parent, child = pty.openpty()
    process = subprocess.Popen([*COMMAND, "run", "--input", str(log), "--out", str(tmp_path / "out")], stdout=child, stderr=child,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait(60) == 0
    os.close(parent)
    assert b"events/s, watermark" in seen
    assert "│ received".encode() in seen


def test_reconcile_holds_after_a_run_and_names_the_hour_of_an_altered_row(done, tmp_path):
    assert measurement("reconcile", "--out", done).returncode == 0
    copy = tmp_path / "altered"
    copy.mkdir()
    (copy / "warehouse.duckdb").write_bytes((done / "warehouse.duckdb").read_bytes())
    for table in ("ledger", "delivery"):
        (copy / "warehouse.duckdb").write_bytes((done / "warehouse.duckdb").read_bytes())
        value = "events" if table == "ledger" else "gross_impressions"
        with duckdb.connect(str(copy / "warehouse.duckdb")) as db:
            db.execute("SET TimeZone = 'UTC'")
            row, hour = db.execute(f"SELECT rowid, strftime(window_start, '%Y-%m-%dT%H:%M:%SZ') FROM {table} "
                                   f"WHERE revision = (SELECT max(revision) FROM {table}) AND window_start IS NOT NULL LIMIT 1").fetchone()
            db.execute(f"UPDATE {table} SET {value} = {value} + 1 WHERE rowid = ?", [row])
        found = measurement("reconcile", "--out", copy)
        assert found.returncode == 1
        assert hour in found.stdout


def test_the_same_log_again_changes_no_figure_and_more_files_restate(log, prism, tmp_path):
    more = tmp_path / "more"
    simulate(SimulateOptions(events=5_000, seed=12), more)
    out = tmp_path / "out"
    assert measurement("run", "--input", log, "--out", out).returncode == 0
    first = figures(out)
    assert measurement("run", "--input", log, "--out", out).returncode == 0
    assert figures(out) == first

    line = refused("run", "--input", more, "--out", out)
    assert "events-01.avro" in line and "another --out" in line
    assert figures(out) == first

    assert measurement("run", "--input", log, "--input", more, "--out", out).returncode == 0
    assert measurement("reconcile", "--out", out).returncode == 0
    assert query(out, "SELECT sum(events) FROM intake_latest") == [(25_000,)]
    assert query(out, "SELECT count(*) FROM delivery_latest WHERE restated_because = 'rebuild'")[0][0] > 0
    expected = sum(row[-1] for path in (log, more) for row in orjson.loads((path / "truth.json").read_bytes())["delivery"])
    assert query(out, "SELECT sum(spend_micros) FROM delivery_latest") == [(expected,)]


def test_a_replay_counts_what_can_be_counted_now_and_nothing_twice(prism, tmp_path):
    """The click waits a day of watermark for its impression, which comes after that."""
    hour = 3_600_000_000
    start = 1_772_409_600_000_000

    def event(event_id, kind, time, **fields):
        return {"event_id": event_id, "event_type": kind, "event_time": time, "advertiser_id": "a", "campaign_id": "c", **fields}

    events = [event("click", "click", start, impression_id="seen-late"), event("i0", "impression", start)]
    events += [event(f"i{n}", "impression", start + n * hour) for n in range(1, 40)]
    events += [event("seen-late", "impression", start - 60_000_000), event("bad", "impression", start, price_micros=-1)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    out = tmp_path / "out"
    assert measurement("run", "--input", tmp_path / "e.jsonl", "--out", out).returncode == 0
    assert sorted(query(out, "SELECT reason FROM rejects_latest")) == [("bad_value",), ("orphan",)]
    assert query(out, "SELECT sum(gross_impressions), sum(clicks) FROM delivery_latest") == [(41, 0)]

    for _ in range(2):
        replayed = measurement("replay", "--out", out)
        assert replayed.returncode == 0, replayed.stderr
        assert query(out, "SELECT sum(gross_impressions), sum(clicks) FROM delivery_latest") == [(41, 1)]
        assert measurement("reconcile", "--out", out).returncode == 0


_KILLED_HALFWAY = """
import os, signal, subprocess, sys
from pathlib import Path
from measurement.local.run import Run, run

log, out = sys.argv[1:]

def tell(progress):
    if progress.events:
        # Readers find their way while it runs.
        code = subprocess.run([sys.executable, "-m", "measurement.cli", "status", "--out", out], stdout=subprocess.DEVNULL).returncode
        print("status", code, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

run(Run(Path(out), [log]), tell, print)
"""


def test_an_interrupted_run_is_told_of_and_run_again_whole(log, done, prism, tmp_path):
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", _KILLED_HALFWAY, str(log), str(out)], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL and killed.stdout.endswith("status 0\n")
    assert measurement("status", "--out", out).returncode == 1
    assert "interrupted" in measurement("reconcile", "--out", out).stdout
    assert measurement("run", "--input", log, "--out", out).returncode == 0
    assert figures(out)["delivery"] == figures(done)["delivery"] or delivered(out) == delivered(done)


def test_only_one_run_writes_to_an_out(tmp_path, log, prism):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run is writing there" in refused("run", "--input", log, "--out", out)


def test_json_lines_and_compressed_files_count_the_same_as_avro(prism, tmp_path):
    import fastavro

    simulate(SimulateOptions(events=3_000, seed=5, undecodable_rate=0.0), tmp_path / "avro")
    for i, path in enumerate(sorted((tmp_path / "avro").glob("*.avro"))):
        with path.open("rb") as file:
            events = list(fastavro.reader(file))
        text = "".join(json.dumps({k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in e.items()}) + "\n" for e in events)
        (tmp_path / "json").mkdir(exist_ok=True)
        with gzip.open(tmp_path / "json" / f"{path.stem}.jsonl.gz", "wt") as file:
            file.write(text)
    for kind in ("avro", "json"):
        assert measurement("run", "--input", tmp_path / kind, "--out", tmp_path / f"out-{kind}").returncode == 0
    truth = orjson.loads((tmp_path / "avro" / "truth.json").read_bytes())
    assert delivered(tmp_path / "out-avro") == delivered(tmp_path / "out-json") == sorted(truth["delivery"], key=str)


def test_a_backfill_of_the_events_in_another_order_and_other_files_gives_the_same_figures(policy, prism, tmp_path):
    """Nothing in a backfill is too late, and of an id's contents another may be the first."""
    import fastavro

    simulate(SimulateOptions(events=8_000, seed=21, late_rate=0.05, orphan_rate=0.01, too_late_rate=0.0, conflict_rate=0.0, undecodable_rate=0.0,
                             policy=policy), tmp_path / "log")
    lines = []
    for path in sorted((tmp_path / "log").glob("*.avro")):
        with path.open("rb") as file:
            lines += [json.dumps({k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in e.items()}) + "\n" for e in fastavro.reader(file)]
    random.Random(5).shuffle(lines)
    for name, some in ("a", lines[::2]), ("b", lines[1::2]):
        (tmp_path / f"{name}.jsonl").write_text("".join(some))
    stream, backfill = tmp_path / "stream", tmp_path / "backfill"
    assert measurement("run", "--input", tmp_path / "log", "--policy", policy, "--out", stream).returncode == 0
    finished = measurement("run", "--backfill", "--input", tmp_path / "*.jsonl", "--policy", policy, "--out", backfill)
    assert finished.returncode == 0, finished.stderr
    outcomes = "SELECT window_start, event_type, outcome, sum(events) FROM ledger_latest GROUP BY ALL HAVING sum(events) <> 0 ORDER BY ALL"
    assert query(backfill, outcomes) == query(stream, outcomes)
    assert delivered(backfill) == delivered(stream)
    for table in ("conversion_credits", "attribution"):
        assert credited(backfill, table) == credited(stream, table) != []
    assert query(backfill, "SELECT DISTINCT status FROM delivery_latest") == [("final",)]
    assert measurement("reconcile", "--out", backfill).returncode == 0

    # What goes on with it takes its files as they are, too.
    assert earned(backfill, policy, tmp_path) == earned(stream, policy, tmp_path)
    before = delivered(backfill)
    assert measurement("replay", "--out", backfill, "--policy", policy).returncode == 0
    assert delivered(backfill) == before


def earned(out: Path, policy: Path, tmp_path: Path) -> dict[tuple, tuple]:
    """What `paths` gives each advertiser's campaign by each rule-based model of its policy: conversions, micros."""
    found = measurement("paths", "--out", out, "--policy", policy, "--csv", tmp_path / "paths.csv", "--html", tmp_path / "page.html")
    assert found.returncode == 0, found.stderr
    models = {name: set(rule.models) for name, rule in load(policy).attribution.versions[0].advertisers.items()}
    sums = {}
    with (tmp_path / "paths.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] in models.get(row["advertiser_id"], {"last_touch", "linear", "time_decay"}):
                key = row["advertiser_id"], row["campaign_id"], row["model"]
                sums[key] = Decimal(row["conversions"]), sum(int(n) for name, n in row.items() if name.startswith("value_micros"))
    return {key: found for key, found in sums.items() if any(found)}


def test_paths_gives_by_each_rule_what_the_run_credited_and_writes_its_page(done, policy, tmp_path):
    stored = query(done, "SELECT advertiser_id, campaign_id, model, sum(conversions), sum(value_micros) FROM attribution_latest "
                         "WHERE touch_type IS NOT NULL AND advertiser_id NOT LIKE 'test:%' GROUP BY ALL")
    assert earned(done, policy, tmp_path) == {tuple(key): (conversions, micros) for *key, conversions, micros in stored if conversions or micros}
    assert "<html" in (tmp_path / "page.html").read_text()

    found = measurement("paths", "--out", done, "--policy", policy, "--advertiser", "adv-1", "--json")
    assert found.returncode == 0 and [one["advertiser_id"] for one in json.loads(found.stdout)["advertisers"]] == ["adv-1"]
    assert (done / "paths.html").is_file()
    nothing = measurement("paths", "--out", done, "--from", "2030-01-01")
    assert nothing.returncode == 1 and "no conversions" in nothing.stderr
    assert "--advertiser nobody" in refused("paths", "--out", done, "--advertiser", "nobody")


@pytest.mark.parametrize(("arguments", "says"), [
    (["run", "--input", "{tmp}/empty", "--out", "{tmp}/o"], "no input files"),
    (["run", "--input", "{tmp}/none*.avro", "--out", "{tmp}/o"], "no input files"),
    (["run", "--input", "{tmp}/cut.avro", "--out", "{tmp}/o"], "cut.avro: truncated"),
    (["run", "--input", "{tmp}/cut.avro.gz", "--out", "{tmp}/o"], "cut.avro.gz: truncated"),
    (["run", "--input", "{tmp}/text.avro", "--out", "{tmp}/o"], "text.avro: not an Avro object container"),
    (["run", "--input", "{tmp}/events.csv", "--out", "{tmp}/o"], "events.csv: not an input file"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/one.jsonl"], "--out"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--wrong"], "--wrong"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--", "--wrong=1"], "--wrong"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--engine", "nothing"], "NothingRunner"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--engine", "direct"], "prism_disable_sdf_split"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/unknown.yaml"], "unknown.yaml: unknown key 'countng'"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/none.yaml"], "none.yaml"),
    (["run", "--out", "{tmp}/o"], "--input"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/model.yaml"], "model.yaml: attribution.default.model: 'last_click'"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/lookback.yaml"], "lookback.yaml: attribution.default.click_lookback"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/weights.yaml"], "weights.yaml: attribution.default.position_weights"),
    (["run", "--input", "{tmp}/one.jsonl", "--out", "{tmp}/o", "--policy", "{tmp}/twice.yaml"], "twice.yaml: line 1: the key 'adv-1' stands here twice"),
    (["run", "--backfill", "--profile", "emulators"], "--backfill"),
    (["paths"], "--out"),
    (["paths", "--out", "{tmp}/none"], "--out"),
    (["paths", "--out", "{tmp}/empty"], "no run's input is known there"),
    (["paths", "--out", "{tmp}/empty", "--order", "9"], "--order 9"),
    (["paths", "--out", "{tmp}/empty", "--from", "2026-03-02", "--to", "2026-03-02"], "--from"),
    (["paths", "--out", "{tmp}/empty", "--html", "{tmp}/none/page.html"], "--html"),
    (["paths", "--out", "{tmp}/empty", "--policy", "{tmp}/weights.yaml"], "weights.yaml"),
    (["simulate", "--events", "0", "--out", "{tmp}/s"], "--events"),
    (["simulate", "--events", "9", "--resend-rate", "2", "--out", "{tmp}/s"], "--resend-rate"),
    (["reconcile", "--out", "{tmp}/none"], "no warehouse.duckdb"),
    (["replay", "--out", "{tmp}/empty", "--reason", "bored"], "--reason bored"),
    (["nonsense"], "nonsense"),
])
def test_wrong_use_is_one_line_and_exit_2(arguments, says, log, prism, tmp_path):
    (tmp_path / "empty").mkdir()
    whole = next(iter(sorted(log.glob("*.avro")))).read_bytes()
    (tmp_path / "cut.avro").write_bytes(whole[:-10])
    (tmp_path / "cut.avro.gz").write_bytes(gzip.compress(whole)[:-10])
    (tmp_path / "text.avro").write_text("no container")
    (tmp_path / "events.csv").write_text("a,b\n")
    (tmp_path / "one.jsonl").write_text("{}\n")
    (tmp_path / "unknown.yaml").write_text("countng: {}\n")
    for name, text in (("model", "default: {model: last_click}"), ("lookback", "default: {click_lookback: -1d}"),
                       ("weights", "default: {position_weights: [0.4, 0.2, 0.5]}"), ("twice", "advertisers: {adv-1: {}, adv-1: {}}")):
        (tmp_path / f"{name}.yaml").write_text(f"attribution: {{{text}}}\n")
    assert says in refused(*(a.format(tmp=tmp_path) for a in arguments))
    assert not (tmp_path / "o").exists() or not (tmp_path / "o" / "warehouse.duckdb").exists()


def test_any_bytes_at_all_become_rejects_and_the_run_goes_on(prism, tmp_path):
    lines = [b"\x00\xff\xfe", b"{", b"[]", b"17", b'{"event_id": 5}', b'{"event_id": "\\ud800"}', b'{"a":' * 2000, b"x" * 3_000_000,
             b'{"event_id":"e","event_type":"impression","event_time":-99999999999999999,"advertiser_id":"a","campaign_id":"c"}',
             b'{"event_id":"e","event_type":"impression","event_time":"9999-12-31T23:59:59Z","advertiser_id":"a","campaign_id":"c"}',
             b'{"event_id":"good","event_type":"impression","event_time":"2026-03-02T00:00:00Z","advertiser_id":"a","campaign_id":"c\\u0000"}']
    (tmp_path / "e.jsonl").write_bytes(b"\n".join(lines))
    out = tmp_path / "out"
    assert measurement("run", "--input", tmp_path / "e.jsonl", "--out", out).returncode == 0
    assert query(out, "SELECT outcome, sum(events)::INT FROM ledger_latest GROUP BY 1 ORDER BY 1") == [
        ("bad_value", 1), ("counted", 1), ("future", 1), ("missing_field", 1), ("undecodable", 7)]
    assert {payload for payload, in query(out, "SELECT payload FROM rejects_latest")} == set(lines[:-1])
    assert measurement("reconcile", "--out", out).returncode == 0


def test_a_full_disk_is_one_line_and_nothing_half_written_counts(log, prism, tmp_path):
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("needs leave to mount a small file system")
    try:
        out = tmp_path / "out"
        assert "No space left" in refused("run", "--input", log, "--out", out)
        status = measurement("status", "--out", out)
        assert status.returncode in (1, 2)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
