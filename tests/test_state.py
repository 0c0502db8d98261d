"""The state machines by worked examples: what is published when, what is remembered and for how long, and the log."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from machines import Engine, Keyed, decoded, frames, heads, run
from measurement.columnar.batch import NO_WATERMARK, EventBatch
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE, ON_TIME, Deltas
from measurement.columnar.intake import Origin, take_in
from measurement.columnar.records import Verdicts
from measurement.columnar.screen import Screen
from measurement.io.watermark import END, FileWatermark
from measurement.model.events import INVALID_REASONS
from measurement.model.policy import Counting, Policy
from measurement.model.revisions import revision, tick
from measurement.state import totals
from measurement.state.identities import IDENTITY, Identities
from measurement.state.join import JoinShard
from measurement.state.join_kernel import FREE, PLACEHOLDER
from measurement.state.orders import OrdersShard
from measurement.state.ring import SLOTS
from measurement.state.totals import FINAL, PROVISIONAL, RESTATED, TotalsShard
from oracle import DAY, HOUR, MINUTE, DEDUP_HORIZON, JOIN_HORIZON
from strategies import event_logs, interleavings
from test_oracle import T, click, conversion, follow_up, impression, json_event, push

CLOSE = T + HOUR + 10 * MINUTE  # of the hour that begins at T
BUCKET = DAY  # of a join's log: an eighth of the dedup and the join horizon together


# --- Writing examples ----------------------------------------------------------------------------------------

def batch(*events: dict, watermark: int = NO_WATERMARK) -> EventBatch:
    """Events as a join shard gets them, all read when the watermark stood there."""
    received = [json_event(event, receipt=END - DAY) for event in events]
    held = FileWatermark()
    held.state[1] = END  # the file is far; the others are where the watermark is
    origin = Origin("events-0", np.arange(len(events)), 1, None, np.full(len(events), END - DAY))
    intake = take_in(decoded(received), origin, {}, Policy(), held, watermark, Screen(Policy().screening))
    assert not intake.rejects, intake.rejects
    return intake.batch


def joins() -> Keyed:
    return Keyed(lambda: JoinShard(Counting()))


def orders() -> Keyed:
    return Keyed(lambda: OrdersShard(Counting()))


def ledger_totals(horizon: int = 92 * DAY) -> Keyed:
    return Keyed(lambda: TotalsShard(3, 1, 10 * MINUTE, horizon))


def call(keyed: Keyed, act):
    """One call, its changes written to the log."""
    result = act(keyed.machine)
    keyed.commit()
    return result


def absorb(keyed: Keyed, *events: dict, watermark: int = NO_WATERMARK):
    return call(keyed, lambda machine: machine.absorb(batch(*events, watermark=watermark)))


def outcomes(effects) -> dict[str, int]:
    return {key[4]: n for key, n in effects.ledger.items() if n}


def count_of(deltas: Deltas | None) -> list[int]:
    return [] if deltas is None else deltas.counts.sum(axis=0).tolist()


def one_row(hour: int | None, n: int, because: int = ON_TIME) -> Deltas:
    return Deltas.tally({(hour, because, "events-0", "click", "counted"): (n,)})


def published(revisions) -> list[tuple[int, int]]:
    """(status, events) of each row published."""
    return [
        (int(status), int(count)) for each in ([revisions] if not isinstance(revisions, list) else revisions) if each is not None
        for status, count in zip(each.status, each.counts[:, 0])
    ]


# --- Provisional, final, restated ----------------------------------------------------------------------------

def test_a_row_is_provisional_then_final_then_restated_by_what_comes_late():
    log = [impression(), *push(CLOSE - MINUTE), click(), *push(CLOSE), click("late")]
    job = run([(0, json_event(event)) for event in log], 1, Engine(frame=1, flushes=1.0))
    [rows] = job.outputs.revisions["delivery"].values()
    clicks = [(row.status, row.because, row.counts[5]) for row in rows]
    assert clicks[0] == ("provisional", "", 0)
    assert clicks[-3:] == [("provisional", "", 1), ("final", "", 1), ("restated", "late", 2)]


def test_what_comes_late_while_no_timer_has_closed_the_hour_is_held_back_from_the_final_row():
    log = [impression(), *push(CLOSE), click("late")]
    job = run([(0, json_event(event)) for event in log], 1, Engine(frame=1, timers=0.0, flushes=1.0))
    [rows] = job.outputs.revisions["delivery"].values()
    assert {row.counts[5] for row in rows if row.status == "provisional"} == {0}
    assert [(row.status, row.counts[5]) for row in rows[-2:]] == [("final", 0), ("restated", 1)]


def test_an_hour_closes_ten_minutes_behind_its_end():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.absorb(one_row(T, 3)))
    assert keyed.machine.next_due() == CLOSE
    assert published(call(keyed, lambda machine: machine.advance(CLOSE - 1, 1))) == []
    assert published(call(keyed, lambda machine: machine.advance(CLOSE, 1))) == [(FINAL, 3)]
    assert published(call(keyed, lambda machine: machine.advance(CLOSE + DAY, 1))) == []


def test_a_row_that_only_late_events_made_begins_restated():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.absorb(one_row(T, 3, LATE)))
    assert published(keyed.machine.flush(1)) == []
    assert published(call(keyed, lambda machine: machine.advance(CLOSE, 2))) == [(RESTATED, 3)]


def test_a_row_that_came_after_its_close_begins_restated():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.advance(CLOSE, 1))
    call(keyed, lambda machine: machine.absorb(one_row(T, 3, LATE)))
    assert published(keyed.machine.flush(1)) == [(RESTATED, 3)]


def test_a_row_without_an_hour_closes_with_the_stream():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.absorb(one_row(None, 2)))
    assert published(keyed.machine.flush(1)) == [(PROVISIONAL, 2)]
    assert published(call(keyed, lambda machine: machine.advance(T + 1000 * DAY, 2))) == []
    assert published(call(keyed, lambda machine: machine.advance(END, 3))) == [(FINAL, 2)]


def test_a_restated_row_says_why():
    for because in (LATE, INVALID_TRAFFIC):
        keyed = ledger_totals()
        call(keyed, lambda machine: machine.absorb(one_row(T, 5)))
        call(keyed, lambda machine: machine.advance(CLOSE, 1))
        call(keyed, lambda machine: machine.absorb(one_row(T, -1, because)))
        revisions = keyed.machine.flush(2)
        assert published(revisions) == [(RESTATED, 4)] and revisions.because.tolist() == [because]


def test_a_row_is_published_when_it_changed_and_only_then():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.absorb(one_row(T, 1)))
    assert keyed.machine.dirty and published(keyed.machine.flush(1)) == [(PROVISIONAL, 1)]
    assert not keyed.machine.dirty and keyed.machine.flush(2) is None


def test_revisions_rise_with_each_publication_and_with_time():
    keyed = ledger_totals()
    numbers = []
    for tick in (7, 7, 3, 20):
        call(keyed, lambda machine: machine.absorb(one_row(T, 1)))
        numbers.append(int(keyed.machine.flush(tick).number[0]))
    assert numbers == [7, 8, 9, 20]


def test_revisions_stay_below_2_to_the_53_and_rise_with_time():
    assert revision(1, 0) == 2**32
    assert revision(3, tick(1_000_000, 0)) == 3 * 2**32 + 20
    for generation, n in ((0, 0), (2**21, 0), (1, 2**32)):
        with pytest.raises(ValueError):
            revision(generation, n)


def test_a_machine_that_comes_back_with_older_state_numbers_above_what_it_had_published():
    keyed = ledger_totals()
    call(keyed, lambda machine: machine.absorb(one_row(T, 1)))
    assert keyed.machine.flush(5).number[0] == 5  # by the wall clock, without a log
    keyed.lose()
    again = keyed.machine.flush(6)
    assert published(again) == [(PROVISIONAL, 1)] and again.number[0] == 6


# --- Identities, waits and orders ----------------------------------------------------------------------------

def test_a_follow_up_waits_for_its_impression_and_joins_it():
    keyed = joins()
    assert outcomes(absorb(keyed, click(time=T))) == {}
    effects = absorb(keyed, impression())
    assert outcomes(effects) == {"counted": 1} and sum(effects.ledger.values()) == 2
    assert count_of(effects.delivery)[5] == 1


def test_a_wait_ends_when_it_is_told_the_time_or_when_a_copy_carries_it():
    told, carried = joins(), joins()
    for keyed in (told, carried):
        absorb(keyed, click())
    assert told.machine.next_due() <= T + HOUR + JOIN_HORIZON
    assert outcomes(call(told, lambda machine: machine.advance(T + JOIN_HORIZON - 1))) == {}
    assert outcomes(call(told, lambda machine: machine.advance(T + JOIN_HORIZON))) == {"orphan": 1}
    effects = absorb(carried, click(), watermark=T + JOIN_HORIZON)
    assert [reason for reason, *_ in effects.rejects] == ["orphan", "orphan"]


def test_an_orphan_keeps_its_bytes_and_its_id_as_its_publisher_wrote_it():
    keyed = joins()
    absorb(keyed, click("kö\x00\U0001f600", source_id="ssp"))
    keyed.lose()
    [(reason, event, _)] = call(keyed, lambda machine: machine.advance(END)).rejects
    assert (reason, event.event_id, event.source, event.file) == ("orphan", "kö\x00\U0001f600", "ssp", "events-0")
    assert event.payload == json_event(click("kö\x00\U0001f600", source_id="ssp")).payload


def test_an_id_that_is_freed_and_taken_in_one_call_is_remembered_by_the_log():
    keyed = joins()
    absorb(keyed, click())
    absorb(keyed, impression(), click(), watermark=T + JOIN_HORIZON)  # the wait is over, the copy joins
    keyed.lose()
    assert outcomes(absorb(keyed, click(), watermark=T + JOIN_HORIZON)) == {"duplicate": 1}


def test_an_id_that_waits_again_in_another_slot_keeps_its_own_bytes():
    for later in range(1, SLOTS):  # whichever slot is read first
        keyed = joins()
        then = T + later * BUCKET
        absorb(keyed, click())
        absorb(keyed, click(time=then, price_micros=7), watermark=T + JOIN_HORIZON)
        keyed.lose()
        [(_, event, _)] = call(keyed, lambda machine: machine.advance(then + JOIN_HORIZON)).rejects
        assert int(event.row["time"]) == then and b"price_micros" in event.payload


def test_an_identity_is_forgotten_exactly_at_the_dedup_horizon_whatever_timers_do():
    other = impression(time=T + DEDUP_HORIZON, country="SE")
    for told in (None, T + DEDUP_HORIZON):
        for passed, outcome in ((0, "id_conflict"), (1, "counted")):
            keyed = joins()
            absorb(keyed, impression())
            if told is not None:
                call(keyed, lambda machine: machine.advance(told))
            assert outcomes(absorb(keyed, other, watermark=T + DEDUP_HORIZON + passed)) == {outcome: 1}


def test_an_impression_that_takes_a_forgotten_ones_id_starts_its_counts_anew():
    keyed = joins()
    absorb(keyed, impression(), follow_up("start", time=T + DAY))
    later = T + DEDUP_HORIZON + 1
    absorb(keyed, impression(time=T + 2 * DAY), watermark=later)
    for _ in range(2):
        keyed.lose()
        effects = absorb(keyed, follow_up("start", "g", time=T + 2 * DAY), watermark=later)
        counted = count_of(effects.delivery)
        assert (counted[6] if counted else 0) == (1 if outcomes(effects) == {"counted": 1} else 0)
    assert outcomes(effects) == {"duplicate": 1}


def test_of_an_orders_conversions_the_earliest_stands_whatever_came_first():
    for log in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        joined, keyed = joins(), orders()
        ledger: dict = {}
        for place in log:
            effects = absorb(joined, conversion(f"c{place}", T + place * HOUR, order_id="o"))
            for key, n in call(keyed, lambda machine: machine.absorb(effects.orders)).ledger.items():
                ledger[key[0], key[4]] = ledger.get((key[0], key[4]), 0) + n
            keyed.lose()
        assert {key: n for key, n in ledger.items() if n} == {
            (T, "counted"): 1, (T + HOUR, "duplicate"): 1, (T + 2 * HOUR, "duplicate"): 1,
        }


def test_an_order_forgotten_by_the_horizon_stays_forgotten_when_its_machine_is_lost():
    for later in range(8, 8 + SLOTS):  # whichever slot is read first
        joined, keyed = joins(), orders()
        then, watermark = T + later * DAY, T + DEDUP_HORIZON + 1
        for event in (conversion("a", T, order_id="o"), conversion("b", then, order_id="o")):
            effects = absorb(joined, event, watermark=watermark if event["event_id"] == "b" else T)
            call(keyed, lambda machine: machine.absorb(effects.orders))
        keyed.lose()
        effects = absorb(joined, conversion("c", then + 1, order_id="o"), watermark=watermark)
        ledger = call(keyed, lambda machine: machine.absorb(effects.orders)).ledger
        assert {key[4]: n for key, n in ledger.items() if n} == {"duplicate": 1}


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("lose", [False, True])
def test_orders_do_not_depend_on_which_shard_of_the_stage_before_runs_ahead(order, lose):
    joined, keyed = joins(), orders()
    later = T + 8 * DAY  # the first two are forgotten by then
    log = [
        absorb(joined, conversion(name, time, order_id="o"), watermark=watermark).orders
        for name, time, watermark in (("a", T, T), ("b", T + HOUR, T), ("c", later, later), ("d", later + 1, later))
    ]
    ledger: dict = {}
    for place in order:
        for key, n in call(keyed, lambda machine: machine.absorb(log[place])).ledger.items():
            ledger[key[0] if key[0] > T + DAY else T, key[4]] = ledger.get((key[0] if key[0] > T + DAY else T, key[4]), 0) + n
        if lose:
            keyed.lose()
    assert {key: n for key, n in ledger.items() if n} == {
        (T, "counted"): 1, (T, "duplicate"): 1, (later, "counted"): 1, (later, "duplicate"): 1,
    }


def test_a_displaced_conversion_does_not_return_when_the_one_that_displaced_it_is_forgotten():
    joined, keyed = joins(), orders()
    for name, time in (("a", T), ("b", T + DAY)):
        call(keyed, lambda machine: machine.absorb(absorb(joined, conversion(name, time, order_id="o")).orders))
    told = T + DEDUP_HORIZON + DAY
    call(keyed, lambda machine: machine.advance(told))
    for _ in range(2):
        effects = absorb(joined, conversion("c", T + 2 * DAY, order_id="o"), watermark=told)
        ledger = keyed.machine.absorb(effects.orders).ledger if effects.orders is not None else None
        if ledger is not None:
            assert {key[4]: n for key, n in ledger.items() if n} == {"counted": 1}
        keyed.lose()


# --- Verdicts ------------------------------------------------------------------------------------------------

def verdict_on(*events: dict, reason: str = "rate", watermark: int = CLOSE) -> Verdicts:
    rows, verdicts = batch(*events).rows, np.zeros(len(events), Verdicts.DTYPE)
    verdicts["hi"], verdicts["lo"] = rows["id_hi"], rows["id_lo"]
    verdicts["digest"], verdicts["time"] = rows["digest"], rows["time"]
    verdicts["watermark"], verdicts["code"] = watermark, INVALID_REASONS.index(reason)
    return Verdicts(verdicts)


def judge(keyed: Keyed, *events: dict, **verdict):
    return call(keyed, lambda machine: machine.judge(verdict_on(*events, **verdict)))


def left_out(effects) -> dict[tuple[str, str], int]:
    """Events by type and reason."""
    if effects.invalid is None:
        return {}
    labels, codes = effects.invalid.labels, effects.invalid.codes
    return {(labels[c[-2]], labels[c[-1]]): n for c, (n,) in zip(codes.tolist(), effects.invalid.counts.tolist())}


def test_a_verdict_on_an_impression_takes_its_follow_ups_with_it():
    keyed = joins()
    absorb(keyed, impression(price_micros=10), click(price_micros=5))
    effects = judge(keyed, impression(price_micros=10))
    counts = count_of(effects.delivery)
    assert (counts[0], counts[1], counts[5], counts[11]) == (0, -1, -1, -15)
    assert effects.delivery.because.tolist() == [INVALID_TRAFFIC]
    assert outcomes(effects) == {"counted": -1, "invalid_traffic": 1} and len(effects.ledger) == 4
    assert left_out(effects) == {("impression", "rate"): 1, ("click", "rate"): 1}
    keyed.lose()
    effects = absorb(keyed, click("l"))
    assert outcomes(effects) == {"invalid_traffic": 1} and left_out(effects) == {("click", "rate"): 1}


def test_a_verdict_holds_once_however_often_it_comes_and_not_over_what_the_event_shows_itself():
    robot = click("r", user_agent="Googlebot/2.1")
    keyed = joins()
    assert left_out(absorb(keyed, impression(), click(), robot)) == {("click", "robot"): 1}
    assert left_out(judge(keyed, click(), robot, click())) == {("click", "rate"): 1}
    assert left_out(judge(keyed, click())) == {}
    # The click keeps its own reason when its impression gets one; the follower has its impression's.
    absorb(keyed, follow_up("start", "s"))
    assert left_out(judge(keyed, impression())) == {("impression", "rate"): 1, ("start", "rate"): 1}


def test_a_verdict_may_come_before_its_event():
    for event in impression(), click("other"), conversion():
        keyed = joins()
        absorb(keyed, impression("seen"), click("w", of="i"))
        assert judge(keyed, event).delivery is None
        keyed.lose()
        other = {**event, "user_id": "another"}  # the same identity with other content: not what was judged
        carried = Keyed(keyed.make)
        carried.bags = {slot: list(runs) for slot, runs in keyed.bags.items()}
        carried.lose()
        assert "rate" not in {reason for _, reason in left_out(absorb(carried, other))}
        effects = absorb(keyed, event, impression())
        assert (event["event_type"], "rate") in left_out(effects)
        keyed.lose()
        assert not keyed.machine._expected


def test_a_verdict_on_what_never_comes_is_forgotten():
    keyed = joins()
    judge(keyed, impression(time=T), impression("later", T + 12 * BUCKET))  # in two buckets of one slot
    call(keyed, lambda machine: machine.advance(T + DEDUP_HORIZON + JOIN_HORIZON + BUCKET))
    keyed.lose()
    assert [key[0] for key in keyed.machine._expected] == [verdict_on(impression("later", T + 12 * BUCKET)).rows["hi"][0]]


def test_a_verdict_on_a_conversion_of_an_order_may_come_before_it():
    joined, keyed = joins(), orders()
    first, later = conversion("a", T, order_id="o"), conversion("b", T + 1, order_id="o")
    effects = absorb(joined, first, later)
    judged = judge(joined, first).judged
    assert judged is not None and len(judged) == 1
    assert call(keyed, lambda machine: machine.judge(judged)).ledger == {}
    keyed.lose()
    decided = call(keyed, lambda machine: machine.absorb(effects.orders))
    assert sorted((key[4], n) for key, n in decided.ledger.items() if n) == [("duplicate", 1), ("invalid_traffic", 1)]
    assert [(key[-1], n) for key, n in decided.invalid.items() if n] == [("rate", 1)]


def test_verdicts_on_one_impressions_follow_ups_cost_their_number_and_not_its_square():
    """Each batch of verdicts walks a chain twice, not twice a verdict."""
    keyed, many = joins(), [click(f"k{n}") for n in range(3_000)]
    absorb(keyed, impression(), *many)
    effects = judge(keyed, *many)
    assert count_of(effects.delivery)[5] == -3_000 and left_out(effects) == {("click", "rate"): 3_000}


def test_a_verdict_on_a_follow_up_that_waits_holds_when_it_joins():
    keyed = joins()
    absorb(keyed, click())
    judge(keyed, click(), watermark=T)
    keyed.lose()
    effects = absorb(keyed, impression())
    assert outcomes(effects) == {"invalid_traffic": 1, "counted": 1}
    assert count_of(effects.delivery)[5] == 0


# --- Identities ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("bits", "count"), [(2**64 - 1, 40_000), (0x3FFFFFF00000003F, 2_000), (0xF00000000000003, 200), (2**64 - 2**32, 1_500)])
def test_identities_are_told_apart_by_every_bit_of_them(bits, count):
    """Also where all begin their search at a few slots (the low half of hi), past the table's end, or under the same tag (the
    high half of lo)."""
    rng, known, rows = np.random.default_rng(bits), Identities(), {}
    ends = np.uint64(0xFFFFFFFF) if bits == 2**64 - 2**32 else np.uint64(0)
    for _ in range(8):
        new = np.zeros(count // 4, IDENTITY)
        new["hi"], new["lo"] = (rng.integers(0, 2**64, len(new), np.uint64) & np.uint64(bits) for _ in range(2))
        new["hi"] |= ends
        keys = list(zip(new["hi"].tolist(), new["lo"].tolist()))
        expected = [rows.setdefault(key, len(rows)) for key in keys]
        assert known.upsert(new).tolist() == expected
    assert known.count == len(rows)
    for (hi, lo), row in list(rows.items())[:200]:
        assert known.find(hi, lo) == row
        for other in (hi ^ 1, lo), (hi ^ 1 << 63, lo), (hi, lo ^ 1), (hi, lo ^ 1 << 63), (lo, hi):
            assert known.find(*other) == rows.get(other, -1)


# --- Forgetting ----------------------------------------------------------------------------------------------

FORGOTTEN = T + DEDUP_HORIZON + JOIN_HORIZON + 2 * BUCKET  # everything of the day that T is in, and the next


def test_a_join_shard_forgets_everything_behind_its_horizons():
    keyed = joins()
    absorb(keyed, impression(), click(), click("w", of="other"), conversion(), conversion("d", order_id="o"))
    call(keyed, lambda machine: machine.advance(FORGOTTEN))
    machine = keyed.machine
    assert (machine.count, machine.labels, machine.waiting, machine.row_keys.rows) == (0, [], {}, 0)
    assert machine.next_due() is None and keyed.bags == {}


def test_what_a_join_shard_remembers_is_bounded_by_its_horizons():
    keyed, most = joins(), 0
    for day in range(30):
        now = T + day * DAY
        absorb(keyed, *(impression(f"{day}-{k}", now + k) for k in range(100)), watermark=now)
        call(keyed, lambda machine: machine.advance(now))
        most = max(most, keyed.machine.count)
        assert len(keyed.bags) <= SLOTS
    assert most <= 11 * 100  # the horizons' eight days, a bucket at each end
    held = keyed.machine.state_bytes()
    assert held["identity and digest"] == 24


def test_an_orders_shard_forgets_everything_behind_its_horizon():
    joined, keyed = joins(), orders()
    effects = absorb(joined, conversion("a", order_id="o"), conversion("b", T + 1, order_id="o"), conversion("c", order_id="p"))
    call(keyed, lambda machine: machine.absorb(effects.orders))
    assert keyed.machine.next_due() < FORGOTTEN
    call(keyed, lambda machine: machine.advance(FORGOTTEN))
    assert keyed.machine.next_due() is None and keyed.bags == {}


def test_a_totals_shard_forgets_everything_behind_its_horizon():
    keyed = ledger_totals(8 * DAY)
    call(keyed, lambda machine: machine.advance(T, 1))
    call(keyed, lambda machine: machine.absorb(one_row(T, 1)))
    assert published(call(keyed, lambda machine: machine.advance(FORGOTTEN, 1))) == [(FINAL, 1)]
    assert (keyed.machine.keys.rows, keyed.machine.labels, keyed.bags) == (0, [], {})
    assert keyed.machine.next_due() is None


@pytest.mark.parametrize("lose", [False, True])
def test_a_row_from_before_time_was_told_is_not_begun_anew_however_old_it_is(lose):
    keyed = ledger_totals()
    for told in (NO_WATERMARK, T, T + DAY):
        if told != NO_WATERMARK:
            call(keyed, lambda machine: machine.advance(told, 1))
        if lose:
            keyed.lose()
        call(keyed, lambda machine: machine.absorb(one_row(0, 1, LATE)))  # a device whose clock was never set
    assert published(keyed.machine.flush(2)) == [(RESTATED, 3)]


def test_what_is_forgotten_is_published_first():
    keyed = ledger_totals(8 * DAY)
    call(keyed, lambda machine: machine.advance(CLOSE, 1))
    call(keyed, lambda machine: machine.absorb(one_row(T, 1, LATE)))
    assert published(call(keyed, lambda machine: machine.advance(FORGOTTEN, 1))) == [(RESTATED, 1)]


def test_next_due_is_never_late():
    """Where a machine has something to do at a time, it has asked for a timer by then."""
    keyed = joins()
    absorb(keyed, click(time=T + 59 * MINUTE), impression("j"))
    seen = set()
    while (due := keyed.machine.next_due()) is not None:
        assert due not in seen, "a timer that brings nothing about"
        seen.add(due)
        call(keyed, lambda machine: machine.advance(due))
    assert max(seen) <= FORGOTTEN and keyed.machine.count == 0


# --- Slots ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lose", [False, True])
def test_events_far_ahead_share_a_slot_and_outlive_the_bucket_they_share_it_with(lose):
    ahead = T + SLOTS * BUCKET
    keyed = joins()
    absorb(keyed, impression("old"), impression("ahead", ahead), click("w", ahead, of="other"))
    assert len(keyed.bags) == 1
    call(keyed, lambda machine: machine.advance(FORGOTTEN))
    if lose:
        keyed.lose()
    assert outcomes(absorb(keyed, impression("ahead", ahead), watermark=FORGOTTEN)) == {"duplicate": 1}
    assert outcomes(absorb(keyed, click(time=ahead, of="ahead"), watermark=FORGOTTEN)) == {"counted": 1}
    assert keyed.machine.count == 4  # with the one that waits and the impression it waits for
    [(_, event, _)] = call(keyed, lambda machine: machine.advance(ahead + JOIN_HORIZON)).rejects
    assert event.event_id == "w"


@pytest.mark.parametrize("lose", [False, True])
def test_orders_far_ahead_outlive_the_bucket_they_share_a_slot_with(lose):
    width = orders().machine.buckets.width
    joined, keyed = joins(), orders()
    ahead = T + SLOTS * width
    effects = absorb(joined, conversion("a", order_id="o"), conversion("b", ahead, order_id="p"))
    call(keyed, lambda machine: machine.absorb(effects.orders))
    call(keyed, lambda machine: machine.advance(FORGOTTEN))
    if lose:
        keyed.lose()
    effects = absorb(joined, conversion("c", ahead + 1, order_id="p"), watermark=FORGOTTEN)
    ledger = call(keyed, lambda machine: machine.absorb(effects.orders)).ledger
    assert {key[4]: n for key, n in ledger.items() if n} == {"duplicate": 1}


def test_totals_of_a_shared_slot_outlive_the_bucket_that_expires():
    keyed = ledger_totals(8 * DAY)
    width = keyed.machine.buckets.width
    call(keyed, lambda machine: machine.advance(T, 1))
    for hour, n in ((T, 1), (T + SLOTS * width, 2)):
        call(keyed, lambda machine: machine.absorb(one_row(hour, n)))
    call(keyed, lambda machine: machine.advance(FORGOTTEN, 1))
    keyed.lose()
    call(keyed, lambda machine: machine.absorb(one_row(T + SLOTS * width, 3)))
    assert published(keyed.machine.flush(2)) == [(PROVISIONAL, 5)]


# --- The log -------------------------------------------------------------------------------------------------

def test_a_totals_log_is_written_anew_when_it_holds_far_more_than_its_rows(monkeypatch):
    monkeypatch.setattr(totals, "_REWRITE_BYTES", 10_000)
    keyed = ledger_totals()
    longest = 0
    for n in range(500):
        call(keyed, lambda machine: machine.absorb(one_row([T, T + HOUR, None][n % 3], 1)))
        longest = max(longest, keyed.log_bytes())
    assert longest < 3 * 10_000
    keyed.lose()
    assert sorted(published(keyed.machine.flush(1))) == [(PROVISIONAL, 166), (PROVISIONAL, 167), (PROVISIONAL, 167)]


def test_what_a_batch_writes_does_not_grow_with_what_is_remembered():
    keyed = joins()
    sizes = []
    for n in range(40):
        before = keyed.log_bytes()
        absorb(keyed, *(impression(f"{n:03}-{k:03}") for k in range(50)), *(click(f"{n:03}-{k:03}", of=f"{n:03}-{k:03}-") for k in range(50)))
        sizes.append(keyed.log_bytes() - before)
    assert len(set(sizes[1:])) == 1 and sizes[1] <= sizes[0]  # the first also brings the labels and the row


def test_what_a_timer_writes_does_not_grow_with_what_is_remembered():
    keyed = joins()
    absorb(keyed, *(impression(f"i{k}", T + DAY) for k in range(1_000)), click("w", of="other"))
    before = keyed.log_bytes()
    assert outcomes(call(keyed, lambda machine: machine.advance(T + JOIN_HORIZON))) == {"orphan": 1}
    assert keyed.log_bytes() - before < 1_000


def test_a_call_without_events_writes_nothing():
    keyed = joins()
    absorb(keyed, impression())
    before = {slot: list(runs) for slot, runs in keyed.bags.items()}
    call(keyed, lambda machine: machine.advance(T + DAY))
    assert keyed.bags == before


@given(event_logs().flatmap(lambda files: interleavings(files)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_machine_rebuilt_from_its_log_knows_what_it_knew(arrivals):
    files = 1 + max(file for file, _ in arrivals)
    times = heads(arrivals, files)
    watermark = FileWatermark()
    watermark.open(np.concatenate(times))
    keyed, rebuilt = joins(), joins()
    for frame in frames([received for _, received in arrivals if received is not None], 8):
        origin = Origin("events-0", np.arange(len(frame)), int(frame[0].encoding == "json"), None, np.full(len(frame), frame[0].receipt))
        intake = take_in(decoded(frame), origin, {}, Policy(), watermark, END, Screen(Policy().screening))
        call(keyed, lambda machine: machine.absorb(intake.batch))
        rebuilt.bags = keyed.bags
        rebuilt.lose()
        assert remembered(rebuilt.machine) == remembered(keyed.machine)
        call(keyed, lambda machine: machine.advance(watermark.value))
        rebuilt.lose()
        assert remembered(rebuilt.machine) == remembered(keyed.machine)


def remembered(machine: JoinShard) -> dict:
    """By identity all that a shard knows, in terms that do not depend on the numbers it has given."""
    known = {}
    for number, (identity, entry) in enumerate(zip(machine.known.ids[: machine.count], machine.entries)):
        if entry["status"] in (PLACEHOLDER, FREE):
            continue
        row = None
        if entry["row"] >= 0:
            codes = machine.row_codes[entry["row"]]
            row = int(machine.row_hours[entry["row"]]), *(None if c < 0 else machine.labels[c] for c in codes)
        waits = machine.waiting.get(number)
        plain = [name for name in entry.dtype.names if name not in ("link", "row", "source")]
        key = int(identity["hi"]), int(identity["lo"])
        assert key not in known
        known[key] = (
            int(identity["digest"]), *(int(entry[name]) for name in plain), machine.labels[entry["source"]], row,
            None if waits is None else waits[0].payloads[waits[1]],
        )
    return known
