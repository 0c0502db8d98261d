"""Sums over a range, against a plain loop over the hourly rows that the same server gives."""

import gzip
from collections.abc import Iterator

import pytest
from serving import A, DAY, HOUR, Asking, Keys, attribution, books, delivery, serving, write
from sums_oracle import hourly, summed

from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC, Table
from measurement.serving import sums as reading
from measurement.serving.warehouses import DuckDbReports

WEEK = {"from_": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}
BOOKS = books()
BOOKS["delivery"] += [delivery(h, 100 + h, currency=currency, country=country, line_item_id=f"l{h % 2}") for h in (3, 4, 50)
                      for currency in ("USD", None) for country in (None, "DE")]
BOOKS["attribution"] += [{**attribution(h, "0.100000001", line_item_id="l"), "currency": currency, "value_micros": 2**40} for h in (3, 4)
                         for currency in ("USD", None)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def api(tmp_path_factory, keys) -> Iterator[Asking]:
    with serving(DuckDbReports(write(tmp_path_factory.mktemp("served") / "out", BOOKS)), keys.ring()) as asking:
        yield asking


@pytest.mark.parametrize("table, by", [
    (DELIVERY, "campaign_id"), (DELIVERY, "window_start"), (DELIVERY, "currency"), (DELIVERY, "country,campaign_id"), (DELIVERY, "format"),
    (DELIVERY, "currency,advertiser_id"), (DELIVERY, "line_item_id,creative_id,window_start,country"), (ATTRIBUTION, "model"),
    (ATTRIBUTION, "line_item_id,currency,campaign_id"), (ATTRIBUTION, "touch_type,window_start"), (INVALID_TRAFFIC, "reason,event_type"),
    (DELIVERY, "status"), (DELIVERY, "window_start,status"), (ATTRIBUTION, "currency,status,model")])
@pytest.mark.parametrize("more", [{}, {"campaign_id": "c1"}, {"to": "2026-03-02T05:30:00Z"}])
def test_sums_are_those_of_a_loop_over_the_hourly_rows(api, keys, table: Table, by, more):
    query = {**WEEK, **more}
    rows = hourly(api, f"{A}/{table.name}", keys.sales, limit=100, **query)
    got = api.get(f"{A}/{table.name}/sums", keys.sales, by=by, **query).json
    assert got["rows"] == summed(table, rows, by.split(",")) and got["rows"]
    assert [list(r) for r in got["rows"]] == [list(r) for r in summed(table, rows, by.split(","))]
    whole = api.get(f"{A}/{table.name}", keys.sales, **query).json
    assert list(got) == ["rows", "as_of", "complete_until"] and {**got, "rows": 0} == {n: whole[n] for n in got} | {"rows": 0}


@pytest.mark.parametrize("block", [1, 7, 144])
def test_sums_of_blocks_are_those_of_the_whole(api, keys, monkeypatch, block):
    query = {"by": "campaign_id,line_item_id,window_start", **WEEK}
    whole = api.get(f"{A}/delivery/sums", keys.a, **query)
    monkeypatch.setattr(reading, "_BLOCK", block)
    query |= {"from_": "2026-03-02T00:00:00Z", "to": "2026-03-02T07:00:00Z"} if block == 1 else {}
    apart = api.get(f"{A}/delivery/sums", keys.a, **query)
    rows = [r for r in whole.json["rows"] if block > 1 or r["window_start"] < "2026-03-02T07"]
    assert apart.json["rows"] == rows and rows
    assert block == 1 or apart.body == whole.body


def test_an_hour_that_is_open_in_a_later_block_is_not_called_complete(tmp_path, keys, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK", 2)
    rows = [delivery(h, 1, status="provisional" if h == 1 else "final") for h in range(6)]
    with serving(DuckDbReports(write(tmp_path / "out", {"delivery": rows})), keys.ring()) as api:
        got = api.get(f"{A}/delivery/sums", keys.a, by="campaign_id", **WEEK).json
    assert got["complete_until"] == (DAY + HOUR).isoformat().replace("+00:00", "Z") and got["rows"][0]["status"] == "provisional"


def test_more_hourly_rows_than_an_answer_may_be_made_of_are_refused(api, keys, monkeypatch):
    monkeypatch.setattr(reading, "MOST_READ", len([r for r in BOOKS["delivery"] if r["advertiser_id"] == "a"]))
    monkeypatch.setattr(reading, "_BLOCK", 50)
    assert api.get(f"{A}/delivery/sums", keys.a, by="format", **WEEK).status == 200
    monkeypatch.setattr(reading, "MOST_READ", reading.MOST_READ - 1)
    got = api.get(f"{A}/delivery/sums", keys.a, by="format", **WEEK)
    assert (got.status, got.json["type"]) == (400, "urn:ad-measurement:problem:too-many-rows") and "fewer days" in got.json["detail"]
    assert api.get(f"{A}/delivery/sums", keys.a, by="format", campaign_id="c2", **WEEK).status == 200


@pytest.mark.parametrize("by", ["", "x", "impressions", "restated_because", "campaign_id,", ",campaign_id", "campaign_id,campaign_id", "campaign_id, format", "model",
                                "CAMPAIGN_ID", "campaign_id;format", "campaign_id,format,country,currency,creative_id", "campaign_id\0"])
def test_what_cannot_be_summed_by_is_refused_with_what_can(api, keys, by):
    got = api.get(f"{A}/delivery/sums", keys.a, by=by, **WEEK)
    [wrong] = got.json["errors"]
    assert (got.status, wrong["parameter"]) == (400, "by") and "window_start, advertiser_id, campaign_id" in wrong["detail"]


@pytest.mark.parametrize("more", [{"grain": "day"}, {"limit": "1"}, {"cursor": "x"}, {"by": None}])
def test_parameters_of_rows_are_none_of_sums(api, keys, more):
    query = {name: value for name, value in {**WEEK, "by": "format", **more}.items() if value is not None}
    assert api.get(f"{A}/delivery/sums", keys.a, **query).status == 400


def test_nothing_is_summed_to_nothing_and_an_unknown_advertiser_is_told_to_sales(tmp_path, api, keys):
    query = {"by": "format", "from_": "2026-02-01T00:00:00Z", "to": "2026-02-02T00:00:00Z"}
    got = api.get(f"{A}/delivery/sums", keys.a, **query)
    assert got.status == 200 and got.json["rows"] == [] and got.json["as_of"] and got.json["complete_until"]
    assert api.get("/v1/advertisers/nobody/delivery/sums", keys.sales, **query).status == 404
    assert api.get(f"{A}/invalid_traffic/sums", keys.a, **query).status == 403


def test_an_unchanged_sum_is_not_sent_again_and_a_large_one_is_packed(api, keys):
    query = {"by": "window_start", **WEEK}
    plain, packed = (api.get(f"{A}/delivery/sums", keys.a, headers, **query) for headers in ({}, {"Accept-Encoding": "gzip"}))
    assert gzip.decompress(packed.body) == plain.body
    assert api.get(f"{A}/delivery/sums", keys.a, {"If-None-Match": plain.headers["ETag"]}, **query).status == 304
