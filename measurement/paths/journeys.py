"""Paths: the sequences of campaigns that users walked through, those that ended in a conversion and those that did not.

*Converting path.* A conversion's eligible touches under the advertiser's rule at its time (contract section 4), in touch
order, as their campaigns. A conversion without one has no path: nobody can be credited with it, and it is counted apart.

*Non-converting path*, by which a model learns where a campaign leads to nothing.
  - An impression is one touch here as well: the latest of its user's clicks on it, else itself.
  - A touch that a conversion of the user followed within the lookback of its type, under the rule that holds for that
    conversion, led there; whether it was credited or gave way to others, it is in no non-converting path. All others are.
  - A user's others are one path, in touch order; a new one begins where a conversion lies between two successive ones, or
    where they are further apart than the click lookback that holds at the later one.
  - Under priority click_over_view a path with a click is its clicks alone (cut again where those are too far apart): a
    conversion at its end would have had no view credited, and campaigns that only show must not be charged for it.
So every touch leads to a conversion, or to none, or gives way to another. Once a lookback has passed, later events change a
path no more; until then a touch may count as unsuccessful that is not yet. Impressions older than the view lookback of the
conversion that followed count as unsuccessful, which is what such a lookback says of them.

*Range.* Half-open: conversions by their time, other paths by the time of their last touch. Touches before it count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from measurement.model.attribution import CLICK_OVER_VIEW, Attribution, AttributionRule
from measurement.paths.facts import Facts
from measurement.rules.attribution import eligible
from measurement.rules.paths import Path

NO_CHANNEL = "(none)"  # a touch without a campaign

_CANDIDATES = 1 << 22  # touches at a time, each counted once for every conversion that it may be eligible for


@dataclass(frozen=True)
class Credited:
    """c conversions with at least one touch, and their k touches, as the rule-based models need them."""

    starts: np.ndarray  # int64 (c + 1,): where each conversion's touches begin
    channel: np.ndarray  # int64 (k,): positions in ``channels``
    ages: np.ndarray  # int64 (k,): µs from touch to conversion
    value: np.ndarray  # int64 (c,): micros
    currency: np.ndarray  # int64 (c,): positions in ``currencies``
    rule: np.ndarray  # int64 (c,): positions in ``rules``


@dataclass(frozen=True)
class Journeys:
    """One advertiser's paths in a range. The channels and sequences are sorted; micros are by currency, as are the lists."""

    advertiser: str
    rules: tuple[AttributionRule, ...]  # that hold for its conversions
    currencies: tuple[str | None, ...]  # of its conversions, None last
    channels: tuple[str, ...]
    conversions: int  # with a touch or without
    value: tuple[int, ...]
    untouched: int  # conversions without a touch
    untouched_value: tuple[int, ...]
    touches: int  # in its paths, each counted once
    credited: Credited
    sequences: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[int, int], ...]  # of each sequence: conversions, nulls
    values: tuple[tuple[int, ...], ...]  # of each currency, of each sequence

    @property
    def converting(self) -> int:
        return self.conversions - self.untouched

    @property
    def nulls(self) -> int:
        return sum(nulls for _, nulls in self.counts)

    def paths(self, currency: int) -> list[Path]:
        """The paths with all conversions, and the value of those in the currency at that position."""
        return [Path(sequence, conversions, value, nulls)
                for sequence, (conversions, nulls), value in zip(self.sequences, self.counts, self.values[currency])]


def exact_sums(groups: np.ndarray, amounts: np.ndarray, count: int) -> list[int]:
    """``amounts`` int64 (n,) summed by group (n,), below ``count``. Sums of micros may exceed 64 bits."""
    high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.add.at(high, groups, amounts >> 32)
    np.add.at(low, groups, amounts & 0xFFFFFFFF)
    return [(h << 32) + l for h, l in zip(high.tolist(), low.tolist())]


