"""Attribution of one shard of users: what facts change of credits, in what order they may come, what is forgotten, and limits."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from machines import Engine, Keyed, Outputs, run
from measurement.columnar.batch import NO_WATERMARK, blobs
from measurement.columnar.deltas import BECAUSE, INVALID_TRAFFIC, LATE, ON_TIME, ORDER
from measurement.columnar.facts import FACT, Facts, terms_of
from measurement.columnar.labels import Labels
from measurement.columnar.texts import text_fingerprints
from measurement.io.watermark import END
from measurement.model.attribution import parse
from measurement.model.events import CLICK, CONVERSION, IMPRESSION
from measurement.model.policy import Counting, Policy
from measurement.model.tables import CREDITS
from measurement.state import conversions, touches
from measurement.state.credits import Credited, CreditsShard
from measurement.state.ring import SLOTS
from oracle import DAY, DEDUP_HORIZON, HOUR, JOIN_HORIZON, MINUTE, identity_of, judge_one
from strategies import ROBOT
from test_oracle import T, json_event, push
from test_oracle_attribution import bought, clicked, seen

CLOSE = T + HOUR + 10 * MINUTE  # of the hour that begins at T, in which the examples' conversions are
WHOLE = 10**9
LOOKBACK = 30 * DAY  # of clicks, unless a policy says otherwise
TYPES = {"impression": IMPRESSION, "click": CLICK, "conversion": CONVERSION}


# --- Through the job -----------------------------------------------------------------------------------------

def published(*log: dict, policy=None, verdicts=None, **engine) -> Outputs:
    """What the job publishes of a log; but for frames of one event the engine does everything at once."""
    arrivals = [(0, json_event(event)) for event in log]
    credited = Policy(attribution=parse(Path("policy.yaml"), policy))
    return run(arrivals, 1, Engine(frame=1, **engine), verdicts, credited).outputs


def named(outputs: Outputs) -> dict[tuple, list]:
    """The revisions of each row of conversion_credits by conversion, touch and model."""
    at = [c.name for c in CREDITS.texts]
    rows = outputs.revisions[CREDITS.name]
    return {
        (of["conversion_id"], of["touch_id"], of["model"]): rows[key] for key in rows
        for of in [dict(zip(at, key[1:]))] if not of["conversion_id"].startswith("push-")}


def told(outputs: Outputs, model: str = "last_touch") -> dict[tuple, list[tuple]]:
    """(status, why, credit) of each revision by conversion and touch; provisional ones left out."""
    return {key[:2]: [(row.status, row.because, row.counts[0] / WHOLE) for row in rows if row.status != "provisional"]
            for key, rows in named(outputs).items() if key[2] == model}


def test_a_late_touch_restates_all_rows_of_the_conversion_and_what_it_took_over_stands_at_0():
    outputs = published(seen("a", HOUR), bought(), *push(CLOSE), seen("b", MINUTE))
    assert told(outputs) == {
        ("c", "a"): [("final", "", 1.0), ("restated", "late", 0.0)], ("c", "b"): [("restated", "late", 1.0)]}


def test_a_late_touch_that_shares_gives_every_row_of_the_conversion_a_new_revision():
    policy = {"default": {"models": ["linear", "first_touch"], "priority": "none"}}
    outputs = published(seen("a", HOUR), seen("b", 2 * HOUR), bought(), *push(CLOSE), seen("x", MINUTE), policy=policy)
    assert told(outputs, "linear") == {
        ("c", "a"): [("final", "", 0.5), ("restated", "late", 0.333333333)],
        ("c", "b"): [("final", "", 0.5), ("restated", "late", 0.333333334)], ("c", "x"): [("restated", "late", 0.333333333)]}
    # The first touch keeps all under the other model, and says so anew.
    assert told(outputs, "first_touch") == {("c", "b"): [("final", "", 1.0), ("restated", "late", 1.0)]}


@pytest.mark.parametrize("late", [
    seen("x", MINUTE, user_agent=ROBOT), seen("x", MINUTE, user_id="other"), seen("x", MINUTE, advertiser_id="other"),
    seen("x", MINUTE, test=True), seen("x", 2 * DAY), seen("x", 0), seen("x", -MINUTE)])
def test_what_is_no_touch_of_the_conversion_restates_nothing(late):
    assert told(published(seen("a", HOUR), bought(), *push(CLOSE), late)) == {("c", "a"): [("final", "", 1.0)]}


def test_a_click_that_was_on_time_is_a_late_touch_if_its_impression_is_late():
    outputs = published(clicked("k", "i", MINUTE), seen("a", HOUR), bought(), *push(CLOSE), seen("i", 2 * HOUR))
    assert told(outputs) == {
        ("c", "a"): [("final", "", 1.0), ("restated", "late", 0.0)], ("c", "k"): [("restated", "late", 1.0)]}


def test_a_late_conversion_begins_restated():
    outputs = published(seen("a", HOUR), bought("x"), *push(CLOSE), bought())
    assert told(outputs) == {("x", "a"): [("final", "", 1.0)], ("c", "a"): [("restated", "late", 1.0)]}


@pytest.mark.parametrize("event", [seen("b", MINUTE), clicked("k", "b", MINUTE)])
def test_a_verdict_after_the_close_restates_because_of_invalid_traffic(event):
    log = [seen("a", HOUR), seen("b", 2 * MINUTE if event["event_type"] == "click" else MINUTE), event, bought(), *push(CLOSE)]
    verdict = identity_of(judge_one(json_event(event))), "rate"
    rows = told(published(*log, verdicts={len(log): [verdict]}))
    assert rows["c", event["event_id"]] == [("final", "", 1.0), ("restated", "invalid_traffic", 0.0)]
    # A click gives its impression back its place.
    assert rows["c", "b" if event["event_type"] == "click" else "a"] == [("restated", "invalid_traffic", 1.0)]


def test_a_verdict_on_a_conversion_takes_its_credits_and_one_taken_back_returns_them():
    log = [seen("a", HOUR), bought(), *push(CLOSE), *push(CLOSE + 1), bought("x")]
    verdict = identity_of(judge_one(json_event(bought())))
    rows = told(published(*log, verdicts={6: [(verdict, "rate")], len(log): [(verdict, "")]}, flushes=1.0))
    assert rows["c", "a"] == [
        ("final", "", 1.0), ("restated", "invalid_traffic", 0.0), ("restated", "invalid_traffic", 1.0)]


def test_an_earlier_conversion_of_its_order_takes_all_from_the_one_that_was_credited():
    outputs = published(seen("a", HOUR), bought("b", T + 1, order_id="o"), *push(CLOSE), bought("x", T, order_id="o"))
    assert told(outputs) == {
        ("b", "a"): [("final", "", 1.0), ("restated", "order", 0.0)], ("x", "a"): [("restated", "late", 1.0)]}


def test_rows_before_the_close_hold_what_is_known_whichever_came_first():
    for log in ([seen("a", HOUR), bought()], [bought(), seen("a", HOUR)]):
        assert {key: counts[0] for key, counts in published(*log).credits().items()}.keys() == {
            key for key in published(seen("a", HOUR), bought()).credits()}
    rows = named(published(bought(), seen("a", HOUR), flushes=1.0))
    assert [(row.status, row.counts[0]) for row in rows["c", None, "last_touch"]][0] == ("provisional", WHOLE)
    assert [(row.status, row.counts[0]) for row in rows["c", None, "last_touch"]][-1] == ("final", 0)
    assert rows["c", "a", "last_touch"][-1].counts[0] == WHOLE


def test_terms_hold_by_the_conversions_time_and_an_advertisers_own_go_before_the_default():
    policy = [
        {"default": {"model": "first_touch", "priority": "none"}},
        {"from": "2024-05-06T10:30:00Z", "default": {"models": ["last_touch", "linear"], "priority": "none"},
         "advertisers": {"own": {"model": "position_based", "view_lookback": "3d", "position_weights": [0.1, 0.2, 0.7]}}}]
    log = [seen(name, ago, advertiser_id=by) for by in ("adv", "own")
           for name, ago in ((f"{by} 1", 2 * DAY), (f"{by} 2", 2 * HOUR), (f"{by} 3", HOUR))]
    log += [bought(f"{by} {time}", T + time, advertiser_id=by) for by in ("adv", "own") for time in (0, HOUR // 2 - 1, HOUR // 2)]
    latest = {key: rows[-1].counts[0] for key, rows in named(published(*log, policy=policy)).items()}
    half = HOUR // 2
    assert latest == {
        **{(f"{by} {time}", f"{by} 2", "first_touch"): WHOLE for by in ("adv", "own") for time in (0, half - 1)},
        (f"adv {half}", "adv 3", "last_touch"): WHOLE,
        **{(f"adv {half}", f"adv {n}", "linear"): WHOLE // 2 for n in (2, 3)},
        **{(f"own {half}", f"own {n}", "position_based"): WHOLE * tenths // 10 for n, tenths in ((1, 1), (2, 2), (3, 7))}}


def test_tests_are_credited_among_themselves():
    rows = published(seen("a", HOUR, test=True), seen("b", 2 * HOUR), bought(), bought("x", test=True)).credits()
    assert {(key[0], key[2], key[5]) for key in rows} == {("c", "b", "adv"), ("x", "a", "test:adv")}


# --- By hand-made facts --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Fact:
    """A fact of an event; ``whole`` tells of it, another only changes whether it stands."""

    type: str
    id: str
    time: int
    of: str = ""  # a click's impression
    user: str = "u"
    delta: int = 1
    watermark: int = NO_WATERMARK
    whole: bool = True
    because: int = LATE


def view(event_id: str, time: int, **fields) -> Fact:
    return Fact("impression", event_id, time, event_id, **fields)


def sale(event_id: str = "c", time: int = T, **fields) -> Fact:
    return Fact("conversion", event_id, time, **fields)


def facts(*told: Fact) -> Facts:
    """As one batch."""
    out, labels = np.zeros(len(told), FACT), Labels()
    for names, column in (("user", [f.user for f in told]), ("id", [f"{f.type} {f.id}" for f in told]),
                          ("parent", [f"impression {f.of}" for f in told])):
        out[f"{names}_hi"], out[f"{names}_lo"] = text_fingerprints(column)
    for name in ("time", "watermark", "delta", "because"):
        out[name] = [getattr(f, name) for f in told]
    out["type"], out["value"] = [TYPES[f.type] for f in told], [7 if f.type == "conversion" else 0 for f in told]
    codes = np.array([[labels.code("adv"), -1 if f.type == "conversion" else labels.code("camp"), -1, -1, -1] for f in told], np.int32)
    terms, number = terms_of(codes, labels.texts)
    out["terms"] = np.where([f.whole for f in told], number, -1)
    batch = Facts(out, terms, blobs([f.id.encode() if f.whole else b"" for f in told]), labels.texts)
    return Facts.decode(batch.take(np.arange(len(told))).encode())


def shard(policy=None) -> Keyed:
    return Keyed(lambda: CreditsShard(parse(Path("policy.yaml"), policy), Counting()))


class Sums:
    """What a shard's changes come to, by conversion, touch and model: of those on time alone, and of all."""

    def __init__(self):
        self.final, self.latest, self.hours = Counter(), Counter(), Counter()

    def add(self, credited: Credited) -> "Sums":
        if (d := credited.credits) is not None:
            for row, because, (credit, micros) in zip(d.codes, d.because, d.counts.tolist()):
                conversion, model, touch = (None if c < 0 else d.labels[c] for c in row[:3])
                for sums in (self.latest, *([self.final] if because == ON_TIME else [])):
                    sums[conversion, touch, model, "credit"] += credit
                    sums[conversion, touch, model, "micros"] += micros
        if credited.attribution is not None:
            for hour, count in zip(credited.attribution.hours.tolist(), credited.attribution.counts[:, 0].tolist()):
                self.hours[hour] += count
        return self

    def __eq__(self, other) -> bool:
        return all({k: n for k, n in mine.items() if n} == {k: n for k, n in its.items() if n} for mine, its in (
            (self.final, other.final), (self.latest, other.latest), (self.hours, other.hours)))

    def credits(self) -> dict[tuple, float]:
        return {(c, t): n / WHOLE for (c, t, model, what), n in self.latest.items() if n and what == "credit"}


