"""The delivery job: from a source's intake to published hourly totals, credits, rejects and the ledger."""

import apache_beam as beam

from measurement.transforms import coders as _registered  # noqa: F401 (registers the batches' coders)
from measurement.transforms.config import RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import (
    ACTIVITY, EVENTS, FACTS, REJECTS, ROWS, TALLIES, Active, Distribute, Keyed, Known, Rows, Tally,
)
from measurement.transforms.join import ORDERS, Join
from measurement.transforms.orders import Orders
from measurement.transforms.rates import Rates
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import Totals


class Delivery(beam.PTransform):
    """Intake elements in, (table name, rows to append) out."""

    def __init__(self, config: RunConfig):
        super().__init__()
        self._config = config

    def expand(self, intake):
        config = self._config
        taken = intake | "Distribute" >> beam.ParDo(Distribute(config)).with_outputs(EVENTS, ACTIVITY, TALLIES, REJECTS)
        events = typed(taken[EVENTS], Keyed)
        if config.policy.screening.rate.asked:
            rated = typed(taken[ACTIVITY], Active) | "Rates" >> beam.ParDo(Rates(config)).with_output_types(Keyed)
            events = (events, rated) | "Judged" >> beam.Flatten()
        joined = (
            events
            | "Join" >> beam.ParDo(Join(config)).with_outputs(TALLIES, REJECTS, ORDERS, FACTS)
        )
        ordered = typed(joined[ORDERS], Keyed) | "Orders" >> beam.ParDo(Orders(config)).with_outputs(TALLIES, FACTS)
        credited = (
            (typed(joined[FACTS], Known), typed(ordered[FACTS], Known))
            | "Facts" >> beam.Flatten()
            | "Credits" >> beam.ParDo(Credits(config)).with_output_types(Tally)
        )
        rejected = (
            (typed(taken[REJECTS], Rows), typed(joined[REJECTS], Rows))
            | "Refused" >> beam.Flatten()
            | "Rejects" >> beam.ParDo(Rejects(config)).with_outputs(ROWS, TALLIES)
        )
        totals = (
            (*(typed(stage[TALLIES], Tally) for stage in (taken, joined, ordered, rejected)), credited)
            | "Tallies" >> beam.Flatten()
            | "Totals" >> beam.ParDo(Totals(config)).with_output_types(Rows)
        )
        return (typed(rejected[ROWS], Rows), totals) | "Rows" >> beam.Flatten()


def typed(pcollection, hint):
    """The collection with its element type stated, which tagged outputs do not carry and coders are chosen by."""
    pcollection.element_type = hint
    return pcollection
