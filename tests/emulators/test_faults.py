"""The fault suite, what is wrong with the data: each fault injected into a running job, found in its time by its own level and by no
wrong one.

One job on the emulators and Prism, whose world goes 120 times as fast as ours (tests/faults.py). What docs/reliability.md states
in minutes is held in the world's minutes; the levels that it names beside the right one may find the fault as well.
"""

import pytest

from measurement.model.events import MICROS_PER_HOUR
from measurement.monitors.sample import State
from tests import prometheus
from tests.faults import World, found, mended, opened, seen, wrong

QUIET = 130  # minutes: two hours close


@pytest.fixture(scope="module")
def world(pubsub, bigtable, bigquery, prism, tmp_path_factory):
    with World.at("faults", pubsub, bigtable, bigquery, tmp_path_factory.mktemp("faults")) as world:
        yield world


def open_(world: World) -> set[str]:
    """Levels with an open alert."""
    return set(world.service.monitor.alerts.open())


def test_a_quiet_time_raises_nothing(world):
    looks, _ = world.watch(lambda look: False, QUIET)
    assert opened(looks) == set(), seen(looks)
    last = {of.level.name: of.state for of in looks[-1].judged}
    assert set(last.values()) <= {State.ok, State.unknown}, seen(looks)
    for level in ("freshness", "completeness", "correctness", "probe", "heartbeat", "volume", "duplicates", "rejected_future"):
        assert last[level] is State.ok, (level, looks[-1])
    assert all(look.complete for look in looks), seen(looks)


def test_a_publisher_that_sends_everything_twice_is_found_by_duplicates(world):
    with wrong(world.publisher("web"), copies=2):
        found(world, "duplicates", 40)
    mended(world, "duplicates", 60)


def test_a_flood_of_poison_is_found_by_what_cannot_be_decoded_and_by_prometheus_too(world, tmp_path):
    level = "rejected_undecodable"
    with prometheus.running(world.metrics_port, tmp_path) as prom:
        assert level not in {of for _, of in prom.alerts()}
        with wrong(world.publisher("web"), poison=20):
            found(world, level, 40)
            assert prometheus.until(lambda: ("MeasurementBudgetBurn1h", level) in prom.alerts())
            assert {of for _, of in prom.alerts()} - {None} <= open_(world)
        mended(world, level, 60)
        assert prometheus.until(lambda: ("MeasurementBudgetBurn1h", level) not in prom.alerts())


def test_a_clock_that_is_ahead_is_found_by_events_of_the_future(world):
    with wrong(world.publisher("web"), skew=40 * 24 * MICROS_PER_HOUR):
        found(world, "rejected_future", 40)
    mended(world, "rejected_future", 60)


def test_a_publisher_that_stops_is_found_by_completeness(world):
    with wrong(world.publisher("app"), silent=True):
        found(world, "completeness", 40)
    mended(world, "completeness", 60)


def test_a_ledger_entry_that_is_lost_is_found_by_correctness(world):
    hour = world.service.monitor.known.complete_until - MICROS_PER_HOUR
    lost = world.lose(hour)
    looks = found(world, "correctness", 40)
    assert f"{lost} events of web" in next(of.sample.text for of in looks[-1].judged if of.level.name == "correctness")
    world.give_back(hour)
    mended(world, "correctness", 60)


def test_a_campaign_whose_volume_is_gone_is_found_by_volume(world):
    with wrong(world.publisher("app"), campaigns=["app"]):
        found(world, "volume", 130)
    mended(world, "volume", 200)
