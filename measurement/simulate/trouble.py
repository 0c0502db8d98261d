"""What goes wrong between an event and the files: the sendings of a log, and for each trouble what must become of it.

Every margin is wide of the rules' edges: nothing is on its way longer than 6 h (horizons: 24 h and 7 days), an event
from the future is an hour or more ahead (tolerance: 10 min), one too late is weeks old.
"""

from typing import NamedTuple

import numpy as np

from measurement.model.events import CLICK, CONVERSION, MICROS_PER_HOUR, MICROS_PER_SECOND, OUTCOMES, VIEWABILITY
from measurement.simulate.columns import (
    BAD_IP, EMPTY_TYPE, NO_ID, TYPES, UNKNOWN_TYPES, Booking, Columns,
)
from measurement.simulate.events import KEYS_PER_GROUP, Clean
from measurement.simulate.options import SimulateOptions
from measurement.simulate.world import HOLOGRAM, PLACES

LONGEST = 6 * MICROS_PER_HOUR  # from event_time to received_time, resends included
_LATE = (MICROS_PER_HOUR // 6, LONGEST - MICROS_PER_HOUR // 2)
_DAY = 24 * MICROS_PER_HOUR
_PER_FILE = 1_000  # events a file has at least on average, where there is more than one file

BROKEN = {  # rate option -> outcome
    "missing_rate": "missing_field",
    "unknown_type_rate": "unknown_type",
    "bad_value_rate": "bad_value",
    "future_rate": "future",
    "too_late_rate": "too_late",
    "undecodable_rate": "undecodable",
}
CLEAN = -1  # in `fate`: to be judged by the rules of counting


class Log(NamedTuple):
    """Distinct events (D of them, the clean ones first) and their sendings (N)."""

    columns: Columns  # D
    fate: np.ndarray  # i1[D]: code into OUTCOMES of what trouble alone decides, else CLEAN
    row: np.ndarray  # i4[N]: which event was sent
    received: np.ndarray  # i8[N] micros; also the order within a file
    file: np.ndarray  # u1[N]
    again: np.ndarray  # bool[N]: a resend

    def files(self) -> list[np.ndarray]:
        """Sendings of each file, in the order of their receipt."""
        sendings = [np.flatnonzero(self.file == number) for number in range(int(self.file.max()) + 1)]
        return [s[np.argsort(self.received[s], kind="stable")] for s in sendings]


def clean_count(options: SimulateOptions) -> int:
    """Events of the clean stream, such that with all that is added there are `options.events`."""
    return options.events - sum(options.number(rate) for rate in ("resend_rate", "conflict_rate", *BROKEN))


def send(clean: Clean, options: SimulateOptions, rng: np.random.Generator) -> Log:
    count = clean.kind.size
    files = min(options.files, max(1, options.events // _PER_FILE))
    # Collectors differ in size; one event goes to any of them, so follow-ups often stand in another file.
    share = 1.0 / np.arange(2, files + 2)
    file = np.searchsorted(np.cumsum(share / share.sum())[:-1], rng.random(count, np.float32)).astype(np.uint8)
    received = clean.columns.event_time + _latency(options, count, rng)
    late = _late(rng.permutation(np.flatnonzero(clean.mobile)), clean, options.number("late_rate"))
    received[late] += rng.integers(*_LATE, late.size)

    parts, fates = [clean.columns], [np.full(count, CLEAN, np.int8)]
    rows, receipts, places = [np.arange(count, dtype=np.int32)], [received], [file]

    resent = rng.integers(0, count, options.number("resend_rate"), np.int32)
    room = LONGEST - (received - clean.columns.event_time)[resent]
    rows.append(resent)
    after = MICROS_PER_SECOND * (room / MICROS_PER_SECOND) ** rng.random(resent.size)  # as often seconds as hours
    receipts.append(received[resent] + after.astype(np.int64))
    elsewhere = rng.integers(0, files, resent.size, np.uint8)
    places.append(np.where(rng.random(resent.size) < 0.8, file[resent], elsewhere))

    def add(columns: Columns, outcome: str, receipt: np.ndarray, place: np.ndarray) -> None:
        first = sum(part.key.size for part in parts)
        rows.append(np.arange(first, first + place.size, dtype=np.int32))
        parts.append(columns)
        fates.append(np.full(place.size, OUTCOMES.index(outcome), np.int8))
        receipts.append(receipt)
        places.append(place)

    # A conflict stands well behind the first content, in the same file: which came first is beyond doubt.
    first = rng.integers(0, count, options.number("conflict_rate"))
    room = LONGEST - (received - clean.columns.event_time)[first]
    after = (room * rng.uniform(0.5, 0.99, first.size)).astype(np.int64)
    add(_other_content(clean.columns.take(first)), "id_conflict", received[first] + after, file[first])

    key = int(clean.group.max() + 1) * KEYS_PER_GROUP
    second_half = np.flatnonzero(received >= np.quantile(received, 0.6))
    for rate, outcome in BROKEN.items():
        number = options.number(rate)
        like = rng.choice(second_half, number) if outcome == "too_late" else rng.integers(0, count, number)
        columns = clean.columns.take(like)
        columns.key[:] = np.arange(key, key + number)
        key += number
        _BREAK[outcome](columns, received[like], rng)
        add(columns, outcome, received[like], file[like])

    row = np.concatenate(rows)
    again = np.zeros(row.size, np.bool_)
    again[count : count + resent.size] = True
    return Log(
        Columns.concat(parts), np.concatenate(fates), row, np.concatenate(receipts), np.concatenate(places), again
    )


def _late(mobile: np.ndarray, clean: Clean, number: int) -> np.ndarray:
    """The first of `mobile`, but more of the clicks: a tap that leaves the app is reported at its next start, and then
    often behind the conversion that it led to."""
    clicks = np.flatnonzero(clean.columns.event_type[mobile] == CLICK)[: number // 40]
    return np.concatenate([mobile[clicks], np.delete(mobile, clicks)])[:number]


def _latency(options: SimulateOptions, size: int, rng: np.random.Generator) -> np.ndarray:
    """Micros on the way: 50 ms and jitter of at most a minute."""
    jitter = np.minimum(rng.standard_exponential(size, np.float32) * np.float32(options.jitter_seconds), 60)
    return 50_000 + (jitter * MICROS_PER_SECOND).astype(np.int64)


def _other_content(columns: Columns) -> Columns:
    """The same events with another creative; conversions, that carry none, with another value."""
    conversion = columns.event_type == CONVERSION
    of_package = columns.booking - columns.booking % len(Booking)
    columns.booking[:] = np.where(conversion, columns.booking, of_package + Booking.OTHER_CREATIVE)
    columns.value[:] = np.where(conversion, np.maximum(columns.value, 0) + 1_000_000, columns.value)
    return columns


def _set_booking(columns: Columns, chosen: np.ndarray, booking: Booking) -> None:
    columns.booking[chosen] += booking - columns.booking[chosen] % len(Booking)


def _miss(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    """Without advertiser, event id, event type, campaign or impression: the last two where the type requires them."""
    what = rng.integers(0, 5, columns.key.size)
    what[(what == 3) & (columns.event_type == CONVERSION)] = 0
    what[(what == 4) & (columns.impression == NO_ID)] = 0
    _set_booking(columns, what == 0, Booking.EMPTY_ADVERTISER)
    columns.key[what == 1] = NO_ID
    columns.event_type[what == 2] = EMPTY_TYPE
    _set_booking(columns, what == 3, Booking.NO_CAMPAIGN)
    columns.impression[what == 4] = NO_ID


def _rename_type(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    columns.event_type[:] = TYPES.index(UNKNOWN_TYPES[0]) + rng.integers(0, len(UNKNOWN_TYPES), columns.key.size)


def _spoil(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    """A negative price, an unknown format, no address, or more than 100 % in view (viewability events)."""
    what = rng.integers(0, 4, columns.key.size)
    what[(what == 3) & (columns.event_type != VIEWABILITY)] = 0
    columns.price[what == 0] = -5_000
    hologram = what == 1
    columns.context[hologram] = HOLOGRAM * PLACES + columns.context[hologram] % PLACES
    columns.ip[what == 2] = BAD_IP
    columns.visible_percent[what == 3] = 150


def _hurry(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    columns.event_time[:] = received + rng.integers(MICROS_PER_HOUR, 2 * _DAY, received.size)


def _age(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    columns.event_time[:] = received - rng.integers(28 * _DAY, 32 * _DAY, received.size)


def _garble(columns: Columns, received: np.ndarray, rng: np.random.Generator) -> None:
    _set_booking(columns, np.ones(received.size, np.bool_), Booking.UNDECODABLE)


_BREAK = {
    "missing_field": _miss, "unknown_type": _rename_type, "bad_value": _spoil,
    "future": _hurry, "too_late": _age, "undecodable": _garble,
}