def tell(keyed: Keyed, sums: Sums, *told: Fact) -> Credited:
    credited = keyed.machine.absorb(facts(*told))
    keyed.commit()
    sums.add(credited)
    return credited


def advance(keyed: Keyed, watermark: int) -> None:
    keyed.machine.advance(watermark)
    keyed.commit()


def any_facts(random: Random, start: int = T, span: int = 3 * HOUR) -> list[Fact]:
    """Touches and conversions of two users at few times, with verdicts on them: before and after the close of hours."""
    out, impressions = [], []
    for n in range(random.randint(4, 14)):
        kind = random.choice(["impression", "impression", "click", "conversion"])
        time = start + random.choice([0, 1, MINUTE, HOUR, random.randrange(span)])
        of = f"e{n}" if kind == "impression" else random.choice(impressions) if kind == "click" and impressions else "gone"
        impressions += [of] if kind == "impression" else []
        watermark = random.choice([NO_WATERMARK, start, start + HOUR, start + 2 * HOUR + 10 * MINUTE, start + 9 * HOUR])
        stands = random.random() < 0.8
        first = Fact(kind, f"e{n}", time, of, random.choice("uuv"), int(stands), watermark)
        out.append(first)
        for _ in range(random.choice([0, 0, 1, 2])):
            watermark = max(watermark, start) + random.choice([0, HOUR, 4 * HOUR])
            out.append(Fact(kind, f"e{n}", time, of, first.user, -1 if stands else 1, watermark, False,
                            random.choice([INVALID_TRAFFIC, ORDER])))
            stands = not stands
    return out


