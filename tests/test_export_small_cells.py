"""That no figure of fewer than k conversions can be computed from exports, whatever exports of one k there are.

Each conversion figure that was ever published, by cell, model and revision, is an element with a bit of its own as its value. So the
value of a row tells which elements it sums. Elements that no row tells apart are an atom: a sum or difference of rows has all of
an atom or none of it. Each atom must have k conversions.
"""

import random
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal

import pytest
from exported import CLOSED, D, DAY, HOUR, Made, delivered, earned, restated, whole_days
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement.exports.request import Format, Grain, Request
from measurement.exports.rows import shaped
from measurement.exports.small_cells import DAY as DAY_MICROS
from measurement.exports.small_cells import OTHER, Entry, by_period, leaves, periods
from measurement.exports.source import local
from measurement.exports.told import month
from measurement.model.tables import ATTRIBUTION

MODELS = "last_touch", "linear"


class Universe:
    """Entries of one period with the elements that they are made of."""

    def __init__(self, dice: random.Random, changes: int):
        self.weights: list[Decimal] = []
        self.models: list[str] = []
        self._cells: dict[tuple, tuple[Decimal, int]] = {}
        self.entries = []
        for _ in range(dice.randint(1, 14)):
            path = self._path(dice)
            for model in MODELS[: dice.randint(1, 2)]:
                if (path, model) not in self._cells:
                    self._publish(path, model, Decimal(dice.choice([1, 1, 2, 3, 5, 9])) / dice.choice([1, 1, 2]), 0)
        for n in range(changes):
            path, model = dice.choice([*self._cells, (self._path(dice), dice.choice(MODELS))])
            had = self._cells.get((path, model), (Decimal(0), 0))[0]
            self._publish(path, model, max(-had, Decimal(dice.choice([-9, -3, -1, 1, 1, 2, 6, 12]))), n + 1)

    def _path(self, dice):
        touch = (f"cr{dice.randint(1, 2)}", None, "click")
        return ((f"c{dice.randint(1, 3)}",), (dice.choice(["EUR", None]),), (f"l{dice.randint(1, 2)}",), touch, ("buy",),
                (dice.randint(0, 2) * DAY_MICROS // 24,))

    def _publish(self, path, model, by: Decimal, at: int):
        had, tags = self._cells.get((path, model), (Decimal(0), 0))
        self._cells[path, model] = had + by, tags | 1 << len(self.weights)
        self.weights.append(by)
        self.models.append(model)
        self.entries.append(Entry(path, model, *self._cells[path, model], revision=at, published=at, base=at == 0))

    def exports(self, k: int):
        """The told values of every file that could be made: at each time, by hour and by day."""
        if not periods([(0, self.base())], k):
            return
        for until in sorted({e.published for e in self.entries}):
            found = leaves(0, DAY_MICROS, [e for e in self.entries if e.published <= until], k)
            for some in (found, by_period(found, 0, DAY_MICROS)):
                yield from (told for leaf in some if not leaf.hidden for told in leaf.told.items())

    def base(self) -> dict[str, Decimal]:
        sums = defaultdict(Decimal)
        for entry in self.entries:
            if entry.base:
                sums[entry.model] += entry.conversions
        return sums


def small_atoms(weights, models, told_values, k) -> list:
    """Sums of atoms, by model, of fewer than k conversions."""
    patterns = defaultdict(lambda: defaultdict(Decimal))
    values = sorted(set(told_values))
    for at, (weight, model) in enumerate(zip(weights, models)):
        pattern = tuple(value >> at & 1 for value in values)
        if any(pattern):
            patterns[pattern][model] += weight
    return [n for sums in patterns.values() for n in sums.values() if 0 < abs(n) < k]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(2, 7))
def test_no_sum_of_figures_of_any_exports_has_fewer_conversions(seed, changes, k):
    universe = Universe(random.Random(seed), changes)
    told = list(universe.exports(k))
    assert small_atoms(universe.weights, universe.models, [value for _, (_, value) in told], k) == []
    for _, (conversions, _) in told:
        assert conversions == 0 or conversions >= k


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 8), st.integers(2, 7))
def test_one_more_conversion_changes_no_figure_by_less(seed, changes, k):
    """Two exports, of which the second knows of one conversion more: every figure is the same, or has moved by k at least."""
    dice = random.Random(seed)
    universe = Universe(dice, changes)
    if not periods([(0, universe.base())], k):
        return
    before = {leaf.path: leaf for leaf in leaves(0, DAY_MICROS, universe.entries, k)}
    path, model = dice.choice([(e.path, e.model) for e in universe.entries])
    universe._publish(path, model, Decimal(1), changes + 1)
    for leaf in leaves(0, DAY_MICROS, universe.entries, k):
        was = before.get(leaf.path)
        for one, (conversions, _) in leaf.told.items():
            moved = conversions - (was.told.get(one, (0, 0))[0] if was else 0)
            assert moved == 0 or abs(moved) >= k
        if was and was.told == leaf.told and was.hidden == leaf.hidden:
            assert leaf == was  # nothing else of the row says that something happened


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(2, 7))
def test_sums_close_at_the_close(seed, k):
    universe = Universe(random.Random(seed), 0)
    if periods([(0, universe.base())], k):
        for found in (leaves(0, DAY_MICROS, universe.entries, k), by_period(leaves(0, DAY_MICROS, universe.entries, k), 0, DAY_MICROS)):
            sums = defaultdict(Decimal)
            for leaf in found:
                for model, (n, _) in leaf.told.items():
                    sums[model] += n
            assert {m: n for m, n in sums.items() if n} == {m: n for m, n in universe.base().items() if n}


