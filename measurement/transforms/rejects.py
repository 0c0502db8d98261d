"""The stage that lets each reject stand once, however often its message is delivered."""

from collections import Counter

import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from measurement.columnar.deltas import LATE, ON_TIME, tallied
from measurement.io.publication import ipc, of_rejects
from measurement.model.events import MICROS_PER_HOUR
from measurement.state.rejects import RejectsShard
from measurement.transforms.distribute import ROWS, TALLIES, now_micros
from measurement.transforms.keyed import KeyedMachine


class Rejects(KeyedMachine):
    """(shard, rejects as an Arrow stream) to ROWS of the new ones and, for the others, a change of the ledger (TALLIES)."""

    stage, stages_behind = "rejects", 1

    def machine(self, key):
        return RejectsShard()

    def absorb(self, key, machine, rows):
        rejects = pa.ipc.open_stream(rows).read_all()
        # A publisher may state any receipt; the transport delivers again for so long from now.
        received = np.maximum(rejects["received_at"].cast(pa.int64()).to_numpy(), now_micros())
        first = machine.absorb(rejects["reject_id"].to_pylist(), received)
        if first.any():
            new = of_rejects(rejects.filter(pa.array(first)), self._config.generation, now_micros())
            yield TaggedOutput(ROWS, ("rejects", ipc(new)))
        if not first.all():
            again = rejects.filter(pa.array(~first))
            yield TaggedOutput(TALLIES, ("ledger", tallied(_as_duplicates(again))))


def _as_duplicates(again: pa.Table) -> Counter:
    """Ledger changes of rejects that were entered as such before: each is a duplicate."""
    times = again["event_time"].cast(pa.int64()).to_pylist()
    changes = Counter()
    for time, late, source, event_type, reason in zip(
            times, *(again[c].to_pylist() for c in ("late", "ledger_source", "event_type", "reason"))):
        hour = None if time is None else time // MICROS_PER_HOUR * MICROS_PER_HOUR
        key = hour, LATE if late else ON_TIME, source, event_type
        changes[*key, reason] -= 1
        changes[*key, "duplicate"] += 1
    return changes