POLICIES = [
    None, {"default": {"models": ["linear", "last_touch", "time_decay"], "priority": "none"}},
    {"default": {"models": ["position_based", "first_touch"], "view_lookback": "1h"}}]


@pytest.mark.parametrize("seed", range(60))
def test_facts_in_any_order_and_in_any_batches_give_the_same(seed):
    random = Random(seed)
    policy, told = random.choice(POLICIES), any_facts(random)
    whole = Sums()
    tell(shard(policy), whole, *told)
    for _ in range(3):
        keyed, sums = shard(policy), Sums()
        random.shuffle(told)
        at = 0
        while at < len(told):
            n = random.choice([1, 2, len(told)])
            tell(keyed, sums, *told[at : at + n])
            at += n
            if random.random() < 0.3:
                keyed.lose()
        assert sums == whole
    assert sum(sums.hours.values()) == WHOLE * len({key[::2] for key, n in whole.latest.items() if n and key[3] == "credit"})


def test_a_change_may_come_before_what_it_changes():
    taken = view("a", T - 1, whole=False, delta=-1)
    for told in ([taken, view("a", T - 1), sale()], [sale(), taken, view("a", T - 1)], [taken, sale(), view("a", T - 1)]):
        keyed, sums = shard(), Sums()
        for fact in told:
            tell(keyed, sums, fact)
        assert sums.credits() == {("c", None): 1.0}


