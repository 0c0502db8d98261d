"""A real Prometheus for tests, with the rules of config/prometheus and a scrape a second."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from measurement.local.emulators import Emulator

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "config" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "config" / "grafana" / "measurement.json"
WITHIN = 30.0  # seconds in which a scrape and an evaluation, of one second each, show what they should


class Prometheus:
    """``host``: its host:port."""

    def __init__(self, host: str):
        self.host = host

    def query(self, expr: str) -> list[dict]:
        """What an expression gives now: of each series its ``metric`` (labels) and ``value`` (time, text)."""
        result = self._get("query", query=expr)
        return result["result"] if result["resultType"] == "vector" else [{"metric": {}, "value": result["result"]}]

    def rules(self) -> list[dict]:
        """The rules that it loaded, with their ``health`` and, where that is bad, ``lastError``."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> set[tuple[str, str | None]]:
        """Name and level (None where it has none) of the alerts that fire."""
        return {(alert["labels"]["alertname"], alert["labels"].get("level")) for alert in self.firing()}

    def firing(self) -> list[dict]:
        """The alerts that fire, with ``labels`` and ``annotations``."""
        return [alert for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"]

    def _get(self, what: str, **params: str):
        answer = requests.get(f"http://{self.host}/api/v1/{what}", params=params, timeout=10).json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]


@contextmanager
def running(exporter_port: int, scratch: Path) -> Iterator[Prometheus]:
    """Scrapes the exporter at 127.0.0.1 each second and evaluates the rules as often, until left; its files are in ``scratch``."""
    config = scratch / "prometheus.yml"
    config.write_text(f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs: [{{job_name: measurement, static_configs: [{{targets: ["127.0.0.1:{exporter_port}"]}}]}}]
""")
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={scratch / 'prometheus'}",
               "--web.listen-address=127.0.0.1:{0}"]
    with Emulator("Prometheus", command, [_ready]) as process:
        yield Prometheus(process.host)


def program(name: str) -> str:
    """prometheus or promtool. Without it a test is skipped at a desk and fails in CI, where a skip would pass unseen."""
    found = shutil.which(name)
    if found is None:
        lack = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        lack(f"{name} is not there: apt-get install prometheus")
    return found


def until(holds: Callable[[], bool], seconds: float = WITHIN) -> bool:
    """Whether it holds within so many seconds; asked a few times each."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _ready(host: str) -> bool:
    try:
        return requests.get(f"http://{host}/-/ready", timeout=2).ok
    except requests.RequestException:
        return False
