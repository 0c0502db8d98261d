"""Data-driven attribution over stored paths: what channels are worth by how converting and other paths differ.

A path is a sequence of channels with how often it was walked: conversions, their value in micros, and nulls, the walks
that ended without one. Each model ends in credits that sum to the conversions, and micros that sum to the value.

*Markov* (`markov`). Anderl, Becker, von Wangenheim, Schumann, "Mapping the customer journey: Lessons learned from
graph-based online attribution modeling", International Journal of Research in Marketing 33 (2016). Paths are walks of an
absorbing chain from start to conversion or null, a state being the last k channels (fewer at the beginning). A channel's
removal effect is the share of conversions that is lost when each step to it leads to null instead; credits are in
proportion to the removal effects. The chain's linear system is solved; nothing is simulated.

*Shapley* (`shapley`). Shapley, "A value for n-person games" (1953): the mean of what a channel adds to the worth of those
before it, over all orders of the channels. Here the worth of a coalition is, of paths with no channel outside it,
  conversions   how many converted. Zhao, Mahboobi, Bagheri, "Shapley Value Methods for Attribution Modeling in Online
                Advertising" (2018, arXiv:1804.05327) show that then each conversion is shared evenly by the distinct
                channels of its path, which is exact for any number of channels; nulls do not count.
  rate          which share converted (Dalessandro, Perlich, Stitelman, Provost, "Causally Motivated Attribution for Online
                Advertising", 2012, where nulls count). A channel that lowers the rate has a negative credit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import factorial, lcm
from typing import NamedTuple

import numpy as np

from measurement.rules.attribution import CREDIT_UNITS, apportion

MAX_ORDER = 3  # of the Markov chain
EXACT_CHANNELS = 12  # more are sampled
DENSE_STATES = 2_048  # more are solved by iteration: 32 MiB of matrix, a second of one core
WORTHS = ("conversions", "rate")

_GAP = 1e-12  # between the bounds of an iterated solution, of what all channels together promise
_BATCH = 1 << 22  # numbers at a time in the sampling


class Path(NamedTuple):
    """A sequence of channels and how often it was walked to which end."""

    channels: tuple[str, ...]
    conversions: int
    value: int  # micros of all its conversions
    nulls: int = 0


@dataclass(frozen=True)
class Credited:
    """What a model says of each channel; the channels are sorted."""

    channels: tuple[str, ...]
    effects: np.ndarray  # float64 (n,): removal effect, or Shapley value of the worth
    credit: tuple[int, ...]  # 10^-9 conversions, summing to exactly all conversions
    micros: tuple[int, ...]  # summing to exactly the value
    errors: np.ndarray  # float64 (n,): standard error of the credit, in conversions; 0 where nothing is sampled


def markov(paths: Iterable[Path], order: int = 1) -> Credited:
    """Credits by removal effect in a chain of that order, 1 to 3. ValueError for another, or a path that cannot be."""
    if order not in range(1, MAX_ORDER + 1):
        raise ValueError(f"a Markov chain of order {order!r} is not made here: 1 to {MAX_ORDER} are")
    paths = _checked(paths)
    channels = _channels(paths)
    chain = _Chain(paths, order)
    effects, effects_of_value = chain.removal_effects(channels)
    return _credited(channels, paths, effects, effects_of_value, np.zeros(len(channels)))


def shapley(paths: Iterable[Path], worth: str = "conversions", permutations: int = 10_000, seed: int = 0) -> Credited:
    """Credits by Shapley value.

    With ``worth`` "rate" and more than EXACT_CHANNELS channels the mean is over so many seeded random orders, and ``errors``
    says how far it may be off (one standard error). ValueError for another worth, fewer than 2 permutations, or a path that
    cannot be.
    """
    if worth not in WORTHS:
        raise ValueError(f"{worth!r} is no worth; known: {', '.join(WORTHS)}")
    if permutations < 2:
        raise ValueError("a standard error needs at least 2 permutations")
    paths = _checked(paths)
    channels = _channels(paths)
    if worth == "conversions":
        effects, effects_of_value = (_evenly(paths, channels, counted) for counted in ("conversions", "value"))
        return _credited(channels, paths, effects, effects_of_value, np.zeros(len(channels)))
    groups = _by_set(paths, channels)
    if len(channels) <= EXACT_CHANNELS:
        conversions, value, walks = _within(groups, len(channels))
        errors = np.zeros(len(channels))
        effects, effects_of_value = (shapley_values(_ratio(part, walks)) for part in (conversions, value))
    else:
        effects, effects_of_value, errors = _sampled(groups, len(channels), permutations, np.random.default_rng(seed))
    # The rates sum to the rate of all paths, so that the number of paths scales them to conversions.
    return _credited(channels, paths, effects, effects_of_value, errors * sum(p.conversions + p.nulls for p in paths))


def shapley_values(worth: np.ndarray) -> np.ndarray:
    """The Shapley values (n,) of a game: ``worth`` (2^n,) by coalition, player i being bit i; O(n 2^n)."""
    n = len(worth).bit_length() - 1
    if len(worth) != 1 << n:
        raise ValueError(f"a game of n players has 2^n coalitions, not {len(worth)}")
    sizes = np.zeros(1 << n, np.int64)
    for i in range(n):
        sizes[1 << i : 2 << i] = sizes[: 1 << i] + 1
    # Of the n! orders, |S|! (n - |S| - 1)! have exactly the players of S before player i.
    shares = np.array([float(Fraction(factorial(s) * factorial(n - s - 1), factorial(n))) for s in range(n)])
    coalitions = np.arange(1 << n)
    values = np.empty(n)
    for i in range(n):
        without = coalitions[coalitions >> i & 1 == 0]
        values[i] = shares[sizes[without]] @ (worth[without | 1 << i] - worth[without])
    return values


def _checked(paths: Iterable[Path]) -> list[Path]:
    paths = [Path(*path) for path in paths]
    for path in paths:
        if not path.channels:
            raise ValueError("a path has at least one channel: what converted without any is nobody's credit")
        if min(path.conversions, path.value, path.nulls) < 0:
            raise ValueError(f"conversions, value and nulls must not be negative: {path}")
        if path.value and not path.conversions:
            raise ValueError(f"value without a conversion: {path}")
    return paths


def _channels(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(sorted({channel for path in paths for channel in path.channels}))


def _credited(channels, paths: Sequence[Path], effects, effects_of_value, errors) -> Credited:
    credit = _shared(sum(p.conversions for p in paths) * CREDIT_UNITS, effects)
    micros = _shared(sum(p.value for p in paths), effects_of_value)
    return Credited(channels, np.array(effects, float), credit, micros, errors)


def _shared(total: int, effects: Sequence) -> tuple[int, ...]:
    """A total in proportion to the effects; ties go by the channels' order. Of floats 12 decimals of each share count, so
    that neither the order of a sum nor the processor's linear algebra shows in the credits."""
    whole = sum(effects)
    if whole <= 0:  # nothing converted, nothing to share
        return (0,) * len(effects)
    exact = [e / whole if isinstance(e, Fraction) else Fraction(round(float(e / whole), 12)) for e in effects]
    scale = lcm(*(f.denominator for f in exact))
    return tuple(apportion(total, [int(f * scale) for f in exact]))


