"""Each check on conversions holds on books that are right and names what is wrong in books that are not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import duckdb
import pytest
from books import H, HOUR, Books, arrow, attributed, credit, right, row, rows_of

from measurement.local.summary import show_reconciled
from measurement.local.warehouse import create_table, latest
from measurement.model.policy import Counting
from measurement.model.sql import duckdb as in_duckdb
from measurement.model.tables import TABLES
from measurement.monitors.ledger import Query, Result, balance, micros
from measurement.monitors.levels import Levels
from measurement.monitors.status import of_tables

COUNTED = "valid conversions in the ledger = conversions credited"
WHOLE = "of each conversion and model: 1, or 0 if it no longer stands = sum of credit"
WORTHLESS = "of each conversion and model that no longer stands: 0 = sum of value_micros"
MODELS = "of each conversion: least = most value that its models credit"
CREDIT = "sum of credit in conversion_credits = conversions in attribution"
VALUE = "sum of value_micros in conversion_credits = value_micros in attribution"
EXPLAINED = "gross - net impressions = invalid impressions by reason"
REASONED = "invalid impressions and conversions in the ledger = in invalid_traffic"
NANO = Decimal("0.000000001")


@contextmanager
def stored(books: Books) -> Iterator[Query]:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, rows in arrow(books).items():
            db.execute(create_table(TABLES[name], name))
            db.execute(f"CREATE VIEW {name}_latest AS {latest(TABLES[name])}")
            db.register("rows", rows)
            db.execute(f"INSERT INTO {name} SELECT * FROM rows")
        yield lambda sql: db.execute(in_duckdb(sql)).fetchall()


def checked(books: Books, state: str = "complete") -> Result:
    with stored(books) as query:
        return balance(query, "main", state, Counting.join_horizon)


def failed(books: Books, state: str = "complete") -> dict[str, list[tuple]]:
    return {check.says: wrong for check, wrong in checked(books, state).failures}


def both(change: Callable[[Books], None]) -> Books:
    """Books in which attribution is the sum of conversion_credits as they were changed."""
    books = right()
    change(books)
    return books | {"attribution": attributed(books["conversion_credits"])}


def test_right_books_hold():
    result = checked(right())
    assert result.holds and result.outcomes == {"counted": 6, "invalid_traffic": 2}


def test_no_conversions_hold_in_empty_tables():
    books = right() | {"conversion_credits": [], "attribution": []}
    for name in ("ledger", "arrivals"):
        books[name] = [r for r in books[name] if r["event_type"] != "conversion"]
    books["intake"][0]["events"] = 3
    assert checked(books).holds


def test_gross_less_net_that_no_reason_explains():
    books = right()
    books["invalid_traffic"][0]["advertiser_id"] = "b"
    assert failed(books) == {EXPLAINED: [(H, "a", *[None] * 8, 1, 0), (H, "b", *[None] * 8, 0, 1)]}


def test_invalid_events_that_no_reason_explains():
    books = right()
    books["invalid_traffic"][1]["events"] = 2
    assert checked(books).unbalanced == ["invalid in the ledger 2, in invalid_traffic 3"]
    books = right()
    books["invalid_traffic"][0]["event_type"] = "conversion"
    assert REASONED in failed(books)


def test_rejects_that_have_expired_are_not_missed_and_others_are():
    def told(since, **event):
        books, time, outcome = right(), event.get("time", H), event.get("outcome", "orphan")
        refused = {"source": "s", "event_type": "click", "window_start": time, "events": 2}
        books["intake"][0] |= {"events": 10, "received_hour": event.get("began", H - 3 * HOUR)}
        books["arrivals"].append(row("arrivals", **refused))
        books["ledger"].append(row("ledger", outcome=outcome, **refused))
        books["rejects"] = [row("rejects", reject_id=str(i), reason=outcome, event_time=time, payload=b"", encoding="json",
                                source="s", source_position="1", received_at=H) for i in range(event.get("there", 1))]
        with stored(books) as query:
            return [wrong for _, wrong in balance(query, "main", "complete", Counting.join_horizon, since and micros(since)).failures]
    assert told(None) == [[(H, "orphan", 2, 1)]] == told(H - HOUR)  # of two, one is not there
    assert told(H) == []  # received before the hour, one may have expired
    assert told(H, there=3) == [[(H, "orphan", 2, 3)]]  # more than there were are never right
    assert told(H - HOUR, outcome="future") == told(H - HOUR, outcome="undecodable", time=None) == []
    for since, began in (None, H - 3 * HOUR), (H, H + HOUR):  # nothing expires, or nothing has yet
        assert told(since, began=began, outcome="future") == [[(H, "future", 2, 1)]]
        assert told(since, began=began, outcome="undecodable", time=None) == [[(None, "undecodable", 2, 1)]]


def test_older_revisions_do_not_count():
    books = right()
    for name in ("conversion_credits", "attribution"):
        sums = [c.name for c in TABLES[name].values]
        books[name] += [r | dict.fromkeys(sums, 9) | {"revision": 0} for r in books[name]]
    assert checked(books).holds


@pytest.mark.parametrize("off", [NANO, -NANO])
def test_credit_that_is_not_whole(off):
    def change(books):
        rows_of(books, "two models", "linear")[1]["credit"] += off
    assert failed(both(change)) == {WHOLE: [(H, "a", "two models", "linear", 1, 1 + off)]}


def test_credits_that_cancel_out_do_not_stand_for_none():
    def change(books):
        for one, share in zip(rows_of(books, "two models", "last_touch"), (1, -1)):
            one["credit"] = Decimal(share)
    assert failed(both(change)) == {WHOLE: [(H, "a", "two models", "last_touch", 1, 0)]}


def test_credit_of_a_conversion_that_no_longer_stands():
    def change(books):
        rows_of(books, "earlier", "linear")[0]["credit"] = Decimal("0.25")
    assert failed(both(change)) == {WHOLE: [(H, "a", "earlier", "linear", 1, Decimal("0.25"))], COUNTED: [(H, 4, 5)]}


def test_value_of_a_conversion_that_no_longer_stands():
    def change(books):
        rows_of(books, "earlier", "linear")[0]["value_micros"] = 5
    assert failed(both(change)) == {WORTHLESS: [(H, "a", "earlier", "linear", 0, 5)]}


def test_models_that_credit_different_values():
    def change(books):
        rows_of(books, "two models", "last_touch")[1]["value_micros"] += 1
    assert failed(both(change)) == {MODELS: [(H, "a", "two models", 10, 11)]}


def test_a_conversion_that_was_not_credited():
    def change(books):
        books["conversion_credits"] = [r for r in books["conversion_credits"] if r["conversion_id"] != "later"]
    assert failed(both(change)) == {COUNTED: [(H + HOUR, 1, 0)]}


def test_a_conversion_that_nobody_counted():
    def change(books):
        books["conversion_credits"].append(credit("more", H + timedelta(minutes=59, microseconds=-1), "linear", None, "1", 0))
    assert failed(both(change)) == {COUNTED: [(H, 4, 5)]}


@pytest.mark.parametrize("column, check, off", [("conversions", CREDIT, NANO), ("value_micros", VALUE, 1)])
def test_an_attribution_row_that_is_not_the_sum(column, check, off):
    books = right()
    at = next(r for r in books["attribution"] if r["model"] == "linear" and r["campaign_id"] == "of t2")
    was = at[column]
    at[column] += off
    key = (H, "a", "of t2", None, None, None, "buy", "linear", "click", "EUR")
    assert failed(books) == {check: [(*key, was, was + off)]}


def test_an_attribution_row_that_is_missing_or_of_another_dimension():
    books = right()
    books["attribution"] = [r for r in books["attribution"] if r["window_start"] == H]
    key = (H + HOUR, "a", "of t1", None, None, None, "buy", "last_touch", "click", "EUR")
    assert failed(books) == {CREDIT: [(*key, 1, 0)], VALUE: [(*key, 2**60, 0)]}
    books = right()
    books["attribution"][0]["placement_id"] = "p"
    assert [len(wrong) for wrong in failed(books).values()] == [2, 2]


def test_under_way_only_the_hours_that_wait_for_nothing_are_compared():
    books = right()
    rows_of(books, "two models", "linear")[1]["credit"] += NANO
    assert failed(books, "running") == {}
    books["delivery"].append(books["delivery"][0] | {"window_start": H + 26 * HOUR})
    assert failed(books, "running").keys() == {WHOLE, CREDIT}
    assert failed(right() | {"delivery": books["delivery"]}, "running") == {}


def test_what_is_wrong_reads_well(capsys):
    books = right()
    rows_of(books, "two models", "linear")[1]["credit"] -= NANO * 10
    next(r for r in books["attribution"] if r["value_micros"] == 2**60)["value_micros"] += 1000
    show_reconciled(checked(books))
    said = capsys.readouterr().out.splitlines()
    assert f"does not hold: {WHOLE}" in said
    hour = "window_start 2026-03-02T06:00:00Z, advertiser_id a"
    assert f"  {hour}, conversion_id two models, model linear: 1 against 0.99999999" in said
    rest = "line_item_id NULL, creative_id NULL, placement_id NULL, conversion_type buy"
    assert f"  {hour}, campaign_id of t2, {rest}, model linear, touch_type click, currency EUR: 0.333333323 against 0.333333333" in said
    assert any(line.endswith(": 1,152,921,504,606,846,976 against 1,152,921,504,606,847,976") for line in said)


def test_status_tells_how_many_conversions_were_credited_and_how_many_to_a_touch():
    with stored(right()) as query:
        status = of_tables(query, "main", balance(query, "main", "complete", Counting.join_horizon), 1, H, H, Levels([], None, False, {}))
    assert (status.credited, status.touched, status.balanced) == (5, 3, True)
