"""Each kernel alone against the obvious batch form of the same task on the same data, then all of them together.

One thread, no Beam, processor time. The forms of a task take turns, and a form's answer is checked before its speed
counts. What a peer leaves out is said beside its figure; where a peer needs its input in another shape (datums cut
apart, a data frame), that shape is made beforehand and costs it nothing.

    python -m benchmarks.kernels --events 200000 --runs 3
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported

import fastavro
import mmh3
import numpy as np
import orjson
import polars as pl
import pyruhvro

from benchmarks.report import Figures, Truth, interleaved, keyed, machine, publish, rates
from measurement.columnar import identify
from measurement.columnar.batch import AVRO, DIMS, NO_WATERMARK, ROW, EventBatch, blobs
from measurement.columnar.decode import Decoded, decode_blocks, decode_datums
from measurement.columnar.deltas import Deltas, tallied
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Intake, Origin, take_in
from measurement.columnar.judge import ACCEPTED, SHOWS_AUDIBLE, SHOWS_DISPLAY, SHOWS_VIDEO, judge
from measurement.columnar.screen import Screen
from measurement.columnar.table import Keys
from measurement.io.files import FRAME_EVENTS
from measurement.io.framing import READER_SCHEMA, Frame, frames
from measurement.io.publication import of_revisions
from measurement.io.watermark import END, FileWatermark
from measurement.model import events as e
from measurement.model.policy import Policy
from measurement.model.tables import ATTRIBUTION, CREDITS, DELIVERY, TOTALS
from measurement.simulate import SimulateOptions, simulate
from measurement.state.credits import CreditsShard
from measurement.state.join import JoinShard
from measurement.state.orders import OrdersShard
from measurement.state.totals import LEDGER_HORIZON, TotalsShard

POLICY = Policy()
SHARDS, USER_SHARDS, DELIVERY_SHARDS = 4, 2, 2  # as the job has them (measurement/transforms/config.py)
PEER_EVENTS = 100_000  # enough for the stateless kernels; Python objects of more would only fill memory
REMEMBERED = 1_000_000, 5_000_000
BATCH = 16_384  # events of a batch of the dedup
BATCHES_A_RUN = 2  # of the dedup, so that the slowest peer's runs still end

_F = e.FIELD_INDEX
_SYNC = bytes(16)
_TO_THE_END = 2**63 - 1  # the watermark (µs) behind the last event


# -- decode -----------------------------------------------------------------------------------------------------------

def decoding(frames_: list[Frame], runs: int) -> Figures:
    """Avro blocks to columns, as frames of some 16,000 events."""
    schema = READER_SCHEMA.text
    decoded = [_decode(f) for f in frames_]
    datums = [[d.payloads[i] for i in range(len(d.payloads))] for d in decoded]
    containers = [_container(f) for f in frames_]
    few = containers[:1]
    same("decode", _plain(decoded[0]), _plain(decode_datums(datums[0])), _arrow(pyruhvro.deserialize_array(datums[0], schema)),
         _arrow(pl.read_avro(io.BytesIO(containers[0])).to_arrow()), _dicts(fastavro.reader(io.BytesIO(containers[0]))))
    events = sum(f.events for f in frames_)
    seconds = interleaved({
        "decode_blocks": lambda: [_decode(f) for f in frames_],
        "decode_datums (bounds given)": lambda: [decode_datums(d) for d in datums],
        "pyruhvro (bounds given, no look at UTF-8)": lambda: [pyruhvro.deserialize_array(d, schema) for d in datums],
        "polars.read_avro (no bounds)": lambda: [pl.read_avro(io.BytesIO(c)) for c in containers],
        "fastavro, to dicts": lambda: [list(fastavro.reader(io.BytesIO(c))) for c in few],
    }, runs)
    seconds["fastavro, to dicts"] = [s * events / frames_[0].events for s in seconds["fastavro, to dicts"]]
    figures = rates("decode: Avro blocks to columns", seconds, events, "decode_blocks")
    figures.notes.append("Bounds: where each datum begins and ends, without which no reject has its bytes.")
    return figures


def _decode(frame: Frame) -> Decoded:
    return decode_blocks(frame.pieces, frame.counts, frame.schema.parsed, frame.schema.program)


def _container(frame: Frame) -> bytes:
    """The frame as an object container of its own."""
    out = io.BytesIO()
    fastavro.writer(out, e.SCHEMA, [], sync_marker=_SYNC)
    for piece, count in zip(frame.pieces, frame.counts):
        for number in (count, len(piece)):
            fastavro.schemaless_writer(out, "long", number)
        out.write(piece + _SYNC)
    return out.getvalue()


def _plain(decoded: Decoded) -> list[list]:
    """Columns of Python values, empty texts as null, times as µs."""
    buf, columns = decoded.buf.tobytes(), []
    for f, field in enumerate(e.SCHEMA["fields"]):
        pairs = zip(decoded.values[:, f].tolist(), decoded.lengths[:, f].tolist())
        if "string" in field["type"]:
            columns.append([buf[v : v + n].decode() if n > 0 else None for v, n in pairs])
        else:
            columns.append([v if n >= 0 else None for v, n in pairs])
    return columns


def _arrow(table) -> list[list]:
    columns = (c if str(c.type)[:9] != "timestamp" else c.cast("int64") for c in table.columns)
    return [[v if v != "" else None for v in c.to_pylist()] for c in columns]


def _dicts(events) -> list[list]:
    def plain(value):
        return None if value == "" else round(value.timestamp() * 1e6) if hasattr(value, "timestamp") else value

    return [list(column) for column in zip(*([plain(v) for v in event.values()] for event in events))]


# -- identify ---------------------------------------------------------------------------------------------------------

def identifying(frames_: list[Frame], runs: int) -> Figures:
    """Identity, parent, content digest and distinct dimensions of decoded events."""
    decoded = [_decode(f) for f in frames_]
    judged = [judge(d.buf, d.values, d.lengths, np.zeros(len(d.values), np.int64), POLICY.counting.viewability) for d in decoded]
    chosen = [np.flatnonzero(j["reason"] == ACCEPTED) for j in judged]
    tables = [_frame(f, j["type"]).filter(pl.Series(j["reason"] == ACCEPTED)) for f, j in zip(frames_, judged)]
    dicts = [t.to_dicts() for t in tables[:1]]

    def ours(n: int = len(frames_)) -> list[EventBatch]:
        return [identify.batch(d, c, j["type"], identify.Labels()) for d, c, j in zip(decoded[:n], chosen, judged)]

    ids, parents, digests, dims = _mmh3_loop(dicts[0])
    batch, hashed, distinct = ours(1)[0], *_polars_hashes(tables[0])
    rows = batch.rows
    same("identity", ids, list(zip(rows["id_hi"].tolist(), rows["id_lo"].tolist())))
    followup = ~np.isin(rows["type"], (e.IMPRESSION, e.CONVERSION))
    same("parent", parents, list(zip(rows["parent_hi"][followup].tolist(), rows["parent_lo"][followup].tolist())))
    same("digest", *map(groups, (rows["digest"].tolist(), digests, hashed["digest"].to_list())))
    same("identity", groups(ids), groups(list(zip(hashed["id_hi"], hashed["id_lo"]))))
    impressions = rows["type"] == e.IMPRESSION
    same("dimensions", groups(rows["dims"][impressions].tolist()), groups(dims))
    same("dimensions", len(np.unique(rows["dims"][impressions])), len(set(dims)), len(distinct))

    events = sum(map(len, chosen))
    seconds = interleaved({
        "identify.batch": ours,
        "Polars (two 64-bit hashes a key)": lambda: [_polars_hashes(t) for t in tables],
        "mmh3 in a loop over dicts": lambda: _mmh3_loop(dicts[0]),
    }, runs)
    seconds["mmh3 in a loop over dicts"] = [s * events / len(chosen[0]) for s in seconds["mmh3 in a loop over dicts"]]
    figures = rates("identify: 128-bit identities, digests, dimensions", seconds, events, "identify.batch")
    figures.notes.append("identify.batch also packs the rows that travel and interns their texts; the others stop at the hashes.")
    return figures


def _frame(frame: Frame, kinds: np.ndarray) -> pl.DataFrame:
    return pl.read_avro(io.BytesIO(_container(frame))).with_columns(kind=pl.Series(kinds))


def _polars_hashes(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(hashes of each event, the distinct combinations of dimensions)."""
    world = pl.col("test").fill_null(False).cast(pl.String)
    its_own = pl.col("kind").is_in([e.IMPRESSION, e.CONVERSION])
    impression = pl.when(its_own).then("event_id").otherwise("impression_id")
    key = pl.concat_str([world, impression, pl.col("event_id")], separator="\x1f")
    parent = pl.when(its_own).then(None).otherwise(pl.concat_str([world, impression, impression], separator="\x1f"))
    hashed = events.select(
        id_hi=key.hash(1), id_lo=key.hash(2), parent_hi=parent.hash(1), parent_lo=parent.hash(2),
        digest=pl.struct(pl.all().exclude("kind", "received_time")).hash(3))
    dims = events.lazy().filter(kind=e.IMPRESSION).select(world.alias("world"), *e.DIMENSIONS).unique(maintain_order=True)
    return hashed, dims.collect()


