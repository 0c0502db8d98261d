"""Burn rates against lists of minutes, the SRE Workbook's own figures, and the time that an outage takes to be found."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from measurement.monitors.burn import MOST, Burn, burn, state
from measurement.monitors.sample import Sample, State, at_look, unknown
from measurement.monitors.series import DAYS, MINUTE, Series
from measurement.monitors.slo import Level, Severity, Window, given as slo_of

SLO = slo_of(None)
NOW = 1_772_431_200_000_000  # 2026-03-02T06:00:00Z
_DAY = 24 * 60 * MINUTE
WINDOWS = (Window(10, 10 * MINUTE, 3 * MINUTE, Severity.page), Window(2, 30 * MINUTE, 5 * MINUTE, Severity.ticket))
NAMES = {10: "10m", 3: "3m", 30: "30m", 5: "5m"}


def level(target: float) -> Level:
    return Level("x", target, Severity.page)


def filled(minutes: list[tuple[int, int]]) -> Series:
    """Of each minute up to that of NOW, (bad, total)."""
    series = Series(("x",))
    for i, (bad, total) in enumerate(minutes):
        series.add("x", NOW - (len(minutes) - 1 - i) * MINUTE, total - bad, total)
    return series


def share_burnt(minutes: list[tuple[int, int]], target: str) -> Fraction:
    bad, total = (sum(column) for column in zip(*minutes, strict=True)) if minutes else (0, 0)
    return Fraction(bad, total) / (1 - Fraction(target)) if bad else Fraction(0)


@given(st.lists(st.integers(0, 9).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))), min_size=1, max_size=50),
       st.sampled_from(["0.9", "0.99", "0.999"]), st.integers(0, MINUTE - 1))
def test_rates_and_windows_are_those_of_a_list_of_minutes(minutes, target, into_the_minute):
    found = burn(filled(minutes), level(float(target)), WINDOWS, NOW + into_the_minute)
    exact = {length: share_burnt(minutes[-length:], target) for length in NAMES}
    assert found.rates == {NAMES[length]: pytest.approx(float(rate), rel=1e-9) for length, rate in exact.items()}
    assert found.spent == pytest.approx(float(share_burnt(minutes, target)), rel=1e-9)
    assert found.firing == tuple(w for w in WINDOWS if exact[w.long // MINUTE] >= w.burn and exact[w.short // MINUTE] >= w.burn)


@pytest.mark.parametrize("rate, of, spent", [(14.4, "1h", 0.02), (6, "6h", 0.05), (3, "1d", 0.1), (1, "3d", 0.1)])
def test_a_window_fires_when_it_has_spent_what_the_workbook_says(rate, of, spent):
    """Table 5-8 of the SRE Workbook, chapter 5: what a rate over a window spends of 30 days' budget."""
    [window] = [w for w in SLO.windows if w.name == of]
    assert (window.burn, round(window.burn * window.long / (DAYS * _DAY), 9)) == (rate, spent)
    # 1,000 things a minute for 30 days, and so many of them bad, all of late: just as many as the window takes.
    series = filled([(0, 1000)] * (DAYS * 24 * 60))
    series.add("x", NOW, -round(1000 * rate * 0.001 * window.long / MINUTE), 0)
    found = burn(series, level(0.999), SLO.windows, NOW)
    assert window in found.firing and found.spent == pytest.approx(spent)
    series.add("x", NOW, 1, 0)
    assert window not in burn(series, level(0.999), SLO.windows, NOW).firing


@pytest.mark.parametrize("errors, minutes", [
    (1.0, {"1h": 0.864, "6h": 2.16}), (0.1, {"1h": 8.64, "6h": 21.6}), (0.02, {"1h": 43.2, "6h": 108}), (0.007, {"6h": 309}),
    (0.002, {"3d": 2160})])
def test_an_outage_is_found_after_the_time_that_its_error_rate_takes(errors, minutes):
    """SRE Workbook, chapter 5: after (1 - target) / error rate * long window * burn; never where the errors burn less."""
    series = filled([(0, 1000)] * (4 * 24 * 60) + [(0, 0)])
    found: dict[str, int] = {}
    last = max(minutes.values())
    for minute in range(int(last) + 2):
        series.add("x", NOW + minute * MINUTE, round(1000 * (1 - errors)), 1000)
        for window in burn(series, level(0.999), SLO.windows, NOW + minute * MINUTE).firing:
            found.setdefault(window.name, minute + 1)
    for window, after in minutes.items():
        assert found[window] == pytest.approx(after, abs=1.01)
    slower = {w.name for w in SLO.windows if errors / 0.001 < w.burn}
    assert not slower & set(found)


def test_an_alert_ends_soon_after_its_outage():
    """When its short window is free of it, or when the long one no longer burns."""
    series = filled([(0, 10)] * (3 * 24 * 60) + [(10, 10)] * 10)
    for minute in range(361):
        if minute:
            series.add("x", NOW + minute * MINUTE, 10, 10)
        firing = [w.name for w in burn(series, level(0.999), SLO.windows, NOW + minute * MINUTE).firing]
        assert firing == [name for name, ends in (("1h", 5), ("6h", 30), ("1d", 120), ("3d", 360)) if minute < ends], minute


def test_without_a_budget_any_bad_burns_more_than_any_window_asks_for():
    series = filled([(0, 10**9)] * 59 + [(1, 10**9)])
    found = burn(series, level(1.0), SLO.windows, NOW)
    assert found.firing == SLO.windows and found.spent == MOST and set(found.rates.values()) == {MOST}


def test_where_nothing_is_judged_nothing_burns():
    for series in (Series(()), Series(("x",)), filled([(5, 5)])):
        found = burn(series, level(0.99), SLO.windows, NOW + 31 * _DAY)
        assert (set(found.rates.values()), found.spent, found.firing) == ({0.0}, 0.0, ())
    quiet = burn(filled([(5, 5), (0, 0), (0, 0), (0, 0)]), level(0.99), WINDOWS[:1], NOW)
    assert (quiet.rates, quiet.firing) == ({"3m": 0.0, "10m": 100.0}, ())


def test_every_window_has_its_rate_whatever_burns():
    names = {"5m", "30m", "1h", "2h", "6h", "1d", "3d"}
    assert set(burn(Series(()), level(0.99), SLO.windows, NOW).rates) == names
    assert set(burn(filled([(1, 1)]), level(0.99), SLO.windows, NOW).rates) == names


@pytest.mark.parametrize("sample, firing, is_", [
    (at_look("x", False, 1, 1.0, ""), (), State.broken), (at_look("x", False, 1, 1.0, ""), WINDOWS, State.broken),
    (at_look("x", True, 1, 1.0, ""), WINDOWS, State.burning), (at_look("x", True, 1, 1.0, ""), (), State.ok),
    (unknown("x", ""), WINDOWS[:1], State.burning), (unknown("x", ""), (), State.unknown),
    (Sample("x", 1, 2, True, None, ""), (), State.ok),
])
def test_the_state_is_the_worst_that_holds(sample, firing, is_):
    assert state(sample, Burn({}, 0.0, firing)) is is_


def test_minutes_that_nobody_judged_were_not_bad():
    series = Series(("x",))
    series.add("x", NOW, 0, 1)
    fresh = burn(series, Level("x", 0.999, Severity.page, by_time=True), SLO.windows, NOW)
    assert [w.name for w in fresh.firing] == ["1h"]  # one of 60 minutes is 16.7 times the budget, one of 360 is 2.8
    assert fresh.rates["6h"] == pytest.approx(1 / 360 / 0.001) and fresh.spent == pytest.approx(1 / 43.2)
