"""Consent in the Canadian section of a GPP string, section 5, "tcfcav1".

IAB Tech Lab, "IAB Canada TCF Technical Specification", "Section encoding". It is laid out as the European string is, without
IsServiceSpecific and PublisherCC and in version 1. By its summary of differences "consent" is to be read as "express consent"
and "legitimate interest" as "implied consent": implied consent is no consent here either.

Vendors are an OptimizedRange, which the GPP specification words as a flag and then ranges in Fibonacci integers or a bit
field behind its length. IAB's own encoders write something else: the largest vendor and then the flag, since 2026 with ranges
in Fibonacci integers and before with those of the European string. No field tells which it is. A section is therefore read in
all three ways; a way fits that parses and leaves nothing but padding, and consent holds only if all ways that fit say so.
"""

from collections.abc import Callable, Collection

from measurement.rules import tcf
from measurement.rules.bits import Bits, Malformed

_FIXED_BITS = 199
_VERSION = _FIXED_BITS - 6
_PURPOSES_EXPRESS_CONSENT = _FIXED_BITS - 175
_PADDING = 24  # no encoder fills up to a multiple of more bits

Read = Callable[[Bits, int], bool]


def granted(text: str, vendor: int, purposes: Collection[int]) -> bool:
    """Whether the section holds the user's express consent to all ``purposes`` and, unless it is 0, to ``vendor``.

    ValueError where it does not parse.
    """
    answers = []
    for vendors, restricted_vendors in _WAYS:
        try:
            answers.append(_granted(text, vendor, purposes, vendors, restricted_vendors))
        except Malformed:
            pass
    if not answers:
        raise Malformed("no way to read the Canadian section fits")
    return all(answers)


def _granted(text: str, vendor: int, purposes: Collection[int], vendors: Read, restricted_vendors: Read) -> bool:
    core, *others = text.split(".")
    bits = Bits(core)
    fixed = bits.take(_FIXED_BITS)
    if fixed >> _VERSION != 1:
        raise Malformed("no Canadian section of version 1")
    consented = vendors(bits, vendor)
    vendors(bits, vendor)  # implied consents
    # Strings of older encoders end before the publisher restrictions.
    taken = bits.left() >= 12 and tcf.restricted(bits, vendor, purposes, restricted_vendors)
    if bits.left() >= _PADDING or bits.take(bits.left()):
        raise Malformed("more than padding is left")
    disclosed = tcf.disclosed_in(others, vendor, vendors)
    return tcf.all_set(fixed >> _PURPOSES_EXPRESS_CONSENT, purposes) and (
        not vendor or consented and not taken and disclosed is not False)


def _flag_first(bits: Bits, vendor: int) -> bool:
    return _fibonacci_ranges(bits, vendor) if bits.take(1) else bits.field(bits.take(16), vendor)


def _largest_first(bits: Bits, vendor: int) -> bool:
    largest, in_ranges = divmod(bits.take(17), 2)
    return _fibonacci_ranges(bits, vendor) if in_ranges else bits.field(largest, vendor)


def _fibonacci_ranges(bits: Bits, vendor: int) -> bool:
    held = False
    for start, end in bits.fibonacci_ranges():
        held = held or start <= vendor <= end
    return held


_WAYS = (
    (_flag_first, _flag_first),
    (_largest_first, _largest_first),
    (tcf.vendor_in, tcf.vendor_in_ranges),
)
