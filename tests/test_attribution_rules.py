"""Attribution: the policy's section, which touches are eligible, and what the models credit, against a slow oracle."""

from collections import defaultdict
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from measurement.model.attribution import (
    CLICK_OVER_VIEW, MAX_HALF_LIFE, MODELS, NO_PRIORITY, Attribution, AttributionRule, parse,
)
from measurement.model.policy_file import PolicyError, tree_of
from measurement.rules import attribution as rules
from measurement.rules.attribution import CREDIT_UNITS, credits, decay_weight, eligible
from oracle import DAY, HOUR, SECOND, time_of_text

WEEK = 7 * DAY
DEFAULT = AttributionRule()
LARGEST = 2**63 - 1
KNOWN = "known: last_touch, first_touch, linear, time_decay, position_based"


def policy(text: str) -> Attribution:
    tree = tree_of("p.yaml", text)
    return parse("p.yaml", (tree or {}).get("attribution"))


# --- The policy ----------------------------------------------------------------------------------------------

def test_default():
    assert DEFAULT == AttributionRule(("last_touch",), 30 * DAY, DAY, CLICK_OVER_VIEW, WEEK, (2, 1, 2))
    for text in "", "attribution:", "attribution: {}", "attribution: []", "attribution: {default: , advertisers: }":
        assert policy(text).rule_for("adv-7", 0) == DEFAULT
    assert policy("") == Attribution()


def test_contract_example():
    made = policy("""
        attribution:
          default: {model: last_touch, click_lookback: 30d, view_lookback: 1d, priority: click_over_view,
                    half_life: 7d, position_weights: [0.4, 0.2, 0.4]}
          advertisers:
            adv-7: {model: linear, click_lookback: 7d, view_lookback: 7d, priority: none}
    """)
    assert made.rule_for("adv-1", 0) == DEFAULT
    assert made.rule_for("adv-7", 0) == AttributionRule(("linear",), WEEK, WEEK, NO_PRIORITY, WEEK, (2, 1, 2))


def test_inheritance():
    made = policy("""
        attribution:
          default: {models: [linear, time_decay], half_life: 36h, position_weights: [0.1, 0.2, 0.7]}
          advertisers:
            a: {model: first_touch}
            b: {view_lookback: 90d}
            c:
    """)
    base = AttributionRule(("linear", "time_decay"), 30 * DAY, DAY, CLICK_OVER_VIEW, 36 * HOUR, (1, 2, 7))
    assert made.rule_for("other", 0) == made.rule_for("c", 0) == base
    assert made.rule_for("a", 0).models == ("first_touch",) and made.rule_for("a", 0).half_life == 36 * HOUR
    assert made.rule_for("b", 0).models == base.models and made.rule_for("b", 0).view_lookback == 90 * DAY


@pytest.mark.parametrize("weights, whole", [
    ("[0.4, 0.2, 0.4]", (2, 1, 2)), ("[1, 0, 0]", (1, 0, 0)), ("[0.1, 0.2, 0.7]", (1, 2, 7)),
    ("[0.333333333, 0.333333333, 0.333333334]", (333333333, 333333333, 333333334)),
    ("[1.0e-9, 0.999999998, 0.000000001]", (1, 999999998, 1)),
])
def test_position_weights_are_exact(weights, whole):
    made = policy(f"attribution: {{default: {{position_weights: {weights}}}}}")
    assert made.rule_for("a", 0).position_weights == whole


def test_terms_change_at_a_stated_time():
    made = policy("""
        attribution:
          - default: {model: linear}
            advertisers: {a: {click_lookback: 7d}}
          - from: 2026-01-01T00:00:00Z
            advertisers: {b: {model: time_decay}}
          - from: "2026-02-01T00:00:00.000001+01:00"
            default: {priority: none}
    """)
    change, last = time_of_text("2026-01-01T00:00:00Z"), time_of_text("2026-01-31T23:00:00Z") + 1
    linear, decaying = AttributionRule(("linear",)), AttributionRule(("time_decay",))
    expected = {
        ("a", -LARGEST): AttributionRule(("linear",), click_lookback=WEEK), ("b", change - 1): linear,
        ("a", change): DEFAULT, ("b", change): decaying, ("b", last - 1): decaying,
        ("b", last): AttributionRule(priority=NO_PRIORITY), ("c", LARGEST): AttributionRule(priority=NO_PRIORITY),
    }
    assert {key: made.rule_for(*key) for key in expected} == expected
    names = ["a", "b", "c"]
    found, which = made.rules_for(names, [names.index(name) for name, _ in expected], [time for _, time in expected])
    assert [found[i] for i in which] == list(expected.values())
    assert len(set(found)) == len(found)