def test_the_attack_finds_what_a_withheld_cell_beside_its_total_gives_away():
    """The figures 12, 9 and 30: shown are the cell of 12, that of 9 is withheld, and the total of all is shown."""
    assert small_atoms([Decimal(12), Decimal(9), Decimal(30)], ["linear"] * 3, [0b001, 0b100, 0b111], 10) == [9]


def test_a_large_campaign_gives_its_figure_up_for_a_small_one():
    assert _told([("a", 30), ("b", 12), ("c", 3)]) == {"a": 30, OTHER: 15}
    assert _told([("a", 30), ("c", 3)]) == {OTHER: 33}
    assert _told([("a", 30), ("b", 10)]) == {"a": 30, "b": 10}


def test_what_is_told_apart_does_not_change_when_a_small_cell_grows_large():
    """9 conversions and then 10: the campaign stays with the others, and the others stay as they were."""
    entries = _entries([("a", 30), ("b", 9), ("c", 8)])
    tenth = replace(entries[1], conversions=Decimal(10), revision=2, published=1, base=False)
    assert _shown(entries) == _shown([*entries, tenth]) == {"a": 30, OTHER: 17}
    many = replace(tenth, conversions=Decimal(19), revision=3, published=2)
    assert _shown([*entries, tenth, many]) == {"a": 30, OTHER: 27}


def test_a_leaf_of_which_too_few_are_left_is_told_no_more():
    entries = _entries([("a", 30), ("b", 14), ("c", 16)])
    fell = replace(entries[1], conversions=Decimal(4), revision=2, published=1, base=False)
    [leaf] = [one for one in leaves(0, DAY_MICROS, [*entries, fell], 10) if one.path[0] == ("b",)]
    assert leaf.hidden and leaf.told["linear"][0] == 14
    gone = replace(fell, conversions=Decimal(0), revision=3, published=2)
    [leaf] = [one for one in leaves(0, DAY_MICROS, [*entries, fell, gone], 10) if one.path[0] == ("b",)]
    assert not leaf.hidden and leaf.told["linear"][0] == 0


