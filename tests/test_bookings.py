"""A file of bookings is taken whole or not at all, a bad line is named, and what is loaded again is a revision."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from zoneinfo import available_timezones

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement import cli_bookings
from measurement.failure import Failure
from measurement.local.inputs import Source
from measurement.local.warehouse import Warehouse
from measurement.model.bookings import BOOKINGS, METRICS, TIME_ZONES
from measurement.reporting.bookings import BadBookings, read
from measurement.reporting.loading import Loaded, load

GOOD = {"booking_id": "b1", "advertiser_id": "a", "campaign_id": "c", "metric": "impressions", "goal": 1000,
        "starts_at": "2026-03-02T00:00:00+01:00", "ends_at": "2026-03-09T00:00:00Z"}
WHOLE = GOOD | {"starts_at": datetime(2026, 3, 1, 23, tzinfo=UTC), "ends_at": datetime(2026, 3, 9, tzinfo=UTC), "line_item_id": None,
                "currency": None, "cancelled": False}


def jsonl(tmp_path, *lines) -> list[dict]:
    path = tmp_path / "bookings.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return read(path)


def csv(tmp_path, text: str) -> list[dict]:
    path = tmp_path / "bookings.csv"
    path.write_bytes(text.encode())
    return read(path)


def test_both_forms_say_the_same(tmp_path):
    other = GOOD | {"booking_id": "b, \"2\"", "line_item_id": "l", "metric": "spend_micros", "currency": "EUR", "cancelled": True}
    expected = [WHOLE, WHOLE | {k: other[k] for k in ("booking_id", "line_item_id", "metric", "currency", "cancelled")}]
    assert jsonl(tmp_path, GOOD, "", other) == expected
    names = [*GOOD, "line_item_id", "currency", "cancelled"]
    quoted = ",".join(f'"{str(other[n]).replace(chr(34), chr(34) * 2)}"' for n in names)
    text = "\r\n".join([",".join(names), ",".join(str(GOOD.get(n, "")) for n in names), "", quoted, ""])
    assert csv(tmp_path, text) == csv(tmp_path, "\ufeff" + text) == expected


@pytest.mark.parametrize("wrong, said", [
    ({"goal": "x"}, "goal x: not a whole number below 2^63"), ({"goal": 1.5}, "goal 1.5: not a whole number"),
    ({"goal": 0}, "goal 0: not 1 or more"), ({"goal": 2**63}, "not a whole number below 2^63"), ({"goal": True}, "goal True: not a whole number"),
    ({"metric": "views"}, f"metric views: not one of {', '.join(METRICS)}"),
    ({"starts_at": "2026-03-02"}, "starts_at 2026-03-02: not a time with its offset"),
    ({"starts_at": "2026-03-02T00:00:00"}, "starts_at 2026-03-02T00:00:00: not a time with its offset"),
    ({"ends_at": "2026-02-30T00:00:00Z"}, "ends_at 2026-02-30T00:00:00Z: day is out of range"), ({"ends_at": 7}, "ends_at 7: not a time"),
    ({"ends_at": GOOD["starts_at"]}, "ends_at: not after starts_at"),
    ({"advertiser_id": "test:a"}, "advertiser_id test:a: a probe's"), ({"booking_id": ""}, "booking_id: missing"),
    ({"campaign_id": None}, "campaign_id: missing"), ({"campaign_id": 7}, "campaign_id 7: not a text"),
    ({"metric": "spend_micros"}, "currency: spend_micros needs one"), ({"currency": "EUR"}, "currency: impressions has none"),
    ({"metric": "spend_micros", "currency": "eur"}, "currency eur: not three capital letters"),
    ({"cancelled": "yes"}, "cancelled yes: neither true nor false"), ({"budget": 7}, "budget: not one of booking_id,"),
])
def test_a_bad_line_is_named_with_its_field(tmp_path, wrong, said):
    with pytest.raises(BadBookings) as caught:
        jsonl(tmp_path, GOOD, GOOD | {"booking_id": "b2"} | wrong)
    assert str(caught.value).startswith(f"{tmp_path}/bookings.jsonl: line 2: ") and said in str(caught.value)


def test_every_bad_line_is_named(tmp_path):
    with pytest.raises(BadBookings) as caught:
        jsonl(tmp_path, "nonsense", GOOD, "[1]", GOOD | {"goal": -1}, GOOD, '{"goal": 1, "goal": 2}')
    said = str(caught.value).removeprefix(f"{tmp_path}/bookings.jsonl: ").split("; ")
    assert [s.partition(": ")[0] for s in said] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert said[1:] == ["line 3: not a JSON object", "line 4: goal -1: not 1 or more", "line 5: booking_id b1: also in line 2",
                        "line 6: goal: twice"]


@pytest.mark.parametrize("text, said", [
    ("booking_id,goal\nb1,1\n", "line 1: advertiser_id: missing"), ("booking_id,booking_id\n", "line 1: booking_id: twice"),
    ("booking_id,price\n", "line 1: price: not one of"), (f"{','.join(GOOD)}\nb1,a,c\n", "line 2: 3 fields, and the header has 7"),
    (f"{','.join(GOOD)}\n\n\"b1,a\n", "line 3: unexpected end of data"),
    (f"{','.join(GOOD)}\nb1,a,c,clicks,1e3,2026-03-02T00:00Z,2026-03-03T00:00Z\n", "line 2: goal 1e3: not a whole number"),
])
def test_a_bad_csv_is_told_by_its_line(tmp_path, text, said):
    with pytest.raises(BadBookings, match=said):
        csv(tmp_path, text)


def test_a_file_that_is_none_is_named(tmp_path):
    for name, said in (("b.xlsx", "neither .csv nor .jsonl"), ("b.csv", "No such file"), ("c.csv", "not UTF-8 at byte 2")):
        if name == "c.csv":
            (tmp_path / name).write_bytes(b"ab\xff")
        with pytest.raises(BadBookings, match=f"{name}: {said}"):
            read(tmp_path / name)


@given(st.lists(st.text(max_size=40), max_size=5), st.sampled_from(["csv", "jsonl"]))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, lines, suffix):
    path = tmp_path_factory.mktemp("any") / f"b.{suffix}"
    path.write_bytes("\n".join([",".join(GOOD)] * (suffix == "csv") + lines).encode("utf-8", "surrogatepass"))
    try:
        assert all(r.keys() == {c.name for c in BOOKINGS.body} for r in read(path))
    except BadBookings as error:
        assert str(error).splitlines() == [str(error)]


# -- revisions ----------------------------------------------------------------------------------------------------------

def test_only_what_is_new_or_other_is_appended_and_above_what_is_there():
    appended = []

    def append(table, changes):
        assert table is BOOKINGS
        appended.extend(changes([WHOLE | {"revision": 900}, WHOLE | {"booking_id": "b2", "revision": 5000}]))

    rows = [WHOLE, WHOLE | {"booking_id": "b2", "cancelled": True}, WHOLE | {"booking_id": "b3"}]
    assert load(BOOKINGS, rows, 1000, append) == Loaded(1, 1, 1)
    assert [(r["booking_id"], r["revision"]) for r in appended] == [("b2", 5001), ("b3", 5001)]


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    made = Warehouse(tmp_path)
    made.begin([Source("e.jsonl", "/e.jsonl", 1, "sha", 0, False)], {}, "rules", 1)
    made.finish(1, "complete", 2, 1)
    return made


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "measurement.cli", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_by_command_a_file_is_loaded_whole_or_not_at_all(warehouse, tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(GOOD))
    done = command("bookings", "load", path, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 bookings: 1 new, 0 changed, 0 as they were\n")
    path.write_text(f"{json.dumps(GOOD | {'goal': 7})}\n{json.dumps(GOOD | {'booking_id': 'b2', 'goal': 'x'})}\n")
    done = command("bookings", "load", path, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"measurement: {path}: line 2: goal x: not a whole number below 2^63\n"
    with warehouse.read() as db:
        assert db.execute("SELECT goal, revision = epoch_us(published_at) FROM bookings").fetchall() == [(1000, True)]


def test_what_people_load_outlives_later_runs(warehouse, tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(GOOD))
    cli_bookings.load_bookings(path, "local", tmp_path, None)
    cli_bookings.set_time_zone("Europe/Berlin", "a", "local", tmp_path, None)
    generation = warehouse.begin([Source("e.jsonl", "/e.jsonl", 1, "sha", 0, False)], {}, "rules", 3)
    with warehouse.read() as db:
        staged = {name for [name] in db.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'staged'").fetchall()}
    warehouse.finish(generation, "complete", 4, 1)
    assert "delivery" in staged and not staged & {BOOKINGS.name, TIME_ZONES.name}
    with warehouse.read() as db:
        assert db.execute("SELECT goal FROM bookings_latest").fetchall() == [(1000,)]
        assert db.execute("SELECT advertiser_id, time_zone FROM reporting_time_zones_latest").fetchall() == [("a", "Europe/Berlin")]


def test_a_warehouse_from_before_the_tables_gets_them(warehouse, tmp_path):
    with warehouse.write() as db:
        for view in ("pacing", "rates", "delivery_daily", "bookings_latest", "reporting_time_zones_latest"):
            db.execute(f"DROP VIEW {view}")
        db.execute("DROP TABLE bookings; DROP TABLE reporting_time_zones")
    cli_bookings.set_time_zone("Asia/Kolkata", None, "local", tmp_path, None)
    with warehouse.read() as db:
        assert db.execute("SELECT advertiser_id, time_zone FROM reporting_time_zones").fetchall() == [(None, "Asia/Kolkata")]
        assert db.execute("SELECT count(*) FROM pacing").fetchall() == [(0,)]


def test_where_nothing_ran_nothing_is_loaded(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(Failure, match="no warehouse.duckdb there"):
        cli_bookings.load_bookings(path, "local", tmp_path / "nowhere", None)
    with pytest.raises(Failure, match="--out is needed"):
        cli_bookings.load_bookings(path, "local", None, None)
    with pytest.raises(Failure, match="--bigquery is needed"):
        cli_bookings.load_bookings(path, "gcp", None, None)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("zone", ["", "Berlin", "europe/berlin", "+01:00", "localtime", "Factory", "../etc/passwd"])
def test_a_zone_that_is_none_is_refused(zone, tmp_path):
    with pytest.raises(Failure, match="not a time zone of IANA's database"):
        cli_bookings.set_time_zone(zone, None, "local", tmp_path, None)


def test_duckdb_knows_every_zone_that_is_taken():
    known = {name for [name] in duckdb.sql("SELECT name FROM pg_timezone_names()").fetchall()}
    assert available_timezones() - {"localtime", "Factory"} <= known
