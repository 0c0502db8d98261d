"""The stage that keeps absolute totals and publishes their revisions."""

import time

from measurement.io.publication import of_revisions
from measurement.model.revisions import tick
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.tables import DELIVERY, TOTALS
from measurement.state.totals import LEDGER_HORIZON, TotalsShard
from measurement.transforms.config import RunConfig
from measurement.transforms.distribute import ipc, now_micros
from measurement.transforms.keyed import END_OF_STREAM, KeyedMachine


class Totals(KeyedMachine):
    """(table or table/shard, Deltas) to (table, rows to append)."""

    def __init__(self, config: RunConfig):
        super().__init__(config.run, "totals")
        self._config = config
        self.flush_after = config.publish_seconds
        self._flushed: dict[str, float] = {}

    def machine(self, key):
        table = TOTALS[key.partition("/")[0]]
        counting = self._config.policy.counting
        # Delivery changes while a follow-up may still come for its hour: a late one, a join horizon behind it.
        delivery = counting.dedup_horizon + counting.join_horizon + MICROS_PER_HOUR
        horizon = delivery if table is DELIVERY else max(delivery, LEDGER_HORIZON)
        return TotalsShard(len(table.texts), len(table.values), counting.allowed_lateness, horizon)

    def absorb(self, key, machine, deltas):
        machine.absorb(deltas)
        if time.monotonic() - self._flushed.setdefault(key, time.monotonic()) >= self.flush_after:
            yield from self.flush(key, machine)

    def advance(self, key, machine, watermark):
        now = now_micros()
        for revisions in machine.advance(watermark, tick(now, self._config.began)):
            yield self._rows(key, revisions, now)
        if watermark == END_OF_STREAM:
            yield from self.flush(key, machine)

    def flush(self, key, machine):
        now = now_micros()
        self._flushed[key] = time.monotonic()
        revisions = machine.flush(tick(now, self._config.began))
        if revisions is not None and len(revisions):
            yield self._rows(key, revisions, now)

    def _rows(self, key, revisions, now):
        table = TOTALS[key.partition("/")[0]]
        rows = of_revisions(table, revisions, self._config.generation, self._config.rule_version, now)
        return table.name, ipc(rows)
