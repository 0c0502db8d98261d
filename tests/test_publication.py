"""Totals as public rows and back: every table's columns, times and decimals to the last digit."""

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement.columnar import numeric, stored
from measurement.columnar.deltas import LATE, Deltas
from measurement.io.publication import ipc, of_revisions, schema
from measurement.local.warehouse import create_table
from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_HOUR, MIN_TIME_MICROS
from measurement.model.revisions import revision
from measurement.model.tables import ATTRIBUTION, CREDITS, DELIVERY, TIMESTAMP, TOTALS
from measurement.state.totals import PROVISIONAL, RESTATED, Revisions
from measurement.transforms import totals as stage
from measurement.transforms.config import RunConfig

T = 1_772_409_600_000_000
MOST = 2**63 - 1
TIMES = st.sampled_from([MIN_TIME_MICROS, -1, 0, T + 123_456, MAX_TIME_MICROS - MAX_TIME_MICROS % MICROS_PER_HOUR])
SUMS = st.sampled_from([0, 1, -1, 10**9, 333_333_333, MOST, -MOST - 1])


def revisions_of(deltas: Deltas) -> Revisions:
    n = len(deltas)
    status = np.arange(n) % 3
    because = np.where(status == RESTATED, LATE, 0)
    return Revisions(deltas.hours, deltas.codes, deltas.counts, status, because, np.arange(n), deltas.labels)


@st.composite
def totals(draw, table):
    """Changes of a table: {(hour, because, *texts): sums}."""
    optional = [st.none()] * (table.time == "window_start")
    texts = [TIMES.map(str) if c.type == TIMESTAMP else st.text(max_size=3) for c in table.texts]
    key = st.tuples(st.one_of(*optional, TIMES), st.just(0), *(st.one_of(st.none(), t) for t in texts))
    return draw(st.dictionaries(key, st.tuples(*(SUMS for _ in table.values)), min_size=1, max_size=6))


@pytest.mark.parametrize("table", [t for t in TOTALS.values() if t is not DELIVERY], ids=lambda t: t.name)
@given(data=st.data())
def test_stored_rows_are_the_totals_that_they_were_made_of(table, data):
    made = Deltas.tally(data.draw(totals(table)))
    rows = of_revisions(table, revisions_of(made), 1, "rules", T)
    rows.validate(full=True)
    for read in (rows, pa.ipc.open_stream(ipc(rows)).read_all(), pa.concat_tables([rows.slice(0, 1), rows.slice(1)])):
        again, closed = stored.of_rows(table, read, "")
        assert np.array_equal(again.keys, made.keys) and np.array_equal(again.hours, made.hours)
        assert np.array_equal(again.counts, made.counts)
        named = [[[None if c < 0 else d.labels[c] for c in row] for row in d.codes.tolist()] for d in (made, again)]
        assert named[0] == named[1]
        assert closed.tolist() == [not table.stated or n % 3 != PROVISIONAL for n in range(len(made))]


def test_the_columns_of_a_credit():
    touched = ("c1", "linear", "t1", "buy", "a", "click", str(T - 1), "camp", None, None, None, "EUR")
    untouched = ("c2", "linear", None, "buy", "a", None, None, None, None, None, None, None)
    made = Deltas.tally({(T + 5, 0, *touched): (333_333_333, 7), (T + 6, 0, *untouched): (10**9, 0)})
    rules = pa.array(["rules 1", "rules 2"])
    rows = of_revisions(CREDITS, revisions_of(made), 2, rules, T + 99)
    assert rows.column_names == [c.name for c in CREDITS.columns]
    at = lambda micros: datetime.fromtimestamp(micros / 1e6, UTC)  # noqa: E731
    common = {"published_at": at(T + 99), "restated_because": None}
    assert rows.to_pylist() == [
        dict.fromkeys(rows.column_names) | common | {
            "conversion_id": "c1", "model": "linear", "touch_id": "t1", "conversion_time": at(T + 5), "conversion_type": "buy",
            "advertiser_id": "a", "touch_type": "click", "touch_time": at(T - 1), "campaign_id": "camp",
            "credit": Decimal("0.333333333"), "value_micros": 7, "currency": "EUR", "status": "provisional",
            "rule_version": "rules 1", "revision": revision(2, 0)},
        dict.fromkeys(rows.column_names) | common | {
            "conversion_id": "c2", "model": "linear", "conversion_time": at(T + 6), "conversion_type": "buy", "advertiser_id": "a",
            "credit": Decimal("1"), "value_micros": 0, "status": "final", "rule_version": "rules 2", "revision": revision(2, 1)}]


