"""The stage that finds rates beyond a person's, one machine a shard of users and addresses."""

from measurement.columnar.records import Activity
from measurement.state.rates import RatesShard
from measurement.transforms.keyed import KeyedMachine


class Rates(KeyedMachine):
    """(shard, Activity) to (shard of the join, Verdicts)."""

    stage, stages_behind = "rates", 4

    def machine(self, key):
        policy = self._config.policy
        return RatesShard(policy.screening.rate, policy.counting.dedup_horizon)

    def absorb(self, key, machine, activity: Activity):
        verdicts = machine.absorb(activity)
        if len(verdicts):
            for shard, part in verdicts.split(self._config.event_shards):
                yield str(shard), part
