"""Changes of the table ``invalid_traffic``: what each reason left out, under the row that it would have counted in."""

import numpy as np

from measurement.columnar.deltas import INVALID_TRAFFIC, ON_TIME, Deltas, keys_of
from measurement.columnar.labels import named
from measurement.model.events import EVENT_TYPES, INVALID_REASONS

_TEXTS = [*EVENT_TYPES, *INVALID_REASONS]


def deltas(rows: np.ndarray, types: np.ndarray, reasons: np.ndarray, closed: np.ndarray, events: np.ndarray, because_closed: int,
           hours: np.ndarray, codes: np.ndarray, labels: list[str]) -> Deltas | None:
    """The changes by n events; None where there are none. Of each event: its row, type and reason (codes; 0: it is valid),
    whether the row's hour is closed, and 1 or -1. ``hours`` (µs) and ``codes`` are all rows' hours and dimensions."""
    at = np.flatnonzero(reasons > 0)
    packed = ((rows[at].astype(np.int64) * 16 + types[at]) * 8 + reasons[at]) * 2 + closed[at]
    packed, which = np.unique(packed, return_inverse=True)
    sums = np.zeros(len(packed), np.int64)
    np.add.at(sums, which, events[at])
    packed, sums = packed[sums != 0], sums[sums != 0]
    if not len(packed):
        return None
    row, type_, reason, late = packed >> 8, packed >> 4 & 15, packed >> 1 & 7, packed & 1
    texts = len(labels) + np.column_stack([type_, len(EVENT_TYPES) + reason])
    own, used = named(np.column_stack([codes[row], texts]).astype(np.int32), [*labels, *_TEXTS])
    return Deltas(keys_of(hours[row], own, used), hours[row], np.where(late, because_closed, ON_TIME).astype(np.uint8), own,
                  sums[:, None], used)


def of_judged(rows, types, was, now, closed, hours, codes, labels) -> Deltas | None:
    """``deltas`` of events whose reason changed from ``was`` to ``now``."""
    both = [np.concatenate([each, each]) for each in (rows, types)]
    ones = np.ones(len(rows), np.int64)
    return deltas(*both, np.concatenate([was, now]), np.concatenate([closed, closed]), np.concatenate([-ones, ones]),
                  INVALID_TRAFFIC, hours, codes, labels)
