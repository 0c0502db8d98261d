"""What a log must come to: outcomes, delivery and credits, from the generator's own bookkeeping.

Nothing here reads an event back or shares code with the pipeline: who follows whom, which order was reported twice
and what was broken on purpose is known from the making.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from measurement.model.events import (
    CLICK, COMPLETE, CONVERSION, COUNTS, DIMENSIONS, FIRST_QUARTILE, IMPRESSION, MICROS_PER_HOUR, MIDPOINT, OUTCOMES,
    START, THIRD_QUARTILE, VIEWABILITY,
)
from measurement.model.policy import Policy
from measurement.simulate.agents import FIRST_ROBOT
from measurement.simulate.columns import NO_ID, NULL, TYPES, Booking, booking_names
from measurement.simulate.credits import ATTRIBUTION_COLUMNS, CREDIT_COLUMNS, Credits, credits_of
from measurement.simulate.events import Clean
from measurement.simulate.ids import mix_all
from measurement.simulate.options import SimulateOptions
from measurement.simulate.trouble import Log
from measurement.simulate.world import AUDIO, CURRENCIES, DISPLAY, PLACES, VIDEO, World, context_text

_COUNTED, _DUPLICATE, _INVALID, _ORPHAN, _UNDECODABLE = map(
    OUTCOMES.index, ("counted", "duplicate", "invalid_traffic", "orphan", "undecodable")
)


class Truth(NamedTuple):
    outcomes: dict[str, int]
    outcomes_by_type: list[tuple[str | None, str, int]]
    delivery: list[tuple]  # sorted by window start and dimensions, an unknown one first
    credits: Credits


def truth_of(world: World, clean: Clean, log: Log, policy: Policy, salt: int) -> Truth:
    outcome = log.fate.copy()
    outcome[: clean.kind.size] = _judge(clean, salt)
    sent = np.where(log.again, np.int8(_DUPLICATE), outcome[log.row])
    event_type = np.where(outcome == _UNDECODABLE, len(TYPES) - 1, log.columns.event_type)[log.row]
    cells = len(TYPES) * len(OUTCOMES)
    counts = np.bincount(event_type.astype(np.int64) * len(OUTCOMES) + sent, minlength=cells).reshape(len(TYPES), -1)
    by_outcome = counts.sum(axis=0)
    return Truth(
        {name: int(n) for name, n in zip(OUTCOMES, by_outcome) if n},
        [(TYPES[t] or None, OUTCOMES[o], int(counts[t, o])) for t, o in zip(*np.nonzero(counts))],
        _delivery(world, clean, outcome[: clean.kind.size]),
        credits_of(world, clean, outcome[: clean.kind.size], policy.attribution, salt),
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
        "conversion_credits": {"columns": CREDIT_COLUMNS, "rows": truth.credits.rows},
        "attribution": {"columns": ATTRIBUTION_COLUMNS, "rows": truth.credits.attribution},
    }
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(orjson.dumps(document))
    os.replace(unfinished, path)


def _judge(clean: Clean, salt: int) -> np.ndarray:
    """Outcome (i1[C]) of each clean event's first sending."""
    columns = clean.columns
    robot = columns.agent >= FIRST_ROBOT
    outcome = np.where(robot, _INVALID, _COUNTED).astype(np.int8)
    follow_ups = np.flatnonzero(columns.impression != NO_ID)
    impression = clean.impression_row[clean.group[follow_ups]]
    outcome[follow_ups[robot[impression]]] = _INVALID
    outcome[follow_ups[impression < 0]] = _ORPHAN
    # Of an order's reports the earliest by time, then id, stands; ids sort as the numbers they begin with.
    orders = np.flatnonzero(columns.order != NO_ID)
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
    keys, row = np.unique(key, return_inverse=True)  # sorted as the texts are, because the ranks are

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
    price = columns.price[counted]
    priced = price != NULL
    spend = np.bincount(row[under[priced]], price[priced], keys.size).astype(np.int64)  # exact: far below 2**53
    counts = (
        np.bincount(row, minlength=keys.size),
        each(event_type == IMPRESSION),
        once(view),
        once(view & (percent >= 50) & long_enough),
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


def _ranked(codes: np.ndarray, text_of) -> tuple[list[tuple], np.ndarray]:
    """Distinct texts (tuples) in order, null first, and of each code the place of its text among them."""
    used = np.unique(codes)
    texts = {code: text_of(code) for code in used.tolist()}
    ordered = sorted(set(texts.values()), key=lambda names: [(name is not None, name or "") for name in names])
    place = {names: i for i, names in enumerate(ordered)}
    rank = np.zeros(int(used[-1]) + 1 if used.size else 0, np.int64)
    rank[used] = [place[texts[code]] for code in used.tolist()]
    return ordered, rank[codes]
