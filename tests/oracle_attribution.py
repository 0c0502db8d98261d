"""The crediting rules of the contract, section 4, once more: slow, plain and apart from the pipeline.

It stands on what `oracle.py` says is counted, and like it imports nothing from the project, so that a mistake of the
pipeline is not repeated by its judge; the policy is the section `attribution` as plain YAML gives it. Every touch is
looked at for every conversion. The order of this file is the order of the contract, but for the policy, which is first.

    oracle = count(arrivals, files)
    rows = credits(oracle, {"default": {"models": ["linear", "last_touch"]}})
    attribution(rows)

Times and spans are integer microseconds. A credit is in units of 10^-9. Shares are fractions, exact until they are
floored; a power of two to a fraction is irrational and is floored from decimals that are proved to be enough.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from math import floor

from oracle import DAY, HOUR, MINUTE, SECOND, Arrival, Oracle, hour_of, is_test

WHOLE_CREDIT = 10**9  # a conversion's, in units of its nine decimals
YOUNGEST_WEIGHT = 2**48  # of time_decay: the youngest touch has it, however old it is

CREDIT_KEY = (
    "conversion_id", "model", "touch_id", "conversion_time", "conversion_type", "advertiser_id", "touch_type",
    "touch_time", "campaign_id", "line_item_id", "creative_id", "placement_id", "currency",
)
ATTRIBUTION_KEY = (
    "window_start", "advertiser_id", "campaign_id", "line_item_id", "creative_id", "placement_id",
    "conversion_type", "model", "touch_type", "currency",
)
PLACE = ("campaign_id", "line_item_id", "creative_id", "placement_id")  # of a touch: its impression's

# --- The policy ----------------------------------------------------------------------------------------------

WITHOUT_A_POLICY = {
    "models": ["last_touch"], "click_lookback": "30d", "view_lookback": "1d", "priority": "click_over_view",
    "half_life": "7d", "position_weights": [0.4, 0.2, 0.4],
}
UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


def rule_for(policy: dict | list | None, advertiser_id: str, conversion_time: int) -> dict:
    """What holds for an advertiser's conversions at that time, in the keys of WITHOUT_A_POLICY."""
    terms = terms_at(policy, conversion_time)
    rule = dict(WITHOUT_A_POLICY)
    for level in (terms.get("default"), (terms.get("advertisers") or {}).get(advertiser_id)):
        for name, value in (level or {}).items():
            if name == "model":
                assert "models" not in level
                name, value = "models", [value]
            assert name in WITHOUT_A_POLICY, name
            rule[name] = value
    return rule


def terms_at(policy: dict | list | None, time: int) -> dict:
    """Of a list the last entry that begins by then; each stands alone. Before the first nothing is said."""
    if not isinstance(policy, list):
        return policy or {}
    found = {}
    for place, entry in enumerate(policy):
        assert place == 0 or "from" in entry
        if "from" not in entry or micros_of(entry["from"]) <= time:
            found = entry
    return found


