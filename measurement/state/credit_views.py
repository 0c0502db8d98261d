"""What facts change of conversions' credits: what each was credited with after a call less what it was before it.

A conversion has up to four views: by all facts or by those from before its hour closed, each after and before the call. Rows of
the second kind are what is published on time; the difference to the first is what restates it.
"""

from dataclasses import dataclass

import numpy as np

from measurement.columnar.deltas import LATE, ON_TIME
from measurement.columnar.labels import begins
from measurement.model.attribution import CLICK_OVER_VIEW, MODELS, AttributionRule
from measurement.rules.attribution import CREDIT_UNITS, credits, eligible
from measurement.state.candidates import Candidates
from measurement.state.touches import DROPPED, NEW

_AFTER, _AFTER_ON_TIME, _BEFORE, _BEFORE_ON_TIME = range(4)
NO_TOUCH = -1


@dataclass(frozen=True)
class Reached:
    """The r conversions that a call reaches: times, values and the time at which each one's hour closes (int64), whether each
    stands by the facts of each view and may have touches (bool (4, r)), its rule, and why late facts say that they changed it
    (uint8, 0 if none did)."""

    times: np.ndarray
    values: np.ndarray
    closes: np.ndarray
    stands: np.ndarray
    open: np.ndarray
    rules: tuple[AttributionRule, ...]
    rule: np.ndarray
    because: np.ndarray


@dataclass(frozen=True)
class Rows:
    """n changes: which reached conversion, which candidate (NO_TOUCH: none), code of the model, why, credit in units of 10^-9,
    micros."""

    conversion: np.ndarray
    candidate: np.ndarray
    model: np.ndarray
    because: np.ndarray
    credit: np.ndarray
    micros: np.ndarray

    def take(self, at: np.ndarray) -> "Rows":
        return Rows(*(getattr(self, name)[at] for name in self.__dataclass_fields__))


def changes(reached: Reached, candidates: Candidates, ranks: np.ndarray) -> Rows:
    """What the call changed. ``ranks`` int64 (n,) order candidates of equal times."""
    count = len(reached.times)
    late = candidates.touch["watermark"] >= reached.closes[candidates.conversion]
    because = reached.because.copy()
    at = np.flatnonzero(late & (candidates.state == NEW) & (candidates.touch["delta"] != 0))  # a robot's is no touch
    np.maximum.at(because, candidates.conversion[at], candidates.touch["because"][at])
    fresh = because > 0  # facts that came late changed it in this call
    because[~fresh] = LATE
    apart = (reached.stands[_AFTER] != reached.stands[_AFTER_ON_TIME]) | (reached.stands[_BEFORE] != reached.stands[_BEFORE_ON_TIME])
    apart[candidates.conversion[late]] = True  # facts that came late are known of it
    after, before = candidates.state != DROPPED, candidates.state != NEW
    views = [
        (_AFTER, reached.stands[_AFTER], after), (_AFTER_ON_TIME, reached.stands[_AFTER_ON_TIME] & apart, after & ~late),
        (_BEFORE, reached.stands[_BEFORE], before), (_BEFORE_ON_TIME, reached.stands[_BEFORE_ON_TIME] & apart, before & ~late),
    ]
    kinds, conversions, places, counts = [], [], [], []
    for kind, stands, known in views:
        those = np.flatnonzero(stands)
        if not len(those):
            continue
        has = stands & reached.open[kind]
        found = _standing(candidates, np.flatnonzero(known & has[candidates.conversion]))
        kinds.append(np.full(len(those), kind))
        conversions.append(those)
        places.append(found)
        counts.append(np.bincount(candidates.conversion[found], minlength=count)[those])
    if not kinds:
        return _NO_ROWS
    kind, conversion = np.concatenate(kinds), np.concatenate(conversions)
    rows, view = _credited(reached, candidates, conversion, np.concatenate(places), np.concatenate(counts), ranks)
    kind = kind[view]
    late_rows = apart[rows.conversion]
    if (kind == _AFTER).all() and not late_rows.any():
        return rows
    on_time = (kind == _AFTER_ON_TIME) | (kind == _BEFORE_ON_TIME)
    changed = np.where((kind == _AFTER) | (kind == _AFTER_ON_TIME), 1, -1)
    because = because[rows.conversion]
    parts = [  # what restates is what all facts say less what the on-time ones do
        (np.where(late_rows, because, ON_TIME), changed, ~on_time),
        (np.full(len(kind), ON_TIME), changed, on_time),
        (because, -changed, on_time),
    ]
    signed = [Rows(rows.conversion[at], rows.candidate[at], rows.model[at], lane[at].astype(np.uint8), sign[at] * rows.credit[at],
                   sign[at] * rows.micros[at]) for lane, sign, chosen in parts for at in [np.flatnonzero(chosen)]]
    return _net(together(signed), candidates.number, fresh)


