"""Conversions by order: of one advertiser's conversions of a type and order_id, the earliest stands (contract section 2).

No Beam here. The shards of the stage before may run apart, so the conversions of an order come in any order. What decides
is the watermark that each was read at: by it they stand in a row, in which one older than the dedup horizon is forgotten.
Those displaced are remembered as well, since one read before them may still come. Nearly every order has one conversion.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import orjson

from measurement.columnar.batch import ROW, EventBatch, blobs, pack, unpack
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE, ON_TIME, ORDER
from measurement.columnar.facts import FACT, TERMS, Facts, terms_of
from measurement.columnar.identify import TERMS_AT
from measurement.columnar.labels import Labels
from measurement.model.events import CONVERSION, MICROS_PER_HOUR
from measurement.model.policy import Counting
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 3


@dataclass(eq=False)
class Conversion:
    """A conversion that names an order."""

    row: np.void  # ROW
    event_id: str
    source: str
    terms: tuple[str | None, ...]  # advertiser_id, conversion_type, currency
    displaced: bool = False
    settled: bool = False  # displaced for good: what stood then is forgotten, and so is this one

    @property
    def order(self) -> tuple[int, int]:
        return int(self.row["parent_hi"]), int(self.row["parent_lo"])

    @property
    def time(self) -> int:
        return int(self.row["time"])

    @property
    def rank(self) -> tuple[int, bytes]:
        return self.time, self.event_id.encode()

    @property
    def read(self) -> tuple:
        return int(self.row["watermark"]), self.rank

    @property
    def outcome(self) -> str:
        if self.displaced:
            return "duplicate"
        return "invalid_traffic" if self.row["verdict"] else "counted"


class _Told:
    """Collects what attribution is to know of one call."""

    def __init__(self):
        self._facts: list[tuple] = []
        self._whole: list[Conversion] = []

    def new(self, it: Conversion, watermark: int) -> None:
        self._enter(it, watermark, LATE, it.outcome == "counted", len(self._whole))
        self._whole.append(it)

    def changed(self, it: Conversion, was: str, watermark: int, because: int) -> None:
        if change := (it.outcome == "counted") - (was == "counted"):
            self._enter(it, watermark, because, change, -1)

    def _enter(self, it: Conversion, watermark: int, because: int, delta: int, terms: int) -> None:
        row = it.row
        self._facts.append((row["user_hi"], row["user_lo"], row["id_hi"], row["id_lo"], 0, 0, row["time"], watermark,
                            row["price"], terms, CONVERSION, delta, because, 0))

    def facts(self) -> Facts | None:
        if not self._facts:
            return None
        facts, labels = np.array(self._facts, FACT), Labels()
        codes = np.full((len(self._whole), 5), -1, np.int32)
        for own, it in zip(codes, self._whole):
            own[:3] = [-1 if text is None else labels.code(text) for text in it.terms]
        terms = np.zeros(0, TERMS)
        whole = facts["terms"] >= 0
        if self._whole:
            terms, facts["terms"][whole] = terms_of(codes, labels.texts)
        ids = iter(it.event_id.encode() for it in self._whole)
        return Facts(facts, terms, blobs([next(ids) if w else b"" for w in whole.tolist()]), labels.texts)


class OrdersShard:
    """State machine of one shard of orders."""

    def __init__(self, counting: Counting):
        self.counting = counting
        self.buckets = Buckets(counting.dedup_horizon)
        self._reset()
        self._changes = Changes()

    def _reset(self):
        self.orders: dict[tuple[int, int], list[Conversion]] = {}  # as they were read
        self._by_bucket: dict[int, set[tuple[int, int]]] = defaultdict(set)

    def absorb(self, batch: EventBatch) -> tuple[Counter, Facts | None]:
        """Takes in deduplicated conversions that name an order, whose payloads are their event_ids: ledger changes by (hour,
        because, source, type, outcome), and what attribution is to know."""
        ledger: Counter = Counter()
        told = _Told()
        new = []
        for i, row in enumerate(batch.rows):
            codes = batch.dims["codes"][row["dims"]]
            terms = tuple(None if codes[c] < 0 else batch.labels[codes[c]] for c in TERMS_AT)
            it = Conversion(row.copy(), batch.payloads[i].decode(), batch.labels[row["source"]], terms)
            watermark = int(row["watermark"])
            for other, was in self._enter(it):
                later = max(watermark, other.read[0])
                told.changed(other, was, later, ORDER)
                ledger[self._key(other, later, ORDER, was)] -= 1
                ledger[self._key(other, later, ORDER, other.outcome)] += 1
            ledger[self._key(it, watermark, LATE, it.outcome)] += 1
            told.new(it, watermark)
            new.append(it)
        self._log(new)
        return ledger, told.facts()

    def _enter(self, it: Conversion) -> list[tuple[Conversion, str]]:
        """Puts a conversion among those of its order; the others that this changes, with their outcomes before."""
        known = self.orders.setdefault(it.order, [])
        self._by_bucket[self.buckets.of(it.time)].add(it.order)
        before = [(other, other.outcome) for other in known]
        insort(known, it, key=lambda c: c.read)
        self._decide(known)
        return [(other, was) for other, was in before if other.outcome != was]

    def _decide(self, known: list[Conversion]) -> Conversion | None:
        """Says of each conversion of an order, as they were read, whether another displaced it; the one that stands."""
        stands = None
        for it in known:
            it.displaced = False
            if stands is not None and stands.time >= it.read[0] - self.counting.dedup_horizon:
                if stands.rank < it.rank:
                    it.displaced = True
                    continue
                stands.displaced = True
            stands = it
        return stands

    def judge(self, entry: np.void, verdict: int, watermark: int) -> tuple[Counter, Facts | None]:
        """Sets the verdict on a conversion given by its identity and order; what stands is restated."""
        ledger: Counter = Counter()
        told = _Told()
        for it in self.orders.get((int(entry["parent_hi"]), int(entry["parent_lo"])), ()):
            if (it.row["id_hi"], it.row["id_lo"], it.time) == (entry["id_hi"], entry["id_lo"], entry["time"]):
                ledger[self._key(it, watermark, INVALID_TRAFFIC, it.outcome)] -= 1
                was = it.outcome
                it.row["verdict"] = verdict
                told.changed(it, was, watermark, INVALID_TRAFFIC)
                ledger[self._key(it, watermark, INVALID_TRAFFIC, it.outcome)] += 1
                self._log([it])
        return ledger, told.facts()

    def _key(self, it: Conversion, watermark: int, because_closed: int, outcome: str) -> tuple:
        hour = it.time // MICROS_PER_HOUR * MICROS_PER_HOUR
        closed = watermark >= hour + MICROS_PER_HOUR + self.counting.allowed_lateness
        return hour, because_closed if closed else ON_TIME, it.source, "conversion", outcome

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return min((self.buckets.expires(b) for b in self._by_bucket), default=None)

    def advance(self, watermark: int) -> None:
        """Forgets the conversions that no later one can belong with."""
        first = self.buckets.first_kept(watermark)
        expired = [b for b in self._by_bucket if b < first]
        settled: list[Conversion] = []
        for bucket in expired:
            for order in self._by_bucket.pop(bucket):
                settled += self._settle(order, first, watermark)
            self._changes.clear(bucket)
        slots = {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._by_bucket if b % SLOTS in slots]:  # they shared a slot with one that expired
            self._log(it for order in self._by_bucket[bucket] for it in self.orders.get(order, ())
                      if self.buckets.of(it.time) == bucket)
        self._log(settled)

    def _settle(self, order: tuple[int, int], first: int, watermark: int) -> list[Conversion]:
        """Forgets an order's conversions before bucket ``first`` and, of those already read at the watermark, all but
        the one that stands; those of later buckets among them, which the log must be told of."""
        known = self.orders.pop(order, [])
        read = [it for it in known if it.read[0] <= watermark]
        stands = self._decide(read)
        kept = [it for it in (stands, *known[len(read):]) if it is not None and self.buckets.of(it.time) >= first]
        self._decide(known)
        if kept:
            self.orders[order] = kept
        gone = [it for it in read if it is not stands and self.buckets.of(it.time) >= first]
        for it in gone:
            it.settled = True
        return gone

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log(self, conversions: Iterable[Conversion]) -> None:
        by_bucket: dict[int, list[Conversion]] = defaultdict(list)
        for it in conversions:
            by_bucket[self.buckets.of(it.time)].append(it)
        for bucket, its in by_bucket.items():
            texts = orjson.dumps([(it.event_id, it.source, it.terms, it.settled) for it in its])
            self._changes.append(bucket, pack(_VERSION, (np.array([it.row for it in its], ROW).tobytes(), texts)))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log, the runs of each slot in the order of writing."""
        self._reset()
        latest: dict[tuple, Conversion] = {}  # of two runs of one conversion the later holds
        for run in runs:
            rows, texts = unpack(_VERSION, run)
            for row, (event_id, source, terms, settled) in zip(np.frombuffer(rows, ROW), orjson.loads(texts)):
                it = Conversion(row.copy(), event_id, source, tuple(terms), settled=settled)
                latest[*it.order, it.read] = it
        for it in latest.values():
            self._by_bucket[self.buckets.of(it.time)].add(it.order)
            if it.settled:
                continue
            insort(self.orders.setdefault(it.order, []), it, key=lambda c: c.read)
        for known in self.orders.values():
            self._decide(known)