def test_before_the_first_terms_the_defaults_hold():
    made = policy("attribution: [{from: 2026-01-01T00:00:00Z, default: {model: linear}}]")
    change = time_of_text("2026-01-01T00:00:00Z")
    assert made.rule_for("a", change - 1) == DEFAULT
    assert made.rule_for("a", change).models == ("linear",)


def test_rules_for_nothing():
    found, which = Attribution().rules_for([], [], [])
    assert found == () and len(which) == 0


def test_version_tells_what_decides():
    assert DEFAULT.version == "last_touch click:30d view:1d priority:click_over_view"
    assert AttributionRule(half_life=DAY, position_weights=(1, 0, 0)).version == DEFAULT.version
    assert AttributionRule(("time_decay", "position_based"), half_life=36 * HOUR).version == (
        "time_decay+position_based click:30d view:1d priority:click_over_view half_life:36h weights:2:1:2")


@pytest.mark.parametrize("text, told", [
    ("attribution: 7", "attribution must be a mapping of keys, not int"),
    ("attribution: {defaults: {}}", "unknown key 'attribution.defaults'; known here: advertisers, default"),
    ("attribution: {from: 2026-01-01T00:00:00Z}", "unknown key 'attribution.from'; known here: advertisers, default"),
    ("attribution: {default: [linear]}", "attribution.default must be a mapping of keys, not list"),
    ("attribution: {advertisers: {a: linear}}", "attribution.advertisers.a must be a mapping of keys, not str"),
    ("attribution: {advertisers: {7: {}}}", "attribution.advertisers.7: an advertiser is text; put it in quotes"),
    ("attribution: {advertisers: {a: {lookback: 1d}}}",
     "unknown key 'attribution.advertisers.a.lookback'; known here: click_lookback, half_life, model, models, "
     "position_weights, priority, view_lookback"),
    ("attribution: {default: {model: last_click}}",
     "attribution.default.model: 'last_click' is no model; " + KNOWN),
    ("attribution: {default: {model: [linear]}}",
     "attribution.default.model: ['linear'] is no model; " + KNOWN),
    ("attribution: {default: {models: [linear, u_shaped]}}",
     "attribution.default.models: 'u_shaped' is no model; " + KNOWN),
    ("attribution: {default: {models: []}}",
     "attribution.default.models: [] is no list of models such as [last_touch, linear]"),
    ("attribution: {default: {models: linear}}",
     "attribution.default.models: 'linear' is no list of models such as [last_touch, linear]"),
    ("attribution: {default: {models: [linear, linear]}}", "attribution.default.models: a model stands there twice"),
    ("attribution: {default: {model: linear, models: [linear]}}",
     "attribution.default.models: stands beside model; give one of the two"),
    ("attribution: {default: {click_lookback: -1d}}",
     "attribution.default.click_lookback: '-1d' is no duration such as 7d, 24h, 10m or 90s"),
    ("attribution: {default: {click_lookback: 30}}",
     "attribution.default.click_lookback: 30 is no duration such as 7d, 24h, 10m or 90s"),
    ("attribution: {default: {view_lookback: 0s}}",
     "attribution.default.view_lookback: '0s' must be more than 0 and at most 90d"),
    ("attribution: {advertisers: {a: {click_lookback: 91d}}}",
     "attribution.advertisers.a.click_lookback: '91d' must be more than 0 and at most 90d"),
    ("attribution: {default: {half_life: 0d}}", "attribution.default.half_life: '0d' must be more than 0 and at most 365d"),
    ("attribution: {default: {priority: click}}", "attribution.default.priority: 'click' is none of click_over_view, none"),
    ("attribution: {default: {priority: null}}", "attribution.default.priority: None is none of click_over_view, none"),
    ("attribution: {default: {position_weights: [0.4, 0.2, 0.3]}}",
     "attribution.default.position_weights: [0.4, 0.2, 0.3] must sum to exactly 1"),
    ("attribution: {default: {position_weights: [0.5, 0.5]}}",
     "attribution.default.position_weights: [0.5, 0.5] is no list of three weights: first, middle, last"),
    ("attribution: {default: {position_weights: 1}}",
     "attribution.default.position_weights: 1 is no list of three weights: first, middle, last"),
    ("attribution: {default: {position_weights: [0.7, -0.1, 0.4]}}",
     "attribution.default.position_weights: -0.1 must not be negative"),
    ("attribution: {default: {position_weights: [0.4, true, 0.4]}}",
     "attribution.default.position_weights: True is no number of at most 9 decimals"),
    ("attribution: {default: {position_weights: [.nan, 0.2, 0.4]}}",
     "attribution.default.position_weights: nan is no number of at most 9 decimals"),
    ("attribution: {default: {position_weights: [0.4, 0.2, 0.4000000001]}}",
     "attribution.default.position_weights: 0.4000000001 is no number of at most 9 decimals"),
    ("attribution: {default: {position_weights: [0, 1, 0]}}",
     "attribution.default.position_weights: first and last must not both be 0: two touches are split between them"),
    ("attribution: {advertisers: {a: {}, b: {}, a: {model: linear}}}", "line 1: the key 'a' stands here twice"),
    ("attribution:\n  default: {}\n  default: {}", "line 3: the key 'default' stands here twice"),
    ("attribution: [{default: {}}, {default: {}}]",
     "attribution[1].from: is missing; only the first entry may be without it"),
    ("attribution: [{from: 2026-01-02T00:00:00Z}, {from: 2026-01-02T01:00:00+01:00}]",
     "attribution[1].from: must be later than the entry before it"),
    ("attribution: [{from: 2026-01-02T00:00:00}]",
     "attribution[0].from: '2026-01-02 00:00:00' is no time with its zone such as 2026-01-01T00:00:00Z"),
    ("attribution: [{from: 2026-01-02}]",
     "attribution[0].from: '2026-01-02' is no time with its zone such as 2026-01-01T00:00:00Z"),
    ("attribution: [{from: soon}]", "attribution[0].from: 'soon' is no time with its zone such as 2026-01-01T00:00:00Z"),
    ("attribution: [{from: 2026-01-01T00:00:00Z, default: {model: x}}]",
     "attribution[0].default.model: 'x' is no model; " + KNOWN),
    ("attribution: [linear]", "attribution[0] must be a mapping of keys, not str"),
    ("attribution: [{from: 2026-13-01T00:00:00Z}]", "not YAML: month must be in 1..12"),
    ("attribution: {", "not YAML: while parsing a flow node expected the node content, but found '<stream end>' in "
     '"<unicode string>", line 1, column 15: attribution: { ^'),
])
def test_errors_are_one_line(text, told):
    with pytest.raises(PolicyError) as caught:
        policy(text)
    assert str(caught.value) == f"p.yaml: {told}"


