"""Data-driven attribution: published examples, brute force on small graphs, and what Shapley's axioms ask."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.rules import paths as module
from measurement.rules.attribution import CREDIT_UNITS
from measurement.rules.paths import Path, markov, shapley, shapley_values

# Bryl, "Marketing Multi-Channel Attribution model with R (part 1: Markov chains concept)", 2016, which introduces the R
# package ChannelAttribution.
BRYL = [Path(("C1", "C2", "C3"), 1, 1_000), Path(("C1",), 0, 0, 1), Path(("C2", "C3"), 0, 0, 1)]
# Puzyrov, "Markov Chain Attribution - Simple Explanation Of Removal Effect", 2019.
PUZYROV = [Path(("google ads",), 2, 20), Path(("mailing",), 1, 10), Path(("google ads", "mailing"), 1, 10),
           Path(("google ads",), 0, 0, 1)]


def test_bryl():
    found = markov(BRYL)
    assert found.channels == ("C1", "C2", "C3")
    assert found.effects == pytest.approx([0.5, 1, 1])
    assert found.credit == (200_000_000, 400_000_000, 400_000_000)
    assert found.micros == (200, 400, 400)


def test_puzyrov():
    """0.8 of the walks convert; 0.2 without Google Ads and 0.4 without mailing."""
    found = markov(PUZYROV)
    assert found.effects == pytest.approx([0.75, 0.5])
    assert found.credit == (2_400_000_000, 1_600_000_000)


def test_higher_orders_remember():
    """C1 > C2 always converts and C3 > C2 never, which only a chain that remembers two channels can tell."""
    paths = [Path(("C1", "C2"), 10, 100), Path(("C3", "C2"), 0, 0, 10)]
    assert markov(paths).effects == pytest.approx([0.5, 1, 0.5])
    for order in 2, 3:
        assert markov(paths, order).effects == pytest.approx([1, 1, 0])
        assert markov(paths, order).credit == (5 * CREDIT_UNITS, 5 * CREDIT_UNITS, 0)


def test_value_has_its_own_effects():
    paths = [Path(("a",), 10, 10), Path(("b",), 10, 990)]
    found = markov(paths)
    assert found.credit == (10 * CREDIT_UNITS, 10 * CREDIT_UNITS)
    assert found.micros == (10, 990)


# --- Markov against brute force ------------------------------------------------------------------------------

def brute_force(paths: list[Path], order: int, without: str | None) -> tuple[float, float]:
    """Chance to convert, and value, of a walk: all walks together, one step after the other, to the last that matters."""
    steps: dict[tuple, Counter] = {}
    for path in paths:
        walks = path.conversions + path.nulls
        state: tuple = ()
        for channel in path.channels:
            after = (state + (channel,))[-order:]
            steps.setdefault(state, Counter())[after] += walks
            state = after
        ends = steps.setdefault(state, Counter())
        ends["conversion"] += path.conversions
        ends["null"] += path.nulls
        ends["value"] += path.value
    here, chance, value = {(): 1.0}, 0.0, 0.0
    for _ in range(20_000):
        there: dict[tuple, float] = {}
        for state, mass in here.items():
            out = steps[state]
            whole = sum(n for to, n in out.items() if to != "value")
            for to, n in out.items():
                if to == "conversion":
                    chance += mass * n / whole
                elif to == "value":
                    value += mass * n / whole
                elif to != "null" and to[-1] != without:
                    there[to] = there.get(to, 0.0) + mass * n / whole
        here = {state: mass for state, mass in there.items() if mass > 1e-18}
        if not here:
            break
    return chance, value


counts = st.integers(0, 5)
some_paths = st.lists(
    st.builds(
        Path, st.lists(st.sampled_from("abcd"), min_size=1, max_size=5).map(tuple), counts, st.integers(0, 1_000), counts)
    .map(lambda p: p if p.conversions else p._replace(value=0)),
    min_size=1, max_size=8,
)


@pytest.mark.parametrize("dense", [0, module.DENSE_STATES])
@given(paths=some_paths, order=st.integers(1, 3))
@settings(max_examples=60)
def test_removal_effects_against_brute_force(dense, paths, order):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DENSE_STATES", dense)
        found = markov(paths, order)
        chain = module._Chain(paths, order)
        of_value = chain.removal_effects(found.channels)[1]
    walked = [p for p in paths if p.conversions + p.nulls]
    whole = brute_force(walked, order, None) if walked else (0.0, 0.0)
    for i, channel in enumerate(found.channels):
        without = brute_force(walked, order, channel) if walked else (0.0, 0.0)
        assert found.effects[i] == pytest.approx(1 - without[0] / whole[0] if whole[0] else 0, abs=1e-9)
        assert of_value[i] == pytest.approx(1 - without[1] / whole[1] if whole[1] else 0, abs=1e-9)
    assert sum(found.credit) == sum(p.conversions for p in paths) * CREDIT_UNITS
    assert sum(found.micros) == sum(p.value for p in paths)


def test_both_solutions_agree_on_a_larger_graph(monkeypatch):
    random = np.random.default_rng(3)
    names = [f"channel-{i}" for i in range(9)]
    paths = [Path(tuple(names[i] for i in random.zipf(1.5, random.integers(1, 12)) % 9), int(random.integers(0, 3)),
                  0, int(random.integers(0, 20))) for _ in range(400)]
    for order in 1, 2, 3:
        dense = markov(paths, order)
        monkeypatch.setattr(module, "DENSE_STATES", 0)
        iterated = markov(paths, order)
        monkeypatch.undo()
        assert dense.effects == pytest.approx(iterated.effects, abs=1e-10)
        assert sum(dense.credit) == sum(iterated.credit) == sum(p.conversions for p in paths) * CREDIT_UNITS


def test_markov_refuses():
    for order in 0, 4, 1.5:
        with pytest.raises(ValueError, match="1 to 3 are"):
            markov(BRYL, order)
    with pytest.raises(ValueError, match="at least one channel"):
        markov([Path((), 1, 0)])
    with pytest.raises(ValueError, match="must not be negative"):
        markov([Path(("a",), 1, -1)])
    with pytest.raises(ValueError, match="value without a conversion"):
        markov([Path(("a",), 0, 1)])


@pytest.mark.parametrize("model", [markov, shapley, lambda paths: shapley(paths, "rate")])
def test_nothing_converted(model):
    assert model([]).credit == ()
    found = model([Path(("a", "b"), 0, 0, 9)])
    assert found.credit == found.micros == (0, 0)


# --- Shapley -------------------------------------------------------------------------------------------------

def game(worth) -> np.ndarray:
    """A game of frozensets as an array by coalition; ``worth`` is called with sets of players from 0."""
    players, of = worth
    return np.array([float(of({i for i in range(players) if bits >> i & 1})) for bits in range(1 << players)])


def test_glove_game():
    """The textbook's: players 0 and 1 have a left glove each, player 2 the only right one; a pair is worth 1."""
    assert shapley_values(game((3, lambda s: 2 in s and len(s) > 1))) == pytest.approx([1 / 6, 1 / 6, 2 / 3])


