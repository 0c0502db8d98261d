"""Logs that earlier versions wrote: this one restores each and publishes what is due, and refuses an unknown version.

tests/data/state/MACHINE-VERSION.jsonl is a machine's log as that version of it wrote it, a run a line: its slot and its
bytes in base64. A file stays for as long as jobs may come up with such state. When a format changes its version does, and

    python tests/test_state_versions.py --write

adds the new one's file beside the old; it changes none that is there.
"""

import argparse
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from machines import Keyed
from measurement.columnar.batch import EventBatch, pack, unpack
from measurement.columnar.deltas import BECAUSE, LATE, NO_HOUR, ON_TIME, Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.records import Activity
from measurement.io.watermark import END
from measurement.model.events import OUTCOMES
from measurement.model.attribution import Attribution
from measurement.model.policy import Counting
from measurement.model.screening import Rate
from measurement.state import credits, join, orders, rejects, totals
from measurement.state.credits import Credited, CreditsShard
from measurement.state.identities import IDENTITY
from measurement.state.join import JoinShard
from measurement.state.orders import OrdersShard
from measurement.state.rates import RatesShard
from measurement.state.rejects import REDELIVERY, RejectsShard
from measurement.state.ring import SLOTS
from measurement.state.totals import STATUSES, TotalsShard
from oracle import DAY, HOUR, JOIN_HORIZON, MINUTE
from test_oracle import T, click, conversion, follow_up, impression, viewability
from test_screening import activity
from test_state import absorb, call, judge

LOGS = Path(__file__).parent / "data" / "state"
CLOSE = T + HOUR + 10 * MINUTE
HORIZON = 92 * DAY

# Each machine's code, what makes it, and its log's version as of now.
MACHINES: dict[str, tuple[Callable, int]] = {
    "rates": (lambda: RatesShard(Rate(per_user_hour=2), 7 * DAY), Activity.VERSION),
    "join": (lambda: JoinShard(Counting()), join._VERSION),
    "orders": (lambda: OrdersShard(Counting()), orders._VERSION),
    "credits": (lambda: CreditsShard(Attribution(), Counting()), credits._VERSION),
    "rejects": (RejectsShard, rejects._VERSION),
    "totals": (lambda: TotalsShard(3, 1, 10 * MINUTE, HORIZON), totals._VERSION),
}


# --- What each machine had seen when its log was written -----------------------------------------------------

VIDEO = {"format": "video", "price_micros": 250, "currency": "EUR", "country": "SE"}


def of_join(keyed: Keyed) -> None:
    """Two buckets and one that has expired, a robot, a follow-up that joined, two that wait, a verdict."""
    absorb(keyed, impression("old", T - 9 * DAY))
    call(keyed, lambda machine: machine.advance(T))
    robot = impression("robot", T, user_agent="Googlebot/2.1")
    absorb(keyed, impression("seen", T, **VIDEO), robot, click("rk", T + 1, "robot"))
    absorb(keyed, click("early", T + MINUTE, "to come", source_id="ssp"), follow_up("start", "st", T + 1, "seen"))
    absorb(keyed, click("k\u00f6", T + MINUTE, "never comes", source_id="ssp"), impression("next day", T + DAY, **VIDEO))
    judge(keyed, impression("next day", T + DAY, **VIDEO), impression("expected", T + DAY), watermark=T)


def of_orders(keyed: Keyed) -> None:
    """An order whose earliest conversion came second, another with one."""
    for name, time, order in (("b", T + HOUR, "o"), ("a", T, "o"), ("x", T, "other")):
        call(keyed, lambda machine: machine.absorb(ordered(conversion(name, time, order_id=order))))
    to_come, joined = conversion("to come", T + 1, order_id="o"), Keyed(MACHINES["join"][0])
    absorb(joined, to_come)
    judged = judge(joined, to_come).judged
    call(keyed, lambda machine: machine.judge(judged))


