"""The way to a conversion: who meets one advertiser again and again, and what a conversion does not owe to the ad before it.

Drawn from random numbers of its own, so that how people travel can change without another event in the log.
"""

import numpy as np

from measurement.model.events import MICROS_PER_HOUR
from measurement.simulate import world as w
from measurement.simulate.columns import NO_ID, NULL, Columns
from measurement.simulate.ids import mix_all

_DAY = 24 * MICROS_PER_HOUR
AFTERWARDS = 6 * MICROS_PER_HOUR  # behind the span of the impressions' times

_RETURNING = 0.35  # of impressions: shown to an advertiser's audience
_SHOPPING = 0.75  # of impressions that are clicked or converted on: by those of the audience who shop
_PER_MEMBER, _PER_SHOPPER = 6, 3  # such impressions a person, about, where there are enough
_TOGETHER = 0.3  # of two impressions in a row of one advertiser in one place: two ads of one page, at the same instant

_UNHURRIED = 0.4  # of conversions: days after the ad, where the log is long enough
_PATIENCE = 1.5 * _DAY
_EXACTLY = (0, MICROS_PER_HOUR, _DAY, _DAY + 1)  # lookbacks hold to the microsecond, and a touch is before its conversion
_EXACT = 0.06
_UNKNOWN, _NEWCOMERS = 0.04, 0.07  # of conversions: by nobody known, by people who never saw an ad


def people(
    advertiser: np.ndarray, pool: np.ndarray, in_pool: np.ndarray, pool_size: int, shops: np.ndarray, rng
) -> np.ndarray:
    """Persons (i8[G]) of groups by their advertiser (i8), pool (i4) and whether there is a click or conversion (`shops`).

    Most are whoever is there (`in_pool`, numbers below `pool_size`); of each advertiser and pool some persons return.
    """
    audience = advertiser * (int(pool.max(initial=0)) + 1) + pool
    member = rng.random(pool.size)
    chance = rng.random(pool.size, np.float32)
    number = in_pool.copy()
    for of, share, per_person in (
        (np.ones(pool.size, np.bool_), _RETURNING, _PER_MEMBER), (shops, _SHOPPING, _PER_SHOPPER)
    ):
        # The shoppers are the first of the audience, whom most of its impressions reach.
        size = np.maximum(2, np.bincount(audience[of], minlength=int(audience.max(initial=0)) + 1)[audience] // per_person)
        chosen = of & (chance < share)
        first = mix_all(audience[chosen], np.uint64(0)) % np.uint64(pool_size)  # audiences overlap here and there
        number[chosen] = (first.astype(np.int64) + (member**1.6 * size)[chosen].astype(np.int64)) % pool_size
    return pool.astype(np.int64) * pool_size + number


def together(advertiser: np.ndarray, pool: np.ndarray, rng) -> np.ndarray:
    """Of groups in the order of their time: the group (i8[G]) whose person and time each shares, mostly its own."""
    same = (np.diff(advertiser) == 0) & (np.diff(pool) == 0) & (rng.random(max(0, pool.size - 1)) < _TOGETHER)
    alone = np.arange(pool.size)
    alone[1:][same] = 0
    return np.maximum.accumulate(alone)


def click_people(columns: Columns, rows: slice, person: np.ndarray, rng) -> None:
    """Clicks know people by themselves: some not at all, some where the impression did not, some another of the household."""
    u = rng.random(person.size, np.float32)
    user = columns.user[rows]
    user[u < 0.10] = person[u < 0.10]
    user[u < 0.05] = NO_ID
    other = u < 0.03
    user[other] = person[other] // 3 * 3 + (person[other] + 1) % 3


def conversions(columns: Columns, rows: slice, seen: np.ndarray, end: int, strangers: int, rng) -> None:
    """Spread conversions (`rows`) over the time left until `end` behind what was `seen` before each (i8 micros), and over
    people; `strangers` is the first number above all people's."""
    size = seen.size
    time = columns.event_time[rows]
    later = seen + (rng.standard_exponential(size) * _PATIENCE).astype(np.int64)
    unhurried = (rng.random(size) < _UNHURRIED) & (later > time) & (later < end)
    time[unhurried] = later[unhurried]
    later = seen + np.array(_EXACTLY)[rng.integers(0, len(_EXACTLY), size)]
    exact = (rng.random(size) < _EXACT) & (later < end)
    time[exact] = later[exact]

    u = rng.random(size, np.float32)
    user = columns.user[rows]
    newcomers = np.flatnonzero(u < _UNKNOWN + _NEWCOMERS)
    user[newcomers] = strangers + newcomers
    user[u < _UNKNOWN] = NO_ID

    # Worth nothing, or no round sum; and now and then paid in another currency than the ad.
    value = columns.value[rows]
    u = rng.random(size, np.float32)
    valued = value != NULL
    value[valued & (u < 0.3)] += rng.integers(0, 10_000, size)[valued & (u < 0.3)]
    value[valued & (u < 0.02)] = 0
    abroad = rng.random(size, np.float32) < 0.05
    columns.currency[rows][abroad] = rng.integers(0, len(w.CURRENCIES), size, np.uint8)[abroad]


def second_reports(columns: Columns, rows: slice, rng) -> None:
    """A shop's own report of an order does not always know the browser's person."""
    columns.user[rows][rng.random(rows.stop - rows.start) < 0.2] = NO_ID
