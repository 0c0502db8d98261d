"""The stage that finds rates beyond a person's, one machine a shard of users and addresses."""

from measurement.columnar.records import Activity
from measurement.state.rates import RatesShard
from measurement.transforms.config import RunConfig
from measurement.transforms.keyed import KeyedMachine


class Rates(KeyedMachine):
    """(shard, Activity) to (shard of the join, Verdicts)."""

    stages_behind = 4

    def __init__(self, config: RunConfig):
        super().__init__(config.run, "rates")
        self._config = config

    def machine(self, key):
        policy = self._config.policy
        return RatesShard(policy.screening.rate, policy.counting.dedup_horizon)

    def absorb(self, key, machine, activity: Activity):
        verdicts = machine.absorb(activity)
        if len(verdicts):
            for shard, part in verdicts.split(self._config.event_shards):
                yield str(shard), part

    def advance(self, key, machine, watermark):
        machine.advance(watermark)
        return ()