def test_a_change_of_what_has_not_come_is_taken_by_a_machine_that_has_forgotten_everything():
    keyed, sums = shard(), Sums()
    tell(keyed, Sums(), view("a", T - 1), sale())
    advance(keyed, T + 100 * DAY)
    tell(keyed, sums, sale("d", T + 100 * DAY, whole=False, delta=-1))
    tell(keyed, sums, sale("d", T + 100 * DAY))
    assert sums.credits() == {}


def test_an_id_that_comes_again_at_another_time_is_another_conversion():
    keyed, sums = shard(), Sums()
    tell(keyed, sums, view("a", T - 1), sale())
    tell(keyed, sums, sale("c", T + 8 * DAY), view("b", T + 8 * DAY - 1))
    assert sums.credits() == {("c", "a"): 1.0, ("c", "b"): 1.0}


# --- What is forgotten ---------------------------------------------------------------------------------------

def test_memory_and_log_of_a_bucket_vanish_when_its_time_is_over():
    keyed, width = shard(), shard().machine.buckets.width
    start = T // width * width
    tell(keyed, Sums(), view("a", start), sale("c", start + 1), view("b", start + width), sale("d", start + width + 1))
    full = keyed.log_bytes()
    assert keyed.machine.next_due() == start + width + keyed.machine.buckets.horizon
    advance(keyed, keyed.machine.next_due() - 1)
    assert keyed.machine.state_bytes()["touches"] == keyed.machine.state_bytes()["conversions"] == 2
    advance(keyed, keyed.machine.next_due())
    assert keyed.machine.state_bytes()["touches"] == keyed.machine.state_bytes()["conversions"] == 1
    assert 0 < keyed.log_bytes() < full
    advance(keyed, keyed.machine.next_due())
    assert keyed.machine.next_due() is None
    assert keyed.machine.state_bytes()["touches"] == keyed.machine.state_bytes()["conversions"] == keyed.log_bytes() == 0
    assert not keyed.machine._labels.texts and not keyed.machine._terms.rows


