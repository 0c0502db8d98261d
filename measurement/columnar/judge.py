"""Stateless judgement of decoded events, compiled: the outcomes of contract section 2 up to ``future``.

One pass per event gives the first reason that holds, or acceptance, with what later steps need: type, times and what a
viewability event shows. Whether an accepted event is ``too_late`` depends on the watermark (measurement/io/watermark.py).
"""

import numpy as np
from numba import njit

from measurement.columnar.addresses import address
from measurement.columnar.hashing import word
from measurement.model import events as e

_F = e.FIELD_INDEX
_EVENT_ID, _EVENT_TYPE, _EVENT_TIME, _ADVERTISER = (
    _F["event_id"], _F["event_type"], _F["event_time"], _F["advertiser_id"])
_CAMPAIGN, _IMPRESSION_ID, _FORMAT, _IP = _F["campaign_id"], _F["impression_id"], _F["format"], _F["ip"]
_PERCENT, _VISIBLE_MS, _AUDIBLE_MS, _RECEIVED = (
    _F["visible_percent"], _F["visible_ms"], _F["audible_ms"], _F["received_time"])
_NOT_NEGATIVE = np.array([_F[name] for name in e.NOT_NEGATIVE])
_INTS = np.array([_F[f["name"]] for f in e.SCHEMA["fields"] if "int" in f["type"]])
_FUTURE = e.FUTURE_TOLERANCE_MICROS
_MIN_TIME, _MAX_TIME = e.MIN_TIME_MICROS, e.MAX_TIME_MICROS

ACCEPTED, UNDECODABLE, MISSING_FIELD, UNKNOWN_TYPE, BAD_VALUE, CONSENT_DENIED, FUTURE, TOO_LATE = range(8)
REASONS = ("", *e.OUTCOMES[:7])  # by code
assert REASONS[TOO_LATE] == "too_late"

UNKNOWN = np.uint8(255)  # the type code of no known type


def _text_keys(names: tuple[str, ...]) -> np.ndarray:
    """(names, 3) uint64: length and the first 16 bytes; all names here are at most 16 bytes long."""
    keys = np.zeros((len(names), 3), np.uint64)
    for i, name in enumerate(names):
        raw = name.encode()
        assert len(raw) <= 16
        keys[i] = (len(raw), *np.frombuffer(raw.ljust(16, b"\0"), np.uint64))
    return keys


_TYPES = _text_keys(e.EVENT_TYPES)
_FORMATS = _text_keys(e.FORMATS)

# What one viewability event can show, as bits; which of them counts is decided by the impression's format.
SHOWS_VIEW, SHOWS_DISPLAY, SHOWS_VIDEO, SHOWS_AUDIBLE, SHOWS_LARGE = 1, 2, 4, 8, 16
# What an impression is in this, beside 1 + its index in FORMATS: display of a large format.
_DISPLAY, LARGE_DISPLAY = 1 + e.FORMATS.index("display"), 1 + len(e.FORMATS)
_WIDTH, _HEIGHT = _F["creative_width"], _F["creative_height"]


@njit
def _one_of(buf, start, length, keys):
    """Index of the text among ``keys``, -1 if none."""
    if length > 16:
        return -1
    first = word(buf, start, length)
    second = word(buf, start + 8, length - 8) if length > 8 else np.uint64(0)
    for i in range(len(keys)):
        if keys[i, 0] == np.uint64(length) and keys[i, 1] == first and keys[i, 2] == second:
            return i
    return -1


