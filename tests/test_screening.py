"""Screening end to end: networks, rates and consent by any run against the oracle, and what a reader of events does."""

import dataclasses
from collections import Counter
from datetime import date
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle as slow
from machines import Engine, Keyed, Run, run
from measurement.columnar.records import ADDRESS, USER, Activity, Verdicts
from measurement.columnar.shards import SHIFT
from measurement.columnar.siphash import siphash
from measurement.model.events import INVALID_REASONS
from measurement.model.lists import ListFacts
from measurement.model.policy import Policy, PolicyError, load
from measurement.model.screening import Consent, Rate, Screening
from measurement.rules.networks import NetworkList
from measurement.rules.viewability import duration_weight
from measurement.state.rates import RatesShard
from oracle import DAY, DEDUP_HORIZON, HOUR, MINUTE, count
from oracle_attribution import attribution, credits
from strategies import GRANTS
from test_oracle import T, click, conversion, impression, json_event, push, viewability
from test_properties import LOGS, differing, engines, logs

NETWORKS = ("192.0.2.0/25", "192.0.2.200/32", "2001:db8::/32", "::/128", "::ffff:192.0.2.7/128")


def listed(name: str, reason: str, networks: tuple[str, ...]) -> NetworkList:
    return NetworkList(ListFacts(name, reason, "1", date(2026, 11, 1), len(networks), "12345678"), tuple(map(ip_network, networks)))


def rules(datacentre=(), of_list=(), user=None, ip=None, consent=(), otherwise="drop_user") -> tuple[Policy, slow.Screening]:
    """A policy, and the same for the oracle."""
    some = [(listed(f"{reason}.txt", reason, networks),) if networks else ()
            for reason, networks in (("datacentre", datacentre), ("listed", of_list))]
    asked = Consent(frozenset(consent), otherwise=otherwise) if consent else None
    screening = Screening(*some, rate=Rate(user, ip), consent=asked)
    known = {"per_user_hour": user, "per_ip_hour": ip}
    plain = [[n.replace("::ffff:192.0.2.7/128", "192.0.2.7/32") for n in networks] for networks in (datacentre, of_list)]
    return Policy(screening=screening), slow.Screening(
        *plain, required_in=list(consent), otherwise=otherwise,
        granted=lambda text: text in (GRANTS, f"DBABM~{GRANTS}"), **{k: n for k, n in known.items() if n is not None})


some_networks = st.lists(st.sampled_from(NETWORKS), max_size=3, unique=True).map(tuple)
screenings = st.builds(
    rules, some_networks, some_networks, st.sampled_from([None, 1, 2, 4]), st.sampled_from([None, 1, 3]),
    st.sampled_from([(), ("SE",), ("DE", "SE")]), st.sampled_from(["drop_user", "reject"]))


def same(job: Run, truth: slow.Oracle) -> None:
    assert differing(job.outputs.delivery(), truth.delivery()) == {}
    assert differing(job.outputs.ledger(), truth.ledger()) == {}
    assert differing(job.outputs.invalid_traffic(), truth.invalid_traffic()) == {}
    assert Counter(job.outputs.rejects) == Counter(truth.rejects())
    earned = credits(truth, None)
    assert differing(job.outputs.credits(), earned) == {}
    assert differing(job.outputs.attribution(), attribution(earned)) == {}


# --- Any run under any rules ---------------------------------------------------------------------------------

@given(logs(long=False), engines, screenings)
@LOGS
def test_any_run_over_a_day_screens_what_the_contract_says(log, engine, screening):
    files, arrivals = log
    policy, known = screening
    same(run(arrivals, files, engine, policy=policy), count(arrivals, files, screening=known))


