"""Which touches of a conversion are eligible, and what each model credits them with (contract section 4).

Everything is integers, so every implementation that follows this text gives the same answer on every machine.

*Weights.* A model gives each of a conversion's n touches, in touch order, a whole number:
  last_touch, first_touch   1 for that one, 0 for the others
  linear                    1 for each
  position_based            of weights a, b, c over their sum: n = 1 all; n = 2 is a : c; else a(n-2), b for each of the
                            middle, c(n-2)
  time_decay                floor(2^48 x 2^(-(age - age of the youngest) / half_life)), the floor of the real number. The
                            youngest has 2^48 however old it is, so that old conversions do not run out of digits.

*Largest remainder* (Hamilton; Balinski and Young, "Fair Representation", 1982). A total T is shared as floor(T w / W), W
the sum of the weights; what is left over goes by one to the touches with the largest T w mod W, of equal ones to those
first in touch order. For the credit T is 10^9 (its nine decimals), for the value the conversion's micros.

The models are those of Google Ads (its API's reference, AttributionModelEnum), where time decay has a half-life of a week
and position based gives 40 % to the first and the last and shares the rest.
"""

from decimal import Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numba import njit

from measurement.model.attribution import MODELS, AttributionRule

CREDIT_UNITS = 10**9  # a whole conversion: credit is NUMERIC with 9 decimals
DECAY_BITS = 48  # of the youngest touch's weight
_LOG_2 = Decimal(2).ln(Context(prec=60))

_LAST, _FIRST, _LINEAR, _DECAY, _POSITION = range(5)
_MOST_DECAYED = 1 << (62 - DECAY_BITS)  # touches of a conversion whose weights surely sum below 2^62


class Eligible(NamedTuple):
    """What `eligible` kept of t candidates, k of them."""

    kept: np.ndarray  # bool (t,)
    order: np.ndarray  # int64 (k,), positions of the kept candidates: conversion by conversion, each in touch order
    starts: np.ndarray  # int64 (c + 1,), where each conversion's touches begin in ``order``


def eligible(
    starts: np.ndarray, times: np.ndarray, is_click: np.ndarray, impression_hi: np.ndarray, impression_lo: np.ndarray,
    rank: np.ndarray, conversion_times: np.ndarray, click_lookback: np.ndarray, view_lookback: np.ndarray,
    click_over_view: np.ndarray,
) -> Eligible:
    """The touches of c conversions among t candidates, the candidates of conversion i being ``starts[i]:starts[i + 1]``.

    Of the candidates, in any order within their conversion:
      times int64 (t,)                     µs of the impression or click
      is_click bool (t,)
      impression_hi, _lo uint64 (t,)       the impression: its own identity, or the one that the click is joined to
      rank int64 (t,)                      the place of its event_id among those of the conversion's candidates. Equal ranks
                                           (clicks of two impressions under one event_id) are ordered by impression.
    Of the conversions:
      starts int64 (c + 1,)
      conversion_times, click_lookback, view_lookback int64 (c,)   µs
      click_over_view bool (c,)            the rule's priority

    Eligible is what lies before the conversion and at most the lookback of its type away. An impression is at most one
    touch: its latest eligible click, else itself. Where ``click_over_view``, impressions stand only if no click is eligible.
    Touches are ordered by time, then rank. Each impression itself may be there once; a conversion may have no candidates,
    and may keep none.
    """
    starts = np.ascontiguousarray(starts, np.int64)
    widest = int(np.diff(starts).max(initial=0))
    kept = np.zeros(len(times), np.bool_)
    order = np.empty(len(times), np.int64)
    new_starts = np.zeros(len(starts), np.int64)
    count = _eligible(
        starts, np.ascontiguousarray(times, np.int64), np.ascontiguousarray(is_click, np.bool_),
        np.ascontiguousarray(impression_hi, np.uint64), np.ascontiguousarray(impression_lo, np.uint64),
        np.ascontiguousarray(rank, np.int64), np.ascontiguousarray(conversion_times, np.int64),
        np.ascontiguousarray(click_lookback, np.int64), np.ascontiguousarray(view_lookback, np.int64),
        np.ascontiguousarray(click_over_view, np.bool_), widest, kept, order, new_starts,
    )
    return Eligible(kept, order[:count], new_starts)


