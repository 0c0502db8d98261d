"""Campaigns that are gone, held against a slow definition and case by case."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement.model.events import MICROS_PER_HOUR
from measurement.monitors import slo
from measurement.monitors.volume import Volume, judge

LEVEL = slo.given(None).levels["volume"]  # below 5 % where 50 were to be expected
AT = datetime(2026, 3, 2, 14, tzinfo=UTC)
HOUR = round(AT.timestamp() * 1_000_000)


def volume(now: dict, *past: dict, seen: float = 1.0, hour: int = HOUR) -> Volume:
    named = lambda counts: {c if isinstance(c, tuple) else ("adv-1", c): n for c, n in counts.items()}  # noqa: E731
    return Volume(hour, seen, named(now), [named(p) for p in past], f"of {len(past)} weeks")


def test_a_campaign_that_was_there_in_every_week_and_is_not_now_is_gone():
    found = judge(LEVEL, {}, [volume({"c-1": 900, "c-2": 2}, *[{"c-1": 1000, "c-2": 1200}] * 4)], 5)
    assert (found.holds, found.good, found.total, found.value) == (False, 0, 5, 1.0)
    assert found.text == ("c-2 of adv-1 has 2 impressions of 2026-03-02T14:00Z where 1,200 were to be expected "
                          "(this hour of 4 weeks)")
    assert (found.advertisers, found.hours, found.since) == (("adv-1",), (AT,), AT)


def test_where_none_is_gone_it_says_how_many_are_watched():
    found = judge(LEVEL, {}, [volume({"c-1": 900, "c-2": 60}, *[{"c-1": 1000, "c-2": 1200}] * 4)], 5)
    assert (found.holds, found.good, found.total, found.value) == (True, 5, 5, 0.0)
    assert found.text == "none of 2 campaigns is gone"


@pytest.mark.parametrize("weeks", [0, 1, 2])
def test_with_fewer_than_three_hours_of_past_nothing_is_known(weeks):
    found = judge(LEVEL, {}, [volume({}, *[{"c-1": 1000}] * weeks)], 5)
    assert (found.holds, found.total) == (None, 0)
    assert judge(LEVEL, {}, [volume({}, *[{"c-1": 1000}] * weeks), volume({}, *[{"c-1": 1000}] * 3)], 5).holds is False
    assert judge(LEVEL, {}, [], 5).holds is None


@pytest.mark.parametrize(("expected", "seen", "gone"), [(50, 1.0, True), (49, 1.0, False), (100, 0.5, True), (99, 0.5, False), (9999, 0.0, False)])
def test_nothing_is_asked_for_below_the_least_that_must_be_expected_by_now(expected, seen, gone):
    assert judge(LEVEL, {}, [volume({}, *[{"c-1": expected}] * 3, seen=seen)], 5).holds is not gone


def test_a_campaign_that_began_in_these_weeks_is_not_expected_before_all_have_it():
    before, after = {}, {"c-1": 500}
    assert judge(LEVEL, {}, [volume({}, after, after, after, before)], 5).holds
    assert judge(LEVEL, {}, [volume({}, after, after, after, after)], 5).holds is False


def test_half_the_traffic_is_a_holiday_and_no_loss():
    assert judge(LEVEL, {}, [volume({"c-1": 100}, *[{"c-1": 200}] * 4)], 5).holds


@pytest.mark.parametrize(("minutes", "impressions", "holds"), [
    (-60, 0, True), (0, 0, True), (1, 1, True), (30, 0, False), (30, 14, False), (30, 15, True), (600, 0, False)])
def test_of_a_flight_only_the_part_of_the_hour_before_its_end_is_expected(minutes, impressions, holds):
    flights = {"c-1": HOUR + minutes * 60_000_000}
    assert judge(LEVEL, flights, [volume({"c-1": impressions}, *[{"c-1": 600}] * 4)], 5).holds is holds


def test_test_advertisers_are_never_missed():
    assert judge(LEVEL, {}, [volume({}, *[{("test:probe", "c-1"): 1000}] * 4)], 5).holds


def test_few_are_named_each_once_and_all_are_touched():
    past = {(f"adv-{i}", f"c-{i}"): 1000 + i for i in range(5)}
    found = judge(LEVEL, {}, [volume({}, *[past] * 4, seen=0.5), volume({}, *[past] * 4, hour=HOUR - MICROS_PER_HOUR)], 5)
    assert found.value == 5
    assert [text.split()[0] for text in found.text.split("; ")] == ["c-4", "c-3", "c-2", "and"]
    assert found.text.endswith("; and 2 more")
    assert found.advertisers == tuple(f"adv-{i}" for i in range(5))
    assert found.hours == (AT - timedelta(hours=1), AT)
    assert found.since == AT - timedelta(hours=1)


counts = st.dictionaries(st.sampled_from([("adv-1", "a"), ("adv-1", "b"), ("adv-2", "a"), ("test:adv-1", "a")]), st.integers(0, 400))


@given(counts, st.lists(counts, max_size=9), st.floats(0, 1), st.dictionaries(st.sampled_from("ab"), st.integers(-30, 90)))
def test_gone_is_what_its_definition_says(now, past, seen, ends):
    flights = {campaign: HOUR + minutes * 60_000_000 for campaign, minutes in ends.items()}
    gone = set()
    for campaign in {c for hour in past for c in hour}:
        quartile = float(np.percentile([hour.get(campaign, 0) for hour in past], 25, method="lower"))
        expected = quartile * max(min(seen, ends.get(campaign[1], 60) / 60), 0)
        if len(past) >= 3 and expected >= 50 and now.get(campaign, 0) < 0.05 * expected and not campaign[0].startswith("test:"):
            gone.add(campaign)
    found = judge(LEVEL, flights, [Volume(HOUR, seen, now, past, "")], 5)
    assert found.value == (len(gone) if len(past) >= 3 else None)
    assert set(found.advertisers) == {advertiser for advertiser, _ in gone}
