"""What a log must come to: outcomes, delivery, invalid traffic and credits, from the generator's own bookkeeping.

Nothing here reads an event back or shares code with the pipeline: who follows whom, which order was reported twice
and what was broken on purpose is known from the making.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from measurement.model.events import (
    CLICK, COMPLETE, CONVERSION, COUNTS, DIMENSIONS, FIRST_QUARTILE, IMPRESSION, INVALID_REASONS, MICROS_PER_HOUR, MIDPOINT,
    OUTCOMES, START, THIRD_QUARTILE, VIEWABILITY,
)
from measurement.model.policy import Policy
from measurement.simulate.columns import NO_ID, NULL, TYPES, Booking, booking_names
from measurement.simulate.credits import ATTRIBUTION_COLUMNS, CREDIT_COLUMNS, Credits, credits_of
from measurement.simulate.events import Clean
from measurement.simulate.ids import mix_all
from measurement.simulate.options import SimulateOptions
from measurement.simulate.trouble import Log
from measurement.simulate.verdicts import verdicts_of
from measurement.simulate.world import AUDIO, CURRENCIES, DISPLAY, PLACES, VIDEO, World, context_text

_COUNTED, _DENIED, _DUPLICATE, _INVALID, _ORPHAN, _UNDECODABLE = map(
    OUTCOMES.index, ("counted", "consent_denied", "duplicate", "invalid_traffic", "orphan", "undecodable")
)
INVALID_COLUMNS = ("window_start", *DIMENSIONS, "event_type", "reason", "events")
_LARGE = 242_500  # px of a display creative, from which on fewer of them need be in view


class Truth(NamedTuple):
    outcomes: dict[str, int]
    outcomes_by_type: list[tuple[str | None, str, int]]
    delivery: list[tuple]  # sorted by window start and dimensions, an unknown one first
    invalid: list[tuple]  # sorted likewise
    credits: Credits


def truth_of(world: World, clean: Clean, log: Log, options: SimulateOptions, policy: Policy, salt: int) -> Truth:
    verdicts = verdicts_of(clean, log, options)
    denied = verdicts.denied[: clean.kind.size]
    outcome = log.fate.copy()
    reason = _joined(clean, verdicts.reason)
    outcome[: clean.kind.size] = _judge(clean, reason, denied, salt)
    outcome[verdicts.denied] = _DENIED
    sent = np.where(log.again & ~verdicts.denied[log.row], np.int8(_DUPLICATE), outcome[log.row])
    event_type = np.where(outcome == _UNDECODABLE, len(TYPES) - 1, log.columns.event_type)[log.row]
    cells = len(TYPES) * len(OUTCOMES)
    counts = np.bincount(event_type.astype(np.int64) * len(OUTCOMES) + sent, minlength=cells).reshape(len(TYPES), -1)
    by_outcome = counts.sum(axis=0)
    return Truth(
        {name: int(n) for name, n in zip(OUTCOMES, by_outcome) if n},
        [(TYPES[t] or None, OUTCOMES[o], int(counts[t, o])) for t, o in zip(*np.nonzero(counts))],
        _delivery(world, clean, outcome[: clean.kind.size]),
        _invalid(world, clean, outcome[: clean.kind.size], reason),
        credits_of(world, clean, outcome[: clean.kind.size], verdicts.user, policy.attribution, salt),
    )


def write_truth(path: Path, options: SimulateOptions, policy: Policy, truth: Truth) -> None:
    document = {
        "seed": options.seed,
        "options": options.as_json(),
        "policy": policy.digest,
        "events": options.events,
        "outcomes": truth.outcomes,
        "outcomes_by_type": truth.outcomes_by_type,
        "delivery_columns": ["window_start", *DIMENSIONS, *COUNTS],
        "delivery": truth.delivery,
        "invalid_traffic": {"columns": INVALID_COLUMNS, "rows": truth.invalid},
        "conversion_credits": {"columns": CREDIT_COLUMNS, "rows": truth.credits.rows},
        "attribution": {"columns": ATTRIBUTION_COLUMNS, "rows": truth.credits.attribution},
    }
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(orjson.dumps(document))
    os.replace(unfinished, path)


def _joined(clean: Clean, own: np.ndarray) -> np.ndarray:
    """Reasons (i1[C]) with those that come from the impression: what follows an invalid one is invalid."""
    reason = own.copy()
    follow_ups = np.flatnonzero((clean.columns.impression != NO_ID) & (own == 0))
    impression = clean.impression_row[clean.group[follow_ups]]
    reason[follow_ups] = np.where(impression < 0, 0, own[impression])
    return reason


def _judge(clean: Clean, reason: np.ndarray, denied: np.ndarray, salt: int) -> np.ndarray:
    """Outcome (i1[C]) of each clean event's first sending, where it was not `denied`."""
    columns = clean.columns
    outcome = np.where(reason > 0, _INVALID, _COUNTED).astype(np.int8)
    follow_ups = np.flatnonzero(columns.impression != NO_ID)
    impression = clean.impression_row[clean.group[follow_ups]]
    outcome[follow_ups[(impression < 0) | denied[impression]]] = _ORPHAN
    # Of an order's reports the earliest by time, then id, stands; ids sort as the numbers they begin with.
    orders = np.flatnonzero((columns.order != NO_ID) & ~denied)
    order = columns.order[orders]
    by_time = np.lexsort((mix_all(columns.key[orders], np.uint64(salt)), columns.event_time[orders], order))
    repeats = np.flatnonzero(np.diff(order[by_time]) == 0) + 1
    outcome[orders[by_time[repeats]]] = _DUPLICATE
    return outcome


