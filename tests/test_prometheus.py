"""The rules and the dashboard against a real Prometheus that scrapes a real exporter."""

import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prometheus import DASHBOARD, ROOT, RULES, program, running, until

from measurement.model.policy_file import duration_text
from measurement.monitors import dashboard, prometheus_rules
from measurement.monitors.alerts import Alerts
from measurement.monitors.burn import Judged, burn, judged
from measurement.monitors.exporter import Exporter, Facts
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.series import MINUTE, Series
from measurement.monitors.slo import Severity, given

SLO = given(None)
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)
FACTS = Facts(
    complete_until=NOW - timedelta(minutes=40), watermark=NOW - timedelta(seconds=10), heartbeat_age=2.0, generation=3,
    latency={sink: [(1.0, 90), (60.0, 9), (math.inf, 1)] for sink in ("bigquery", "bigtable")}, outcomes={"counted": 90, "duplicate": 10},
    imbalance=0, completeness={"web": 1.0}, silent_publishers=0, probes={("bigtable", "found"): 3, ("bigquery", "missing"): 1},
    alerts={("freshness", "1h"): Severity.page}, notices=0, unread=("audits",))
_WATCHDOG = ("MeasurementWatchdog", None)


class Watched:
    """A monitor without a pipeline: looks of which the test says how they were, shown by a real exporter."""

    def __init__(self):
        self.exporter = Exporter()
        self.alerts = Alerts("job", "--out DIR", SLO.levels, SLO.windows)
        self._series = Series(tuple(SLO.levels))
        self._now = NOW
        for level in SLO.levels:
            for minute in range(3 * 24 * 60):  # what the longest window sees
                self._series.add(level, self._micros() - minute * MINUTE, 1, 1)

    def looks(self, minutes: int, broken: tuple[str, ...] = (), facts: Facts = FACTS) -> None:
        """One a minute, the last of which is shown."""
        for _ in range(minutes):
            self._now += timedelta(minutes=1)
            found = [self._judged(at_look(name, name not in broken, 1, 1.0, "as it is")) for name in SLO.levels]
            self.alerts.update(self._micros(), found)
        self.exporter.show(self._now, found, facts)

    def open(self) -> set[tuple[str, str]]:
        """The monitor's own alerts by the names that Prometheus has for them."""
        return {(f"MeasurementBudgetBurn{window}", level) for level, (windows, _) in self.alerts.open().items() for window in windows}

    def _judged(self, sample: Sample) -> Judged:
        self._series.add(sample.level, self._micros(), sample.good, sample.total)
        level = SLO.levels[sample.level]
        return judged(level, sample, burn(self._series, level, SLO.windows, self._micros()))

    def _micros(self) -> int:
        return round(self._now.timestamp() * 1_000_000)


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def prometheus(watched, tmp_path):
    served = watched.exporter.serve("127.0.0.1", 0)
    with running(served.port, tmp_path) as found:
        yield found
    served.close()


def selectors(expr: str) -> list[str]:
    return re.findall(r"\b(?:measurement_\w+|up)(?:\{[^}]*\})?", expr)


def labels_named(*texts: str) -> set[str]:
    """Labels by which an expression groups or matches, and those that a text shows."""
    found = set()
    for text in texts:
        for names in re.findall(r"\b(?:by|on|ignoring|without) \(([^)]*)\)", text):
            found |= set(re.split(r",\s*", names))
        found |= set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{(\w+)\}\}", text))
    return found


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments) -> str:
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path, made", [(RULES, prometheus_rules), (DASHBOARD, dashboard)])
def test_the_committed_files_are_what_the_levels_say(path, made):
    assert path.read_text() == made.document(SLO), "run `make docs`"
    printed = subprocess.run([sys.executable, "-m", made.__name__], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert printed.stdout == path.read_text()


def test_each_window_has_its_rule_by_its_own_numbers():
    for window in SLO.windows:
        found = [rule for rule in rules() if rule["alert"] == f"MeasurementBudgetBurn{window.name}"]
        assert {rule["labels"]["severity"] for rule in found} == ({"page", "ticket"} if window.severity is Severity.page else {"ticket"})
        for rule in found:
            asked = re.findall(r'measurement_burn_rate\{window="(\w+)"\} >= (\S+)', rule["expr"])
            assert [(name, float(rate)) for name, rate in asked] == [(window.name, window.burn), (duration_text(window.short), window.burn)]


def test_windows_of_ones_own_have_rules_of_their_own(tmp_path):
    (tmp_path / "slo.yaml").write_text("windows: [{burn: 2.5, long: 7h, short: 20m, severity: ticket}]\n")
    slo = given(tmp_path / "slo.yaml")
    (tmp_path / "rules.yml").write_text(prometheus_rules.document(slo))
    promtool("check", "rules", tmp_path / "rules.yml")
    assert 'measurement_burn_rate{window="7h"} >= 2.5' in (tmp_path / "rules.yml").read_text()
    assert 'window=\\"7h\\"' in dashboard.document(slo)


def test_prometheus_takes_the_rules_and_the_example_and_fires_as_they_are_meant():
    assert f"{len(rules())} rules found" in promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", "tests.yml")


def test_the_dashboard_is_whole():
    found = json.loads(DASHBOARD.read_text())
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= dashboard.WIDTH and not cells & taken
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "instance"]


