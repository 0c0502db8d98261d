"""Faults in every order: the real source and the real machines between a Pub/Sub and a sink that fail, killed and restored.

A schedule is a seed: it draws an event log, how an engine works, and what fails when. The engine here may do whatever
Beam allows: it commits every bundle with its state and outputs (Prism, Dataflow), or it lets everything run and can go
back to its last completed checkpoint alone, whose completion finalizes bundles that came after it, too (Flink). No threads
and no clock but the schedule's own: the keeper's threads run a round when the schedule says so. At the end the latest rows
are the slow oracle's of the distinct messages, whatever happened.
"""

import functools
import itertools
import pickle
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace

import grpc
import pyarrow as pa
import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP

from google.pubsub_v1.types import pubsub
from measurement.columnar.batch import NO_WATERMARK, EventBatch
from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import Facts
from measurement.io import archive as archive_module
from measurement.io import flow, handover
from measurement.io.bigtable_service import SERVED
from measurement.io.publication import schema
from measurement.io.pubsub import keeper as keeper_module
from measurement.io.pubsub import keepers, source as source_module
from measurement.io.pubsub.fence import BEAT, Fence
from measurement.io.pubsub.keeper import Flow, Keeper
from measurement.io.pubsub.source import PubSubSource, Reading, Rebuild, StateLost
from measurement.io.retry import SinkError
from measurement.model.attribution import parse
from measurement.model.policy import Policy
from measurement.model.tables import NUMERIC, TABLES, TOTALS, Column
from measurement.transforms import rejects as rejects_module
from measurement.transforms import totals as totals_module
from measurement.transforms.config import Rebuilding, RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import EVENTS, FACTS, REJECTS, ROWS, SPLIT, TALLIES, Distribute
from measurement.transforms.join import ORDERS, Join
from measurement.transforms.keyed import END_OF_STREAM
from measurement.transforms.orders import Orders
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import Totals
from oracle import HOUR, MINUTE, TYPES, Oracle, Received, count
from oracle_attribution import ATTRIBUTION_KEY, CREDIT_KEY, attribution, credits
from strategies import BROWSER, ROBOT, START, encode_avro, encode_json
from test_oracle import click, conversion, follow_up, impression, viewability
from test_pubsub_parts import container

ReceivedMessage = pubsub.ReceivedMessage.pb()
SUBSCRIPTION = "projects/p/subscriptions/s"
INTERVAL = 2.0  # s between checkpoints
HOLD = 2.5 * INTERVAL
LEASE = 60.0
IDLE_AFTER = 180.0
# Impressions beside clicks, and a model that shares: whatever is missing of a user's touches changes figures.
CREDITED = {"default": {"models": ["linear", "last_touch"], "priority": "none"}}
POLICY = Policy(attribution=parse(Path("policy.yaml"), CREDITED))


