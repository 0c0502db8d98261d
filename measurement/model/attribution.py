"""The section ``attribution`` of a policy: which models credit whose conversions, from when (contract section 4).

    attribution:
      default: {model: last_touch, click_lookback: 30d, view_lookback: 1d, priority: click_over_view,
                half_life: 7d, position_weights: [0.4, 0.2, 0.4]}
      advertisers:
        adv-7: {models: [linear, last_touch], click_lookback: 7d, view_lookback: 7d, priority: none}

``model`` names one model, ``models`` several that credit every conversion side by side. What an advertiser does not name it
has from the default, and what the default does not name is as above.

Terms that change are a list. Each entry holds for conversions from its time until the next one's, and stands alone: it takes
nothing over from the entry before it. Only the first may be without ``from``; then it holds from the beginning. Before a
first entry with ``from`` the values above hold.

    attribution:
      - default: {model: last_touch}
      - from: 2026-01-01T00:00:00Z
        default: {model: position_based}
        advertisers: {adv-7: {click_lookback: 7d}}
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np

from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy_file import PolicyError, duration, duration_text, only

MODELS = ("last_touch", "first_touch", "linear", "time_decay", "position_based")
CLICK_OVER_VIEW, NO_PRIORITY = PRIORITIES = ("click_over_view", "none")

_DAY = 24 * MICROS_PER_HOUR
MAX_LOOKBACK = 90 * _DAY
MAX_HALF_LIFE = 365 * _DAY
WEIGHT_DECIMALS = 9  # of a position weight: as fine as a credit is

_BEGINNING = -(2**62)  # before any time an event can have
_KEYS = {"model", "models", "click_lookback", "view_lookback", "priority", "half_life", "position_weights"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class AttributionRule:
    """How one advertiser's conversions are credited. Spans are µs; the position weights are whole numbers (first, middle,
    last) over their sum, with no common divisor."""

    models: tuple[str, ...] = ("last_touch",)
    click_lookback: int = 30 * _DAY
    view_lookback: int = _DAY
    priority: str = CLICK_OVER_VIEW
    half_life: int = 7 * _DAY
    position_weights: tuple[int, int, int] = (2, 1, 2)

    @property
    def version(self) -> str:
        """What decides the credits, as short text: equal for rules that credit alike, so that rewording restates nothing."""
        said = ["+".join(self.models), f"click:{duration_text(self.click_lookback)}",
                f"view:{duration_text(self.view_lookback)}", f"priority:{self.priority}"]
        if "time_decay" in self.models:
            said.append(f"half_life:{duration_text(self.half_life)}")
        if "position_based" in self.models:
            said.append(f"weights:{':'.join(map(str, self.position_weights))}")
        return " ".join(said)


@dataclass(frozen=True)
class Terms:
    """The rules that hold for conversions from ``since`` (µs) until the next terms."""

    since: int = _BEGINNING
    default: AttributionRule = AttributionRule()
    advertisers: dict[str, AttributionRule] = field(default_factory=dict, hash=False)

    def rule(self, advertiser_id: str) -> AttributionRule:
        return self.advertisers.get(advertiser_id, self.default)


@dataclass(frozen=True)
class Attribution:
    """The whole section: terms by rising time, the first from the beginning."""

    versions: tuple[Terms, ...] = (Terms(),)

    @property
    def longest_lookback(self) -> int:
        """µs; no older touch is ever asked for."""
        rules = (rule for terms in self.versions for rule in (terms.default, *terms.advertisers.values()))
        return max(max(rule.click_lookback, rule.view_lookback) for rule in rules)

    def rule_for(self, advertiser_id: str, conversion_time: int) -> AttributionRule:
        """The rule of an advertiser's conversion at that time (µs)."""
        at = bisect_right(self.versions, conversion_time, key=lambda terms: terms.since) - 1
        return self.versions[max(at, 0)].rule(advertiser_id)

    def rules_for(
        self, advertisers: Sequence[str], codes: np.ndarray, times: np.ndarray
    ) -> tuple[tuple[AttributionRule, ...], np.ndarray]:
        """The rules of many conversions: distinct rules, and int64 (c,) which of them is each conversion's.

        ``codes`` (c,) are positions in ``advertisers``, ``times`` (c,) the conversions' µs.
        """
        codes, times = np.asarray(codes, np.int64), np.asarray(times, np.int64)
        rules: dict[AttributionRule, int] = {}
        table = np.empty((len(self.versions), len(advertisers)), np.int64)
        for v, terms in enumerate(self.versions):
            for a, name in enumerate(advertisers):
                table[v, a] = rules.setdefault(terms.rule(name), len(rules))
        since = np.array([terms.since for terms in self.versions])
        at = np.maximum(np.searchsorted(since, times, side="right") - 1, 0)
        return tuple(rules), table[at, codes]


