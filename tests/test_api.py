"""The report API over a local warehouse: rows as the tables have them, days, pages, tags, and what is said of what is not there."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import A, DAY, HOUR, LONG, OPEN, Asking, Keys, attribution, books, delivery, serving, write

from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC
from measurement.serving.answer import has, takes_gzip
from measurement.serving.days import by_day
from measurement.serving.warehouses import DuckDbReports

BOOKS = books()
WEEK = {"from_": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def api(tmp_path_factory, keys) -> Iterator[Asking]:
    out = write(tmp_path_factory.mktemp("served") / "out", BOOKS)
    with serving(DuckDbReports(out), keys.ring()) as asking:
        yield asking


def z(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def as_json(row: dict) -> dict:
    """A row as the contract has it in JSON, by other means than the server's."""
    return {name: z(value) if isinstance(value, datetime) else f"{value:.9f}" if isinstance(value, Decimal) else value for name, value in row.items()}


def unordered(rows: list[dict]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.parametrize("table", [DELIVERY, ATTRIBUTION])
def test_rows_are_those_of_the_table_with_its_columns_and_no_others(api, keys, table):
    got = api.get(f"{A}/{table.name}", keys.a, **WEEK)
    assert got.status == 200 and got.headers["Content-Type"] == "application/json"
    assert unordered(got.json["rows"]) == unordered([as_json(r) for r in BOOKS[table.name] if r["advertiser_id"] == "a"])
    assert list(got.json["rows"][0]) == [c.name for c in table.columns]
    assert list(got.json) == ["rows", "as_of", "complete_until", "next"]


def test_the_latest_hour_is_first_and_an_order_is_kept_within_the_hour(api, keys):
    rows = api.get(f"{A}/delivery", keys.a, **WEEK).json["rows"]
    hours = [r["window_start"] for r in rows]
    assert hours == sorted(hours, reverse=True)
    assert [r["creative_id"] for r in rows if r["window_start"] == z(DAY)] == [None, "cr", LONG]


def test_no_digit_of_a_numeric_is_lost(api, keys):
    rows = api.get(f"{A}/attribution", keys.a, **WEEK).json["rows"]
    assert {"1234567890.000000001", "0.333333333", "0.333333334"} <= {r["conversions"] for r in rows}


def test_a_range_has_the_hours_that_start_in_it(api, keys):
    def hours(from_: str, to: str) -> set[str]:
        return {r["window_start"] for r in api.get(f"{A}/delivery", keys.a, from_=from_, to=to).json["rows"]}

    assert hours("2026-03-02T05:00:00Z", "2026-03-02T07:00:00Z") == {"2026-03-02T05:00:00Z", "2026-03-02T06:00:00Z"}
    assert hours("2026-03-02T05:00:00.000001Z", "2026-03-02T06:30:00Z") == {"2026-03-02T06:00:00Z"}
    assert hours("2026-03-02T07:00:00+02:00", "2026-03-02T11:30:00+05:30") == {"2026-03-02T05:00:00Z"}


def test_a_campaign_is_asked_for_alone(api, keys):
    for campaign, hours in (("c2", [20]), ("c1 ", []), ("c", [])):
        rows = api.get(f"{A}/delivery", keys.a, campaign_id=campaign, **WEEK).json["rows"]
        assert [r["window_start"] for r in rows] == [z(DAY + h * HOUR) for h in hours]


def test_a_row_of_which_nothing_was_left_is_shown_with_its_reason(api, keys):
    [gone] = [r for r in api.get(f"{A}/delivery", keys.a, **WEEK).json["rows"] if r["line_item_id"] == "gone"]
    assert (gone["impressions"], gone["status"], gone["restated_because"]) == (0, "restated", "order")


def test_complete_until_ends_at_the_open_hour_and_as_of_is_the_newest_publication(api, keys):
    got = api.get(f"{A}/delivery", keys.a, **WEEK).json
    assert got["complete_until"] == z(OPEN)  # the hour before it has closed, others' rows in it show
    assert got["as_of"] == z(max(r["published_at"] for r in BOOKS["delivery"] if r["advertiser_id"] == "a"))


def test_an_hour_that_is_still_open_for_one_is_not_called_complete(tmp_path, keys):
    rows = [delivery(5, 1, status="provisional"), delivery(5, 2, advertiser="b")]
    with serving(DuckDbReports(write(tmp_path / "out", {"delivery": rows})), keys.ring()) as api:
        assert api.get(f"{A}/delivery", keys.a, **WEEK).json["complete_until"] == z(DAY + 5 * HOUR)
        assert api.get("/v1/advertisers/b/delivery", keys.b, **WEEK).json["complete_until"] == z(DAY + 6 * HOUR)


def test_an_empty_day_says_until_when_it_is_known_to_be_empty(api, keys):
    got = api.get(f"{A}/delivery", keys.a, from_="2026-02-01T00:00:00Z", to="2026-02-02T00:00:00Z")
    assert got.status == 200 and got.json["rows"] == [] and got.json["next"] is None
    assert got.json["complete_until"] == z(OPEN) and got.json["as_of"] is not None


def test_an_empty_warehouse_claims_nothing(tmp_path, keys):
    with serving(DuckDbReports(write(tmp_path / "out", {})), keys.ring()) as api:
        assert api.get(f"{A}/delivery", keys.a, **WEEK).json == {"rows": [], "as_of": None, "complete_until": None, "next": None}
        assert api.get("/v1/advertisers", keys.sales).json["advertisers"] == []


def test_a_day_is_the_sum_of_its_hours_and_what_its_worst_hour_is(api, keys):
    rows = api.get(f"{A}/delivery", keys.a, grain="day", **WEEK).json["rows"]
    [day] = [r for r in rows if r["line_item_id"] == "l1" and r["window_start"] == z(DAY)]
    hours = [r for r in BOOKS["delivery"] if r["line_item_id"] == "l1" and r["window_start"] < DAY + 24 * HOUR]
    assert day["impressions"] == sum(range(1, 25)) and day["spend_micros"] == sum(range(1, 25))
    assert (day["status"], day["restated_because"]) == ("restated", "late,policy")
    assert day["rule_version"] == "rules 1 | rules 2"
    assert day["revision"] == max(r["revision"] for r in hours) and day["published_at"] == z(max(r["published_at"] for r in hours))
    [open_] = [r for r in rows if r["window_start"] == z(DAY + 48 * HOUR)]
    assert open_["status"] == "provisional"


def test_days_are_whole_wherever_the_range_begins(api, keys):
    def days(from_: str, to: str) -> list:
        return api.get(f"{A}/delivery", keys.a, from_=from_, to=to, grain="day").json["rows"]

    whole = days("2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z")
    assert {r["window_start"] for r in whole} == {z(DAY)}
    assert days("2026-03-01T13:00:00Z", "2026-03-02T00:00:01Z") == whole
    assert days("2026-03-02T00:00:01Z", "2026-03-03T00:00:00Z") == []


def paged(api: Asking, key: str, limit: int, path: str = f"{A}/delivery", **query) -> list[list[dict]]:
    pages, more = [], {}
    while True:
        got = api.get(path, key, limit=limit, **{**query, **more})
        assert got.status == 200, got.body
        pages.append(got.json["rows"])
        if got.json["next"] is None:
            assert "Link" not in got.headers
            return pages
        assert got.headers["Link"].startswith("<?") and got.headers["Link"].endswith('>; rel="next"')
        if not more:
            linked = api.get(path + got.headers["Link"][1:].partition(">")[0], key)
            assert linked.json["rows"] == api.get(path, key, limit=limit, **query, cursor=got.json["next"]).json["rows"]
        more = {"cursor": got.json["next"]}


@pytest.mark.parametrize("limit", [1, 29, 145])
@pytest.mark.parametrize("more", [{"grain": "hour"}, {"grain": "day"}, {"campaign_id": "c1"}])
def test_pages_together_are_the_answer(api, keys, limit, more):
    query = {**WEEK, **more} if limit > 1 else {"from_": "2026-03-02T05:00:00Z", "to": "2026-03-03T00:00:00Z" if "grain" in more else "2026-03-02T08:00:00Z", **more}
    whole = api.get(f"{A}/delivery", keys.a, **query).json["rows"]
    pages = paged(api, keys.a, limit, **query)
    assert [r for page in pages for r in page] == whole
    assert all(len(page) == limit for page in pages[:-1]) and len(pages) == max(1, -(-len(whole) // limit))


def test_a_row_that_comes_between_two_pages_moves_no_other(tmp_path, keys):
    out = write(tmp_path / "out", {"delivery": [delivery(h, h) for h in range(1, 5)]})
    with serving(DuckDbReports(out), keys.ring()) as api:
        first = api.get(f"{A}/delivery", keys.a, limit=2, **WEEK).json
        write(out, {"delivery": [delivery(h, h) for h in range(1, 7)]})  # a later run with two later hours
        second = api.get(f"{A}/delivery", keys.a, limit=2, cursor=first["next"], **WEEK).json
    assert [r["impressions"] for r in first["rows"] + second["rows"]] == [4, 3, 2, 1] and second["next"] is None


def test_an_unchanged_answer_is_not_sent_again_and_a_changed_one_is(tmp_path, keys):
    out = write(tmp_path / "out", {"delivery": [delivery(1, 1)]})
    with serving(DuckDbReports(out), keys.ring()) as api:
        tag = api.get(f"{A}/delivery", keys.a, **WEEK).headers["ETag"]
        assert tag.startswith('"')
        again = api.get(f"{A}/delivery", keys.a, {"If-None-Match": f'"x", W/{tag}'}, **WEEK)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["Cache-Control"] == "private, no-cache" and "Authorization" in again.headers["Vary"]
        write(out, {"delivery": [delivery(1, 2)]})
        changed = api.get(f"{A}/delivery", keys.a, {"If-None-Match": tag}, **WEEK)
        assert changed.status == 200 and changed.headers["ETag"] != tag


def test_what_is_large_is_packed_for_who_takes_it(api, keys):
    plain = api.get(f"{A}/delivery", keys.a, **WEEK)
    packed = api.get(f"{A}/delivery", keys.a, {"Accept-Encoding": "br, gzip"}, **WEEK)
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body and len(packed.body) < len(plain.body) / 5
    assert packed.headers["ETag"] == plain.headers["ETag"].removesuffix('"') + '-gzip"'
    assert api.get(f"{A}/delivery", keys.a, {"If-None-Match": packed.headers["ETag"]}, **WEEK).status == 304
    small = api.get(f"{A}/delivery", keys.a, {"Accept-Encoding": "gzip"}, campaign_id="none", **WEEK)
    assert "Content-Encoding" not in small.headers


@pytest.mark.parametrize("accepts, takes", [("gzip", True), ("", False), ("deflate", False), ("gzip;q=0", False), ("*", True), ("*, gzip;q=0", False),
                                            ("GZIP ; q=0.5", True), ("gzip;q=x", False), ("br, gzip;q=1.0", True), ("xgzip", False)])
def test_gzip_is_taken_as_accept_encoding_says(accepts, takes):
    assert takes_gzip(accepts) is takes


def test_a_tag_is_found_among_others_and_a_star_is_any():
    assert has('"a", "t"', "t") and has('W/"t-gzip"', "t") and has("*", "t") and not has("", "t") and not has('"t2"', "t")


def test_sales_see_all_advertisers_but_probes(api, keys):
    got = api.get("/v1/advertisers", keys.sales).json
    assert [a["advertiser_id"] for a in got["advertisers"]] == sorted(["a", "a/b", "b", "Ä ?&#%2F"])
    assert got["advertisers"][0]["newest_hour"] == z(OPEN) and got["complete_until"] == z(OPEN)
    names, cursor = [], {}
    while True:
        page = api.get("/v1/advertisers", keys.sales, limit=1, **cursor).json
        names += [a["advertiser_id"] for a in page["advertisers"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert names == [a["advertiser_id"] for a in got["advertisers"]]


@pytest.mark.parametrize("path, n", [("b", 11), ("a%2Fb", 12), ("a/b", 12), ("%C3%84%20%3F%26%23%252F", 13)])
def test_an_advertisers_id_may_be_any_text(api, keys, path, n):
    rows = api.get(f"/v1/advertisers/{path}/delivery", keys.sales, from_=z(DAY), to=z(DAY + 4 * HOUR)).json["rows"]
    assert [r["impressions"] for r in rows] == [n]


def test_sales_are_told_that_an_advertiser_is_unknown_and_an_advertiser_sees_an_empty_answer(api, keys):
    unknown = api.get("/v1/advertisers/nobody/delivery", keys.sales, **WEEK)
    assert unknown.status == 404 and unknown.json["type"] == "urn:ad-measurement:problem:no-such-advertiser"
    new = keys.file.make("new")[1]
    soon(lambda: api.get("/v1/advertisers/new/delivery", new, **WEEK).json.get("rows") == [])


def soon(holds) -> None:
    """A changed key file is seen within a second."""
    until = datetime.now() + timedelta(seconds=20)
    while not holds():
        assert datetime.now() < until


def test_invalid_traffic_is_for_sales(api, keys):
    got = api.get(f"{A}/invalid_traffic", keys.sales, **WEEK)
    assert unordered(got.json["rows"]) == unordered([as_json(r) for r in BOOKS["invalid_traffic"]])
    assert list(got.json["rows"][0]) == [c.name for c in INVALID_TRAFFIC.columns]
    assert api.get(f"{A}/invalid_traffic", keys.a, **WEEK).status == 403


def test_a_server_is_alive_and_ready_and_says_when_it_is_not(tmp_path, keys, monkeypatch):
    out = write(tmp_path / "out", BOOKS)
    with serving(DuckDbReports(out), keys.ring()) as api:
        assert (api.get("/healthz").status, api.get("/readyz").status) == (200, 200)
    (out / "warehouse.duckdb").unlink()
    with serving(DuckDbReports(out), keys.ring()) as api:
        assert (api.get("/healthz").status, api.get("/readyz").status) == (200, 503)
        gone = api.get(f"{A}/delivery", keys.a, **WEEK)
        assert gone.status == 503 and gone.headers["Retry-After"] and str(tmp_path) not in gone.body.decode()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 71), st.integers(0, 3), st.integers(0, 2**40), st.sampled_from(["final", "restated", "provisional"])), max_size=60))
def test_days_keep_every_sum(rows):
    """Over any hours: the days' sums are the hours', and a day is provisional exactly where one of its hours is."""
    made = {(h, line): attribution(h, "0", line_item_id=str(line), status=status) | {"conversions": n, "value_micros": n} for h, line, n, status in rows}
    names = [c.name for c in ATTRIBUTION.columns]
    plain = [tuple(int((r[n] - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**6 if isinstance(r[n], datetime) else r[n] for n in names)
             for r in made.values()]
    days = by_day(ATTRIBUTION, plain)
    for name in ("conversions", "value_micros"):
        assert sum(d[names.index(name)] for d in days) == sum(r[name] for r in made.values())
    status, line, hour = (names.index(n) for n in ("status", "line_item_id", "window_start"))
    day = 24 * 3600 * 10**6
    assert {(d[hour], d[line]) for d in days} == {(r[hour] // day * day, r[line]) for r in plain} and len(days) == len({(d[hour], d[line]) for d in days})
    assert {(d[hour], d[line]) for d in days if d[status] == "provisional"} == {(r[hour] // day * day, r[line]) for r in plain if r[status] == "provisional"}
