"""The stage that lets one conversion stand for each order."""

from apache_beam.pvalue import TaggedOutput

from measurement.columnar.deltas import Deltas
from measurement.state.orders import OrdersShard
from measurement.transforms.config import RunConfig
from measurement.transforms.distribute import FACTS, TALLIES, facts_by_shard
from measurement.transforms.keyed import KeyedMachine


class Orders(KeyedMachine):
    """(shard, EventBatch) of conversions that name an order to TALLIES of the ledger and FACTS (shard, Facts)."""

    stages_behind = 2

    def __init__(self, config: RunConfig):
        super().__init__(config.run, "orders")
        self._config = config

    def machine(self, key):
        return OrdersShard(self._config.policy.counting)

    def absorb(self, key, machine, batch):
        counted, facts = machine.absorb(batch)
        ledger = {k: (n,) for k, n in counted.items() if n}
        if ledger:
            yield TaggedOutput(TALLIES, ("ledger", Deltas.tally(ledger)))
        for part in facts_by_shard(facts, self._config):
            yield TaggedOutput(FACTS, part)

    def advance(self, key, machine, watermark):
        machine.advance(watermark)
        return ()
