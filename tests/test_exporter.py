"""What is shown of a look, as a scrape reads it."""

import math
import re
import urllib.request
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from measurement.monitors.burn import burn, judged
from measurement.monitors.exporter import Exporter, Facts
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.series import Series
from measurement.monitors.slo import Severity, given

SLO = given(None)
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)
FULL = Facts(
    complete_until=NOW, watermark=NOW, heartbeat_age=1.5, generation=7, latency={"bigtable": [(0.5, 3), (60.0, 0), (math.inf, 2)]},
    outcomes={"counted": 9}, imbalance=4, completeness={"web": 0.5}, silent_publishers=1, probes={("bigtable", "found"): 2},
    alerts={("late", "1h"): Severity.ticket}, notices=3, unread=("ledger", "audits"))


@pytest.fixture
def exporter():
    return Exporter(clock=lambda: 1_000.0)


def scraped(exporter: Exporter) -> dict:
    """The families by name."""
    served = exporter.serve("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    served.close()
    return {family.name: family for family in parsed(text)}


def of(families: dict, name: str, **labels: str) -> float | None:
    """The one sample of a name and labels; None where there is none."""
    found = [s.value for family in families.values() for s in family.samples if s.name == name and s.labels == labels]
    assert len(found) < 2
    return found[0] if found else None


def looked(*samples: Sample) -> list:
    return [judged(level, sample, burn(Series(()), level, SLO.windows, 0)) for sample in samples for level in [SLO.levels[sample.level]]]


def test_all_that_is_found_is_shown_and_explained(exporter):
    exporter.show(NOW, looked(at_look("freshness", True, 1, 1200.0, ""), at_look("late", False, 1, 0.4, "")), FULL)
    found = scraped(exporter)
    for name, labels, value in [
        ("level_holds", {"level": "freshness"}, 1), ("level_holds", {"level": "late"}, 0), ("level_value", {"level": "freshness"}, 1200),
        ("level_paged", {"level": "freshness"}, 1), ("level_paged", {"level": "late"}, 0), ("level_target", {"level": "late"}, 0.99),
        ("burn_rate", {"level": "late", "window": "3d"}, 0), ("budget_spent_ratio", {"level": "late"}, 0),
        ("looked_timestamp_seconds", {}, 1000), ("clock_timestamp_seconds", {}, NOW.timestamp()),
        ("complete_until_timestamp_seconds", {}, NOW.timestamp()), ("watermark_timestamp_seconds", {}, NOW.timestamp()),
        ("heartbeat_age_seconds", {}, 1.5), ("generation", {}, 7),
        ("latency_seconds_bucket", {"sink": "bigtable", "le": "0.5"}, 3), ("latency_seconds_bucket", {"sink": "bigtable", "le": "60.0"}, 3),
        ("latency_seconds_bucket", {"sink": "bigtable", "le": "+Inf"}, 5), ("latency_seconds_count", {"sink": "bigtable"}, 5),
        ("events_total", {"outcome": "counted"}, 9), ("imbalance_events", {}, 4), ("completeness_ratio", {"source": "web"}, 0.5),
        ("silent_publishers", {}, 1), ("probes_total", {"sink": "bigtable", "result": "found"}, 2),
        ("alert_open", {"level": "late", "window": "1h", "severity": "ticket"}, 1), ("notices_waiting", {}, 3),
        ("reads_failed_total", {"what": "ledger"}, 1), ("reads_failed_total", {"what": "audits"}, 1),
    ]:
        assert of(found, f"measurement_{name}", **labels) == pytest.approx(value), name
    for family in found.values():
        assert family.samples, f"{family.name}: a metric that nothing of a full look is shown by"
        assert family.documentation[0].isupper() and family.documentation.endswith(".")
        assert re.fullmatch(r"measurement_[a-z_]+", family.name)


def test_what_is_judged_and_not_read_adds_up_over_looks(exporter):
    for good in (10, 7):
        exporter.show(NOW, looked(Sample("latency", good, 10, True, 1.0, "")), Facts(unread=("ledger",)))
    found = scraped(exporter)
    names = ("judged_total", "good_total")
    assert [of(found, f"measurement_{name}", level="latency") for name in names] == [20, 17]
    assert of(found, "measurement_reads_failed_total", what="ledger") == 2


def test_a_look_shows_nothing_of_the_one_before(exporter):
    exporter.show(NOW, looked(at_look("freshness", True, 1, 1200.0, "")), FULL)
    exporter.show(NOW, looked(unknown("freshness", "not read")), Facts())
    found = scraped(exporter)
    assert of(found, "measurement_level_holds", level="freshness") is of(found, "measurement_level_value", level="freshness") is None
    assert of(found, "measurement_level_target", level="freshness") == pytest.approx(0.999)
    for name in ("watermark_timestamp_seconds", "heartbeat_age_seconds", "alert_open", "probes", "events", "latency_seconds"):
        assert not found[f"measurement_{name}"].samples


def test_before_the_first_look_there_is_nothing(exporter):
    assert scraped(exporter) == {}


def test_a_port_that_is_taken_is_an_error(exporter):
    served = exporter.serve("127.0.0.1", 0)
    with pytest.raises(OSError):
        exporter.serve("127.0.0.1", served.port)
    served.close()


def test_a_histogram_without_its_last_bucket_is_refused(exporter):
    with pytest.raises(ValueError, match="the last bucket of 'bigtable' must be infinite"):
        exporter.show(NOW, [], Facts(latency={"bigtable": [(0.5, 3)]}))
