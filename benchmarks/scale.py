"""What one event costs of everything that is bought by the byte, row or second: the constants that docs/scale.md multiplies.

Simulated logs of a day go frame by frame through the source's reader and the machines as the job has them, without Beam,
and what would go through a shuffle, into a state's log or to a sink is encoded by the job's own code and weighed. How often
a row is published is counted on the events' own receipt times, since a log that is read at full speed publishes less.

    python -m benchmarks.scale --events 100000 1000000
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from math import log
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS, Figures, machine, publish
from measurement.columnar.batch import NO_WATERMARK, EventBatch
from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Intake
from measurement.io import archive
from measurement.io.bigquery_rows import serialized
from measurement.io.bigtable import mutations
from measurement.io.files import FileSource
from measurement.io.input_file import InputFile
from measurement.io.publication import of_revisions
from measurement.io.pubsub.messages import Message
from measurement.model import events as e
from measurement.model.tables import ATTRIBUTION, CREDITS, DELIVERY
from measurement.simulate import SimulateOptions, simulate
from measurement.transforms.config import RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import facts_by_shard, rejects_by_shard, tallies_by_shard
from measurement.transforms.join import Join, _by_order, _reject
from measurement.transforms.orders import Orders
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import Totals

CONFIG = RunConfig("scale", 1, 0)
_HOUR = e.MICROS_PER_HOUR
ELEMENT_MESSAGES = 10_000  # of a busy subscription, one event each (measurement/io/pubsub/source.py)
SHARDS = 4, 16, 64, 256, 1024
_ARCHIVED = 50_000  # messages of the archive's sample


@dataclass
class Weighed:
    """Bytes and counts of one log."""

    events: int = 0
    shuffled: Counter = field(default_factory=Counter)  # bytes, by what travels
    logged: Counter = field(default_factory=Counter)  # bytes appended to logs, by machine
    kept: Counter = field(default_factory=Counter)  # bytes in logs at the end, by machine
    rows: int = 0  # of delivery
    publications: int = 0  # of delivery rows, had the events come when they did
    fullest: int = 0  # delivery rows of the fullest hour
    rejects: int = 0
    memory: float = 0.0  # bytes of a join machine, an identity, its delivery rows aside
    restored: float = 0.0  # bytes of a join's log restored in a processor second
    touches: int = 0
    touched: float = 0.0  # bytes of the credits machines' touches, a touch
    bytes: dict[str, float] = field(default_factory=dict)  # a row or an event of each store
    split: dict[int, tuple[float, float]] = field(default_factory=dict)  # by shards: bytes an event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000], help="of each log, rising")
    args = parser.parse_args()
    before = machine()
    logs = [weigh(events) for events in args.events]
    publish("scale", before, [a_event(logs), a_row(logs), a_split(logs[-1])], events=args.events)


def a_event(logs: list[Weighed]) -> Figures:
    figures = Figures("an event of a simulated day takes", ("what", "unit", *(f"{it.events:,} events" for it in logs)))
    for name in logs[-1].shuffled:
        figures.add(f"through the shuffle: {name}", "bytes", *(it.shuffled[name] / it.events for it in logs))
    figures.add("through the shuffle: all", "bytes", *(it.shuffled.total() / it.events for it in logs))
    for name in logs[-1].logged:
        figures.add(f"appended to state: {name}", "bytes", *(it.logged[name] / it.events for it in logs))
    for name in logs[-1].kept:
        figures.add(f"held in state after the day: {name}", "bytes", *(it.kept[name] / it.events for it in logs))
    figures.add("memory of the join's machine, an identity", "bytes", *(it.memory for it in logs))
    figures.add("restoring a join's log", "MB a s", *(it.restored / 1e6 for it in logs))
    figures.add("touches remembered", "an event", *(it.touches / it.events for it in logs))
    figures.add("memory of attribution's machine, a touch", "bytes", *(it.touched for it in logs))
    for name in ("payload as published", "archive (Avro, deflate)"):
        figures.add(name, "bytes", *(it.bytes[name] for it in logs))
    figures.add("rejects", "rows a million", *(it.rejects / it.events * 1e6 for it in logs))
    [local] = json.loads((RESULTS / "local_run.json").read_text())["tables"]
    cpu = local["rows"][0][local["columns"].index("CPU s a million events")]
    figures.add("processor (local_run.json)", "s a million", *[cpu] * len(logs))
    return figures


def a_row(logs: list[Weighed]) -> Figures:
    figures = Figures("delivery rows", ("what", "unit", *(f"{it.events:,} events" for it in logs)))
    figures.add("rows", "a day", *(it.rows for it in logs))
    figures.add("rows", "an event", *(it.rows / it.events for it in logs))
    figures.add("rows of the fullest hour", "rows", *(it.fullest for it in logs))
    figures.add("publications", "a row", *(it.publications / it.rows for it in logs))
    for name in ("BigQuery message", "Bigtable, both keys"):
        figures.add(name, "bytes", *(it.bytes[name] for it in logs))
    for small, large in itertools.pairwise(logs):
        power = log(large.rows / small.rows) / log(large.events / small.events)
        figures.notes.append(f"rows grow as events^{power:.2f} from {small.events:,} to {large.events:,} a day")
    figures.notes.append(f"a publication: a row's changes within {CONFIG.publish_seconds:g} s, and its close")
    return figures


def a_split(it: Weighed) -> Figures:
    figures = Figures(f"bytes an event of an element of {ELEMENT_MESSAGES:,}, split by shard", (
        "shards", "events a part", "as the job has it", "were the whole element's texts in every part"))
    for shards, (own, whole) in it.split.items():
        figures.add(f"{shards:,}", ELEMENT_MESSAGES / shards, own, whole)
    return figures


def weigh(events: int) -> Weighed:
    it = Weighed()
    with tempfile.TemporaryDirectory() as folder:
        simulate(SimulateOptions(events=events, seed=7), Path(folder, "log"))
        files = [InputFile(str(path), path.name, 0) for path in sorted(Path(folder, "log").glob("*.avro"))]
        job, seen, sample = _Job(it), [], []
        for intake in intakes(files):
            job.take(intake)
            seen.append((intake.batch.rows, intake.batch.dims))
            payloads = intake.batch.payloads
            if not it.split and len(intake.batch.rows) >= ELEMENT_MESSAGES:
                it.split = split(intake.batch)
            sample += [payloads[i] for i in range(min(len(payloads), _ARCHIVED - len(sample)))]
        job.end()
        joins = [machine for (stage, _), machine in job.machines.items() if stage == "join"]
        held = [join.state_bytes() for join in joins]
        it.memory = sum(one["identity and digest"] + one["table"] + one["join"] for one in held) / len(held)
        it.restored = job.restore()
        credits = [machine.state_bytes() for (stage, _), machine in job.machines.items() if stage == "credits"]
        it.touches = sum(held["touches"] for held in credits)
        it.touched = sum(held["touch bytes"] for held in credits) / it.touches
        it.bytes["payload as published"] = float(np.mean([len(p) for p in sample]))
        kept = Path(folder, "archive")
        kept.mkdir()
        archive.write(str(kept), "projects/demo/subscriptions/ad-events-measurement",
                      [Message(str(10**15 + i), 0, {}, payload) for i, payload in enumerate(sample)])
        it.bytes["archive (Avro, deflate)"] = sum(p.stat().st_size for p in kept.rglob("*.avro")) / len(sample)
    it.rows, it.publications, it.fullest = published(seen)
    return it


def intakes(files: list[InputFile]):
    """What the source emits, to the files' end."""
    reader = FileSource(CONFIG.run, files, CONFIG.policy, in_process=False).create_reader(None, None)
    there = reader.start()
    while there:
        yield reader.get_current()
        there = reader.advance()
    reader.close()