def test_airport_game():
    """Littlechild and Owen, 1973: a runway for the largest that lands; each piece is paid evenly by those who need it."""
    costs = [8, 11, 13, 18]
    found = shapley_values(game((4, lambda s: max((costs[i] for i in s), default=0))))
    assert found == pytest.approx([2, 3, 4, 9])


def test_weighted_voting():
    """Shapley and Shubik, 1954: a majority of 51 of shares 50, 49 and 1 gives 2/3, 1/6 and 1/6."""
    shares = [50, 49, 1]
    assert shapley_values(game((3, lambda s: sum(shares[i] for i in s) >= 51))) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(-50, 50), min_size=(1 << n) - 1, max_size=(1 << n) - 1)))
def test_values_against_all_orders(worths):
    worth = np.array([0, *worths], float)
    n = len(worth).bit_length() - 1
    sums, orders = [Fraction(0)] * n, list(itertools.permutations(range(n)))
    for order in orders:
        coalition = 0
        for player in order:
            sums[player] += Fraction(worth[coalition | 1 << player]) - Fraction(worth[coalition])
            coalition |= 1 << player
    assert shapley_values(worth) == pytest.approx([float(s / len(orders)) for s in sums], abs=1e-9)


def rates(paths: list[Path]) -> np.ndarray:
    """The worth "rate" by coalition of the sorted channels, from its definition."""
    channels = sorted({c for p in paths for c in p.channels})

    def worth(coalition: set[int]) -> Fraction:
        inside = [p for p in paths if set(p.channels) <= {channels[i] for i in coalition}]
        walks = sum(p.conversions + p.nulls for p in inside)
        return Fraction(sum(p.conversions for p in inside), walks) if walks else Fraction(0)

    return game((len(channels), worth))


