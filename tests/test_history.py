"""Levels judged by their own history: the past that is held against, the score, and what a level makes of them."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.monitors import history, rates, slo
from measurement.monitors.history import DAY, HOUR, QUARTER, History, Usual, score
from measurement.monitors.series import KEPT, MINUTE

WEEK = 7 * DAY
NOW = 1_772_000_000_000_000 // HOUR * HOUR + 37 * MINUTE
LEVELS = slo.given(None).levels
LEVEL = LEVELS["duplicates"]


def past(added: list[tuple[int, int, int]], name: str = LEVEL.name) -> History:
    """(µs before NOW, part, whole)"""
    series = History((name,))
    for before, part, whole in added:
        series.add(name, NOW - before, part, whole)
    return series


def hourly(series: History, name: str, share, hours: int, whole: int, since: int = 1) -> History:
    """``share(hours back)`` in each hour around this time from the one ``since`` so many hours back on."""
    for back in range(since, since + hours):
        series.add(name, NOW - back * HOUR, round(share(back) * whole), whole)
    return series


# --- the past

minutes = st.lists(st.tuples(st.integers(0, KEPT + 100), st.integers(0, 50), st.integers(0, 50)), max_size=40)


@given(minutes, st.lists(st.integers(-100, KEPT + 200), min_size=1, max_size=10))
def test_an_hours_sums_are_those_of_its_minutes(added, starts):
    series = past([(before * MINUTE, part, part + more) for before, part, more in added])
    begins = np.array([NOW - start * MINUTE for start in starts])
    assert series.hours(LEVEL.name, begins[:, None]).tolist() == series.hours(LEVEL.name, begins)[..., None].tolist()
    assert series.hours(LEVEL.name, begins).T.tolist() == [list(series.sums(LEVEL.name, NOW - s * MINUTE, NOW - s * MINUTE + HOUR)) for s in starts]


def test_hours_of_a_level_that_is_not_kept_or_of_an_empty_series_are_empty():
    starts = np.array([NOW - HOUR, NOW])
    assert not past([]).hours(LEVEL.name, starts).any()
    assert not past([(HOUR, 1, 2)]).hours("other", starts).any()


def oracle(added: list[tuple[int, int, int]], events: int) -> tuple[float, float, float] | None:
    """Median, spread and least of the hours that are held against, by their definition."""
    def share(back: int) -> float | None:
        begin = NOW // QUARTER * QUARTER // MINUTE - 22 - back // MINUTE
        inside = [(part, whole) for before, part, whole in added if begin <= (NOW - before) // MINUTE < begin + 60]
        whole = sum(w for _, w in inside)
        return sum(p for p, _ in inside) / whole if whole >= events else None

    def of(group: list[int]) -> list[float]:
        return [s for s in map(share, group) if s is not None]

    weeks = {(day, aside): [(day + 7 * week) * DAY + aside * HOUR for week in range(4)] for day in range(1, 8) for aside in range(-2, 3)}
    days = {aside: [day * DAY + aside * HOUR for day in range(1, 29)] for aside in range(-2, 3)}
    for groups, ours, least in ((weeks, (7, 0), 3), (days, 0, 4), ({0: [k * HOUR for k in range(1, 97)]}, 0, 12)):
        shares = of(groups[ours])
        if len(shares) >= least:
            away = [abs(s - float(np.median(of(group)))) for group in groups.values() for s in of(group)]
            n = len(shares)
            return float(np.median(shares)), 1.4826 * float(np.median(away)) * (2.54 if n == 3 else 1 + 2.3 / n), min(shares)
    return None


pasts = st.lists(st.tuples(st.one_of(st.integers(1, 4).map(lambda k: k * WEEK), st.integers(1, 29).map(lambda k: k * DAY), st.integers(1, 4).map(lambda k: k * WEEK + HOUR),
                                     st.integers(1, 100).map(lambda k: k * HOUR)),
                           st.integers(-40, 40), st.integers(0, 30), st.integers(0, 60)), min_size=5, max_size=60)


@settings(max_examples=200)
@given(pasts, st.randoms(use_true_random=False))
def test_what_is_usual_is_what_its_definition_says_in_whatever_order_the_past_came(drawn, random):
    added = [(0, 0, 0)] + [(back + aside * MINUTE, part, part + more) for back, aside, part, more in drawn]
    expected = oracle(added, 50)
    random.shuffle(added)
    found = past(added).usual(LEVEL.name, NOW, 50)
    assert (found is None) == (expected is None)
    if found:
        assert (found.share, found.spread, found.least) == pytest.approx(expected)


@pytest.mark.parametrize(("hours", "says"), [
    (11, None), (12, "12 other hours"), (4 * 24 - 1, "95 other hours"), (4 * 24, "this hour of 4 days"),
    (21 * 24 - 1, "this hour of 20 days"), (21 * 24, "this hour of 3 weeks"), (29 * 24, "this hour of 4 weeks")])
def test_weeks_go_before_days_and_days_before_other_hours(hours, says):
    found = hourly(past([]), LEVEL.name, lambda back: 0.1, hours, 100).usual(LEVEL.name, NOW, 50)
    assert (found and found.of) == says


def test_hours_with_too_few_events_are_no_past():
    series = hourly(past([]), LEVEL.name, lambda back: 0.1, 29 * 24, 49)
    assert series.usual(LEVEL.name, NOW, 50) is None
    assert series.usual(LEVEL.name, NOW, 49).of == "this hour of 4 weeks"


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_of_a_past_by_hours_each_week_has_one_whatever_the_minute_of_the_look(minute):
    series = History((LEVEL.name,))
    for back in range(1, 29 * 24):
        series.add(LEVEL.name, NOW // HOUR * HOUR - back * HOUR, 10, 100)
    found = series.usual(LEVEL.name, NOW // HOUR * HOUR + minute * MINUTE, 100)
    assert (found.share, found.spread, found.of) == (0.1, 0, "this hour of 4 weeks")


@pytest.mark.parametrize(("wrong", "share"), [(1, 0.1), (2, 0.3), (3, 0.5)])
def test_of_four_weeks_one_that_was_wrong_teaches_nothing(wrong, share):
    found = past([(k * WEEK, 50 if k <= wrong else 10, 100) for k in range(1, 5)]).usual(LEVEL.name, NOW, 50)
    assert found.share == pytest.approx(share)
    assert (found.spread == 0) == (wrong != 2)  # of two the score is lenient, of three that is what is usual


# --- the score

@pytest.mark.parametrize(("hours", "of"), [(28 * 24, "this hour of 4 weeks"), (21 * 24, "this hour of 3 weeks"),
                                           (5 * 24, "this hour of 5 days"), (40, "40 other hours")])
def test_the_spread_is_the_standard_deviation_of_one_more_hour_from_the_median(hours, of):
    """Of normal shares, over many pasts."""
    random = np.random.default_rng(5)
    spreads, misses = [], []
    for _ in range(100):
        drawn = random.normal(0.5, 0.03, hours + 3)
        found = hourly(past([]), LEVEL.name, lambda back, drawn=drawn: drawn[back], hours + 2, 100_000).usual(LEVEL.name, NOW, 50)
        assert found.of == of or hours == 40
        spreads.append(found.spread)
        misses.append(random.normal(0.5, 0.03, 200) - found.share)
    assert np.mean(spreads) == pytest.approx(np.std(misses), rel=0.1)


def test_the_past_is_asked_once_a_quarter_of_an_hour():
    series = hourly(past([]), LEVEL.name, lambda back: 0.1, 28 * 24, 100)
    first = series.usual(LEVEL.name, NOW, 50)
    for week in (1, 2, 3):
        series.add(LEVEL.name, NOW - week * WEEK, 10, 20)
    assert series.usual(LEVEL.name, NOW + 7 * MINUTE, 50) is first
    assert (first.share, series.usual(LEVEL.name, NOW + 8 * MINUTE, 50).share) == (0.1, pytest.approx(20 / 120))


@given(st.floats(0, 1), st.floats(0, 0.3), st.integers(1, 10**7), st.floats(0, 1))
def test_no_deviation_is_below_counting_noise_or_a_tenth_of_what_is_usual(share, spread, whole, found):
    z = abs(score(found, whole, Usual(share, spread, 0, "")))
    assert z * sqrt(share * (1 - share) / whole) <= abs(found - share) + 1e-9
    assert z * share / 10 <= abs(found - share) + 1e-9


@pytest.mark.parametrize("expected", [0, 0.01, 0.1, 0.3, 1, 2, 2.6, 5, 20])
def test_chance_alone_passes_six_deviations_less_than_once_in_a_million(expected):
    """Poisson, the widest of what counting gives, summed by its definition."""
    whole, usual_ = 100_000, Usual(expected / 100_000, 0, 0, "")
    first = next(k for k in range(whole) if (k / whole - usual_.share) / history.noise(usual_, whole) > 6)
    term, tail = np.exp(-expected), 0.0
    for k in range(first + 100):
        tail += term if k >= first else 0
        term *= expected / (k + 1)
    assert tail < 1e-6


# --- the level

usuals = st.floats(0, 0.6)
wholes = st.integers(50, 20_000)


def steady(share: float, whole: int, name: str = LEVEL.name) -> History:
    """Four weeks and a look with one share."""
    series = past([], name)
    for week in range(5):
        for minute in range(-31, 31) if week else range(10):
            series.add(name, NOW - week * WEEK - minute * MINUTE, round(share * whole), whole)
    return series


@given(st.sampled_from(list(LEVELS)), usuals, wholes)
def test_a_constant_share_never_alarms(name, share, whole):
    if LEVELS[name].z:
        found = rates.judge(LEVELS[name], steady(share, whole, name), NOW, 3)
        assert (found.holds, found.good, found.total) == (True, 3, 3)


@given(st.floats(0.06, 0.4), wholes)
def test_a_share_that_doubles_beyond_the_noise_alarms_within_ten_minutes(share, whole):
    series = past([], LEVEL.name)
    for week in range(5):
        for minute in range(-45, 60):
            doubled = 2 if week == 0 and minute <= 0 else 1
            if week or minute >= -10:
                series.add(LEVEL.name, NOW - week * WEEK - minute * MINUTE, round(doubled * share * whole), whole)
    held = [rates.judge(LEVEL, series, NOW + minute * MINUTE, 1).holds for minute in range(-1, 10)]
    assert held[0]
    if 10 * whole * share > 80:
        assert False in held and held == sorted(held, reverse=True)


@given(st.integers(0, 49), st.floats(0, 1))
def test_small_samples_are_unknown(whole, share):
    series = hourly(past([(0, round(whole * share), whole)]), LEVEL.name, lambda back: 0.0, 29 * 24, 1000)
    found = rates.judge(LEVEL, series, NOW, 1)
    assert (found.holds, found.good, found.total) == (None, 0, 0)
    assert "too few" in found.text


def test_where_ten_minutes_are_too_few_events_up_to_an_hour_is_judged():
    added = [(before * MINUTE, 1, 2) for before in range(60)]
    series = hourly(past(added), LEVEL.name, lambda back: 0.5, 29 * 24, 1000, since=24)
    assert "of 60 events" in rates.judge(LEVEL, series, NOW, 1).text
    assert rates.judge(LEVEL, past(added[:24]), NOW, 1).holds is None


def test_what_waits_is_judged_as_it_is_now_however_often_it_was_looked_at():
    level = LEVELS["unjoined"]
    series = hourly(past([(before * MINUTE, 8, 60) for before in range(60)], level.name), level.name, lambda back: 0.01, 29 * 24, 1000, since=24)
    assert "of 60 follow-ups" in rates.judge(level, series, NOW, 1).text
    assert rates.judge(level, series, NOW + MINUTE, 1).text == "0 follow-ups in 1 min are too few to judge, 50 are needed"


def test_without_a_past_it_is_unknown_and_says_what_it_needs():
    found = rates.judge(LEVEL, past([(0, 0, 1000)]), NOW, 1)
    assert found.holds is None
    assert found.text == "no past to judge by: needs 12 hours of the last four days with 50 events each"


def test_it_says_what_was_found_and_what_is_usual():
    series = steady(0.011, 100_000)
    series.add(LEVEL.name, NOW, 1_000_000, 1_000_000)
    found = rates.judge(LEVEL, series, NOW, 1)
    assert found.holds is False and found.value == pytest.approx(0.5055)
    assert found.text.startswith("50.5 % of 2,000,000 events are duplicates, usually 1.1 % (this hour of 4 weeks), z ")


def test_a_share_that_was_nothing_alarms_beyond_its_least_and_the_noise_of_few():
    level = LEVELS["rejected_undecodable"]
    quiet = [(k * WEEK, 0, 10_000) for k in range(1, 5)]
    held = [rates.judge(level, past([*quiet, (0, part, 100)], level.name), NOW, 1).holds for part in range(12)]
    assert held.index(False) == 7  # 6 √(0 + 1) of a hundred
    assert rates.judge(level, past([*quiet, (0, 190, 10_000)], level.name), NOW, 1).holds  # below least, 2 %
    assert not rates.judge(level, past([*quiet, (0, 210, 10_000)], level.name), NOW, 1).holds


@pytest.mark.parametrize("name", [n for n, level in LEVELS.items() if level.z])
def test_less_is_wrong_of_invalid_traffic_alone_and_there_only_next_to_nothing(name):
    weeks = [(k * WEEK, 50 + k, 1000) for k in range(1, 5)]
    fallen = {part: rates.judge(LEVELS[name], past([*weeks, (0, part, 5000)], name), NOW, 1).holds for part in (0, 20, 30, 250)}
    assert fallen == {0: name != "invalid", 20: name != "invalid", 30: True, 250: True}


def test_invalid_traffic_that_was_absent_in_a_week_may_be_absent():
    level = LEVELS["invalid"]
    weeks = [(k * WEEK, 50 if k > 1 else 0, 1000) for k in range(1, 5)]
    assert rates.judge(level, past([*weeks, (0, 0, 5000)], level.name), NOW, 1).holds


@pytest.mark.parametrize(("events", "holds"), [(300, True), (700, True), (800, False)])
def test_none_of_few_is_no_loss_of_invalid_traffic(events, holds):
    """By chance there may be none: an alarm needs about z² of them that should have been there, here 36 of 720."""
    level = LEVELS["invalid"]
    weeks = [(k * WEEK, 50, 1000) for k in range(1, 5)]
    assert rates.judge(level, past([*weeks, (0, 0, events)], level.name), NOW, 1).holds is holds
