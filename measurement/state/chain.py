"""The machines that events go through, each as one shard in one process: for readings of what a job has read."""

from collections.abc import Iterator

from measurement.columnar.batch import EventBatch
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Intake
from measurement.columnar.records import Verdicts
from measurement.model.policy import Policy
from measurement.state.join import Effects, JoinShard
from measurement.state.orders import Decided, OrdersShard
from measurement.state.rates import RatesShard


class Chain:
    """Rates, join and orders. ``take`` intakes in order of reading; what was decided comes back as it is decided.

    Whoever follows single events takes the same steps one by one (``rates``, ``judge``, ``absorb``, ``advance``) and looks into
    ``join`` and ``orders`` between them.
    """

    def __init__(self, policy: Policy):
        self.rates = RatesShard(policy.screening.rate, policy.counting.dedup_horizon)
        self.join, self.orders = JoinShard(policy.counting), OrdersShard(policy.counting)

    def take(self, intake: Intake) -> Iterator[Effects | Decided]:
        """What a frame's events decided, then what had waited for its watermark."""
        if intake.activity is not None:
            yield from self.judge(self.rates.absorb(intake.activity))
        yield from self.absorb(intake.batch)
        yield from self.advance(intake.before)

    def judge(self, verdicts: Verdicts) -> Iterator[Effects | Decided]:
        yield from self._of_join(self.join.judge(verdicts))

    def absorb(self, batch: EventBatch) -> Iterator[Effects | Decided]:
        yield from self._of_join(self.join.absorb(batch))

    def advance(self, watermark: int) -> Iterator[Effects]:
        self.rates.advance(watermark)
        self.orders.advance(watermark)
        yield self.join.advance(watermark)
        for machine in (self.rates, self.join, self.orders):
            machine.take_changes()  # nobody keeps a log

    def _of_join(self, effects: Effects) -> Iterator[Effects | Decided]:
        yield effects
        if effects.orders is not None:
            yield self.orders.absorb(effects.orders)
        if effects.judged is not None:
            yield self.orders.judge(effects.judged)


def facts_of(decided: Iterator[Effects | Decided]) -> list[Facts]:
    """What attribution is told of."""
    return [each.facts for each in decided if each.facts is not None]