def micros_of(time: str | datetime) -> int:
    """YAML reads most times by itself and leaves some as text."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    assert time.tzinfo is not None
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def span(text: str) -> int:
    """A duration as 30d, 12h, 90m or 5s."""
    number, unit = re.fullmatch(r"([0-9]+)([smhd])", text).groups()
    return int(number) * UNITS[unit]


# --- Touches -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Touch:
    """An impression, or a click with the impression it was joined to."""

    event: dict
    impression: Arrival  # its own arrival, where the touch is an impression

    @property
    def time(self) -> int:
        return self.event["event_time"]

    @property
    def is_click(self) -> bool:
        return self.event["event_type"] == "click"

    @property
    def rank(self) -> tuple:
        """Touch order: time, event_id. The contract says no more; what has both in common (clicks of two impressions, or an
        impression and another's click) is ordered by what else tells its rows apart, the impression first."""
        place = ((self.impression.event[name] or "").encode("utf-8") for name in PLACE)
        return self.time, self.event["event_id"].encode("utf-8"), self.is_click, *place


def all_touches(oracle: Oracle) -> list[Touch]:
    """The impressions and clicks that are counted; a click only is where its impression is valid too."""
    touches = []
    for arrival in oracle.counted():
        if arrival.event["event_type"] == "impression":
            touches.append(Touch(credited_by(oracle, arrival), arrival))
        elif arrival.event["event_type"] == "click":
            touches.append(Touch(credited_by(oracle, arrival), arrival.impression))
    return touches


def credited_by(oracle: Oracle, arrival: Arrival) -> dict:
    """The event with the user that consent leaves it, if any."""
    return {**arrival.event, "user_id": oracle.user_of(arrival.event)}


def touches_of(conversion: dict, touches: list[Touch], rule: dict) -> list[Touch]:
    """The eligible ones, in touch order."""
    eligible = [touch for touch in touches if is_of(touch, conversion) and is_in_reach(touch, conversion, rule)]

    latest_clicks: dict[Arrival, Touch] = {}
    for touch in sorted(eligible, key=lambda touch: touch.rank):
        if touch.is_click:
            latest_clicks[touch.impression] = touch

    standing = []
    for touch in eligible:
        if touch.is_click:
            stands = latest_clicks[touch.impression] is touch
        elif rule["priority"] == "click_over_view":
            stands = not latest_clicks
        else:
            assert rule["priority"] == "none"
            stands = touch.impression not in latest_clicks
        if stands:
            standing.append(touch)
    return sorted(standing, key=lambda touch: touch.rank)


def is_of(touch: Touch, conversion: dict) -> bool:
    """One user, one advertiser, one world; a click's advertiser is its impression's, its user its own."""
    return (
        conversion["user_id"] is not None
        and touch.event["user_id"] == conversion["user_id"]
        and touch.impression.event["advertiser_id"] == conversion["advertiser_id"]
        and is_test(touch.event) == is_test(conversion)
    )


def is_in_reach(touch: Touch, conversion: dict, rule: dict) -> bool:
    """Before the conversion, and no further back than the lookback of its type."""
    lookback = span(rule["click_lookback"] if touch.is_click else rule["view_lookback"])
    return touch.time < conversion["event_time"] and conversion["event_time"] - touch.time <= lookback


# --- Models --------------------------------------------------------------------------------------------------

def weights_of(model: str, times: list[int], rule: dict) -> list[int | Fraction]:
    """What each touch weighs, by the times of the touches in touch order."""
    n = len(times)
    if model == "last_touch":
        return [0] * (n - 1) + [1]
    if model == "first_touch":
        return [1] + [0] * (n - 1)
    if model == "linear":
        return [1] * n
    if model == "time_decay":
        # By the youngest's age, not its own: else all touches of an old conversion would weigh nothing.
        return [decayed(max(times) - time, span(rule["half_life"])) for time in times]
    assert model == "position_based", model
    # The text of a number is what was written: 0.1 is a tenth here, and no sum of powers of two.
    first, middle, last = (Fraction(str(weight)) for weight in rule["position_weights"])
    assert first + middle + last == 1
    if n == 1:
        return [1]
    if n == 2:
        return [first, last]
    return [first * (n - 2)] + [middle] * (n - 2) + [last * (n - 2)]


def decayed(lag: int, half_life: int) -> int:
    """floor(2^48 * 2^(-lag / half_life)) of the real number."""
    halvings = Fraction(lag, half_life)
    if halvings.denominator == 1:
        return YOUNGEST_WEIGHT >> int(halvings)
    if halvings > 48:
        return 0
    with localcontext(Context(prec=80, Emin=MIN_EMIN, Emax=MAX_EMAX)):
        weight = YOUNGEST_WEIGHT * Decimal(2) ** (-Decimal(lag) / Decimal(half_life))
        # Off by less than 10^-60. So far from a whole number on either side, its floor is the real number's.
        assert Decimal(10) ** -40 < weight % 1 < 1 - Decimal(10) ** -40
        return int(weight)


def shares(total: int, weights: list[int | Fraction]) -> list[int]:
    """The total by largest remainder; of equal remainders those first in touch order are served first."""
    exact = [Fraction(total) * weight / sum(weights) for weight in weights]
    shared = [floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: (shared[place] - exact[place], place))
    for place in by_remainder[:total - sum(shared)]:
        shared[place] += 1
    assert sum(shared) == total
    return shared


# --- The tables ----------------------------------------------------------------------------------------------

def credits(oracle: Oracle, policy: dict | list | None) -> dict[tuple, tuple[int, int]]:
    """CREDIT_KEY -> (credit, value_micros) of every conversion that is counted; rows of zeros are left out.

    Clicks of two impressions may have all of a key in common; their row is their sum.
    """
    rows: dict[tuple, tuple[int, int]] = {}
    touches = all_touches(oracle)
    for arrival in oracle.counted():
        conversion = credited_by(oracle, arrival)
        if conversion["event_type"] != "conversion":
            continue
        rule = rule_for(policy, conversion["advertiser_id"], conversion["event_time"])
        found = touches_of(conversion, touches, rule)
        value = conversion["value_micros"] or 0
        assert len(set(rule["models"])) == len(rule["models"]) > 0
        for model in rule["models"]:
            if not found:
                _add(rows, _credit_key(conversion, model, None), (WHOLE_CREDIT, value))
                continue
            weights = weights_of(model, [touch.time for touch in found], rule)
            for touch, *figures in zip(found, shares(WHOLE_CREDIT, weights), shares(value, weights)):
                _add(rows, _credit_key(conversion, model, touch), figures)
    return _without_zeros(rows)


def attribution(credits: dict[tuple, tuple[int, int]]) -> dict[tuple, tuple[int, int]]:
    """ATTRIBUTION_KEY -> (conversions in units of 10^-9, value_micros), in the conversion's hour."""
    rows: dict[tuple, tuple[int, int]] = {}
    for key, figures in credits.items():
        row = dict(zip(CREDIT_KEY, key))
        row["window_start"] = hour_of(row["conversion_time"])
        _add(rows, tuple(row[name] for name in ATTRIBUTION_KEY), figures)
    return _without_zeros(rows)


def _credit_key(conversion: dict, model: str, touch: Touch | None) -> tuple:
    row = {
        "conversion_id": conversion["event_id"], "model": model, "conversion_time": conversion["event_time"],
        "conversion_type": conversion["conversion_type"], "currency": conversion["currency"],
        "advertiser_id": ("test:" if is_test(conversion) else "") + conversion["advertiser_id"],
    }
    if touch is not None:
        row["touch_id"], row["touch_type"] = touch.event["event_id"], touch.event["event_type"]
        row["touch_time"] = touch.time
        for name in PLACE:
            row[name] = touch.impression.event[name]
    return tuple(row.get(name) for name in CREDIT_KEY)


def _add(rows: dict, key: tuple, figures) -> None:
    credit, micros = rows.get(key, (0, 0))
    rows[key] = (credit + figures[0], micros + figures[1])


def _without_zeros(rows: dict) -> dict:
    return {key: figures for key, figures in rows.items() if figures != (0, 0)}