def test_merged_keys_are_not_twice():
    made = policy("""
        attribution:
          default: &base {model: linear, click_lookback: 7d}
          advertisers: {a: {<<: *base, model: time_decay}}
    """)
    assert made.rule_for("a", 0).models == ("time_decay",)


# --- Credits -------------------------------------------------------------------------------------------------

def one(model: str, ages: list[int], value: int = 0, rule: AttributionRule = DEFAULT) -> tuple[list[int], list[int]]:
    credit, micros = credits(model, rule, np.array([0, len(ages)]), np.array(ages), np.array([value]))
    return credit.tolist(), micros.tolist()


def decayed(lag: int, half_life: int) -> int:
    """floor(2^48 x 2^(-lag / half_life)), between bounds by the exponent's binary digits and integer square roots."""
    halvings, rest = divmod(lag, half_life)
    if not rest:
        return 2**48 >> halvings
    places = 160
    low = high = 1 << places
    root = 1 << places - 1  # of 1/2, then its square root, and so on
    for _ in range(100):
        root = isqrt(root << places)
        rest *= 2
        if rest >= half_life:
            rest -= half_life
            low, high = low * (root - 2) >> places, (high * (root + 2) >> places) + 1
    if rest:  # digits not looked at
        low = low * (root - 2) >> places
    assert low >> places - 48 + halvings == high >> places - 48 + halvings
    return low >> places - 48 + halvings