@given(logs(long=True), engines, screenings)
@LOGS
def test_any_run_beyond_the_horizons_screens_what_the_contract_says(log, engine, screening):
    """But for rates that fall a dedup horizon of event time behind the join, while ids come again that it has forgotten: their
    verdicts find nobody any more (docs/design.md)."""
    files, arrivals = log
    policy, known = screening
    engine = dataclasses.replace(engine, rates_lag=False)
    same(run(arrivals, files, engine, policy=policy), count(arrivals, files, screening=known))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=40), st.randoms(use_true_random=False), engines)
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_no_order_no_batch_and_no_resend_changes_what_is_net(drawn, random, engine):
    """Events of few users, hours and addresses under rates, sent in order, and shuffled with some sent again."""
    policy, _ = rules(user=3, ip=5)
    events = []
    for n, (user, hour, ip) in enumerate(drawn):
        of = {"user_id": f"u{user}", "ip": f"192.0.2.{ip}", "advertiser_id": "a"}
        events += [impression(f"i{n}", T + hour * HOUR + n, **of), click(f"k{n}", T + hour * HOUR + n + 1, f"i{n}", **of)]
    # All within the allowed lateness of one watermark: it moves behind them, so none of them is late.
    ordered = run([(0, json_event(e)) for e in events], 1, Engine(frame=1_000), policy=policy)
    again = events + random.sample(events, len(events) // 3)
    random.shuffle(again)
    other = run([(0, json_event(e)) for e in again], 1, engine, policy=policy)
    for table in ("delivery", "invalid_traffic", "attribution", "conversion_credits"):
        assert other.outputs.latest(table) == ordered.outputs.latest(table)


# --- Worked examples -----------------------------------------------------------------------------------------

def published(*log: dict, policy: Policy, **engine):
    arrivals = [(0, json_event(event)) for event in log]
    return run(arrivals, 1, Engine(frame=1, **engine), policy=policy).outputs


def reasons(outputs) -> dict[tuple[str, str], int]:
    found: Counter = Counter()
    for key, n in outputs.invalid_traffic().items():
        found[key[-2:]] += n
    return dict(found)


@pytest.mark.parametrize("lag", [0.0, 1.0])
def test_a_rate_seen_late_restates_delivery_and_attribution(lag):
    policy, _ = rules(user=2)
    own = {"user_id": "u"}
    log = [impression("i", **own), conversion("c", T + MINUTE, **own), *push(T + 2 * HOUR), click("k", T + 2, **own)]
    outputs = published(*log, policy=policy, flushes=1.0, lag=lag)
    assert reasons(outputs) == {("impression", "rate"): 1, ("click", "rate"): 1, ("conversion", "rate"): 1}
    [rows] = outputs.revisions["delivery"].values()
    assert (rows[-1].status, rows[-1].because) == ("restated", "invalid_traffic") and rows[-1].counts[:2] == (1, 0)
    assert "c" not in {key[0] for key in outputs.credits()}


def test_what_stands_at_the_threshold_is_a_persons_and_one_more_is_not():
    policy, _ = rules(user=3)
    three = [impression(f"i{n}", T + n, user_id="u") for n in range(3)]
    assert reasons(published(*three, *three, policy=policy)) == {}
    assert reasons(published(*three, impression("i3", T + 3, user_id="u"), policy=policy)) == {("impression", "rate"): 4}
    assert reasons(published(*three, impression("i3", T + HOUR, user_id="u"), policy=policy)) == {}


def test_another_content_of_an_identity_is_no_more_activity_and_judged_with_it():
    """What is in conflict while the first is remembered stands when it comes again behind the horizon."""
    policy, known = rules(user=2)
    hour = T + DEDUP_HORIZON + HOUR // 2
    log = [impression("i", T), impression("i", hour, user_id="u"), *push(hour + 1), impression("i", hour + 1, user_id="u"),
           impression("j", hour, user_id="u")]
    arrivals = [(0, json_event(event)) for event in log]
    for last in [], [impression("k", hour, user_id="u")]:
        more = [(0, json_event(event)) for event in last]
        job, truth = run(arrivals + more, 1, Engine(frame=1), policy=policy), count(arrivals + more, 1, screening=known)
        same(job, truth)
        assert len(reasons(job.outputs)) == len(last)


def test_addresses_count_as_addresses_and_not_as_texts():
    policy, _ = rules(ip=2)
    log = [impression(f"i{n}", T + n, ip=ip) for n, ip in enumerate(["2001:db8::7", "2001:DB8:0::7%eth0", "2001:db8::0007"])]
    assert reasons(published(*log, policy=policy)) == {("impression", "rate"): 3}


def test_a_probes_events_do_not_count_towards_a_customers_rates():
    policy, _ = rules(user=2, ip=2)
    of = {"user_id": "u", "ip": "192.0.2.1"}
    log = [impression("i", **of), impression("j", **of), impression("p", test=True, **of), impression("q", test=True, **of)]
    assert reasons(published(*log, policy=policy)) == {}


def test_the_first_reason_that_holds_is_kept():
    policy, _ = rules(("192.0.2.0/24",), ("192.0.2.0/25", "198.51.100.0/24"), user=1)
    of = {"user_id": "u"}
    log = [impression("i", ip="192.0.2.1", **of), impression("j", ip="198.51.100.1", **of), impression("k", ip="203.0.113.1", **of),
           click("l", T + 1, "i")]
    assert reasons(published(*log, policy=policy)) == {
        ("impression", "datacentre"): 1, ("impression", "listed"): 1, ("impression", "rate"): 1, ("click", "datacentre"): 1}


def test_who_refuses_is_counted_and_credited_nothing():
    policy, _ = rules(consent=("SE",))
    of = {"user_id": "u", "country": "se"}
    log = [impression("i", **of), conversion("c", T + MINUTE, **of)]
    outputs = published(*log, policy=policy)
    assert [counts[:2] for counts in outputs.delivery().values()] == [(1, 1)]
    [(key, credit)] = outputs.credits().items()
    assert credit[0] == 10**9 and key[2] is None
    log = [{**event, "consent": GRANTS} for event in log]
    [(key, _)] = published(*log, policy=policy).credits().items()
    assert key[2] == "i"


def test_who_refuses_may_be_refused():
    policy, _ = rules(consent=("SE",), otherwise="reject")
    outputs = published(impression("i", country="SE"), impression("j"), impression("k", country="SE", time=T + 40 * DAY), policy=policy)
    assert [(reason, event_id) for reason, event_id, *_ in outputs.rejects] == [("consent_denied", "i"), ("consent_denied", "k")]


@pytest.mark.parametrize(("size", "percent", "viewable"), [
    ((970, 250), 30, 1), ((970, 250), 29, 0), ((970, 249), 30, 0), ((970, 249), 50, 1), ((2**31 - 1, 2**31 - 1), 30, 1),
    ((-970, -250), 30, 0), ((None, 250), 30, 0)])
def test_large_display_needs_thirty_per_cent(size, percent, viewable):
    width, height = size
    log = [impression(format="display", creative_width=width, creative_height=height),
           viewability(visible_percent=percent, visible_ms=1_000)]
    [counts] = published(*log, policy=Policy()).delivery().values()
    assert counts[3] == viewable


def test_the_weight_of_duration():
    assert duration_weight(15_000, 30_000) == duration_weight(1, 2) and duration_weight(40, 30) == 1 and duration_weight(0, 9) == 0
    for wrong in (1, 0), (-1, 5):
        with pytest.raises(ValueError):
            duration_weight(*wrong)


# --- Rates ---------------------------------------------------------------------------------------------------

_EVENTS = np.uint64(0xC2B2AE3D27D4EB4F)
_BACK = np.uint64(pow(0xC2B2AE3D27D4EB4F, -1, 1 << 64))


def activity(*rows: tuple[int, int, int], kind: int = USER) -> Activity:
    """(whose, event, time) each."""
    made = np.zeros(len(rows), Activity.DTYPE)
    made["hi"], made["id_hi"], made["time"] = np.array(rows, np.uint64).reshape(-1, 3).T
    made["hi"] *= np.uint64(0x9E3779B97F4A7C15)  # hashes, as they are
    made["id_hi"] *= _EVENTS
    made["digest"], made["kind"], made["route"] = 7, kind, made["id_hi"] >> np.uint64(SHIFT)
    return Activity(made)


def rates(user: int | None = 2, ip: int | None = None) -> Keyed:
    return Keyed(lambda: RatesShard(Rate(user, ip), DEDUP_HORIZON))


def told(keyed: Keyed, *rows, **kind) -> list[int]:
    """Event numbers judged."""
    verdicts = keyed.machine.absorb(activity(*rows, **kind)).rows
    keyed.commit()
    assert (verdicts["code"] == INVALID_REASONS.index("rate")).all()
    return sorted((verdicts["hi"] * _BACK).tolist())


def test_nobody_costs_more_than_the_threshold_and_one():
    keyed = rates(user=2)
    for n in range(200):
        told(keyed, *((1, 10 * n + k, T) for k in range(10)))
    assert keyed.machine.count == 3
    bytes_ = keyed.log_bytes()
    told(keyed, (1, 9_999, T))
    assert keyed.log_bytes() == bytes_


def test_a_rebuilt_machine_knows_who_is_beyond_the_threshold():
    keyed = rates(user=2)
    assert told(keyed, (1, 1, T), (1, 2, T), (2, 1, T)) == []
    keyed.lose()
    assert told(keyed, (1, 2, T), (2, 2, T)) == []
    assert told(keyed, (1, 3, T)) == [1, 2, 3]
    keyed.lose()
    assert told(keyed, (1, 4, T), (1, 4, T), (2, 3, T)) == [1, 2, 3, 4, 4]


def test_each_kind_has_its_own_threshold_and_no_threshold_is_none():
    keyed = rates(user=None, ip=1)
    assert told(keyed, (1, 1, T), (1, 2, T), (1, 3, T)) == []
    assert told(keyed, (2, 1, T), (2, 2, T), kind=ADDRESS) == [1, 2]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), max_size=30), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_rates_judge_the_same_in_any_batches(drawn, threshold, batch, lose):
    keyed, judged = rates(user=threshold), set()
    for at in range(0, len(drawn), batch):
        judged |= {(row["hi"], row["lo"]) for row in keyed.machine.absorb(activity(*((w, 10 * w + n, T) for w, n in drawn[at : at + batch]))).rows[["hi", "lo"]]}
        keyed.commit()
        if lose:
            keyed.lose()
    of = {w: {10 * w + n for v, n in drawn if v == w} for w, _ in drawn}
    assert {int(np.array(hi) * _BACK) for hi, _ in judged} == {n for events in of.values() if len(events) > threshold for n in events}


