"""The runbooks: one for each alert, of one form, with commands and queries that work."""

import re
import subprocess
import sys

import duckdb
import pytest
import yaml
from prometheus import ROOT, RULES

from measurement.cli import app
from measurement.local.warehouse import create_table
from measurement.model.sql import duckdb as in_duckdb, latest_view
from measurement.model.tables import TABLES
from measurement.monitors.alerts import COMMANDS, runbook
from measurement.monitors.exporter import METRICS
from measurement.monitors.slo import given

SLO = given(None)
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "runbooks").glob("*.md")) if path.stem != "README"}
PARTS = ["What it means.", "How it is judged.", "First.", "Causes, and how to tell them apart.", "Mend.", "Over"]


def commands() -> dict[str, set[str]]:
    """The console's commands and their flags."""
    import typer.main

    group = typer.main.get_command(app)
    return {name: {option for param in command.params for option in param.opts} for name, command in group.commands.items()}


@pytest.fixture(scope="module")
def warehouse():
    """Every table and view, empty."""
    with duckdb.connect() as db:
        for name, table in TABLES.items():
            db.execute(create_table(table, name))
            db.execute(f"CREATE VIEW {name}_latest AS {in_duckdb(latest_view(table, 'main'))}")
        yield db


def test_every_level_and_every_rule_has_a_page_and_every_page_a_use():
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    named = {runbook(level) for level in SLO.levels}
    named |= {page for rule in rules for page in [rule["annotations"]["runbook"]] if "{{" not in page}
    assert named == {f"docs/runbooks/{page}.md" for page in PAGES}
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.md\)", index)) == set(PAGES)
    monitor = re.findall(r"`(Measurement\w+)`", index)
    assert set(monitor) == {rule["alert"] for rule in rules if not rule["alert"].startswith("MeasurementBudgetBurn")}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_every_part_and_the_first_command_of_its_alert(page):
    text = PAGES[page]
    assert text.startswith(f"# {page}") and len(text.splitlines()) <= 45 and max(map(len, text.splitlines())) <= 145
    assert re.findall(r"^\*\*(.+?)\*\*", text, re.M) == PARTS
    [first] = re.findall(r"^\*\*First\.\*\*[^\n]*\n\n    (.+)$", text, re.M)
    assert first == COMMANDS[page].format(where="$WHERE")
    for other in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "docs" / "runbooks" / other).is_file(), other


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page, warehouse):
    known = commands()
    for command, flags in re.findall(r"`?measurement (\w+)((?: [^`\n]*)?)", PAGES[page]):
        if command in known:
            assert set(re.findall(r"--\w[\w-]*", flags)) <= known[command], command
        else:
            assert command == "monitor", command
    for sql in re.findall(r"```sql\n(.*?)```", PAGES[page], re.S):
        warehouse.execute(in_duckdb(sql)).fetchall()
    for document in re.findall(r"\b(?:docs|config)/[\w/]+\.\w+", PAGES[page]):
        assert (ROOT / document).is_file() or document == "docs/reliability.md", document


def test_pages_name_metrics_that_are_shown():
    for page, text in PAGES.items():
        for metric in re.findall(r"\bmeasurement_[a-z_]+", text):
            assert metric in METRICS, (page, metric)


def test_the_console_knows_the_first_command_of_each():
    for command in set(COMMANDS.values()):
        asked = [sys.executable, "-m", "measurement.cli", command.split()[1], "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