def of_credits(keyed: Keyed) -> None:
    """Two buckets, the older of which shares its slot with one that expired, so that its conversions are summed up; touches
    of both kinds, a robot's, a test's; a verdict, a conversion with an order that another displaced late."""
    width = keyed.machine.buckets.width
    joined, orders = Keyed(MACHINES["join"][0]), Keyed(MACHINES["orders"][0])
    user = {"user_id": "u", "line_item_id": "l\u00f6"}

    def told(facts: Facts | None) -> None:
        call(keyed, lambda machine: machine.absorb(facts))

    told(absorb(joined, impression("old", T - SLOTS * width, **user)).facts)
    told(absorb(joined, impression("seen", T - 2, **user), impression("bought", T - 3, **user), click("k\u00f6", T - 1, "seen", user_id="u"),
                impression("robot", T - 1, user_agent="Googlebot/2.1", **user), impression("probe", T - 1, test=True, **user)).facts)
    told(absorb(joined, conversion("plain", T, user_id="u", value_micros=5, currency="EUR"), conversion("tried", T, user_id="u", test=True),
                conversion("nobody's", T)).facts)
    for name, time, watermark in (("b", T + 2, T), ("a", T + 1, CLOSE)):
        effects = absorb(joined, conversion(name, time, user_id="u", order_id="o"), watermark=watermark)
        told(call(orders, lambda machine: machine.absorb(effects.orders)).facts)
    told(judge(joined, impression("bought", T - 3, **user)).facts)
    call(keyed, lambda machine: machine.advance(machine.next_due()))
    told(absorb(joined, impression("next", T + width, **user), conversion("much later", T + width + 1, user_id="u")).facts)


def of_rates(keyed: Keyed) -> None:
    """Somebody at the threshold, somebody above it, an hour that has expired, an identity with two contents."""
    call(keyed, lambda machine: machine.absorb(activity((1, 1, T - 30 * DAY))))
    call(keyed, lambda machine: machine.advance(T))
    call(keyed, lambda machine: machine.absorb(activity((1, 1, T), (1, 2, T), (2, 1, T), (2, 2, T), (2, 3, T), (3, 1, T + DAY))))
    other = activity((3, 1, T + DAY))
    other.rows["digest"] = 8
    call(keyed, lambda machine: machine.absorb(other))


def of_rejects(keyed: Keyed) -> None:
    """Two days' rejects and one that is forgotten."""
    call(keyed, lambda machine: machine.absorb(["file@0"], np.array([T - 30 * DAY])))
    call(keyed, lambda machine: machine.advance(T))
    call(keyed, lambda machine: machine.absorb(["file@1", "k\u00f6@2:1"], np.array([T, T + 2 * DAY])))


def of_totals(keyed: Keyed) -> None:
    """A final row, one restated since, one published and changed since, late events held back, one without an hour."""
    def entry(hour: int | None, n: int, kind: str | None, because: int = ON_TIME) -> Deltas:
        return Deltas.tally({(hour, because, "events-0", kind, "counted"): (n,)})

    call(keyed, lambda machine: machine.absorb(entry(T - 2 * HOUR, 7, "click")))
    call(keyed, lambda machine: machine.absorb(entry(T - 2 * HOUR, 1, "start")))
    call(keyed, lambda machine: machine.advance(CLOSE - HOUR, 5))
    call(keyed, lambda machine: machine.absorb(entry(T, 10, "impression")))
    call(keyed, lambda machine: machine.flush(6))
    call(keyed, lambda machine: machine.absorb(entry(T - 2 * HOUR, 2, "start", LATE)))
    call(keyed, lambda machine: machine.absorb(entry(T, 3, "impression")))
    call(keyed, lambda machine: machine.absorb(entry(T, 4, "impression", LATE)))
    call(keyed, lambda machine: machine.absorb(entry(None, 2, None)))


def ordered(event: dict) -> EventBatch:
    """A conversion that names an order as the join hands it on."""
    return absorb(Keyed(MACHINES["join"][0]), event).orders


# --- What each then publishes --------------------------------------------------------------------------------

