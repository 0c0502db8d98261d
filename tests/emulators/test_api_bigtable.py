"""The report API over Bigtable: the same rows, pages and days as over a local warehouse, and what is said where it is away."""

import io
import zipfile
from zlib import crc32

import pytest
from golden_views import row
from google.api_core.exceptions import ServiceUnavailable
from serving import A, DAY, HOUR, Clock, Keys, arrow, books, delivery, serving, write
from sums_oracle import hourly, summed

from measurement.io import bigquery_admin, bigtable_admin
from measurement.io.bigquery import Appender
from measurement.io.bigtable import BigtableWriter
from measurement.io.bigtable_read import BigtableReader
from measurement.io.endpoints import Endpoints
from measurement.io.retry import Patience
from measurement.local.loaded import append
from measurement.local.warehouse import Warehouse
from measurement.model.bookings import BOOKINGS
from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC
from measurement.serving import sums
from measurement.serving.bigtable import BigtableReports
from measurement.serving.paging import days, hours
from measurement.serving.reports import NotServed, Scope, Unavailable
from measurement.serving.times import MICROS_PER_DAY
from measurement.serving.warehouses import BigQueryReports, DuckDbReports

BOOKS = books()
START = int(DAY.timestamp()) * 10**6
ALL = START - MICROS_PER_DAY, START + 7 * MICROS_PER_DAY
WEEK = {"from_": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}


def filled(bigtable, name: str, tables: dict[str, list[dict]]) -> str:
    instance = f"projects/demo/instances/i{crc32(name.encode())}"
    bigtable_admin.provision(bigtable, instance)
    writer = BigtableWriter(bigtable, instance)
    for table in ("delivery", "attribution"):
        writer.write(table, arrow(table, tables.get(table, [])))
    writer.close()
    return instance


@pytest.fixture(scope="module")
def both(bigtable, tmp_path_factory):
    cloud = BigtableReports(bigtable, filled(bigtable, "api", BOOKS))
    yield cloud, DuckDbReports(write(tmp_path_factory.mktemp("both") / "out", BOOKS))
    cloud.close()


@pytest.mark.parametrize("table, by", [(DELIVERY, "window_start,line_item_id,creative_id"), (DELIVERY, "campaign_id"), (ATTRIBUTION, "model,campaign_id")])
@pytest.mark.parametrize("block", [3, 1000])
def test_sums_are_those_of_a_loop_over_the_hourly_rows(bigtable, tmp_path, monkeypatch, table, by, block):
    monkeypatch.setattr(sums, "_BLOCK", block)
    keys = Keys(tmp_path / "keys.json")
    with serving(BigtableReports(bigtable, filled(bigtable, "api", BOOKS)), keys.ring()) as api:
        rows = hourly(api, f"{A}/{table.name}", keys.sales, **WEEK)
        assert api.get(f"{A}/{table.name}/sums", keys.sales, by=by, **WEEK).json["rows"] == summed(table, rows, by.split(","))


@pytest.mark.parametrize("table", [DELIVERY, ATTRIBUTION])
@pytest.mark.parametrize("campaign", [None, "c1", "c2", "none"])
@pytest.mark.parametrize("read", [hours, days])
@pytest.mark.parametrize("most", [1, 5, 1000])
def test_both_readers_give_the_same_pages(both, table, campaign, read, most):
    pages = []
    for reports in both:
        after, found = None, []
        while True:
            page = read(reports, Scope(table, "a", *ALL, campaign), after, most)
            found.append(page)
            if (after := page.after) is None or len(found) == 40:
                break
        pages.append(found)
    assert pages[0] == pages[1]
    assert pages[0][0].rows or campaign == "none" or table is ATTRIBUTION


def test_both_readers_agree_on_what_is_closed_and_who_is_there(both):
    cloud, local = both
    for table in (DELIVERY, ATTRIBUTION):
        assert cloud.newest(table) == local.newest(table)
    assert cloud.advertisers() == local.advertisers()
    for name in ("a", "b", "a/b", "test:a", "nobody", "", "A"):
        assert cloud.known(name) == local.known(name)


def test_an_hour_that_is_open_is_not_the_newest_closed_one(bigtable):
    rows = [delivery(h, n, line_item_id=str(n), status="provisional" if h > 4 else "restated") for h in range(7) for n in range(3)]
    reports = BigtableReports(bigtable, filled(bigtable, "open", {"delivery": rows}))
    assert reports.newest(DELIVERY).closed_until == START + 5 * 3600 * 10**6
    assert reports.newest(ATTRIBUTION) is None
    reports.close()


def test_a_later_hour_is_seen_when_what_was_looked_through_is_old(bigtable):
    clock, instance = Clock(), filled(bigtable, "later", {"delivery": [delivery(1, 1)]})
    reports = BigtableReports(bigtable, instance, clock=clock)
    assert [a.advertiser_id for a in reports.advertisers()] == ["a"]
    filled(bigtable, "later", {"delivery": [delivery(2, 1), delivery(3, 1, advertiser="b")]})
    assert reports.newest(DELIVERY).closed_until == START + 3 * 3600 * 10**6  # of a, whom it knows
    clock.now += 61
    assert reports.newest(DELIVERY).closed_until == START + 4 * 3600 * 10**6
    assert [a.advertiser_id for a in reports.advertisers()] == ["a", "b"]
    reports.close()


