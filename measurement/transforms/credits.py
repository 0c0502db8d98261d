"""The stage that credits conversions to touches, one machine a shard of users."""

from apache_beam.metrics import Metrics

from measurement.columnar.facts import Facts
from measurement.model.tables import ATTRIBUTION, CREDITS
from measurement.state.credits import CreditsShard
from measurement.transforms.config import RunConfig
from measurement.transforms.distribute import tallies_by_shard
from measurement.transforms.keyed import KeyedMachine


class Credits(KeyedMachine):
    """(shard, Facts) to (str, Deltas) of conversion_credits and attribution."""

    stage, stages_behind = "credits", 1

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self._dropped = Metrics.counter("attribution", "touches_beyond_limit")

    def machine(self, key):
        return CreditsShard(self._config.policy.attribution, self._config.policy.counting)

    def absorb(self, key, machine, facts: Facts):
        credited = machine.absorb(facts)
        if credited.dropped:
            self._dropped.inc(credited.dropped)
        for table, deltas in (CREDITS, credited.credits), (ATTRIBUTION, credited.attribution):
            if deltas is not None:
                yield from tallies_by_shard(table.name, deltas, self._config)
