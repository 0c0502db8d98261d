"""Who earned each conversion: the truth of the tables conversion_credits and attribution (contract section 4).

Written for its own sake and slowly on purpose: candidates are gathered by sorting, and then each conversion is credited by
itself in Python's integers, with none of the pipeline's code. Only the policy's form is shared.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np

from measurement.model.attribution import CLICK_OVER_VIEW, Attribution, AttributionRule
from measurement.model.events import CLICK, CONVERSION, IMPRESSION, MICROS_PER_HOUR, OUTCOMES
from measurement.simulate.columns import NO_ID, NULL, Booking, booking_names
from measurement.simulate.events import Clean
from measurement.simulate.ids import event_ids, mix_all
from measurement.simulate.world import CONVERSION_TYPES, CURRENCIES, World

CREDIT_COLUMNS = (
    "conversion_id", "model", "touch_id", "conversion_time", "conversion_type", "advertiser_id", "touch_type", "touch_time",
    "campaign_id", "line_item_id", "creative_id", "placement_id", "credit", "value_micros", "currency",
)
ATTRIBUTION_COLUMNS = (
    "window_start", "advertiser_id", "campaign_id", "line_item_id", "creative_id", "placement_id", "conversion_type", "model",
    "touch_type", "currency", "conversions", "value_micros",
)
WHOLE = 10**9  # a conversion, in units of a credit's ninth decimal
_YOUNGEST = 48  # time_decay: binary places of the youngest touch's weight
_COUNTED = OUTCOMES.index("counted")
_DIGITS = Context(prec=60)
_LN_2 = Decimal(2).ln(_DIGITS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Credits(NamedTuple):
    """Rows in the order of the columns above, sorted, an unknown text first."""

    rows: list[tuple]
    attribution: list[tuple]


class Touch(NamedTuple):
    """All null where no touch was eligible."""

    id: str | None
    click: bool | None
    time: int | None  # micros
    impression: int | None  # where it stands among the clean events
    booked: tuple[str | None, ...]  # campaign, line item, creative, placement of the impression


class Conversion(NamedTuple):
    id: str
    time: int
    type: str | None
    advertiser: str
    value: int
    currency: str | None


_NO_TOUCH = Touch(None, None, None, None, (None,) * 4)


def credits_of(
    world: World, clean: Clean, outcome: np.ndarray, user: np.ndarray, policy: Attribution, salt: int
) -> Credits:
    """`outcome` (i1[C]) is each clean event's final one, `user` (i4[C]) whom it is credited by."""
    rows = []
    summed = defaultdict(lambda: [0, 0])
    for conversion, seen in _met(world, clean, outcome, user, salt):
        at, hour = _instant(conversion.time), conversion.time // MICROS_PER_HOUR
        rule = policy.rule_for(conversion.advertiser, conversion.time)
        touches = eligible(rule, conversion.time, seen)
        for model in rule.models:
            for touch, credit, value in credited(model, rule, conversion, touches):
                kind = None if touch.id is None else "click" if touch.click else "impression"
                rows.append((
                    conversion.id, model, touch.id, at, conversion.type, conversion.advertiser, kind,
                    _instant(touch.time), *touch.booked, _numeric(credit), value, conversion.currency,
                ))
                total = summed[
                    hour, conversion.advertiser, *touch.booked, conversion.type, model, kind, conversion.currency
                ]
                total[0] += credit
                total[1] += value
    attribution = [(_hour(hour), *texts, _numeric(credit), value) for (hour, *texts), (credit, value) in summed.items()]
    return Credits(sorted(rows, key=_texts), sorted(attribution, key=_texts))


def credited(
    model: str, rule: AttributionRule, conversion: Conversion, touches: list[Touch]
) -> list[tuple[Touch, int, int]]:
    """Touches that earned something, each with its units of credit and its micros."""
    if not touches:
        return [(_NO_TOUCH, WHOLE, conversion.value)]
    weights = weights_of(model, rule, [conversion.time - touch.time for touch in touches])
    earned = defaultdict(lambda: [0, 0])  # what no column tells apart is one row
    for touch, credit, value in zip(touches, shared(WHOLE, weights), shared(conversion.value, weights)):
        total = earned[touch._replace(impression=None)]
        total[0] += credit
        total[1] += value
    return [(touch, credit, value) for touch, (credit, value) in earned.items() if credit or value]


