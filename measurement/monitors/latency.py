"""Latency: how long events took from their receipt until what counts them could be read, by the buckets that the sinks write."""

import math

import numpy as np

from measurement.model.latency import BUCKETS, quantile
from measurement.monitors.sample import Sample, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import span

Counts = dict[tuple[str, int | None], int]  # (sink, upper bound in ms; None: above the last): events


def judge(level: Level, counts: Counts) -> Sample:
    """Good are events in buckets whose bound is at most ``level.at_most``; ``counts`` those that could be read since the last look.
    The value is the bound (s) within which 99 % could."""
    total = sum(counts.values())
    if not total:
        return unknown(level.name, "nothing has become readable since the last look")
    slow = {sink for (sink, bound), n in counts.items() if n and not _in_time(bound, level)}
    good = sum(n for (_, bound), n in counts.items() if _in_time(bound, level))
    merged = np.array([sum(n for (_, b), n in counts.items() if b == bound) for bound in BUCKETS])
    half, most, nearly_all = (quantile(merged, q) for q in (0.5, 0.99, 0.999))
    said = f"of {total:,} events half could be read within {_said(half)}, 99 % within {_said(most)}, 99.9 % within {_said(nearly_all)}"
    holds = good >= level.target * total
    value = None if math.isinf(most) else most / 1_000
    return Sample(level.name, good, total, holds, value, said if holds else f"{said}; slow at {', '.join(sorted(slow))}")


def _in_time(bound: int | None, level: Level) -> bool:
    return bound is not None and bound * 1_000 <= level.at_most


def _said(bound: float) -> str:
    if math.isinf(bound):
        return f"more than {span(BUCKETS[-2] * 1_000)}"
    return f"{bound:g} ms" if bound < 1_000 else span(round(bound * 1_000))