def credits(
    model: str, rule: AttributionRule, starts: np.ndarray, ages: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Credit and micros of every touch of c conversions under one model.

    ``starts`` int64 (c + 1,): the touches of conversion i are ``starts[i]:starts[i + 1]``, in touch order (time, then
    event_id). ``ages`` int64 (t,): µs from touch to conversion, not negative. ``values`` int64 (c,): micros, not negative.
    Of the rule only ``half_life`` and ``position_weights`` matter, so conversions of several advertisers may share a call.

    Returns credit int64 (t,) in units of 10^-9 and micros int64 (t,); over a conversion they sum to exactly 10^9 and to its
    value. A conversion without touches has no place in either; its row is the caller's. ValueError for an unknown model, or
    a negative age or value.
    """
    if model not in MODELS:
        raise ValueError(f"{model!r} is no model; known: {', '.join(MODELS)}")
    starts, ages, values = (np.ascontiguousarray(a, np.int64) for a in (starts, ages, values))
    if (len(ages) and ages.min() < 0) or (len(values) and values.min() < 0):
        raise ValueError("ages and values must not be negative")
    credit, micros = np.empty(len(ages), np.int64), np.empty(len(ages), np.int64)
    kind, counts = MODELS.index(model), np.diff(starts)
    widest = int(counts.max(initial=0))
    if kind in (_LAST, _FIRST):
        _all_to_one(kind == _LAST, starts, values, credit, micros)
        return credit, micros
    weights = np.empty(len(ages), np.int64)
    if kind == _DECAY:
        unsure = np.empty((2, len(ages)), np.int64)
        count = _decayed(starts, ages, rule.half_life, _TENTHS, _TWENTIETHS, weights, unsure)
        for i, lag in zip(unsure[0, :count].tolist(), unsure[1, :count].tolist()):
            weights[i] = decay_weight(lag, rule.half_life)
    else:
        _placed(starts, *((1, 1, 1) if kind == _LINEAR else rule.position_weights), kind == _LINEAR, weights)
    most = _MOST_DECAYED if kind == _DECAY else 2**31
    scratch = np.empty((2, min(widest, most)), np.int64)
    _apportion_all(starts, weights, values, most, scratch, credit, micros)
    for i in np.flatnonzero(counts >= most):  # sums beyond 62 bits: crawlers, if ever
        own = slice(starts[i], starts[i + 1])
        credit[own] = apportion(CREDIT_UNITS, weights[own].tolist())
        micros[own] = apportion(int(values[i]), weights[own].tolist())
    return credit, micros


# -- the same in Python's integers, for what the kernels cannot decide --------------------------------------------------

def apportion(total: int, weights: list[int]) -> list[int]:
    """``total`` by largest remainder, of any size."""
    whole = sum(weights)
    shares = [total * w // whole for w in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(total * weights[i] % whole))  # stable: touch order
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def decay_weight(lag: int, half_life: int) -> int:
    """floor(2^48 x 2^(-lag / half_life)), for µs."""
    halvings, rest = divmod(lag, half_life)
    if halvings > DECAY_BITS:
        return 0
    if not rest:
        return (1 << DECAY_BITS) >> halvings
    # 2 to a fraction is irrational, so it is no whole number; within 10^-20 of one it will not be either.
    with localcontext(Context(prec=40)):
        return int((1 << DECAY_BITS - halvings) * (-rest * _LOG_2 / half_life).exp())


def _powers(bits: int, scale: int) -> np.ndarray:
    """2^(-i / 2^scale) for i below 2^bits, as floors of 63 binary places."""
    with localcontext(Context(prec=60)):
        step = Decimal(2) ** (-Decimal(1) / (1 << scale))
        return np.array([int(step**i * (1 << 63)) for i in range(1 << bits)], np.uint64)


_TENTHS = _powers(10, 10)  # by the first ten binary places of the exponent
_TWENTIETHS = _powers(10, 20)  # by the next ten


# -- kernels ----------------------------------------------------------------------------------------------------------

_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1) << np.uint64(63)  # 1.0 with 63 binary places
_LN2 = np.uint64(int(_LOG_2 * (1 << 63)))
_UNSURE = np.uint64(16)  # units of 2^-63: twice what the roundings below can sum to


@njit
def _share(x, w, whole):
    """floor(x w / whole) and the rest, for 0 <= x <= 2^32, 0 <= w <= whole < 2^62, exactly.

    The quotient is at most 2^32, so that its estimate in float64 is off by one at most; the rest tells, being known modulo
    2^64 and near 0.
    """
    quotient = np.int64(np.float64(x) * np.float64(w) / np.float64(whole))
    rest = np.int64(np.uint64(x) * np.uint64(w) - np.uint64(quotient) * np.uint64(whole))
    while rest < 0:
        rest += whole
        quotient -= 1
    while rest >= whole:
        rest -= whole
        quotient += 1
    return quotient, rest


@njit
def _share_long(total, w, whole):
    """`_share` for a total below 2^63: by its upper and lower half."""
    if total < 1 << 32:
        return _share(total, w, whole)
    high, rest_high = _share(total >> 32, w, whole)
    middle, rest_middle = _share(1 << 32, rest_high, whole)
    low, rest = _share(total & 0xFFFFFFFF, w, whole)
    quotient = (high << 32) + middle + low
    rest += rest_middle
    if rest >= whole:
        return quotient + 1, rest - whole
    return quotient, rest


@njit
def _nth_largest(values, n, count):
    """The n-th largest (from 1) of ``values[:count]``, which are reordered. Hoare's selection."""
    low, high, at = 0, count - 1, n - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if at <= j:
            high = j
        elif at >= i:
            low = i
        else:
            break
    return values[at]


@njit
def _apportion(total, weights, a, b, whole, scratch, out):
    """``total`` over ``weights[a:b]``, which sum to ``whole``, by largest remainder, into ``out[a:b]``."""
    left = total
    rests, chosen = scratch[0], scratch[1]
    for i in range(a, b):
        out[i], rests[i - a] = _share_long(total, weights[i], whole)
        chosen[i - a] = rests[i - a]
        left -= out[i]
    if not left:
        return
    least = _nth_largest(chosen, left, b - a)
    for i in range(a, b):
        if rests[i - a] > least:
            out[i] += 1
            left -= 1
    for i in range(a, b):
        if not left:
            return
        if rests[i - a] == least:
            out[i] += 1
            left -= 1


@njit(cache=True, nogil=True)
def _apportion_all(starts, weights, values, most, scratch, credit, micros):
    """Both totals of every conversion of fewer than ``most`` touches."""
    for c in range(len(starts) - 1):
        a, b = starts[c], starts[c + 1]
        if a == b or b - a >= most:
            continue
        whole = 0
        for i in range(a, b):
            whole += weights[i]
        _apportion(1_000_000_000, weights, a, b, whole, scratch, credit)
        _apportion(values[c], weights, a, b, whole, scratch, micros)


@njit(cache=True, nogil=True)
def _all_to_one(last, starts, values, credit, micros):
    credit[:] = 0
    micros[:] = 0
    for c in range(len(starts) - 1):
        if starts[c] < starts[c + 1]:
            at = starts[c + 1] - 1 if last else starts[c]
            credit[at] = 1_000_000_000
            micros[at] = values[c]


@njit(cache=True, nogil=True)
def _placed(starts, first, middle, last, alike, weights):
    """Weights by place; ``alike``: 1 for each."""
    for c in range(len(starts) - 1):
        a, b = starts[c], starts[c + 1]
        n = b - a
        if alike or n == 1:
            weights[a:b] = 1
        elif n == 2:
            weights[a] = first
            weights[a + 1] = last
        elif n:
            weights[a:b] = middle
            weights[a] = first * (n - 2)
            weights[b - 1] = last * (n - 2)


@njit
def _times(x, y):
    """The product of two numbers of 63 binary places, rounded down."""
    xh, xl, yh, yl = x >> _32, x & _LOW, y >> _32, y & _LOW
    middle = xh * yl + ((xl * yl) >> _32)
    other = xl * yh + (middle & _LOW)
    high = xh * yh + (middle >> _32) + (other >> _32)
    return (high << np.uint64(1)) | ((other & _LOW) >> np.uint64(31))


@njit
def _places(x, y):
    """floor(2^62 x / y) for 0 <= x < y < 2^52: 31 binary places, then 31 more."""
    first, rest = _share(1 << 31, x, y)
    second, _ = _share(1 << 31, rest, y)
    return (np.uint64(first) << np.uint64(31)) | np.uint64(second)


@njit(cache=True, nogil=True)
def _decayed(starts, ages, half_life, tenths, twentieths, weights, unsure):
    """time_decay's weights; returns how many (places and lags) are in ``unsure``: too near a whole number to be
    floored from 63 places.

    2^-f is the product of a table's value for ten places of f, another's for the next ten, and e^-x = 1 - x + x^2/2 for
    the rest, x < 2^-20. The exponent's last place, both tables, three products and the series are each off by less than 1
    unit of 2^-63, but for the first, which is off by 1.4.
    """
    count = 0
    ten, twenty = np.uint64(52), np.uint64(42)
    index, tail = np.uint64(1023), (np.uint64(1) << twenty) - np.uint64(1)
    for c in range(len(starts) - 1):
        a, b = starts[c], starts[c + 1]
        if a == b:
            continue
        youngest = ages[a]
        for i in range(a, b):
            youngest = min(youngest, ages[i])
        for i in range(a, b):
            lag = ages[i] - youngest
            halvings = lag // half_life
            rest = lag - halvings * half_life
            if halvings > DECAY_BITS:
                weights[i] = 0
                continue
            if rest == 0:
                weights[i] = (1 << DECAY_BITS) >> halvings
                continue
            f = _places(rest, half_life)
            x = _times((f & tail) << np.uint64(1), _LN2)
            power = _ONE - x + (_times(x, x) >> np.uint64(1))
            power = _times(_times(tenths[f >> ten], twentieths[(f >> twenty) & index]), power)
            shift = np.uint64(63 - DECAY_BITS + halvings)
            floor = power >> shift
            weights[i] = np.int64(floor)
            if (power - _UNSURE) >> shift != floor or (power + _UNSURE) >> shift != floor:
                unsure[0, count], unsure[1, count] = i, lag
                count += 1
    return count


@njit
def _before(x, y, times, rank, hi, lo):
    if times[x] != times[y]:
        return times[x] < times[y]
    if rank[x] != rank[y]:
        return rank[x] < rank[y]
    if hi[x] != hi[y]:
        return hi[x] < hi[y]
    return lo[x] < lo[y]


@njit
def _sort(found, n, other, times, rank, hi, lo):
    """Orders ``found[:n]`` by touch: runs by insertion, then merged. Candidates mostly come by time already."""
    run = 16
    for a in range(0, n, run):
        for i in range(a + 1, min(a + run, n)):
            x, j = found[i], i
            while j > a and _before(x, found[j - 1], times, rank, hi, lo):
                found[j] = found[j - 1]
                j -= 1
            found[j] = x
    while run < n:
        for a in range(0, n, 2 * run):
            m, b = min(a + run, n), min(a + 2 * run, n)
            if m >= b or _before(found[m - 1], found[m], times, rank, hi, lo):
                continue
            other[a:m] = found[a:m]
            i, j, k = a, m, a
            while i < m:
                if j < b and _before(found[j], other[i], times, rank, hi, lo):
                    found[k] = found[j]
                    j += 1
                else:
                    found[k] = other[i]
                    i += 1
                k += 1
        run *= 2


@njit
def _slot(table, mask, x, hi, lo):
    """Where x's impression stands in the table, or the empty place where it would."""
    at = np.int64(lo[x] & np.uint64(mask))
    while table[at] >= 0 and (hi[table[at]] != hi[x] or lo[table[at]] != lo[x]):
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def _eligible(
    starts, times, is_click, hi, lo, rank, conversion_times, click_lookback, view_lookback, click_over_view, widest, kept,
    order, new_starts,
):
    size = 16
    while size <= 2 * widest:  # as the mask below, which is at least 2 * clicks
        size *= 2
    table = np.empty(size, np.int64)
    other = np.empty(widest, np.int64)
    count = 0
    for c in range(len(starts) - 1):
        n = clicks = 0
        found = order[count:]  # never reaches beyond the candidates seen so far
        for i in range(starts[c], starts[c + 1]):
            age = conversion_times[c] - times[i]
            if 0 < age <= (click_lookback[c] if is_click[i] else view_lookback[c]):
                found[n] = i
                n += 1
                clicks += is_click[i]
        _sort(found, n, other, times, rank, hi, lo)
        if clicks:
            mask = 15
            while mask < 2 * clicks:
                mask = 2 * mask + 1
            table[: mask + 1] = -1
            for j in range(n - 1, -1, -1):  # from the latest: the first click of an impression stands
                if is_click[found[j]]:
                    at = _slot(table, mask, found[j], hi, lo)
                    if table[at] < 0:
                        table[at] = found[j]
            stand = 0
            for j in range(n):
                x = found[j]
                if is_click[x]:
                    stands = table[_slot(table, mask, x, hi, lo)] == x
                else:
                    stands = not click_over_view[c] and table[_slot(table, mask, x, hi, lo)] < 0
                if stands:
                    found[stand] = x
                    stand += 1
            n = stand
        for j in range(n):
            kept[found[j]] = True
        count += n
        new_starts[c + 1] = count
    return count
