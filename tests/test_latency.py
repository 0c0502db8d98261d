"""Latency from receipt to readable: counted by bucket, carried with what is published, told of by each sink, told of once."""

import math
from datetime import UTC, datetime
from types import SimpleNamespace

import apache_beam as beam
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud.bigtable_v2.types import MutateRowsResponse
from hypothesis import given
from hypothesis import strategies as st

from measurement.columnar.deltas import Deltas
from measurement.io.bigquery import AppendRowsResponse, WriteBigQuery
from measurement.io.bigquery_rows import message
from measurement.io.bigtable import WriteBigtable
from measurement.io.endpoints import Endpoints
from measurement.io.latency import Received, carried, carrying, rows_of
from measurement.io.publication import ipc, schema
from measurement.io.spool import ready
from measurement.local.warehouse import create_table, latest
from measurement.model.latency import BOUNDS_MS, BUCKETS, OLDEST, RESOLUTION, merged, no_receipts, quantile, receipts_of, waited
from measurement.model.policy import Counting
from measurement.model.tables import DELIVERY, LATENCY
from measurement.state.join import JoinShard
from measurement.transforms import join as join_stage
from measurement.transforms import totals as stage
from measurement.transforms.config import Rebuilding, RunConfig
from machines import Keyed
from oracle import HOUR, MINUTE
from test_oracle import T, click, conversion, impression
from test_state import absorb

NOW = T + HOUR
SECOND = 1_000_000
WAITS = st.lists(st.integers(0, 2 * 3_600_000), min_size=1, max_size=60)  # ms


# --- Buckets -------------------------------------------------------------------------------------------------

