"""The analysts' views and what people load, on BigQuery's emulator: the same rows as worked out by hand and as DuckDB has."""

import os
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from cloud import COMMAND
from cookbook import QUESTIONS
from golden_views import EVERY, EXPECTED, ROWS, plain

from measurement.io.bigquery_admin import BigQueryError, Reader, _client, append, provision
from measurement.model.bookings import BOOKINGS, LOADED
from measurement.model.tables import DELIVERY, LEDGER
from measurement.model.views import VIEWS

DATASET = "demo.analysts"


@pytest.fixture(scope="module")
def warehouse(bigquery):
    """Golden rows of every table, loaded."""
    provision(bigquery, "demo", "analysts")
    for name, rows in ROWS.items():
        numbers = [{k: str(v) if isinstance(v, Decimal) else v for k, v in r.items()} for r in rows]
        append(bigquery, DATASET, EVERY[name], lambda latest, numbers=numbers: numbers)
    with Reader(bigquery, DATASET) as reader:
        yield bigquery, reader


@pytest.mark.parametrize("view", EXPECTED)
def test_a_view_shows_what_was_worked_out_by_hand(warehouse, view):
    found = warehouse[1].query(f"SELECT * FROM `{DATASET}.{view}`").to_pylist()
    assert plain(view, found) == plain(view, EXPECTED[view])


def test_the_grains_of_rates_are_one_query_and_no_rate_is_averaged(warehouse):
    [campaign] = warehouse[1].query(f"SELECT viewability FROM `{DATASET}.rates` WHERE grain = 'campaign' AND campaign_id = 'c1'").to_pylist()
    assert campaign == {"viewability": "0.8942"}
    with pytest.raises(BigQueryError, match="No matching signature for aggregate function AVG"):
        warehouse[1].query(f"SELECT avg(viewability) FROM `{DATASET}.rates`")


def test_provisioning_again_changes_nothing_and_every_column_is_described(warehouse):
    endpoints, _ = warehouse
    names = [*VIEWS, *LOADED, *(f"{name}_latest" for name in LOADED)]
    def seen():
        with _client(endpoints, "demo") as client:
            return [client.get_table(f"{DATASET}.{name}").to_api_repr() for name in names]
    before = seen()
    provision(endpoints, "demo", "analysts")
    assert seen() == before
    for view, made in zip(VIEWS.values(), before):
        assert made["type"] == "VIEW" and made["description"] == view.description
        assert [(f["name"], f["description"]) for f in made["schema"]["fields"]] == [(c.name, c.description) for c in view.columns]
    assert all(f["description"] for made in before for f in made["schema"]["fields"])


def test_a_view_is_made_where_all_its_tables_are(bigquery):
    provision(bigquery, "demo", "partly", [LEDGER, DELIVERY, LOADED["bookings"]])
    with _client(bigquery, "demo") as client:
        made = {t.table_id for t in client.list_tables("demo.partly")}
    assert made & VIEWS.keys() == {"pacing"}


def command(endpoints, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments), "--profile", "emulators", "--bigquery", "demo.loads"], capture_output=True,
                          text=True, timeout=120, env={**os.environ, **{k: v for k, v in endpoints.environment.items() if v}})


def test_bookings_and_time_zones_are_loaded_by_command(bigquery, tmp_path):
    provision(bigquery, "demo", "loads")
    file = tmp_path / "bookings.csv"
    head = "booking_id,advertiser_id,campaign_id,metric,goal,starts_at,ends_at,cancelled\n"
    b1, b2 = (f"b{n},a,c,clicks,{n},2026-03-02T00:00:00+01:00,2026-03-03T00:00:00Z,\n" for n in (1, 2))
    file.write_text(head + b1 + b2)
    said = [command(bigquery, "bookings", "load", file)]
    said.append(command(bigquery, "bookings", "load", file))
    file.write_text(head + b1 + b2.rstrip("\n") + "true\n")
    said.append(command(bigquery, "bookings", "load", file))
    said.append(command(bigquery, "time-zone", "Europe/Berlin"))
    said.append(command(bigquery, "time-zone", "Asia/Kolkata", "--advertiser", "a"))
    assert [done.stdout for done in said] == [
        "2 bookings: 2 new, 0 changed, 0 as they were\n", "2 bookings: 0 new, 0 changed, 2 as they were\n",
        "2 bookings: 0 new, 1 changed, 1 as they were\n", "advertisers without a zone of their own: Europe/Berlin\n", "a: Asia/Kolkata\n"]
    with Reader(bigquery, "demo.loads") as reader:
        rows = reader.query("SELECT booking_id, goal, starts_at, cancelled FROM `demo.loads.bookings_latest` ORDER BY 1").to_pylist()
        assert [(r["booking_id"], r["goal"], r["starts_at"].astimezone(UTC), r["cancelled"]) for r in rows] == [
            (id_, n, datetime(2026, 3, 1, 23, tzinfo=UTC), cancelled) for id_, n, cancelled in (("b1", 1, False), ("b2", 2, True))]
        assert [n for [n] in map(dict.values, reader.query("SELECT count(*) n FROM `demo.loads.bookings`").to_pylist())] == [3]
        zones = reader.query("SELECT advertiser_id, time_zone FROM `demo.loads.reporting_time_zones_latest` ORDER BY 1").to_pylist()
    assert [tuple(z.values()) for z in zones] == [(None, "Europe/Berlin"), ("a", "Asia/Kolkata")]


def test_a_dataset_that_was_not_provisioned_is_said_in_a_line(bigquery):
    with pytest.raises(BigQueryError, match="demo.nowhere is not there; run `measurement provision`"):
        append(bigquery, "demo.nowhere", BOOKINGS, lambda latest: [])


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.asks)
def test_the_cookbooks_questions_are_bigquerys_sql(warehouse, question):
    """tests/test_cookbook.py asks them of a log; here they are understood."""
    assert warehouse[1].query(question.over(DATASET)).column_names == question.columns