def eligible(rule: AttributionRule, at: int, seen: list[Touch]) -> list[Touch]:
    """Of what a conversion's person had `seen` of its advertiser, in touch order, the touches of a conversion `at` micros."""
    lookback = {True: rule.click_lookback, False: rule.view_lookback}
    near = [touch for touch in seen if 0 < at - touch.time <= lookback[touch.click]]
    last_click = {touch.impression: touch for touch in near if touch.click}  # the last of each stays
    if last_click and rule.priority == CLICK_OVER_VIEW:
        near = [touch for touch in near if touch.click]
    return [touch for touch in near if last_click.get(touch.impression, touch) is touch]


def weights_of(model: str, rule: AttributionRule, ages: list[int]) -> list[int]:
    """What each touch weighs, in touch order."""
    n = len(ages)
    match model:
        case "last_touch":
            return [0] * (n - 1) + [1]
        case "first_touch":
            return [1] + [0] * (n - 1)
        case "linear":
            return [1] * n
        case "time_decay":
            youngest = min(ages)
            return [_decayed(age - youngest, rule.half_life) for age in ages]
        case "position_based":
            first, middle, last = rule.position_weights
            if n < 3:
                return [1] if n == 1 else [first, last]
            return [first * (n - 2)] + [middle] * (n - 2) + [last * (n - 2)]
    raise ValueError(f"{model!r} is no model")


def shared(total: int, weights: list[int]) -> list[int]:
    """`total` by largest remainder, of equal ones the first."""
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _met(
    world: World, clean: Clean, outcome: np.ndarray, user: np.ndarray, salt: int
) -> Iterator[tuple[Conversion, list[Touch]]]:
    """Each counted conversion, and what its person saw and clicked of its advertiser before, in touch order."""
    columns = clean.columns
    counted = outcome == _COUNTED
    conversions = np.flatnonzero(counted & (columns.event_type == CONVERSION))
    touches = np.flatnonzero(
        counted & ((columns.event_type == IMPRESSION) | (columns.event_type == CLICK)) & (user != NO_ID)
    )

    def pairs(booking: np.ndarray, person: np.ndarray) -> np.ndarray:
        """Advertiser and person in one number."""
        return world.advertiser[booking // len(Booking)] << 32 | person.astype(np.int64)

    who = pairs(columns.booking[conversions], np.maximum(user[conversions], 0))
    under = clean.impression_row[clean.group[touches]]
    pair = pairs(columns.booking[under], user[touches])
    wanted = np.isin(pair, who)
    touches, under, pair = touches[wanted], under[wanted], pair[wanted]
    # Ids sort as the numbers they begin with.
    order = np.lexsort((mix_all(columns.key[touches], np.uint64(salt)), columns.event_time[touches], pair))
    touches, under, pair = touches[order], under[order], pair[order]

    times = columns.event_time[touches].tolist()
    booking = {code: booking_names(world.bookings[code // len(Booking)], Booking(code % len(Booking)))[1:]
               for code in np.unique(columns.booking[under]).tolist()}
    seen = [Touch(id, kind == CLICK, time, impression, booking[code]) for id, kind, time, impression, code in zip(
        event_ids(columns.key[touches], salt), columns.event_type[touches].tolist(), times, under.tolist(),
        columns.booking[under].tolist())]

    first, end = np.searchsorted(pair, who, "left"), np.searchsorted(pair, who, "right")
    end[user[conversions] == NO_ID] = 0
    for id, time, kind, package, value, currency, a, b in zip(
        event_ids(columns.key[conversions], salt), *(column.tolist() for column in (
            columns.event_time[conversions], columns.conversion_type[conversions],
            columns.booking[conversions] // len(Booking), columns.value[conversions], columns.currency[conversions],
            first, end))
    ):
        conversion = Conversion(
            id, time, CONVERSION_TYPES[kind], world.bookings[package][0], 0 if value == NULL else value, CURRENCIES[currency])
        yield conversion, seen[a : bisect_left(times, time, a, b)] if a < b else []


def _decayed(lag: int, half_life: int) -> int:
    """floor(2^48 * 2^(-lag / half_life))."""
    if lag % half_life == 0:
        return 2**_YOUNGEST >> lag // half_life
    # 2 to a fraction is irrational, and so many digits never take it over a whole number.
    with localcontext(_DIGITS):
        return int(2**_YOUNGEST * (-_LN_2 * lag / half_life).exp())


def _numeric(units: int) -> str:
    return f"{units // WHOLE}.{units % WHOLE:09d}"


def _instant(micros: int | None) -> str | None:
    return None if micros is None else f"{_EPOCH + timedelta(microseconds=micros):%Y-%m-%dT%H:%M:%S.%fZ}"


def _hour(hour: int) -> str:
    return f"{_EPOCH + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}"


def _texts(row: tuple) -> list[str]:
    """What rows are sorted by; in either table the last two columns tell no rows apart."""
    return [value or "" for value in row[:-2]]
