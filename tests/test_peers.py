"""What decides in benchmarks/peers about right or wrong, and what takes the figures. No peer's environment is needed."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import duckdb
import fastavro
import numpy as np
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import counting, delivery, delivery_oracle, environments, kernels, oracle, parts, task
from benchmarks.peers import log as logs
from benchmarks.peers.parts import Ids, Part
from measurement.io.framing import frames
from measurement.local.prism import prism_options
from oracle import Oracle, Received
from oracle_attribution import attribution, credits

ROOT = Path(__file__).parents[1]
EVENTS = 6_000
HOUR = 3_600 * 10**6


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return logs.ensure(logs.Parameters(EVENTS, seed=3), tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def events(log) -> list[dict]:
    """The log's events in order of arrival, times in µs."""
    return [
        event | {name: round(event[name].timestamp() * 1e6) for name in ("event_time", "received_time")}
        for path in task.avro_files(log) for event in fastavro.reader(path.open("rb"), return_named_type=False)]


# -- the log ----------------------------------------------------------------------------------------------------------

def test_the_same_parameters_are_the_same_bytes_and_another_seed_is_not(log, tmp_path):
    again, other = (logs.ensure(logs.Parameters(EVENTS, seed), tmp_path) for seed in (3, 4))
    assert logs.manifest(again) == logs.manifest(log)
    assert [p.read_bytes() for p in task.avro_files(again)] == [p.read_bytes() for p in task.avro_files(log)]
    assert logs.manifest(other)["sha256"] != logs.manifest(log)["sha256"]