class Away(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.UNAVAILABLE


class Pause(BaseException):
    """A thread of a keeper would wait here: its round is over."""


class Event:
    """threading.Event for one thread."""

    def __init__(self):
        self._set = False

    def set(self):
        self._set = True

    def clear(self):
        self._set = False

    def is_set(self):
        return self._set

    def wait(self, timeout):
        if not self._set:
            raise Pause


@dataclass(frozen=True)
class Kind:
    """What a schedule's engine is like and what may befall it; every chance is one a step."""

    checkpoints: bool = False  # durable are its checkpoints, else its bundles
    hold: float = 0.0
    readers: int = 1
    until_idle: bool = False  # ends by itself
    eager: bool = False  # what a bundle emits goes on before its mark is taken
    kill: float = 0.0
    bundle: float = 0.0  # a bundle of the source or a machine fails
    unfinalized: float = 0.0  # a mark is never finalized
    calls: float = 0.0  # a call of Pub/Sub or of the control table fails
    again: float = 0.0  # a message is delivered although somebody has it or has acknowledged it
    sink: float = 0.0
    stall: float = 0.0  # a minute goes by in which nothing but the keepers does anything
    lost: float = 0.0  # state is thrown away
    orders: bool = True  # conversions name orders: which of an order's counts meanwhile, the order of arrival decides
    steps: int = 40


# --- What is sent --------------------------------------------------------------------------------------------

def events_of(random: Random, orders: bool) -> list[dict | bytes]:
    """A log of a few hours in which the order of arrival decides nothing; bytes are no event."""
    log: list[dict | bytes] = []
    for k in range(random.randint(3, 8)):
        at = START + random.randrange(5 * HOUR)
        common = {"test": random.choice([None, None, None, True]), "source_id": random.choice([None, "ssp-1"]),
                  "user_id": random.choice([None, "u1", "u1", "u2"])}
        log.append(impression(
            f"i{k}", at, format=random.choice([None, "display", "video"]), currency="EUR", price_micros=k,
            country=random.choice([None, "SE", "É"]), user_agent=random.choice([BROWSER, BROWSER, ROBOT]), **common))
        for n in range(random.randrange(4)):
            make = random.choice([click, viewability, lambda *a, **f: follow_up("start", *a, **f)])
            log.append(make(f"f{k}-{n}", at + random.randint(-MINUTE, HOUR), f"i{k}", visible_percent=60, visible_ms=1_500,
                            **common))
    for k in range(random.randrange(5)):
        order = random.choice([None, "o1", "o2"]) if orders else None
        log.append(conversion(
            f"c{k}", START + random.randrange(2 * HOUR, 7 * HOUR), conversion_type="buy", order_id=order,
            user_id=random.choice([None, "u1", "u1", "u2"]), value_micros=random.choice([None, 1_000_001])))
    log += random.sample([
        click("orphan", START + HOUR, "gone"), b"{broken", b"\xff\xfe", b"", impression("", START),
        click("ahead", START + 9 * 24 * HOUR), impression("bad", START, price_micros=-1),
        {**impression("odd", START), "event_type": "view"},
    ], random.randrange(5))
    # A publisher's resends; of an orphan's copies the first to arrive is the reject.
    log += [dict(event) for event in random.sample(log, 2) if isinstance(event, dict) and event["event_id"] != "orphan"]
    log.sort(key=lambda event: random.gauss(0, HOUR) + (event["event_time"] if isinstance(event, dict) else START))
    return log


def messages_of(random: Random, orders: bool) -> tuple[list[tuple[bytes, int]], Oracle]:
    """Messages (data, published) and what is to be counted of them."""
    log, out, received = deque(events_of(random, orders)), [], []
    while log:
        published = START + 6 * HOUR + len(out) * 4 * MINUTE
        some = [log.popleft()]
        while isinstance(some[0], dict) and log and isinstance(log[0], dict) and random.random() < 0.6:
            some.append(log.popleft())
        kind = random.choice(["container", "lines"]) if len(some) > 1 else random.choice(["datum", "json"])
        if isinstance(some[0], bytes):
            encoding, payloads = "json" if some[0][:1] == b"{" else "avro", some
            data = some[0]
        elif kind in ("container", "datum"):
            encoding, payloads = "avro", [encode_avro({**dict.fromkeys(TYPES), **event}) for event in some]
            data = container(some, interval=random.choice([1, 10_000])) if kind == "container" else payloads[0]
        else:
            encoding, payloads = "json", [encode_json(event) for event in some]
            data = b"\n".join(payloads)
        out.append((data, published))
        received += [(0, Received(payload, encoding, SUBSCRIPTION, published)) for payload in payloads]
    return out, count(received, 1)


# --- The services --------------------------------------------------------------------------------------------

class PubSub:
    """A subscription: at least once, in any order, what is not acknowledged in time again."""

    def __init__(self, world: "World", messages: list[tuple[bytes, int]]):
        self.world, self.random = world, world.random
        self.messages = messages
        self.until = dict.fromkeys(range(len(messages)), 0.0)  # what is not acknowledged, and until when it is somebody's
        self.deliveries: dict[str, tuple[int, float]] = {}  # by ack id: message, when it was handed out
        self.pulls = 0  # that a keeper's thread may make before it pauses
        self._quiet = False

    def _call(self) -> None:
        if self.world.happens(self.world.kind.calls):
            raise Away

    def pull(self, most: int, seconds: float) -> list:
        if not self.pulls:
            raise Pause
        self.pulls -= 1
        self._call()
        ready = [m for m, until in self.until.items() if until <= self.world.now]
        self._quiet = not self._quiet and self.random.random() < 0.2  # not every pull finds what is there
        chosen = [] if self._quiet or not ready else self.random.sample(ready, self.random.randint(1, min(len(ready), 5)))
        if self.world.happens(self.world.kind.again):
            chosen.append(self.random.randrange(len(self.messages)))
        return [self._delivered(m) for m in chosen]

    def _delivered(self, m: int):
        ack_id = f"{m}/{len(self.deliveries)}"
        self.deliveries[ack_id] = m, self.world.now
        if m in self.until:
            self.until[m] = self.world.now + LEASE
        data, published = self.messages[m]
        at = {"seconds": published // 1_000_000, "nanos": published % 1_000_000 * 1_000}
        return ReceivedMessage(ack_id=ack_id, message={"message_id": str(1000 + m), "publish_time": at, "data": data})

    def acknowledge(self, ids: list[str]) -> None:
        self._call()
        for ack_id in ids:
            m, _ = self.deliveries[ack_id]
            if self.until.get(m, 0.0) > self.world.now or self.random.random() < 0.5:  # too late is best effort
                self.until.pop(m, None)
        self._call()  # it may have been done although it failed

    def extend(self, ids: list[str], seconds: int) -> None:
        self._call()
        self.until |= {m: self.world.now + seconds for m, _ in map(self.deliveries.get, ids) if m in self.until}

    def close(self) -> None:
        pass


class Control:
    """The control table: which generation is the last, and who has acknowledged in it."""

    def __init__(self, world: "World"):
        self.world, self.number, self.witnesses = world, 1, set()

    def _call(self) -> None:
        if self.world.happens(self.world.kind.calls):
            raise SinkError("Bigtable is away")

    def begin(self) -> int:
        self.number, self.witnesses = self.number + 1, set()
        return self.number

    def generation(self, job):
        self._call()
        return SimpleNamespace(number=self.number)

    def witness(self, job, generation, reader):
        self._call()
        assert generation == self.number
        self.witnesses.add(reader)

    def witnessed(self, job, generation, reader):
        return generation == self.number and reader in self.witnesses

    def set_state(self, job, generation, state):
        self._call()


class Sink:
    """Keeps the highest revision of each row of its tables. A write may fail before, half way or when it is done."""

    def __init__(self, world: "World", tables):
        self.world, self.random = world, world.random
        self.rows: dict[str, dict[tuple, tuple[int, dict]]] = {name: {} for name in tables}
        self.least: dict[tuple, tuple[int, int]] = {}  # what earlier generations had counted
        self.away_until = 0.0

    def write(self, elements: list[tuple[str, bytes]]) -> None:
        rows = [(name, row) for name, stream in elements if name in self.rows for row in self._read(name, stream)]
        if not rows:
            return
        if self.world.happens(self.world.kind.sink):
            self.away_until = self.world.now + self.random.choice([0, 0, 60])
            if self.away_until > self.world.now:
                raise SinkError("UNAVAILABLE")
            stored = self.random.choice([0, len(rows) // 2, len(rows)])  # exhausted, half a batch, timed out when done
            self._store(rows[:stored])
            raise SinkError("DEADLINE_EXCEEDED")
        if self.away_until > self.world.now:
            raise SinkError("UNAVAILABLE")
        self._store(rows)

    def _read(self, name: str, stream: bytes) -> list[dict]:
        table = pa.ipc.open_stream(stream).read_all()
        for at, column in enumerate(table.schema):
            if pa.types.is_timestamp(column.type):
                table = table.set_column(at, column.name, table.column(at).cast(pa.int64()))
        return table.to_pylist()

    def _store(self, rows: list[tuple[str, dict]]) -> None:
        for name, row in rows:
            key = tuple(row[c.name] for c in TABLES[name].identity)
            number, there = self.rows[name].get(key, (-1, row))
            if row["revision"] == number:
                same = [c.name for c in TABLES[name].values]
                assert name == "rejects" or [row[c] for c in same] == [there[c] for c in same], "one revision, two rows"
            if row["revision"] >= number:
                self.rows[name][key] = row["revision"], row
                if name == "delivery":
                    least = self.least.get(key, (0, 0))
                    assert all(a >= b for a, b in zip(impressions_of(row), least)), f"a row was lowered: {there} {row}"

    def generation_changes(self) -> None:
        self.least = {key: impressions_of(row) for key, (_, row) in self.rows["delivery"].items()}

    def latest(self, table) -> pa.Table:
        return pa.Table.from_pylist([row for _, row in self.rows[table.name].values()], schema(table))

    def counts(self, name: str) -> dict[tuple, tuple[int, ...]]:
        found = {key: tuple(map(whole, TABLES[name].values, (row[c.name] for c in TABLES[name].values)))
                 for key, (_, row) in self.rows[name].items()}
        return {key: counts for key, counts in found.items() if any(counts)}


# --- The engine ----------------------------------------------------------------------------------------------

class Cell:
    """A key of a stage: its machine, the bags that its log is in, and the elements that wait for it."""

    def __init__(self, stage, key: str):
        self.stage, self.key = stage, key
        self.restore(({}, (), NO_WATERMARK))

    def snapshot(self) -> tuple:
        return dict(self.bags), tuple(self.queue), self.fired

    def restore(self, snapshot: tuple) -> None:
        bags, queue, self.fired = snapshot
        self.bags, self.queue = dict(bags), deque(queue)
        self.fail()

    def fail(self) -> None:
        """The machine is gone: it is what its log says."""
        self.machine = self.stage.machine(self.key)
        self.machine.restore(run for slot in sorted(self.bags) for run in self.bags[slot])

    def commit(self) -> None:
        changes = self.machine.take_changes()
        for slot in changes.cleared:
            self.bags.pop(slot, None)
        for slot, run in changes.appended:
            self.bags[slot] = (*self.bags.get(slot, ()), run)

    def due(self) -> int:
        due = self.stage.next_due(self.machine)
        return END_OF_STREAM if due is None else -(-due // 1000) * 1000

    def held(self) -> int:
        return min((stamp for stamp, _ in self.queue), default=END_OF_STREAM)


@dataclass
class Place:
    """Where a reader stands."""

    mark: bytes | None = None
    watermark: int = NO_WATERMARK
    ended: bool = False


@dataclass
class Process:
    """What a worker process has and loses."""

    readers: dict[int, object] = field(default_factory=dict)
    keepers: list[Keeper] = field(default_factory=list)


class World:
    """One schedule."""

    def __init__(self, kind: Kind, seed: int, archive: str):
        self.kind, self.random, self.archive = kind, Random(seed), archive
        self.now = (START + 8 * HOUR) / 1e6
        self.faults = True
        messages, self.oracle = messages_of(self.random, kind.orders)
        self.pubsub, self.control = PubSub(self, messages), Control(self)
        self.analysed, self.served = Sink(self, TABLES), Sink(self, SERVED)
        # One is written to in the bundle that makes the rows, the other later, by a stage of its own.
        self.first, self.second = self.random.sample([self.analysed, self.served], 2)
        self.waiting: list[tuple[str, bytes]] = []
        self.run, self.generation = f"schedule-{seed}", 1
        self.shards = self.random.choice([1, 2]), self.random.choice([1, 2])
        self._begin(None, None)

    def _begin(self, rebuild: Rebuild | None, rebuilding: Rebuilding | None) -> None:
        self.name = f"{self.run}-{self.generation}"
        config = RunConfig(self.name, self.generation, self.micros(), POLICY, self.shards[0], *self.shards, order_shards=self.shards[0],
                           rebuilding=rebuilding)
        reading = Reading(Flow(threads=1, lease=LEASE, hold=self.kind.hold), idle_after=IDLE_AFTER, archive=self.archive,
                          until_idle=self.kind.until_idle)
        self.sources = PubSubSource(self.name, self.generation, SUBSCRIPTION, "instance", None, POLICY, reading, rebuild,
                                    readers=self.kind.readers).split(1)
        events, deliveries = (range(n) for n in self.shards)
        join, orders, credits, rejects, totals = Join(config), Orders(config), Credits(config), Rejects(config), Totals(config)
        self.distribute = Distribute(config)
        self.joins = {str(s): Cell(join, str(s)) for s in events}
        self.orders = {str(s): Cell(orders, str(s)) for s in events}
        self.credits = {str(s): Cell(credits, str(s)) for s in range(config.user_shards)}
        self.rejects = {"0": Cell(rejects, "0")}
        keys = [key for name in TOTALS for key in ([f"{name}/{s}" for s in deliveries] if name in SPLIT else [name])]
        self.totals = {key: Cell(totals, key) for key in keys}
        self.levels = [self.joins, self.orders, self.credits, self.rejects, self.totals]
        self.places = [Place() for _ in range(self.kind.readers)]
        self.process = Process()
        self.finished: list[bytes] = []  # marks of bundles that are not finalized yet
        self.durable = self._snapshot()
        self.taken: tuple | None = None  # the checkpoint that is being made
        self.stood = self.now  # when one was taken or completed

    # -- time and chance

    def micros(self) -> int:
        return round(self.now * 1e6)

    def happens(self, chance: float) -> bool:
        return self.faults and self.random.random() < chance

    def cells(self) -> list[Cell]:
        return [cell for level in self.levels for cell in level.values()]

    # -- what lasts

    def _snapshot(self) -> tuple:
        return [cell.snapshot() for cell in self.cells()], [Place(**vars(place)) for place in self.places], tuple(self.waiting)

    def _commit(self) -> None:
        if not self.kind.checkpoints:
            self.durable = self._snapshot()

    def checkpoint(self) -> None:
        """Takes a checkpoint, or completes the one that was taken: then all bundles are finalized that have finished."""
        self.stood = self.now
        if self.taken is None:
            self.taken = self._snapshot()
        else:
            self.durable, self.taken = self.taken, None
            self.finalize(len(self.finished))

    def finalize(self, n: int) -> None:
        self.random.shuffle(self.finished)
        for mark in self.finished[:n]:
            if not self.happens(self.kind.unfinalized):
                pickle.loads(mark).finalize_checkpoint()
        del self.finished[:n]

    def kill(self) -> None:
        """The worker is gone with all that it had."""
        forget_process(self.name)
        self.process, self.finished, self.taken = Process(), [], None
        self.now += self.random.choice([0.1, 5, 70])
        cells, places, waiting = self.durable
        self.waiting = list(waiting)
        for cell, snapshot in zip(self.cells(), cells):
            cell.restore(snapshot)
        self.places = [Place(**vars(place)) for place in places]

    def lose_state(self) -> None:
        """The job is started anew without its state, while an old worker may live a little longer."""
        old = self.process.keepers
        self.generation = self.control.begin()
        for _ in range(3):
            self.now += (BEAT + 1) / 3
            for keeper in old:
                self.keep(keeper)
        forget_process(self.name)
        self.waiting = []
        for sink in self.analysed, self.served:
            sink.generation_changes()
        self._begin(Rebuild(archive_module.manifest(self.archive, self.generation, None, None)), Rebuilding(self))

    def latest(self, table, since=None, until=None) -> list[pa.Table]:
        """As measurement/cloud/stored.py reads it."""
        return [sink.latest(table) for sink in (self.analysed, self.served) if table.name in sink.rows]

    # -- the source

    def pull(self, keeper: Keeper) -> None:
        self.pubsub.pulls = 1
        run_a_round(keeper._pull)

    def keep(self, keeper: Keeper) -> None:
        keeper._wake.set()
        if run_a_round(keeper._keep) and keeper in self.process.keepers:
            self.process.keepers.remove(keeper)

    def read(self, r: int) -> None:
        """A bundle of a reader: with the reader that there is, or with another where that one stood."""
        place, process = self.places[r], self.process
        reader, started = self.process.readers.pop(r, None), True
        if reader is not None and self.random.random() < 0.3:
            if self.happens(0.3):
                reader.close()
            reader = None
        if reader is None:
            reader = self.sources[r].create_reader(None, place.mark and pickle.loads(place.mark))
            started = False
        made: list[tuple] = []
        for _ in range(self.random.randint(1, 3)):
            there = reader.advance() if started else reader.start()
            started = True
            if not there:
                break
            stamp, intake = reader.get_current_timestamp().micros, reader.get_current()
            outputs = [(self._by_tag[o.tag](self), *o.value) for o in self.distribute.process(intake)]
            made += outputs
            for cells, key, element in outputs:
                cells[key].queue.append((stamp, travelled(element)))
            if self.kind.eager and self.random.random() < 0.5:
                self.drain()
                for cell in self.totals.values():
                    self.sink_alone(cell)
                if self.happens(self.kind.lost * 3):
                    self.lose_state()
                if self.happens(self.kind.kill * 3):
                    self.kill()
                if self.process is not process:
                    return
            elif self.happens(self.kind.bundle):
                return self.bundle_fails(reader, made)
        mark = pickle.dumps(reader.get_checkpoint_mark())
        watermark = reader.get_watermark()
        place.mark, place.ended = mark, watermark == MAX_TIMESTAMP
        place.watermark = max(place.watermark, END_OF_STREAM if place.ended else watermark.micros)
        self.process.readers[r] = reader
        self.finished.append(mark)
        self._commit()

    _by_tag = {EVENTS: lambda self: self.joins, ORDERS: lambda self: self.orders, REJECTS: lambda self: self.rejects,
               FACTS: lambda self: self.credits, TALLIES: lambda self: self.totals}

    def bundle_fails(self, reader, outputs: list[tuple]) -> None:
        """What it made is not there, and it is made again; an engine of checkpoints goes back to its last one."""
        if self.kind.checkpoints:
            self.kill()
            return
        for cells, key, _ in reversed(outputs):
            cells[key].queue.pop()
        if self.random.random() < 0.5:
            reader.close()

    # -- the machines

    def call(self, cell: Cell, act, stamp: int) -> bool:
        """A bundle of a machine, and of the sink that is fused with it; whether it came to be."""
        outputs = list(act(cell.machine))
        rows = [o if isinstance(o, tuple) else o.value for o in outputs if self._to_sink(cell, o)]
        try:
            if self.happens(self.kind.bundle):
                raise SinkError("the bundle fails")
            self.first.write(rows)
        except SinkError:
            self.now += 0.1
            if self.kind.checkpoints:
                self.kill()
            else:
                cell.fail()
            return False
        cell.commit()
        self.waiting += rows
        for o in outputs:
            if not self._to_sink(cell, o):
                cells, (key, element) = (self._by_tag[o.tag](self), o.value) if hasattr(o, "tag") else (self.totals, o)
                cells[key].queue.append((stamp, travelled(element)))
        return True

    def _to_sink(self, cell: Cell, output) -> bool:
        return cell in self.totals.values() or getattr(output, "tag", None) == ROWS

    def write_second(self, n: int) -> None:
        """A bundle of the other sink."""
        try:
            self.second.write(self.waiting[:n])
        except SinkError:
            self.now += 0.1
            if self.kind.checkpoints:
                self.kill()
            return
        del self.waiting[:n]
        self._commit()

    def take(self) -> bool:
        """One element that waits; whether there was one."""
        waiting = [cell for cell in self.cells() if cell.queue]
        if not waiting:
            return False
        cell = self.random.choice(waiting)
        stamp, element = cell.queue[0]
        if self.call(cell, lambda machine: cell.stage.absorb(cell.key, machine, element), stamp):
            cell.queue.popleft()
            self._commit()
        return True

    def drain(self) -> None:
        for _ in range(500):
            if not self.take():
                return
            self.now += 0.01
        raise AssertionError("it never came to rest")

    def timers(self) -> None:
        """Fires what is due by the watermark: what waits before a key holds it, and so do earlier stages' timers."""
        limit = min(place.watermark for place in self.places)
        for level in self.levels:
            below = END_OF_STREAM
            for cell in level.values():
                time = cell.due()
                at_most = min(limit, cell.held())
                if time <= at_most and time < END_OF_STREAM and self.random.random() < 0.7:
                    if self.call(cell, lambda machine: cell.stage.advance(cell.key, machine, time), time):
                        self._commit()
                below = min(below, cell.held(), cell.due())
            if level is not self.totals:
                limit = min(limit, below)
        for cell in self.totals.values():
            if cell.machine.dirty and self.random.random() < 0.2:
                self.sink_alone(cell)

    def sink_alone(self, cell: Cell) -> None:
        """A publication by the wall clock, which writes no log: lost, it is made again by what is still marked there."""
        if not self.call(cell, lambda machine: cell.stage.flush(cell.key, machine), 0):
            return
        self._commit()

    # -- the schedule

    def step(self) -> None:
        try:
            self._step()
        except StateLost:  # before its first checkpoint an engine has nothing to go back to
            self.lose_state()

    def _step(self) -> None:
        self.now += self.random.choice([0.05, 0.3, 0.3, 1.0])
        if self.kind.checkpoints and self.now - self.stood >= INTERVAL / 2:
            self.checkpoint()
        kind, act = self.kind, self.random.randrange(10)
        keepers_ = self.process.keepers
        if act < 2 and keepers_:
            self.pull(self.random.choice(keepers_))
        elif act == 2 and keepers_:
            self.keep(self.random.choice(keepers_))
        elif act < 6:
            r = self.random.randrange(kind.readers)
            if not self.places[r].ended:
                self.read(r)
        elif act < 8:
            for _ in range(self.random.randrange(6)):
                self.take()
        elif act == 8:
            self.timers()
            self.write_second(self.random.randint(0, len(self.waiting)))
        elif not kind.checkpoints:
            self.finalize(self.random.randint(0, len(self.finished)))
        if kind.checkpoints and self.random.random() < 0.2:
            self.checkpoint()
        if self.happens(kind.stall):
            for _ in range(4):
                self.now += 15
                for keeper in list(self.process.keepers):
                    self.keep(keeper)
            if self.random.random() < 0.5:
                self.kill()
        if self.happens(kind.kill):
            self.kill()
        if self.happens(kind.lost):
            self.lose_state()

    def finish(self) -> None:
        """Nothing fails any more: until all is acknowledged, or until the source has ended by itself."""
        self.faults = False
        self.analysed.away_until = self.served.away_until = 0.0
        for _ in range(400):
            for r, place in enumerate(self.places):
                if not place.ended:
                    self.read(r)
            for keeper in list(self.process.keepers):
                self.pull(keeper)
            self.drain()
            self.timers()
            if self.kind.checkpoints:
                self.checkpoint()
            else:
                self.finalize(len(self.finished))
            self.now += 1 if self.pubsub.until else 10
            for keeper in list(self.process.keepers):
                self.keep(keeper)
            if self.kind.until_idle and all(place.ended for place in self.places):
                break
            if not self.kind.until_idle and not self.pubsub.until and self.at_rest():
                break
        else:
            raise AssertionError(f"it never ended: {self.pubsub.until}")
        self.drain()
        for level in self.levels:
            for cell in level.values():
                self.call(cell, lambda machine: cell.stage.advance(cell.key, machine, END_OF_STREAM), END_OF_STREAM)
            self.drain()
        for cell in self.totals.values():
            self.call(cell, lambda machine: cell.stage.flush(cell.key, machine), END_OF_STREAM)
        self.write_second(len(self.waiting))

    def at_rest(self) -> bool:
        """Whether its readers have emitted all that they have, and read the archive if they must."""
        readers = self.process.readers.values()
        emitted = len(readers) == self.kind.readers and not any(r._rebuilding or r._intakes for r in readers)
        return emitted and not any(keeper._waiting for keeper in self.process.keepers)

    def check(self) -> None:
        """The latest rows are the oracle's."""
        sink, oracle = self.analysed, self.oracle
        ledger = {key: events for key, (events,) in sink.counts("ledger").items()}
        distinct = {key: events for key, events in ledger.items() if key[3] != "duplicate"}
        assert sink.counts("delivery") == oracle.delivery()
        for name in SERVED:
            assert self.served.counts(name) == sink.counts(name)
            assert self.kind.checkpoints or self.served.rows[name] == sink.rows[name], "not the same revisions at both ends"
        earned = credits(oracle, CREDITED)
        for name, columns, rows in (("conversion_credits", CREDIT_KEY, earned), ("attribution", ATTRIBUTION_KEY, attribution(earned))):
            identity = [c.name for c in TABLES[name].identity]
            in_order = [columns.index(column) for column in identity]
            assert sorted(identity) == sorted(columns)
            assert sink.counts(name) == {tuple(key[at] for at in in_order): figures for key, figures in rows.items()}
        assert distinct == {key: events for key, events in oracle.ledger().items() if key[3] != "duplicate"}
        columns = ("reason", "event_id", "event_time", "event_type", "payload")
        refused = Counter(tuple(row[c] for c in columns) for _, row in sink.rows["rejects"].values())
        assert refused == Counter(oracle.rejects())
        assert sum(events for _, events, _ in sink.counts("intake").values()) == sum(ledger.values())
        assert sum(events for (events,) in sink.counts("arrivals").values()) == sum(ledger.values())


def whole(column: Column, value) -> int:
    """A sum as the totals hold it: credit in units of its ninth decimal."""
    return int(value.scaleb(9)) if column.type == NUMERIC else value


def impressions_of(row: dict) -> tuple[int, int]:
    return row["gross_impressions"], row["impressions"]


def travelled(element):
    """As it comes out of its coder."""
    return type(element).decode(element.encode()) if isinstance(element, EventBatch | Deltas | Facts) else element


def run_a_round(thread) -> bool:
    """Whether the thread has ended."""
    try:
        thread()
    except Pause:
        return False
    return True


def forget_process(run: str) -> None:
    for registry in (keepers._keepers, handover._last, totals_module.Totals._flushed):
        for key in [key for key in registry if key[0] == run]:
            del registry[key]
    flow.forget(run)


@pytest.fixture
def begin(monkeypatch, tmp_path):
    """Makes worlds, one at a time, whose services and clock are the source's and the machines'."""
    there: list[World] = []
    numbers = itertools.count()
    world = lambda: there[-1]  # noqa: E731
    clock = lambda: there[-1].now if there else 0.0  # noqa: E731

    class Kept(Keeper):
        def __init__(self, *args):
            super().__init__(*args, clock=clock)
            world().process.keepers.append(self)

    idle_threads = SimpleNamespace(Lock=threading.Lock, Condition=threading.Condition, Event=Event, Thread=lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(keeper_module, "threading", idle_threads)
    monkeypatch.setattr(keeper_module._LOG, "disabled", True)
    monkeypatch.setattr(source_module, "Keeper", Kept)
    monkeypatch.setattr(source_module, "Fence", functools.partial(Fence, clock=clock))
    monkeypatch.setattr(source_module, "Subscriber", lambda endpoints, subscription: world().pubsub)
    monkeypatch.setattr(source_module, "Control", lambda endpoints, instance: world().control)
    monkeypatch.setattr(source_module, "look_up", lambda endpoints: lambda name, revision: None)
    monkeypatch.setattr(source_module, "time", clock)
    monkeypatch.setattr(source_module, "_WAIT_SECONDS", 0.0)  # nothing comes while a reader reads
    monkeypatch.setattr(archive_module, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"{next(numbers):012x}")))
    monkeypatch.setattr(rejects_module, "now_micros", lambda: round(clock() * 1e6))
    monkeypatch.setattr(totals_module, "now_micros", lambda: round(clock() * 1e6))
    monkeypatch.setattr(totals_module, "time", SimpleNamespace(monotonic=clock))

    def make(kind: Kind, seed: int) -> World:
        for last in there:
            forget_process(last.name)
        there[:] = [World.__new__(World)]
        there[0].__init__(kind, seed, str(tmp_path / str(seed)))
        return there[0]

    yield make
    for last in there:
        forget_process(last.name)


def schedule(begin, kind: Kind, seed: int) -> World:
    world = begin(kind, seed)
    for _ in range(kind.steps):
        world.step()
    world.finish()
    return world


FLINK = {"checkpoints": True, "hold": HOLD}
KINDS = {
    "nothing fails": Kind(again=0.1),
    "a worker is killed": Kind(kill=0.05, again=0.1),
    "bundles fail": Kind(bundle=0.05, kill=0.02),
    "marks are not finalized": Kind(unfinalized=0.3, kill=0.03, until_idle=True),
    "calls fail": Kind(calls=0.2, kill=0.03, again=0.1),
    "two readers": Kind(readers=2, kill=0.03, again=0.3, bundle=0.02, until_idle=True),
    "the sink fails": Kind(sink=0.1, kill=0.03, bundle=0.02),
    "state is lost": Kind(lost=0.03, kill=0.02, sink=0.05, calls=0.05, again=0.1),
    "state is lost after hours have closed": Kind(lost=0.03, kill=0.02, sink=0.05, steps=150),
    "state is lost with two readers": Kind(readers=2, lost=0.03, kill=0.02, bundle=0.02, until_idle=True),
    "checkpoints": Kind(**FLINK, kill=0.05, again=0.1),
    # Without orders: a ledger row published after the last checkpoint that the restored machines do not make again stays.
    "checkpoints, rows before marks": Kind(**FLINK, eager=True, kill=0.05, sink=0.05, orders=False),
    "checkpoints, everything fails": Kind(**FLINK, readers=2, kill=0.04, bundle=0.02, sink=0.05, calls=0.1, again=0.1),
    "checkpoints, a minute's stall": Kind(**FLINK, stall=0.05, kill=0.03),
    "checkpoints, state is lost": Kind(**FLINK, lost=0.03, kill=0.03, until_idle=True),
    "checkpoints, rows before marks, state is lost": Kind(**FLINK, eager=True, lost=0.05),
}
SEEDS = 70  # of each kind


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_whatever_fails_the_latest_rows_are_the_oracles(begin, kind):
    for seed in range(SEEDS):
        try:
            schedule(begin, kind, seed).check()
        except Exception as error:
            raise AssertionError(f"seed {seed} of {kind}: {error}") from error


def counted(world: World) -> tuple[int, int]:
    """Distinct events in the ledger, and in the oracle's."""
    there = sum(n for key, (n,) in world.analysed.counts("ledger").items() if key[3] != "duplicate")
    return there, sum(n for key, n in world.oracle.ledger().items() if key[3] != "duplicate")


@pytest.mark.parametrize(("hold", "loses"), [(0.0, True), (HOLD, False)])
def test_messages_are_lost_without_a_hold_where_finalization_runs_ahead_of_checkpoints(begin, hold, loses):
    lost = 0
    for seed in range(20):
        world = begin(Kind(checkpoints=True, hold=hold), seed)
        world.faults = False
        world.read(0)
        for _ in range(2):  # a checkpoint is taken, more is read, it is completed
            world.checkpoint()
            for _ in range(4):
                world.now += 0.4
                world.read(0)
                for keeper in list(world.process.keepers):
                    world.pull(keeper)
                world.drain()
        for keeper in list(world.process.keepers):
            world.keep(keeper)
        world.kill()
        world.finish()
        there, received = counted(world)
        assert there <= received
        lost += received - there
    assert (lost > 0) == loses


def test_rebuilt_rows_are_not_compared_while_an_element_of_the_archive_is_under_way(begin):
    world = begin(Kind(), 1)
    world.faults = False
    world.finish()
    world.lose_state()
    while not world.process.readers or world.process.readers[0]._rebuilding:
        world.read(0)
    last = max(stamp for cell in world.cells() for stamp, _ in cell.queue)
    assert all(last < cell.due() for cell in world.totals.values())


def test_a_reader_that_comes_up_without_the_state_of_what_it_has_acknowledged_says_so(begin):
    world = begin(Kind(), 1)
    world.faults = False
    while not world.control.witnesses or len(world.pubsub.until) == len(world.pubsub.messages):
        world.step()
    world.kill()
    world.places = [Place()]
    with pytest.raises(StateLost):
        world.read(0)


def test_a_reader_that_has_acknowledged_nothing_may_come_up_again_without_state(begin):
    world = begin(Kind(**FLINK), 1)
    world.faults = False
    for _ in range(10):  # no checkpoint is completed in this time
        world.read(0)
        for keeper in list(world.process.keepers):
            world.pull(keeper)
            world.keep(keeper)
    world.kill()
    world.read(0)
    world.finish()
    world.check()
