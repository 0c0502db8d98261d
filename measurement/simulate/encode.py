"""Avro object containers, written by hand.

An event is a run of ready-encoded phrases (all texts that repeat: a booking's five fields, a user agent, ...) with
numbers and ids made on the spot between them, in the schema's order. A general encoder visits 37 fields as objects;
this copies some 400 bytes.
"""

import io
from pathlib import Path
from typing import NamedTuple

import fastavro
import numpy as np
from numba import njit

from measurement.model.events import SCHEMA
from measurement.simulate import world as w
from measurement.simulate.agents import AGENTS
from measurement.simulate.columns import BAD_IP, NO_ID, NO_IP, NULL, TYPES, Booking, Columns, booking_names
from measurement.simulate.consents import CONSENTS
from measurement.simulate.ids import mix
from measurement.simulate.networks import ADDRESSES, WRITTEN

BLOCK_EVENTS = 2_000
NUMBERS_BYTES = 512  # no event's ids, numbers and times together are longer


class Phrases(NamedTuple):
    """Encoded texts end to end, and the number of each list's first one."""

    text: np.ndarray  # u1
    at: np.ndarray  # i8: phrase k is text[at[k]:at[k + 1]]
    types: int
    bookings: int
    contexts: int
    agents: int
    consents: int
    currencies: int
    conversion_types: int
    experiments: int
    sites: int
    specs: int
    addresses: int


def phrases(world: w.World) -> Phrases:
    lists = [
        [_string(name) for name in TYPES],
        [_booking(names, booking) for names in world.bookings for booking in Booking],
        [b"".join(map(_optional, w.context_text(code))) for code in range(w.CONTEXTS)],
        [_optional(agent) for agent in AGENTS],
        [_optional(consent) for consent in CONSENTS],
        [_optional(currency) for currency in w.CURRENCIES],
        [_optional(name) for name in w.CONVERSION_TYPES],
        [b"".join(map(_optional, names)) for names in w.EXPERIMENTS],
        [_optional(source) + _optional(publisher) for source in w.SOURCES for publisher in w.PUBLISHERS],
        [b"".join(map(_optional, (*spec, None))) for spec in [(None,) * 4, *world.specs]],  # and `test`, null
        [_optional(address.text) for address in ADDRESSES],
    ]
    every = [phrase for phrases in lists for phrase in phrases]
    first = np.cumsum([0, *map(len, lists[:-1])]).tolist()
    at = np.cumsum([0, *map(len, every)])
    return Phrases(np.frombuffer(bytearray(b"".join(every)), np.uint8), at, *first)


def write_container(
    path: Path, columns: Columns, book: Phrases, salt: int,
    rows: np.ndarray, received: np.ndarray, undecodable: np.ndarray,
) -> int:
    """Write the events `rows`, received at `received` (i8 micros), in that order -> bytes written.

    An event that cannot be decoded (`undecodable`, bool) has no end either, so it stands alone in a block.
    """
    alone = np.flatnonzero(undecodable)
    edges = np.unique(np.concatenate([np.arange(0, rows.size, BLOCK_EVENTS), alone, alone + 1, [rows.size]])).tolist()
    longest = np.diff(book.at)
    starts = (book.types, *book[3:], longest.size)
    bound = NUMBERS_BYTES + sum(int(longest[a:b].max()) for a, b in zip(starts, starts[1:]))
    buffer = np.empty(BLOCK_EVENTS * bound, np.uint8)
    sync = int(mix(np.uint64(salt))).to_bytes(8, "big") + int(mix(np.uint64(salt) ^ np.uint64(1))).to_bytes(8, "big")
    header = io.BytesIO()
    fastavro.writer(header, SCHEMA, [], sync_marker=sync)
    with path.open("wb") as file:
        file.write(header.getvalue())
        for first, end in zip(edges, edges[1:]):
            size = encode_events(buffer, columns, book, np.uint64(salt), rows[first:end], received[first:end])
            file.writelines((_long(end - first), _long(size), buffer[:size], sync))
        return file.tell()