def test_one_in_twenty_is_a_resend_with_the_same_content_within_six_hours(events):
    copies = defaultdict(list)
    for event in events:
        copies[event["event_id"]].append(event)
    again = [pair for pair in copies.values() if len(pair) == 2]
    assert len(events) == EVENTS
    assert (len(copies), len(again)) == (EVENTS * 95 // 100, EVENTS * 5 // 100)
    for first, second in again:
        assert first | {"received_time": 0} == second | {"received_time": 0}
        assert 0 < second["received_time"] - first["received_time"] <= 6 * HOUR


def test_events_are_out_of_order_and_one_in_a_hundred_is_late(events):
    received = [event["received_time"] for event in events]
    assert received == sorted(received)
    times = [event["event_time"] for event in events]
    assert sum(a > b for a, b in zip(times, times[1:])) > EVENTS / 20
    firsts = {event["event_id"]: event for event in reversed(events)}.values()
    behind = np.array([event["received_time"] - event["event_time"] for event in firsts])
    assert behind.min() >= 0 and behind.max() <= 6 * HOUR
    assert 0.005 < (behind > HOUR / 6).mean() < 0.015


def test_follow_ups_have_an_impression_and_its_dimensions(events):
    shown = {event["event_id"]: event for event in events if event["event_type"] == "impression"}
    for event in events:
        if event["impression_id"]:
            of = shown[event["impression_id"]]
            assert (event["campaign_id"], event["user_id"], event["user_agent"]) == (of["campaign_id"], of["user_id"], of["user_agent"])
    assert {event["event_type"] for event in events} == set(logs.EVENT_TYPES)
    assert {event["campaign_id"] is None for event in events if event["event_type"] == "conversion"} == {True}


# -- oracles ----------------------------------------------------------------------------------------------------------

def test_the_tasks_oracle_is_what_sql_makes_of_the_parquet_form(log):
    rows = duckdb.sql(f"""
        SELECT event_time // {HOUR} * {HOUR}, campaign_id, event_type, count(*), coalesce(sum(price_micros), 0)::BIGINT
        FROM (SELECT DISTINCT ON (event_id) * FROM '{log}/parquet/*.parquet') GROUP BY ALL""").fetchall()
    assert Counter(rows) == Counter(oracle.rows(log))


def test_the_jobs_oracle_is_what_the_contracts_oracle_makes_of_the_same_events(log, events):
    slow = Oracle(files=1)
    for event in events:
        slow.receive(0, Received(json.dumps(event).encode(), "json", "log", 0))
    slow.finish()
    right = [("ledger", *key, n) for key, n in slow.ledger().items()]
    right += [("delivery", *key, *counts) for key, counts in slow.delivery().items()]
    credited = credits(slow, None)
    for table, rows in ("conversion_credits", credited), ("attribution", attribution(credited)):
        for key, (credit, value) in rows.items():
            share = f"{credit // 10**9}.{credit % 10**9:09}"
            right.append((table, *key[:-1], share, value, key[-1]) if table == "conversion_credits" else (table, *key, share, value))
    assert Counter(delivery_oracle.rows(log)) == Counter(right)


@pytest.mark.parametrize("change, said", [
    ({"user_id": "another"}, "two contents"), ({"event_id": "new", "impression_id": "nowhere"}, "has no impression"),
    ({"event_id": "new", "event_time": logs.BEGIN - 8 * 24 * HOUR}, "longer than the horizon"),
    ({"event_id": "new", "advertiser_id": ""}, "not well formed"),
])
def test_the_jobs_oracle_refuses_a_log_that_needs_rules_it_does_not_know(log, tmp_path, change, said):
    read = list(fastavro.reader(task.avro_files(log)[0].open("rb")))
    click = next(event for event in read if event["event_type"] == "click")
    with (tmp_path / "events.avro").open("wb") as file:
        fastavro.writer(file, logs.SCHEMA, [*read, click | change])
    with pytest.raises(ValueError, match=said):
        list(delivery_oracle.counted(tmp_path))


def test_a_result_is_right_in_any_order_and_no_row_may_lack_or_be_too_many():
    right = [(1, None, "click", 2, 5), (1, "a", "click", 2, 5)]
    assert peers.difference(right[::-1], right) == ""
    for wrong in right[:1], [*right, right[0]], [right[0], (1, "a", "click", 2, 6)], []:
        assert peers.difference(wrong, right).startswith("WRONG: of the right 2 rows")


# -- ours -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 1_000, EVENTS])
def test_the_kernels_alone_give_the_oracles_rows_in_any_batches(log, size):
    assert peers.difference(kernels.count(task.avro_files(log), size), oracle.rows(log)) == ""


def test_shards_that_travel_and_machines_that_are_rebuilt_give_the_oracles_rows(log):
    logged, totals = defaultdict(list), parts.totals()
    for path in task.avro_files(log):
        for frame, _ in frames(path, 500, 500):
            for shard, part in Part.of(frame.decoded()).split(3):
                part, ids = Part.decode(part.encode()), Ids()
                ids.restore(logged[shard])
                totals.absorb(part.sums(ids.absorb(part)))
                logged[shard] += [run for _, run in ids.take_changes().appended]
    assert peers.difference(parts.rows(totals.flush(0)), oracle.rows(log)) == ""


@pytest.mark.parametrize("size", [500, counting.FRAME_EVENTS])
def test_counting_on_prism_gives_the_oracles_rows_in_any_batches(log, prism, size, monkeypatch, tmp_path):
    monkeypatch.setattr(counting, "FRAME_EVENTS", size)
    assert peers.difference(counting.count(task.avro_files(log), tmp_path, prism_options(prism)), oracle.rows(log)) == ""


def test_the_whole_job_gives_its_oracles_rows(log, prism, tmp_path):
    assert peers.difference(delivery.delivered(task.avro_files(log), tmp_path), delivery_oracle.rows(log)) == ""


@pytest.mark.parametrize("module, variant", [("beam_elements", ("prism",)), ("plain_loop", ())])
def test_peers_that_need_no_environment_give_the_oracles_rows(prism, module, variant, tmp_path):
    peer = peers.Peer(module, module, "project", variant)
    peers.run(peer, logs.ensure(logs.Parameters(500), tmp_path), tmp_path, 120)
    assert peer.trouble == ""


# -- measuring --------------------------------------------------------------------------------------------------------

BURN = "while time.process_time() < 0.3: pass\n"


def measured(folder: Path, program: str, limit: float = 60) -> tuple[dict, Path]:
    """What is said of a program, which finds LOG and OUT among its arguments."""
    (folder / "parquet").mkdir()
    (folder / "events.avro").touch()
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.measure", folder, folder / "out", str(limit),
         sys.executable, "-c", program, folder / "events.avro", folder / "out"],
        cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), folder / "out"