@given(some_paths)
def test_rate_by_its_definition(paths):
    found = shapley(paths, "rate")
    assert found.effects == pytest.approx(shapley_values(rates(paths)), abs=1e-12)
    assert sum(found.credit) == sum(p.conversions for p in paths) * CREDIT_UNITS
    assert sum(found.micros) == sum(p.value for p in paths)


@given(some_paths)
def test_the_simplified_formula_is_shapleys(paths):
    """Zhao et al. 2018 against the definition: conversions of paths inside the coalition."""
    channels = sorted({c for p in paths for c in p.channels})
    found = shapley(paths)
    inside = game((len(channels), lambda s: sum(
        p.conversions for p in paths if set(p.channels) <= {channels[i] for i in s})))
    assert found.effects == pytest.approx(shapley_values(inside), abs=1e-9)
    assert sum(found.credit) == sum(p.conversions for p in paths) * CREDIT_UNITS  # efficiency
    assert sum(found.micros) == sum(p.value for p in paths)


def test_symmetric_channels_get_the_same():
    paths = [Path(("a", "c"), 5, 50, 3), Path(("b", "c"), 5, 50, 3), Path(("a", "b"), 2, 20, 1), Path(("c",), 0, 0, 40)]
    for worth in module.WORTHS:
        found = shapley(paths, worth)
        assert found.effects[0] == pytest.approx(found.effects[1])
        assert abs(found.credit[0] - found.credit[1]) <= 1


def test_a_channel_that_adds_nothing_gets_nothing():
    """Null player: paths with "idle" convert as often as those without it, whatever else is in them."""
    paths = [Path(("a",), 10, 100, 10), Path(("a", "idle"), 10, 100, 10), Path(("idle",), 0, 0, 0)]
    found = shapley(paths, "rate")
    assert found.channels == ("a", "idle")
    assert found.effects == pytest.approx([0.5, 0], abs=1e-15)
    assert found.credit == (20 * CREDIT_UNITS, 0)


def test_a_channel_that_lowers_the_rate_is_charged():
    found = shapley([Path(("a",), 10, 10, 0), Path(("a", "b"), 1, 1, 9), Path(("b",), 0, 0, 10)], "rate")
    assert found.effects[1] < 0 and found.credit[1] < 0
    assert sum(found.credit) == 11 * CREDIT_UNITS


def many_channels(n: int, paths: int = 300) -> list[Path]:
    random = np.random.default_rng(9)
    made = []
    for _ in range(paths):
        channels = tuple(f"c{i:02}" for i in random.integers(0, n, random.integers(1, 6)))
        converted, price, nulls = (int(random.integers(0, most)) for most in (4, 1_000, 30))
        made.append(Path(channels, converted, converted * price, nulls))
    return made


def test_sampling_is_as_near_as_it_says(monkeypatch):
    paths = many_channels(10)
    exact = shapley(paths, "rate")
    monkeypatch.setattr(module, "EXACT_CHANNELS", 9)
    found = shapley(paths, "rate", permutations=4_000, seed=1)
    off = (np.array(found.credit) - np.array(exact.credit)) / CREDIT_UNITS / found.errors
    assert np.all(found.errors > 0) and np.all(np.abs(off) < 4)
    assert 0.2 < np.mean(off**2) < 3  # standard errors, neither too modest nor too proud
    more = shapley(paths, "rate", permutations=16_000, seed=1)
    assert more.errors == pytest.approx(found.errors / 2, rel=0.1)
    assert sum(found.credit) == sum(exact.credit) and sum(found.micros) == sum(exact.micros)


def test_sampling_is_seeded_and_batched_alike(monkeypatch):
    paths = many_channels(20)
    first, again, other = (shapley(paths, "rate", permutations=500, seed=seed) for seed in (1, 1, 2))
    assert first.credit == again.credit != other.credit
    monkeypatch.setattr(module, "_BATCH", 1_000)
    small = shapley(paths, "rate", permutations=500, seed=1)
    assert small.effects == pytest.approx(first.effects, rel=1e-9)


def test_shapley_refuses():
    with pytest.raises(ValueError, match="'clicks' is no worth"):
        shapley(BRYL, "clicks")
    with pytest.raises(ValueError, match="at least 2 permutations"):
        shapley(BRYL, "rate", permutations=1)
    with pytest.raises(ValueError, match="at least one channel"):
        shapley([Path((), 1, 0)])
    with pytest.raises(ValueError, match="2\\^n coalitions"):
        shapley_values(np.zeros(3))
