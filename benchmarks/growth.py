"""What a new event costs the join when a million, ten and a hundred million identities are remembered.

One shard's machine alone, without an engine, filled by its own ``absorb`` with a seeded stream of impressions, follow-ups and
conversions that spans the dedup horizon; then, at each size: new events, copies of any remembered event, what is written to
the state's log and so to an incremental checkpoint, the whole log, the forgetting of the oldest bucket, and a restore from
the log. Everything goes through the code that the job runs; the log stands in a file, in the order of its slots.

    python -m benchmarks.growth --remembered 1000000 10000000 100000000     # the last takes 13 GB of memory, 6 of disk
"""

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from numba import njit

from benchmarks.report import Figures, machine, positive, publish
from measurement.columnar.batch import DIMS, ROW, Blobs, EventBatch
from measurement.model import events as e
from measurement.model.policy import Policy
from measurement.state.join import JoinShard
from measurement.state.ring import SLOTS

COUNTING = Policy().counting
BATCH = 50_000  # events of a full element
MEASURED = 20  # batches of new events: a million
COPIES = 4  # batches of copies
NEAR = 100_000  # a follow-up's impression is one of so many events before it
START = 1_772_409_600_000_000  # µs
TOKEN = 16  # bytes that each bundle writes beside its log
PAYLOAD = 400  # bytes of an event as published


@njit(cache=True)
def _mixed(k):
    """A number's 64 pseudorandom bits (splitmix64)."""
    z = np.uint64(k) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _kind(k):
    """Of a hundred events 60 are impressions, 35 quartiles, 2 clicks, 3 conversions."""
    of = _mixed(4 * k) % np.uint64(100)
    if of < 60:
        return e.IMPRESSION
    if of < 95:
        return e.START + of % np.uint64(5)
    return e.CLICK if of < 97 else e.CONVERSION


@njit(cache=True)
def _stream(rows, numbers, step, users, dims):
    """Events by their numbers in the stream: the same number is the same event. One follow-up in a hundred comes before its
    impression."""
    for i in range(len(rows)):
        k, row = numbers[i], rows[i]
        row.id_hi, row.id_lo, row.digest = _mixed(4 * k + 1), _mixed(4 * k + 2), _mixed(4 * k + 3)
        row.type = _kind(k)
        row.time = START + k * step
        row.receipt = row.time
        row.parent_hi = row.parent_lo = row.user_hi = row.user_lo = 0
        row.dims = -1
        draw = _mixed(row.id_hi)
        user = draw % np.uint64(users)
        row.id_length = 32
        if row.type == e.IMPRESSION or row.type == e.CONVERSION:
            row.dims = draw % np.uint64(dims)
        if row.type == e.IMPRESSION or row.type == e.CONVERSION or row.type == e.CLICK:
            row.user_hi, row.user_lo = _mixed(user), _mixed(_mixed(user))
        if row.type != e.IMPRESSION and row.type != e.CONVERSION:
            back = 1 + draw % np.uint64(min(max(k, 1), NEAR))
            of = k + back % np.uint64(1000) if draw >> np.uint64(32) & np.uint64(127) == 0 else np.int64(max(k - back, 0))
            while _kind(of) != e.IMPRESSION:
                of += 1
            row.parent_hi, row.parent_lo = _mixed(4 * of + 1), _mixed(4 * of + 2)
        if row.type == e.IMPRESSION:
            row.price, row.shows = 250, 2


