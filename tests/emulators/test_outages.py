"""The fault suite, what is wrong with the machines: a sink that is down, a source that stands still, a job that is killed.

As tests/emulators/test_faults.py, in a world of its own: the BigQuery emulator slows with what it has answered.
"""

import pytest

from tests.faults import World, found, mended


@pytest.fixture(scope="module")
def world(pubsub, bigtable, bigquery, prism, tmp_path_factory):
    with World.at("outages", pubsub, bigtable, bigquery, tmp_path_factory.mktemp("outages")) as world:
        yield world


def test_a_sink_that_is_down_is_found_by_the_probe(world):
    with world.cut(world.to_bigquery):
        looks = found(world, "probe", 90, {"latency", "freshness"})
        said = next(of.sample.text for of in looks[-1].judged if of.level.name == "probe")
        assert "bigquery: the probe of" in said
    mended(world, "probe", 400, {"latency", "freshness"})


def test_a_source_that_stands_still_is_found_by_freshness(world):
    with world.cut(world.to_pubsub):
        found(world, "freshness", 240, {"probe"})
    mended(world, "freshness", 400, {"probe", "latency"})


def test_a_job_that_is_killed_is_found_by_its_heartbeat(world):
    world.job.kill()
    found(world, "heartbeat", 90, {"probe", "freshness"})
