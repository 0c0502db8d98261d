"""What a subscription is read with, each part by itself: messages, leases, keeper, fence, archive, rejects, rebuilding."""

import dataclasses
import io
import json
import struct
import threading
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import fastavro
import grpc
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.pvalue import TaggedOutput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machines import Keyed
from measurement.cloud.generation import Archive, Reach, before_streaming, of_hours
from measurement.columnar import stored
from measurement.columnar.batch import AVRO, JSON, NO_WATERMARK
from measurement.columnar.deltas import BECAUSE, LATE, NO_HOUR, ON_TIME, REBUILD, Deltas
from measurement.columnar.intake import Intake, Origin, take_in
from measurement.columnar.screen import Screen
from measurement.io import archive
from measurement.io.endpoints import Endpoints
from measurement.io.framing import READER_SCHEMA
from measurement.io.publication import REJECTED, of_revisions, schema
from measurement.io.pubsub import keeper as keeper_module
from measurement.io.pubsub.fence import BEAT, Fence, heard, running
from measurement.io.pubsub.keeper import Flow, Keeper, Pulled, Superseded
from measurement.io.pubsub.leases import Leases
from measurement.io.pubsub.messages import Message, MessageFrame, Schemas, frames
from measurement.io.pubsub.source import PubSubSource, Reading, Rebuild
from measurement.io.retry import SinkError
from measurement.io.watermark import END, FileWatermark
from measurement.model.attribution import Attribution, AttributionRule, Terms
from measurement.model.events import SCHEMA
from measurement.model.policy import Counting, Policy
from measurement.model.tables import ATTRIBUTION, TOTALS
from measurement.state.join import JoinShard
from measurement.state.rejects import REDELIVERY, RejectsShard
from measurement.state.ring import SLOTS
from measurement.state.totals import FINAL, PROVISIONAL, RESTATED, TotalsShard
from measurement.transforms.config import Rebuilding, RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import EVENTS, FACTS, REJECTS, ROWS, SPLIT, TALLIES, Distribute, now_micros, rejects_by_shard
from measurement.transforms.join import ORDERS, Join
from measurement.transforms.keyed import END_OF_STREAM
from measurement.transforms.orders import Orders
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import _FIRST_MOVE, Totals
from oracle import DAY, HOUR, MINUTE, PLAIN_SCHEMA, TYPES
from strategies import START, encode_avro, encode_json, events
from test_oracle import T, click, conversion, impression

PUBLISHED = T + 30 * MINUTE
CLOSE = T + HOUR + 10 * MINUTE
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


# --- Messages ------------------------------------------------------------------------------------------------

# A later schema of the publisher's: a field more, another order, none of the reader's own names missing.
LATER = {**SCHEMA, "fields": [*SCHEMA["fields"][::-1], {"name": "mood", "type": ["null", "string"], "default": None}]}
LATER_TEXT = json.dumps(LATER)


def whole(event: dict) -> dict:
    return {**dict.fromkeys(TYPES), **event}


def message(data: bytes, number: int = 1, published: int = PUBLISHED, **attributes) -> Message:
    return Message(str(number), published, attributes, data)


def container(log: list[dict], schema=PLAIN_SCHEMA, codec: str = "deflate", interval: int = 16_000) -> bytes:
    """An Avro object container; a block ends behind ``interval`` bytes."""
    out = io.BytesIO()
    fastavro.writer(out, schema, [whole(event) for event in log], codec=codec, sync_interval=interval)
    return out.getvalue()


def datum_of(schema: dict, event: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), whole(event))
    return out.getvalue()


def single_object(datum: bytes, schema: dict) -> bytes:
    """By the letter of Avro's specification: C3 01 and the little-endian CRC-64-AVRO of the canonical form."""
    return b"\xc3\x01" + struct.pack("<Q", crc_64_avro(fastavro.schema.to_parsing_canonical_form(schema).encode())) + datum


def crc_64_avro(text: bytes) -> int:
    crc = empty = 0xC15D213AA4D7A795
    for byte in text:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (empty if crc & 1 else 0)
    return crc


def schemas(known=(), service=None) -> Schemas:
    """``service``: texts by (name, revision) as Pub/Sub's schema service has them."""
    return Schemas(list(known), lambda name, revision: (service or {}).get((name, revision)))


def taken(messages: list[Message], of: Schemas | None = None) -> list[tuple[MessageFrame, Intake]]:
    """The messages as measurement/io/pubsub/source.py takes them in."""
    watermark, out = FileWatermark(10_000_000), []
    for frame in frames(messages, of or schemas()):
        schema_id = frame.schema.id if frame.schema else None
        positions, clocks = np.array(frame.positions, np.int64), np.array(frame.clocks, np.int64)
        origin = Origin("sub", positions, frame.encoding, schema_id, clocks)
        edge = {hour: tuple(counts) for hour, counts in frame.edge.items()}
        out.append((frame, take_in(frame.decoded(), origin, edge, Policy(), watermark, END, Screen(Policy().screening))))
    return out


def rejects_of(intakes) -> list[dict]:
    return [reject for _, intake in intakes for reject in intake.rejects]


def positions_of(intakes) -> list[tuple[int, int]]:
    """(message, index in it) of each accepted event."""
    return [(int(row["position"]), int(row["index"])) for _, intake in intakes for row in intake.batch.rows]


def accounted(messages: list[Message], intakes) -> tuple[int, int]:
    """(accepted, rejected), once it is certain that the edge counted as much and that each reject has a name of its own."""
    accepted, rejects = len(positions_of(intakes)), rejects_of(intakes)
    counted = sum((intake.tallies["intake"].counts.sum(axis=0) for _, intake in intakes), np.zeros(3, np.int64))
    assert counted.tolist() == [len(messages), accepted + len(rejects), sum(len(m.data) for m in messages)]
    arrived = sum(int(intake.tallies["arrivals"].counts.sum()) for _, intake in intakes if "arrivals" in intake.tallies)
    assert arrived == accepted + len(rejects)
    assert len({reject["reject_id"] for reject in rejects}) == len(rejects)
    places = positions_of(intakes)
    assert len(set(places)) == len(places)
    return accepted, len(rejects)


def outcome(*messages: Message, of: Schemas | None = None) -> tuple[int, int]:
    return accounted(list(messages), taken(list(messages), of))


def test_a_bare_datum_is_of_version_1():
    [(frame, intake)] = taken([message(encode_avro(whole(impression())))])
    assert (frame.encoding, frame.schema, len(intake.batch.rows)) == (AVRO, READER_SCHEMA, 1)
    assert int(intake.batch.rows[0]["receipt"]) == PUBLISHED


def test_a_single_object_header_names_the_schema_of_its_datum():
    later = message(single_object(datum_of(LATER, impression()), LATER))
    version_1 = message(single_object(encode_avro(whole(click())), SCHEMA), 2)
    assert outcome(later, version_1, of=schemas([LATER_TEXT])) == (2, 0)


def test_an_unknown_single_object_header_is_one_reject_with_all_its_bytes():
    data = single_object(datum_of(LATER, impression()), LATER)
    intakes = taken([message(data)])
    assert accounted([message(data)], intakes) == (0, 1)
    [reject] = rejects_of(intakes)
    assert (reject["reason"], reject["payload"], reject["schema_id"]) == ("undecodable", data, None)


def test_a_schema_of_the_service_reads_a_binary_datum_and_is_asked_for_once():
    asked = []

    def look_up(name, revision):
        asked.append((name, revision))
        return LATER_TEXT

    named = {"googclient_schemaname": "projects/p/schemas/s", "googclient_schemarevisionid": "r1",
             "googclient_schemaencoding": "BINARY"}
    log = [message(datum_of(LATER, impression(f"i{k}")), k, **named) for k in range(3)]
    assert outcome(*log, of=Schemas([], look_up)) == (3, 0)
    assert asked == [("projects/p/schemas/s", "r1")]


@pytest.mark.parametrize("text", [None, "no schema", "[]", '"string"'])
def test_a_binary_datum_of_a_schema_that_is_not_there_or_fits_nothing_is_a_reject(text):
    sent = message(encode_avro(whole(impression())), googclient_schemaname="s", googclient_schemaencoding="BINARY")
    intakes = taken([sent], schemas(service={("s", ""): text}))
    assert accounted([sent], intakes) == (0, 1)
    assert rejects_of(intakes)[0]["payload"] == sent.data


