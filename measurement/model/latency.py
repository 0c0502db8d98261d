"""Latency, from an event's receipt until what counts it can be read, as counts of events by bucket. Pure; times are µs.

Counts by the same bounds add up over sinks, workers and time, which quantiles do not: these are read from the sums.
"""

import math
from itertools import pairwise

import numpy as np

BOUNDS_MS = (250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000)
BUCKETS = (*BOUNDS_MS, None)  # each bucket's upper bound, which is in it; None: longer than all
RESOLUTION = 100_000  # µs: receipts are kept to the tenth of a second in which they fall
OLDEST = 2 * BOUNDS_MS[-1] * 1_000  # µs: a receipt so long ago is in the last bucket, however much longer ago it was

_BOUNDS = np.array(BOUNDS_MS, np.int64) * 1_000
assert all(a < b for a, b in pairwise(BOUNDS_MS))


def no_receipts() -> np.ndarray:
    """Receipts are (n, 2) int64: tenths of a second since 1970, rising, and how many events were received in each."""
    return np.empty((0, 2), np.int64)


def receipts_of(times: np.ndarray, now: int) -> np.ndarray:
    """Receipts (see no_receipts) of events that were received at ``times`` (µs), as of ``now``.

    Times after ``now`` are taken for now, and those more than OLDEST before it for so old: no bucket tells them apart, and
    so there are never more than 72,001 tenths, whatever clients state.
    """
    if not len(times):
        return no_receipts()
    tenths = np.clip(times, now - OLDEST, now) // RESOLUTION
    first = tenths.min()
    events = np.bincount(tenths - first)
    at = np.flatnonzero(events)
    return np.column_stack([at + first, events[at]])


def merged(parts: list[np.ndarray]) -> np.ndarray:
    """The receipts of all parts."""
    if len(parts) < 2:
        return parts[0] if parts else no_receipts()
    every = np.concatenate(parts)
    tenths, at = np.unique(every[:, 0], return_inverse=True)
    events = np.zeros(len(tenths), np.int64)
    np.add.at(events, at, every[:, 1])
    return np.column_stack([tenths, events])


def waited(receipts: np.ndarray, now: int, since: int | None = None) -> np.ndarray:
    """How many events can be read since ``now`` by how long that took: int64 by BUCKETS. A receipt before ``since`` counts from
    then.

    A wait is up to RESOLUTION too long, never too short, and never negative, as clocks that differ would have it.
    """
    received = receipts[:, 0] * RESOLUTION
    if since is not None:
        received = np.maximum(received, since)
    counts = np.zeros(len(BUCKETS), np.int64)
    np.add.at(counts, np.searchsorted(_BOUNDS, np.maximum(now - received, 0)), receipts[:, 1])
    return counts


def quantile(counts: np.ndarray, q: float) -> float | None:
    """The upper bound (ms) of the bucket in which the ``q`` quantile (of 1) lies, by rank: of n events the ceil(n * q)-th.
    inf where it lies in the last; None of no events."""
    total = int(np.sum(counts))
    if not total:
        return None
    rank = max(0, math.ceil(total * q - 1))  # from 0
    bound = BUCKETS[int(np.searchsorted(np.cumsum(counts), rank, side="right"))]
    return math.inf if bound is None else float(bound)