def test_rates_forget_what_no_event_can_come_for_and_keep_the_rest():
    keyed = rates(user=2)
    later = T + 12 * DAY  # in the slot of the first
    told(keyed, (1, 1, T), (1, 2, T), (2, 1, later), (2, 2, later))
    due = keyed.machine.next_due()
    keyed.machine.advance(due)
    keyed.commit()
    keyed.lose()
    assert keyed.machine.count == 2
    assert told(keyed, (2, 3, later)) == [1, 2, 3]
    keyed.machine.advance(keyed.machine.next_due())
    keyed.commit()
    assert keyed.machine.count == 0 and keyed.machine.next_due() is None and not any(keyed.bags.values())


# --- The keyed hash ------------------------------------------------------------------------------------------

_MASK = (1 << 64) - 1


def _plain_siphash(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4-128 as the paper has it, over bytes."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(x, by):
        return (x << by | x >> 64 - by) & _MASK

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & _MASK
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) & _MASK
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & _MASK
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & _MASK
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 255])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return first.to_bytes(8, "little") + (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def test_the_slow_hash_gives_the_published_vectors():
    """The reference implementation's vectors of the 128-bit form: key 00 01 … 0f, messages of none and one byte."""
    key = bytes(range(16))
    assert _plain_siphash(key, b"").hex() == "a3817f04ba25a8e66df67214c7550293"
    assert _plain_siphash(key, b"\0").hex() == "da87c1d86b99af44347659119b22fc45"


@given(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, _MASK), min_size=4, max_size=4))
def test_the_compiled_hash_is_the_slow_one(key, words):
    hashed = siphash(np.frombuffer(key, np.uint64), tuple(map(np.uint64, words)))
    message = b"".join(word.to_bytes(8, "little") for word in words)
    assert b"".join(int(half).to_bytes(8, "little") for half in hashed) == _plain_siphash(key, message)


