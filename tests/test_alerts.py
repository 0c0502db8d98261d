"""Which alerts open and end as levels are judged look by look, and what they say."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from measurement.monitors.alerts import COMMANDS, KEY_MOST, Action, Alerts, command, runbook
from measurement.monitors.burn import Burn, Judged, judged
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Severity, given as slo_of

SLO = slo_of(None)
NOW = 1_772_431_200_000_000  # 2026-03-02T06:00:00Z
MINUTE = 60_000_000
AT = datetime(2026, 3, 2, 6, tzinfo=UTC)


def alerts(job: str = "projects/p/subscriptions/s") -> Alerts:
    return Alerts(job, "--profile gcp --bigquery p.ads", SLO.levels, SLO.windows)


def of(level: str, *windows: str, sample: Sample | None = None, spent: float = 0.25) -> Judged:
    """A level of which these windows fire."""
    sample = sample or at_look(level, not windows, 1, 1.5, "as it is")
    return judged(SLO.levels[level], sample, Burn({"1h": 20.0}, spent, tuple(w for w in SLO.windows if w.name in windows)))


def told(notices) -> list[tuple[str, str, str]]:
    return [(str(n.action), n.alert.level, n.alert.window) for n in notices]


def test_each_level_and_window_is_told_once_and_its_end_once():
    ours = alerts()
    looks = [
        ((), []), (("1h",), [("trigger", "1h")]), (("1h",), []), (("1h", "6h"), [("trigger", "6h")]), (("6h",), [("resolve", "1h")]),
        (("6h",), []), ((), [("resolve", "6h")]), ((), []), (("1h",), [("trigger", "1h")])]
    for i, (firing, expected) in enumerate(looks):
        found = told(ours.update(NOW + i * MINUTE, [of("freshness", *firing), of("latency")]))
        assert found == [(action, "freshness", window) for action, window in expected], i


def test_a_level_that_cannot_be_told_keeps_its_alerts_as_the_windows_say():
    ours = alerts()
    ours.update(NOW, [of("freshness", "1h")])
    assert ours.update(NOW + MINUTE, [of("freshness", "1h", sample=unknown("freshness", "not read"))]) == []
    assert ours.update(NOW + 2 * MINUTE, []) == []  # not judged at all
    over = ours.update(NOW + 3 * MINUTE, [of("freshness", sample=unknown("freshness", "not read"))])
    assert told(over) == [("resolve", "freshness", "1h")]


def test_an_alert_says_what_since_when_how_much_who_and_what_to_run():
    hours = (AT - timedelta(hours=2), AT - timedelta(hours=1))
    sample = Sample("completeness", 90, 100, False, 0.9, "web: 90 of 100\nevents arrived", AT - timedelta(hours=1), ("adv-1", "adv-2"), hours)
    [notice] = alerts().update(NOW, [of("completeness", "1h", sample=sample, spent=0.123)])
    alert = notice.alert
    assert (notice.action, alert.severity, alert.since, alert.value, alert.target, alert.spent) == (
        Action.trigger, Severity.page, NOW - 60 * MINUTE, 0.9, SLO.levels["completeness"].target, 0.123)
    assert alert.summary == "completeness is broken (1h): web: 90 of 100 events arrived; 12.3% of the budget of 30 days is gone"
    assert (alert.advertisers, alert.hours, alert.rates) == (("adv-1", "adv-2"), hours, {"1h": 20.0})
    assert (alert.runbook, alert.command) == ("docs/runbooks/completeness.md", "measurement status --profile gcp --bigquery p.ads")
    assert alert.key == "measurement/projects/p/subscriptions/s/completeness/1h"


def test_a_level_without_a_budget_says_so():
    [notice] = alerts().update(NOW, [of("correctness", "1h", spent=1e6)])
    assert notice.alert.summary.endswith("; it has no budget")


def test_since_is_the_first_of_the_looks_that_found_it_broken():
    ours = alerts()
    broken = at_look("latency", False, 1, 90.0, "slow")
    ours.update(NOW, [of("latency", sample=broken)])
    ours.update(NOW + MINUTE, [of("latency")])  # well between
    ours.update(NOW + 2 * MINUTE, [of("latency", sample=broken)])
    ours.update(NOW + 3 * MINUTE, [of("latency", sample=unknown("latency", "not read"))])
    [notice] = ours.update(NOW + 4 * MINUTE, [of("latency", "1h", sample=broken)])
    assert notice.alert.since == NOW + 2 * MINUTE
    assert ours.open() == {"latency": (("1h",), NOW + 2 * MINUTE)}
    [notice] = ours.update(NOW + 5 * MINUTE, [of("latency")])
    assert (notice.action, notice.alert.since) == (Action.resolve, NOW + 2 * MINUTE)
    assert "burns its budget no more" in notice.alert.summary


@pytest.mark.parametrize("level, window, severity", [
    ("freshness", "1h", "page"), ("freshness", "1d", "ticket"), ("late", "1h", "ticket"), ("late", "3d", "ticket")])
def test_an_alert_is_no_louder_than_its_level_and_its_window(level, window, severity):
    ours = alerts()
    [notice] = ours.update(NOW, [of(level, window)])
    assert notice.alert.severity == severity and ours.severities() == {(level, window): severity}


def test_a_successor_tells_only_what_is_new_and_what_is_over():
    first, second = alerts(), alerts()
    first.update(NOW, [of("freshness", "1h", "6h"), of("probe", "1h")])
    second.restore(first.open())
    notices = second.update(NOW + 60 * MINUTE, [of("freshness", "6h", "1d"), of("probe", "1h")])
    assert told(notices) == [("resolve", "freshness", "1h"), ("trigger", "freshness", "1d")]
    assert notices[0].alert.since == NOW


def test_what_is_no_longer_watched_is_ended():
    ours = alerts()
    ours.restore({"older_level": (("1h",), NOW), "freshness": (("2h", "1h"), NOW)})
    notices = ours.update(NOW + MINUTE, [of("freshness", "1h")])
    assert told(notices) == [("resolve", "older_level", "1h"), ("resolve", "freshness", "2h")]
    assert ours.open() == {"freshness": (("1h",), NOW)} and ours.update(NOW + 2 * MINUTE, [of("freshness", "1h")]) == []


@given(st.text(max_size=400))
def test_a_key_is_never_too_long_and_never_two_alerts(job):
    notices = alerts(job).update(NOW, [of(name, *(w.name for w in SLO.windows)) for name in SLO.levels])
    keys = {n.alert.key for n in notices}
    assert len(keys) == len(notices) == len(SLO.levels) * len(SLO.windows) and max(map(len, keys)) <= KEY_MOST


_LEVELS = ("freshness", "late", "rejected_orphan")
_firing = st.dictionaries(st.sampled_from(_LEVELS), st.sets(st.sampled_from([w.name for w in SLO.windows])))
_looks = st.lists(st.tuples(_firing, st.booleans()), max_size=20)


@given(_looks)
def test_whatever_fires_and_however_often_the_monitor_restarts_what_was_told_is_what_is_open(looks):
    ours, told_open, firing = alerts(), set(), {}
    for i, (found, restarts) in enumerate(looks):
        if restarts:
            before, ours = ours, alerts()
            ours.restore(before.open())
        firing |= found
        for notice in ours.update(NOW + i * MINUTE, [of(level, *windows) for level, windows in found.items()]):
            key = notice.alert.level, notice.alert.window
            assert (notice.action is Action.trigger) == (key not in told_open)
            told_open ^= {key}
        assert told_open == {(level, window) for level, windows in firing.items() for window in windows} == set(ours.severities())


def test_every_level_has_a_command_and_a_page():
    for level in SLO.levels:
        assert command(level, "--out DIR").startswith("measurement ") and command(level, "--out DIR").endswith(" --out DIR")
    assert {runbook(level).removeprefix("docs/runbooks/").removesuffix(".md") for level in SLO.levels} == set(COMMANDS) - {"monitor"}