@pytest.mark.parametrize("table", [CREDITS, ATTRIBUTION], ids=lambda t: t.name)
def test_through_the_warehouse_they_come_back_the_same(table):
    texts = [str(T - 7) if c.type == TIMESTAMP else None if n % 2 else c.name for n, c in enumerate(table.texts)]
    required = [c.name if c.required else t for c, t in zip(table.texts, texts)]
    made = Deltas.tally({(T, 0, *required): (1, MOST), (T + MICROS_PER_HOUR, 0, *required): (MOST, -1)})
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute(create_table(table, table.name))
        db.register("rows", of_revisions(table, revisions_of(made), 1, "rules", T))
        db.execute(f"INSERT INTO {table.name} SELECT * FROM rows")
        again, closed = stored.of_rows(table, db.sql(f"SELECT * FROM {table.name}").to_arrow_table(), "")
    assert np.array_equal(again.keys, made.keys) and np.array_equal(again.counts, made.counts)
    assert closed.tolist() == [False, True]


@pytest.mark.parametrize("table", TOTALS.values(), ids=lambda t: t.name)
def test_no_totals_are_no_rows(table):
    none = Revisions(np.empty(0, np.int64), np.empty((0, len(table.texts)), np.int32), np.empty((0, len(table.values)), np.int64),
                     np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), [])
    rows = of_revisions(table, none, 1, "rules", T)
    assert rows.schema == schema(table) and rows.num_rows == 0
    assert len(stored.of_rows(table, rows, "")[0]) == 0


@given(st.lists(st.one_of(SUMS, st.integers(-MOST - 1, MOST)), max_size=20), st.integers(0, 5))
def test_units_are_decimals_of_nine_digits(units, start):
    column = numeric.of_units(np.array(units, np.int64))
    column.validate(full=True)
    assert column.to_pylist() == [Decimal(n).scaleb(-9) for n in units]
    assert numeric.to_units(pa.chunked_array([column.slice(start), column.slice(0, start)])).tolist() == units[start:] + units[:start]


@pytest.mark.parametrize("wrong", [Decimal(2**63).scaleb(-9), Decimal("-1e12"), None])
def test_a_sum_beyond_int64_is_refused(wrong):
    with pytest.raises(ValueError, match="a sum is"):
        numeric.to_units(pa.chunked_array([pa.array([wrong], numeric.TYPE)]))


def test_the_first_change_after_a_pause_is_published_at_once_and_others_with_those_of_every_key(monkeypatch):
    clock = [1_000.125]
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    config = RunConfig("cadence", 1, 0, publish_seconds=0.5)
    worker, other = stage.Totals(config), stage.Totals(config)  # of one process
    machines = {key: worker.machine(key) for key in ("ledger", "intake")}
    texts = {"ledger": ("source", "click", "counted"), "intake": ("source",)}

    def change(key: str, of: stage.Totals = worker) -> list:
        counts = (1,) * len(stage.TOTALS[key].values)
        return [table for table, _ in of.absorb(key, machines[key], Deltas.tally({(T, 0, *texts[key]): counts}))]

    assert change("ledger") == ["ledger"]
    clock[0] = 1_000.25
    assert change("ledger") == [] and change("ledger", other) == []
    assert change("intake") == ["intake"]  # its own first
    assert change("intake") == []
    assert worker.flush_in("ledger") == other.flush_in("ledger") == worker.flush_in("intake") == 0.25
    clock[0] = 1_000.5
    assert [table for table, _ in worker.flush("ledger", machines["ledger"])] == ["ledger"]
    assert worker.flush_in("ledger") == 0.5 and worker.flush_in("intake") == 0
    assert [table for table, _ in worker.flush("ledger", machines["ledger"])] == []  # nothing has changed
    clock[0] = 1_003.0
    assert change("intake", other) == ["intake"]
