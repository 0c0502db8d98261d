"""The job on the official emulators, as a user runs it: Prism, real clients, processes that die and services that go away."""

import itertools
import re
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from cloud import ANALYSED, SERVED, Cloud, Proxy, outcomes, stored, truth

from measurement.io.endpoints import Endpoints
from measurement.io.retry import SinkError
from measurement.model.tables import DELIVERY, INVALID_TRAFFIC
from measurement.simulate import SimulateOptions, simulate

EVENTS = 12_000
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)  # published soon after
POLICY = """
attribution:
  default: {models: [last_touch, linear, time_decay], click_lookback: 12h, view_lookback: 6h, half_life: 2h}
  advertisers:
    adv-1: {models: [position_based, first_touch], priority: none}
"""
_names = itertools.count()


@pytest.fixture
def cloud(pubsub, bigtable, bigquery, prism, log, tmp_path):
    endpoints = Endpoints(pubsub.pubsub, bigtable.bigtable, bigquery.bigquery, bigquery.bigquery_storage)
    made = Cloud(endpoints, f"events-{next(_names)}-end", tmp_path, log / "policy.yaml")
    made.provision()
    return made


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """Resends, disorder, late and broken events. An id's first content must come first, which a topic does not promise: so
    no id is sent again with other content."""
    path = tmp_path_factory.mktemp("log")
    (path / "policy.yaml").write_text(POLICY)
    simulate(SimulateOptions(events=EVENTS, seed=31, files=3, conflict_rate=0.0, start=START, policy=path / "policy.yaml"), path)
    return path


def is_the_truth(cloud: Cloud, log: Path) -> bool:
    for table in SERVED:
        assert cloud.served(table) == truth(log, table), table.name
    for table in ANALYSED:
        assert cloud.analysed(table) == truth(log, table), table.name
    return True


