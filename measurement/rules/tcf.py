"""Consent in a TC string of the IAB Europe Transparency & Consent Framework, v2.0 to v2.3.

IAB Tech Lab, "Transparency and Consent String with Global Vendor & CMP List Formats" v2, "TC String Format": a core segment
and, joined by dots and in any order, segments that say their type in their first three bits.

The whole string must parse. Which strings are valid, by the same document:

- "The Core String": Version is 2, and IsServiceSpecific is 1; strings of global scope are invalid since 1 September 2021.
- "Managing conflicting string versions": one made after 30 September 2023 needs a TcfPolicyVersion of 4 or more (v2.2).
- "TC String Format": the segment DisclosedVendors is mandatory (v2.3). IAB Europe holds it so for strings made after
  28 February 2026; older ones without it remain valid. The policy version does not tell: it is 5 since July 2024, a year
  before v2.3, and v2.3 did not raise it.

A string is as old as its LastUpdated, which is when the choices in it were written.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from measurement.rules.bits import LARGEST_ID, Bits, Malformed

DISCLOSED_VENDORS, ALLOWED_VENDORS, PUBLISHER_TC = 1, 2, 3
NOT_ALLOWED, REQUIRE_LEGITIMATE_INTEREST = 0, 2
PURPOSES = 24

# The fixed fields of the core segment, up to PublisherCC, are read as one integer; a field by how many bits follow it.
_FIXED_BITS = 213
_VERSION = _FIXED_BITS - 6
_LAST_UPDATED = _FIXED_BITS - 78
_POLICY_VERSION = _FIXED_BITS - 138
_SERVICE_SPECIFIC = _FIXED_BITS - 139
_PURPOSES_CONSENT = _FIXED_BITS - 176


def _deciseconds(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 10


_POLICY_4_FROM = _deciseconds(2023, 10, 1)
_DISCLOSURE_FROM = _deciseconds(2026, 3, 1)


def granted(text: str, vendor: int, purposes: Collection[int]) -> bool:
    """Whether a TC string holds the user's consent to all ``purposes`` and, unless it is 0, to ``vendor``.

    Legitimate interest is no consent. ValueError where the string does not parse or is invalid.
    """
    core, *others = text.split(".")
    bits = Bits(core)
    fixed = bits.take(_FIXED_BITS)
    updated, policy = fixed >> _LAST_UPDATED & (1 << 36) - 1, fixed >> _POLICY_VERSION & 63
    if fixed >> _VERSION != 2:
        raise Malformed("no TC string of version 2")
    if not fixed >> _SERVICE_SPECIFIC & 1:
        raise Malformed("a TC string of global scope")
    if updated >= _POLICY_4_FROM and policy < 4:
        raise Malformed("a TC string made after 30 September 2023 under a policy before version 4")
    consented = vendor_in(bits, vendor)
    vendor_in(bits, vendor)  # legitimate interests
    taken = restricted(bits, vendor, purposes, vendor_in_ranges)
    disclosed = disclosed_in(others, vendor, vendor_in)
    if disclosed is None and updated >= _DISCLOSURE_FROM:
        raise Malformed("a TC string made after 28 February 2026 without the segment DisclosedVendors")
    return all_set(fixed >> _PURPOSES_CONSENT, purposes) and (not vendor or consented and not taken and disclosed is not False)


def all_set(field: int, purposes: Collection[int]) -> bool:
    """Whether the bits of all ``purposes`` are set in the lowest 24 bits of ``field``, of which purpose 1 is the leftmost."""
    return all(0 < purpose <= PURPOSES and field >> (PURPOSES - purpose) & 1 for purpose in purposes)


def vendor_in(bits: Bits, vendor: int) -> bool:
    """Passes a section of vendors, MaxVendorId, IsRangeEncoding and a bit field or ranges: whether it holds ``vendor``."""
    largest, in_ranges = divmod(bits.take(17), 2)
    return vendor_in_ranges(bits, vendor, largest) if in_ranges else bits.field(largest, vendor)


def vendor_in_ranges(bits: Bits, vendor: int, largest: int = LARGEST_ID) -> bool:
    """Passes NumEntries and as many range entries: whether one holds ``vendor``.

    Entries may overlap and have no order. Malformed where one ends before it starts or lies above ``largest``.
    """
    held = False
    for _ in range(bits.take(12)):
        is_range, start = divmod(bits.take(17), 1 << 16)
        end = bits.take(16) if is_range else start
        if start > end or end > largest:
            raise Malformed("a range of vendors that cannot be")
        held = held or start <= vendor <= end
    return held


def restricted(bits: Bits, vendor: int, purposes: Collection[int], read: Callable[[Bits, int], bool]) -> bool:
    """Passes the publisher restrictions: whether one takes a purpose of ``purposes`` from ``vendor``.

    Type 0, not allowed, takes it. So does type 2, legitimate interest required: a vendor may then not go by consent, be the
    purpose flexible or not. Type 1, consent required, leaves consent as it is, and type 3 is not used. ``read`` passes the
    vendors of one restriction.
    """
    taken = False
    for _ in range(bits.take(12)):
        purpose, kind = divmod(bits.take(8), 4)
        held = read(bits, vendor)
        taken = taken or held and purpose in purposes and kind in (NOT_ALLOWED, REQUIRE_LEGITIMATE_INTEREST)
    return taken


def disclosed_in(segments: Iterable[str], vendor: int, read: Callable[[Bits, int], bool]) -> bool | None:
    """Whether ``vendor`` was disclosed to the user, by the segments behind the core; None where no segment tells.

    The other segments decide nothing: vendors were allowed in global scope, and a publisher's consents are for its own use.
    Malformed where a segment is of no known type or a type comes twice. ``read`` passes a section of vendors.
    """
    seen = {}
    for segment in segments:
        bits = Bits(segment)
        kind = bits.take(3)
        if kind in seen:
            raise Malformed("two segments of one type")
        if kind in (DISCLOSED_VENDORS, ALLOWED_VENDORS):
            seen[kind] = read(bits, vendor)
        elif kind == PUBLISHER_TC:
            bits.field(2 * PURPOSES, 0)
            seen[kind] = bits.field(2 * bits.take(6), 0)  # custom purposes: consents and legitimate interests
        else:
            raise Malformed("a segment of no known type")
    return seen.get(DISCLOSED_VENDORS)
