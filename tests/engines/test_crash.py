"""The job on an engine that is already running, while its processes are killed: every table must end as the truth.

The engine is named by the environment; without it the test is skipped.

    MEASUREMENT_JOB_ENDPOINT   host:port of a job server, such as Flink's
    MEASUREMENT_JOB_FLAGS      further Beam flags, such as
                               "--environment_type=EXTERNAL --environment_config=localhost:50000
                               --checkpointing_interval=2000 --finish_bundle_before_checkpointing"
    MEASUREMENT_KILLS          JSON: what may be killed and how it comes back, as shell commands:
                               [{"kill": "pkill -9 -f worker_pool_main", "restart": "…/worker_pool.sh start"}]
    MEASUREMENT_EVENTS         events of the log (default 200000)
    MEASUREMENT_CRASHES        how many crashes (default 5), at random moments of
    MEASUREMENT_SECONDS        so many seconds (default 60) while the log is published
    MEASUREMENT_SEED           of the log and of the moments (default 1; printed)
"""

import json
import os
import random
import shlex
import subprocess
import threading

import pytest
from cloud import Cloud, outcomes, truth

from measurement.io.endpoints import Endpoints
from measurement.simulate import SimulateOptions, simulate

ENDPOINT = os.environ.get("MEASUREMENT_JOB_ENDPOINT")
pytestmark = pytest.mark.skipif(not ENDPOINT, reason="no engine: MEASUREMENT_JOB_ENDPOINT names no job server (see tests/README.md)")


def setting(name: str, default: str) -> str:
    return os.environ.get(f"MEASUREMENT_{name}", default)


@pytest.fixture
def cloud(pubsub, bigtable, bigquery, tmp_path):
    made = Cloud(Endpoints(pubsub.pubsub, bigtable.bigtable, bigquery.bigquery, bigquery.bigquery_storage), "events-crash", tmp_path)
    made.provision()
    return made


def test_every_table_is_the_truth_after_crashes_at_random_moments(cloud, tmp_path):
    seed, crashes, seconds = int(setting("SEED", "1")), int(setting("CRASHES", "5")), float(setting("SECONDS", "60"))
    print(f"seed {seed}")
    log = tmp_path / "log"
    simulate(SimulateOptions(events=int(setting("EVENTS", "200000")), seed=seed, files=8, conflict_rate=0.0), log)
    flags = [f"--job_endpoint={ENDPOINT}", *shlex.split(setting("JOB_FLAGS", "--environment_type=LOOPBACK"))]
    chance, kills = random.Random(seed), json.loads(setting("KILLS", "[]"))
    moments = sorted(chance.uniform(0, seconds) for _ in range(crashes)) if kills else []
    with cloud.job("--engine", "portable", "--", *flags, idle=60) as job:
        publishing = threading.Thread(target=cloud.publish, args=(log,))
        publishing.start()
        pause, at = threading.Event(), 0.0
        for moment in moments:
            pause.wait(moment - at)
            at = moment
            it = chance.choice(kills)
            subprocess.run(it["kill"], shell=True, check=False)
            pause.wait(chance.uniform(0, 3))
            if it.get("restart"):
                subprocess.run(it["restart"], shell=True, check=True)
        publishing.join()
        assert job.ended(1_800) == 0, job.said[-4_000:]
    assert cloud.served() == truth(log)
    assert cloud.analysed() == truth(log)
    expected, found = outcomes(log), cloud.outcomes()
    # What was delivered again is a duplicate, and nothing else may differ.
    expected.pop("duplicate", None), found.pop("duplicate", None)
    assert found == expected
    rejected = cloud.query("SELECT reason, count(*) AS n FROM `{dataset}.rejects_latest` GROUP BY 1").to_pylist()
    assert {row["reason"]: row["n"] for row in rejected} == {k: n for k, n in expected.items() if k not in ("counted", "invalid_traffic")}
    done = cloud.command("reconcile", *cloud.flags)
    assert done.returncode == 0, done.stdout + done.stderr