def test_days_of_few_conversions_are_one_period_and_a_months_rest_is_not_told():
    march = 1_772_323_200_000_000  # 2026-03-01
    days = [(march + n * DAY_MICROS, {"linear": Decimal(c)}) for n, c in enumerate([4, 0, 7, 12, *[0] * 26, 3, 9, 2])]
    starts = [((a - march) // DAY_MICROS, (b - march) // DAY_MICROS) for a, b in periods(days, 10)]
    assert starts == [(0, 3), (3, 4), (31, 33)]


@pytest.mark.parametrize("seed", range(2))
def test_every_range_grain_campaign_and_time_of_a_warehouse_together_give_nothing_away(tmp_path, seed):
    """The same of whole files, as the command's parts make them from a warehouse."""
    dice, k = random.Random(seed), 5
    weights, rows, latest = [], [], {}
    for _ in range(36):
        key = D + dice.choice([0, 0, 1, 2, 26, 27, 50]) * HOUR, f"c{dice.randint(1, 3)}"
        if key not in latest:
            by = dice.choice([1, 2, 3, 6, 9])
            latest[key] = earned(key[0], by, key[1], value_micros=1 << len(weights))
            weights.append(by)
            rows.append(latest[key])
    for n in range(1, 16):
        key = dice.choice(list(latest))
        had = latest[key]["conversions"]
        by = max(-had, Decimal(dice.choice([-6, -1, 1, 1, 2, 7])))
        latest[key] = restated(latest[key], n, conversions=had + by, value_micros=latest[key]["value_micros"] | 1 << len(weights))
        weights.append(by)
        rows.append(latest[key])
    Made(tmp_path, whole_days(D + 4 * DAY), rows)
    source, told = local(tmp_path), []
    for as_of in [CLOSED + n * HOUR for n in range(16)]:  # each change's: of two together the second may take back what the first brought
        moment = source.moment(month(D), as_of)
        for first, last in [(0, 24), (0, 72), (0, 23), (1, 27)]:
            for campaign in (None, "c1"):
                for grain in Grain if not first % 24 and not last % 24 else [Grain.hour]:
                    request = Request("adv-1", ATTRIBUTION, D + first * HOUR, D + last * HOUR, grain, Format.csv, campaign, k)
                    told += shaped(source, request, moment).table.to_pylist()
    shown = [r for r in told if r["conversions"] is not None]
    assert shown and small_atoms(weights, ["m"] * len(weights), [r["value_micros"] for r in shown], k) == []


def test_an_open_day_is_not_told(tmp_path):
    rows = [earned(D, 30), earned(D + DAY, 40, status="provisional"), earned(D + DAY + HOUR, 40)]
    Made(tmp_path, whole_days(D + DAY + 5 * HOUR), rows)
    source = local(tmp_path)
    request = Request("adv-1", ATTRIBUTION, D, D + 2 * DAY, Grain.hour, Format.csv)
    found = shaped(source, request, source.moment(month(D)))
    assert [(r["window_start"], r["conversions"]) for r in found.table.to_pylist()] == [(D, 30)]
    assert found.told_until == D + DAY


def test_a_job_under_way_waits_an_hour_for_rows_that_come_behind(tmp_path):
    made = Made(tmp_path, whole_days(D + DAY), [earned(D, 30)], state="running")
    request = Request("adv-1", ATTRIBUTION, D, D + DAY, Grain.day, Format.csv)
    def rows():
        source = local(tmp_path)
        return shaped(source, request, source.moment(month(D))).table.num_rows
    assert rows() == 0
    made.add(delivery=[delivered(D + DAY, "probe")])
    assert rows() == 1


def test_what_a_later_generation_finds_in_a_closed_day_is_a_change(tmp_path):
    """Rows published as final by another run, where none of theirs were before, do not divide the day anew."""
    made = Made(tmp_path, whole_days(D + DAY), [earned(D, 30), earned(D, 12, "c2")])
    request = Request("adv-1", ATTRIBUTION, D, D + DAY, Grain.day, Format.csv)
    def shown():
        source = local(tmp_path)
        return {(r["campaign_id"], r["conversions"], r["withheld"]) for r in shaped(source, request, source.moment(month(D))).table.to_pylist()}
    before = shown()
    made.add(attribution=[earned(D + 3 * HOUR, 4, "c3", revision=2 << 32, published_at=CLOSED + DAY)])
    assert shown() == before == {("c1", 30, None), ("c2", 12, None)}
    made.add(attribution=[earned(D + 3 * HOUR, 14, "c3", revision=(2 << 32) + 1, published_at=CLOSED + 2 * DAY)])
    assert shown() == before | {(None, 14, "other campaigns, other currencies, other conversion types")}


def _entries(cells: list[tuple[str, int]]) -> list[Entry]:
    return [Entry(((campaign,), ("EUR",), (None,), (None, None, None), ("buy",), (0,)), "linear", Decimal(n), 0, 1, 0, True)
            for campaign, n in cells]


def _shown(entries: list[Entry]) -> dict:
    return {leaf.path[0] if leaf.path[0] is OTHER else leaf.path[0][0]: leaf.told["linear"][0]
            for leaf in by_period(leaves(0, DAY_MICROS, entries, 10), 0, DAY_MICROS)}


def _told(cells: list[tuple[str, int]]) -> dict:
    return _shown(_entries(cells))