@pytest.mark.parametrize("lose", [False, True])
def test_a_conversion_as_late_as_can_be_still_sees_the_earliest_touch_of_its_lookback(lose):
    for off in range(0, 10):  # wherever in its bucket the touch is
        touch = T + off * 12 * HOUR
        keyed, sums = shard(), Sums()
        tell(keyed, sums, Fact("click", "k", touch, "i"))
        for until in (touch + LOOKBACK, touch + LOOKBACK + DEDUP_HORIZON + JOIN_HORIZON):
            advance(keyed, until)
            if lose:
                keyed.lose()
        tell(keyed, sums, sale("c", touch + LOOKBACK, watermark=until), sale("d", touch + LOOKBACK + 1, watermark=until))
        assert sums.credits() == {("c", "k"): 1.0, ("d", None): 1.0}


@pytest.mark.parametrize("lose", [False, True])
def test_events_far_ahead_outlive_the_bucket_they_share_a_slot_with(lose):
    keyed, sums = shard(), Sums()
    ahead = T + SLOTS * keyed.machine.buckets.width
    tell(keyed, sums, view("a", T - 1), sale(), view("b", ahead), view("gone", ahead + 1), view("gone", ahead + 1, whole=False, delta=-1),
         sale("d", ahead + 2), sale("e", ahead + 2, delta=0), sale("f", ahead + 2, whole=False, delta=-1))
    assert len(keyed.bags) == 1
    advance(keyed, keyed.machine.next_due())
    if lose:
        keyed.lose()
    assert keyed.machine.state_bytes()["touches"] == keyed.machine.state_bytes()["conversions"] == 3
    tell(keyed, sums, sale("e", ahead + 2, whole=False), sale("f", ahead + 2), view("x", ahead + 1))
    assert sums.credits() == {("c", "a"): 1.0, ("d", "x"): 1.0, ("e", "x"): 1.0}


@pytest.mark.parametrize("seed", range(25))
def test_a_machine_that_is_lost_at_any_point_goes_on_as_if_it_had_not_been(seed):
    """Over months, so that buckets expire, some of them beside others that share their slot."""
    random = Random(seed)
    policy = random.choice(POLICIES)
    kept, lost = shard(policy), shard(policy)
    width, time = kept.machine.buckets.width, T
    for n in range(14):
        start = time - random.choice([0, HOUR, 6 * DAY]) + random.choice([0, 0, 0, SLOTS * width])
        told = [Fact(f.type, f"{n} {f.id}", f.time, f"{n} {f.of}", f.user, f.delta, f.watermark, f.whole, f.because)
                for f in any_facts(random, start)]
        one, other = Sums(), Sums()
        tell(kept, one, *told)
        tell(lost, other, *told)
        assert one == other
        if random.random() < 0.7:
            time += random.choice([HOUR, DAY, 20 * DAY])
            advance(kept, time)
            advance(lost, time)
        lost.lose()
        assert lost.machine.next_due() == kept.machine.next_due()
        sizes = [keyed.machine.state_bytes() for keyed in (kept, lost)]
        assert sizes[0]["touches"] == sizes[1]["touches"] and sizes[0]["conversions"] == sizes[1]["conversions"]
    advance(lost, END)
    assert not any(lost.bags.values())


# --- Limits --------------------------------------------------------------------------------------------------

MANY = touches.LIMIT + 5


