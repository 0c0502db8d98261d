"""The pipeline's kernels and state machines against the slow oracle: any log, whatever an engine does with it."""

from collections import Counter
from math import inf
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from machines import Engine, Outputs, Run, run
from measurement.model.attribution import parse
from measurement.model.policy import Policy
from oracle import HOUR, MINUTE, Oracle, Received, count, heads_of, identity_of, judge_one
from oracle_attribution import attribution, credits
from strategies import event_logs, interleavings
from test_oracle_attribution import policies

LATENESS = 10 * MINUTE  # allowed

LOGS = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def logs(**options):
    """(number of files, the log in an order of arrival)."""
    return event_logs(**options).flatmap(lambda files: st.tuples(st.just(len(files)), interleavings(files)))


engines = st.builds(
    Engine,
    seed=st.integers(0, 2**16),
    event_shards=st.integers(1, 3),
    user_shards=st.integers(1, 3),
    delivery_shards=st.integers(1, 3),
    frame=st.sampled_from([1, 3, 10, 1_000]),
    lag=st.sampled_from([0.0, 0.5, 1.0]),
    timers=st.sampled_from([0.0, 0.3, 1.0]),
    flushes=st.sampled_from([0.0, 0.3]),
    crashes=st.sampled_from([0.0, 0.05, 0.3]),
)


def same_figures(job: Run, oracle: Oracle) -> None:
    assert job.outputs.delivery() == oracle.delivery()
    assert job.outputs.ledger() == oracle.ledger()
    assert Counter(job.outputs.rejects) == Counter(oracle.rejects())
    same_credits(job, oracle, None)


def same_credits(job: Run, oracle: Oracle, policy) -> None:
    earned = credits(oracle, policy)
    assert differing(job.outputs.credits(), earned) == {}
    assert differing(job.outputs.attribution(), attribution(earned)) == {}