# -- Markov -----------------------------------------------------------------------------------------------------------

class _Chain:
    """The absorbing chain of paths: m states, each the last channels of a walk, the first of them the start."""

    def __init__(self, paths: Sequence[Path], order: int):
        self.states: dict[tuple[str, ...], int] = {(): 0}
        steps: Counter[tuple[int, int]] = Counter()
        left: Counter[int] = Counter()  # walks by the state that they went on or ended from
        converted: Counter[int] = Counter()
        valued: Counter[int] = Counter()
        for path in paths:
            walks = path.conversions + path.nulls
            if not walks:
                continue
            state: tuple[str, ...] = ()
            for channel in path.channels:
                before, state = self.states[state], (*state, channel)[-order:]
                after = self.states.setdefault(state, len(self.states))
                steps[before, after] += walks
                left[before] += walks
            end = self.states[state]
            left[end] += walks
            converted[end] += path.conversions
            valued[end] += path.value
        self.rows, self.columns = (np.array([step[side] for step in steps], np.int64) for side in (0, 1))
        self.shares = np.array([count / left[row] for (row, _), count in steps.items()], float)
        # What a walk gets by ending from a state, for conversions (0) and value (1).
        self.gains = np.zeros((len(self.states), 2))
        for i in range(len(self.states)):
            if left[i]:
                self.gains[i] = converted[i] / left[i], valued[i] / left[i]
        # No state can promise more than the best end of a walk.
        a_conversion = [valued[i] / n for i, n in converted.items() if n]
        self.most = np.array([1.0 if a_conversion else 0.0, max(a_conversion, default=0.0)])

    def removal_effects(self, channels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """For conversions and for value: of what the chain promises from its start, the share lost without each channel."""
        last = [state[-1] if state else None for state in self.states]
        of = defaultdict(list)
        for i, channel in enumerate(last):
            of[channel].append(i)
        removed = [np.array(of[channel], np.int64) for channel in channels]
        whole, without = self._dense(removed) if len(last) <= DENSE_STATES else self._iterated(removed)
        lost = np.zeros((len(channels), 2))
        some = whole > 0
        lost[:, some] = np.clip(1 - without[:, some] / whole[some], 0, 1)  # rounding may leave a hair outside
        return lost[:, 0], lost[:, 1]

    def _dense(self, removed: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the start promises, (2,), and what it does without each channel, (n, 2)."""
        m = len(self.states)
        system = np.eye(m)
        np.subtract.at(system, (self.rows, self.columns), self.shares)
        promises = np.linalg.solve(system, self.gains)
        visits = np.linalg.inv(system)  # expected, of each state by each
        without = np.empty((len(removed), 2))
        for i, states in enumerate(removed):
            if not len(states):
                without[i] = promises[0]
                continue
            # Visits are first arrivals at the channel times what follows from there; the first arrivals are what is lost.
            arrivals = np.linalg.solve(visits[np.ix_(states, states)].T, visits[0, states])
            without[i] = promises[0] - arrivals @ promises[states]
        return promises[0], without

    def _iterated(self, removed: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same where the matrix would be too large: promises bounded from below and above, step by step, until the
        bounds meet. Every walk ends, so they do."""
        by_row = np.argsort(self.rows, kind="stable")
        rows, columns, shares = self.rows[by_row], self.columns[by_row], self.shares[by_row]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))

        def promised(states: np.ndarray, whole: np.ndarray | None) -> np.ndarray:
            stands = np.ones((len(self.states), 1))
            stands[states] = 0
            bounds = np.hstack([np.zeros_like(self.gains), np.ones_like(self.gains) * self.most * stands])
            gains = np.hstack([self.gains, self.gains]) * stands
            while np.any(bounds[0, 2:] - bounds[0, :2] > _GAP * (bounds[0, :2] if whole is None else whole)):
                after = gains.copy()
                onward = np.add.reduceat(shares[:, None] * bounds[columns], starts, axis=0)
                after[rows[starts]] += onward * stands[rows[starts]]
                if np.array_equal(after, bounds):  # as near as float64 goes
                    break
                bounds = after
            return bounds[0, :2]

        whole = promised(np.empty(0, np.int64), None)
        return whole, np.array([promised(states, whole) for states in removed])


