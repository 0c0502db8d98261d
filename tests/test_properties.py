"""Any log, cut into any frames, over any shards, with late timers and machines lost: the oracle's final rows.

No Beam here: `machines.run` is an engine that may do whatever an engine is free to do.
"""

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from machines import Engine, run
from oracle import count, heads_of, identity_of
from strategies import event_logs, interleavings

CALM = Engine()
BUSY = dict(event_shards=3, delivery_shards=2, frame=7, lag=0.4, timers=0.5, flushes=0.3)


def arrivals(**kinds):
    """(number of files, (file, event or end) in the order of arrival)."""
    return event_logs(**kinds).flatmap(lambda files: st.tuples(st.just(len(files)), interleavings(files)))


def same(log, engine: Engine, verdicts=None):
    files, events = log
    oracle = count(events, files)
    job = run(events, files, engine)
    assert job.outputs.delivery() == oracle.delivery()
    assert job.outputs.ledger() == oracle.ledger()
    assert Counter(job.outputs.rejects) == Counter(oracle.rejects())
    return job


@settings(max_examples=150)
@given(arrivals(), st.integers(0, 2**32))
def test_any_log_in_any_frames_over_any_shards_gives_the_oracles_rows(log, seed):
    same(log, Engine(seed=seed, **BUSY))


@settings(max_examples=100)
@given(arrivals(long=True), st.integers(0, 2**32))
def test_logs_beyond_the_horizons_forget_exactly_what_the_oracle_forgets(log, seed):
    same(log, Engine(seed=seed, **BUSY))


@settings(max_examples=100)
@given(arrivals(), st.integers(0, 2**32))
def test_calls_that_fail_and_machines_that_are_lost_change_no_row(log, seed):
    same(log, Engine(seed=seed, crashes=0.3, **BUSY))


@settings(max_examples=60)
@given(arrivals(long=False, wrong=False), st.integers(0, 2**32))
def test_frames_shards_and_timing_change_nothing_at_all(log, seed):
    calm, busy = same(log, CALM).outputs, same(log, Engine(seed=seed, **BUSY)).outputs
    assert calm.delivery() == busy.delivery() and calm.ledger() == busy.ledger()


@settings(max_examples=60)
@given(arrivals(), st.integers(0, 2**32))
def test_the_three_counts_agree_and_revisions_rise(log, seed):
    outputs = same(log, Engine(seed=seed, **BUSY)).outputs
    decided = defaultdict(int)
    for (hour, source, kind, _), events in outputs.ledger().items():
        decided[hour, source, kind] += events
    assert decided == outputs.arrivals()
    assert sum(decided.values()) == sum(events for _, events, _ in outputs.latest("intake").values())
    for table in ("delivery", "ledger"):
        for rows in outputs.revisions[table].values():
            numbers = [row.number for row in rows]
            assert numbers == sorted(set(numbers))
            order = [("provisional", "final", "restated").index(row.status) for row in rows]
            assert order == sorted(order) and order.count(1) <= 1
            assert all(bool(row.because) == (row.status == "restated") for row in rows)


@settings(max_examples=60)
@given(arrivals(long=False, wrong=False), st.data())
def test_a_verdict_given_later_restates_as_if_it_had_been_known_at_first(log, data):
    from oracle import Oracle

    files, events = log
    oracle = Oracle(files, heads=heads_of(events, files))
    identities = []
    for file, received in events:
        if received is None:
            oracle.end_file(file)
        else:
            oracle.receive(file, received)
            event = oracle.arrivals[-1].event
            if event is not None:
                identities.append(identity_of(event))
    if not identities:
        return
    given_ = data.draw(st.lists(st.tuples(st.sampled_from(identities), st.sampled_from(["", "datacentre", "rate"])), min_size=1, max_size=4))
    for identity, reason in given_:
        oracle.judge_identity(identity, reason)
    oracle.finish()
    assert events[-1][1] is None  # the stream's end, behind which nothing is remembered
    job = run(events, files, Engine(seed=data.draw(st.integers(0, 999)), event_shards=2), {len(events) - 1: given_})
    assert job.outputs.delivery() == oracle.delivery()
    assert job.outputs.ledger() == oracle.ledger()

