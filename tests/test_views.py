"""The analysts' views on DuckDB: by hand-made rows to the last column, and by any rows against plain Python."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb
import pytest
from golden_views import EVERY, EXPECTED, ROWS, plain, row
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.local.ddl import make
from measurement.model.bookings import LOADED, METRICS
from measurement.model.events import COUNTS, DIMENSIONS
from measurement.model.sql import duckdb as in_duckdb
from measurement.model.sql import duckdb_type
from measurement.model.tables import ATTRIBUTION, DELIVERY, TABLES
from measurement.model.views import VIEWS
from measurement.model.views.rates import GRAINS, RATES

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def db():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        make(connection)
        yield connection


def filled(db, rows: dict[str, list[dict]]):
    for name, table in EVERY.items():
        db.execute(f"DELETE FROM {name}")
        if given := rows.get(name):
            names = [c.name for c in table.columns]
            db.executemany(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                           [[r[n] for n in names] for r in given])
    return db


def shown(db, view: str) -> list[dict]:
    return db.sql(f"SELECT * FROM {view}").to_arrow_table().to_pylist()


@pytest.mark.parametrize("view", EXPECTED)
def test_a_view_shows_what_was_worked_out_by_hand(db, view):
    filled(db, ROWS)
    assert plain(view, shown(db, view)) == plain(view, EXPECTED[view])


def test_each_view_has_a_golden_test():
    assert set(EXPECTED) == set(VIEWS)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Kolkata", "Pacific/Auckland"])
def test_a_day_does_not_hang_on_the_readers_own_time_zone(db, zone):
    filled(db, ROWS).execute(f"SET TimeZone = '{zone}'")
    try:
        found = {view: plain(view, shown(db, view)) for view in EXPECTED}
    finally:
        db.execute("SET TimeZone = 'UTC'")
    assert found == {view: plain(view, rows) for view, rows in EXPECTED.items()}


@pytest.mark.parametrize("view", EXPECTED)
def test_of_no_rows_a_view_shows_none(db, view):
    assert shown(filled(db, {}), view) == []


def test_a_booking_that_nothing_was_delivered_of_is_shown(db):
    filled(db, {"bookings": ROWS["bookings"]})
    found = shown(db, "pacing")
    assert {r["booking_id"] for r in found} == {r["booking_id"] for r in EXPECTED["pacing"]}
    assert {(r["flight"], r["complete_until"], r["delivered"], r["expected"], r["pace"]) for r in found} == {("not_begun", None, 0, 0, None)}


# -- what is said of them -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_columns_are_as_declared_and_each_says_what_it_is(db, view):
    types = [(name, kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ").replace(",", ", "))
             for name, kind, *_ in db.execute(f"DESCRIBE {view.name}").fetchall()]
    assert types == [(c.name, duckdb_type(c)) for c in view.columns]
    assert all(c.description.endswith(".") and len(c.description) > 7 for c in view.columns)
    assert view.description.endswith(".")
    assert set(view.over) <= set(EVERY)


@pytest.mark.parametrize("view", EXPECTED)
def test_a_required_column_is_never_null(db, view):
    filled(db, ROWS)
    assert not [c.name for r in shown(db, view) for c in VIEWS[view].columns if c.required and r[c.name] is None]


def test_duckdb_has_the_description_of_every_column_of_tables_and_views(db):
    undescribed = db.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL").fetchall()
    assert undescribed == []
    views = dict(db.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
    assert views == {v.name: v.description for v in VIEWS.values()} | {
        f"{name}_latest": f"{t.description} Key: {', '.join(c.name for c in t.key)}. The highest revision of each key."
        for name, t in EVERY.items()}


def test_what_people_load_is_no_table_of_the_jobs():
    assert not LOADED.keys() & TABLES.keys()


def test_functions_whose_parentheses_sqlglot_drops_keep_their_meaning(db):
    sql = "SELECT 7 * div(1 + 8, 2 + 1) - div(div(100 + 1, 2), 5), mod(div(17 + 1, 4), 1 + 2)"
    assert db.execute(in_duckdb(sql)).fetchall() == [(11, 1)]
    with pytest.raises(ValueError):
        in_duckdb("SELECT 1; SELECT 2")


# -- days ---------------------------------------------------------------------------------------------------------------

def hours_from(first: datetime, n: int, **values) -> list[dict]:
    return [row("delivery", window_start=first + k * HOUR, advertiser_id="a", impressions=1, gross_impressions=1, **values) for k in range(n)]


@pytest.mark.parametrize("zone, day, hours", [
    ("Europe/Berlin", date(2026, 3, 29), 23), ("Europe/Berlin", date(2026, 10, 25), 25), ("Europe/Berlin", date(2026, 7, 1), 24),
    ("America/New_York", date(2026, 3, 8), 23), ("America/New_York", date(2026, 11, 1), 25),
    ("America/Santiago", date(2026, 9, 6), 23),  # its midnight does not exist
    ("America/Havana", date(2026, 11, 1), 25),  # its first hour comes twice
    ("Asia/Kolkata", date(2026, 3, 29), 24), ("Asia/Kathmandu", date(2026, 3, 29), 24),
    ("Australia/Lord_Howe", date(2026, 4, 5), 25), ("Australia/Lord_Howe", date(2026, 10, 4), 23),  # clocks change by half an hour
    ("Pacific/Apia", date(2026, 12, 30), 24),
])
def test_a_day_has_as_many_hours_as_start_in_it(db, zone, day, hours):
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - 30 * HOUR
    filled(db, {"delivery": hours_from(begin, 90), "reporting_time_zones": [row("reporting_time_zones", advertiser_id="a", time_zone=zone)]})
    [found] = [r for r in shown(db, "delivery_daily") if r["day"] == day]
    starts = [begin + k * HOUR for k in range(90)]
    assert found["hours"] == found["impressions"] == sum(s.astimezone(ZoneInfo(zone)).date() == day for s in starts) == hours


@pytest.mark.parametrize("zone, over", [("UTC", 24), ("Europe/Berlin", 22), ("Asia/Kolkata", 19), ("America/New_York", 28)])
def test_a_day_is_complete_when_its_last_hour_is_closed_and_not_before(db, zone, over):
    """``over``: the UTC hour of the 1st of July by which its hours are closed; Kolkata's last one begins at 18:00."""
    first = datetime(2026, 7, 1, tzinfo=UTC)
    zones = [row("reporting_time_zones", advertiser_id=None, time_zone=zone)]
    for closed in (over - 1, over):
        delivery = hours_from(first, closed) + hours_from(first + closed * HOUR, 40 - closed, status="provisional")
        filled(db, {"delivery": delivery, "reporting_time_zones": zones})
        [found] = [r for r in shown(db, "delivery_daily") if r["day"] == date(2026, 7, 1)]
        assert found["complete"] is (closed == over)
        assert found["status"] == ("final" if closed == over else "provisional")