def parse(path: Path, tree) -> Attribution:
    """The section as YAML gave it (None: not given). PolicyError, one line, for what cannot be meant; it names ``path``."""
    if isinstance(tree, list):
        listed = [_terms(path, f"attribution[{i}]", entry, i) for i, entry in enumerate(tree)]
        for i, (before, after) in enumerate(zip(listed, listed[1:]), 1):
            if after.since <= before.since:
                raise PolicyError(f"{path}: attribution[{i}].from: must be later than the entry before it")
        if not listed or listed[0].since != _BEGINNING:
            listed.insert(0, Terms())
        return Attribution(tuple(listed))
    return Attribution((_terms(path, "attribution", {} if tree is None else tree, None),))


def _terms(path: Path, at: str, tree, entry: int | None) -> Terms:
    """``entry`` is the place in a list, None where the section is no list."""
    only(path, at, tree, {"default", "advertisers"} | ({"from"} if entry is not None else set()))
    since = _BEGINNING
    if "from" in tree:
        since = _time(path, f"{at}.from", tree["from"])
    elif entry:
        raise PolicyError(f"{path}: {at}.from: is missing; only the first entry may be without it")
    default = _rule(path, f"{at}.default", tree.get("default"), AttributionRule())
    advertisers = tree.get("advertisers")
    advertisers = {} if advertisers is None else advertisers
    only(path, f"{at}.advertisers", advertisers, None)
    for name in advertisers:
        if not isinstance(name, str) or not name:
            raise PolicyError(f"{path}: {at}.advertisers.{name}: an advertiser is text; put it in quotes")
    rules = {name: _rule(path, f"{at}.advertisers.{name}", below, default) for name, below in advertisers.items()}
    return Terms(since, default, rules)


def _rule(path: Path, at: str, tree, inherited: AttributionRule) -> AttributionRule:
    tree = {} if tree is None else tree
    only(path, at, tree, _KEYS)
    if "model" in tree and "models" in tree:
        raise PolicyError(f"{path}: {at}.models: stands beside model; give one of the two")
    given = {}
    if "model" in tree:
        given["models"] = (_model(path, f"{at}.model", tree["model"]),)
    if "models" in tree:
        given["models"] = _models(path, f"{at}.models", tree["models"])
    for key, most in ("click_lookback", MAX_LOOKBACK), ("view_lookback", MAX_LOOKBACK), ("half_life", MAX_HALF_LIFE):
        if key in tree:
            given[key] = _span(path, f"{at}.{key}", tree[key], most)
    if "priority" in tree:
        if tree["priority"] not in PRIORITIES:
            raise PolicyError(f"{path}: {at}.priority: {tree['priority']!r} is none of {', '.join(PRIORITIES)}")
        given["priority"] = tree["priority"]
    if "position_weights" in tree:
        given["position_weights"] = _weights(path, f"{at}.position_weights", tree["position_weights"])
    return replace(inherited, **given)


def _model(path: Path, key: str, value) -> str:
    if value not in MODELS:
        raise PolicyError(f"{path}: {key}: {value!r} is no model; known: {', '.join(MODELS)}")
    return value


def _models(path: Path, key: str, value) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise PolicyError(f"{path}: {key}: {value!r} is no list of models such as [last_touch, linear]")
    models = tuple(_model(path, key, one) for one in value)
    if len(set(models)) < len(models):
        raise PolicyError(f"{path}: {key}: a model stands there twice")
    return models


def _span(path: Path, key: str, value, most: int) -> int:
    span = duration(path, key, value)
    if not 0 < span <= most:
        raise PolicyError(f"{path}: {key}: {value!r} must be more than 0 and at most {duration_text(most)}")
    return span


def _weights(path: Path, key: str, value) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3:
        raise PolicyError(f"{path}: {key}: {value!r} is no list of three weights: first, middle, last")
    scaled = []
    for one in value:
        # The shortest text of a float is the decimal that was written: 0.1 + 0.2 + 0.7 is 1 here.
        exact = Fraction(repr(one)) if type(one) in (int, float) and math.isfinite(one) else None
        if exact is None or (exact * 10**WEIGHT_DECIMALS).denominator != 1:
            raise PolicyError(f"{path}: {key}: {one!r} is no number of at most {WEIGHT_DECIMALS} decimals")
        if exact < 0:
            raise PolicyError(f"{path}: {key}: {one!r} must not be negative")
        scaled.append(int(exact * 10**WEIGHT_DECIMALS))
    if sum(scaled) != 10**WEIGHT_DECIMALS:
        raise PolicyError(f"{path}: {key}: {value!r} must sum to exactly 1")
    if not scaled[0] + scaled[2]:
        raise PolicyError(f"{path}: {key}: first and last must not both be 0: two touches are split between them")
    divisor = math.gcd(*scaled)
    return scaled[0] // divisor, scaled[1] // divisor, scaled[2] // divisor


def _time(path: Path, key: str, value) -> int:
    """µs of a time with its zone; YAML has read plain ones already."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            pass
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise PolicyError(f"{path}: {key}: '{value}' is no time with its zone such as 2026-01-01T00:00:00Z")
    return (value - _EPOCH) // timedelta(microseconds=1)