def _mmh3_loop(events: list[dict]) -> tuple[list, list, list, list]:
    """(identities, follow-ups' parents, digests, impressions' dimensions); the first two are exactly ours."""
    ids, parents, digests, dims = [], [], [], []
    for event in events:
        seed = 1 if event["test"] else 0
        own = mmh3.mmh3_x64_128_digest(event["event_id"].encode(), seed)
        kind = event["kind"]
        if kind == e.IMPRESSION or kind == e.CONVERSION:
            ids.append(mmh3.hash64(own + own, 0, signed=False))
            if kind == e.IMPRESSION:
                dims.append(mmh3.hash64(orjson.dumps([seed, *map(event.get, e.DIMENSIONS)]), 0, signed=False))
        else:
            impression = mmh3.mmh3_x64_128_digest(event["impression_id"].encode(), seed)
            ids.append(mmh3.hash64(impression + own, 0, signed=False))
            parents.append(mmh3.hash64(impression + impression, 0, signed=False))
        digests.append(mmh3.hash64(orjson.dumps(list(event.values())[:-2]), 0, signed=False)[0])
    return ids, parents, digests, dims


# -- dedup ------------------------------------------------------------------------------------------------------------

def deduplicating(remembered: int, runs: int) -> tuple[Figures, dict]:
    """Batches of impressions, one in twenty of them seen before, against ``remembered`` identities; and what each costs."""
    rng = np.random.default_rng(remembered)
    keys = rng.integers(0, 2**64, (remembered, 2), np.uint64)
    # Every form has its own copy of the stream; a run takes the next few batches, so that nothing is asked twice.
    fresh = [_some_seen(rng, keys) for _ in range((runs + 1) * BATCHES_A_RUN)]

    shard, began = JoinShard(POLICY.counting), time.process_time()
    for at in range(0, remembered, BATCH):
        shard.absorb(_impressions(keys[at : at + BATCH]))
        shard.take_changes()
    grew = remembered / (time.process_time() - began)
    table = Keys(keys[:, 0], keys[:, 1])
    frame = pl.DataFrame(keys, schema=["hi", "lo"])
    voids = np.unique(_voids(keys))
    texts = set(map(bytes, _voids(keys)))

    def join_shard(batch: np.ndarray) -> int:
        known = shard.count
        shard.absorb(_impressions(batch))
        shard.take_changes()
        return shard.count - known

    def hash_table(batch: np.ndarray) -> int:
        known = table.rows
        table.add(batch[:, 0], batch[:, 1])
        return table.rows - known

    def polars_join(batch: np.ndarray) -> int:
        nonlocal frame
        new = pl.DataFrame(batch, schema=["hi", "lo"]).unique().join(frame, on=["hi", "lo"], how="anti")
        frame = pl.concat([frame, new], rechunk=False)
        return len(new)

    def numpy_unique(batch: np.ndarray) -> int:
        nonlocal voids
        known, voids = len(voids), np.unique(np.concatenate([voids, _voids(batch)]))
        return len(voids) - known

    def python_set(batch: np.ndarray) -> int:
        known = len(texts)
        texts.update(map(bytes, _voids(batch)))
        return len(texts) - known

    forms = {"JoinShard.absorb (with delivery sums, ledger and log)": join_shard, "table.Keys (the hash table alone)": hash_table,
             "Polars anti-join": polars_join, "NumPy unique": numpy_unique, "Python set of 16 bytes": python_set}
    new = {name: [] for name in forms}
    streams = {name: iter(fresh) for name in forms}
    seconds = interleaved({name: _next_batches(form, streams[name], new[name]) for name, form in forms.items()}, runs)
    same("dedup", *new.values())
    ours = next(iter(forms))
    figures = rates(f"dedup: {remembered:,} identities remembered, batches of {BATCH:,}",
                    seconds, BATCHES_A_RUN * BATCH, ours)
    figures.notes.append(f"JoinShard grew from nothing to {remembered:,} at {grew:,.0f} events/s, all growing included.")
    bytes_ = shard.state_bytes()
    set_bytes = (sys.getsizeof(texts) + len(texts) * sys.getsizeof(bytes(16))) / len(texts)
    held = {"remembered": bytes_["identities"], "identity and digest": bytes_["identity and digest"], "hash table": bytes_["table"],
            "join's payload": bytes_["join"], "Python set": set_bytes}
    return figures, held