@pytest.mark.parametrize("how", ["wait()", "poll()"], ids=["children that are waited for", "children that outlive it"])
def test_the_processor_time_of_every_descendant_counts(tmp_path, how):
    detached = f"import os, time\nif not os.fork():\n os.setsid()\n {BURN}"
    child = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {detached!r}]).{how}\n{BURN}"
    figures, _ = measured(tmp_path, f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}]).{how}\n{BURN}")
    assert figures["status"] == 0
    assert figures["cpu"] >= 0.9


def test_memory_is_that_of_all_descendants_together(tmp_path):
    hold = "import time; held = b'x' * 60_000_000; time.sleep(2)"
    figures, _ = measured(tmp_path, f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {hold!r}])\n{hold}\np.wait()")
    assert 120e6 <= figures["peak"] < 240e6


def test_reading_begins_at_the_first_open_and_ends_when_the_result_is_there(tmp_path):
    figures, out = measured(tmp_path, (
        "import sys, time\ntime.sleep(0.4)\nopen(sys.argv[1]).close()\ntime.sleep(0.4)\n"
        "open(sys.argv[2], 'w').close()\ntime.sleep(0.4)"))
    assert out.is_file()
    assert figures["starting"] >= 0.39
    assert figures["starting"] + figures["reading"] >= 0.79
    assert figures["seconds"] - figures["starting"] - figures["reading"] >= 0.39


def test_a_failure_and_a_run_beyond_its_limit_are_told(tmp_path):
    for name, program, limit in ("failed", "raise SystemExit(3)", 60), ("endless", "while True: pass", 0.5):
        folder = tmp_path / name
        folder.mkdir()
        figures, _ = measured(folder, program, limit)
        assert figures["status"] == (3 if name == "failed" else -9)


# -- the command ------------------------------------------------------------------------------------------------------

def test_a_run_is_measured_and_held_against_the_oracle(log, tmp_path):
    peer = peers.Peer("kernels", "kernels", "project")
    peers.run(peer, log, tmp_path, 60)
    assert peer.trouble == ""
    assert set(peer.runs[0]) == {"seconds", "starting", "reading", "cpu", "peak"}
    wrong = peers.Peer("kernels", "kernels", "project", right=lambda folder: oracle.rows(folder)[1:])
    peers.run(wrong, log, tmp_path, 60)
    assert wrong.trouble.startswith("WRONG") and "1 others are there" in wrong.trouble
    figures = peers.compared([peer, wrong], EVENTS, EVENTS)
    assert [row[3] for row in figures.rows][1] == "WRONG" and figures.rows[0][3] > 0
    assert figures.notes[-1] == f"kernels: {wrong.trouble}"


def test_a_program_that_fails_is_a_row_that_says_so(log, tmp_path):
    peer = peers.Peer("none", "no_such_module", "project")
    peers.run(peer, log, tmp_path, 60)
    assert peer.trouble.startswith("failed: ") and "no_such_module" in peer.trouble


def test_without_java_flink_and_spark_are_rows_that_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", os.devnull)
    chosen = [peer for peer in peers.peers() if peer.environment in ("flink", "spark")]
    peers.prepare(chosen, tmp_path)
    assert len(chosen) == 4
    assert {row[3] for row in peers.compared(chosen, 1, 1).rows} == {"not run"}
    assert all("java" in peer.trouble for peer in chosen)


def test_what_an_installation_says_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(environments.ENVIRONMENTS, "none", environments.Environment(("./no such package",)))
    with pytest.raises(environments.Missing, match="^python -m pip install failed: .+$"):
        environments.ensure("none", tmp_path)


@pytest.mark.parametrize("flags, said", [
    (["--only", "Flink"], "no peer is named 'Flink'"), (["--events", "0"], "0 is not positive"), (["--runs", "x"], "invalid"),
])
def test_wrong_flags_are_told_in_a_line(flags, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", *flags])
    with pytest.raises(SystemExit) as ended:
        peers.arguments()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