def split(batch: EventBatch) -> dict[int, tuple[float, float]]:
    """Bytes an event of an element's parts, by shards: as they are, and were all of the element's dims and labels in each."""
    first = batch.rows[:ELEMENT_MESSAGES].copy()
    element = EventBatch(first, batch.dims, batch.payloads.take(np.arange(ELEMENT_MESSAGES)), batch.labels).own()
    out = {}
    for shards in SHARDS:
        parts = [part for _, part in element.split(shards)]
        whole = [EventBatch(part.rows, element.dims, part.payloads, element.labels) for part in parts]
        out[shards] = tuple(sum(len(part.encode()) for part in some) / ELEMENT_MESSAGES for some in (parts, whole))
    return out


class _Job:
    """The job's machines, one a shard, fed in order; what goes between and into them is weighed."""

    def __init__(self, it: Weighed):
        self._it, self.machines, self._logs = it, {}, {}
        self._stages = {"join": Join(CONFIG), "orders": Orders(CONFIG), "credits": Credits(CONFIG), "rejects": Rejects(CONFIG),
                        "totals": Totals(CONFIG)}

    def take(self, intake: Intake) -> None:
        self._it.events += len(intake.batch.rows) + len(intake.rejects)
        self._rejected(intake.rejects)
        for table, deltas in intake.tallies.items():
            self._tally(table, deltas)
        for shard, batch in intake.batch.split(CONFIG.event_shards):
            self._it.shuffled["batches"] += len(batch.encode())
            join = self._machine("join", str(shard))
            self._joined(join.absorb(batch))
            self._written("join", str(shard))
            if len(batch.rows):
                watermark = int(batch.rows["watermark"][-1])
                if watermark != NO_WATERMARK and (join.next_due() or watermark) < watermark:
                    self._joined(join.advance(watermark))
                    self._written("join", str(shard))

    def end(self) -> None:
        """Weighs the state, then publishes every delivery row once."""
        for (stage, key), bags in self._logs.items():
            of_credits = key.partition("/")[0] in (CREDITS.name, ATTRIBUTION.name)
            self._it.kept["totals of credits" if of_credits else stage] += sum(len(run) for runs in bags.values() for run in runs)
        rows = [of_revisions(DELIVERY, self._machine("totals", key).flush(1), 1, CONFIG.rule_version, 0)
                for stage, key in self._logs if stage == "totals" and key.startswith("delivery")]
        count = sum(r.num_rows for r in rows)
        self._it.bytes["BigQuery message"] = sum(len(m) for r in rows for m in serialized("delivery", r)) / count
        stored = sum(len(m.key) + len(m.value) for r in rows for m in mutations(DELIVERY, r))
        self._it.bytes["Bigtable, both keys"] = stored / count

    def restore(self) -> float:
        """Bytes a processor second, of one shard of the join from its log."""
        bags = self._logs["join", "0"]
        for _ in range(2):  # the first compiles
            machine, began = self._stages["join"].machine("0"), time.process_time()
            machine.restore(run for slot in sorted(bags) for run in bags[slot])
        return sum(len(run) for runs in bags.values() for run in runs) / (time.process_time() - began)

    def _machine(self, stage: str, key: str):
        if (stage, key) not in self.machines:
            self.machines[stage, key] = self._stages[stage].machine(key)
            self._logs[stage, key] = {}
        return self.machines[stage, key]

    def _written(self, stage: str, key: str, name: str = "") -> None:
        changes, bags = self.machines[stage, key].take_changes(), self._logs[stage, key]
        for slot in changes.cleared:
            bags.pop(slot, None)
        for slot, run in changes.appended:
            bags.setdefault(slot, []).append(run)
            self._it.logged[name or stage] += len(run)

    def _joined(self, effects) -> None:
        if effects.delivery is not None:
            self._tally("delivery", effects.delivery)
        if effects.ledger:
            self._tally("ledger", Deltas.tally({k: (n,) for k, n in effects.ledger.items() if n}))
        self._rejected([_reject(*rejected) for rejected in effects.rejects])
        for shard, batch in _by_order(effects.orders, CONFIG.order_shards) if effects.orders is not None else ():
            self._it.shuffled["orders"] += len(batch.encode())
            ledger, facts = self._machine("orders", shard).absorb(batch)
            self._written("orders", shard)
            if ledger:
                self._tally("ledger", Deltas.tally({k: (n,) for k, n in ledger.items() if n}))
            self._told(facts)
        self._told(effects.facts)

    def _told(self, facts: Facts | None) -> None:
        for shard, part in facts_by_shard(facts, CONFIG):
            self._it.shuffled["facts"] += len(part.encode())
            credited = self._machine("credits", shard).absorb(part)
            self._written("credits", shard)
            for table, deltas in (CREDITS, credited.credits), (ATTRIBUTION, credited.attribution):
                if deltas is not None:
                    self._tally(table.name, deltas)

    def _tally(self, table: str, deltas: Deltas) -> None:
        for key, part in tallies_by_shard(table, deltas, CONFIG):
            of_credits = table in (CREDITS.name, ATTRIBUTION.name)
            self._it.shuffled["tallies of credits" if of_credits else "tallies"] += len(part.encode())
            self._machine("totals", key).absorb(part)
            self._written("totals", key, "totals of credits" if of_credits else "totals")

    def _rejected(self, rejects: list[dict]) -> None:
        self._it.rejects += len(rejects)
        for shard, rows in rejects_by_shard(rejects, CONFIG):
            self._it.shuffled["rejects"] += len(rows)
        if rejects:
            received = np.array([reject["received_at"] for reject in rejects])
            self._machine("rejects", "0").absorb([reject["reject_id"] for reject in rejects], received)
            self._written("rejects", "0")