def nothing(reached: Reached, told: np.ndarray, candidates: Candidates) -> Rows:
    """Changes by 0 of all rows that the ``told`` (bool (r,)) of the conversions may have had, whatever was known when."""
    parts = []
    whole = candidates.touch["terms"] >= 0
    for number, rule in enumerate(reached.rules):
        mine = told & (reached.rule == number)
        bare, touched = np.flatnonzero(mine), np.flatnonzero(mine[candidates.conversion] & whole)
        conversion = np.concatenate([bare, candidates.conversion[touched]])
        which = np.concatenate([np.full(len(bare), NO_TOUCH), touched])
        none = np.zeros(len(which), np.int64)
        parts += [Rows(conversion, which, np.full(len(which), MODELS.index(model), np.uint8), none.astype(np.uint8), none, none)
                  for model in rule.models]
    return together(parts)


def together(parts: list[Rows]) -> Rows:
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__dataclass_fields__))


_NO_ROWS = Rows(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint8, np.uint8, np.int64, np.int64)))


def _standing(candidates: Candidates, at: np.ndarray) -> np.ndarray:
    """Of the facts at some places those that tell of a touch which stands, in the same order."""
    touch = candidates.touch.take(at)
    if ((touch["delta"] == 1) & (touch["terms"] >= 0)).all():
        return at
    order = np.lexsort((touch["terms"] < 0, touch["time"], touch["id_lo"], touch["id_hi"], candidates.conversion[at]))  # the whole fact first
    sorted_ = touch.take(order)
    first = begins(sorted_["id_hi"], sorted_["id_lo"], sorted_["time"], candidates.conversion[at][order])
    stands = (np.add.reduceat(sorted_["delta"].astype(np.int64), first) > 0) & (sorted_["terms"][first] >= 0)
    return at[np.sort(order[first[stands]])]


def _credited(reached, candidates, conversion, places, counts, ranks) -> tuple[Rows, np.ndarray]:
    """The rows of every view, and which view each is of. A view is of a ``conversion`` and has ``counts`` of ``places``."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    rule = reached.rule[conversion]
    of_rules = np.array([(r.click_lookback, r.view_lookback, r.priority == CLICK_OVER_VIEW) for r in reached.rules], np.int64)
    touch, times, values = candidates.touch.take(places), reached.times[conversion], reached.values[conversion]
    found = eligible(starts, touch["time"], touch["is_click"] == 1, touch["parent_hi"], touch["parent_lo"], ranks[places], times,
                     of_rules[rule, 0], of_rules[rule, 1], of_rules[rule, 2] == 1)
    order = places[found.order]
    lengths = np.diff(found.starts)
    ages = np.repeat(times, lengths) - candidates.touch["time"][order]
    view, which, model, credit, micros = [], [], [], [], []
    for number, of_rule in enumerate(reached.rules):
        mine = np.flatnonzero(rule == number)
        if not len(mine):
            continue
        some = np.zeros(len(mine) + 1, np.int64)
        np.cumsum(lengths[mine], out=some[1:])
        at = np.arange(some[-1]) + np.repeat(found.starts[mine] - some[:-1], lengths[mine])
        bare = mine[lengths[mine] == 0]
        for name in of_rule.models:
            share, worth = credits(name, of_rule, some, ages[at], values[mine])
            earns = np.flatnonzero((share != 0) | (worth != 0))
            view += [np.repeat(mine, lengths[mine])[earns], bare]
            which += [order[at[earns]], np.full(len(bare), NO_TOUCH)]
            model.append(np.full(len(earns) + len(bare), MODELS.index(name), np.uint8))
            credit += [share[earns], np.full(len(bare), CREDIT_UNITS)]
            micros += [worth[earns], values[bare]]
    view, model = np.concatenate(view), np.concatenate(model)
    return Rows(conversion[view], np.concatenate(which), model, np.zeros(len(view), np.uint8), np.concatenate(credit),
                np.concatenate(micros)), view


def _net(rows: Rows, numbers: np.ndarray, fresh: np.ndarray) -> Rows:
    """Sums rows of one conversion, model, touch and reason. What does not change is left out, but where ``fresh`` facts came
    late: all of a conversion's rows are restated together."""
    touch = np.where(rows.candidate < 0, -1, numbers[rows.candidate]) if len(numbers) else rows.candidate
    columns = rows.conversion, rows.because, rows.model, touch
    order = np.lexsort(columns[::-1])
    first = begins(*(column[order] for column in columns))
    one = rows.take(order[first])
    credit, micros = (np.add.reduceat(column[order], first) for column in (rows.credit, rows.micros))
    net = Rows(one.conversion, one.candidate, one.model, one.because, credit, micros)
    return net.take(np.flatnonzero((credit != 0) | (micros != 0) | ((one.because >= LATE) & fresh[one.conversion])))