class Stream:
    """Events that span the dedup horizon evenly, ``remembered`` of them; one user to ten, and as many dimensions an hour as a
    simulated day of that rate has (docs/scale.md: rows grow as events^0.55)."""

    def __init__(self, remembered: int):
        self.step = COUNTING.dedup_horizon // remembered  # µs from one event to the next
        self.users = max(1, remembered // 10)
        dims = round(85 * (remembered / 1e6) ** 0.55)
        rng = np.random.default_rng(7)
        self._dims = np.zeros(dims, DIMS)
        self._dims["hi"], self._dims["lo"] = rng.integers(0, 2**63, (2, dims))
        self._dims["codes"] = np.arange(dims)[:, None] % np.array([50, 200, 400, 800, 50, 3, 20, 4, 2]) + 2
        self._labels = ["growth", *(f"label-{i}" for i in range(900))]
        text = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, BATCH * PAYLOAD)]
        self._payloads = Blobs(np.arange(BATCH + 1) * PAYLOAD, text)
        self.next = 0

    def new(self) -> EventBatch:
        """The next batch."""
        self.next += BATCH
        return self._batch(np.arange(self.next - BATCH, self.next))

    def again(self, rng, newest: int) -> EventBatch:
        """Copies of any events that are remembered."""
        return self._batch(rng.integers(self.next - newest, self.next, BATCH))

    def _batch(self, numbers: np.ndarray) -> EventBatch:
        rows = np.zeros(BATCH, ROW)
        _stream(rows, numbers, self.step, self.users, len(self._dims))
        rows["watermark"] = self.now
        return EventBatch(rows, self._dims, self._payloads, self._labels)

    @property
    def now(self) -> int:
        """The watermark (µs): half a minute behind the newest event."""
        return START + (self.next - BATCH) * self.step - 30_000_000


class Log:
    """What an engine's state would hold, a file a slot."""

    def __init__(self, folder: Path):
        self._files = [Path(folder, str(slot)).open("w+b") for slot in range(SLOTS)]
        self._lengths = [[] for _ in range(SLOTS)]
        self.appended = 0  # bytes, all that was ever

    def write(self, changes) -> None:
        for slot in changes.cleared:
            self._files[slot].truncate(0)
            self._files[slot].seek(0)
            self._lengths[slot].clear()
        for slot, run in changes.appended:
            self._files[slot].write(run)
            self._lengths[slot].append(len(run))
            self.appended += len(run)

    @property
    def bytes(self) -> int:
        return sum(map(sum, self._lengths))

    def runs(self):
        for file, lengths in zip(self._files, self._lengths):
            file.seek(0)
            yield from map(file.read, lengths)


@dataclass
class Grown:
    """One size's figures."""

    remembered: int = 0
    filled: float = 0.0  # ns an event from nothing, all growing included
    new: list[float] = field(default_factory=list)  # ns an event, by batch
    copies: list[float] = field(default_factory=list)
    written: float = 0.0  # bytes an event
    checkpoint: float = 0.0  # bytes an event
    whole: int = 0  # bytes of log
    forgetting: float = 0.0  # s
    forgotten: int = 0
    restoring: float = 0.0  # s
    held: dict[str, float] = field(default_factory=dict)
    resident: float = 0.0  # bytes an identity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--remembered", type=positive, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, help="for the log; a temporary one if none is named")
    args = parser.parse_args()
    before = machine()
    _grow(BATCH, args.folder)  # compiles
    sizes = []
    for remembered in args.remembered:
        sizes.append(_grow(remembered, args.folder))
        print(sizes[-1], file=sys.stderr, flush=True)
    publish("growth", before, [costs(sizes), bytes_(sizes)], remembered=args.remembered)