def flood(n: int = MANY) -> list[Fact]:
    return [view(f"i{k}", T - HOUR + k) for k in range(n)]


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("cut", [0, 100, touches.LIMIT, touches.LIMIT + 1, MANY])
def test_none_of_a_floods_touches_earns_anything_in_whatever_order_they_come(cut, lose):
    keyed, sums, dropped = shard({"default": {"model": "linear", "priority": "none"}}), Sums(), 0
    told = [*flood()[:cut], sale(), sale("other", user="v"), view("v's", T - 1, user="v"), *flood()[cut:]]
    for part in (told[: cut + 3], told[cut + 3 :]):
        if part:
            dropped += tell(keyed, sums, *part).dropped
        if lose:
            keyed.lose()
    assert sums.credits() == {("c", None): 1.0, ("other", "v's"): 1.0}
    assert dropped == MANY - touches.LIMIT - 1
    assert keyed.machine.state_bytes()["touches"] == touches.LIMIT + 2
    # What comes of the user later neither earns nor is kept; another bucket of its is its own.
    before = keyed.log_bytes()
    assert tell(keyed, sums, view("more", T - 1)).dropped == 1
    assert keyed.log_bytes() == before
    tell(keyed, sums, sale("d"), view("w", T + 20 * DAY), sale("e", T + 20 * DAY + 1))
    assert sums.credits() == {("c", None): 1.0, ("other", "v's"): 1.0, ("d", None): 1.0, ("e", "w"): 1.0}


def test_as_many_touches_as_the_limit_earn():
    keyed, sums = shard({"default": {"model": "linear", "priority": "none"}}), Sums()
    tell(keyed, sums, *flood(touches.LIMIT), sale())
    assert set(sums.credits().values()) == {1 / touches.LIMIT} and len(sums.credits()) == touches.LIMIT
    tell(keyed, sums, view("one more", T - 1))
    assert sums.credits() == {("c", None): 1.0}


def test_a_flood_takes_from_conversions_of_the_next_bucket_what_they_had_of_it():
    keyed, sums = shard(), Sums()
    width = keyed.machine.buckets.width
    edge = T // width * width + width
    tell(keyed, sums, view("a", edge - 1), sale("c", edge), view("b", edge), sale("d", edge + 1))
    assert sums.credits() == {("c", "a"): 1.0, ("d", "b"): 1.0}
    tell(keyed, sums, *(view(f"i{k}", edge - HOUR) for k in range(touches.LIMIT)))
    assert sums.credits() == {("c", None): 1.0, ("d", "b"): 1.0}


CROWD = [sale(f"c{k}", T + k) for k in range(conversions.LIMIT + 3)]


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("cut", [0, 10, conversions.LIMIT, conversions.LIMIT + 1, len(CROWD)])
def test_a_crowd_of_conversions_is_credited_to_no_touch_in_whatever_order_it_comes(cut, lose):
    for first in (True, False):
        keyed, sums = shard(), Sums()
        touch = [view("a", T - 1)]
        for part in (touch if first else [], CROWD[:cut], [] if first else touch, CROWD[cut:], [view("late", T - 1, watermark=CLOSE)]):
            if part:
                tell(keyed, sums, *part)
            if lose:
                keyed.lose()
        assert sums.credits() == {(fact.id, None): 1.0 for fact in CROWD}
        assert sum(sums.hours.values()) == WHOLE * len(CROWD)
        tell(keyed, sums, view("x", T + 20 * DAY), sale("next", T + 20 * DAY + 1))
        assert sums.credits()["next", "x"] == 1.0


def test_as_many_conversions_as_the_limit_are_credited_to_touches():
    keyed, sums = shard(), Sums()
    tell(keyed, sums, view("a", T - 1), *CROWD[: conversions.LIMIT])
    assert set(sums.credits()) == {(fact.id, "a") for fact in CROWD[: conversions.LIMIT]}
    tell(keyed, sums, sale("one more", T))
    assert {touch for _, touch in sums.credits()} == {None} and len(sums.credits()) == conversions.LIMIT + 1


# --- Cost ----------------------------------------------------------------------------------------------------

def test_what_a_batch_writes_does_not_grow_with_what_is_remembered():
    keyed, sizes = shard(), []
    for n in range(20):
        before = keyed.log_bytes()
        tell(keyed, Sums(), *(view(f"{n:02} {k}", T - k) for k in range(20)), *(sale(f"{n:02} {k}", T + k) for k in range(20)))
        sizes.append(keyed.log_bytes() - before)
    assert max(sizes) < 1.2 * min(sizes)


def test_why_a_row_is_restated_is_the_weightiest_of_what_changed_it():
    keyed = shard()
    tell(keyed, Sums(), view("a", T - 1), sale())
    credited = tell(keyed, Sums(), view("b", T - 1, watermark=CLOSE), sale(whole=False, delta=-1, watermark=CLOSE, because=ORDER))
    assert {BECAUSE[why] for why in credited.credits.because} == {"order"}
