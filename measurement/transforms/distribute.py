"""From what a source took in to keyed batches: events by shard, tallies by table, rejects by shard."""

import time
from zlib import crc32

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Intake
from measurement.columnar.records import Activity
from measurement.io.publication import REJECTED, ipc
from measurement.model.tables import CREDITS, DELIVERY, INVALID_TRAFFIC
from measurement.transforms.config import RunConfig



class Judged:
    """What the keyed stages of events take: an EventBatch, or Verdicts on events of earlier or later ones."""


EVENTS, ACTIVITY, TALLIES, ROWS, REJECTS, FACTS = "events", "activity", "tallies", "rows", "rejects", "facts"
Keyed = beam.typehints.KV[str, Judged]
Active = beam.typehints.KV[str, Activity]
Tally = beam.typehints.KV[str, Deltas]
Known = beam.typehints.KV[str, Facts]
Rows = beam.typehints.KV[str, bytes]  # a table's name and rows to append to it, as an Arrow stream


SPLIT = frozenset({DELIVERY.name, CREDITS.name, INVALID_TRAFFIC.name})  # the tables whose totals are kept in shards


def now_micros() -> int:
    return time.time_ns() // 1_000


def rejects_by_shard(rejects: list[dict], config: RunConfig) -> list[Rows]:
    """Rejects (of publication.REJECTED), keyed by the shard that knows their ids."""
    shards: dict[int, list[dict]] = {}
    for reject in rejects:
        shards.setdefault(crc32(reject["reject_id"].encode()) % config.reject_shards, []).append(reject)
    return [(str(shard), ipc(pa.Table.from_pylist(some, REJECTED))) for shard, some in sorted(shards.items())]


def tallies_by_shard(table: str, deltas: Deltas, config: RunConfig) -> list[Tally]:
    """A table's changes keyed by the shard of its totals; those of many rows are split."""
    if table not in SPLIT:
        return [(table, deltas)]
    return [(f"{table}/{shard}", part) for shard, part in deltas.split(config.delivery_shards)]


def facts_by_shard(facts: Facts | None, config: RunConfig) -> list[Known]:
    """Facts keyed by the shard of their users."""
    return [] if facts is None else [(str(shard), part) for shard, part in facts.split(config.user_shards)]


class Distribute(beam.DoFn):
    """Intake to EVENTS (str, EventBatch), ACTIVITY (str, Activity), TALLIES (str, Deltas) and REJECTS (str, bytes)."""

    def __init__(self, config: RunConfig):
        self._config = config

    def process(self, intake: Intake):
        for shard, batch in intake.batch.split(self._config.event_shards):
            yield TaggedOutput(EVENTS, (str(shard), batch))
        if intake.activity is not None:
            for shard, part in intake.activity.split(self._config.rate_shards):
                yield TaggedOutput(ACTIVITY, (str(shard), part))
        for table, deltas in intake.tallies.items():
            for tally in tallies_by_shard(table, deltas, self._config):
                yield TaggedOutput(TALLIES, tally)
        for part in rejects_by_shard(intake.rejects, self._config):
            yield TaggedOutput(REJECTS, part)