def oracle_weights(model: str, ages: list[int], rule: AttributionRule) -> list[Fraction | int]:
    """As the contract puts it; time decay's rounded as the rules' docstring says."""
    n = len(ages)
    if model == "last_touch":
        return [0] * (n - 1) + [1]
    if model == "first_touch":
        return [1] + [0] * (n - 1)
    if model == "linear":
        return [Fraction(1, n)] * n
    if model == "position_based":
        first, middle, last = (Fraction(w, sum(rule.position_weights)) for w in rule.position_weights)
        if n <= 2:
            return [1] if n == 1 else [first / (first + last), last / (first + last)]
        return [first] + [middle / (n - 2)] * (n - 2) + [last]
    return [decayed(age - min(ages), rule.half_life) for age in ages]


def oracle_shares(total: int, weights: list) -> list[int]:
    exact = [Fraction(total) * w / sum(weights) for w in weights]
    shares = [int(x // 1) for x in exact]
    order = sorted(range(len(weights)), key=lambda i: (-(exact[i] - shares[i]), i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


spans = st.one_of(st.sampled_from([1, SECOND, HOUR, DAY, WEEK, 90 * DAY, MAX_HALF_LIFE]), st.integers(1, MAX_HALF_LIFE))
ages_of_one = st.one_of(
    st.lists(st.integers(1, 90 * DAY), min_size=1, max_size=40),
    st.lists(st.sampled_from([1, 2, HOUR, DAY, WEEK, 14 * DAY, 90 * DAY]), min_size=1, max_size=60),
    st.builds(lambda n, age: [age] * n, st.integers(1, 200), st.integers(1, 90 * DAY)),
)
values = st.one_of(
    st.sampled_from([0, 1, 2, 10**9, 2**32 - 1, 2**32, 2**53 + 1, 2**62, LARGEST]),
    st.integers(0, 10**8), st.integers(0, LARGEST),
)
weights_of_places = (
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)).map(sorted).filter(lambda cuts: cuts != [0, 10**9])
    .map(lambda cuts: (cuts[0], cuts[1] - cuts[0], 10**9 - cuts[1]))
)


@given(
    model=st.sampled_from(MODELS), conversions=st.lists(st.tuples(ages_of_one, values), max_size=6), half_life=spans,
    weights=weights_of_places,
)
@settings(max_examples=300)
@example(model="time_decay", conversions=[([90 * DAY, 1], LARGEST)], half_life=1, weights=(2, 1, 2))
@example(model="linear", conversions=[([5] * 3, LARGEST)], half_life=1, weights=(2, 1, 2))
def test_models_against_the_oracle(model, conversions, half_life, weights):
    rule = AttributionRule(half_life=half_life, position_weights=weights)
    conversions = [(sorted(ages, reverse=True), value) for ages, value in conversions]
    starts = np.cumsum([0] + [len(ages) for ages, _ in conversions])
    credit, micros = credits(
        model, rule, starts, np.array([age for ages, _ in conversions for age in ages], np.int64),
        np.array([value for _, value in conversions], np.int64),
    )
    for (ages, value), a, b in zip(conversions, starts, starts[1:]):
        expected = oracle_weights(model, ages, rule)
        assert credit[a:b].tolist() == oracle_shares(CREDIT_UNITS, expected)
        assert micros[a:b].tolist() == oracle_shares(value, expected)
        assert sum(credit[a:b].tolist()) == CREDIT_UNITS and sum(micros[a:b].tolist()) == value


def test_many_conversions_at_once():
    """Enough touches that the fixed-point weights meet cases they must leave to the exact form."""
    random = np.random.default_rng(11)
    counts = random.integers(0, 60, 2_000)
    starts = np.concatenate([[0], counts.cumsum()])
    ages, values = random.integers(0, 30 * DAY, starts[-1]), random.integers(0, 2**40, len(counts))
    credit, micros = credits("time_decay", DEFAULT, starts, ages, values)
    unsure = np.empty((2, len(ages)), np.int64)
    weights = np.empty(len(ages), np.int64)
    left = rules._decayed(starts, ages, WEEK, rules._TENTHS, rules._TWENTIETHS, weights, unsure)
    assert 0 < left < len(ages) / 500
    checked = set(unsure[0, :left].tolist()) | set(random.integers(0, len(ages), 2_000).tolist())
    for i in checked:
        c = int(np.searchsorted(starts, i, side="right")) - 1
        own = slice(starts[c], starts[c + 1])
        exact = [decay_weight(int(age - ages[own].min()), WEEK) for age in ages[own]]
        assert i in unsure[0, :left] or weights[i] == exact[i - starts[c]]
        assert credit[i] == rules.apportion(CREDIT_UNITS, exact)[i - starts[c]]
        assert micros[i] == rules.apportion(int(values[c]), exact)[i - starts[c]]


@given(lag=st.integers(0, 90 * DAY), half_life=spans)
def test_decay_weight_is_the_floor_of_the_real_number(lag, half_life):
    assert decay_weight(lag, half_life) == decayed(lag, half_life)


@pytest.mark.parametrize("n", [2**14 - 1, 2**15 + 5])
@pytest.mark.parametrize("model", ["linear", "time_decay", "position_based"])
def test_a_crawlers_conversion(model, n):
    """So many touches that their weights sum to just below 62 bits, or beyond 63; beside an ordinary conversion."""
    ages = np.concatenate([np.arange(n, 0, -1), [HOUR, 1]])
    credit, micros = credits(model, DEFAULT, np.array([0, n, n + 2]), ages, np.array([2**61 + 7, 3]))
    if model == "time_decay":
        weights = [decay_weight(int(age) - 1, WEEK) for age in ages[:n]]
    else:
        weights = [1] * n if model == "linear" else [2 * (n - 2)] + [1] * (n - 2) + [2 * (n - 2)]
    assert credit[:n].tolist() == rules.apportion(CREDIT_UNITS, weights)
    assert micros[:n].tolist() == rules.apportion(2**61 + 7, weights)
    assert (credit[n:].tolist(), micros[n:].tolist()) == one(model, [HOUR, 1], 3)


def test_position_based_40_20_40():
    """Google Ads API, AttributionModelEnum: 40 % to the first and the last, the other 20 % evenly to those between."""
    assert one("position_based", [4, 3, 2, 1], 10**6) == ([400_000_000, 100_000_000, 100_000_000, 400_000_000],
                                                         [400_000, 100_000, 100_000, 400_000])
    assert one("position_based", [2, 1], 5) == ([500_000_000, 500_000_000], [3, 2])
    assert one("position_based", [1], 5) == ([CREDIT_UNITS], [5])
    uneven = AttributionRule(position_weights=(1, 2, 7))
    assert one("position_based", [2, 1], 8, uneven) == ([125_000_000, 875_000_000], [1, 7])
    assert one("position_based", [3, 2, 1], 10, uneven) == ([100_000_000, 200_000_000, 700_000_000], [1, 2, 7])


def test_time_decay_with_a_half_life_of_a_week():
    """The usual illustration of a week's half-life: touches 0, 7, 14 and 28 days old weigh 1, 1/2, 1/4 and 1/16."""
    credit, micros = one("time_decay", [28 * DAY, 14 * DAY, 7 * DAY, 0], 29_000_000)
    assert credit == [34_482_759, 137_931_034, 275_862_069, 551_724_138]  # 1, 4, 8 and 16 of 29
    assert micros == [1_000_000, 4_000_000, 8_000_000, 16_000_000]


def test_time_decay_does_not_run_out_of_digits():
    quick = AttributionRule(half_life=SECOND)
    assert one("time_decay", [90 * DAY + SECOND, 90 * DAY], 3, quick) == ([333_333_333, 666_666_667], [1, 2])
    assert one("time_decay", [90 * DAY, 1], 7, quick) == ([0, CREDIT_UNITS], [0, 7])


def test_remainders():
    assert one("linear", [3, 2, 1], 2) == ([333_333_334, 333_333_333, 333_333_333], [1, 1, 0])
    assert one("linear", [1] * 7, LARGEST)[1] == [LARGEST // 7 + (i < LARGEST % 7) for i in range(7)]
    assert one("last_touch", [3, 2, 1], LARGEST) == ([0, 0, CREDIT_UNITS], [0, 0, LARGEST])
    assert one("first_touch", [3, 2, 1], LARGEST) == ([CREDIT_UNITS, 0, 0], [LARGEST, 0, 0])


@pytest.mark.parametrize("model", MODELS)
def test_nothing_to_credit(model):
    credit, micros = credits(model, DEFAULT, np.array([0, 0, 1, 1]), np.array([5]), np.array([7, 8, 9]))
    assert (credit.tolist(), micros.tolist()) == ([CREDIT_UNITS], [8])
    for starts, values in ([0], []), ([0, 0], [3]):
        credit, micros = credits(model, DEFAULT, np.array(starts), np.array([], np.int64), np.array(values, np.int64))
        assert len(credit) == len(micros) == 0


def test_credits_refuses():
    starts, one_touch = np.array([0, 1]), np.array([1])
    with pytest.raises(ValueError, match="'last_click' is no model"):
        credits("last_click", DEFAULT, starts, one_touch, one_touch)
    for ages, values in (one_touch, -one_touch), (-one_touch, one_touch):
        with pytest.raises(ValueError, match="must not be negative"):
            credits("linear", DEFAULT, starts, ages, values)


# --- Eligible touches ----------------------------------------------------------------------------------------

def oracle_eligible(conversion: dict, candidates: list[dict]) -> list[int]:
    """The contract's words, one after the other; positions of the touches in touch order."""
    able = [
        i for i, touch in enumerate(candidates)
        if touch["time"] < conversion["time"]
        and conversion["time"] - touch["time"] <= conversion["click_lookback" if touch["click"] else "view_lookback"]
    ]
    order = sorted(able, key=lambda i: (candidates[i]["time"], candidates[i]["event_id"], candidates[i]["impression"]))
    clicks = defaultdict(list)
    for i in order:
        if candidates[i]["click"]:
            clicks[candidates[i]["impression"]].append(i)
    latest = {own[-1] for own in clicks.values()}
    return [
        i for i in order
        if i in latest or not (candidates[i]["click"] or candidates[i]["impression"] in clicks
                               or (conversion["click_over_view"] and clicks))
    ]


@st.composite
def batches(draw):
    """Conversions with candidates: few times, ids and impressions, the borders of the lookbacks among the times."""
    batch = []
    for _ in range(draw(st.integers(0, 5))):
        conversion = {
            "time": draw(st.sampled_from([0, 10, 100 * DAY])), "click_lookback": draw(st.sampled_from([1, 3, 30 * DAY])),
            "view_lookback": draw(st.sampled_from([1, 2, DAY])), "click_over_view": draw(st.booleans()),
        }
        back = st.one_of(st.integers(-2, 4), st.sampled_from([DAY, DAY + 1, 30 * DAY, 30 * DAY + 1]))
        touch = st.tuples(back, st.booleans(), st.integers(0, 6), st.integers(0, 30))
        candidates, seen = [], set()
        for before, click, impression, event_id in draw(st.lists(touch, max_size=draw(st.sampled_from([3, 40])))):
            identity = (impression, event_id if click else -1)  # one event_id within an impression, and it itself once
            if identity not in seen:
                seen.add(identity)
                key = (impression % 2, impression * 16)  # keys that meet in a hash table
                time = conversion["time"] - before
                candidates.append({"time": time, "click": click, "impression": key, "event_id": event_id})
        batch.append((conversion, candidates))
    return batch


def select(batch: list[tuple[dict, list[dict]]]):
    """`eligible` of a batch, and where each conversion's candidates begin."""
    touches = [touch for _, candidates in batch for touch in candidates]
    starts = np.cumsum([0] + [len(candidates) for _, candidates in batch])
    ranks = []
    for _, candidates in batch:
        ids = sorted({touch["event_id"] for touch in candidates})
        ranks += [ids.index(touch["event_id"]) for touch in candidates]

    def column(key: str, dtype=np.int64) -> np.ndarray:
        return np.array([conversion[key] for conversion, _ in batch], dtype)

    return starts, eligible(
        starts, np.array([t["time"] for t in touches], np.int64), np.array([t["click"] for t in touches], bool),
        np.array([t["impression"][0] for t in touches], np.uint64),
        np.array([t["impression"][1] for t in touches], np.uint64),
        np.array(ranks, np.int64), column("time"), column("click_lookback"), column("view_lookback"),
        column("click_over_view", bool),
    )


@given(batches())
@settings(max_examples=250)
def test_eligible_against_the_oracle(batch):
    starts, found = select(batch)
    for i, (conversion, candidates) in enumerate(batch):
        mine = found.order[found.starts[i] : found.starts[i + 1]] - starts[i]
        assert mine.tolist() == oracle_eligible(conversion, candidates)
    assert np.flatnonzero(found.kept).tolist() == sorted(found.order.tolist())
    assert found.starts[-1] == len(found.order)


def test_eligible_of_many_candidates():
    """Beyond what is sorted by insertion, in any order."""
    random = np.random.default_rng(5)
    batch = []
    for n in (0, 1, 16, 18, 19, 20, 21, 33, 36, 100, 500, 3_000):
        conversion = {"time": 10**6, "click_lookback": 10**6, "view_lookback": 900_000, "click_over_view": bool(n % 2)}
        batch.append((conversion, [
            {"time": int(time), "click": bool(click), "impression": (int(key), int(key) * 7), "event_id": i}
            for i, (time, click, key) in enumerate(zip(
                random.integers(0, 10**6 + 10, n) // 3_000 * 3_000, random.random(n) < 0.3, random.permutation(n) // 2))
        ]))
    starts, found = select(batch)
    for i, (conversion, candidates) in enumerate(batch):
        mine = found.order[found.starts[i] : found.starts[i + 1]] - starts[i]
        assert mine.tolist() == oracle_eligible(conversion, candidates)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17, 32, 64, 1024])
def test_eligible_of_nothing_but_clicks(n):
    """A table that is one slot too small would be read and written beyond its end."""
    rng = np.random.default_rng(n)
    for _ in range(300):
        hi, lo = rng.integers(0, 2**63, (2, n)).astype(np.uint64)
        found = eligible(
            np.array([0, n]), np.arange(n), np.ones(n, bool), hi, lo, np.zeros(n, np.int64), np.array([n + 1]),
            np.array([2 * n]), np.array([0]), np.array([True]))
        assert found.order.tolist() == list(range(n))


def test_eligible_by_example():
    conversion = {"time": 100 * DAY, "click_lookback": 30 * DAY, "view_lookback": DAY, "click_over_view": False}

    def touch(ago: int, click: bool, impression: int, event_id: str) -> dict:
        return {"time": 100 * DAY - ago, "click": click, "impression": (impression, impression), "event_id": event_id}

    candidates = [
        touch(DAY, False, 1, "seen, to the microsecond"),  # 0
        touch(DAY + 1, False, 2, "seen too early"),  # 1
        touch(HOUR, False, 3, "gives way to its click"),  # 2
        touch(30 * DAY, True, 4, "clicked, to the microsecond"),  # 3
        touch(HOUR - 1, True, 3, "b"),  # 4
        touch(HOUR - 1, True, 3, "a"),  # 5: of equal times the later event_id stands
        touch(30 * DAY + 1, True, 5, "clicked too early"),  # 6
        touch(0, True, 6, "not before the conversion"),  # 7
        touch(1, False, 5, "stands: its click is not eligible"),  # 8
    ]
    _, found = select([(conversion, candidates), (conversion | {"click_over_view": True}, candidates),
                       (conversion | {"click_over_view": True}, candidates[:2])])
    every = len(candidates)
    assert found.order.tolist() == [3, 0, 4, 8, every + 3, every + 4, 2 * every]
    assert found.starts.tolist() == [0, 4, 6, 7]
