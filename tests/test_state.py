"""The machines' memory: what is kept, logged, rebuilt and forgotten, and what an hour's rows go through."""

import numpy as np
import pytest

from measurement.columnar.batch import DIMS, ROW, EventBatch
from measurement.columnar.decode import blobs
from measurement.columnar.deltas import Deltas
from measurement.model.events import MICROS_PER_HOUR as HOUR
from measurement.model.policy import Counting
from measurement.model.revisions import revision, tick
from measurement.state.join import JoinShard
from measurement.state.ring import SLOTS
from measurement.state.totals import FINAL, PROVISIONAL, RESTATED, TotalsShard

DAY = 24 * HOUR
START = 20_000 * DAY
LATENESS = Counting().allowed_lateness


def impressions(first: int, count: int, time: int, watermark: int, rng) -> EventBatch:
    """Impressions of random identities, in one of 50 combinations of dimensions."""
    rows = np.zeros(count, ROW)
    rows["id_hi"], rows["id_lo"] = rng.integers(0, 2**63, (2, count))
    rows["digest"] = np.arange(first, first + count)
    rows["time"], rows["watermark"], rows["schema"] = time + rng.integers(0, HOUR, count), watermark, -1
    rows["dims"] = rng.integers(0, 50, count)
    dims = np.zeros(50, DIMS)
    dims["hi"] = np.arange(50)
    dims["codes"] = np.arange(50)[:, None] % 7
    return EventBatch(rows, dims, blobs([b"payload"] * count), [f"label{i}" for i in range(7)])


def tallies(*rows) -> Deltas:
    """Ledger changes of (hour, because code, source, events)."""
    return Deltas.tally("ledger", {(hour, because, source): (n,) for hour, because, source, n in rows})


def totals() -> TotalsShard:
    return TotalsShard(1, 1, LATENESS, 9 * DAY)


def published(revisions) -> list[tuple]:
    return [(int(s), int(b), int(c[0])) for s, b, c in zip(revisions.status, revisions.because, revisions.counts)]


def test_an_hour_is_provisional_then_final_and_late_events_restate_it():
    machine = totals()
    machine.absorb(tallies((START, 0, "a", 5)))
    assert published(machine.flush(1)) == [(PROVISIONAL, 0, 5)]
    machine.absorb(tallies((START, 0, "a", 2)))
    machine.absorb(tallies((START, 1, "a", 1)))  # late by the watermark, though no timer has said so yet
    final, restated = machine.advance(START + HOUR + LATENESS, 2)
    assert published(final) == [(FINAL, 0, 7)] and published(restated) == [(RESTATED, 1, 8)]
    machine.absorb(tallies((START, 2, "a", -3)))
    assert published(machine.flush(3)) == [(RESTATED, 2, 5)]
    assert machine.flush(4) is None


def test_a_row_that_only_late_events_made_begins_restated():
    machine = totals()
    machine.absorb(tallies((START, 1, "a", 1)))
    assert machine.flush(1) is None
    (restated,) = machine.advance(START + HOUR + LATENESS, 2)
    assert published(restated) == [(RESTATED, 1, 1)]


def test_a_restored_totals_machine_publishes_what_the_lost_one_would_have():
    machine, log = totals(), []
    for hour in range(30):
        machine.absorb(tallies((START + hour * HOUR, 0, f"s{hour % 3}", hour + 1)))
        log += machine.take_changes().appended
    copy = totals()
    copy.restore(run for _, run in sorted(log, key=lambda entry: entry[0]))
    until = START + 20 * HOUR
    assert sorted(sum((published(r) for r in copy.advance(until, 9)), [])) == sorted(sum((published(r) for r in machine.advance(until, 9)), []))


def test_a_totals_log_that_holds_many_times_its_rows_is_written_anew():
    machine, slot = totals(), []
    for _ in range(20_000):
        machine.absorb(tallies((START, 0, "a", 1)))
        changes = machine.take_changes()
        if changes.cleared:
            slot = []
        slot += [run for _, run in changes.appended]
    assert sum(map(len, slot)) < 3 * 2**20
    copy = totals()
    copy.restore(slot)
    assert published(copy.flush(1)) == [(PROVISIONAL, 0, 20_000)]


def test_a_join_forgets_everything_behind_the_horizon_in_memory_and_in_the_log():
    machine, bags, rng = JoinShard(Counting()), {}, np.random.default_rng(1)
    most = 0
    for day in range(40):
        watermark = START + day * DAY
        machine.absorb(impressions(day * 1_000, 1_000, watermark, watermark, rng))
        machine.advance(watermark)
        changes = machine.take_changes()
        for slot in changes.cleared:
            bags.pop(slot, None)
        for slot, run in changes.appended:
            assert 0 <= slot < SLOTS
            bags.setdefault(slot, []).append(run)
        most = max(most, machine.count)
    assert most <= 11_000  # the horizon's 8 days, a bucket at each end
    copy = JoinShard(Counting())
    copy.restore(run for runs in bags.values() for run in runs)
    assert copy.count == machine.count
    machine.advance(2**63 - 1)
    assert (machine.count, machine.labels, machine.row_keys.rows, machine.next_due()) == (0, [], 0, None)


def test_an_event_far_ahead_shares_a_slot_and_survives_its_clearing():
    counting = Counting()
    machine, rng = JoinShard(counting), np.random.default_rng(2)
    near = impressions(0, 10, START, START, rng)
    far = impressions(10, 10, START + SLOTS * machine.buckets.width, START, rng)
    bags = {}
    for act in (lambda: machine.absorb(near), lambda: machine.absorb(far), lambda: machine.advance(START + 10 * DAY)):
        act()
        changes = machine.take_changes()
        for slot in changes.cleared:
            bags.pop(slot, None)
        for slot, run in changes.appended:
            bags.setdefault(slot, []).append(run)
    copy = JoinShard(counting)
    copy.restore(run for runs in bags.values() for run in runs)
    assert machine.count == copy.count == 10
    for it in (machine, copy):
        outcomes = it.absorb(far).ledger
        assert sum(n for (*_, outcome), n in outcomes.items() if outcome == "duplicate") == 10


def test_what_a_batch_writes_does_not_grow_with_what_is_remembered():
    machine, rng, written = JoinShard(Counting()), np.random.default_rng(3), []
    for i in range(40):
        machine.absorb(impressions(i * 2_000, 2_000, START, START, rng))
        written.append(sum(len(run) for _, run in machine.take_changes().appended))
    assert max(written[1:]) <= 1.05 * min(written[1:])


def test_an_identity_costs_no_more_than_48_bytes_besides_the_joins_payload():
    assert JoinShard(Counting()).state_bytes()["identity"] <= 48


def test_revisions_stay_below_2_to_the_53_and_rise_with_time():
    assert revision(1, 0) == 2**32
    assert revision(3, tick(1_000_000, 0)) == 3 * 2**32 + 20
    for generation, n in ((0, 0), (2**21, 0), (1, 2**32)):
        with pytest.raises(ValueError):
            revision(generation, n)