def test_over_http_both_answers_are_the_same_bytes(both, tmp_path):
    keys, answers = Keys(tmp_path / "keys.json"), []
    for reports in both:
        with serving(reports, keys.ring()) as api:
            answers.append([api.get(f"{A}/{table}", keys.a, grain=grain, **WEEK) for table in ("delivery", "attribution") for grain in ("hour", "day")]
                           + [api.get(f"{A}/{table}/sums", keys.a, by=by, **WEEK) for table in ("delivery", "attribution")
                              for by in ("window_start,line_item_id", "currency,status", "creative_id,campaign_id")])
    assert [a.status for a in answers[0]] == [200] * 10
    assert [(a.body, a.headers["ETag"]) for a in answers[0]] == [(a.body, a.headers["ETag"]) for a in answers[1]]


def test_what_bigtable_does_not_serve_is_not_served(bigtable, tmp_path):
    keys = Keys(tmp_path / "keys.json")
    reports = BigtableReports(bigtable, filled(bigtable, "api", {}))
    with pytest.raises(NotServed):
        reports.rows(Scope(INVALID_TRAFFIC, "a", *ALL), None, 1)
    with serving(reports, keys.ring()) as api:
        query = {"from_": WEEK["from_"], "to": WEEK["to"]}
        for path, more in (("invalid_traffic", query), ("invalid_traffic/sums", {"by": "reason", **query}), ("pacing", {}),
                           ("exports", {"table": "delivery", **query})):
            got = api.get(f"{A}/{path}", keys.sales, **more)
            assert got.status == 501 and b"--bigquery" in got.body, path
        assert api.get("/v1/pacing", keys.sales).status == 501


def test_a_bigtable_that_is_away_is_told_without_its_name(bigtable, tmp_path):
    keys = Keys(tmp_path / "keys.json")
    nowhere = BigtableReports(Endpoints(bigtable="127.0.0.1:1"), "projects/demo/instances/gone")
    with pytest.raises(Unavailable):
        nowhere.check()
    with serving(nowhere, keys.ring()) as api:
        for path in ("/readyz", f"{A}/delivery?from=2026-03-01T00:00:00Z&to=2026-03-02T00:00:00Z"):
            got = api.get(path, keys.a)
            assert got.status == 503 and b"gone" not in got.body and b"127.0.0.1" not in got.body


def test_a_limit_counts_what_was_given_before_a_failure(bigtable):
    instance = filled(bigtable, "limit", {"delivery": [delivery(h, 1) for h in range(8)]})
    with BigtableReader(bigtable, instance, Patience(30, wait=lambda _: None)) as reader:
        whole = list(reader.scan("delivery", b"\0", b"", limit=5))
        service, real = reader._service, reader._service.read_rows
        calls = []

        def breaking(*asked, **how):
            calls.append(how["rows_limit"])
            answers = iter(real(*asked, **how))
            yield next(answers)
            if len(calls) < 3:
                raise ServiceUnavailable("cut")
            yield from answers

        service.read_rows = breaking
        assert list(reader.scan("delivery", b"\0", b"", limit=5)) == whole and len(whole) == 5
        assert calls == [5, 4, 3]


def test_sales_read_what_bigtable_lacks_from_bigquery(bigquery, bigtable, tmp_path):
    bigquery_admin.provision(bigquery, "demo", "api")
    writer = Appender(bigquery, "demo.api")
    for table in ("delivery", "attribution", "invalid_traffic"):
        writer.append(table, arrow(table, BOOKS[table]))
    writer.close()
    booked = [row("bookings", booking_id=f"b{n}", advertiser_id=who, campaign_id="c1", metric="impressions", goal=100, starts_at=DAY, ends_at=DAY + n * 30 * HOUR)
              for n, who in ((1, "a"), (2, "a"), (3, "b"))]
    bigquery_admin.append(bigquery, "demo.api", BOOKINGS, lambda _: booked)
    cloud = BigtableReports(bigtable, filled(bigtable, "with-bigquery", BOOKS), BigQueryReports(bigquery, "demo.api"))
    out = write(tmp_path / "out", BOOKS)
    append(Warehouse(out), BOOKINGS, lambda _: booked)
    local = DuckDbReports(out)
    for most in (1, 10):
        assert hours(cloud, Scope(INVALID_TRAFFIC, "a", *ALL), None, most) == hours(local, Scope(INVALID_TRAFFIC, "a", *ALL), None, most)
    assert cloud.newest(INVALID_TRAFFIC) == local.newest(INVALID_TRAFFIC)
    keys, answers, files = Keys(tmp_path / "keys.json"), [], []
    for reports in (cloud, local):
        with serving(reports, keys.ring()) as api:
            answers.append([api.get(f"{A}/invalid_traffic/sums", keys.sales, by="event_type,reason", **WEEK), api.get(f"{A}/pacing", keys.a),
                            api.get("/v1/pacing", keys.sales)])
            got = api.get(f"{A}/exports", keys.sales, table="delivery", **WEEK)
            assert got.status == 200, got.body
            with zipfile.ZipFile(io.BytesIO(got.body)) as packed:
                files.append({name: packed.read(name) for name in packed.namelist() if name.endswith(".csv")})
    assert [(a.status, a.body) for a in answers[0]] == [(200, a.body) for a in answers[1]]
    assert [len(a.json["rows"]) for a in answers[0]] == [1, 2, 3] and files[0] == files[1] and len(files[0]) == 1