def _delivery(world: World, clean: Clean, outcome: np.ndarray) -> list[tuple]:
    columns = clean.columns
    impressions = slice(0, int(clean.kind_ends[0]))  # they stand first
    bookings, booking_rank = _ranked(
        columns.booking[impressions],
        lambda code: booking_names(world.bookings[code // len(Booking)], Booking(code % len(Booking))),
    )
    contexts, context_rank = _ranked(columns.context[impressions], context_text)
    currencies, currency_rank = _ranked(columns.currency[impressions], lambda code: (CURRENCIES[code],))
    hour = columns.event_time[impressions] // MICROS_PER_HOUR
    key = ((hour * len(bookings) + booking_rank) * len(contexts) + context_rank) * len(currencies) + currency_rank
    accepted = np.flatnonzero(outcome[impressions] != _DENIED)
    keys, rows = np.unique(key[accepted], return_inverse=True)  # sorted as the texts are, because the ranks are
    row = np.full(key.size, -1)
    row[accepted] = rows

    # What counts: valid events, with the impression (its place among the impressions) that each is counted under.
    counted = np.flatnonzero((outcome == _COUNTED) & (columns.event_type != CONVERSION))
    event_type = columns.event_type[counted]
    under = clean.impression_row[clean.group[counted]]
    form = columns.context[impressions] // PLACES

    def once(events: np.ndarray) -> np.ndarray:
        """Impressions by row, of those with at least one of `events` (bool over the counted)."""
        has = np.zeros(row.size, np.bool_)
        has[under[events]] = True
        return np.bincount(row[has], minlength=keys.size)

    def each(events: np.ndarray) -> np.ndarray:
        return np.bincount(row[under[events]], minlength=keys.size)

    view = event_type == VIEWABILITY
    percent, visible = columns.visible_percent[counted], columns.visible_ms[counted]
    audible = columns.audible_ms[counted]
    of_form = form[under]
    long_enough = np.where(of_form == DISPLAY, visible >= 1000, (of_form == VIDEO) & (visible >= 2000))
    large = np.array([(width or 0) * (height or 0) >= _LARGE for width, height, *_ in world.specs])
    enough = np.where((of_form == DISPLAY) & large[columns.spec[impressions][under] - 1], 30, 50)
    price = columns.price[counted]
    priced = price != NULL
    spend = np.bincount(row[under[priced]], price[priced], keys.size).astype(np.int64)  # exact: far below 2**53
    counts = (
        np.bincount(rows, minlength=keys.size),
        each(event_type == IMPRESSION),
        once(view),
        once(view & (percent >= enough) & long_enough),
        once(view & ((of_form == VIDEO) | (of_form == AUDIO)) & (audible >= 2000)),
        each(event_type == CLICK),
        *(once(event_type == t) for t in (START, FIRST_QUARTILE, MIDPOINT, THIRD_QUARTILE, COMPLETE)),
        spend,
    )

    rest, currency = np.divmod(keys, len(currencies))
    rest, context = np.divmod(rest, len(contexts))
    hours, booking = np.divmod(rest, len(bookings))
    starts = {h: f"{np.datetime64(h, 'h').astype('datetime64[s]')}Z" for h in np.unique(hours).tolist()}
    dimensions = [
        bookings[b] + contexts[c] + currencies[y]
        for b, c, y in zip(booking.tolist(), context.tolist(), currency.tolist())
    ]
    return [
        (starts[h], *names, *numbers)
        for h, names, numbers in zip(hours.tolist(), dimensions, zip(*(count.tolist() for count in counts)))
    ]


def _invalid(world: World, clean: Clean, outcome: np.ndarray, reason: np.ndarray) -> list[tuple]:
    """Invalid events by reason: impressions and follow-ups under the impression, conversions under what they say themselves."""
    columns = clean.columns
    rows = np.flatnonzero(outcome == _INVALID)
    under = np.where(columns.event_type[rows] == CONVERSION, rows, clean.impression_row[clean.group[rows]])
    codes = (
        columns.event_time[under] // MICROS_PER_HOUR, columns.booking[under], columns.context[under], columns.currency[under],
        columns.event_type[rows], reason[rows],
    )
    cells, events = np.unique(np.stack([code.astype(np.int64) for code in codes], axis=1), axis=0, return_counts=True)
    numbers: dict[tuple, int] = defaultdict(int)  # several codes may be one text
    for (hour, booking, context, currency, event_type, why), number in zip(cells.tolist(), events.tolist()):
        names = booking_names(world.bookings[booking // len(Booking)], Booking(booking % len(Booking)))
        start = f"{np.datetime64(hour, 'h').astype('datetime64[s]')}Z"
        numbers[start, *names, *context_text(context), CURRENCIES[currency], TYPES[event_type], INVALID_REASONS[why]] += number
    return sorted(((*key, number) for key, number in numbers.items()), key=lambda row: [text or "" for text in row[:-1]])


def _ranked(codes: np.ndarray, text_of) -> tuple[list[tuple], np.ndarray]:
    """Distinct texts (tuples) in order, null first, and of each code the place of its text among them."""
    used = np.unique(codes)
    texts = {code: text_of(code) for code in used.tolist()}
    ordered = sorted(set(texts.values()), key=lambda names: [(name is not None, name or "") for name in names])
    place = {names: i for i, names in enumerate(ordered)}
    rank = np.zeros(int(used[-1]) + 1 if used.size else 0, np.int64)
    rank[used] = [place[texts[code]] for code in used.tolist()]
    return ordered, rank[codes]