def journeys(
    facts: Facts, attribution: Attribution, since: int | None = None, until: int | None = None, advertiser: str | None = None,
) -> list[Journeys]:
    """The paths of each advertiser that has any in [since, until) µs, or conversions there; sorted by advertiser.

    ``advertiser``: only that one; ValueError if it is none of ``facts.advertisers``.
    """
    only = None if advertiser is None else facts.advertisers.index(advertiser)
    since, until = -(2**62) if since is None else since, 2**62 if until is None else until
    touches, conversions, moments = _in_order(facts, only)
    rules, rule = attribution.rules_for(facts.advertisers, conversions.advertiser, conversions.time)
    walks, followed = _converting(touches, conversions, moments, rules, rule)
    nulls = _unconverted(touches, _standing(touches) & ~followed, conversions, facts.advertisers, attribution)
    ended = touches.time[nulls.touches[nulls.starts[1:] - 1]]
    nulls = _some(nulls, (since <= ended) & (ended < until))
    inside = (since <= conversions.time) & (conversions.time < until)
    conversions = _Conversions(*(column[inside] for column in conversions))
    return _by_advertiser(facts, touches, conversions, rules, rule[inside], _some(walks, inside), nulls)


class _Touches(NamedTuple):
    """n touches by user, each user's by time, then event_id, then impression."""

    user: np.ndarray  # int64, dense numbers
    advertiser: np.ndarray
    channel: np.ndarray
    time: np.ndarray
    is_click: np.ndarray
    hi: np.ndarray  # the impression
    lo: np.ndarray
    rank: np.ndarray  # of the event_id among those of the same user and time
    key: np.ndarray  # int64, rising with user, then time


class _Conversions(NamedTuple):
    """c conversions by advertiser, then time."""

    user: np.ndarray  # int64, numbers of the touches' users, and others
    advertiser: np.ndarray
    time: np.ndarray
    value: np.ndarray
    currency: np.ndarray
    key: np.ndarray  # int64, as the touches have it


class _Walks(NamedTuple):
    """w sequences of touches: those of walk i are ``touches[starts[i]:starts[i + 1]]``."""

    starts: np.ndarray  # int64 (w + 1,)
    touches: np.ndarray  # int64 (k,), positions


def _in_order(facts: Facts, only: int | None) -> tuple[_Touches, _Conversions, np.ndarray]:
    """Both, of one advertiser or all, and the distinct times that keys are made of: user * len(times) + place of the time."""
    own = facts.touch_user.any(axis=1)  # without a user a touch is nobody's
    mine = np.ones(len(facts.conversion_time), bool)
    if only is not None:
        own, mine = own & (facts.touch_advertiser == only), facts.conversion_advertiser == only
    user = _numbers(np.concatenate([facts.touch_user[own], facts.conversion_user[mine]]))
    time = np.concatenate([facts.touch_time[own], facts.conversion_time[mine]])
    moments, place = np.unique(time, return_inverse=True)
    key = user * len(moments) + place  # with the time itself it would not fit 64 bits
    n = int(own.sum())
    order = np.argsort(key[:n], kind="stable")
    same = np.zeros(n + 1, bool)  # as the one before, with nothing around them
    same[1:n] = key[order][1:] == key[order][:-1]
    tied = order[same[:-1] | same[1:]]
    rank = np.zeros(n, np.int64)
    rank[tied] = np.unique(np.asarray(facts.touch_id, object)[np.flatnonzero(own)[tied]], return_inverse=True)[1]
    hi, lo = facts.touch_impression[own].T
    order = np.lexsort((lo, hi, rank, key[:n]))
    touches = _Touches(*(column[order] for column in (
        user[:n], facts.touch_advertiser[own], facts.touch_channel[own], time[:n], facts.touch_is_click[own], hi, lo, rank,
        key[:n])))
    order = np.lexsort((time[n:], facts.conversion_advertiser[mine]))
    return touches, _Conversions(*(column[order] for column in (
        user[n:], facts.conversion_advertiser[mine], time[n:], facts.conversion_value[mine], facts.conversion_currency[mine],
        key[n:]))), moments


def _numbers(prints: np.ndarray) -> np.ndarray:
    """Dense int64 (n,) of fingerprints uint64 (n, 2)."""
    order = np.lexsort((prints[:, 1], prints[:, 0]))
    number = np.zeros(len(prints), np.int64)
    number[order[1:]] = np.cumsum(np.any(prints[order][1:] != prints[order][:-1], axis=1))
    return number


# -- which touches make a path ----------------------------------------------------------------------------------------

