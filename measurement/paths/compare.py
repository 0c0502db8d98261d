"""All models over the same paths, side by side: the rule-based ones of contract section 4 and the data-driven ones."""

from dataclasses import dataclass

import numpy as np

from measurement.model.attribution import MODELS
from measurement.paths.journeys import Journeys, exact_sums
from measurement.rules.attribution import credits
from measurement.rules.paths import markov, shapley

DATA_DRIVEN = ("markov", "shapley", "shapley_rate")
ALL_MODELS = MODELS + DATA_DRIVEN

_PERMUTATIONS = 10_000  # of sampled Shapley values, fewer where the paths are many: a minute or so of one core
_LEAST_PERMUTATIONS = 1_000
_SAMPLED = 1 << 29  # channels of distinct sequences, over all permutations


@dataclass(frozen=True)
class Model:
    """What one model gives each campaign of a comparison, in its order."""

    name: str  # of ALL_MODELS
    credit: tuple[int, ...]  # 10^-9 conversions
    micros: tuple[tuple[int, ...], ...]  # of each currency, of each campaign
    errors: tuple[float, ...] | None = None  # standard error of the credit, in conversions; None: nothing is sampled


@dataclass(frozen=True)
class Comparison:
    """One advertiser's campaigns, those with most last-touch credit first, then by name.

    Over the campaigns each model's credit sums to the conversions that have a touch, and its micros to their value.
    """

    journeys: Journeys
    order: int  # of the Markov chain
    campaigns: tuple[str, ...]
    models: tuple[Model, ...]
    others: int = 0  # campaigns that the last row is the sum of; 0: there is no such row

    @property
    def rows(self) -> int:
        return len(self.campaigns) + (self.others > 0)

    def top(self, count: int) -> "Comparison":
        """The first campaigns, and the sum of all others as one more row behind them if there are any."""
        if len(self.campaigns) <= count:
            return self

        def short(figures):
            return (*figures[:count], sum(figures[count:]))

        # The error of a sum is at most the sum of the errors, however they depend on each other.
        models = tuple(Model(m.name, short(m.credit), tuple(map(short, m.micros)), None if m.errors is None else short(m.errors))
                       for m in self.models)
        return Comparison(self.journeys, self.order, self.campaigns[:count], models, len(self.campaigns) - count)


def compare(journeys: Journeys, order: int = 1) -> Comparison:
    """Every model over one advertiser's paths; ``order`` 1 to 3 is the Markov chain's, ValueError for another.

    The rule-based models credit each conversion by the advertiser's own rule at its time (lookbacks, priority, half-life,
    weights), whichever of them it names. "shapley" has converted paths as its worth, "shapley_rate" the share that converted
    (rules.paths says whose they are). The models are over all conversions; a currency's value is shared by its own effects.
    """
    campaigns = sorted({channel for sequence in journeys.sequences for channel in sequence})
    models = [_ruled(journeys, name, campaigns) for name in MODELS]
    drawn = max(1, sum(len(set(sequence)) for sequence in journeys.sequences))
    permutations = min(_PERMUTATIONS, max(_LEAST_PERMUTATIONS, _SAMPLED // drawn))
    for name, model in (
        ("markov", lambda paths: markov(paths, order)), ("shapley", shapley),
        ("shapley_rate", lambda paths: shapley(paths, "rate", permutations)),
    ):
        found = [model(journeys.paths(i)) for i in range(len(journeys.currencies))]
        errors = found[0].errors if found else np.zeros(0)
        models.append(Model(name, found[0].credit if found else (0,) * len(campaigns), tuple(one.micros for one in found),
                            tuple(errors.tolist()) if errors.any() else None))
    last = models[0].credit
    ranked = sorted(range(len(campaigns)), key=lambda i: (-last[i], campaigns[i]))

    def in_rank(figures):
        return tuple(figures[i] for i in ranked)

    return Comparison(journeys, order, in_rank(campaigns), tuple(
        Model(m.name, in_rank(m.credit), tuple(map(in_rank, m.micros)), None if m.errors is None else in_rank(m.errors))
        for m in models))


def _ruled(journeys: Journeys, name: str, campaigns: list[str]) -> Model:
    of = journeys.credited
    lengths = np.diff(of.starts)
    credit, micros = np.zeros(len(of.ages), np.int64), np.zeros(len(of.ages), np.int64)
    for i, rule in enumerate(journeys.rules):
        own = of.rule == i
        touches = np.repeat(own, lengths)
        starts = np.concatenate(([0], np.cumsum(lengths[own])))
        credit[touches], micros[touches] = credits(name, rule, starts, of.ages[touches], of.value[own])
    place = {campaign: i for i, campaign in enumerate(campaigns)}
    channel = np.array([place[c] for c in journeys.channels], np.int64)[of.channel]
    currency, n = np.repeat(of.currency, lengths), len(campaigns)
    by_currency = exact_sums(currency * n + channel, micros, n * len(journeys.currencies))
    return Model(name, tuple(exact_sums(channel, credit, n)),
                 tuple(tuple(by_currency[i * n : (i + 1) * n]) for i in range(len(journeys.currencies))))

