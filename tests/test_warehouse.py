"""What a later generation publishes into the local warehouse: what differs, restated where it had been closed, and zeros."""

import time
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from books import H, HOUR, attributed, credit

from measurement.io.latency import carrying
from measurement.io.publication import ipc, schema
from measurement.local.inputs import Source
from measurement.local.warehouse import Warehouse
from measurement.model.revisions import revision
from measurement.model.tables import ATTRIBUTION, CREDITS, TABLES, TOTALS
from measurement.monitors.ledger import micros

MINUTE = timedelta(minutes=1)
SOURCE = Source("e.jsonl", "/e.jsonl", 1, "sha", 0, False)
ENDED = micros(H + 10 * HOUR)


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(tmp_path)


def run(warehouse: Warehouse, *credits: dict, state: str = "complete") -> list[tuple]:
    """A generation that produces these credits and their sums; the rows that it published."""
    generation = warehouse.begin([SOURCE], {}, "rules", micros(H))
    attribution = [r | {"status": credits[0]["status"]} for r in attributed(list(credits))]
    for name, rows in (("conversion_credits", credits), ("attribution", attribution)):
        stamped = [r | {"revision": revision(generation, 1), "rule_version": f"rules {generation}"} for r in rows]
        stream = ipc(pa.Table.from_pylist(stamped, schema(TABLES[name])))
        (warehouse.out / f"{name}.1.x.arrow").write_bytes(stream)
    assert warehouse.take(warehouse.out, generation, None) == 2
    warehouse.finish(generation, state, ENDED, 7)
    with warehouse.read() as db:
        return db.execute(
            "SELECT conversion_id, touch_id, campaign_id, credit, value_micros, status, restated_because, rule_version, revision "
            f"FROM conversion_credits WHERE revision > {revision(generation, 0)} ORDER BY conversion_time, touch_id").fetchall()


def latest(warehouse: Warehouse, table) -> dict[tuple, tuple]:
    """Sums of the rows that are not zeros."""
    with warehouse.read() as db:
        columns = [c.name for c in (*table.identity, *table.values)]
        rows = db.execute(f"SELECT {', '.join(columns)} FROM {table.name}_latest").fetchall()
    split = len(table.identity)
    return {row[:split]: row[split:] for row in rows if any(row[split:])}


def by_touch(id_: str, at, *touches: tuple[str, str, int], **other) -> list[dict]:
    return [credit(id_, at, "linear", touch, share, value) | other for touch, share, value in touches]


FIRST = [*by_touch("c1", H + MINUTE, ("t1", "1", 9)), *by_touch("c2", H + 2 * MINUTE, ("t1", "1", 5))]
ONE, HALF = Decimal(1), Decimal("0.5")
T = {"t1": "of t1", "t2": "of t2"}


def published(conversion, touch, share, value, status, because, generation, n=1):
    return conversion, touch, T.get(touch), share, value, status, because, f"rules {generation}", revision(generation, n)


def test_a_run_that_makes_the_same_again_publishes_nothing(warehouse):
    assert len(run(warehouse, *FIRST)) == 2
    assert run(warehouse, *FIRST) == []


def test_credit_that_moved_is_restated_and_what_lost_it_becomes_zero(warehouse):
    run(warehouse, *FIRST)
    moved = [*by_touch("c1", H + MINUTE, ("t1", "0.5", 5), ("t2", "0.5", 4)), *by_touch("c2", H + 2 * MINUTE, ("t2", "1", 5))]
    assert run(warehouse, *moved) == [
        published("c1", "t1", HALF, 5, "restated", "rebuild", 2), published("c1", "t2", HALF, 4, "restated", "rebuild", 2),
        published("c2", "t1", 0, 0, "restated", "rebuild", 2)[:-2] + ("rules", revision(2, 7)),
        published("c2", "t2", ONE, 5, "restated", "rebuild", 2)]
    credits = latest(warehouse, CREDITS)
    assert sorted(credits.values()) == [(HALF, 4), (HALF, 5), (ONE, 5)]
    assert sorted(latest(warehouse, ATTRIBUTION).values()) == [(HALF, 5), (Decimal("1.5"), 9)]


