"""The stage that deduplicates and joins, one machine a shard of impressions."""

from dataclasses import replace

from apache_beam.pvalue import TaggedOutput

from measurement.columnar.batch import ENCODINGS, EventBatch
from measurement.columnar.deltas import tallied
from measurement.columnar.intake import position_text
from measurement.columnar.records import Verdicts
from measurement.columnar.shards import parted, shard_of
from measurement.io import flow
from measurement.model.events import EVENT_TYPES
from measurement.model.latency import receipts_of
from measurement.model.tables import DELIVERY, INVALID_TRAFFIC, LEDGER
from measurement.state.join import DETAILS, Effects, JoinShard, Waiting
from measurement.transforms.distribute import FACTS, REJECTS, TALLIES, facts_by_shard, now_micros, rejects_by_shard, tallies_by_shard
from measurement.transforms.keyed import KeyedMachine

ORDERS = "orders"


class Join(KeyedMachine):
    """(shard, EventBatch or Verdicts) to TALLIES, REJECTS, ORDERS (shard, EventBatch or Verdicts) and FACTS (shard, Facts)."""

    stage, stages_behind = "join", 3

    def machine(self, key):
        return JoinShard(self._config.policy.counting)

    def absorb(self, key, machine, batch: EventBatch | Verdicts):
        if isinstance(batch, Verdicts):
            yield from self._outputs(machine.judge(batch))
            return
        effects = machine.absorb(batch)
        if effects.delivery is not None:
            effects.delivery = replace(effects.delivery, receipts=receipts_of(effects.received, now_micros()))
        yield from self._outputs(effects)
        flow.released(self._config.run, len(batch.rows))

    def advance(self, key, machine, watermark):
        yield from self._outputs(machine.advance(watermark))

    def _outputs(self, effects: Effects):
        config = self._config
        if config.rebuilding is not None:
            self._leave_out(effects)
        for table, deltas in (DELIVERY, effects.delivery), (INVALID_TRAFFIC, effects.invalid), (LEDGER, tallied(effects.ledger)):
            if deltas is not None:
                yield from (TaggedOutput(TALLIES, tally) for tally in tallies_by_shard(table.name, deltas, config))
        for part in rejects_by_shard([_reject(*rejected) for rejected in effects.rejects], config):
            yield TaggedOutput(REJECTS, part)
        for part in facts_by_shard(effects.facts, config):
            yield TaggedOutput(FACTS, part)
        if effects.orders is not None:
            yield from (TaggedOutput(ORDERS, part) for part in _by_order(effects.orders, config.order_shards))
        if effects.judged is not None:
            for shard, part in effects.judged.split_by_order(config.order_shards):
                yield TaggedOutput(ORDERS, (str(shard), part))

    def _leave_out(self, effects: Effects) -> None:
        """Drops outcomes of events before the rebuilt hours, which an earlier generation has entered: those that waited in the
        archive are decided when it has been read."""
        has = self._config.rebuilding.has
        effects.ledger = {key: n for key, n in effects.ledger.items() if has(key[0])}
        effects.rejects = [rejected for rejected in effects.rejects if has(int(rejected[1].row["time"]))]


def _by_order(batch: EventBatch, shards: int):
    for s, at in parted(shard_of(batch.rows["parent_hi"], shards), shards):
        yield str(s), EventBatch(batch.rows[at], batch.dims, batch.payloads.take(at), batch.labels)


def _reject(reason: str, event: Waiting, late: bool) -> dict:
    """A reject (publication.REJECTED) of an event that was accepted first: its id is read from its bytes again."""
    row = event.row
    position = position_text(row["encoding"], row["position"], row["index"])
    return {
        "reject_id": f"{event.file}@{position}", "reason": reason, "detail": DETAILS[reason],
        "event_id": event.event_id, "event_time": int(row["time"]),
        "event_type": EVENT_TYPES[row["type"]], "payload": event.payload, "encoding": ENCODINGS[row["encoding"]],
        "schema_id": event.schema, "source": event.file, "source_position": position, "received_at": int(row["receipt"]),
        "ledger_source": event.source, "late": late,
    }