def test_every_metric_and_label_that_rules_and_dashboard_name_is_there(watched, prometheus):
    watched.looks(1)
    assert until(lambda: prometheus.query("measurement_generation")), "not scraped"
    for rule in rules():
        texts = (rule["expr"], *rule["annotations"].values())
        there = {label for selector in selectors(rule["expr"]) for series in prometheus.query(selector) for label in series["metric"]}
        for selector in (s for text in texts for s in selectors(re.sub(r"\{level='%s'[^}]*\}", "", text))):
            assert prometheus.query(selector), (rule["alert"], selector)
        assert labels_named(*texts) <= there, rule["alert"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "30s")
            assert until(lambda expr=expr: prometheus.query(expr)), (panel["title"], expr)
            found = {label for series in prometheus.query(expr) for label in series["metric"]}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= found, (panel["title"], expr)
    assert [rule["name"] for rule in prometheus.rules()] == [rule["alert"] for rule in rules()]
    assert until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}), prometheus.rules()


def test_a_fault_makes_its_rule_fire_and_no_other_and_its_end_ends_it(watched, prometheus):
    watched.looks(1)
    assert until(lambda: prometheus.alerts() == {_WATCHDOG}), prometheus.alerts()

    watched.looks(2, broken=("freshness",))  # 3 % of an hour, of a budget of 0.1 %; too little for six hours
    assert watched.open() == {("MeasurementBudgetBurn1h", "freshness")}
    assert until(lambda: prometheus.alerts() == {_WATCHDOG, *watched.open()}), prometheus.alerts()
    [alert] = [a for a in prometheus.firing() if a["labels"]["alertname"] != "MeasurementWatchdog"]
    assert (alert["labels"]["severity"], alert["annotations"]["runbook"]) == ("page", "docs/runbooks/freshness.md")
    assert alert["annotations"]["budget_spent"].endswith("%") and alert["annotations"]["summary"].startswith("freshness burns")

    watched.looks(9, broken=("late", "rejected_future"))  # 15 %, of a budget of 1 %; freshness is well again for five minutes
    assert watched.open() == {("MeasurementBudgetBurn1h", "late"), ("MeasurementBudgetBurn1h", "rejected_future")}
    assert until(lambda: prometheus.alerts() == {_WATCHDOG, *watched.open()}), prometheus.alerts()
    loud = {a["labels"].get("level"): a["labels"]["severity"] for a in prometheus.firing()}
    assert loud == {None: "none", "late": "ticket", "rejected_future": "page"}

    watched.looks(5, facts=Facts(heartbeat_age=301.0))
    assert watched.open() == set()
    assert until(lambda: prometheus.alerts() == {_WATCHDOG, ("MeasurementJobSilent", None)}), prometheus.alerts()
    watched.looks(1)
    assert until(lambda: prometheus.alerts() == {_WATCHDOG}), prometheus.alerts()


def test_what_cannot_be_told_is_absent_and_not_what_it_was(watched, prometheus):
    watched.looks(1)
    assert until(lambda: prometheus.query('measurement_level_holds{level="freshness"}'))
    assert until(lambda: prometheus.query("measurement_watermark_timestamp_seconds"))
    nothing = burn(Series(()), SLO.levels["freshness"], SLO.windows, 0)
    watched.exporter.show(NOW, [judged(level, unknown(name, "not read"), nothing) for name, level in SLO.levels.items()], Facts())
    assert until(lambda: not prometheus.query('{__name__=~"measurement_level_holds|measurement_watermark_timestamp_seconds"}'))
    assert len(prometheus.query("measurement_level_target")) == len(SLO.levels)