def test_a_json_message_of_a_pubsub_schema_needs_no_schema_to_be_read():
    sent = message(b" " + encode_json(impression()), googclient_schemaname="s", googclient_schemaencoding="JSON")
    [(frame, intake)] = taken([sent])
    assert frame.encoding == JSON and len(intake.batch.rows) == 1


def test_json_is_one_event_over_several_lines_or_one_a_line():
    spread = message(json.dumps(impression(), indent=1).encode(), 1)
    lines = message(b"\n".join(encode_json(e) for e in (impression("a"), click("b"), conversion("c"))) + b"\r\n\n", 2)
    intakes = taken([spread, lines])
    assert accounted([spread, lines], intakes) == (4, 0)
    assert positions_of(intakes) == [(1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_containers_events_are_numbered_through_all_its_blocks(codec):
    log = [impression(f"i{k}") for k in range(20)]
    sent = message(container(log, codec=codec, interval=100), 7)
    intakes = taken([sent, message(container(log[:1]), 8)])
    [(frame, _)] = intakes
    assert len(frame.pieces) > 3
    assert accounted([sent, message(container(log[:1]), 8)], intakes) == (21, 0)
    assert positions_of(intakes) == [*((7, k) for k in range(20)), (8, 0)]


def test_a_containers_own_schema_reads_it():
    sent = message(container([impression(), click()], fastavro.parse_schema(json.loads(LATER_TEXT))))
    assert outcome(sent) == (2, 0)


def test_an_event_that_cannot_be_read_inside_a_container_is_a_reject_of_its_own():
    bad = [impression(f"i{k}", price_micros=-1) if k % 3 == 1 else impression(f"i{k}") for k in range(9)]
    intakes = taken([message(container(bad, interval=100), 5)])
    assert accounted([message(container(bad, interval=100), 5)], intakes) == (6, 3)
    assert [r["source_position"] for r in rejects_of(intakes)] == ["5:1", "5:4", "5:7"]


def test_a_container_without_events_was_received():
    assert outcome(message(container([]))) == (0, 0)


def test_a_container_cut_anywhere_is_one_reject_with_its_bytes():
    data = container([impression(f"i{k}") for k in range(6)], codec="null", interval=100)
    for end in range(4, len(data), 7):
        sent = message(data[:end], end)
        intakes = taken([sent])
        accepted, rejected = accounted([sent], intakes)
        if rejected:
            assert (accepted, [r["payload"] for r in rejects_of(intakes)]) == (0, [data[:end]])
        else:
            assert data[end - 16 : end] == data[-16:]  # cut exactly behind a block, which nothing tells


@pytest.mark.parametrize("data", [b"", b" ", b"\n", b"{", b"Obj\x01", b"\xc3\x01", b"\xc3\x01" + bytes(8), b"null", b"{}"])
@pytest.mark.parametrize("attributes", [{}, {"googclient_schemaencoding": "JSON"}, {"googclient_schemaname": "gone"}])
def test_a_message_of_nothing_or_of_half_a_frame_is_one_reject(data, attributes):
    sent = message(data, **attributes)
    intakes = taken([sent])
    assert accounted([sent], intakes) == (0, 1)
    assert rejects_of(intakes)[0]["payload"] == data


def test_a_message_is_numbered_by_its_id_and_an_unusual_id_by_its_fingerprint():
    ids = ["1", "123456789012345678", "1234567890123456789", "projects/x", "", "é", "٣x", "-1"]
    positions = [Message(i, 0, {}, b"").position for i in ids]
    assert positions[:2] == [1, 123456789012345678]
    assert len(set(positions)) == len(ids) and all(0 <= p < 2**63 for p in positions)


@st.composite
def messages(draw) -> list[Message]:
    """Messages of every kind, sound, spoilt and random."""
    out = []
    for number in range(draw(st.integers(1, 5))):
        log = draw(st.lists(events(), min_size=0, max_size=4))
        kind = draw(st.sampled_from(["datum", "json", "lines", "container", "later", "header", "bytes"]))
        data = {
            "datum": lambda: encode_avro(log[0]) if log else b"",
            "json": lambda: encode_json(log[0]) if log else b"{}",
            "lines": lambda: b"\n".join(encode_json(event) for event in log),
            "container": lambda: container(log, codec=draw(st.sampled_from(["null", "deflate"])), interval=60),
            "later": lambda: container(log, fastavro.parse_schema(json.loads(LATER_TEXT)), interval=60),
            "header": lambda: single_object(encode_avro(log[0]) if log else b"", SCHEMA),
            "bytes": lambda: draw(st.sampled_from([b"", b"{", b"Obj\x01", b"\xc3\x01", b"Obj\x01\x04\x16avro.schema"]))
            + draw(st.binary(max_size=60)),
        }[kind]()
        for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
            if data:
                at = draw(st.integers(0, len(data) - 1))
                data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 4)) :]
        attributes = draw(st.sampled_from([
            {}, {}, {}, {"googclient_schemaencoding": "JSON"}, {"googclient_schemaname": "later"},
            {"googclient_schemaname": "gone", "googclient_schemaencoding": "BINARY"}]))
        out.append(Message(str(number), PUBLISHED + number * HOUR, attributes, data))
    return out


@given(messages())
@QUICK
def test_whatever_the_bytes_every_message_ends_in_frames_as_the_edge_counted_it(log):
    accounted(log, taken(log, schemas([LATER_TEXT], {("later", ""): LATER_TEXT})))


# --- Leases --------------------------------------------------------------------------------------------------

def leased(elements: int, hold: float = 0.0, lease: float = 60.0) -> Leases:
    """Elements 1, 2 … of one message each, whose ack id is the number."""
    leases = Leases(lease, hold)
    for number in range(1, elements + 1):
        leases.emitted(number, [str(number)], 10, 0.0)
    return leases


def test_nothing_is_acknowledged_before_it_is_finalized_and_the_hold_is_over():
    leases = leased(3, hold=5.0)
    assert leases.due(1_000.0).acknowledge == []
    leases.finalized(2, 1_000.0)
    leases.finalized(2, 1_004.9)
    assert leases.due(1_004.9).acknowledge == []
    leases.finalized(2, 1_005.0)
    assert leases.due(1_005.0).acknowledge == ["1", "2"]
    assert leases.due(2_000.0).through == 2


def test_time_alone_acknowledges_nothing_since_no_checkpoint_need_have_been_completed_in_it():
    leases = leased(1, hold=5.0)
    leases.finalized(1, 1_000.0)
    assert leases.due(9_000.0).acknowledge == []
    leases.finalized(0, 9_000.0)  # of another bundle, by a later checkpoint
    assert leases.due(9_000.0).acknowledge == ["1"]


def test_finalizations_come_in_any_order_and_again_and_the_first_counts():
    leases = leased(4, hold=5.0)
    leases.finalized(3, 100.0)
    leases.finalized(1, 103.0)
    leases.finalized(3, 104.0)
    leases.finalized(4, 104.0)
    leases.finalized(2, 105.0)
    assert leases.due(105.0).acknowledge == ["1", "2", "3"]
    leases.finalized(2, 109.0)
    assert leases.due(109.0).acknowledge == ["1", "2", "3", "4"]


def test_a_finalization_of_what_is_not_held_any_more_or_not_yet_covers_nothing_else():
    leases = leased(2)
    leases.finalized(9, 1.0)
    leases.emitted(3, ["3"], 1, 0.0)
    assert leases.due(2.0).acknowledge == ["1", "2"]
    leases.acknowledged(2)
    leases.finalized(2, 3.0)
    assert leases.due(4.0).acknowledge == []


def test_what_was_acknowledged_is_held_no_more_and_the_rest_is():
    leases = leased(3)
    leases.finalized(3, 1.0)
    leases.acknowledged(2)
    assert (len(leases), leases.bytes, leases.due(1.0).acknowledge) == (1, 10, ["3"])
    leases.acknowledged(-1)
    assert len(leases) == 1