def differing(ours: dict, theirs: dict) -> dict:
    return {key: (ours.get(key), theirs.get(key)) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


def credited_by(policy) -> Policy:
    return Policy(attribution=parse(Path("policy.yaml"), policy))


# --- What is counted -----------------------------------------------------------------------------------------

@given(logs(long=False), engines)
@LOGS
def test_any_run_over_a_day_counts_what_the_contract_says(log, engine):
    files, arrivals = log
    same_figures(run(arrivals, files, engine), count(arrivals, files))


@given(logs(long=True), engines)
@LOGS
def test_any_run_beyond_the_horizons_counts_what_the_contract_says(log, engine):
    files, arrivals = log
    same_figures(run(arrivals, files, engine), count(arrivals, files))


@given(logs(long=False), engines, st.data())
@LOGS
def test_a_verdict_given_later_counts_as_if_it_had_been_known(log, engine, data):
    files, arrivals = log
    verdicts = data.draw(verdicts_on(arrivals))
    same_figures(run(arrivals, files, engine, verdicts), judged(arrivals, files, verdicts))


@st.composite
def verdicts_on(draw, arrivals) -> dict:
    """Verdicts by the place in the log before which they are given; none behind the end, when all is forgotten."""
    identities = [
        identity_of(event) for _, received in arrivals if received is not None
        for event in [judge_one(received)] if isinstance(event, dict)
    ]
    assume(identities)
    given_at = draw(st.lists(st.tuples(
        st.integers(0, max(i for i, (_, received) in enumerate(arrivals) if received is not None)), st.sampled_from(identities), st.sampled_from(["datacentre", "rate", "rate", ""]),
    ), min_size=1, max_size=8))
    verdicts: dict = {}
    for place, identity, reason in sorted(given_at, key=lambda verdict: verdict[0]):
        verdicts.setdefault(place, []).append((identity, reason))
    return verdicts


def judged(arrivals, files, verdicts) -> Oracle:
    oracle = count(arrivals, files)
    for place in sorted(verdicts):
        for identity, reason in verdicts[place]:
            oracle.judge_identity(identity, reason)
    return oracle


# --- What is credited ----------------------------------------------------------------------------------------

@given(logs(), engines, policies)
@LOGS
def test_any_run_under_any_policy_credits_what_the_contract_says(log, engine, policy):
    files, arrivals = log
    same_credits(run(arrivals, files, engine, policy=credited_by(policy)), count(arrivals, files), policy)


@given(logs(long=False), engines, policies, st.data())
@LOGS
def test_a_verdict_given_later_is_credited_as_if_it_had_been_known(log, engine, policy, data):
    files, arrivals = log
    verdicts = data.draw(verdicts_on(arrivals))
    same_credits(run(arrivals, files, engine, verdicts, credited_by(policy)), judged(arrivals, files, verdicts), policy)


@given(logs(wrong=False), engines, policies)
@LOGS
def test_a_conversions_credits_sum_to_it_at_each_publication_of_its_hour(log, engine, policy):
    files, arrivals = log
    outputs = run(arrivals, files, engine, policy=credited_by(policy)).outputs
    for status in ("final", None):
        latest = {}
        for key, rows in outputs.revisions["conversion_credits"].items():
            rows = [row for row in rows if status is None or row.status == status]
            if rows:
                of = *key[:3], key[5]  # time, conversion, model, advertiser
                latest.setdefault(of, []).append(max(rows, key=lambda row: row.number).counts[0])
        assert {sum(credits) for credits in latest.values()} <= {0, 10**9}


# --- How it is published -------------------------------------------------------------------------------------

@given(logs(), engines)
@LOGS
def test_a_rows_revisions_rise_from_provisional_to_one_final_to_restated(log, engine):
    files, arrivals = log
    outputs = run(arrivals, files, engine).outputs
    for table in outputs.revisions.values():
        for rows in table.values():
            numbers = [row.number for row in rows]
            assert numbers == sorted(set(numbers))
            order = ["provisional", "final", "restated"]
            assert [row.status for row in rows] == sorted((row.status for row in rows), key=order.index)
            assert sum(row.status == "final" for row in rows) <= 1
            for row in rows:
                assert (row.because != "") == (row.status == "restated")


@given(logs(), engines)
@LOGS
def test_a_final_row_holds_exactly_what_was_read_before_the_close(log, engine):
    files, arrivals = log
    outputs = run(arrivals, files, engine).outputs
    delivery, ledger = at_the_close(arrivals, files)
    assert finals(outputs, "delivery") == delivery
    assert finals(outputs, "ledger") == {key: (events,) for key, events in ledger.items()}


def finals(outputs: Outputs, table: str) -> dict[tuple, tuple[int, ...]]:
    found = {key: row.counts for key, rows in outputs.revisions[table].items() for row in rows if row.status == "final"}
    return {key: counts for key, counts in found.items() if any(counts)}


def at_the_close(arrivals: list[tuple[int, Received | None]], files: int) -> tuple[dict, dict]:
    """Each delivery and ledger row as it stood when the watermark passed its hour's close."""
    oracle = Oracle(files, heads=heads_of(arrivals, files))
    closed: tuple[dict, dict] = ({}, {})
    passed = oracle.watermark.now()
    for file, received in arrivals:
        if received is not None:
            oracle.receive(file, received)
        now = oracle.delivery(), {key: events for key, events in oracle.ledger().items() if key[3] != "waiting"}
        if received is None:
            oracle.end_file(file)  # waits end with it, behind the close
        for rows, at_close in zip(now, closed):
            for key, counts in rows.items():
                close = inf if key[0] is None else key[0] + HOUR + LATENESS
                if passed < close <= oracle.watermark.now():
                    at_close[key] = counts
        passed = oracle.watermark.now()
    return closed


# --- Nothing is lost -----------------------------------------------------------------------------------------

@given(logs(), engines)
@LOGS
def test_what_was_received_was_decoded_and_stands_in_the_ledger(log, engine):
    files, arrivals = log
    outputs = run(arrivals, files, engine).outputs
    received = sum(event is not None for _, event in arrivals)
    assert sum(events for _, events, _ in outputs.latest("intake").values()) == received
    decided: Counter = Counter()
    for (hour, source, event_type, _), events in outputs.ledger().items():
        decided[hour, source, event_type] += events
    assert decided == outputs.arrivals()
    assert sum(decided.values()) == received


@given(logs(), engines)
@LOGS
def test_an_event_is_rejected_once(log, engine):
    files, arrivals = log
    outputs = run(arrivals, files, engine).outputs
    assert len(outputs.reject_ids) == len(set(outputs.reject_ids)) == len(outputs.rejects)