def refused(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("measurement: "), done.stderr
    return done.stderr


def test_a_log_sent_twice_is_the_truth_in_bigtable_and_in_bigquery(cloud, log):
    assert f"{EVENTS:,} events in {EVENTS:,} messages" in cloud.publish(log)
    with cloud.job(idle=45) as job:  # not idle before the second are sent, slow as a busy machine may be
        _until(lambda: cloud.served(), job)
        cloud.publish(log, batch=500)  # the same events as containers
        assert job.ended() == 0, job.said
        assert " INFO measurement.hours: hour " in job.said and not re.search(r" INFO (?!measurement\.)", job.said)
    assert is_the_truth(cloud, log)
    # Whatever is valid is there once more, a duplicate; what is not is rejected again, as another message.
    first, now = outcomes(log), cloud.outcomes()
    assert sum(now.values()) == 2 * EVENTS
    assert now["counted"] == first["counted"] and now["invalid_traffic"] == first["invalid_traffic"]
    # Each event that is measured is so once in each place.
    measured = cloud.query(f"SELECT sink, sum(events) events FROM `{cloud.dataset}.latency_latest` GROUP BY sink ORDER BY sink").to_pylist()
    assert [row["sink"] for row in measured] == ["bigquery", "bigtable"]
    assert first["counted"] // 2 < measured[0]["events"] == measured[1]["events"] < first["counted"] + first["invalid_traffic"]
    done = cloud.command("reconcile", *cloud.flags)
    assert done.returncode == 0, done.stdout + done.stderr
    # The log is of another day, which is neither fresh nor quick; nothing else is wrong.
    done = cloud.command("status", *cloud.flags, "--json")
    said = orjson.loads(done.stdout)
    broken = {line["level"] for line in said["levels"]["lines"] if line["state"] == "broken"}
    assert done.returncode == 1 and said["balanced"] and "freshness" in broken and broken <= {"freshness", "latency"}, done.stdout


def test_state_thrown_away_in_the_middle_is_rebuilt_and_no_row_is_lowered_meanwhile(cloud, log):
    files = sorted(log.glob("*.avro"))
    cloud.publish(*files[:-1])
    with cloud.job() as job:
        _until(lambda: cloud.served(), job)
        job.kill()
    lowered, watched = [], _Watch(cloud)
    with watched:
        cloud.publish(files[-1])
        with cloud.job() as job:
            assert job.ended() == 0, job.said
            assert "generation 2: first rebuilds from" in job.said
        lowered = watched.lowered
    assert watched.looks > 2 and not lowered
    assert is_the_truth(cloud, log)
    done = cloud.command("reconcile", *cloud.flags)
    assert done.returncode == 0, done.stdout + done.stderr

    # A second rebuild, of some hours only, has nothing to change.
    before = published(cloud)
    done = cloud.command("rebuild", *cloud.flags, *cloud.counted, "--from", f"{START:%Y-%m-%d}T06:00:00Z", "--to", f"{START:%Y-%m-%d}T12:00:00Z")
    assert done.returncode == 0, done.stderr
    assert published(cloud) == before
    assert is_the_truth(cloud, log)
    done = cloud.command("reconcile", *cloud.flags)
    assert done.returncode == 0, done.stdout + done.stderr


def test_screened_traffic_is_the_truth_and_a_new_list_restates_it(cloud, tmp_path):
    """The list is renewed while the job is down: its next launch counts what the archive holds by it."""
    screened = tmp_path / "screened"
    simulate(SimulateOptions(events=EVENTS, seed=32, files=3, conflict_rate=0.0, start=START, screening=True), screened)
    cloud.policy = screened / "policy.yaml"
    cloud.publish(screened)
    with cloud.job() as job:
        assert job.ended() == 0, job.said
    assert is_the_truth(cloud, screened)
    assert {key[-1] for key in cloud.analysed(INVALID_TRAFFIC)} == {"robot", "datacentre", "listed", "rate"}

    with (screened / "datacentres.txt").open("a") as networks:
        networks.write("0.0.0.0/1\n")  # where half of the simulated people are
    with cloud.job() as job:
        assert job.ended() == 0, job.said
    local = tmp_path / "local"
    done = cloud.command("run", "--input", screened, "--policy", cloud.policy, "--out", local)
    assert done.returncode == 0, done.stderr
    for table in ANALYSED:
        assert cloud.analysed(table) == stored(local, table), table.name
    assert cloud.served() == stored(local, DELIVERY) != truth(screened)
    for table in ("delivery", "conversion_credits", "invalid_traffic"):
        restated = cloud.query(f"SELECT DISTINCT restated_because FROM `{{dataset}}.{table}` WHERE revision >= {2 << 32}").to_pylist()
        assert {"restated_because": "policy"} in restated, table
    done = cloud.command("reconcile", *cloud.flags)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pubsub_and_bigtable_may_go_away_while_it_runs(cloud, log, tmp_path):
    pubsub, bigtable = Proxy(cloud.endpoints.pubsub), Proxy(cloud.endpoints.bigtable)
    through = Endpoints(pubsub.host, bigtable.host, cloud.endpoints.bigquery, cloud.endpoints.bigquery_storage)
    direct = Cloud(cloud.endpoints, cloud.name, tmp_path)
    files = sorted(log.glob("*.avro"))
    try:
        direct.publish(*files[:1])
        with Cloud(through, cloud.name, tmp_path, cloud.policy).job(idle=40) as job:
            _until(lambda: direct.served(), job)
            pubsub.cut()
            bigtable.cut()
            direct.publish(*files[1:])
            _until(lambda: "Pub/Sub pull failed: UNAVAILABLE" in job.said, job)
            pubsub.mend()
            bigtable.mend()
            assert job.ended() == 0, job.said
    finally:
        pubsub.close()
        bigtable.close()
    assert is_the_truth(cloud, log)


def test_a_second_launch_takes_over_and_the_first_ends(cloud, log):
    cloud.publish(log)
    with cloud.job(idle=120) as first:  # not idle before the second has begun
        _until(lambda: cloud.served(), first)
        with cloud.job() as second:
            assert first.ended() == 2
            assert "generation 1 is over, another has begun" in first.said
            assert second.ended() == 0, second.said
    assert is_the_truth(cloud, log)


def test_what_is_missing_is_named_before_the_job_starts(cloud, log):
    assert "projects/demo/topics/nobody: not there" in refused(
        cloud.command("publish", "--profile", "emulators", "--input", log, "--topic", "projects/demo/topics/nobody"))
    run = ["run", *cloud.flags]
    for flag, value, says in (
        ("--subscription", "projects/demo/subscriptions/nobody", "projects/demo/subscriptions/nobody: not there; run `measurement provision`"),
        ("--subscription", "nobody", "--subscription nobody: not of the form projects/P/subscriptions/S"),
        ("--bigtable", "projects/demo/instances/nothing", "no such table; run `measurement provision`"),
        ("--bigquery", "demo.nothing", "dataset demo.nothing is not there; run `measurement provision`"),
    ):
        changed = [value if before == flag else one for before, one in zip(["", *run], run)]
        assert says in refused(cloud.command(*changed))
    for variable, says in (("PUBSUB_EMULATOR_HOST", "Pub/Sub at 127.0.0.1:9"), ("BIGTABLE_EMULATOR_HOST", "Bigtable at 127.0.0.1:9"),
                           ("BIGQUERY_EMULATOR_HOST", "BigQuery emulator at 127.0.0.1:9")):
        assert says in refused(cloud.command(*run, **{variable: "127.0.0.1:9"}))
    assert "--subscription is needed" in refused(cloud.command("run", "--profile", "emulators"))
    assert "--idle-seconds 10: must be longer" in refused(cloud.command(*run, "--idle-seconds", "10"))
    assert "no generation has begun" in refused(cloud.command(*run, "--resume"))
    assert "no job has run" in refused(cloud.command("reconcile", *cloud.flags))


def published(cloud: Cloud) -> dict[str, list[int]]:
    """Revisions of each table."""
    return {table.name: cloud.query(f"SELECT count(*) AS n FROM `{{dataset}}.{table.name}`")["n"].to_pylist() for table in ANALYSED}


def _until(holds, job) -> None:
    """Waits until something holds, while the job runs; the test's own time limit is the job's."""
    pause = threading.Event()
    while job.process.poll() is None:
        try:
            if holds():
                return
        except SinkError:
            pass
        pause.wait(0.5)
    raise AssertionError(f"the job ended: {job.said}")


class _Watch:
    """Reads the served rows over and over; ``lowered``: rows whose impressions went down between two looks."""

    def __init__(self, cloud: Cloud):
        self._cloud, self._stop = cloud, threading.Event()
        self.looks, self.lowered = 0, []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        last: dict = {}
        while not self._stop.is_set():
            now = self._cloud.served()
            self.lowered += [(key, counts, now.get(key)) for key, counts in last.items() if now.get(key, (0,))[0] < counts[0]]
            last, self.looks = now, self.looks + 1
            self._stop.wait(0.3)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