def _converting(
    touches: _Touches, conversions: _Conversions, moments: np.ndarray, rules, rule: np.ndarray
) -> tuple[_Walks, np.ndarray]:
    """The eligible touches of each conversion, and bool (n,) of the touches that a conversion followed within its lookback."""
    click, view, clicks_first = (np.array([of(r) for r in rules], kind)[rule] for of, kind in (
        (lambda r: r.click_lookback, np.int64), (lambda r: r.view_lookback, np.int64),
        (lambda r: r.priority == CLICK_OVER_VIEW, bool)))
    earliest = np.searchsorted(moments, conversions.time - np.maximum(click, view))
    first = np.searchsorted(touches.key, conversions.user * len(moments) + earliest)
    past = np.searchsorted(touches.key, conversions.key)
    followed, found, lengths = np.zeros(len(touches.time), bool), [np.empty(0, np.int64)], [np.zeros(1, np.int64)]
    for a, b in _pieces(past - first):
        counts = (past - first)[a:b]
        starts = np.concatenate(([0], np.cumsum(counts)))
        at = np.arange(starts[-1]) + np.repeat(first[a:b] - starts[:-1], counts)
        age = np.repeat(conversions.time[a:b], counts) - touches.time[at]
        within = age <= np.where(touches.is_click[at], np.repeat(click[a:b], counts), np.repeat(view[a:b], counts))
        followed[at[within]] = True
        kept = eligible(starts, touches.time[at], touches.is_click[at], touches.hi[at], touches.lo[at], touches.rank[at],
                        conversions.time[a:b], click[a:b], view[a:b], clicks_first[a:b])
        found.append(at[kept.order])
        lengths.append(np.diff(kept.starts))
    return _Walks(np.cumsum(np.concatenate(lengths)), np.concatenate(found)), followed


