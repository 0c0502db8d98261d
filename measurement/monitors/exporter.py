"""The service levels and what they are judged by, as metrics that Prometheus scrapes.

Names by Prometheus's conventions: base units, ``_total`` for what only rises. Each look replaces what is shown as a whole, so that
a scrape never sees half of one, and what a look does not find is absent and not what it was before. Who makes metrics or labels of
these is config/prometheus/rules.yml and config/grafana/measurement.json; a test holds every name in them against a real scrape.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from measurement.monitors.burn import Judged
from measurement.monitors.slo import Severity


# Each metric: what it says, and its labels.
METRICS = {
    "measurement_level_holds": ("Whether the service level is kept at the last look: 1, or 0. Absent where it cannot be told.", "level"),
    "measurement_level_value": ("The level's figure in its own unit: seconds, events, or a share of 1.", "level"),
    "measurement_level_target": ("The share of what is judged that must be as promised over 30 days, 1 for all.", "level"),
    "measurement_level_paged": ("Whether the level may wake somebody: 1; 0 where its alerts are tickets at most.", "level"),
    "measurement_burn_rate": (
        "How many times as fast as 30 days allow the level's error budget goes, over the window.", "level", "window"),
    "measurement_budget_spent_ratio": (
        "The share of the level's error budget of 30 days that is gone; above 1 the promise is broken.", "level"),
    "measurement_judged_total": ("Things judged for the level: events, minutes or probes.", "level"),
    "measurement_good_total": ("Of the things judged those that were as promised.", "level"),
    "measurement_reads_failed_total": ("Readings of the pipeline's tables that failed.", "what"),
    "measurement_looked_timestamp_seconds": ("When the monitor last completed a look, by the machine's clock.",),
    "measurement_clock_timestamp_seconds": ("When the monitor last completed a look, by the clock it goes by.",),
    "measurement_alert_open": ("Alerts that are open: 1.", "level", "window", "severity"),
    "measurement_notices_waiting": ("Notices of alerts that no receiver has taken yet.",),
    "measurement_complete_until_timestamp_seconds": ("The time before which every hour is closed.",),
    "measurement_watermark_timestamp_seconds": ("The event time up to which the pipeline expects nothing more in time.",),
    "measurement_heartbeat_age_seconds": ("How long ago the job was last heard.",),
    "measurement_generation": ("The job's generation: one more for each launch without the last one's state.",),
    "measurement_latency_seconds": ("From an event's receipt until what counts it could be read.", "sink"),
    "measurement_events_total": ("Events by what became of them.", "outcome"),
    "measurement_imbalance_events": ("Events by which the ledger differs from what was counted elsewhere; it must be 0.",),
    "measurement_completeness_ratio": ("Of the events that a source's publishers say they sent, the share that arrived.", "source"),
    "measurement_silent_publishers": ("Publishers that have stopped without saying that they end.",),
    "measurement_probes_total": ("Probes by where they were looked for and what was found.", "sink", "result"),
}


@dataclass(frozen=True)
class Facts:
    """What a look found beside the levels. Whatever is None or left out is not shown.

    Counts are since the monitor's start. ``latency``: by sink, of each bucket its upper bound (seconds, the last infinite) and the
    events in it and in none below. ``outcomes``: events by outcome. ``imbalance``: events by which ledger and tables differ.
    ``completeness``: by source, arrived of what was said to be sent, 1 for all. ``probes``: by sink and result. ``alerts``: those
    open, by level and window (Alerts.severities). ``notices``: how many wait to be told. ``unread``: what could not be read at this look.
    """

    complete_until: datetime | None = None
    watermark: datetime | None = None
    heartbeat_age: float | None = None  # seconds
    generation: int | None = None
    latency: Mapping[str, list[tuple[float, int]]] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    imbalance: int | None = None
    completeness: Mapping[str, float] = field(default_factory=dict)
    silent_publishers: int | None = None
    probes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    alerts: Mapping[tuple[str, str], Severity] = field(default_factory=dict)
    notices: int | None = None
    unread: Iterable[str] = ()


class Exporter(Collector):
    """``clock``: seconds since 1970 by the real clock, whatever clock the monitor goes by."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._judged: Counter[str] = Counter()
        self._good: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._families: tuple[Metric, ...] = ()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield from self._families

    def show(self, at: datetime, judged: list[Judged], facts: Facts) -> None:
        """Shows a look that was made at ``at`` by the monitor's clock."""
        for of in judged:
            self._judged[of.level.name] += of.sample.total
            self._good[of.level.name] += of.sample.good
        self._unread.update(facts.unread)
        looks = {
            "measurement_judged_total": self._judged, "measurement_good_total": self._good, "measurement_reads_failed_total": self._unread,
            "measurement_looked_timestamp_seconds": {(): self._clock()}, "measurement_clock_timestamp_seconds": {(): at.timestamp()},
        }
        self._families = tuple(_family(name, values) for name, values in (_levels(judged) | looks | _facts(facts)).items())

    def serve(self, host: str, port: int) -> "Served":
        """Answers scrapes until closed; port 0 picks one. OSError where the address cannot be had."""
        server, _ = start_http_server(port, host, registry=self.registry)
        return Served(server)

