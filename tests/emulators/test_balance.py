"""`measurement reconcile` on the cloud's tables: right books hold in BigQuery and Bigtable, and wrong ones are told of."""

import time
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from books import H, HOUR, Books, arrow, right, rows_of

from measurement.cloud.places import Places
from measurement.cloud.reconcile import reconcile
from measurement.cloud.status import status
from measurement.cloud.stored import StoredRows
from measurement.io import bigquery_admin, bigtable_admin
from measurement.io.bigquery import Appender
from measurement.io.bigtable import BigtableWriter
from measurement.io.bigtable_service import SERVED
from measurement.io.control import Control, Generation
from measurement.io.endpoints import Endpoints
from measurement.model.tables import ATTRIBUTION, CREDITS
from measurement.monitors import slo
from measurement.monitors.ledger import micros

NANO = Decimal("0.000000001")


@pytest.fixture
def places(bigtable, bigquery, request) -> Places:
    """Provisioned, with a generation that has ended."""
    name = request.node.name
    endpoints = Endpoints("", bigtable.bigtable, bigquery.bigquery, bigquery.bigquery_storage)
    made = Places(endpoints, f"projects/demo/subscriptions/{name}", f"projects/demo/instances/{name}", f"demo.{name}")
    bigtable_admin.provision(endpoints, made.instance)
    bigquery_admin.provision(endpoints, "demo", name)
    control = Control(endpoints, made.instance)
    control.begin(made.subscription, None, Generation(1, began=5, floor=None, state="ended"))
    control.close()
    return made


def write(places: Places, analysed: Books, served: Books) -> None:
    appender, writer = Appender(places.endpoints, places.dataset), BigtableWriter(places.endpoints, places.instance)
    for name, rows in arrow(analysed).items():
        appender.append(name, rows)
    for name, rows in arrow(served).items():
        if name in SERVED:
            writer.write(name, rows)
    appender.close()
    writer.close()


def ordered(rows: pa.Table) -> list[dict]:
    return sorted(rows.to_pylist(), key=repr)


def test_right_books_hold_and_are_read_back(places):
    write(places, right(), right())
    result = reconcile(places)
    assert result.holds, (result.failures, result.unbalanced)
    found = status(places, "emulators", slo.given(None), time.time_ns() // 1_000)
    assert found.balanced and (found.credited, found.touched) == (5, 3)
    stored = StoredRows(places.endpoints, places.dataset, places.instance, "a run")
    for table in (CREDITS, ATTRIBUTION):
        rows = arrow(right())[table.name]
        ends = 2 if table is ATTRIBUTION else 1
        assert [ordered(end) for end in stored.latest(table, None, None)] == [ordered(rows)] * ends
        since, until = H + timedelta(minutes=8), H + HOUR  # of conversion_credits the untouched one alone is of such a time
        limited = ordered(pa.Table.from_pylist([r for r in rows.to_pylist() if since <= r[table.time] < until], rows.schema))
        assert [ordered(end) for end in stored.latest(table, micros(since), micros(until))] == [limited] * ends


def test_what_is_wrong_is_told_of(places):
    analysed, served = right(), right()
    rows_of(analysed, "two models", "linear")[1]["credit"] -= NANO
    rows_of(analysed, "two models", "last_touch")[1]["value_micros"] += 2
    rows_of(analysed, "earlier", "linear")[0]["value_micros"] = 1
    analysed["conversion_credits"] = [r for r in analysed["conversion_credits"] if r["conversion_id"] != "later"]
    served["attribution"][0]["conversions"] -= NANO
    served["attribution"][0]["value_micros"] += 5
    write(places, analysed, served)
    result = reconcile(places)
    assert [(check.says.partition(":")[0], len(wrong)) for check, wrong in result.failures] == [
        ("valid conversions in the ledger = conversions credited", 1),
        ("of each conversion and model", 1),
        ("of each conversion and model that no longer stands", 1),
        ("of each conversion", 1),
        ("sum of credit in conversion_credits = conversions in attribution", 2),
        ("sum of value_micros in conversion_credits = value_micros in attribution", 3),
        ("attribution in BigQuery = attribution in Bigtable", 2)]
    found = dict((check.says.partition(":")[0], wrong) for check, wrong in result.failures)
    assert found["of each conversion and model"] == [(H, "a", "two models", "linear", 1, 1 - NANO)]
    assert found["of each conversion"] == [(H, "a", "two models", 10, 12)]
    assert found["attribution in BigQuery = attribution in Bigtable"] == [
        (H, "a", "conversions", 4, 4 - NANO), (H, "a", "value_micros", 27, 32)]