# --- The policy file -----------------------------------------------------------------------------------------

def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "dc.txt").write_text("# date: 2026-11-01\n192.0.2.0/24\n")
    (tmp_path / "policy.yaml").write_text(text)
    return tmp_path / "policy.yaml"


def test_a_policy_names_its_lists_in_rule_version(tmp_path):
    path = written(tmp_path, "screening: {networks: [dc.txt], rate: {per_user_hour: 500}, consent: {required_in: [SE, 'NO'], vendor: 28, otherwise: reject}}")
    policy = load(path)
    assert " datacentre:dc.txt@2026-11-01#" in policy.rule_version and " robot:crawler-user-agents@" in policy.rule_version
    assert policy.screening.rate == Rate(500, None) and policy.screening.consent.asked.vendor == 28
    before = policy.rule_version
    (tmp_path / "dc.txt").write_text("# date: 2026-11-01\n192.0.3.0/24\n")
    assert load(path).rule_version != before


@pytest.mark.parametrize(("text", "says"), [
    ("screening: {networks: dc.txt}", "screening.networks: 'dc.txt' is no list of files"),
    ("screening: {networks: [7]}", "screening.networks: 7 is no file"),
    ("screening: {networks: [gone.txt]}", "gone.txt: No such file or directory"),
    ("screening: {listed: [policy.yaml]}", "policy.yaml, line 1: neither a network such as 192.0.2.0/24"),
    ("screening: {rate: {per_user_hour: 0}}", "screening.rate.per_user_hour: 0 is no whole number from 1 to 10,000,000"),
    ("screening: {rate: {per_hour: 5}}", "unknown key 'screening.rate.per_hour'"),
    ("screening: {rates: {}}", "unknown key 'screening.rates'"),
    ("screening: [1]", "screening must be a mapping of keys, not list"),
    ("screening: {consent: {vendor: 0}}", "screening.consent.required_in: must list the countries"),
    ("screening: {consent: {required_in: [NO]}}", "screening.consent.required_in: False is no country code such as DE (write \"NO\" in quotes)"),
    ("screening: {consent: {required_in: [Sweden]}}", "'Sweden' is no country code"),
    ("screening: {consent: {required_in: [SE], purposes: [25]}}", "screening.consent.purposes: 25 is no whole number from 1 to 24"),
    ("screening: {consent: {required_in: [SE], otherwise: drop}}", "'drop' is neither drop_user nor reject"),
    ("screening: {iab: {include: dc.txt}}", "screening.iab: include is used beside exclude alone"),
    ("counting: {viewability: {duration_weighting: true}}", "no count is weighted by duration yet"),
])
def test_a_wrong_policy_is_one_line(tmp_path, text, says):
    with pytest.raises(PolicyError) as error:
        load(written(tmp_path, text))
    assert says in str(error.value) and "\n" not in str(error.value)


# --- Travelling ----------------------------------------------------------------------------------------------

def test_records_come_back_as_they_went():
    some = activity((1, 2, T), (3, 4, T + 1), kind=ADDRESS)
    assert (Activity.decode(some.encode()).rows == some.rows).all()
    assert len(Activity.decode(activity().encode())) == 0
    assert Verdicts.decode(Verdicts(np.zeros(3, Verdicts.DTYPE)).encode()).rows.tobytes() == bytes(3 * Verdicts.DTYPE.itemsize)
    with pytest.raises(ValueError):
        Verdicts.decode(some.encode())
