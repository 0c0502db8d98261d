"""Pacing over HTTP: the view's rows as JSON, whose they are, and warehouses without bookings."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from golden_views import EXPECTED, ROWS, UNTIL
from serving import Asking, Clock, Keys, delivery, serving, write

from measurement.local.loaded import append
from measurement.local.warehouse import Warehouse
from measurement.model.bookings import BOOKINGS
from measurement.model.views.pacing import PACING
from measurement.serving import route_pacing
from measurement.serving.warehouses import DuckDbReports

A = "/v1/advertisers/a/pacing"


def booked(out: Path, rows: list[dict]) -> Path:
    append(Warehouse(out), BOOKINGS, lambda _: rows)
    return out


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def api(tmp_path_factory, keys) -> Iterator[Asking]:
    out = write(tmp_path_factory.mktemp("paced") / "out", {"delivery": ROWS["delivery"]})
    others = [r | {"booking_id": f"of b {n}", "advertiser_id": "b"} for n, r in enumerate(ROWS["bookings"][-3:-2])]
    with serving(DuckDbReports(booked(out, ROWS["bookings"] + others)), keys.ring()) as asking:
        yield asking


def z(value):
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def golden() -> list[dict]:
    rows = sorted(EXPECTED["pacing"], key=lambda r: (r["advertiser_id"], r["starts_at"], r["booking_id"]))
    return [{c.name: z(r[c.name]) for c in PACING.columns} for r in rows]


def test_an_advertisers_pacing_is_the_views(api, keys):
    for key in (keys.a, keys.sales):
        got = api.get(A, key)
        assert got.status == 200 and got.json["rows"] == golden()
        assert list(got.json) == ["rows", "as_of", "complete_until"] and list(got.json["rows"][0]) == [c.name for c in PACING.columns]
        assert got.json["complete_until"] == z(UNTIL) and got.json["as_of"] is not None
    assert {type(r["pace"]) for r in got.json["rows"]} == {float, type(None)}


def test_sales_see_everyones_but_probes_in_order(api, keys):
    rows = api.get("/v1/pacing", keys.sales).json["rows"]
    assert [r for r in rows if r["advertiser_id"] == "a"] == golden() and {r["advertiser_id"] for r in rows} == {"a", "b"}
    assert [(r["advertiser_id"], r["starts_at"], r["booking_id"]) for r in rows] == sorted((r["advertiser_id"], r["starts_at"], r["booking_id"]) for r in rows)


def test_who_may_ask(api, keys):
    assert [api.get("/v1/pacing", key).status for key in (None, keys.a)] == [401, 403]
    assert [api.get(A, key).status for key in (None, keys.b)] == [401, 403]
    assert api.get("/v1/advertisers/nobody/pacing", keys.sales).status == 404
    assert api.get("/v1/advertisers/test:a/pacing", keys.sales).status == 404
    assert api.get(f"{A}?limit=1", keys.a).status == api.get("/v1/pacing?advertiser_id=a", keys.sales).status == 400


def test_no_bookings_are_no_rows_also_in_a_warehouse_that_knows_of_none(tmp_path, keys):
    out = write(tmp_path / "out", {"delivery": [delivery(1, 1)]})
    with serving(DuckDbReports(out), keys.ring()) as api:
        assert [api.get(p, keys.sales).json["rows"] for p in (A, "/v1/pacing")] == [[], []]
    with Warehouse(out).write() as db:
        db.execute("DROP VIEW pacing")
        db.execute("DROP VIEW bookings_latest")
        db.execute("DROP TABLE bookings")
    with serving(DuckDbReports(out), keys.ring()) as api:
        assert [(got.status, got.json["rows"]) for got in (api.get(A, keys.sales), api.get("/v1/pacing", keys.sales))] == [(200, [])] * 2
    booking = ROWS["bookings"][1] | {"starts_at": delivery(1, 1)["window_start"]}
    with Warehouse(booked(out, [booking])).write() as db:
        db.execute("DROP VIEW pacing")
    with serving(DuckDbReports(out), keys.ring()) as api:
        assert [r["booking_id"] for r in api.get(A, keys.sales).json["rows"]] == ["whole campaign"]


def test_bookings_of_which_no_hour_has_closed_have_not_begun(tmp_path, keys):
    with serving(DuckDbReports(booked(write(tmp_path / "out", {}), ROWS["bookings"])), keys.ring()) as api:
        got = api.get("/v1/pacing", keys.sales).json
    assert {(r["flight"], r["complete_until"], r["pace"], r["status"]) for r in got["rows"]} == {("not_begun", None, None, None)}
    assert (got["as_of"], got["complete_until"]) == (None, None)


def test_everyones_pacing_is_found_once_in_half_a_minute(tmp_path, keys):
    out, clock = booked(write(tmp_path / "out", {"delivery": ROWS["delivery"]}), ROWS["bookings"][:2]), Clock()
    with serving(DuckDbReports(out), keys.ring(), clock=clock) as api:
        before = api.get("/v1/pacing", keys.sales)
        booked(out, [ROWS["bookings"][2]])
        assert api.get("/v1/pacing", keys.sales).body == before.body
        assert len(api.get(A, keys.sales).json["rows"]) == 2
        clock.now += 31
        assert len(api.get("/v1/pacing", keys.sales).json["rows"]) == 2


def test_more_bookings_than_an_answer_has_are_refused(api, keys, monkeypatch):
    monkeypatch.setattr(route_pacing, "MOST_ROWS", 4)
    got = api.get(A, keys.a)
    assert (got.status, got.json["type"]) == (400, "urn:ad-measurement:problem:too-many-rows")