@given(WAITS, st.sampled_from([0.5, 0.99, 0.999, 1.0]) | st.floats(0.0, 1.0))
def test_a_quantile_of_the_counts_is_the_bucket_of_the_quantile_of_the_waits(waits, q):
    receipts = np.array([[(NOW - w * 1_000) // RESOLUTION, 1] for w in waits])
    kept = (NOW - receipts[:, 0] * RESOLUTION) / 1_000  # what the resolution leaves of them
    value = np.quantile(kept, q, method="inverted_cdf")
    assert quantile(waited(receipts, NOW), q) == next((b for b in BOUNDS_MS if value <= b), math.inf)


def test_of_no_events_there_is_no_quantile():
    assert quantile(waited(no_receipts(), NOW), 0.99) is None


@pytest.mark.parametrize(("seconds", "bound"), [(-5, 250), (0, 250), (0.25, 250), (0.3, 500), (60, 60_000), (60.1, 120_000), (3_600, 3_600_000),
                                                (3_600.1, None)])
def test_a_bound_is_in_its_bucket_and_no_wait_is_negative(seconds, bound):
    [[at]] = np.argwhere(waited(np.array([[NOW // RESOLUTION, 3]]), NOW + round(seconds * SECOND)))
    assert BUCKETS[at] == bound


def test_what_was_received_before_a_run_counts_from_its_begin():
    receipts = receipts_of(np.array([T - 200 * HOUR, NOW - 2 * SECOND]), NOW)
    counts = dict(zip(BUCKETS, waited(receipts, NOW, since=NOW - 10 * SECOND).tolist()))
    assert {bound: n for bound, n in counts.items() if n} == {2_000: 1, 10_000: 1}


@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(NOW - HOUR, NOW), max_size=50), st.integers(0, 50))
def test_receipts_are_few_tenths_whatever_is_stated_and_no_event_is_lost_or_told_twice(times, cut):
    whole, parts = receipts_of(np.array(times, np.int64), NOW), [receipts_of(np.array(some, np.int64), NOW) for some in (times[:cut], times[cut:])]
    assert whole[:, 1].sum() == len(times) and (whole[:, 1] > 0).all() and (np.diff(whole[:, 0]) > 0).all()
    assert merged(parts).tolist() == whole.tolist()
    tenths = whole[:, 0] * RESOLUTION
    assert ((tenths > NOW - OLDEST - RESOLUTION) & (tenths <= NOW)).all()
    exact = np.array([[min(max(t, NOW - OLDEST), NOW) // RESOLUTION, 1] for t in times], np.int64).reshape(-1, 2)
    assert waited(whole, NOW).tolist() == waited(exact, NOW).tolist()


# --- In the pipeline -----------------------------------------------------------------------------------------

def changes(rows: int, receipts: np.ndarray) -> Deltas:
    """Of ``rows`` rows of delivery."""
    made = Deltas.tally({(T, 0, f"adv-{n}", *[None] * 8): (1, *[0] * 11) for n in range(rows)})
    return Deltas(made.keys, made.hours, made.because, made.codes, made.counts, made.labels, receipts)


@given(st.integers(1, 30), st.integers(1, 9), st.lists(st.integers(NOW - HOUR, NOW), max_size=20))
def test_receipts_come_through_encoding_and_go_with_exactly_one_part(rows, shards, times):
    receipts = receipts_of(np.array(times, np.int64), NOW)
    was = changes(rows, receipts)
    again = Deltas.decode(was.encode())
    assert again.receipts.tolist() == receipts.tolist() and again.counts.tolist() == was.counts.tolist()
    parts = [part.receipts.tolist() for _, part in again.split(shards)]
    assert [part for part in parts if part] == ([receipts.tolist()] if len(receipts) else [])
    assert not len(again.take(np.arange(rows)).receipts)


def test_measured_is_what_delivery_counts_now_and_not_what_waits_comes_again_or_converts():
    keyed = Keyed(lambda: JoinShard(Counting()))
    received = iter(range(NOW, NOW + 100))

    def at(event: dict) -> dict:
        return event | {"received_time": next(received)}

    events = [impression("i", T), click("waits", T, "other"), conversion("c", T), impression("robot", T, user_agent="Googlebot/2.1"),
              click("in this batch", T, "later"), impression("later", T)]
    effects = absorb(keyed, *map(at, events))
    assert (effects.received - NOW).tolist() == [0, 3, 4, 5]
    effects = absorb(keyed, *map(at, [impression("i", T), impression("other", T), click("k", T, "i")]))
    assert (effects.received - NOW).tolist() == [7, 8]


def totals(config: RunConfig, monkeypatch):
    """(stage, a machine of a shard of delivery, publications by what they carry, a clock in s)"""
    clock = [100.0]
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    it = stage.Totals(config)
    machine = it.machine("delivery/0")

    def told(outputs) -> list[int]:
        return [int(sum(received.receipts[:, 1].sum() for received in carried([pa.ipc.open_stream(rows).read_all()]))) for _, rows in outputs]

    return it, machine, told, clock


def receipts(events: int) -> np.ndarray:
    return np.array([[NOW // RESOLUTION, events]])


def test_receipts_go_with_the_first_publication_behind_which_nothing_waits(monkeypatch):
    it, machine, told, clock = totals(RunConfig("carries", 1, 0), monkeypatch)
    assert told(it.absorb("delivery/0", machine, changes(3, receipts(5)))) == [5]
    clock[0] += 1
    assert told(it.absorb("delivery/0", machine, changes(2, receipts(7)))) == []
    other = changes(2, receipts(2))
    other.hours[:] = T + HOUR
    other.keys[:] += np.uint64(1)
    assert told(it.absorb("delivery/0", machine, other)) == []
    assert told(it.advance("delivery/0", machine, T + HOUR + 10 * MINUTE)) == [0]  # the other hour's rows wait still
    assert told(it.flush("delivery/0", machine)) == [9]
    assert told(it.absorb("delivery/0", machine, other)) == []
    assert told(it.advance("delivery/0", machine, T + 2 * HOUR + 10 * MINUTE)) == [2] and not machine.dirty
    assert told(it.flush("delivery/0", machine)) == []


def test_a_publication_has_a_name_that_a_repeated_write_of_it_bears():
    rows = pa.Table.from_pylist([], schema(DELIVERY))
    once, other = carrying(rows, receipts(1)), carrying(rows, receipts(1))
    again = [pa.ipc.open_stream(ipc(once)).read_all() for _ in range(2)]
    assert len({received.publication for received in carried([once, *again])}) == 1
    assert carried([once])[0].publication != carried([other])[0].publication
    assert carried([carrying(rows, no_receipts()), rows]) == []


def test_what_comes_from_an_archive_is_not_measured(monkeypatch):
    nothing = SimpleNamespace(latest=lambda table, since, until: [pa.Table.from_pylist([], schema(table))])
    it, machine, told, clock = totals(RunConfig("archived", 2, 0, rebuilding=Rebuilding(nothing, T)), monkeypatch)
    assert told(it.absorb("delivery/0", machine, changes(3, receipts(5)))) == []
    assert sum(told(it.advance("delivery/0", machine, stage._FIRST_MOVE))) == sum(told(it.flush("delivery/0", machine))) == 0
    clock[0] += 10
    assert told(it.absorb("delivery/0", machine, changes(3, receipts(6)))) == [6]


def test_a_run_on_prism_hands_every_receipt_on_once(prism, tmp_path, monkeypatch):
    from measurement.simulate import SimulateOptions, simulate
    from test_beam import on_prism

    measured = []

    def count(times, now):
        measured.append(receipts_of(times, now))
        return measured[-1]

    monkeypatch.setattr(join_stage, "receipts_of", count)
    simulate(SimulateOptions(events=20_000, seed=3, late_rate=0.05), tmp_path / "log")
    on_prism(prism, sorted((tmp_path / "log").glob("*.avro")), tmp_path / "spool")
    told = carried([pa.ipc.open_stream(path.read_bytes()).read_all() for path in ready(tmp_path / "spool")])
    assert len({received.publication for received in told}) == len(told)
    assert merged([received.receipts for received in told]).tolist() == merged(measured).tolist()
    assert sum(int(received.receipts[:, 1].sum()) for received in told) > 10_000


# --- Sinks ---------------------------------------------------------------------------------------------------

STORED: list[tuple[str, bytes]] = []  # (table, a row's message), of the fake that every worker of this process has


class Storing:
    """A write service that stores everything."""

    def create(self, table, timeout):
        return f"{table}/streams/1"

    def connect(self, name):
        return StoringConnection(name.split("/tables/")[1].split("/")[0])

    def close(self):
        pass


class StoringConnection:
    def __init__(self, table: str):
        self._table = table

    def send(self, request):
        STORED.extend((self._table, row) for row in request.proto_rows.rows.serialized_rows)

    def receive(self, timeout):
        return AppendRowsResponse.pb()()

    def close(self):
        pass


def store(request, timeout):
    answer = MutateRowsResponse.pb()()
    for i in range(len(request.entries)):
        answer.entries.add(index=i)
    return iter([answer])


def keep(element: tuple[str, bytes]) -> None:
    STORED.append(element)


def publication(seconds_ago: float, events: int) -> tuple[str, bytes]:
    row = dict.fromkeys((c.name for c in DELIVERY.columns), None) | dict.fromkeys((c.name for c in DELIVERY.values), 1) | {
        "window_start": T, "advertiser_id": "a", "status": "final", "rule_version": "r", "revision": 1, "published_at": T}
    received = np.array([[round((datetime.now(UTC).timestamp() - seconds_ago) * SECOND) // RESOLUTION, events]])
    return "delivery", ipc(carrying(pa.Table.from_pylist([row], schema(DELIVERY)), received))


def counters(result) -> dict[str, int]:
    found = result.metrics().query()["counters"]
    return {c.key.metric.name: c.committed for c in found if c.key.metric.namespace == "latency" and c.committed}


def test_bigquery_has_the_latency_behind_the_rows_and_what_bigtable_says_of_it():
    STORED.clear()
    from_bigtable = "latency", ipc(rows_of("bigtable", [Received("p", receipts(4))], NOW + SECOND))
    elements = [publication(50, 3), publication(50_000, 2), ("ledger", ipc(pa.Table.from_pylist([], schema(DELIVERY)))), from_bigtable]
    p = beam.Pipeline(runner=FnApiRunner())
    _ = p | beam.Create([elements]) | beam.FlatMap(list) | beam.ParDo(WriteBigQuery(Endpoints(), "p.d", Storing()))
    result = p.run()
    result.wait_until_finish()
    assert counters(result) == {"bigquery_60000": 3, "bigquery_longer": 2}
    tables = [table for table, _ in STORED]
    assert sorted(tables) == ["delivery"] * 2 + ["latency"] * 3
    rows = [message("latency").FromString(row) for table, row in STORED if table == "latency"]
    assert {(row.sink, row.at_most_ms if row.HasField("at_most_ms") else None, row.events) for row in rows} == {
        ("bigquery", None, 2), ("bigquery", 60_000, 3), ("bigtable", 1_000, 4)}
    own = [i for i, (table, row) in enumerate(STORED) if table == "latency" and message("latency").FromString(row).sink == "bigquery"]
    assert min(own) > max(i for i, table in enumerate(tables) if table == "delivery")
    assert len({row.publication for row in rows}) == 3


def test_bigtable_tells_when_all_of_its_mutations_are_done():
    p = beam.Pipeline(runner=FnApiRunner())
    told = p | beam.Create([publication(3, 6)]) | beam.ParDo(WriteBigtable(Endpoints(bigtable="127.0.0.1:1"), "projects/p/instances/i", store))
    _ = told | beam.Map(keep)
    STORED.clear()
    result = p.run()
    result.wait_until_finish()
    assert counters(result) == {"bigtable_5000": 6}
    [(name, stream)] = STORED
    [row] = pa.ipc.open_stream(stream).read_all().to_pylist()
    assert name == "latency" and (row["sink"], row["at_most_ms"], row["events"]) == ("bigtable", 5_000, 6)
    assert row["revision"] == row["readable_at"].timestamp() * 1_000 // 1


def test_a_publication_that_is_written_again_counts_once_as_it_was_last_and_whole():
    """Later it is in other buckets, of which a key each would count it twice."""
    both = Received("p", np.array([[NOW // RESOLUTION, 5], [NOW // RESOLUTION - 100, 4]]))
    written = [rows_of("bigquery", [both], NOW + SECOND), rows_of("bigquery", [both], NOW + 50 * SECOND),
               rows_of("bigquery", [both], NOW + 50 * SECOND), rows_of("bigtable", [both], NOW + SECOND)]
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute(create_table(LATENCY, "latency"))
        db.register("rows", pa.concat_tables(written))
        db.execute("INSERT INTO latency SELECT * FROM rows")
        found = db.execute(f"SELECT sink, at_most_ms, events FROM ({latest(LATENCY)}) ORDER BY ALL").fetchall()
    assert found == [("bigquery", 60_000, 9), ("bigtable", 1_000, 5), ("bigtable", 20_000, 4)]
