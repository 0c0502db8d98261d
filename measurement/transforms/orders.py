"""The stage that lets one conversion stand for each order."""

from apache_beam.pvalue import TaggedOutput

from measurement.columnar.deltas import tallied
from measurement.columnar.records import Verdicts
from measurement.model.tables import INVALID_TRAFFIC, LEDGER
from measurement.state.orders import OrdersShard
from measurement.transforms.distribute import FACTS, TALLIES, facts_by_shard, tallies_by_shard
from measurement.transforms.keyed import KeyedMachine


class Orders(KeyedMachine):
    """(shard, EventBatch or Verdicts) of conversions that name an order to TALLIES and FACTS (shard, Facts)."""

    stage, stages_behind = "orders", 2

    def machine(self, key):
        return OrdersShard(self._config.policy.counting)

    def absorb(self, key, machine, batch):
        decided = machine.judge(batch) if isinstance(batch, Verdicts) else machine.absorb(batch)
        for table, counted in (LEDGER, decided.ledger), (INVALID_TRAFFIC, decided.invalid):
            if (deltas := tallied(counted)) is not None:
                yield from (TaggedOutput(TALLIES, tally) for tally in tallies_by_shard(table.name, deltas, self._config))
        for part in facts_by_shard(decided.facts, self._config):
            yield TaggedOutput(FACTS, part)
