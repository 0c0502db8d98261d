"""The Grafana dashboard, in Grafana's classic model, which every release imports.

``python -m measurement.monitors.dashboard [SLO_FILE]`` prints config/grafana/measurement.json, or that of windows of one's own. The
data source and the monitor whose metrics are shown are variables.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from measurement.monitors.slo import Slo, given

SCHEMA = 42  # of Grafana 12.2; older ones read it as it is, newer ones migrate it
WIDTH = 24  # of Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_OF = 'instance=~"$instance"'
_RATE = "[$__rate_interval]"
_KEPT = {"type": "value", "options": {"0": {"text": "broken", "color": "red"}, "1": {"text": "kept", "color": "green"}}}


def document(slo: Slo) -> str:
    """The dashboard as JSON."""
    dashboard = {
        "uid": "measurement", "title": "Ad measurement: service levels", "tags": ["measurement"], "schemaVersion": SCHEMA, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "1m", "timezone": "utc", "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": []}, "links": [], "templating": {"list": _variables()}, "panels": _laid_out(_rows(slo)),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _rows(slo: Slo) -> list[tuple[str, list[dict]]]:
    buckets = f"sum by (sink, le) (rate({_metric('latency_seconds_bucket')}{_RATE}))"
    quantiles = [(f"histogram_quantile({q}, {buckets})", f"{{{{sink}}}} p{q * 100:g}") for q in (0.5, 0.99, 0.999)]
    clock = _metric("clock_timestamp_seconds")
    share_bad = f"1 - rate({_metric('good_total')}{_RATE}) / rate({_metric('judged_total')}{_RATE})"
    historic = _metric("level_value", 'level=~"duplicates|late|restated|invalid|unjoined|rejected_.*"')
    return [
        ("Levels", [
            _panel("stat", "Levels at the last look", 24, 5, [(_metric("level_holds"), "{{level}}")], mappings=[_KEPT]),
            _panel("bargauge", "Budget of 30 days that is gone", 12, 9, [(_metric("budget_spent_ratio"), "{{level}}")], "percentunit",
                   steps=((None, "green"), (0.5, "orange"), (1, "red")), min=0, max=1),
            _panel("table", "Alerts that are open", 12, 9, [(_metric("alert_open"), "{{level}} {{window}} {{severity}}")], instant=True)]),
        ("Freshness", [
            _panel("timeseries", "Behind the clock", 12, 8, [
                (f"{clock} - {_metric('complete_until_timestamp_seconds')}", "hours are complete"),
                (f"{clock} - {_metric('watermark_timestamp_seconds')}", "watermark")], "s", min=0),
            _panel("timeseries", "Job: last heard", 6, 8, [(_metric("heartbeat_age_seconds"), "ago")], "s", min=0),
            _panel("stat", "Generation", 6, 8, [(_metric("generation"), "generation")])]),
        ("Latency", [
            _panel("timeseries", "From receipt until it can be read", 16, 8, quantiles, "s", min=0),
            _panel("timeseries", "Events that could be read", 8, 8,
                   [(f"sum by (sink) (rate({_metric('latency_seconds_count')}{_RATE}))", "{{sink}}")], "eps", min=0)]),
        ("Burn rates", [
            _panel("timeseries", f"Over {w.name}: an alert from {w.burn:g}", WIDTH // 2, 8,
                   [(_metric("burn_rate", f'window="{w.name}"'), "{{level}}")], steps=((None, "green"), (w.burn, "red")), min=0)
            for w in slo.windows] + [
            _panel("timeseries", "Not as promised, of what was judged", WIDTH, 8, [(share_bad, "{{level}}")], "percentunit", min=0)]),
        ("Completeness and correctness", [
            _panel("timeseries", "Arrived, of what publishers say they sent", 12, 8,
                   [(_metric("completeness_ratio"), "{{source}}")], "percentunit"),
            _panel("timeseries", "Publishers that are silent", 6, 8, [(_metric("silent_publishers"), "publishers")], min=0),
            _panel("timeseries", "Out of balance", 6, 8, [(_metric("imbalance_events"), "events")], min=0)]),
        ("Outcomes", [
            _panel("timeseries", "Events by outcome", 12, 8,
                   [(f"rate({_metric('events_total')}{_RATE})", "{{outcome}}")], "eps", min=0),
            _panel("timeseries", "Levels that are judged by their history", 12, 8, [(historic, "{{level}}")], "percentunit", min=0)]),
        ("Probes", [
            _panel("timeseries", "Probes by where they were looked for, and what was found", WIDTH, 8,
                   [(f"increase({_metric('probes_total')}{_RATE})", "{{sink}} {{result}}")], min=0)]),
        ("The monitor itself", [
            _panel("timeseries", "Since it looked", 8, 6,
                   [(f"time() - {_metric('looked_timestamp_seconds')}", "{{instance}}")], "s", min=0),
            _panel("timeseries", "Readings that failed", 8, 6,
                   [(f"increase({_metric('reads_failed_total')}{_RATE})", "{{what}}")], min=0),
            _panel("timeseries", "Notices that nobody has taken yet", 8, 6, [(_metric("notices_waiting"), "notices")], min=0)]),
    ]


def _metric(name: str, *labels: str) -> str:
    return f"measurement_{name}{{{','.join((_OF, *labels))}}}"


def _panel(kind: str, title: str, width: int, height: int, targets: Iterable[tuple[str, str]], unit: str = "none", instant: bool = False,
           steps: tuple = ((None, "green"),), mappings: Iterable[dict] = (), **limits: int) -> dict:
    """``targets``: each an expression and what its series are called. ``limits``: min and max of the axis."""
    defaults = {"unit": unit, "mappings": list(mappings), **limits,
                "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}}
    if kind == "timeseries" and len(steps) > 1:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "type": kind, "title": title, "datasource": _SOURCE, "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": {},
        "targets": [{"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expr, "legendFormat": legend,
                     **({"instant": True, "format": "table"} if instant else {})} for i, (expr, legend) in enumerate(targets)],
    }


def _laid_out(rows: list[tuple[str, list[dict]]]) -> list[dict]:
    """The panels with ids and places, each row's under its title and from left to right."""
    placed, y = [], 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y, below = 0, y + 1, y + 1
        for panel in panels:
            if x + panel["gridPos"]["w"] > WIDTH:
                x, y = 0, below
            panel["gridPos"] |= {"x": x, "y": y}
            x, below = x + panel["gridPos"]["w"], max(below, y + panel["gridPos"]["h"])
            placed.append(panel)
        y = below
    return [{"id": i, **panel} for i, panel in enumerate(placed, 1)]


def _variables() -> list[dict]:
    query = "label_values(measurement_looked_timestamp_seconds, instance)"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        {"name": "instance", "label": "Monitor", "type": "query", "datasource": _SOURCE, "definition": query, "refresh": 2, "sort": 1,
         "query": {"query": query, "refId": "instances"}, "includeAll": True, "allValue": ".*"},
    ]


if __name__ == "__main__":
    print(document(given(Path(sys.argv[1]) if sys.argv[1:] else None)), end="")