def _next_batches(form: Callable, stream: Iterator, new: list[int]) -> Callable[[], None]:
    return lambda: new.extend(form(next(stream)) for _ in range(BATCHES_A_RUN))


def _some_seen(rng, keys: np.ndarray) -> np.ndarray:
    batch = rng.integers(0, 2**64, (BATCH, 2), np.uint64)
    seen = rng.random(BATCH) < 0.05
    batch[seen] = keys[rng.integers(0, len(keys), int(seen.sum()))]
    return batch


def _voids(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view("V16").ravel()


def _impressions(keys: np.ndarray) -> EventBatch:
    rows = np.zeros(len(keys), ROW)
    rows["id_hi"], rows["id_lo"], rows["digest"] = keys[:, 0], keys[:, 1], keys[:, 0]
    rows["time"], rows["watermark"] = 1_772_409_600_000_000, NO_WATERMARK
    dims = np.zeros(1, DIMS)
    return EventBatch(rows, dims, blobs([]), ["a"])


# -- join -------------------------------------------------------------------------------------------------------------

def joining(batches: list[EventBatch], runs: int) -> tuple[Figures, list[Deltas], float]:
    """Dedup, join and sum of a whole log in one shard; the changes that it makes to totals and its bytes of log an event."""
    events = sum(len(b.rows) for b in batches)
    table = _events_frame(batches)
    deltas, logged = _join_all(batches)
    same("join", _summed(deltas), _polars_join(table))
    seconds = interleaved({
        "JoinShard, batch by batch (with ledger and log)": lambda: _join_all(batches),
        "Polars, one join over the whole log": lambda: _polars_join(table),
    }, runs)
    figures = rates("join: a log's events deduplicated, joined, summed by row", seconds, events, "JoinShard, batch by batch (with ledger and log)")
    figures.notes.append("Polars has all events at once, remembers nothing, and knows no watermark, orphan, conflict or ledger.")
    return figures, deltas, logged / events


def _join_all(batches: list[EventBatch]) -> tuple[list[Deltas], int]:
    shard, deltas, logged = JoinShard(POLICY.counting), [], 0
    for batch in batches:
        effects = shard.absorb(batch)
        if effects.delivery is not None:
            deltas.append(effects.delivery)
        logged += sum(len(run) for _, run in shard.take_changes().appended)
    shard.advance(_TO_THE_END)
    return deltas, logged


def _summed(deltas: list[Deltas]) -> list[tuple]:
    """(hour, counts) of every row that is not all zero, sorted."""
    keys = np.concatenate([d.keys for d in deltas])
    _, first, row = np.unique(_voids(keys), return_index=True, return_inverse=True)
    sums = np.zeros((len(first), len(e.COUNTS)), np.int64)
    np.add.at(sums, row, np.concatenate([d.counts for d in deltas]))
    hours = np.concatenate([d.hours for d in deltas])[first]
    return sorted(tuple(r) for r in np.column_stack([hours, sums])[sums.any(axis=1)].tolist())


def _events_frame(batches: list[EventBatch]) -> pl.DataFrame:
    columns = ("id_hi", "id_lo", "parent_hi", "parent_lo", "time", "price", "type", "verdict", "shows")
    rows = np.concatenate([b.rows for b in batches])
    dims = np.concatenate([  # of what is no impression: zeros, behind the batch's own
        np.append(b.dims, np.zeros(1, DIMS))[np.where(b.rows["type"] == e.IMPRESSION, b.rows["dims"], -1)] for b in batches])
    frame = pl.DataFrame({c: np.ascontiguousarray(rows[c]) for c in columns})
    return frame.with_columns(dims_hi=np.ascontiguousarray(dims["hi"]), dims_lo=np.ascontiguousarray(dims["lo"]))


def _polars_join(events: pl.DataFrame) -> list[tuple]:
    row = ["hour", "dims_hi", "dims_lo"]
    kind, shows = pl.col("type"), pl.col("shows")
    display, video, audio = (pl.col("shows_imp") == 1 + e.FORMATS.index(f) for f in ("display", "video", "audio"))
    first = events.lazy().unique(["id_hi", "id_lo"], keep="first", maintain_order=True)
    impressions = first.filter(kind == e.IMPRESSION).with_columns(hour=pl.col("time") // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR)
    valid = pl.col("verdict") == 0
    gross = impressions.select(
        *row, gross_impressions=1, impressions=valid.cast(pl.Int64), spend_micros=pl.when(valid).then("price").otherwise(0))
    followups = (
        first.filter(~kind.is_in([e.IMPRESSION, e.CONVERSION]) & valid)
        .join(impressions.filter(valid).select("id_hi", "id_lo", "hour", "dims_hi", "dims_lo", time_imp="time", shows_imp="shows"),
              left_on=["parent_hi", "parent_lo"], right_on=["id_hi", "id_lo"], suffix="_imp")
        .filter((pl.col("time") - pl.col("time_imp")).abs() <= POLICY.counting.join_horizon)
    )

    def shown(bit: int) -> pl.Expr:
        return (kind == e.VIEWABILITY) & (shows & bit > 0)

    viewable = (display & shown(SHOWS_DISPLAY)) | (video & shown(SHOWS_VIDEO))
    by_impression = followups.group_by("parent_hi", "parent_lo").agg(
        *(pl.col(c).first() for c in ("hour", "dims_hi_imp", "dims_lo_imp")),
        measurable_impressions=(kind == e.VIEWABILITY).any().cast(pl.Int64),
        viewable_impressions=viewable.any().cast(pl.Int64),
        audible_impressions=((audio | video) & shown(SHOWS_AUDIBLE)).any().cast(pl.Int64),
        clicks=(kind == e.CLICK).sum().cast(pl.Int64),
        **{name: (kind == e.START + q).any().cast(pl.Int64) for q, name in enumerate(e.COUNTS[6:11])},
        spend_micros=pl.col("price").sum(),
    ).drop("parent_hi", "parent_lo").rename({"dims_hi_imp": "dims_hi", "dims_lo_imp": "dims_lo"})
    totals = (
        pl.concat([gross.with_columns(pl.col("gross_impressions").cast(pl.Int64)), by_impression], how="diagonal")
        .group_by(row).agg(pl.col(e.COUNTS).sum())
        .select("hour", *e.COUNTS).filter(pl.any_horizontal(pl.col(e.COUNTS) != 0)).sort(pl.all())
    )
    return totals.collect().rows()


# -- totals -----------------------------------------------------------------------------------------------------------

def totalling(deltas: list[Deltas], runs: int) -> Figures:
    """Absolute totals by row, kept batch by batch."""
    tables = [_deltas_frame(d) for d in deltas]
    same("totals", _summed(deltas), _polars_rows(_polars_once(tables)), _polars_rows(_polars_running(tables)), _held(_total_all(deltas)))
    changes = sum(map(len, deltas))
    ours = "TotalsShard.absorb, then flush (with log)"
    seconds = interleaved({
        ours: lambda: _total_all(deltas),
        "Polars, totals after each batch": lambda: _polars_running(tables),
        "Polars, one group_by of all changes": lambda: _polars_once(tables),
    }, runs)
    figures = rates("totals: changes summed to absolute rows", seconds, changes, ours, "changes")
    figures.notes.append("Polars keys by hash and hour; TotalsShard also takes in texts, closes hours and numbers revisions.")
    return figures


def _totals(table) -> TotalsShard:
    counting = POLICY.counting
    horizon = counting.dedup_horizon + counting.join_horizon + e.MICROS_PER_HOUR
    return TotalsShard(len(table.texts), len(table.values), counting.allowed_lateness,
                       horizon if table in (DELIVERY, CREDITS, ATTRIBUTION) else max(horizon, LEDGER_HORIZON))


def _total_all(deltas: list[Deltas]) -> TotalsShard:
    shard = _totals(DELIVERY)
    for each in deltas:
        shard.absorb(each)
        shard.take_changes()
    shard.flush(1)
    return shard


def _held(shard: TotalsShard) -> list[tuple]:
    rows = shard.rows[: shard.keys.rows]
    table = np.column_stack([rows["hour"], rows["totals"] + rows["held"]])
    return sorted(tuple(r) for r in table[table[:, 1:].any(axis=1)].tolist())


def _deltas_frame(deltas: Deltas) -> pl.DataFrame:
    keys = {"hi": deltas.keys[:, 0], "lo": deltas.keys[:, 1], "hour": deltas.hours}
    counts = {name: deltas.counts[:, m] for m, name in enumerate(e.COUNTS)}
    return pl.DataFrame({name: np.ascontiguousarray(c) for name, c in (keys | counts).items()})


def _polars_once(tables: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(tables).group_by("hi", "lo", "hour").agg(pl.col(e.COUNTS).sum())


def _polars_running(tables: list[pl.DataFrame]) -> pl.DataFrame:
    totals = tables[0][:0]
    for table in tables:
        totals = pl.concat([totals, table]).group_by("hi", "lo", "hour").agg(pl.col(e.COUNTS).sum())
    return totals


def _polars_rows(totals: pl.DataFrame) -> list[tuple]:
    return totals.select("hour", *e.COUNTS).filter(pl.any_horizontal(pl.col(e.COUNTS) != 0)).sort(pl.all()).rows()


# -- together ---------------------------------------------------------------------------------------------------------

class Together:
    """All that the delivery job does to a log but for the engine and the warehouse, stage by stage, with each one's time."""

    def __init__(self):
        self.seconds: Counter = Counter()
        self.bytes: Counter = Counter()
        self.outcomes: Counter = Counter()
        self.joins = [JoinShard(POLICY.counting) for _ in range(SHARDS)]
        self.orders = OrdersShard(POLICY.counting)
        self.credits = [CreditsShard(POLICY.attribution, POLICY.counting) for _ in range(USER_SHARDS)]
        self.totals: dict[str, TotalsShard] = {}
        self.watermark, self.screen = FileWatermark(), Screen(POLICY.screening)
        self.events = 0

    def run(self, path: Path) -> "Together":
        began = time.process_time()
        for intake in self._intakes(path):
            self._tallies(intake.tallies.items())
            for shard, encoded in self.timed("split and encode", lambda: self._split(intake.batch)):
                self.bytes["batches"] += len(encoded)
                batch = self.timed("decode batches", lambda: EventBatch.decode(encoded))
                self._settle(self.timed("join", lambda: self._join(self.joins[shard], batch)))
        for shard in self.joins:
            self._settle(self.timed("join", lambda: shard.advance(_TO_THE_END)))
        self.rows = self.timed("publish", self._publish)
        self.whole = time.process_time() - began
        return self

    def timed(self, stage: str, act: Callable):
        began = time.process_time()
        done = act()
        self.seconds[stage] += time.process_time() - began
        return done

    def _intakes(self, path: Path) -> Iterator[Intake]:
        pieces = frames(path, FRAME_EVENTS, FRAME_EVENTS)
        while (found := self.timed("read frames", lambda: next(pieces, None))) is not None:
            frame = found[0]
            self.events += frame.events
            origin = Origin(path.name, np.array(frame.positions, np.int64), AVRO, frame.schema.id, np.zeros(len(frame.positions), np.int64))
            decoded = self.timed("decode", lambda: _decode(frame))
            yield self.timed("take in", lambda: take_in(decoded, origin, {0: (frame.messages, frame.events, frame.bytes)}, POLICY,
                                                        self.watermark, END, self.screen))

    @staticmethod
    def _split(batch: EventBatch) -> list[tuple[int, bytes]]:
        return [(shard, part.encode()) for shard, part in batch.split(SHARDS)]

    def _join(self, shard: JoinShard, batch: EventBatch):
        effects = shard.absorb(batch)
        self.bytes["join log"] += sum(len(run) for _, run in shard.take_changes().appended)
        return effects

    def _settle(self, effects) -> None:
        ledger, told = Counter(effects.ledger), [effects.facts]
        if effects.orders is not None:
            decided = self.timed("orders", lambda: self.orders.absorb(effects.orders))
            ledger.update(decided.ledger)
            told.append(decided.facts)
            if (invalid := tallied(decided.invalid)) is not None:
                self._invalid(invalid)
        for facts in told:
            if facts is not None:
                self._credit(facts)
        if effects.delivery is not None:
            for part, deltas in effects.delivery.split(DELIVERY_SHARDS):
                self._tallies([(f"delivery/{part}", deltas)])
        if effects.invalid is not None:
            self._invalid(effects.invalid)
        if (entries := tallied(ledger)) is not None:
            self._tallies([("ledger", entries)])

    def _invalid(self, deltas: Deltas) -> None:
        self._tallies([(f"invalid_traffic/{part}", some) for part, some in deltas.split(DELIVERY_SHARDS)])

    def _credit(self, facts: Facts) -> None:
        for shard, encoded in self.timed("facts: split and encode", lambda: [(s, part.encode()) for s, part in facts.split(USER_SHARDS)]):
            self.bytes["facts"] += len(encoded)
            part = self.timed("facts: decode", lambda: Facts.decode(encoded))
            credited = self.timed("credits", lambda: self._credited(self.credits[shard], part))
            changed = [] if credited.credits is None else credited.credits.split(DELIVERY_SHARDS)
            self._tallies([(f"conversion_credits/{s}", deltas) for s, deltas in changed])
            if credited.attribution is not None:
                self._tallies([("attribution", credited.attribution)])

    def _credited(self, shard: CreditsShard, facts: Facts):
        credited = shard.absorb(facts)
        self.bytes["credits' log"] += sum(len(run) for _, run in shard.take_changes().appended)
        return credited

    def _tallies(self, tallies) -> None:
        for key, deltas in tallies:
            self.timed(_stage(key), lambda: self._absorb(key, Deltas.decode(deltas.encode())))
            if key == "ledger":
                for outcome, n in zip(deltas.codes[:, 2].tolist(), deltas.counts[:, 0].tolist()):
                    self.outcomes[deltas.labels[outcome]] += n

    def _absorb(self, key: str, deltas: Deltas) -> None:
        shard = self.totals.get(key)
        if shard is None:
            shard = self.totals[key] = _totals(TOTALS[key.partition("/")[0]])
        shard.absorb(deltas)
        self.bytes["totals' log" if _stage(key) == "totals" else "credits' totals' log"] += sum(len(run) for _, run in shard.take_changes().appended)

    def _publish(self) -> list:
        return [of_revisions(TOTALS[key.partition("/")[0]], revisions, 1, "rules", 0)
                for key, shard in self.totals.items() for revisions in shard.advance(_TO_THE_END, 1)]


def _stage(key: str) -> str:
    return "totals of credits" if TOTALS[key.partition("/")[0]] in (CREDITS, ATTRIBUTION) else "totals"


def together(log: Path, runs: int) -> tuple[Figures, Figures]:
    """The kernels one after the other over a whole log: events a second on one core, by stage, and bytes."""
    done = []
    for run in range(runs + 1):  # the first one compiles or loads what is compiled
        done = done[run == 1 :] + [Together().run(log)] if run != 1 else [Together().run(log)]
    truth = Truth.read(log.parent)
    same("outcomes", dict(+done[-1].outcomes), truth.outcomes)
    same("attribution", _attribution(done[-1].rows), _told(log.parent))
    delivery: dict[tuple, tuple] = {}
    for table in done[-1].rows:  # a row's later revision behind its earlier one
        if set(e.COUNTS) <= set(table.column_names):
            rows = zip(*(table[c].to_pylist() for c in ("window_start", *e.DIMENSIONS, *e.COUNTS)))
            delivery.update(keyed(rows))
    same("delivery", delivery, truth.delivery)
    done.sort(key=lambda t: t.whole)
    middle = done[len(done) // 2]
    events = middle.events
    speed = Figures("the kernels together, one core", ("stage", "µs an event", "share"))
    for stage, seconds in middle.seconds.most_common():
        speed.add(stage, round(seconds / events * 1e6, 3), f"{seconds / middle.whole:.1%}")
    other = middle.whole - sum(middle.seconds.values())
    speed.add("between them", round(other / events * 1e6, 3), f"{other / middle.whole:.1%}")
    speed.notes.append(f"{events / middle.whole:,.0f} events/s a core ({events / done[-1].whole:,.0f} to {events / done[0].whole:,.0f}); "
                       f"outcomes, delivery and attribution are the simulator's truth")
    sizes = Figures("bytes an event, of the events in the log", ("what", "bytes"))
    sizes.add("input", log.stat().st_size / events)
    for what, size in middle.bytes.items():
        sizes.add({"batches": "between stages, compressed"}.get(what, what), size / events)
    return speed, sizes


def _attribution(tables: list) -> dict[tuple, tuple]:
    """The sums by key, of a row's revisions the last."""
    found, names = {}, [c.name for c in ATTRIBUTION.body]
    for table in tables:
        if set(names) <= set(table.column_names):
            table = table.set_column(table.column_names.index("window_start"), "window_start", table["window_start"].cast("int64"))
            for hour, *texts, credit, micros in zip(*(table[name].to_pylist() for name in names)):
                found[hour, *texts] = Decimal(credit), micros
    return {key: sums for key, sums in found.items() if any(sums)}


def _told(log: Path) -> dict[tuple, tuple]:
    names, told = [c.name for c in ATTRIBUTION.body], orjson.loads((log / "truth.json").read_bytes())["attribution"]
    rows = (map(dict(zip(told["columns"], row)).get, names) for row in told["rows"])
    return {(round(datetime.fromisoformat(hour).timestamp() * 1e6), *texts): (Decimal(credit), micros)
            for hour, *texts, credit, micros in rows}


# -- checks -----------------------------------------------------------------------------------------------------------

def same(what: str, *answers) -> None:
    """Exits unless all forms gave one answer."""
    for other in answers[1:]:
        if answers[0] != other:
            sys.exit(f"{what}: the forms disagree, so their speeds mean nothing: {_difference(answers[0], other)}")


def _difference(a, b) -> str:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        at = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
        return f"at {at}: {_difference(a[at], b[at])}"
    return f"{str(a)[:300]} and {str(b)[:300]}"


def groups(keys: list) -> list[int]:
    """Each key's place of first sight: equal for two lists exactly if they tell the same things apart."""
    first: dict = {}
    return [first.setdefault(key, i) for i, key in enumerate(keys)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the simulated log (1000000)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each form (5)")
    parser.add_argument("--remembered", type=int, nargs="+", default=REMEMBERED, help="identities remembered (1000000 5000000)")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        readable, log = Path(folder, "readable"), Path(folder, "log")
        simulate(SimulateOptions(events=min(PEER_EVENTS, args.events), seed=7, files=1, undecodable_rate=0), readable)
        simulate(SimulateOptions(events=args.events, seed=7, files=1), log)
        frames_ = [f for f, _ in frames(readable / "events-01.avro", FRAME_EVENTS, FRAME_EVENTS)]
        tables = [decoding(frames_, args.runs), identifying(frames_, args.runs)]
        held = Figures("bytes of memory for each remembered identity", ("remembered", "identity, digest and time", "hash table", "join's payload", "Python set"))
        for remembered in args.remembered:
            figures, sizes = deduplicating(remembered, args.runs)
            tables.append(figures)
            held.add(*(sizes[c] for c in held.columns))
        held.notes.append("A Python set holds the identity alone.")
        batches = [i.batch for i in Together()._intakes(log / "events-01.avro")]
        figures, deltas, _ = joining(batches, args.runs)
        tables += [figures, totalling(deltas, args.runs)]
        del batches, deltas
        tables += [*together(log / "events-01.avro", args.runs), held]
    publish("kernels", before, tables, events=args.events, runs=args.runs)


if __name__ == "__main__":
    main()