def _grow(remembered: int, folder: Path | None) -> Grown:
    gc.collect()
    it, resident = Grown(), psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        stream, shard, log = Stream(remembered), JoinShard(COUNTING), Log(Path(temporary))
        for _ in range(remembered // BATCH):
            it.filled += _absorb(shard, stream.new(), log) / remembered
        it.remembered, it.held = shard.count, shard.state_bytes()
        it.resident = (psutil.Process().memory_info().rss - resident) / shard.count
        it.whole = log.bytes
        known, appended, bundles = shard.count, log.appended, MEASURED if remembered > BATCH else 1
        for _ in range(bundles):
            it.new.append(_absorb(shard, stream.new(), log) / BATCH)
        it.written = (log.appended - appended) / (bundles * BATCH)
        it.checkpoint = it.written + TOKEN / BATCH
        known, rng = shard.count, np.random.default_rng(remembered)
        it.copies = [_absorb(shard, stream.again(rng, remembered), log) / BATCH for _ in range(COPIES)]
        if shard.count != known:
            raise SystemExit("a copy was taken for an event")
        digest = _known(shard)
        shard = None
        gc.collect()
        began, shard = time.process_time(), JoinShard(COUNTING)
        shard.restore(log.runs())
        it.restoring = time.process_time() - began
        if _known(shard) != digest:
            raise SystemExit("what was restored differs")
        began, known = time.process_time(), shard.count
        shard.advance(shard.buckets.expires(min(shard._log)))
        it.forgetting, it.forgotten = time.process_time() - began, known - shard.count
    return it


def _absorb(shard: JoinShard, batch: EventBatch, log: Log) -> float:
    """ns of processor time to take a batch in and to make its runs of the log; not to write them to the file."""
    began = time.process_time_ns()
    shard.absorb(batch)
    due, now = shard.next_due(), int(batch.rows["watermark"][-1])
    if due is not None and due <= now:
        shard.advance(now)
    changes = shard.take_changes()
    took = time.process_time_ns() - began
    log.write(changes)
    return took


def _known(shard: JoinShard) -> tuple:
    """Sums over all that is remembered that any difference would change."""
    ids = shard.known.ids[: shard.count]
    stands = shard.entries["status"][: shard.count] == 2
    return tuple(int(ids[name][stands].sum()) for name in ids.dtype.names) + (int(stands.sum()),)


def costs(sizes: list[Grown]) -> Figures:
    figures = Figures(f"one shard of the join by identities remembered, batches of {BATCH:,}", (
        "what", "unit", *(f"{it.remembered:,}" for it in sizes), "last / first"))

    def add(what: str, unit: str, values: list[float]) -> None:
        figures.add(what, unit, *values, f"{values[-1] / values[0]:.2f} x")

    new, forgetting = [median(it.new) for it in sizes], [it.forgetting / it.forgotten * 1e9 for it in sizes]
    add("new events, median batch", "ns an event", new)
    add("forgetting, by bucket: a pass over all that stays", "ns an event forgotten", forgetting)
    add("new events, and each some day forgotten", "ns an event", [a + b for a, b in zip(new, forgetting)])
    add("filling from nothing, all growing of arrays and table included", "ns an event", [it.filled for it in sizes])
    add("copies of any remembered events, median batch", "ns an event", [median(it.copies) for it in sizes])
    add("written to state", "MB a million new events", [it.written for it in sizes])
    add("incremental checkpoint", "MB a million new events", [it.checkpoint for it in sizes])
    add("restoring", "ns an identity", [it.restoring / it.remembered * 1e9 for it in sizes])
    add("full checkpoint, the whole log", "bytes an identity", [it.whole / it.remembered for it in sizes])
    for what, unit, values in (("full checkpoint, the whole log", "MB", [it.whole / 1e6 for it in sizes]),
                               ("restoring", "s", [it.restoring for it in sizes]),
                               ("forgetting a bucket, at once", "s", [it.forgetting for it in sizes])):
        figures.add(what, unit, *values, "grows")
    figures.notes.append("processor time; the file's writes are not in it")
    return figures


def bytes_(sizes: list[Grown]) -> Figures:
    figures = Figures("bytes of memory of an identity, by identities remembered", ("what", *(f"{it.remembered:,}" for it in sizes)))
    for name in ("identity and digest", "table"):
        figures.add(name, *(float(it.held[name]) for it in sizes))
    figures.add("to deduplicate", *(it.held["identity and digest"] + it.held["table"] for it in sizes))
    figures.add("join's payload", *(float(it.held["join"]) for it in sizes))
    figures.add("delivery rows", *(it.held["delivery rows"] for it in sizes))
    figures.add("resident in all", *(it.resident for it in sizes))
    return figures


if __name__ == "__main__":
    main()