@njit(cache=True, nogil=True)
def _judge(buf, values, lengths, clocks, view, reason, field, kind, receipt, shows, ip_hi, ip_lo):
    for i in range(len(values)):
        v, n = values[i], lengths[i]
        field[i] = -1
        kind[i] = UNKNOWN
        shows[i] = 0
        ip_hi[i], ip_lo[i] = 0, 0
        receipt[i] = v[_RECEIVED] if n[_RECEIVED] >= 0 else clocks[i]
        reason[i] = MISSING_FIELD
        for f in (_EVENT_ID, _EVENT_TYPE, _EVENT_TIME, _ADVERTISER):
            if n[f] < 0:
                field[i] = f
                break
        if field[i] >= 0:
            if n[_EVENT_TYPE] > 0:
                known = _one_of(buf, v[_EVENT_TYPE], n[_EVENT_TYPE], _TYPES)
                if known >= 0:
                    kind[i] = known
            continue
        known = _one_of(buf, v[_EVENT_TYPE], n[_EVENT_TYPE], _TYPES)
        if known < 0:
            reason[i] = UNKNOWN_TYPE
            field[i] = _EVENT_TYPE
            continue
        kind[i] = known
        if n[_CAMPAIGN] < 0 and known != e.CONVERSION:
            field[i] = _CAMPAIGN
            continue
        if n[_IMPRESSION_ID] < 0 and known != e.CONVERSION and known != e.IMPRESSION:
            field[i] = _IMPRESSION_ID
            continue
        reason[i] = BAD_VALUE
        if v[_EVENT_TIME] < _MIN_TIME or v[_EVENT_TIME] > _MAX_TIME:
            field[i] = _EVENT_TIME
            continue
        if n[_RECEIVED] >= 0 and (v[_RECEIVED] < _MIN_TIME or v[_RECEIVED] > _MAX_TIME):
            field[i] = _RECEIVED
            continue
        for f in _NOT_NEGATIVE:
            if n[f] >= 0 and v[f] < 0:
                field[i] = f
                break
        if field[i] >= 0:
            continue
        for f in _INTS:
            if n[f] >= 0 and not -2147483648 <= v[f] <= 2147483647:  # more than Avro's int holds
                field[i] = f
                break
        if field[i] >= 0:
            continue
        if n[_PERCENT] >= 0 and (v[_PERCENT] < 0 or v[_PERCENT] > 100):
            field[i] = _PERCENT
            continue
        if n[_FORMAT] > 0 and _one_of(buf, v[_FORMAT], n[_FORMAT], _FORMATS) < 0:
            field[i] = _FORMAT
            continue
        if n[_IP] > 0:
            good, ip_hi[i], ip_lo[i] = address(buf, v[_IP], n[_IP])
            if not good:
                field[i] = _IP
                continue
        if v[_EVENT_TIME] > receipt[i] + _FUTURE:
            reason[i] = FUTURE
            field[i] = _EVENT_TIME
        else:
            reason[i] = ACCEPTED
        if known == e.IMPRESSION and n[_FORMAT] > 0:
            shows[i] = 1 + _one_of(buf, v[_FORMAT], n[_FORMAT], _FORMATS)
            if shows[i] == _DISPLAY and n[_WIDTH] >= 0 and n[_HEIGHT] >= 0 and v[_WIDTH] > 0 and v[_HEIGHT] > 0:
                if v[_WIDTH] * v[_HEIGHT] >= view.large_display_pixels:  # both are below 2^31
                    shows[i] = LARGE_DISPLAY
        elif known == e.VIEWABILITY:
            bits = SHOWS_VIEW
            if n[_PERCENT] >= 0 and n[_VISIBLE_MS] >= 0:
                if v[_PERCENT] >= view.display_percent and v[_VISIBLE_MS] >= view.display_ms:
                    bits |= SHOWS_DISPLAY
                if v[_PERCENT] >= view.video_percent and v[_VISIBLE_MS] >= view.video_ms:
                    bits |= SHOWS_VIDEO
                if v[_PERCENT] >= view.large_display_percent and v[_VISIBLE_MS] >= view.display_ms:
                    bits |= SHOWS_LARGE
            if n[_AUDIBLE_MS] >= 0 and v[_AUDIBLE_MS] >= view.audible_ms:
                bits |= SHOWS_AUDIBLE
            shows[i] = bits


def judge(buf: np.ndarray, values: np.ndarray, lengths: np.ndarray, clocks: np.ndarray, view) -> dict[str, np.ndarray]:
    """Judges n decoded events. ``clocks`` (int64 µs, n) are the receipts of events that state none; ``view`` a Viewability.

    Returns arrays of length n: ``reason`` (uint8 code into REASONS, 0 accepted), ``field`` (int8, the offending
    field's index, -1 none), ``type`` (uint8 code into EVENT_TYPES, 255 unknown), ``receipt`` (int64 µs), ``shows``
    (uint8: of a viewability event the bits above, of an impression 1 + its index in FORMATS or LARGE_DISPLAY, 0 for none), ``ip_hi`` and
    ``ip_lo`` (uint64: the address of an accepted event that has one, see ``addresses``; read here, where its text is read).
    """
    n = len(values)
    out = {
        "reason": np.empty(n, np.uint8), "field": np.empty(n, np.int8), "type": np.empty(n, np.uint8),
        "receipt": np.empty(n, np.int64), "shows": np.empty(n, np.uint8),
        "ip_hi": np.empty(n, np.uint64), "ip_lo": np.empty(n, np.uint64),
    }
    _judge(buf, values, lengths, clocks, view, *out.values())
    return out
