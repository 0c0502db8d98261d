"""Row keys of the hourly tables that Bigtable serves. No Google client and no Beam.

A row stands under two keys in one table, so that an advertiser's and a campaign's range of hours are each one contiguous
scan, latest hour first:

    advertiser h hour campaign line_item …        by hour
    advertiser c campaign hour line_item …        by campaign

- The advertiser comes first in both: what is written now, rows of the newest hours, goes to as many places as there are
  advertisers, and no key begins with time. Inside an advertiser's newest hour the campaign follows, so Bigtable can split
  even there. All of an advertiser lies under one prefix, which can be dropped whole.
- Both keys carry the whole value. Pointers from one order to the other would save a third of the bytes and cost a lookup
  a row at each read. The two are two rows to Bigtable, written in one request but each for itself: a reader of one order
  never needs the other.
- The hour is 4 bytes big-endian, counted down from 2^31 - 1.
- A text is its UTF-8 bytes closed by a NUL. In it 00 is written 01 01 and 01 is written 01 02, so that no text is another's
  beginning, any Unicode comes back, and texts sort as their bytes do. NULL is 01 alone, the empty text is nothing.
- A key may have 4096 bytes. A text of more than 200 is keyed by its digest (01 03 and SHA-256 in hex) and its row's value
  has the texts in full; nine texts of 200 bytes, each escaped, take 3618 at most.
"""

import hashlib
import struct

from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_HOUR, MIN_TIME_MICROS

BY_HOUR, BY_CAMPAIGN = b"h", b"c"
HOUR_BYTES = 4
LONGEST = 200  # bytes of a text's UTF-8 that a key takes as they are
CUT = object()  # in a parsed key: the text was too long, the value has it
_NULL = b"\x01"
_CUT = b"\x01\x03"
_LAST_HOUR = 2**31 - 1  # the hours of the years 1 to 9999 are from -17,259,888 to 70,389,527


def text(value: str | None, cut: bool = True) -> bytes:
    """A text as an element of a key (``cut``) or of a value, with its terminator."""
    if value is None:
        return _NULL + b"\0"
    raw = value.encode()
    if cut and len(raw) > LONGEST:
        return _CUT + hashlib.sha256(raw).hexdigest().encode() + b"\0"
    return raw.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01") + b"\0"


def is_cut(element: bytes) -> bool:
    return element.startswith(_CUT)


def parsed(element: bytes) -> str | None | object:
    """The text of an element without its terminator; CUT where the element is a digest."""
    if element == _NULL:
        return None
    if is_cut(element):
        return CUT
    return element.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01").decode()


def texts(elements: bytes) -> list[str | None | object]:
    """What ``text`` made of each, joined."""
    return [parsed(element) for element in elements.split(b"\0")[:-1]]


def hour(micros: int) -> bytes:
    """ValueError unless it is a whole hour (µs) of the years 1 to 9999."""
    number, rest = divmod(micros, MICROS_PER_HOUR)
    if rest or not MIN_TIME_MICROS <= micros <= MAX_TIME_MICROS:
        raise ValueError(f"{micros} µs is not a whole hour of the years 1 to 9999")
    return _hour(number)


def _hour(number: int) -> bytes:
    return struct.pack(">I", _LAST_HOUR - number)


def by_hour(advertiser: bytes, hour: bytes, campaign: bytes, rest: bytes) -> bytes:
    """All but the hour as ``text`` made them; ``rest`` the other texts, joined."""
    return advertiser + BY_HOUR + hour + campaign + rest


def by_campaign(advertiser: bytes, hour: bytes, campaign: bytes, rest: bytes) -> bytes:
    return advertiser + BY_CAMPAIGN + campaign + hour + rest


def parse(key: bytes) -> tuple[bytes, int, list[str | None | object]]:
    """The order, the hour (µs), and the texts in the table's order."""
    at, before, behind = around_hour(key)
    order = key.index(b"\0") + 1
    return key[order : order + 1], hour_at(key, at), texts(before + behind)


def around_hour(key: bytes) -> tuple[int, bytes, bytes]:
    """Where a key has its hour, and the elements before it and behind it, which in this order are the table's."""
    at = key.index(b"\0") + 1
    before, by = key[:at], key[at : at + 1]
    at += 1
    if by == BY_CAMPAIGN:
        end = key.index(b"\0", at) + 1
        before, at = before + key[at:end], end
    return at, before, key[at + HOUR_BYTES :]


def hour_at(key: bytes, at: int) -> int:
    """The hour (µs) whose four bytes begin there."""
    return (_LAST_HOUR - struct.unpack_from(">I", key, at)[0]) * MICROS_PER_HOUR


def hours_of(advertiser: bytes, start: int, stop: int, campaign: bytes | None = None) -> tuple[bytes, bytes]:
    """[first, end) of the keys of an advertiser, or of its campaign, with hours in [start, stop) µs; both as ``text`` made
    them. Where the range is empty, first is not below end.
    """
    prefix = advertiser + BY_HOUR if campaign is None else advertiser + BY_CAMPAIGN + campaign
    first, end = (-(-min(max(at, MIN_TIME_MICROS), MAX_TIME_MICROS + 1) // MICROS_PER_HOUR) for at in (start, stop))
    return prefix + _hour(end - 1), prefix + _hour(first - 1)


def campaigns_of(advertiser: bytes) -> tuple[bytes, bytes]:
    """[first, end) of an advertiser's keys by campaign, all hours."""
    return advertiser + BY_CAMPAIGN, behind(advertiser + BY_CAMPAIGN)


def advertiser_of(key: bytes) -> bytes:
    """The element that a key begins with, terminator included: the prefix of all of the advertiser's keys."""
    return key[: key.index(b"\0") + 1]


def behind(prefix: bytes) -> bytes:
    """The least key above all that begin with a prefix that does not end in FF."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
