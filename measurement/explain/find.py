"""The first reading: every received copy of an event_id, found by comparing bytes in compiled code."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from measurement.columnar.batch import EventBatch
from measurement.columnar.intake import Intake
from measurement.columnar.judge import REASONS, UNDECODABLE
from measurement.explain.copies import Copy, accepted, refused

MOST = 100  # copies that are explained; a publisher that gives one id to everything has no use for more


@dataclass
class Found:
    """``copies`` in the order of reading. What could not be decoded has no id to be found by: of it only the bytes were searched."""

    copies: list[Copy] = field(default_factory=list)
    more: int = 0  # copies beyond MOST
    events: int = 0
    sources: list[str] = field(default_factory=list)
    unread: int = 0  # pieces that could not be decoded
    suspects: list[str] = field(default_factory=list)  # those of them that hold the id's bytes
    nameless: int = 0  # decoded events without a readable event_id


@njit(cache=True, nogil=True)
def _same(rows, offsets, data, wanted, out):
    """Which events have the id: 1, or 2 where JSON escapes it and its length alone is right."""
    for i in range(len(rows)):
        row = rows[i]
        if row.id_length != len(wanted):
            continue
        if row.id_at < 0:
            out[i] = 2
            continue
        start, same = offsets[i] + row.id_at, True
        for k in range(len(wanted)):
            if data[start + k] != wanted[k]:
                same = False
                break
        if same:
            out[i] = 1


def places(batch: EventBatch, event_id: bytes) -> list[int]:
    """Where in a batch events of this id stand."""
    out, payloads = np.zeros(len(batch.rows), np.uint8), batch.payloads
    _same(batch.rows, payloads.offsets, payloads.data, np.frombuffer(event_id, np.uint8), out)
    for i in np.flatnonzero(out == 2).tolist():
        out[i] = batch.event_ids(np.array([i]))[0] == event_id
    return np.flatnonzero(out).tolist()


def find(intakes: Iterable[Intake], event_id: str) -> Found:
    """Reads everything once. What is kept is the copies and the counts of what was searched."""
    found, wanted, sources = Found(), event_id.encode(), {}
    for intake in intakes:
        batch = intake.batch
        found.events += len(batch.rows) + len(intake.rejects)
        sources.update(dict.fromkeys(batch.labels[code] for code in np.unique(batch.rows["file"]).tolist()))
        activity = None if intake.activity is None else intake.activity.rows
        for i in places(batch, wanted):
            if len(found.copies) < MOST:
                found.copies.append(accepted(batch, i, activity))
            else:
                found.more += 1
        for reject in intake.rejects:
            sources[reject["source"]] = None
            if reject["reason"] == REASONS[UNDECODABLE]:
                found.unread += 1
                if wanted in reject["payload"] and len(found.suspects) < MOST:
                    found.suspects.append(reject["reject_id"])
            elif reject["event_id"] is None:
                found.nameless += 1
            elif reject["event_id"] == event_id:
                if len(found.copies) < MOST:
                    found.copies.append(refused(reject))
                else:
                    found.more += 1
    found.sources = sorted(sources)
    return found