def counted(ledger) -> dict[tuple, int]:
    """Ledger changes by hour (from T), source, type and outcome, and why where the hour had closed."""
    assert {key[4] for key in ledger} <= set(OUTCOMES)
    return {((key[0] - T) // HOUR, *key[2:], *([BECAUSE[key[1]]] if key[1] else [])): n for key, n in ledger.items() if n}


def rows_of(deltas: Deltas) -> list[tuple]:
    """(hour from T, texts of the row, counts that changed) of each delivery row."""
    return sorted((int(hour - T) // HOUR, tuple(deltas.labels[c] for c in codes if c >= 0), tuple(n.tolist()))
                  for hour, codes, n in zip(deltas.hours, deltas.codes, deltas.counts))


def from_join(keyed: Keyed) -> None:
    effects = absorb(
        keyed, impression("to come", T + 2 * MINUTE), click("early", T + MINUTE, "to come", source_id="ssp"),
        impression("seen", T, **VIDEO), impression("seen", T, **{**VIDEO, "price_micros": 251}),
        viewability("v", T + 2, "seen", visible_percent=60, visible_ms=2_500), click("rk2", T + 2, "robot"),
        click("nk", T + DAY, "next day"))
    assert counted(effects.ledger) == {
        (0, "events-0", "impression", "counted"): 1, (0, "ssp", "click", "counted"): 1, (0, "ssp", "click", "duplicate"): 1,
        (0, "events-0", "impression", "duplicate"): 1, (0, "events-0", "impression", "id_conflict"): 1,
        (0, "events-0", "viewability", "counted"): 1, (0, "events-0", "click", "invalid_traffic"): 1,
        (24, "events-0", "click", "invalid_traffic"): 1}
    assert [(reason, event.event_id) for reason, event, _ in effects.rejects] == [("id_conflict", "seen")]
    # gross, net, measurable, viewable, audible, clicks, starts, three quartiles, completes, spend
    assert rows_of(effects.delivery) == [
        (0, ("adv", "camp"), (1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)),
        (0, ("adv", "camp", "video", "SE", "EUR"), (0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0))]
    effects = call(keyed, lambda machine: machine.advance(T + MINUTE + JOIN_HORIZON))
    [(reason, event, late)] = effects.rejects
    assert (reason, event.event_id, event.source, event.file, late) == ("orphan", "k\u00f6", "ssp", "events-0", True)
    assert json.loads(event.payload)["impression_id"] == "never comes"
    assert counted(effects.ledger) == {(0, "ssp", "click", "orphan", "late"): 1}


def from_orders(keyed: Keyed) -> None:
    ledger, invalid, told = call(keyed, lambda machine: machine.absorb(ordered(conversion("0", T - HOUR, order_id="o"))))
    assert told.facts["delta"].tolist() == [-1, 1] and told.ids[1] == b"0"
    assert counted(ledger) == {
        (-1, "events-0", "conversion", "counted"): 1, (0, "events-0", "conversion", "counted"): -1,
        (0, "events-0", "conversion", "duplicate"): 1}
    assert not invalid
    _, invalid, _ = call(keyed, lambda machine: machine.absorb(ordered(conversion("to come", T + 1, order_id="o"))))
    assert not invalid
    ledger, invalid, told = call(keyed, lambda machine: machine.absorb(ordered(conversion("y", T + 1, order_id="other"))))
    assert told.facts["delta"].tolist() == [0]
    assert counted(ledger) == {(0, "events-0", "conversion", "duplicate"): 1}


def from_credits(keyed: Keyed) -> None:
    assert keyed.machine.next_due() == keyed.machine.buckets.expires(keyed.machine.buckets.of(T - 3))
    assert len(keyed.machine.conversions) == 6
    joined = Keyed(MACHINES["join"][0])
    absorb(joined, impression("seen", T - 2, user_id="u", line_item_id="l\u00f6"))

    def credits_of(credited: Credited) -> list[tuple]:
        """(conversion, touch, its line item, why, change of the credit, change of the value)"""
        d = credited.credits
        return sorted((d.labels[row[0]], *(None if c < 0 else d.labels[c] for c in row[[2, 8]]), BECAUSE[why], *n.tolist())
                      for row, why, n in zip(d.codes, d.because, d.counts) if n.any())

    late = absorb(joined, click("later", T - 1, "seen", user_id="u"), watermark=CLOSE).facts
    assert credits_of(call(keyed, lambda machine: machine.absorb(late))) == [
        ("a", "k\u00f6", "l\u00f6", "late", -10**9, 0), ("a", "later", "l\u00f6", "late", 10**9, 0),
        ("much later", "k\u00f6", "l\u00f6", "", -10**9, 0), ("much later", "later", "l\u00f6", "", 10**9, 0),
        ("plain", "k\u00f6", "l\u00f6", "late", -10**9, -5), ("plain", "later", "l\u00f6", "late", 10**9, 5)]
    probe = absorb(joined, conversion("tried again", T, user_id="u", test=True)).facts
    assert credits_of(call(keyed, lambda machine: machine.absorb(probe))) == [("tried again", "probe", "l\u00f6", "", 10**9, 0)]


def from_rejects(keyed: Keyed) -> None:
    ids = ["file@0", "file@1", "k\u00f6@2:1", "file@3"]
    first = call(keyed, lambda machine: machine.absorb(ids, np.full(4, T)))
    assert first.tolist() == [True, False, False, True]
    call(keyed, lambda machine: machine.advance(T + DAY + REDELIVERY))
    assert call(keyed, lambda machine: machine.absorb(ids, np.full(4, T + 2 * DAY))).tolist() == [True, True, False, True]


def from_rates(keyed: Keyed) -> None:
    assert keyed.machine.count == 7
    verdicts = keyed.machine.absorb(activity((1, 1, T), (2, 4, T))).rows
    assert len(verdicts) == 1
    verdicts = keyed.machine.absorb(activity((3, 2, T + DAY), (3, 3, T + DAY))).rows
    assert sorted(verdicts["digest"].tolist()) == [7, 7, 7, 8]


def from_totals(keyed: Keyed) -> None:
    hours = {T - 2 * HOUR: -2, T: 0, NO_HOUR: None}

    def told(*revisions) -> list[tuple]:
        return sorted(
            ((hours[int(r.hours[i])], *(r.labels[c] if c >= 0 else None for c in r.codes[i]), *r.counts[i].tolist(),
              STATUSES[r.status[i]], BECAUSE[r.because[i]], int(r.number[i]))
             for r in revisions if r is not None for i in range(len(r))), key=str)

    assert told(call(keyed, lambda machine: machine.flush(7))) == [
        (-2, "events-0", "start", "counted", 3, "restated", "late", 7),
        (0, "events-0", "impression", "counted", 13, "provisional", "", 7),
        (None, "events-0", None, "counted", 2, "provisional", "", 7)]
    assert told(*call(keyed, lambda machine: machine.advance(CLOSE, 8))) == [
        (0, "events-0", "impression", "counted", 13, "final", "", 8),
        (0, "events-0", "impression", "counted", 17, "restated", "late", 9)]
    assert told(*call(keyed, lambda machine: machine.advance(END, 10))) == [
        (None, "events-0", None, "counted", 2, "final", "", 10)]


SEEN = {"rates": of_rates, "join": of_join, "orders": of_orders, "credits": of_credits, "rejects": of_rejects, "totals": of_totals}
THEN = {"rates": from_rates, "join": from_join, "orders": from_orders, "credits": from_credits, "rejects": from_rejects, "totals": from_totals}


# --- Logs ----------------------------------------------------------------------------------------------------

def written(name: str) -> Keyed:
    """The machine as it is now, with the log that this code writes."""
    keyed = Keyed(MACHINES[name][0])
    SEEN[name](keyed)
    return keyed


def kept(path: Path) -> dict[int, list[bytes]]:
    bags: dict[int, list[bytes]] = {}
    for line in path.read_text().splitlines():
        slot, run = json.loads(line)
        bags.setdefault(slot, []).append(base64.b64decode(run))
    return bags


def restored(name: str, bags: dict[int, list[bytes]]) -> Keyed:
    keyed = Keyed(MACHINES[name][0])
    keyed.bags = bags
    keyed.lose()
    return keyed


def version_of(run: bytes) -> int:
    return int.from_bytes(run[:8], "little")


FILES = sorted(LOGS.glob("*.jsonl"))


def test_every_machines_log_is_kept_as_it_is_written_now():
    assert {f"{name}-{version}" for name, (_, version) in MACHINES.items()} <= {path.stem for path in FILES}
    assert sum(path.stat().st_size for path in FILES) < 200_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_log_of_each_version_is_restored_and_publishes_what_is_due(path):
    name, _, version = path.stem.partition("-")
    bags = kept(path)
    assert {version_of(run) for runs in bags.values() for run in runs} == {int(version)}
    THEN[name](restored(name, bags))


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_lives_on_publishes_the_same(name):
    THEN[name](written(name))


@pytest.mark.parametrize("name", MACHINES)
def test_a_log_is_written_as_before_unless_its_version_says_otherwise(name):
    """A changed layout under an old version would be misread by whatever restores it."""
    def plain(run: bytes) -> list[bytes]:
        # What is compressed another version of the codec may compress otherwise: it is compared unpacked.
        sections = [bytes(s) for s in unpack(version_of(run), run)]
        if name == "join":
            sections[7] = join._unpacked(sections[7], len(sections[6]) // IDENTITY.itemsize).tobytes()
            waits = EventBatch.decode(sections[8])
            sections[8] = waits.rows.tobytes() + waits.payloads.data.tobytes() + json.dumps(waits.labels).encode()
        if name == "rates":
            return [Activity.decode(run).rows.tobytes()]
        if name == "credits":
            told = Facts.decode(sections[0])
            sections = [told.facts.tobytes(), told.terms.tobytes(), told.ids.data.tobytes(), json.dumps(told.labels).encode()]
        return sections

    before = kept(LOGS / f"{name}-{MACHINES[name][1]}.jsonl")
    now = written(name).bags
    assert {slot: [plain(run) for run in runs] for slot, runs in now.items() if runs} == {
        slot: [plain(run) for run in runs] for slot, runs in before.items()}


@pytest.mark.parametrize("name", MACHINES)
def test_a_log_of_an_unknown_version_is_refused_by_its_number(name):
    version = MACHINES[name][1]
    for other in (version + 1, 0, 99):
        bags = written(name).bags
        slot = max(slot for slot, runs in bags.items() if runs)
        bags[slot][-1] = other.to_bytes(8, "little") + bags[slot][-1][8:]
        with pytest.raises(ValueError, match=f"version {other} where {version} is read"):
            restored(name, bags)


@pytest.mark.parametrize(("name", "section"), [("join", 8), ("credits", 0)])
def test_a_log_that_holds_events_or_facts_of_an_unknown_version_is_refused(name, section):
    bags = written(name).bags
    run = next(run for runs in bags.values() for run in runs)
    sections = [bytes(s) for s in unpack(version_of(run), run)]
    sections[section] = (9).to_bytes(8, "little") + sections[section][8:]
    with pytest.raises(ValueError, match="version 9 where"):
        restored(name, {0: [pack(version_of(run), tuple(sections))]})


def test_the_slots_of_a_log_are_those_that_the_jobs_state_has():
    assert all(0 <= slot <= SLOTS for path in FILES for slot in kept(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", required=True, help="keep this version's logs beside the others")
    parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    for name, (_, version) in MACHINES.items():
        path = LOGS / f"{name}-{version}.jsonl"
        if path.exists():
            print(f"{path.name}: there already, left as it is", file=sys.stderr)
            continue
        runs = ((slot, run) for slot, runs in sorted(written(name).bags.items()) for run in runs)
        lines = [json.dumps([slot, base64.b64encode(run).decode()]) for slot, run in runs]
        path.write_text("\n".join(lines) + "\n")
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