def published(seen: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int, int]:
    """(delivery rows, their publications, rows of the fullest hour) of a log's batches, (rows, dims) each: a row is
    published in every interval of receipt in which it changed, and at its close."""
    impressions = [(rows[at := rows["type"] == e.IMPRESSION], dims[rows["dims"][at]]) for rows, dims in seen]
    ids = np.concatenate([rows["id_hi"] for rows, _ in impressions])
    hours = np.concatenate([rows["time"] for rows, _ in impressions]) // _HOUR
    keys = np.concatenate([dims["hi"] for _, dims in impressions])
    keys ^= hours.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found, row = np.unique(keys, return_inverse=True)
    order = np.argsort(ids)
    all_ = np.concatenate([rows for rows, _ in seen])
    of = np.where(all_["type"] == e.IMPRESSION, all_["id_hi"], all_["parent_hi"])
    at = np.minimum(np.searchsorted(ids[order], of), len(ids) - 1)
    joined = (ids[order][at] == of) & (all_["type"] != e.CONVERSION)
    ticks = all_["receipt"][joined] // round(CONFIG.publish_seconds * 1_000_000)
    changes = len(np.unique(np.column_stack([row[order][at[joined]], ticks]), axis=0))
    fullest = np.unique(np.unique(np.column_stack([row, hours]), axis=0)[:, 1], return_counts=True)[1].max()
    return len(found), changes + len(found), int(fullest)


if __name__ == "__main__":
    main()
