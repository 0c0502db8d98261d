"""The stage that lets one conversion stand for each order."""

from measurement.columnar.deltas import Deltas
from measurement.state.orders import OrdersShard
from measurement.transforms.config import RunConfig
from measurement.transforms.keyed import KeyedMachine


class Orders(KeyedMachine):
    """(shard, EventBatch) of conversions that name an order to (str, Deltas) of the ledger."""

    stages_behind = 1

    def __init__(self, config: RunConfig):
        super().__init__(config.run, "orders")
        self._config = config

    def machine(self, key):
        return OrdersShard(self._config.policy.counting)

    def absorb(self, key, machine, batch):
        ledger = {k: (n,) for k, n in machine.absorb(batch).items() if n}
        if ledger:
            yield "ledger", Deltas.tally("ledger", ledger)

    def advance(self, key, machine, watermark):
        machine.advance(watermark)
        return ()
