"""Conversions by order: of one advertiser's conversions of a type and order_id, the earliest stands (contract section 2).

No Beam here. Only the conversion that stands is remembered for an order, since the earliest can be displaced by an
earlier one alone and none of the displaced can return.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import orjson

from measurement.columnar.batch import ROW, EventBatch, pack, unpack
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE, ON_TIME, ORDER
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy import Counting
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 1


@dataclass
class Standing:
    """The conversion that stands for an order."""

    row: np.void  # ROW
    event_id: str
    source: str

    @property
    def rank(self) -> tuple[int, bytes]:
        return int(self.row["time"]), self.event_id.encode()


class OrdersShard:
    """State machine of one shard of orders."""

    def __init__(self, counting: Counting):
        self.counting = counting
        self.buckets = Buckets(counting.dedup_horizon)
        self._reset()
        self._changes = Changes()

    def _reset(self):
        self.standing: dict[tuple[int, int], Standing] = {}  # by order
        self._by_bucket: dict[int, set[tuple[int, int]]] = defaultdict(set)

    def absorb(self, batch: EventBatch) -> Counter:
        """Takes in deduplicated conversions that name an order; ledger changes by (hour, because, source, type, outcome)."""
        ledger: Counter = Counter()
        changed: dict[int, list[Standing]] = defaultdict(list)
        for row in batch.rows:
            new = Standing(row.copy(), batch.labels[row["dims"]], batch.labels[row["source"]])
            watermark = int(row["watermark"])
            order = int(row["parent_hi"]), int(row["parent_lo"])
            old = self.standing.get(order)
            if old is not None and self._gives_way(old, new):
                old = None
            if old is not None and self._gives_way(new, old):
                # Shards of the stage before run apart: this one was read first, and was out of memory for the other.
                ledger[self._key(new, watermark, LATE, _outcome(new))] += 1
                continue
            if old is not None and old.rank < new.rank:
                ledger[self._key(new, watermark, LATE, "duplicate")] += 1
                continue
            if old is not None:
                ledger[self._key(old, watermark, ORDER, _outcome(old))] -= 1
                ledger[self._key(old, watermark, ORDER, "duplicate")] += 1
            ledger[self._key(new, watermark, LATE, _outcome(new))] += 1
            self._stand(order, new)
            changed[self.buckets.of(new.rank[0])].append(new)
        self._log(changed)
        return ledger

    def judge(self, entry: np.void, verdict: int, watermark: int) -> Counter:
        """Sets the verdict on a conversion given by its identity and order; what stands is restated."""
        ledger: Counter = Counter()
        it = self.standing.get((int(entry["parent_hi"]), int(entry["parent_lo"])))
        if it is not None and (it.row["id_hi"], it.row["id_lo"]) == (entry["id_hi"], entry["id_lo"]):
            ledger[self._key(it, watermark, INVALID_TRAFFIC, _outcome(it))] -= 1
            it.row["verdict"] = verdict
            ledger[self._key(it, watermark, INVALID_TRAFFIC, _outcome(it))] += 1
            self._log({self.buckets.of(it.rank[0]): [it]})
        return ledger

    def _stand(self, order: tuple[int, int], new: Standing) -> None:
        self.standing[order] = new
        self._by_bucket[self.buckets.of(new.rank[0])].add(order)

    def _key(self, it: Standing, watermark: int, because_closed: int, outcome: str) -> tuple:
        hour = it.rank[0] // MICROS_PER_HOUR * MICROS_PER_HOUR
        closed = watermark >= hour + MICROS_PER_HOUR + self.counting.allowed_lateness
        return hour, because_closed if closed else ON_TIME, it.source, "conversion", outcome

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return min((self.buckets.expires(b) for b in self._by_bucket), default=None)

    def advance(self, watermark: int) -> None:
        """Forgets the orders that no later conversion can belong to."""
        first = self.buckets.first_kept(watermark)
        expired = [b for b in self._by_bucket if b < first]
        for bucket in expired:
            for order in self._by_bucket.pop(bucket):
                if order in self.standing and self.buckets.of(self.standing[order].rank[0]) == bucket:
                    del self.standing[order]
            self._changes.clear(bucket)
        slots = {bucket % SLOTS for bucket in expired}
        self._log({b: [self.standing[o] for o in orders if o in self.standing]
                   for b, orders in self._by_bucket.items() if b % SLOTS in slots})

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log(self, changed: dict[int, list[Standing]]) -> None:
        for bucket, standing in changed.items():
            texts = orjson.dumps([(s.event_id, s.source) for s in standing])
            self._changes.append(bucket, pack(_VERSION, (np.array([s.row for s in standing], ROW).tobytes(), texts)))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log, the runs of each slot in the order of writing."""
        self._reset()
        for run in runs:
            rows, texts = unpack(_VERSION, run)
            for row, (event_id, source) in zip(np.frombuffer(rows, ROW), orjson.loads(texts)):
                new = Standing(row.copy(), event_id, source)
                order = int(row["parent_hi"]), int(row["parent_lo"])
                old = self.standing.get(order)
                # The later of two runs of one event has its latest verdict; slots are read in any order.
                if old is None or new.rank == old.rank or self._gives_way(old, new) or (
                        new.rank < old.rank and not self._gives_way(new, old)):
                    self._stand(order, new)

    def _gives_way(self, old: Standing, new: Standing) -> bool:
        """Whether the old conversion of an order was out of memory when the new one was read."""
        return old.rank[0] < int(new.row["watermark"]) - self.counting.dedup_horizon


def _outcome(it: Standing) -> str:
    return "invalid_traffic" if it.row["verdict"] else "counted"
