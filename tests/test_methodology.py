"""The description of methodology says all that the rules, the tables and the policy hold, and what they hold now."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from measurement import rules
from measurement.columnar.decode import decode_lines
from measurement.columnar.judge import REASONS, judge
from measurement.model import attribution, events, policy, screening, tables
from measurement.model.bookings import LOADED
from measurement.model.policy import Policy, load
from measurement.model.views import VIEWS
from measurement.reporting.methodology import document, required, text
from measurement.rules.viewability import Viewability

ROOT = Path(__file__).resolve().parents[1]
OTHER = """
counting:
  dedup_horizon: 36h
  join_horizon: 5h
  allowed_lateness: 3m
  viewability: {display_percent: 61, display_ms: 1100, video_percent: 62, video_ms: 2200, audible_ms: 2300,
                large_display_percent: 31, large_display_pixels: 250123}
screening:
  networks: [centres.txt]
  listed: [proxies.txt]
  iab: {exclude: robots.txt, include: browsers.txt}
  rate: {per_user_hour: 501, per_ip_hour: 5001}
  consent: {required_in: [SE, DE], vendor: 77, purposes: [7, 9], otherwise: reject}
attribution:
  - default: {models: [linear, time_decay], half_life: 3d}
  - from: 2026-01-01T00:00:00Z
    default: {model: position_based, position_weights: [0.5, 0.125, 0.375], priority: none}
    advertisers: {adv-7: {click_lookback: 11d, view_lookback: 13h}}
"""


@pytest.fixture
def other(tmp_path) -> Path:
    """A policy of which nothing is as it is by default."""
    (tmp_path / "centres.txt").write_text("# version: 7\n# date: 2026-11-01\n192.0.2.0/24\n2001:db8::/32\n")
    (tmp_path / "proxies.txt").write_text("198.51.100.7\n")
    (tmp_path / "robots.txt").write_text("somebot|1||1|2|0\n")
    (tmp_path / "browsers.txt").write_text("mozilla|1|1\n")
    path = tmp_path / "policy.yaml"
    path.write_text(OTHER)
    return path


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "measurement.cli", "methodology", *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)


def flat(markdown: str) -> str:
    """Without the line breaks of paragraphs."""
    return " ".join(markdown.split())


def section(markdown: str, heading: str) -> str:
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", markdown, re.M | re.S)[1]


def test_the_committed_document_is_what_the_rules_say():
    assert (ROOT / "docs" / "methodology.md").read_text() == document(), "run `make docs`"


def test_everything_that_can_be_counted_is_there_in_its_order():
    said = text(Policy())
    def places(names, where):
        return [where.index(f"| `{name}` |") for name in names]
    counting, invalid, metrics = (section(said, heading) for heading in ("Counting", "Invalid traffic", "Metrics"))
    for names, where in ((events.OUTCOMES, counting), (events.INVALID_REASONS[1:], invalid), (events.COUNTS, metrics),
                         (events.EVENT_TYPES, said), (events.FIELDS, said)):
        assert places(names, where) == sorted(places(names, where))
    for model in attribution.MODELS:
        assert f"| `{model}` |" in section(said, "Attribution")
    reporting = section(said, "Reporting")
    for name, table in {**tables.TABLES, **LOADED, **VIEWS}.items():
        part = re.search(rf"^### {name}\n(.*?)(?=^### |\Z)", reporting, re.M | re.S)[1]
        assert flat(table.description) in flat(part)
        for column in table.columns:
            assert f"| `{column.name}` | {column.type}" in part and flat(column.description) in flat(part)


def test_every_key_of_a_policy_is_there():
    said = text(Policy())
    keys = {key for known in (policy._KNOWN, screening._KNOWN) for below in known.values() for key in below}
    keys |= attribution._KEYS | set(Viewability._fields)
    for key in keys - {"counting", "viewability", "attribution", "screening", "iab", "rate", "consent"}:
        assert re.search(rf"`(\w+\.)?{key}`", said), key
    for group in ("`counting.`", "`counting.viewability.`", "`screening.`", "`screening.consent.`"):
        assert f"Policy key {group}" in said


def test_the_fields_that_a_type_must_have_are_those_that_it_is_refused_without():
    whole = {"event_time": 1} | dict.fromkeys(("event_id", "advertiser_id", "campaign_id", "impression_id"), "x")
    for event_type in events.EVENT_TYPES:
        def missing(*without, event_type=event_type):
            event = {**whole, "event_type": event_type}
            decoded = decode_lines([json.dumps({k: v for k, v in event.items() if k not in without}).encode()])
            judged = judge(decoded.buf, decoded.values, decoded.lengths, np.array([1]), Viewability())
            return REASONS[judged["reason"][0]] == "missing_field"
        assert not missing()
        assert {name for name in (*whole, "event_type") if missing(name)} == set(required(event_type))


def test_every_rule_cites_its_guideline():
    said = flat(text(Policy()))
    for module in pkgutil.iter_modules(rules.__path__):
        doc = flat(importlib.import_module(f"measurement.rules.{module.name}").__doc__)
        cited = re.findall(r"(?:MRC|IAB(?: Tech Lab| Europe)?)[ ,][^.:;()]+|\"[^\"]+\"|RFC \d+", doc)
        assert cited, module.name
        for citation in cited:
            assert citation in said


def test_another_policy_gives_another_text(other):
    rules_of = load(other)
    said, usual = text(rules_of, rules_of.screening.lists), text(Policy(), Policy().screening.lists)
    for figure in (
        "36h", "5h", "3m", "61 %", "1,100 ms", "62 %", "2,200 ms", "2,300 ms", "31 %", "250,123 px", "centres.txt", "proxies.txt",
        "robots.txt", "browsers.txt", "| 501 |", "| 5,001 |", "DE, SE", "| 77 |", "7, 9", "| reject |", "| linear, time_decay |",
        "3d", "0.5, 0.125, 0.375", "from 2026-01-01T00:00:00Z", "adv-7", "11d", "13h",
    ):
        assert figure in said and figure not in usual, figure
    assert "| centres.txt | datacentre | 7 | 2026-11-01 | 2 |" in said
    assert all(found.stamp in flat(said) for found in rules_of.screening.lists)


def test_without_its_lists_it_hangs_on_no_release_of_theirs(other):
    for rules_of in (Policy(), load(other)):
        said = text(rules_of)
        for found in rules_of.screening.lists:
            assert found.name in said and found.checksum not in said
            assert found.version is None or f"@{found.version}" not in said


def test_the_command_prints_it_with_the_lists_in_force(other):
    for arguments, rules_of in (((), Policy()), (("--policy", other), load(other))):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == text(rules_of, rules_of.screening.lists)


@pytest.mark.parametrize("content, says", [
    ("counting: {dedup_horizon: soon}", "counting.dedup_horizon: 'soon' is no duration"),
    ("screening: {networks: [gone.txt]}", "gone.txt: No such file"),
    (None, "policy.yaml: No such file"),
])
def test_a_wrong_policy_is_one_line_and_exit_2(content, says, tmp_path):
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_text(content)
    done = command("--policy", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("measurement: ") and says in done.stderr