# -- Shapley ----------------------------------------------------------------------------------------------------------

def _evenly(paths: Sequence[Path], channels: Sequence[str], counted: str) -> list[Fraction]:
    """The simplified formula of Zhao et al.: what each path counts, shared evenly by its distinct channels."""
    by_size: dict[str, Counter[int]] = {channel: Counter() for channel in channels}
    for path in paths:
        distinct = set(path.channels)
        for channel in distinct:
            by_size[channel][len(distinct)] += getattr(path, counted)
    return [sum((Fraction(n, size) for size, n in by_size[channel].items()), Fraction(0)) for channel in channels]


def _by_set(paths: Sequence[Path], channels: Sequence[str]) -> dict[tuple[int, ...], np.ndarray]:
    """Conversions, value and walks by the set of channels."""
    place = {channel: i for i, channel in enumerate(channels)}
    groups: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(3))
    for path in paths:
        group = tuple(sorted({place[channel] for channel in path.channels}))
        groups[group] += path.conversions, path.value, path.conversions + path.nulls
    return dict(groups)


def _within(groups: dict[tuple[int, ...], np.ndarray], n: int) -> np.ndarray:
    """Float64 (3, 2^n): conversions, value and walks of the paths inside each coalition, summed over subsets bit by bit."""
    sums = np.zeros((3, 1 << n))
    for group, counts in groups.items():
        sums[:, sum(1 << i for i in group)] = counts
    for i in range(n):
        halves = sums.reshape(3, -1, 2, 1 << i)
        halves[:, :, 1] += halves[:, :, 0]
    return sums


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """A coalition in which nobody walked is worth nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _sampled(groups, n: int, permutations: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapley values of both rates over random orders, and the standard error of the first.

    In an order a path is inside the coalition from its last channel on, so that one running sum has all of the order's
    coalitions.
    """
    counts = np.array(list(groups.values())).T
    members = np.array([i for group in groups for i in group], np.int64)
    begin = np.cumsum([0, *(len(group) for group in groups)])[:-1]
    sums, squares = np.zeros((2, n)), np.zeros(n)
    batch = max(1, _BATCH // max(len(members), n))
    for done in range(0, permutations, batch):
        orders = rng.permuted(np.tile(np.arange(n), (min(batch, permutations - done), 1)), axis=1)
        b = len(orders)
        place = np.argsort(orders, axis=1)
        complete = np.maximum.reduceat(place[:, members], begin, axis=1) + n * np.arange(b)[:, None]
        conversions, value, walks = (
            np.bincount(complete.ravel(), np.tile(counted, b), b * n).reshape(b, n).cumsum(axis=1) for counted in counts
        )
        for i, part in enumerate((conversions, value)):
            added = np.take_along_axis(np.diff(_ratio(part, walks), axis=1, prepend=0.0), place, axis=1)
            sums[i] += added.sum(axis=0)
            if i == 0:
                squares += (added**2).sum(axis=0)
    means = sums / permutations
    variance = np.maximum(squares / permutations - means[0] ** 2, 0) * permutations / (permutations - 1)
    return means[0], means[1], np.sqrt(variance / permutations)