# -- any rows -----------------------------------------------------------------------------------------------------------

_START = datetime(2026, 3, 28, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham"]
_TEXTS = {"advertiser_id": ["a", "b", "test:a"], "campaign_id": ["c1", "c2"], "line_item_id": ["l1", "l2", None],
          "format": ["display", "video", "audio", None], "currency": ["EUR", "USD", None]}


@st.composite
def delivery(draw) -> list[dict]:
    """Revisions of some rows: numbered apart, closed or not."""
    rows = {}
    for _ in range(draw(st.integers(0, 12))):
        dims = {name: draw(st.sampled_from(values)) for name, values in _TEXTS.items()}
        figures = {name: draw(st.integers(0, 50)) for name in COUNTS}
        status = draw(st.sampled_from(["provisional", "final", "restated"]))
        made = row("delivery", window_start=_START + draw(st.integers(0, 60)) * HOUR, status=status, revision=draw(st.integers(1, 5)),
                   restated_because="late" if status == "restated" else None, **dims, **figures)
        rows[tuple(made[c.name] for c in DELIVERY.key), made["revision"]] = made
    return list(rows.values())


@st.composite
def bookings(draw) -> list[dict]:
    made = []
    for n in range(draw(st.integers(0, 4))):
        metric, starts = draw(st.sampled_from(METRICS)), _START + timedelta(minutes=30 * draw(st.integers(0, 90)))
        made.append(row("bookings", booking_id=f"b{n}", advertiser_id=draw(st.sampled_from("ab")), campaign_id=draw(st.sampled_from(["c1", "c2"])),
                        line_item_id=draw(st.sampled_from(["l1", None])), metric=metric, goal=draw(st.integers(1, 200)), starts_at=starts,
                        ends_at=starts + timedelta(minutes=30 * draw(st.integers(1, 90))), cancelled=draw(st.integers(0, 4)) == 0,
                        currency=draw(st.sampled_from(["EUR", "USD"])) if metric == "spend_micros" else None))
    return made


def latest(rows: list[dict], key=DELIVERY.key) -> list[dict]:
    newest = {}
    for one in sorted(rows, key=lambda r: r["revision"]):
        newest[tuple(one[c.name] for c in key)] = one
    return [r for r in newest.values() if not r["advertiser_id"].startswith("test:")]


def until(rows: list[dict]) -> datetime | None:
    newest = {}
    for one in sorted(rows, key=lambda r: r["revision"]):
        newest[tuple(one[c.name] for c in DELIVERY.key)] = one
    return max((r["window_start"] + HOUR for r in newest.values() if r["status"] != "provisional"), default=None)


def sums(rows: list[dict], *by: str) -> dict[tuple, list]:
    found = defaultdict(lambda: [0] * len(COUNTS))
    for one in rows:
        found[tuple(one[c] for c in by)] = [a + one[c] for a, c in zip(found[tuple(one[c] for c in by)], COUNTS)]
    return dict(found)


@settings(max_examples=60)
@given(rows=delivery(), zones=st.dictionaries(st.sampled_from(["a", "b", None]), st.sampled_from(ZONES)))
def test_the_days_sum_to_the_hours_and_no_hour_is_in_two(db, rows, zones):
    filled(db, {"delivery": rows, "reporting_time_zones": [row("reporting_time_zones", advertiser_id=a, time_zone=z) for a, z in zones.items()]})
    days, hours, closed = shown(db, "delivery_daily"), latest(rows), until(rows)
    for one in hours:
        zone = ZoneInfo(zones.get(one["advertiser_id"], zones.get(None, "UTC")))
        one["day"] = one["window_start"].astimezone(zone).date()
        one["open"] = one["status"] == "provisional" or closed is None or closed.astimezone(zone).date() <= one["day"]
    key = ("day", *DIMENSIONS)
    assert sums(days, *key) == sums(hours, *key)
    assert sums(days, *DIMENSIONS) == sums(hours, *DIMENSIONS)
    for day in days:
        of_day = [h for h in hours if all(h[c] == day[c] for c in key)]
        found = [h["status"] for h in of_day]
        assert day["hours"] == len(found)
        assert (day["hours_provisional"], day["hours_restated"]) == (found.count("provisional"), found.count("restated"))
        assert day["status"] == next(s for s in ("provisional", "restated", "final") if s in found)
        assert day["complete"] == (not any(h["open"] for h in of_day))


@settings(max_examples=60)
@given(rows=delivery(), booked=bookings())
def test_pacing_is_the_sum_of_the_flights_hours_against_an_even_flight(db, rows, booked):
    filled(db, {"delivery": rows, "bookings": booked})
    found, closed, hours = {r["booking_id"]: r for r in shown(db, "pacing")}, until(rows), latest(rows)
    assert found.keys() == {b["booking_id"] for b in booked if not b["cancelled"]}
    for id_, one in found.items():
        [b] = [b for b in booked if b["booking_id"] == id_]
        flight = [h for h in hours if b["starts_at"] <= h["window_start"] < b["ends_at"]
                  and all(b[c] is None or h[c] == b[c] for c in ("advertiser_id", "campaign_id", "line_item_id", "currency"))]
        before = [h for h in flight if closed is not None and h["window_start"] < closed]
        assert one["delivered"] == sum(h[b["metric"]] for h in before)
        assert one["delivered"] + one["delivered_provisional"] == sum(h[b["metric"]] for h in flight)
        gone = timedelta() if closed is None else max(min(closed, b["ends_at"]) - b["starts_at"], timedelta())
        due = b["goal"] * gone / timedelta(seconds=1) / ((b["ends_at"] - b["starts_at"]) / timedelta(seconds=1))
        assert abs(one["expected"] - due) <= 0.5 + 1e-9
        assert one["flight"] == ("not_begun" if not gone else "ended" if gone == b["ends_at"] - b["starts_at"] else "running")
        assert one["pace"] is None if not due else one["pace"] == pytest.approx(one["delivered"] / due)
        assert one["remaining"] - one["over_delivery"] == b["goal"] - one["delivered"] and not one["remaining"] * one["over_delivery"]


@settings(max_examples=40)
@given(rows=delivery())
def test_rates_are_ratios_of_sums_at_each_grain_and_the_grains_agree(db, rows):
    found, hours = shown(filled(db, {"delivery": rows}), "rates"), latest(rows)
    counts = [c for c in COUNTS if c in found[0]] if found else []
    for grain in GRAINS:
        of_grain = [r for r in found if r["grain"] == grain]
        assert [sum(r[c] for r in of_grain) for c in counts] == [sum(h[c] for h in hours) for c in counts]
        assert len({tuple(r[k] for k in GRAINS[grain]) for r in of_grain}) == len(of_grain)
    for one in found:
        for rate, (part, whole) in RATES.items():
            n, d = eval(part, {}, one), one[whole]  # the view's own words: names of counts, and a minus
            if n >= 0:
                assert one[rate] == (None if d == 0 else f"{(20000 * n + d) // (2 * d) / 10000:.4f}")


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mean", ["avg", "sum", "stddev"])
def test_a_rate_cannot_be_averaged(db, rate, mean):
    with pytest.raises(duckdb.BinderException, match="No function matches"):
        db.execute(f"SELECT {mean}({rate}) FROM rates")


@st.composite
def credits(draw) -> list[dict]:
    rows = {}
    for _ in range(draw(st.integers(0, 10))):
        made = row("attribution", window_start=_START + draw(st.integers(0, 3)) * HOUR, advertiser_id=draw(st.sampled_from(["a", "b", "test:a"])),
                   campaign_id=draw(st.sampled_from(["c1", "c2", None])), model=draw(st.sampled_from(["last_touch", "linear"])),
                   currency=draw(st.sampled_from(["EUR", None])), conversions=Decimal(draw(st.integers(0, 5_000_000_000))).scaleb(-9),
                   value_micros=draw(st.integers(0, 900)), revision=draw(st.integers(1, 4)), status=draw(st.sampled_from(["final", "restated"])))
        rows[tuple(made[c.name] for c in ATTRIBUTION.key), made["revision"]] = made
    return list(rows.values())


@settings(max_examples=60)
@given(rows=delivery(), credited=credits())
def test_the_campaigns_sum_to_delivery_and_to_each_models_conversions(db, rows, credited):
    found = shown(filled(db, {"delivery": rows, "attribution": credited}), "campaign_summary")
    key = ("advertiser_id", "campaign_id", "currency")
    assert len({tuple(r[k] for k in key) for r in found}) == len(found)
    hours, earned = latest(rows), latest(credited, ATTRIBUTION.key)
    assert {k: v for k, v in sums(found, *key).items() if any(v)} == {k: v for k, v in sums(hours, *key).items() if any(v)}
    for model in ("last_touch", "linear"):
        for figure in ("conversions", "value_micros"):
            assert sum(r[f"{figure}_{model}"] or 0 for r in found) == sum(r[figure] for r in earned if r["model"] == model)
    assert sum(r["hours"] for r in found) == len(hours) + len(earned)


@settings(max_examples=60)
@given(rows=delivery(), credited=credits())
def test_what_was_shown_first_and_all_restatements_since_sum_to_the_latest(db, rows, credited):
    found = shown(filled(db, {"delivery": rows, "attribution": credited}), "restatements")
    for table, given_rows in ((DELIVERY, rows), (ATTRIBUTION, credited)):
        names = [c.name for c in table.key]
        for newest in latest(given_rows, table.key):
            history = sorted((r for r in given_rows if all(r[n] == newest[n] for n in names)), key=lambda r: r["revision"])
            if any(r["status"] != "restated" for r in history[1:]):
                continue  # an hour's own revisions while it was open are no restatements
            changes = [r for r in found if r["table_name"] == table.name and all(r[n] == newest[n] for n in names)]
            for figure in (c.name for c in table.values):
                first = 0 if history[0]["status"] == "restated" else history[0][figure]
                moved = [r for r in changes if r["figure"] == figure]
                assert first + sum(r["difference"] for r in moved) == newest[figure]
                assert all(r["new_value"] - r["old_value"] == r["difference"] != 0 for r in moved)
    assert not [r for r in found if r["advertiser_id"].startswith("test:")]