@njit(cache=True, nogil=True)
def encode_events(buffer, columns, book, salt, rows, received):
    """Encode the events of `rows` into `buffer` (u1, long enough) -> bytes used."""
    text, at = book.text, book.at
    (
        key, event_type, event_time, booking, impression, user, context, ip, agent, consent, price, currency,
        visible_percent, visible_ms, audible_ms, played_ms, conversion_type, value, order, experiment, site, session,
        spec,
    ) = columns
    p = 0
    for i in range(rows.size):
        r = rows[i]
        if key[r] == NO_ID:
            buffer[p] = 0
            p += 1
        else:
            p = _put_id(buffer, p, key[r], salt)
        p = _put_phrase(buffer, p, text, at, book.types + event_type[r])
        p = _put_long(buffer, p, event_time[r])
        p = _put_phrase(buffer, p, text, at, book.bookings + booking[r])
        if impression[r] == NO_ID:
            buffer[p] = 0
            p += 1
        else:
            buffer[p] = 2
            p = _put_id(buffer, p + 1, impression[r], salt)
        p = _put_person(buffer, p, user[r], salt)
        p = _put_phrase(buffer, p, text, at, book.contexts + context[r])
        if ip[r] >= WRITTEN:
            p = _put_phrase(buffer, p, text, at, book.addresses + (ip[r] - WRITTEN))
        else:
            p = _put_address(buffer, p, ip[r])
        p = _put_phrase(buffer, p, text, at, book.agents + agent[r])
        p = _put_phrase(buffer, p, text, at, book.consents + consent[r])
        p = _put_number(buffer, p, price[r])
        p = _put_phrase(buffer, p, text, at, book.currencies + currency[r])
        p = _put_number(buffer, p, visible_percent[r])
        p = _put_number(buffer, p, visible_ms[r])
        p = _put_number(buffer, p, audible_ms[r])
        p = _put_number(buffer, p, played_ms[r])
        p = _put_phrase(buffer, p, text, at, book.conversion_types + conversion_type[r])
        p = _put_number(buffer, p, value[r])
        p = _put_order(buffer, p, order[r])
        p = _put_phrase(buffer, p, text, at, book.experiments + experiment[r])
        p = _put_phrase(buffer, p, text, at, book.sites + site[r])
        if session[r] == 0:
            buffer[p] = 0
            p += 1
        else:
            p = _put_hash(buffer, p, mix(np.uint64(session[r]) ^ salt), 16)
        p = _put_phrase(buffer, p, text, at, book.specs + spec[r])
        p = _put_number(buffer, p, received[i])
    return p


@njit(cache=True, nogil=True)
def _put_phrase(buffer, p, text, at, phrase):
    first, end = np.uint64(at[phrase]), np.uint64(at[phrase + 1])
    to = np.uint64(p)  # unsigned: where no index can count from the end, the loop becomes one block copy
    for k in range(end - first):
        buffer[to + k] = text[first + k]
    return p + np.int64(end - first)


@njit(cache=True, nogil=True)
def _put_long(buffer, p, number):
    """Zigzag, seven bits a byte, the lowest first."""
    n = np.int64(number)
    z = np.uint64((n << 1) ^ (n >> 63))
    while z >= np.uint64(0x80):
        buffer[p] = np.uint8(z & np.uint64(0x7F)) | np.uint8(0x80)
        z >>= np.uint64(7)
        p += 1
    buffer[p] = np.uint8(z)
    return p + 1


@njit(cache=True, nogil=True)
def _put_number(buffer, p, number):
    """A nullable int or long."""
    if number == NULL:
        buffer[p] = 0
        return p + 1
    buffer[p] = 2
    return _put_long(buffer, p + 1, number)


@njit(cache=True, nogil=True)
def _put_hex(buffer, p, number, digits):
    """The highest `digits` hexadecimal digits of a uint64."""
    to = np.uint64(p)
    for k in range(np.uint64(digits)):
        digit = np.uint8(number >> np.uint64(60)) & np.uint8(15)
        number <<= np.uint64(4)
        buffer[to + k] = digit + (np.uint8(48) if digit < 10 else np.uint8(87))
    return p + digits