def test_what_a_restored_mark_does_not_cover_is_dropped_and_its_number_used_again():
    leases = leased(4)
    leases.finalized(4, 1.0)
    assert leases.forget_after(2) == ["3", "4"]
    leases.emitted(3, ["other"], 1, 2.0)
    assert leases.due(3.0).acknowledge == ["1", "2"]
    assert leases.forget_after(0) == ["1", "2", "other"] and len(leases) == 0


def test_all_that_is_held_is_extended_every_third_of_a_lease():
    leases = leased(2, lease=60.0)
    assert leases.due(100.0).extend == ["1", "2"]
    leases.emitted(3, ["3"], 1, 101.0)
    assert leases.due(119.9).extend == []
    assert leases.due(120.0).extend == ["1", "2", "3"]
    assert leases.due(121.0).extend == []


@given(st.lists(st.tuples(st.sampled_from(["emit", "finalize", "restore", "acknowledge"]), st.integers(0, 8)), max_size=30),
       st.sampled_from([0.0, 3.0]))
def test_whatever_happens_only_what_was_finalized_long_enough_ago_is_acknowledged_and_nothing_is_forgotten(steps, hold):
    leases, number, last, covered, held = Leases(60.0, hold), 0, 0, {}, {}
    for now, (step, n) in enumerate(steps):
        if step == "emit":
            number += 1
            held[number] = f"{number}@{now}"
            leases.emitted(number, [held[number]], 1, now)
        elif step == "finalize":
            leases.finalized(n, now)
            last = now
            covered |= {held[k]: now for k in held if k <= n and held[k] not in covered}
        elif step == "restore":
            number = min(number, n)
            assert leases.forget_after(number) == [held.pop(k) for k in sorted(held) if k > number]
        else:
            due = leases.due(now)
            assert due.acknowledge == [i for i in held.values() if i in covered and last - covered[i] >= hold]
            leases.acknowledged(due.through)
            held = {k: i for k, i in held.items() if i not in due.acknowledge}
        assert len(leases) == len(held)


# --- Keeper --------------------------------------------------------------------------------------------------

