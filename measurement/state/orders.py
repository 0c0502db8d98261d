"""Conversions by order: of one advertiser's conversions of a type and order_id, the earliest stands (contract section 2).

No Beam here. The shards of the stage before may run apart, so the conversions of an order come in any order. What decides
is the watermark that each was read at: by it they stand in a row, in which one older than the dedup horizon is forgotten.
Those displaced are remembered as well, since one read before them may still come. Nearly every order has one conversion.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

import numpy as np
import orjson

from measurement.columnar.batch import ROW, EventBatch, blobs, pack, unpack
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE, ON_TIME, ORDER
from measurement.columnar.facts import FACT, TERMS, Facts, terms_of
from measurement.columnar.identify import TERMS_AT
from measurement.columnar.labels import Labels
from measurement.columnar.records import Verdicts
from measurement.model.events import CONVERSION, DIMENSIONS, INVALID_REASONS, MICROS_PER_HOUR
from measurement.model.policy import Counting
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 4


@dataclass(eq=False)
class Conversion:
    """A conversion that names an order."""

    row: np.void  # ROW
    event_id: str
    source: str
    terms: tuple[str | None, ...]  # its dimensions as it states them, and conversion_type
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
    def identity(self) -> tuple[int, int, int]:
        return int(self.row["id_hi"]), int(self.row["id_lo"]), self.time

    @property
    def reason(self) -> str:
        """Why it is invalid; empty where it is not, or does not stand."""
        return "" if self.displaced else INVALID_REASONS[self.row["verdict"]]

    @property
    def outcome(self) -> str:
        if self.displaced:
            return "duplicate"
        return "invalid_traffic" if self.row["verdict"] else "counted"

    @property
    def state(self) -> tuple[str, str]:
        return self.outcome, self.reason


class Decided(NamedTuple):
    """What a call decided: changes of the ledger by (hour, because, source, type, outcome), of invalid_traffic by (hour, because,
    dimensions…, type, reason), and what attribution is to know."""

    ledger: Counter
    invalid: Counter
    facts: Facts | None


class _Told:
    """Collects what one call is to tell."""

    def __init__(self, lateness: int):
        self._lateness = lateness
        self._ledger: Counter = Counter()
        self._invalid: Counter = Counter()
        self._facts: list[tuple] = []
        self._whole: list[Conversion] = []

    def new(self, it: Conversion, watermark: int) -> None:
        self._count(it, watermark, LATE, it.state, 1)
        self._enter(it, watermark, LATE, it.outcome == "counted", len(self._whole))
        self._whole.append(it)

    def changed(self, it: Conversion, was: tuple[str, str], watermark: int, because: int) -> None:
        """``was``: its state before."""
        self._count(it, watermark, because, was, -1)
        self._count(it, watermark, because, it.state, 1)
        if change := (it.outcome == "counted") - (was[0] == "counted"):
            self._enter(it, watermark, because, change, -1)

    def _count(self, it: Conversion, watermark: int, because_closed: int, state: tuple[str, str], events: int) -> None:
        outcome, reason = state
        hour = it.time // MICROS_PER_HOUR * MICROS_PER_HOUR
        because = because_closed if watermark >= hour + MICROS_PER_HOUR + self._lateness else ON_TIME
        self._ledger[hour, because, it.source, "conversion", outcome] += events
        if reason:
            self._invalid[hour, because, *it.terms[: len(DIMENSIONS)], "conversion", reason] += events

    def _enter(self, it: Conversion, watermark: int, because: int, delta: int, terms: int) -> None:
        row = it.row
        self._facts.append((row["user_hi"], row["user_lo"], row["id_hi"], row["id_lo"], 0, 0, row["time"], watermark,
                            row["price"], terms, CONVERSION, delta, because, 0))

    def decided(self) -> Decided:
        return Decided(self._ledger, self._invalid, self._told())

    def _told(self) -> Facts | None:
        if not self._facts:
            return None
        facts, labels = np.array(self._facts, FACT), Labels()
        codes = np.full((len(self._whole), 5), -1, np.int32)
        for own, it in zip(codes, self._whole):
            own[:3] = [-1 if it.terms[c] is None else labels.code(it.terms[c]) for c in TERMS_AT]
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
        self._expected: dict[tuple[int, int, int], np.void] = {}  # VERDICTS on conversions that have not come, by identity and time

    def absorb(self, batch: EventBatch) -> Decided:
        """Takes in deduplicated conversions that name an order, whose payloads are their event_ids."""
        told = _Told(self.counting.allowed_lateness)
        new = []
        for i, row in enumerate(batch.rows):
            codes = batch.dims["codes"][row["dims"]]
            terms = tuple(None if code < 0 else intern(batch.labels[code]) for code in codes.tolist())
            it = Conversion(row.copy(), batch.payloads[i].decode(), batch.labels[row["source"]], terms)
            if (verdict := self._expected.pop(it.identity, None)) is not None and not it.row["verdict"]:
                it.row["verdict"] = verdict["code"]
            watermark = int(row["watermark"])
            for other, was in self._enter(it):
                told.changed(other, was, max(watermark, other.read[0]), ORDER)
            told.new(it, watermark)
            new.append(it)
        self._log(new)
        return told.decided()

    def _enter(self, it: Conversion) -> list[tuple[Conversion, tuple[str, str]]]:
        """Puts a conversion among those of its order; the others that this changes, with their states before."""
        known = self.orders.setdefault(it.order, [])
        self._by_bucket[self.buckets.of(it.time)].add(it.order)
        before = [(other, other.state) for other in known]
        insort(known, it, key=lambda c: c.read)
        self._decide(known)
        return [(other, was) for other, was in before if other.state != was]

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

    def judge(self, verdicts: Verdicts) -> Decided:
        """Sets verdicts, given by identity and order; what stands is restated. Those on conversions that have not come are kept."""
        told, judged = _Told(self.counting.allowed_lateness), []
        for verdict in verdicts.rows:
            identity = int(verdict["hi"]), int(verdict["lo"]), int(verdict["time"])
            known = self.orders.get((int(verdict["order_hi"]), int(verdict["order_lo"])), ())
            it = next((it for it in known if it.identity == identity), None)
            if it is None:
                self._expect(verdict)
                self._log_verdict(verdict)
                continue
            was = it.state
            it.row["verdict"] = verdict["code"]
            told.changed(it, was, int(verdict["watermark"]), INVALID_TRAFFIC)
            judged.append(it)
        self._log(judged)
        return told.decided()

    def _expect(self, verdict: np.void) -> None:
        self._expected[int(verdict["hi"]), int(verdict["lo"]), int(verdict["time"])] = verdict

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return min(map(self.buckets.expires, self._held()), default=None)

    def _held(self) -> set[int]:
        """The buckets of what is remembered or expected."""
        return {*self._by_bucket, *(self.buckets.of(time) for _, _, time in self._expected)}

    def advance(self, watermark: int) -> None:
        """Forgets the conversions that no later one can belong with."""
        first = self.buckets.first_kept(watermark)
        expired = {b for b in self._held() if b < first}
        self._expected = {key: verdict for key, verdict in self._expected.items() if self.buckets.of(key[2]) >= first}
        settled: list[Conversion] = []
        for bucket in expired:
            for order in self._by_bucket.pop(bucket, ()):
                settled += self._settle(order, first, watermark)
            self._changes.clear(bucket)
        slots = {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._by_bucket if b % SLOTS in slots]:  # they shared a slot with one that expired
            self._log(it for order in self._by_bucket[bucket] for it in self.orders.get(order, ())
                      if self.buckets.of(it.time) == bucket)
        for (_, _, time), verdict in self._expected.items():
            if self.buckets.of(time) % SLOTS in slots:
                self._log_verdict(verdict)
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
            self._changes.append(bucket, pack(_VERSION, (np.array([it.row for it in its], ROW).tobytes(), texts, b"")))

    def _log_verdict(self, verdict: np.void) -> None:
        self._changes.append(self.buckets.of(int(verdict["time"])), pack(_VERSION, (b"", b"[]", verdict.tobytes())))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log, the runs of each slot in the order of writing."""
        self._reset()
        latest: dict[tuple, Conversion] = {}  # of two runs of one conversion the later holds
        for run in runs:
            rows, texts, expected = unpack(_VERSION, run)
            for verdict in np.frombuffer(expected, Verdicts.DTYPE):
                self._expect(verdict)
            for row, (event_id, source, terms, settled) in zip(np.frombuffer(rows, ROW), orjson.loads(texts)):
                terms = tuple(None if text is None else intern(text) for text in terms)
                it = Conversion(row.copy(), event_id, source, terms, settled=settled)
                latest[*it.order, it.read] = it
        for it in latest.values():
            self._expected.pop(it.identity, None)
            self._by_bucket[self.buckets.of(it.time)].add(it.order)
            if it.settled:
                continue
            insort(self.orders.setdefault(it.order, []), it, key=lambda c: c.read)
        for known in self.orders.values():
            self._decide(known)