@njit(cache=True, nogil=True)
def _put_decimal(buffer, p, number, digits):
    """The lowest `digits` decimal digits."""
    for k in range(digits - 1, -1, -1):
        buffer[p + k] = 48 + number % 10
        number //= 10
    return p + digits


@njit(cache=True, nogil=True)
def _put_id(buffer, p, key, salt):
    """An event id: 32 hexadecimal digits, of which the first 16 are `mix(key + salt)`."""
    buffer[p] = 64
    high = mix(np.uint64(key) + salt)
    p = _put_hex(buffer, p + 1, high, 16)
    return _put_hex(buffer, p, mix(high ^ salt), 16)


@njit(cache=True, nogil=True)
def _put_hash(buffer, p, number, digits):
    """A nullable text of at most 31 hexadecimal digits."""
    buffer[p] = 2
    buffer[p + 1] = 2 * digits
    return _put_hex(buffer, p + 2, number, digits)


@njit(cache=True, nogil=True)
def _put_person(buffer, p, user, salt):
    """user_id and household_id; two households of three are known, each of up to three people."""
    if user == NO_ID:
        buffer[p], buffer[p + 1] = 0, 0
        return p + 2
    p = _put_hash(buffer, p, mix(np.uint64(user) + (salt ^ np.uint64(0x75736572))), 16)
    household = mix(np.uint64(user // 3) + (salt ^ np.uint64(0x686F6D65)))
    if household % np.uint64(3) == np.uint64(0):
        buffer[p] = 0
        return p + 1
    return _put_hash(buffer, p, household, 14)


@njit(cache=True, nogil=True)
def _put_address(buffer, p, ip):
    if ip == NO_IP:
        buffer[p] = 0
        return p + 1
    buffer[p] = 2
    size_at = p + 1
    p += 2
    if ip == BAD_IP:
        for letter in b"not-an-ip":
            buffer[p] = letter
            p += 1
    elif ip < 1 << 32:
        for shift in (24, 16, 8, 0):
            octet = ip >> shift & 255
            if octet >= 100:
                p = _put_decimal(buffer, p, octet, 3)
            elif octet >= 10:
                p = _put_decimal(buffer, p, octet, 2)
            else:
                p = _put_decimal(buffer, p, octet, 1)
            buffer[p] = 46
            p += 1
        p -= 1
    else:
        for letter in b"2a02":
            buffer[p] = letter
            p += 1
        high = mix(np.uint64(ip))
        low = mix(high)
        for group in range(7):
            buffer[p] = 58
            half = high if group < 4 else low
            p = _put_hex(buffer, p + 1, half << np.uint64(16 * (group % 4)), 4)
    buffer[size_at] = 2 * (p - size_at - 1)
    return p


@njit(cache=True, nogil=True)
def _put_order(buffer, p, order):
    if order == NO_ID:
        buffer[p] = 0
        return p + 1
    buffer[p], buffer[p + 1] = 2, 2 * 14
    for k, letter in enumerate(b"ord-"):
        buffer[p + 2 + k] = letter
    return _put_decimal(buffer, p + 6, order, 10)


def _booking(names: tuple[str, ...], booking: Booking) -> bytes:
    """advertiser_id (not nullable), campaign_id, line_item_id, creative_id, placement_id."""
    advertiser, campaign, line_item, creative, placement = booking_names(names, booking)
    branch = _long(7) if booking == Booking.UNDECODABLE else b""
    return _string(advertiser) + branch + b"".join(map(_optional, (campaign, line_item, creative, placement)))


def _long(number: int) -> bytes:
    """A number of 0 or more."""
    zigzag, data = number << 1, bytearray()
    while zigzag >= 0x80:
        data.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes((*data, zigzag))


def _string(text: str) -> bytes:
    data = text.encode()
    return _long(len(data)) + data


def _optional(value: str | int | None) -> bytes:
    """Branch and value of a union of null and one type."""
    if value is None:
        return _long(0)
    return _long(1) + (_string(value) if isinstance(value, str) else _long(value))
