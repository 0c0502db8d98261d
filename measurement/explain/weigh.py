"""What one event adds to its delivery row: the machine's sums with it, given what was read before it."""

from collections.abc import Mapping, Set

import numpy as np

from measurement.columnar.batch import NO_WATERMARK, EventBatch
from measurement.explain.fate import Fate
from measurement.model.events import COUNTS, IMPRESSION
from measurement.model.policy import Counting
from measurement.state.join import JoinShard

Rated = Mapping[tuple[int, int, int], int]  # verdicts given later, by identity and digest
Orphans = Set[tuple[int, int, int, int]]  # by identity, position and index


def weigh(fate: Fate, counting: Counting, rated: Rated, orphans: Orphans) -> tuple[dict[str, int], dict[str, int]]:
    """(what the event adds in the order of reading, what it would add alone under its impression), without zeros."""
    if fate.copy.row["type"] == IMPRESSION:
        adds = _sums(JoinShard(counting), _as_judged(fate.copy.batch, rated))
        return adds, adds
    if fate.impression is None or fate.reason:
        return {}, {}
    impression, own = (_as_judged(copy.batch, rated) for copy in (fate.impression.copy, fate.copy))
    out = []
    for earlier in (fate.earlier, []):
        shard = JoinShard(counting)
        shard.absorb(impression)
        for batch in earlier:
            shard.absorb(_as_judged(batch, rated, orphans))
        out.append(_sums(shard, own))
    return out[0], out[1]


def _as_judged(batch: EventBatch, rated: Rated, orphans: Orphans = frozenset()) -> EventBatch:
    """The events with their last verdicts, read before anything could be late; the orphans are left out."""
    rows, kept = batch.rows.copy(), []
    rows["watermark"] = NO_WATERMARK
    for i, row in enumerate(rows):
        hi, lo = int(row["id_hi"]), int(row["id_lo"])
        row["verdict"] = row["verdict"] or rated.get((hi, lo, int(row["digest"])), 0)
        if (hi, lo, int(row["position"]), int(row["index"])) not in orphans:
            kept.append(i)
    at = np.array(kept, np.int64)
    return EventBatch(rows[at], batch.dims, batch.payloads.take(at), batch.labels)


def _sums(shard: JoinShard, batch: EventBatch) -> dict[str, int]:
    delivery = shard.absorb(batch).delivery
    sums = np.zeros(len(COUNTS), np.int64) if delivery is None else delivery.counts.sum(axis=0)
    return {name: int(n) for name, n in zip(COUNTS, sums) if n}