def test_a_touch_told_of_otherwise_is_another_row_of_which_one_stands(warehouse):
    run(warehouse, *FIRST)
    run(warehouse, *(r | {"creative_id": "cr"} for r in FIRST))
    with warehouse.read() as db:
        rows = db.execute("SELECT conversion_id, creative_id, credit FROM conversion_credits_latest ORDER BY ALL").fetchall()
    assert rows == [("c1", "cr", ONE), ("c1", None, 0), ("c2", "cr", ONE), ("c2", None, 0)]
    assert [(key[4], *sums) for key, sums in latest(warehouse, ATTRIBUTION).items()] == [("cr", 2, 14)]


def test_a_conversion_in_an_hour_that_was_closed_is_restated_and_in_another_it_is_not(warehouse):
    run(warehouse, *FIRST)
    more = [*FIRST, *by_touch("c3", H + 59 * MINUTE, ("t1", "1", 1)), *by_touch("c4", H + HOUR, ("t1", "1", 1))]
    assert run(warehouse, *more) == [published("c3", "t1", ONE, 1, "restated", "rebuild", 2), published("c4", "t1", ONE, 1, "final", None, 2)]


def test_a_provisional_row_is_published_at_its_close_and_is_none_that_was_closed(warehouse):
    open_ = [r | {"status": "provisional"} for r in FIRST]
    run(warehouse, *open_)
    assert run(warehouse, *FIRST, *by_touch("c3", H + 3 * MINUTE, ("t1", "1", 1))) == [
        published(id_, "t1", ONE, value, "final", None, 2) for id_, value in (("c1", 9), ("c2", 5), ("c3", 1))]


def test_rows_of_zeros_that_nobody_stored_are_not_published(warehouse):
    run(warehouse, *FIRST)
    assert run(warehouse, *FIRST, *by_touch("c1", H + MINUTE, ("t2", "0", 0))) == []


def test_a_run_that_failed_changes_nothing(warehouse):
    run(warehouse, *FIRST)
    before = latest(warehouse, CREDITS), latest(warehouse, ATTRIBUTION)
    assert run(warehouse, *by_touch("c1", H + MINUTE, ("t2", "1", 9)), state="failed") == []
    assert before == (latest(warehouse, CREDITS), latest(warehouse, ATTRIBUTION))


def test_latency_is_told_of_what_can_be_read_and_of_nothing_that_is_staged(warehouse):
    rows = carrying(pa.Table.from_pylist([FIRST[0] | {"revision": 1, "rule_version": "rules"}], schema(CREDITS)), np.array([[0, 5]]))
    for generation in 1, 2:
        warehouse.begin([SOURCE], {}, "rules", time.time_ns() // 1_000 - 7_000_000)
        (warehouse.out / "conversion_credits.1.x.arrow").write_bytes(ipc(rows))
        assert warehouse.take(warehouse.out, generation, None) == 1
        with warehouse.read() as db:
            assert db.execute("SELECT sink, at_most_ms, events FROM latency").fetchall() == [("duckdb", 10_000, 5)]
            assert db.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'staged' AND table_name IN ('latency', 'audits', 'sla')").fetchall() == [(0,)]
        warehouse.finish(generation, "complete", ENDED, 7)


def test_every_table_and_view_is_there_with_its_meaning(warehouse):
    warehouse.begin([SOURCE], {}, "rules", micros(H))
    with warehouse.read() as db:
        for table in TABLES.values():
            for name in (table.name, f"{table.name}_latest"):
                assert [row[0] for row in db.execute(f"DESCRIBE {name}").fetchall()] == [c.name for c in table.columns]
        types = dict(db.execute("SELECT column_name, column_type FROM (DESCRIBE conversion_credits)").fetchall())
        assert types["credit"] == "DECIMAL(38,9)" and types["touch_time"] == "TIMESTAMP WITH TIME ZONE"
        comments = dict(db.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall())
    assert "Key: conversion_id, model, touch_id." in comments["conversion_credits"]
    assert set(TOTALS) >= {"conversion_credits", "attribution"}