def _pieces(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Slices of at most _CANDIDATES together, or of one."""
    ends, a = np.cumsum(counts), 0
    while a < len(ends):
        before = ends[a - 1] if a else 0
        b = max(a + 1, int(np.searchsorted(ends, before + _CANDIDATES, side="right")))
        yield a, b
        a = b


def _standing(touches: _Touches) -> np.ndarray:
    """Bool (n,): the one touch of each user and impression, the latest click or, without one, the impression itself."""
    n = len(touches.time)
    order = np.lexsort((np.arange(n), touches.is_click, touches.lo, touches.hi, touches.user))
    last = np.ones(n, bool)
    last[:-1] = np.any([column[order][1:] != column[order][:-1] for column in (touches.user, touches.hi, touches.lo)], axis=0)
    stands = np.zeros(n, bool)
    stands[order[last]] = True
    return stands


def _unconverted(touches: _Touches, which: np.ndarray, conversions: _Conversions, advertisers, attribution) -> _Walks:
    """The paths that the touches ``which`` (bool, n) make."""
    at = np.flatnonzero(which)
    rules, rule = attribution.rules_for(advertisers, touches.advertiser[at], touches.time[at])
    lookback, clicks_first = np.zeros(len(which), np.int64), np.zeros(len(which), bool)
    lookback[at] = np.array([r.click_lookback for r in rules], np.int64)[rule]
    clicks_first[at] = np.array([r.priority == CLICK_OVER_VIEW for r in rules], bool)[rule]
    # A touch at a conversion's very time does not lie before it (contract section 4).
    converted = np.searchsorted(np.sort(conversions.key), touches.key, side="right")

    def cut(at: np.ndarray) -> _Walks:
        new = np.diff(touches.user[at]) != 0
        new |= np.diff(touches.time[at]) > lookback[at][1:]
        new |= np.diff(converted[at]) != 0
        return _Walks(np.concatenate(([0], np.flatnonzero(new) + 1, [len(at)] if len(at) else [])).astype(np.int64), at)

    starts, at = cut(at)
    if not len(at):
        return _Walks(starts, at)
    clicks = np.add.reduceat(touches.is_click[at], starts[:-1], dtype=np.int64)
    alone = (clicks > 0) & clicks_first[at[starts[1:] - 1]]
    return cut(at[touches.is_click[at] | ~np.repeat(alone, np.diff(starts))])


def _some(walks: _Walks, which: np.ndarray) -> _Walks:
    lengths = np.diff(walks.starts)
    return _Walks(np.concatenate(([0], np.cumsum(lengths[which]))), walks.touches[np.repeat(which, lengths)])


# -- the same path many times -----------------------------------------------------------------------------------------

def _by_advertiser(facts: Facts, touches, conversions, rules, rule, converting: _Walks, nulls: _Walks) -> list[Journeys]:
    texts, label = np.unique(np.array([NO_CHANNEL if c is None else c for c in facts.channels], object), return_inverse=True)
    touched = np.diff(converting.starts) > 0
    converting, walked = _some(converting, touched), np.flatnonzero(touched)  # walked: the conversion of each walk
    walks = _Walks(np.concatenate([converting.starts, converting.starts[-1] + nulls.starts[1:]]),
                   np.concatenate([converting.touches, nulls.touches]))
    owner = touches.advertiser[walks.touches[walks.starts[:-1]]]
    labels = label[touches.channel[walks.touches]]
    group, example = _alike(walks.starts, labels, owner, len(texts))
    of_conversion, of_null = np.split(group, [len(walked)])
    converted, ended = np.bincount(of_conversion, minlength=len(example)), np.bincount(of_null, minlength=len(example))
    used = np.bincount(touches.advertiser[np.unique(walks.touches)], minlength=len(facts.advertisers))
    by_owner = np.argsort(owner[example], kind="stable")
    place = np.empty(len(example), np.int64)
    made = []
    for code in np.union1d(conversions.advertiser, owner).tolist():
        own = _slice(conversions.advertiser, code)
        own_walks = slice(*np.searchsorted(walked, [own.start, own.stop]))
        groups = by_owner[_slice(owner[example][by_owner], code)].tolist()
        sequence = {g: tuple(texts[labels[walks.starts[example[g]] : walks.starts[example[g] + 1]]].tolist()) for g in groups}
        groups.sort(key=sequence.__getitem__)
        place[groups] = np.arange(len(groups))
        currencies, currency = _named(facts.currencies, conversions.currency[own])
        value = conversions.value[own]
        own_rules, own_rule = np.unique(rule[own], return_inverse=True)
        credited = walked[own_walks] - own.start
        touched_here = touched[own]
        per_sequence = exact_sums(currency[credited] * len(groups) + place[of_conversion[own_walks]], value[credited],
                                  len(currencies) * len(groups))
        part = slice(converting.starts[own_walks.start], converting.starts[own_walks.stop])
        channels, channel = np.unique(labels[part], return_inverse=True)
        made.append(Journeys(
            facts.advertisers[code], tuple(rules[r] for r in own_rules.tolist()), currencies, tuple(texts[channels].tolist()),
            len(value), tuple(exact_sums(currency, value, len(currencies))), int((~touched_here).sum()),
            tuple(exact_sums(currency[~touched_here], value[~touched_here], len(currencies))), int(used[code]),
            Credited(converting.starts[own_walks.start : own_walks.stop + 1] - part.start, channel,
                     np.repeat(conversions.time[own][credited], np.diff(converting.starts)[own_walks])
                     - touches.time[converting.touches[part]], value[credited], currency[credited], own_rule[credited]),
            tuple(sequence[g] for g in groups), tuple(zip(converted[groups].tolist(), ended[groups].tolist())),
            tuple(tuple(per_sequence[i * len(groups) : (i + 1) * len(groups)]) for i in range(len(currencies)))))
    return sorted(made, key=lambda found: found.advertiser)


def _slice(rising: np.ndarray, code: int) -> slice:
    return slice(*np.searchsorted(rising, [code, code + 1]).tolist())


def _named(texts: list[str | None], codes: np.ndarray) -> tuple[tuple[str | None, ...], np.ndarray]:
    """The texts that are named, sorted with None last, and positions in them."""
    named, code = np.unique(codes, return_inverse=True)
    order = sorted(range(len(named)), key=lambda i: (texts[named[i]] is None, texts[named[i]] or ""))
    place = np.empty(len(named), np.int64)
    place[order] = np.arange(len(named))
    return tuple(texts[named[i]] for i in order), place[code]


def _alike(starts: np.ndarray, labels: np.ndarray, owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Int64 (w,) numbers of walks, equal where owner and labels (below ``count``) are, and one walk of each number.

    All walks together descend a tree whose edges are labels, one step at a time; where a walk ends is what it is.
    """
    lengths = np.diff(starts)
    longest = np.argsort(-lengths, kind="stable")
    first, rising = starts[:-1][longest], -lengths[longest]
    node = owner[longest].astype(np.int64)
    nodes = int(node.max(initial=-1)) + 1
    for step in range(int(lengths.max(initial=0))):
        walking = int(np.searchsorted(rising, -step))
        edges, to = np.unique(node[:walking] * count + labels[first[:walking] + step], return_inverse=True)
        node[:walking] = nodes + to
        nodes += len(edges)
    ends = np.empty(len(node), np.int64)
    ends[longest] = node
    _, example, number = np.unique(ends, return_index=True, return_inverse=True)
    return number, example