class Away(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.UNAVAILABLE


class Service:
    """One subscription in memory: deadlines by the clock, redelivery when they pass, calls that fail when they shall."""

    def __init__(self):
        self.now = 1_000.0
        self.called = threading.Condition()  # notified of every call
        self.calls: Counter = Counter()
        self.failing: dict[str, Exception] = {}
        self.deadlines: dict[str, float] = {}  # by message: until when it is somebody's
        self.sizes: dict[str, int] = {}
        self.acknowledged: list[str] = []
        self.given_back: list[str] = []

    def publish(self, *names: str, size: int = 10) -> None:
        with self.called:
            self.sizes |= dict.fromkeys(names, size)
            self.deadlines |= dict.fromkeys(names, 0.0)

    def _called(self, call: str) -> None:
        self.calls[call] += 1
        self.called.notify_all()
        if call in self.failing:
            raise self.failing[call]

    # what a Subscriber has

    def pull(self, most: int, seconds: float) -> list:
        with self.called:
            self._called("pull")
            ready = [name for name, until in self.deadlines.items() if until <= self.now][:most]
            if not ready:
                self.called.wait(0.002)  # as the service waits for messages before it answers that there are none
            self.deadlines |= dict.fromkeys(ready, self.now + 60)
            return [SimpleNamespace(ack_id=name, message=SimpleNamespace(data=bytes(self.sizes[name]))) for name in ready]

    def acknowledge(self, ids: list[str]) -> None:
        with self.called:
            self._called("acknowledge")
            self.acknowledged += ids
            for name in ids:
                self.deadlines.pop(name, None)

    def extend(self, ids: list[str], seconds: int) -> None:
        with self.called:
            self._called("extend")
            if seconds == 0:
                self.given_back += ids
            self.deadlines |= {name: self.now + seconds for name in ids if name in self.deadlines}

    def permit(self, acknowledging: bool = True) -> None:
        with self.called:
            self._called("permit")

    def close(self) -> None:
        pass

    # what a test does

    def until(self, holds) -> None:
        """Waits until it holds, looking again at every call."""
        with self.called:
            assert self.called.wait_for(holds, 20), "it never came to hold"

    def rounds(self, n: int = 2, of: str = "permit") -> None:
        """Waits for so many more calls, so that whatever the keeper would do it has done."""
        seen = self.calls[of]
        self.until(lambda: self.calls[of] >= seen + n)


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(keeper_module, "_TICK_SECONDS", 0.002)
    monkeypatch.setattr(keeper_module, "_BACKOFF_SECONDS", (0.001, 0.004))
    return Service()


@pytest.fixture
def keep(service):
    """Keepers of the service, which end with the test."""
    made = []

    def make(**flow) -> Keeper:
        made.append(Keeper(service, Flow(**{"threads": 1, "hold": 0.0, **flow}), service.permit, lambda: service.now))
        return made[-1]

    yield make
    service.failing.clear()
    for keeper in made:
        keeper.close()
    service.now += 10_000  # what they hold is nobody's by then
    for thread in (thread for keeper in made for thread in keeper._threads):
        thread.join(20)
        assert not thread.is_alive()


def hand_on(service: Service, keeper: Keeper, number: int) -> list[str]:
    """What a reader does: takes what has been pulled and emits it as an element."""
    taken = []
    service.until(lambda: bool(taken.extend(keeper.take(1_000, 1 << 30, 0.0)) or taken))
    ids = [m.ack_id for pulled in taken for m in pulled.messages]
    keeper.leases.emitted(number, ids, sum(p.size for p in taken), taken[0].at)
    return ids


def test_a_keeper_pulls_and_acknowledges_what_was_finalized(service, keep):
    keeper = keep()
    service.publish("a", "b")
    assert hand_on(service, keeper, 1) == ["a", "b"]
    service.rounds()
    assert service.acknowledged == []
    keeper.finalized(1)
    service.until(lambda: keeper.acknowledged == 2)
    assert service.acknowledged == ["a", "b"] and service.deadlines == {} and len(keeper.leases) == 0


def test_an_acknowledgement_is_held_by_the_clock(service, keep):
    keeper = keep(hold=5.0)
    service.publish("a")
    hand_on(service, keeper, 1)
    keeper.finalized(1)
    service.now += 4.9
    keeper.finalized(1)
    service.rounds()
    assert service.acknowledged == []
    service.now += 0.2
    keeper.finalized(1)
    service.until(lambda: service.acknowledged == ["a"])


def test_an_outage_while_pulling_is_waited_out(service, keep):
    service.failing["pull"] = Away()
    keeper = keep()
    service.publish("a")
    service.until(lambda: keeper.outages >= 3)
    assert keeper.take(10, 1 << 30, 0.0) == []
    del service.failing["pull"]
    assert hand_on(service, keeper, 1) == ["a"]


def test_an_acknowledgement_that_fails_is_made_again(service, keep):
    keeper = keep()
    service.publish("a")
    hand_on(service, keeper, 1)
    service.failing["acknowledge"] = Away()
    keeper.finalized(1)
    service.rounds(3, of="acknowledge")
    assert len(keeper.leases) == 1 and keeper.acknowledged == 0 and keeper.outages >= 2
    del service.failing["acknowledge"]
    service.until(lambda: keeper.acknowledged == 1)
    assert service.acknowledged == ["a"]


def test_nothing_is_acknowledged_while_it_cannot_be_found_out_whether_it_may_be(service, keep):
    service.failing["permit"] = SinkError("Bigtable is away")
    keeper = keep()
    service.publish("a")
    hand_on(service, keeper, 1)
    keeper.finalized(1)
    service.rounds(4)
    assert service.calls["acknowledge"] == 0 and keeper.superseded is None
    del service.failing["permit"]
    service.until(lambda: service.acknowledged == ["a"])


def test_a_keeper_of_a_generation_that_is_over_stops_and_acknowledges_nothing_more(service, keep):
    keeper = keep()
    service.publish("a")
    hand_on(service, keeper, 1)
    service.failing["permit"] = Superseded("another has begun")
    keeper.finalized(1)
    for thread in keeper._threads:
        thread.join(20)
    assert str(keeper.superseded) == "another has begun" and keeper.closed
    assert service.calls["acknowledge"] == 0


def test_a_reader_is_idle_only_while_the_service_answers_and_nothing_is_waiting_or_held(service, keep):
    service.failing["pull"] = Away()
    keeper = keep()
    service.now += 100
    service.rounds(2, of="pull")
    assert keeper.idle() == 0
    del service.failing["pull"]
    service.until(lambda: keeper._answers >= 1)
    service.now += 10
    assert keeper.idle() == 10
    service.publish("a")
    service.until(lambda: keeper.idle() == 0)
    hand_on(service, keeper, 1)
    service.now += 30
    service.rounds(3, of="pull")
    assert keeper.idle() == 0  # it is held
    keeper.finalized(1)
    service.until(lambda: len(keeper.leases) == 0 and keeper.idle() >= 30)


def test_an_outage_ends_idleness_which_then_begins_anew(service, keep):
    keeper = keep()
    service.now += 100
    service.until(lambda: keeper.idle() >= 100)
    service.failing["pull"] = Away()
    service.rounds(3, of="pull")
    service.now += 500
    assert keeper.idle() == 0
    service.rounds(3, of="pull")
    del service.failing["pull"]
    service.until(lambda: keeper._answers >= 1)
    assert keeper.idle() < 100  # what came meanwhile may not have been delivered yet


def test_pulling_pauses_at_the_most_bytes_and_goes_on_when_they_are_acknowledged(service, keep):
    keeper = keep(most_bytes=100)
    service.publish("a", "b", size=60)
    service.until(lambda: len(keeper._waiting) == 1)
    service.publish("c")
    pulls = service.calls["pull"]
    service.rounds()
    hand_on(service, keeper, 1)
    service.rounds()
    assert service.calls["pull"] <= pulls + 1  # one may have been under way
    keeper.finalized(1)
    assert hand_on(service, keeper, 2) == ["c"]


def test_what_is_held_or_waits_is_extended_before_its_deadline(service, keep):
    keeper = keep(lease=60.0)
    service.publish("held")
    hand_on(service, keeper, 1)
    service.publish("waits")
    service.until(lambda: len(keeper._waiting) == 1)
    for _ in range(10):
        service.now += 21
        service.until(lambda: min(service.deadlines.values()) >= service.now + 59)
    assert [m.ack_id for p in keeper.take(10, 1 << 30, 0.0) for m in p.messages] == ["waits"]  # and nothing was delivered again


class Nothing:
    """A service that is never asked: what is pulled, a test puts there."""

    pull = acknowledge = extend = lambda *_: []

    def close(self) -> None:
        pass


@pytest.fixture
def quiet_keeper():
    """A keeper without a pulling thread, and what sets its clock."""
    clock = [100.0]
    keeper = Keeper(Nothing(), Flow(threads=0), lambda _: None, lambda: clock[0])

    def pull(n: int, size: int = 100) -> None:
        with keeper._news:
            keeper._waiting.append(Pulled([SimpleNamespace(ack_id=str(i)) for i in range(n)], n * size, clock[0]))
            keeper._messages, keeper._bytes = keeper._messages + n, keeper._bytes + n * size

    yield keeper, pull, clock
    keeper.drain(20)


def sizes(taken: list[Pulled]) -> list[int]:
    return [len(pulled.messages) for pulled in taken]


def test_the_first_message_after_a_pause_goes_at_once_and_what_follows_when_the_linger_is_over(quiet_keeper):
    keeper, pull, clock = quiet_keeper
    take = lambda: sizes(keeper.take(1_000, 1 << 20, 0.3))  # noqa: E731
    assert take() == []
    pull(1)
    assert take() == [1]
    pull(2)
    clock[0] += 0.2
    pull(3)
    assert take() == []
    clock[0] += 0.11
    assert take() == [2, 3]
    clock[0] += 5  # a pause; nothing was taken meanwhile, so nothing counts as taken
    assert take() == []
    pull(1)
    assert take() == [1]


@pytest.mark.parametrize(("most", "most_bytes"), [(1_000, 1 << 30), (1 << 30, 100_000)])
def test_a_full_element_goes_at_once_and_is_of_whole_pulls(quiet_keeper, most, most_bytes):
    keeper, pull, _ = quiet_keeper
    take = lambda: sizes(keeper.take(most, most_bytes, 0.3))  # noqa: E731
    pull(1)
    assert take() == [1]
    for _ in range(25):
        pull(100)
    assert take() == [100] * 10 and take() == [100] * 10  # no time has passed
    assert take() == []  # 500 wait and are not full
    for _ in range(5):
        pull(100)
    assert take() == [100] * 10 and (keeper._messages, keeper._bytes) == (0, 0)


def test_a_reader_that_waits_gets_what_comes_and_is_let_go_when_the_keeper_closes(service, keep):
    keeper, taken = keep(), []
    waits = threading.Thread(target=lambda: taken.extend(keeper.take(10, 1 << 20, 0.3, 20.0)))
    waits.start()
    service.publish("a")
    waits.join(20)
    assert sizes(taken) == [1]
    waits = threading.Thread(target=lambda: taken.extend(keeper.take(10, 1 << 20, 0.3, 20.0)))
    waits.start()
    keeper.close()
    waits.join(10)
    assert not waits.is_alive()


def test_a_keeper_that_closes_gives_back_what_was_not_emitted_and_acknowledges_what_a_mark_still_covers(service, keep):
    keeper = keep()
    service.publish("emitted")
    hand_on(service, keeper, 1)
    service.publish("waits")
    service.until(lambda: len(keeper._waiting) == 1)
    keeper.close()
    service.until(lambda: service.given_back == ["waits"])
    keeper.finalized(1)
    service.until(lambda: service.acknowledged == ["emitted"])


def test_a_closed_keeper_lets_go_of_what_no_mark_covers_when_its_lease_is_over(service, keep):
    keeper = keep(lease=60.0)
    service.publish("a")
    hand_on(service, keeper, 1)
    keeper.close()
    service.rounds()
    assert keeper._threads[-1].is_alive()
    service.now += 61
    keeper._threads[-1].join(20)
    assert not keeper._threads[-1].is_alive() and service.acknowledged == []


def test_what_a_restored_mark_does_not_cover_is_delivered_again_at_once(service, keep):
    keeper = keep()
    service.publish("a")
    hand_on(service, keeper, 1)
    service.publish("b")
    hand_on(service, keeper, 2)
    keeper.give_back(1)
    assert service.given_back == ["b"]
    assert hand_on(service, keeper, 2) == ["b"]


# --- Fence ---------------------------------------------------------------------------------------------------

class Control:
    """The control table of one job; ``away`` makes its next calls fail."""

    def __init__(self, number: int | None = 1):
        self.number, self.witnesses, self.states = number, set(), []
        self.reads, self.away = 0, set()

    def _there(self, call: str) -> None:
        if call in self.away:
            raise SinkError("Bigtable is away")

    def generation(self, job):
        self.reads += 1
        self._there("generation")
        return None if self.number is None else SimpleNamespace(number=self.number)

    def witness(self, job, generation, reader):
        self._there("witness")
        self.witnesses.add((generation, reader))

    def witnessed(self, job, generation, reader):
        return (generation, reader) in self.witnesses

    def set_state(self, job, generation, state):
        self._there("set_state")
        self.states.append(state)


def fence(control: Control, clock: list[float], generation: int = 1, reader: int = 0) -> Fence:
    return Fence(control, "job", generation, reader, lambda: clock[0])


def test_a_reader_is_witnessed_before_it_may_acknowledge_and_known_by_it():
    control, clock = Control(), [100.0]
    first = fence(control, clock)
    assert not first.has_acknowledged()
    first.permit()
    assert first.has_acknowledged() and fence(control, clock).has_acknowledged()
    assert not fence(control, clock, reader=1).has_acknowledged()
    assert not fence(control, clock, generation=2).has_acknowledged()


def test_a_fence_asks_once_a_beat_and_leaves_its_own():
    control, clock = Control(), [100.0]
    it = fence(control, clock)
    for clock[0] in (100.0, 101.0, 100.0 + BEAT - 0.1):
        it.permit()
    assert control.reads == 1
    clock[0] = 100.0 + BEAT
    it.permit()
    assert control.reads == 2 and len(control.states) == 2 and all(heard(state) for state in control.states)


@pytest.mark.parametrize("number", [None, 2])
def test_a_generation_that_is_not_the_last_may_not(number):
    control, clock = Control(), [100.0]
    it = fence(control, clock)
    it.permit()
    control.number = number
    it.permit()  # within the beat it does not know
    clock[0] += BEAT
    with pytest.raises(Superseded):
        it.permit()


@pytest.mark.parametrize("call", ["generation", "witness", "set_state"])
def test_what_cannot_be_found_out_or_noted_is_no_permit_and_is_tried_again(call):
    control, clock = Control(), [100.0]
    it = fence(control, clock)
    control.away = {call}
    for _ in range(2):
        with pytest.raises(SinkError):
            it.permit()
    control.away = set()
    it.permit()
    assert it.has_acknowledged()


def test_a_generation_says_when_it_was_alive_and_no_more_when_it_has_ended():
    assert heard(running(1234.0)) == 1234.0
    assert heard("ended") is heard("failed") is heard("") is None


# --- Archive -------------------------------------------------------------------------------------------------

def kept(directory, start=None, stop=None) -> list[list[Message]]:
    """The archive's messages by hour."""
    return [[m for path in paths for m in archive.read(path)] for paths in archive.files(str(directory), start, stop)]


def test_messages_come_out_of_the_archive_as_they_went_in(tmp_path):
    log = [Message("1", PUBLISHED, {"a": "é", "googclient_schemaname": "s"}, bytes(range(256))),
           Message("x-2", PUBLISHED + 1, {}, b"")]
    archive.write(str(tmp_path), "sub", log)
    assert kept(tmp_path) == [log]


def test_messages_are_kept_by_hour_of_publication_across_midnight(tmp_path):
    hours = [START + k * HOUR for k in range(4)]  # from 22:00
    log = [Message(str(k), hour + k, {}, b"x") for k, hour in enumerate(hours)]
    archive.write(str(tmp_path), "sub", log[::-1])
    assert kept(tmp_path) == [[m] for m in log]
    assert kept(tmp_path, hours[1], hours[3]) == [[m] for m in log[1:3]]
    assert kept(tmp_path, hours[1] + HOUR - 1, None) == [[m] for m in log[1:]]  # the hour that it lies in
    assert kept(tmp_path, hours[1] + HOUR, hours[2] + 1) == [[log[2]]]
    assert kept(tmp_path, None, hours[0]) == []


def test_a_file_that_is_half_written_is_not_read(tmp_path):
    archive.write(str(tmp_path), "sub", [message(b"x")])
    [[path]] = archive.files(str(tmp_path), None, None)
    with open(path, "rb") as there, open(path.replace(".avro", "0.part"), "wb") as half:
        half.write(there.read()[:50])
    assert kept(tmp_path) == [[message(b"x")]]


def test_a_message_that_came_twice_is_kept_twice_in_one_hour(tmp_path):
    archive.write(str(tmp_path), "sub", [message(b"x")])
    archive.write(str(tmp_path), "sub", [message(b"x"), message(b"y", 2)])
    [hour] = kept(tmp_path)
    assert sorted(m.id for m in hour) == ["1", "1", "2"]


def test_an_archive_that_is_not_there_yet_is_empty(tmp_path):
    assert archive.files(str(tmp_path / "none"), None, None) == []


def test_a_manifest_names_the_files_as_they_were(tmp_path):
    archive.write(str(tmp_path), "sub", [message(b"x")])
    before = archive.files(str(tmp_path), None, None)
    place = archive.manifest(str(tmp_path), 2, None, None)
    archive.write(str(tmp_path), "sub", [message(b"y", 2)])
    assert archive.listed(place) == before != archive.files(str(tmp_path), None, None)


def test_a_file_as_a_cloud_storage_subscription_writes_it_is_read(tmp_path):
    place = tmp_path / "2024-05-06" / "10"
    place.mkdir(parents=True)
    with (place / "30_00Z_abc_xyz.avro").open("wb") as file:
        fastavro.writer(file, {
            "type": "record", "name": "PubsubMessage", "fields": [
                {"name": "subscription_name", "type": "string"}, {"name": "message_id", "type": "string"},
                {"name": "publish_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                {"name": "attributes", "type": {"type": "map", "values": "string"}}, {"name": "data", "type": "bytes"}],
        }, [{"subscription_name": "s", "message_id": "9", "publish_time": PUBLISHED + 1, "attributes": {"k": "v"},
             "data": b"z"}])
    assert kept(tmp_path, T, T + HOUR) == [[Message("9", PUBLISHED + 1, {"k": "v"}, b"z")]]


# --- Rejects -------------------------------------------------------------------------------------------------

def firsts(keyed: Keyed, ids: list[str], received: int | list[int]) -> list[bool]:
    first = keyed.machine.absorb(ids, np.broadcast_to(np.array(received, np.int64), len(ids)).copy())
    keyed.commit()
    return first.tolist()


def advance(keyed: Keyed, watermark: int) -> None:
    keyed.machine.advance(watermark)
    keyed.commit()


def test_a_reject_is_new_once_however_often_it_comes():
    keyed = Keyed(RejectsShard)
    assert firsts(keyed, ["a", "b", "a"], T) == [True, True, False]
    assert firsts(keyed, ["b", "c"], T + DAY) == [False, True]
    keyed.lose()
    assert firsts(keyed, ["a", "b", "c", "d"], T) == [False, False, False, True]


def test_a_reject_is_remembered_for_as_long_as_it_may_be_delivered_again_and_no_longer():
    keyed = Keyed(RejectsShard)
    firsts(keyed, ["a"], T)
    due = keyed.machine.next_due()
    assert due > T + REDELIVERY - DAY
    advance(keyed, due - 1)
    assert firsts(keyed, ["a"], T) == [False]
    advance(keyed, due)
    assert len(keyed.machine) == 0 and keyed.machine.next_due() is None and keyed.log_bytes() == 0
    assert firsts(keyed, ["a"], due) == [True]


def test_a_bucket_that_shares_its_slot_with_one_that_expired_stays():
    keyed = Keyed(RejectsShard)
    width = keyed.machine.buckets.width
    firsts(keyed, ["old", "ahead"], [T, T + SLOTS * width])
    advance(keyed, keyed.machine.next_due())
    for _ in range(2):
        assert len(keyed.machine) == 1
        keyed.lose()
    assert firsts(keyed, ["ahead", "old"], [T + SLOTS * width, T]) == [False, True]


def test_a_reject_that_states_an_old_receipt_is_remembered_as_long_as_any_other():
    config = RunConfig("run", 1, 0)
    stage, keyed = Rejects(config), Keyed(RejectsShard)
    now = now_micros()
    stated = {**dict.fromkeys(REJECTED.names), "reject_id": "sub@1", "reason": "future", "payload": b"", "encoding": "json",
              "source": "sub", "source_position": "1", "received_at": now - 30 * DAY, "ledger_source": "sub", "late": False}
    [(_, rows)] = rejects_by_shard([stated], config)
    tags = []
    for _ in range(2):
        tags += [output.tag for output in stage.absorb("0", keyed.machine, rows)]
        keyed.machine.advance(now)
    assert tags == [ROWS, TALLIES]


REFUSED = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), min_size=1, max_size=5)


@given(st.lists(st.one_of(REFUSED, st.integers(0, 45)), max_size=12))
@QUICK
def test_a_machine_restored_at_any_step_goes_on_as_the_uninterrupted_one(steps):
    one, other = Keyed(RejectsShard), Keyed(RejectsShard)
    for step in steps:
        if isinstance(step, int):
            advance(one, step * DAY)
            advance(other, step * DAY)
        else:
            ids, days = zip(*step)
            received = [day * DAY for day in days]
            assert firsts(one, list(ids), received) == firsts(other, list(ids), received)
        other.lose()
        assert len(one.machine) == len(other.machine) and one.machine.next_due() == other.machine.next_due()


# --- Stored rows ---------------------------------------------------------------------------------------------

def totals_of(table: str) -> Keyed:
    of = TOTALS[table]
    return Keyed(lambda: TotalsShard(len(of.texts), len(of.values), 10 * MINUTE, 92 * DAY))


def stored_form(table: str, keyed: Keyed, tick: int = 1) -> tuple[Deltas, np.ndarray]:
    """The rows that a machine has made as they come back from the warehouse."""
    return stored.of_rows(TOTALS[table], of_revisions(TOTALS[table], keyed.machine.flush(tick), 1, "rules", T), "rules")


def keys_of(keyed: Keyed) -> set[tuple[int, int]]:
    rows = keyed.machine.rows[: keyed.machine.keys.rows]
    return set(zip(rows["hi"].tolist(), rows["lo"].tolist()))


@given(st.lists(events(st.just(START)), min_size=1, max_size=8),
       st.sampled_from(["adv-1", "é\U0001f600", "a\x00b", "test"]))
@QUICK
def test_stored_rows_have_the_keys_that_the_machines_gave_them(log, advertiser):
    log = [{**event, "advertiser_id": advertiser} for event in log]
    [(_, intake)] = taken([Message("1", START + 10 * DAY, {}, container(log))])
    delivery = JoinShard(Counting()).absorb(intake.batch).delivery
    entered = {(None, ON_TIME, "é", None, "undecodable"): (1,), (START, ON_TIME, "s", "click", "counted"): (2,)}
    for table, deltas in {"delivery": delivery, **intake.tallies, "ledger": Deltas.tally(entered)}.items():
        if deltas is None:
            continue
        keyed = totals_of(table)
        keyed.machine.absorb(dataclasses.replace(deltas, because=np.zeros_like(deltas.because)))
        made, counts = keys_of(keyed), keyed.machine.rows["totals"].sum(axis=0).tolist()
        rows, closed = stored_form(table, keyed)
        assert set(map(tuple, rows.keys.tolist())) == made
        assert rows.counts.sum(axis=0).tolist() == counts
        assert not closed.any() if TOTALS[table].stated else closed.all()
        again = totals_of(table)
        again.machine.absorb(dataclasses.replace(rows, because=np.zeros_like(rows.because)))
        assert shown(again.machine.flush(1)) == shown(rows)


def shown(revisions) -> dict[tuple, tuple]:
    """Counts by hour and texts, of Revisions or Deltas."""
    return {
        (int(hour), *(None if c < 0 else revisions.labels[c] for c in codes)): tuple(counts)
        for hour, codes, counts in zip(revisions.hours, revisions.codes.tolist(), revisions.counts.tolist())
    }


def test_of_what_two_ends_have_the_later_stands_and_is_told_apart():
    def end(**rows: tuple[int, int, str]) -> pa.Table:
        shared = {"window_start": T, "touch_type": None, "generation": 1, "published_at": T,
                  "rule_version": "r", "conversions": Decimal(1)}
        return pa.Table.from_pylist([
            {"advertiser_id": name, "model": "linear", "conversion_type": "c", "value_micros": value, "revision": revision,
             "status": status, **shared} for name, (value, revision, status) in rows.items()], schema(ATTRIBUTION))

    one = end(both=(1, 7, "final"), behind=(2, 7, "provisional"), here=(3, 7, "final"))
    other = end(there=(4, 7, "provisional"), behind=(5, 8, "final"), both=(1, 7, "final"))
    for ends in ([one, other], [other, one]):
        deltas, closed, apart = stored.of_ends(ATTRIBUTION, ends, "rules")
        assert {deltas.labels[codes[0]]: (counts[1], bool(c), bool(a))
                for codes, counts, c, a in zip(deltas.codes.tolist(), deltas.counts.tolist(), closed, apart)} == {
            "both": (1, True, False), "behind": (5, True, True), "here": (3, True, True), "there": (4, False, True)}
    assert not stored.of_ends(ATTRIBUTION, [one], "rules")[2].any()


@pytest.mark.parametrize("table", TOTALS)
def test_a_table_without_rows_has_none_stored(table):
    rows, closed, apart = stored.of_ends(TOTALS[table], [schema(TOTALS[table]).empty_table()], "rules")
    assert len(rows) == len(closed) == len(apart) == 0
    keyed = totals_of(table)
    keyed.machine.rebuilt(rows, closed, apart, NO_WATERMARK)
    assert keyed.machine.flush(1) is None


# --- Rebuilding ----------------------------------------------------------------------------------------------

def ledger(counted: dict[tuple[int | None, str], int], because: int = ON_TIME) -> Deltas:
    """Changes of ledger rows, by hour and source."""
    changes = {(hour, because, source, "click", "counted"): (n,) for (hour, source), n in (counted or {A: 0}).items()}
    return Deltas.tally(changes).take(np.arange(len(counted)))


def rebuilt(made: dict, was: dict, closed: bool = True, publish_from: int = NO_WATERMARK, held: dict | None = None,
            then: dict | None = None, apart: tuple = ()) -> Keyed:
    """A machine that made rows of the archive (``held``: late by its own watermark) and met the stored ones (``apart``: not in
    all places)."""
    keyed = totals_of("ledger")
    for deltas in (ledger(made), ledger(then or {}), ledger(held or {}, LATE)):
        keyed.machine.absorb(deltas)
    keyed.machine.rebuilt(ledger(was, REBUILD), np.full(len(was), closed), np.array([row in apart for row in was], bool), publish_from)
    keyed.commit()
    return keyed


def published(keyed: Keyed, watermark: int | None = None, tick: int = 1) -> list[tuple]:
    """(source, events, status, because) of what is published, at once or by the time that the watermark is there."""
    found = [keyed.machine.flush(tick)] if watermark is None else keyed.machine.advance(watermark, tick)
    keyed.commit()
    return sorted(
        (r.labels[codes[0]], int(n), int(status), BECAUSE[why]) for r in found if r is not None
        for codes, (n,), status, why in zip(r.codes.tolist(), r.counts.tolist(), r.status, r.because)
    )


A, B = (T, "a"), (T, "b")


@pytest.mark.parametrize("lost", [False, True])
def test_a_row_that_stands_as_it_was_is_not_published_again(lost):
    keyed = rebuilt({A: 3}, {A: 3})
    if lost:
        keyed.lose()
    assert published(keyed) == [] and published(keyed, CLOSE) == []
    keyed.machine.absorb(ledger({A: 1}, LATE))
    assert published(keyed) == [("a", 4, RESTATED, "late")]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("watermark", [None, CLOSE])
def test_a_row_that_differs_is_restated_because_of_the_rebuild(lost, watermark):
    keyed = rebuilt({A: 4, B: 1}, {A: 3})
    if lost:
        keyed.lose()
    status = PROVISIONAL if watermark is None else FINAL
    assert published(keyed, watermark) == [("a", 4, RESTATED, "rebuild"), ("b", 1, status, "")]


@pytest.mark.parametrize("lost", [False, True])
def test_a_stored_row_that_is_not_made_again_becomes_zero(lost):
    keyed = rebuilt({A: 3}, {A: 3, B: 2})
    if lost:
        keyed.lose()
    assert published(keyed) == [("b", 0, RESTATED, "rebuild")]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("gone", [{"made": {A: 3, B: 1}, "then": {B: -1}}, {"made": {A: 3, B: 1}, "held": {B: -1}}])
def test_a_row_that_came_to_nothing_and_was_never_published_is_not_published(lost, gone):
    """As a credit that the archive, read in another order, first gave to another touch."""
    keyed = rebuilt(gone["made"], {A: 3}, held=gone.get("held"), then=gone.get("then"))
    if lost:
        keyed.lose()
    assert published(keyed) == [] and published(keyed, CLOSE) == []
    keyed.machine.absorb(ledger({B: 2}, LATE))
    assert published(keyed) == [("b", 2, RESTATED, "late")]


@pytest.mark.parametrize("lost", [False, True])
def test_a_row_that_does_not_stand_everywhere_is_published_again(lost):
    keyed = rebuilt({A: 3, B: 4}, {A: 3, B: 4}, apart=(B,))
    if lost:
        keyed.lose()
    assert published(keyed) == [("b", 4, RESTATED, "rebuild")] and published(keyed, CLOSE) == []
    keyed = rebuilt({A: 3, B: 4}, {A: 3, B: 4}, closed=False, apart=(B,))
    assert ("b", 4, PROVISIONAL, "") in published(keyed)
    assert published(keyed, CLOSE) == [("a", 3, FINAL, ""), ("b", 4, FINAL, "")]


def test_a_provisional_row_goes_on_to_its_close():
    keyed = rebuilt({A: 3, B: 4}, {A: 3, B: 3}, closed=False)
    assert ("b", 4, PROVISIONAL, "") in published(keyed)
    assert published(keyed, CLOSE) == [("a", 3, FINAL, ""), ("b", 4, FINAL, "")]


@pytest.mark.parametrize("lost", [False, True])
def test_rows_before_the_rebuilt_hours_begin_at_what_is_stored(lost):
    keyed = rebuilt({A: 3}, {(T - HOUR, "a"): 9, (None, "a"): 5, A: 3}, publish_from=T)
    if lost:
        keyed.lose()
    assert published(keyed) == published(keyed, CLOSE) == []
    keyed.machine.absorb(ledger({(T - HOUR, "a"): 1}, LATE))
    keyed.machine.absorb(ledger({(None, "a"): 1}))
    assert [row[:2] for row in published(keyed)] == [("a", 6), ("a", 10)]


def test_what_came_late_is_part_of_a_closed_stored_row():
    keyed = rebuilt({A: 3}, {A: 5}, held={A: 2})
    assert published(keyed) == [] and published(keyed, CLOSE) == []


def test_what_this_generation_takes_for_late_is_not_missing_from_a_row_that_was_published_as_on_time():
    keyed = rebuilt({A: 3}, {A: 5}, closed=False, held={A: 2})
    assert all(events >= 5 for _, events, *_ in published(keyed) + published(keyed, CLOSE))


KEYS = st.tuples(st.sampled_from([None, T, T + HOUR, T + 2 * HOUR]), st.sampled_from("abc"))


@given(st.dictionaries(KEYS, st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8), st.data(),
       st.sampled_from([NO_WATERMARK, T + HOUR]))
@QUICK
def test_no_revision_of_a_row_is_lower_than_the_stored_one_if_the_log_holds_as_much(log, data, publish_from):
    """``log``: of each row what was on time and what was late, as this generation read it."""
    log = {key: (on_time, late if key[0] else 0) for key, (on_time, late) in log.items()}  # without an hour none is late
    keyed = totals_of("ledger")
    before = [key for key in log if (NO_HOUR if key[0] is None else key[0]) < publish_from]
    for because, part in ((ON_TIME, 0), (LATE, 1)):
        # What the archive holds of rows that are not rebuilt is kept out (measurement/transforms/totals.py).
        counts = {key: n[part] for key, n in log.items() if n[part] and key not in before}
        keyed.machine.absorb(ledger(counts, because))
    was = {key: data.draw(st.integers(0, sum(n))) for key, n in log.items() if data.draw(st.booleans())}
    closed, apart = (np.array([data.draw(st.booleans()) for _ in was], bool) for _ in range(2))
    keyed.machine.rebuilt(ledger(was, REBUILD), closed, apart, publish_from)
    keyed.commit()
    found = []
    for tick, watermark in enumerate([None, T, CLOSE, None, CLOSE + HOUR, CLOSE + 3 * HOUR, None, END]):
        if data.draw(st.booleans()):
            keyed.lose()
        found += filter(None, [keyed.machine.flush(tick)] if watermark is None else keyed.machine.advance(watermark, tick))
        keyed.commit()
    for revisions in found:
        for (hour, source, *_), (n,) in shown(revisions).items():
            assert n >= was.get((None if hour == NO_HOUR else hour, source), 0)
    last = {}
    for revisions in found:
        last |= shown(revisions)
    for (hour, source), n in log.items():
        made = was.get((hour, source), 0) if (hour, source) in before else sum(n)
        standing = (was.get((hour, source), 0),)
        assert last.get((NO_HOUR if hour is None else hour, source, "click", "counted"), standing) == (made,)


# --- How far back a rebuild reads ----------------------------------------------------------------------------

NOW = T + 100 * DAY
_generations = iter(range(2, 1_000))


def attribution(lookback: int, **counting) -> Policy:
    return Policy(Counting(**counting), Attribution((Terms(default=AttributionRule(click_lookback=lookback, view_lookback=HOUR)),)))


def begun(since: int, first_began: int, directory="") -> Archive:
    return Archive(str(directory), since, first_began)


@pytest.mark.parametrize("lookback", [HOUR, 20 * DAY, 90 * DAY])
@pytest.mark.parametrize("now", [NOW, NOW + 59 * MINUTE, NOW + 1])
def test_before_a_stream_is_read_what_decides_the_hours_that_an_event_may_change(lookback, now):
    reach = before_streaming(begun(0, 0), attribution(lookback), now)
    assert reach.publish_from <= now - 8 * DAY - HOUR < reach.publish_from + 3 * HOUR  # a late click's impression
    assert reach.publish_from % HOUR == 0 and reach.credit_from == reach.publish_from
    assert reach.accept_from <= reach.publish_from - lookback - DAY  # of the oldest click's impression
    assert reach.accept_from <= reach.publish_from - 8 * DAY  # of an order's first conversion
    assert reach.read_from <= reach.accept_from - 10 * MINUTE and reach.read_until is None


def test_the_horizons_of_the_policy_move_the_reach():
    reach = before_streaming(begun(0, 0), attribution(2 * DAY, dedup_horizon=5 * DAY, join_horizon=6 * HOUR), NOW)
    assert NOW - reach.publish_from == 5 * DAY + 8 * HOUR
    assert reach.publish_from - reach.accept_from == 5 * DAY + 6 * HOUR


@pytest.mark.parametrize("age", [0, 3 * DAY, 30 * DAY, 38 * DAY])
def test_where_the_reach_has_all_there_ever_was_everything_is_rebuilt(age):
    assert before_streaming(begun(NOW - age, NOW - age), attribution(30 * DAY), NOW) == Reach()
    assert before_streaming(begun(NOW - age - 1, NOW - age), attribution(30 * DAY), NOW) == Reach()


def test_an_archive_as_old_as_the_reach_is_as_good_as_a_whole_one():
    whole = before_streaming(begun(0, 0), attribution(30 * DAY), NOW)
    assert before_streaming(begun(whole.read_from, 0), attribution(30 * DAY), NOW) == whole


@pytest.mark.parametrize("age", [HOUR, 3 * DAY, 20 * DAY])
def test_of_a_later_archive_credits_stay_as_they_are_up_to_now_and_delivery_is_rebuilt_as_far_as_it_reaches(age):
    reach = before_streaming(begun(NOW - age, 0), attribution(30 * DAY), NOW + 5 * MINUTE)
    whole = before_streaming(begun(0, 0), attribution(30 * DAY), NOW + 5 * MINUTE)
    assert NOW - age < reach.accept_from <= NOW - age + 2 * HOUR
    assert reach.publish_from == max(whole.publish_from, min(reach.accept_from + DAY, NOW + HOUR))
    assert reach.credit_from == NOW + HOUR


def test_of_a_later_archive_that_has_a_conversions_whole_lookback_its_credits_are_rebuilt():
    reach = before_streaming(begun(NOW - 38 * DAY, 0), attribution(30 * DAY), NOW)
    assert reach.publish_from < reach.credit_from == reach.accept_from + 31 * DAY < NOW


@pytest.mark.parametrize("lookback", [HOUR, 20 * DAY, 90 * DAY])
def test_a_rebuild_of_hours_reads_what_they_count_and_credit(lookback):
    start, stop = NOW, NOW + 6 * HOUR
    reach = of_hours(begun(0, 0), attribution(lookback), start, stop)
    assert reach.read_from <= start - max(lookback, 7 * DAY) - DAY - 10 * MINUTE
    assert reach.read_until >= stop + 8 * DAY  # a follow-up as late as any
    assert (reach.accept_from, reach.publish_from, reach.credit_from) == (NO_WATERMARK, start, start)
    assert of_hours(begun(NOW - HOUR, NOW), attribution(lookback), start, stop) == reach  # all there ever was


def test_a_rebuild_of_hours_leaves_alone_what_a_later_archive_has_not():
    start, stop = NOW, NOW + 48 * HOUR
    reach = of_hours(begun(NOW, 0), attribution(30 * DAY), start, stop)
    assert reach.publish_from == NOW + 25 * HOUR and reach.credit_from == stop


class Stored:
    """What earlier generations have published."""

    def __init__(self, *runs: dict):
        self.runs = runs

    def latest(self, table, since, until):
        rows = {tuple(row[c.name] for c in table.identity): row for run in self.runs for row in run.get(table.name, ())}
        time = lambda row: stored._micros(pa.chunked_array([pa.array([row[table.time]], pa.timestamp("us", "UTC"))]))[0].as_py()  # noqa: E731
        return [pa.Table.from_pylist([
            row for row in rows.values() if since is None or row[table.time] is not None and time(row) >= since], schema(table))]


def generation(directory, reach: Reach, policy: Policy, was: Stored | None, watermark: int) -> dict[str, list[dict]]:
    """The rows that a generation publishes which reads the archive alone: all of it, then the watermark is there, then it ends."""
    number = next(_generations)
    rebuilding = None if was is None else Rebuilding(was, reach.publish_from, None, reach.credit_from)
    config = RunConfig(f"reads-{number}", number, 0, policy, 1, 1, 1, rebuilding=rebuilding)
    manifest = archive.manifest(str(directory), number, reach.read_from, reach.read_until)
    reader = PubSubSource(config.run, number, "sub", "i", Endpoints(), policy, Reading(live=False),
                          Rebuild(manifest, reach.accept_from, reach.publish_from, reach.credit_from), readers=1, reader=0).create_reader(None, None)
    distribute = Distribute(config)
    stages = {EVENTS: Join(config), ORDERS: Orders(config), FACTS: Credits(config), REJECTS: Rejects(config), TALLIES: Totals(config)}
    machines, rows = {}, {}

    def take(tag, outputs):
        for output in outputs:
            to, (key, element) = (output.tag, output.value) if isinstance(output, TaggedOutput) else (TALLIES if tag == FACTS else ROWS, output)
            if to == ROWS:
                rows.setdefault(key, []).extend(pa.ipc.open_stream(element).read_all().to_pylist())
                continue
            machine = machines.setdefault((to, key), None) or stages[to].machine(key)
            machines[to, key] = machine
            take(to, stages[to].absorb(key, machine, element))

    more = reader.start()
    while more:
        take(None, distribute.process(reader.get_current()))
        more = reader.advance()
    for table in TOTALS:
        for key in [f"{table}/0" if table in SPLIT else table]:
            machines.setdefault((TALLIES, key), stages[TALLIES].machine(key))
    # The totals' timer is the first: their input has the time of what waits in the join.
    for at, tags in (_FIRST_MOVE, [TALLIES]), (watermark, list(stages)), (END_OF_STREAM, list(stages)):
        for tag in tags:
            for (of, key), machine in list(machines.items()):
                if of == tag:
                    take(tag, stages[tag].advance(key, machine, at))
    return rows


def sent(directory, log: list[dict]) -> None:
    """Events as messages that were published when they happened, or ``published`` later."""
    for number, event in enumerate(log):
        late = event.pop("published", 0)
        archive.write(str(directory), "sub", [Message(str(number), event["event_time"] + late, {}, encode_json(event))])


def credited(rows: dict) -> dict[tuple, int]:
    return {(row["conversion_id"], row["touch_id"]): row["value_micros"] for row in rows.get("conversion_credits", ())}


C = T + 21 * DAY  # of conversions, whose touches are 20 days old and older
JOURNEYS = [
    impression("i0", T - 6 * HOUR, user_id="u"), click("k0", T + 5 * HOUR, of="i0", user_id="u"),
    impression("i1", T + DAY, user_id="v", test=None), click("k1", T + DAY + HOUR, of="i1", user_id="v"),
    conversion("before", T + 2 * DAY, user_id="v", value_micros=5), conversion("c0", C, user_id="u", value_micros=7),
    conversion("c1", C + HOUR, user_id="v", value_micros=9), impression("fresh", C + 2 * HOUR, user_id="w"),
]


def test_a_conversion_whose_touch_is_20_days_old_keeps_its_credit_in_a_rebuild(tmp_path):
    sent(tmp_path, [dict(event) for event in JOURNEYS])
    policy, now = attribution(21 * DAY), C + 3 * HOUR
    was = generation(tmp_path, Reach(), policy, None, now)
    assert credited(was) == {("before", "k1"): 5, ("c0", "k0"): 7, ("c1", "k1"): 9}
    reach = before_streaming(begun(0, 0), policy, now)
    assert reach.publish_from > T + 3 * DAY  # the first conversion's hour is none of those
    again = generation(tmp_path, reach, policy, Stored(was), now)
    assert again == {}
    # What delivery alone asks for would have taken the credit away.
    short = dataclasses.replace(reach, read_from=reach.publish_from - DAY, accept_from=reach.publish_from - DAY)
    assert credited(generation(tmp_path, short, policy, Stored(was), now))[("c0", "k0")] == 0


def test_a_lost_row_comes_again_and_no_row_of_an_hour_before_the_reach(tmp_path):
    sent(tmp_path, [dict(event) for event in JOURNEYS])
    policy, now = attribution(21 * DAY), C + 3 * HOUR
    again = generation(tmp_path, before_streaming(begun(0, 0), policy, now), policy, Stored({}), now)
    assert credited(again) == {("c0", "k0"): 7, ("c1", "k1"): 9}
    assert {row["value_micros"] for row in again["attribution"]} == {7, 9}


def test_credits_that_a_later_archive_cannot_tell_stay(tmp_path):
    sent(tmp_path, [dict(event) for event in JOURNEYS])
    policy, now = attribution(21 * DAY), C + 3 * HOUR
    was = generation(tmp_path, Reach(), policy, None, now)
    reach = before_streaming(begun(T + 15 * DAY, 0), policy, now)
    assert "conversion_credits" not in generation(tmp_path, reach, policy, Stored(was), now)


def test_what_an_earlier_generation_entered_before_the_rebuilt_hours_is_not_entered_again(tmp_path):
    """Follow-ups that wait in the archive, and those whose impression or whose own time it is not read for."""
    policy, now = attribution(21 * DAY), C + 3 * HOUR
    edge = before_streaming(begun(0, 0), policy, now).accept_from
    sent(tmp_path, [dict(event) for event in [
        impression("old", edge - 2 * HOUR), {**impression("late", edge - HOUR), "published": 90 * MINUTE},
        click("k", edge + HOUR, of="old"), click("orphan", edge + 2 * HOUR, of="nothing"),
        click("waits", C - 12 * DAY, of="nothing"), *JOURNEYS[-3:]]])
    was = generation(tmp_path, Reach(), policy, None, now)
    assert sorted(row["event_id"] for row in was["rejects"]) == ["orphan", "waits"]
    assert generation(tmp_path, before_streaming(begun(0, 0), policy, now), policy, Stored(was), now) == {}


def test_a_rebuild_of_some_hours_leaves_how_often_events_were_received_as_the_stream_counted_it():
    counted, again, arrived = (T, 0, "s", "click", "counted"), (T, 0, "s", "click", "duplicate"), (T, 0, "s", "click")

    def rows(table: str, counts: dict) -> list[dict]:
        keyed = totals_of(table)
        keyed.machine.absorb(Deltas.tally(counts))
        return of_revisions(TOTALS[table], keyed.machine.flush(1), 1, "rules", T).to_pylist()

    was = {"ledger": rows("ledger", {counted: (3,), again: (5,)}), "arrivals": rows("arrivals", {arrived: (8,)})}
    stage = Totals(RunConfig("some hours", 2, 0, rebuilding=Rebuilding(Stored(was), T, T + HOUR, T)))
    found = {}
    for key, made in ("ledger", {counted: (4,), again: (1,)}), ("arrivals", {arrived: (5,)}):
        machine = stage.machine(key)
        given = [*stage.absorb(key, machine, Deltas.tally(made)), *stage.advance(key, machine, _FIRST_MOVE),
                 *stage.advance(key, machine, END_OF_STREAM)]
        found[key] = [row for _, stream in given for row in pa.ipc.open_stream(stream).read_all().to_pylist()]
    assert {(row["outcome"], row["events"]) for row in found["ledger"]} == {("counted", 4)}
    assert found["arrivals"] == []