class Served:
    """A server of metrics, and its ``port``."""

    def __init__(self, server: WSGIServer):
        self._server = server
        self.port: int = server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _levels(judged: list[Judged]) -> dict[str, Mapping]:
    by = {of.level.name: of for of in judged}
    return {
        "measurement_level_holds": {name: of.sample.holds for name, of in by.items()},
        "measurement_level_value": {name: of.sample.value for name, of in by.items()},
        "measurement_level_target": {name: of.level.target for name, of in by.items()},
        "measurement_level_paged": {name: of.level.severity is Severity.page for name, of in by.items()},
        "measurement_burn_rate": {(name, window): rate for name, of in by.items() for window, rate in of.burn.rates.items()},
        "measurement_budget_spent_ratio": {name: of.burn.spent for name, of in by.items()},
    }


def _facts(facts: Facts) -> dict[str, Mapping]:
    return {
        "measurement_alert_open": {(level, window, str(severity)): 1 for (level, window), severity in facts.alerts.items()},
        "measurement_notices_waiting": {(): facts.notices},
        "measurement_complete_until_timestamp_seconds": {(): facts.complete_until and facts.complete_until.timestamp()},
        "measurement_watermark_timestamp_seconds": {(): facts.watermark and facts.watermark.timestamp()},
        "measurement_heartbeat_age_seconds": {(): facts.heartbeat_age},
        "measurement_generation": {(): facts.generation},
        "measurement_latency_seconds": facts.latency,
        "measurement_events_total": facts.outcomes,
        "measurement_imbalance_events": {(): facts.imbalance},
        "measurement_completeness_ratio": facts.completeness,
        "measurement_silent_publishers": {(): facts.silent_publishers},
        "measurement_probes_total": facts.probes,
    }


def _family(name: str, values: Mapping) -> Metric:
    """``values`` by their label's value, or by those of several labels; those that are None are left out."""
    says, *labels = METRICS[name]
    if name == "measurement_latency_seconds":
        return _histogram(name, says, labels, values)
    family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, says, labels=labels)
    for key, value in values.items():
        if value is not None:
            family.add_metric(key if isinstance(key, tuple) else (key,), float(value))
    return family


def _histogram(name: str, says: str, labels: list[str], values: Mapping[str, list[tuple[float, int]]]) -> Metric:
    """Prometheus's buckets are cumulative. There is no sum: buckets are all that is known."""
    family = HistogramMetricFamily(name, says, labels=labels)
    for key, buckets in values.items():
        if not buckets or buckets[-1][0] != math.inf:
            raise ValueError(f"{name}: the last bucket of {key!r} must be infinite")
        events, cumulative = 0, []
        for bound, count in buckets:
            events += count
            cumulative.append((floatToGoString(bound), events))
        family.add_metric((key,), cumulative, None)
        family.add_sample(f"{name}_count", {labels[0]: key}, events)
    return family
