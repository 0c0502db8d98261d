"""Consent strings once more, from IAB's specifications: slow, plain and apart from the pipeline; and an encoder of them.

It imports nothing from the project. A string becomes a text of zeros and ones, a list of vendors a set of numbers. The encoder
makes strings of which it is known what they hold, in every form that the specifications or IAB's own encoders write.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FLAG_FIRST, LARGEST_FIRST, EUROPEAN = "flag first", "largest first", "European"
WAYS = (FLAG_FIRST, LARGEST_FIRST, EUROPEAN)  # of writing the vendors of a Canadian section


class NoConsent(Exception):
    pass


def deciseconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10


# --- Decoding ------------------------------------------------------------------------------------------------

class Tape:
    """Zeros and ones that are torn off from the left."""

    def __init__(self, text: str):
        if any(c not in ALPHABET for c in text):
            raise NoConsent
        self.left = "".join(f"{ALPHABET.index(c):06b}" for c in text)

    def tear(self, count: int) -> str:
        if count > len(self.left):
            raise NoConsent
        torn, self.left = self.left[:count], self.left[count:]
        return torn

    def int(self, count: int) -> int:
        return int(self.tear(count), 2)

    def field(self, count: int) -> set[int]:
        return {i for i, bit in enumerate(self.tear(count), 1) if bit == "1"}

    def fibonacci(self) -> int:
        number, (value, after), before = 0, (1, 2), "0"
        while True:
            bit = self.tear(1)
            if bit == before == "1":
                if number > 65535:
                    raise NoConsent
                return number
            number += value * int(bit)
            value, after, before = after, value + after, bit
            if value > 10**9:  # a number that does not end within reason; any above 65535 is refused
                raise NoConsent

    def int_range(self, largest: int = 65535) -> set[int]:
        ids = set()
        for _ in range(self.int(12)):
            group, start = self.int(1), self.int(16)
            end = self.int(16) if group else start
            if start > end or end > largest:
                raise NoConsent
            ids |= set(range(start, end + 1))
        return ids

    def fibonacci_range(self) -> list[int]:
        ids, last = [], 0
        for _ in range(self.int(12)):
            group, start = self.int(1), last + self.fibonacci()
            last = start + self.fibonacci() if group else start
            if last > 65535:
                raise NoConsent
            ids += range(start, last + 1)
        return ids

    def vendors(self, way: str) -> set[int]:
        if way == FLAG_FIRST:
            return set(self.fibonacci_range()) if self.int(1) else self.field(self.int(16))
        largest, group = self.int(16), self.int(1)
        if not group:
            return self.field(largest)
        return self.int_range(largest) if way == EUROPEAN else set(self.fibonacci_range())


def granted(text: str, vendor: int, purposes) -> bool:
    try:
        if text[:1] == "C":
            return european(text, vendor, purposes)
        if text[:1] != "D":
            return False
        parts = sections(text)
        found = [european(parts[2], vendor, purposes)] if 2 in parts else []
        found += [canadian(parts[5], vendor, purposes)] if 5 in parts else []
        return len(found) > 0 and False not in found
    except NoConsent:
        return False


def sections(text: str) -> dict[int, str]:
    header, *parts = text.split("~")
    tape = Tape(header)
    if tape.int(6) != 3 or tape.int(6) != 1:
        raise NoConsent
    ids = tape.fibonacci_range()
    if len(ids) != len(parts):
        raise NoConsent
    return dict(zip(ids, parts))


def european(text: str, vendor: int, purposes) -> bool:
    core, *others = text.split(".")
    tape = Tape(core)
    version, _, updated = tape.int(6), tape.int(36), tape.int(36)
    tape.tear(12 + 12 + 6 + 12 + 12)
    policy, service_specific = tape.int(6), tape.int(1)
    tape.tear(1 + 12)
    consents, _ = tape.field(24), tape.field(24)
    tape.tear(1 + 12)
    vendors, _ = tape.vendors(EUROPEAN), tape.vendors(EUROPEAN)
    restrictions = [(tape.int(6), tape.int(2), tape.int_range()) for _ in range(tape.int(12))]
    disclosed = disclosed_vendors(others, EUROPEAN)
    if version != 2 or not service_specific:
        raise NoConsent
    if updated >= deciseconds("2023-10-01") and policy < 4 or updated >= deciseconds("2026-03-01") and disclosed is None:
        raise NoConsent
    return decided(vendor, purposes, consents, vendors, restrictions, disclosed)


def canadian(text: str, vendor: int, purposes) -> bool:
    answers = []
    for way in WAYS:
        try:
            answers.append(canadian_in(way, text, vendor, purposes))
        except NoConsent:
            continue
    if not answers:
        raise NoConsent
    return False not in answers


def canadian_in(way: str, text: str, vendor: int, purposes) -> bool:
    core, *others = text.split(".")
    tape = Tape(core)
    if tape.int(6) != 1:
        raise NoConsent
    tape.tear(36 + 36 + 12 + 12 + 6 + 12 + 12 + 6 + 1 + 12)
    consents, _ = tape.field(24), tape.field(24)
    vendors, _ = tape.vendors(way), tape.vendors(way)
    count = tape.int(12) if len(tape.left) >= 12 else 0  # older encoders wrote none
    restrictions = [
        (tape.int(6), tape.int(2), tape.int_range() if way == EUROPEAN else tape.vendors(way)) for _ in range(count)]
    if len(tape.left) >= 24 or "1" in tape.left:
        raise NoConsent
    return decided(vendor, purposes, consents, vendors, restrictions, disclosed_vendors(others, way))


def disclosed_vendors(segments: list[str], way: str) -> set[int] | None:
    found = {}
    for segment in segments:
        tape = Tape(segment)
        kind = tape.int(3)
        if kind in found or kind not in (1, 2, 3):
            raise NoConsent
        if kind == 3:
            tape.tear(48)
            tape.tear(2 * tape.int(6))
        found[kind] = tape.vendors(way) if kind < 3 else None
    return found.get(1)


def decided(vendor: int, purposes, consents, vendors, restrictions, disclosed) -> bool:
    if not set(purposes) <= consents:
        return False
    if vendor == 0:
        return True
    takes = any(purpose in purposes and kind in (0, 2) and vendor in ids for purpose, kind, ids in restrictions)
    return vendor in vendors and not takes and (disclosed is None or vendor in disclosed)


# --- Encoding ------------------------------------------------------------------------------------------------

@dataclass
class Consent:
    """What a string holds; ``restrictions`` are (purpose, type, vendors)."""

    updated: str = "2023-06-01"
    policy: int = 2
    version: int = 2
    service_specific: bool = True
    purposes: set[int] = field(default_factory=set)
    interests: set[int] = field(default_factory=set)
    vendors: set[int] = field(default_factory=set)
    vendor_interests: set[int] = field(default_factory=set)
    restrictions: list[tuple[int, int, set[int]]] = field(default_factory=list)
    disclosed: set[int] | None = None
    allowed: set[int] | None = None
    publisher_purposes: int | None = None  # how many custom purposes the publisher's segment has
    in_ranges: bool = True
    whole: int = 6  # a segment is filled up to a multiple of so many bits

    def grants(self, vendor: int, purposes) -> bool:
        """What a reader of its European string must find."""
        valid = self.version == 2 and self.service_specific
        valid &= self.policy >= 4 or self.updated <= "2023-09-30"
        valid &= self.disclosed is not None or self.updated <= "2026-02-28"
        return valid and self.consents(vendor, purposes)

    def consents(self, vendor: int, purposes) -> bool:
        return decided(vendor, purposes, self.purposes, self.vendors, self.restrictions, self.disclosed)

    def tc_string(self) -> str:
        day = f"{deciseconds(self.updated):036b}"
        core = f"{self.version:06b}{day}{day}" + "0" * 42 + f"{7:012b}{self.policy:06b}{self.service_specific:b}0" + "0" * 12
        core += bit_field(self.purposes, 24) + bit_field(self.interests, 24) + "0" + "0" * 12
        core += self._vendors(self.vendors, EUROPEAN) + self._vendors(self.vendor_interests, EUROPEAN)
        core += self._restrictions(EUROPEAN)
        return self._segments(core, EUROPEAN)

    def canadian(self, way: str) -> str:
        day = f"{deciseconds(self.updated):036b}"
        core = f"{1:06b}{day}{day}" + "0" * 42 + f"{7:012b}{self.policy:06b}0" + "0" * 12
        core += bit_field(self.purposes, 24) + bit_field(self.interests, 24)
        core += self._vendors(self.vendors, way) + self._vendors(self.vendor_interests, way) + self._restrictions(way)
        return self._segments(core, way)

    def _segments(self, core: str, way: str) -> str:
        segments = [core]
        if self.publisher_purposes is not None:
            segments.append("011" + "1" * 48 + f"{self.publisher_purposes:06b}" + "10" * self.publisher_purposes)
        if self.allowed is not None:
            segments.append("010" + self._vendors(self.allowed, way))
        if self.disclosed is not None:
            segments.append("001" + self._vendors(self.disclosed, way))
        return ".".join(characters(segment, self.whole) for segment in segments)

    def _vendors(self, ids: set[int], way: str) -> str:
        largest = max(ids, default=0)
        if way == FLAG_FIRST:
            return "1" + fibonacci_range(ids) if self.in_ranges else f"0{largest:016b}" + bit_field(ids, largest)
        ranges = int_range(ids) if way == EUROPEAN else fibonacci_range(ids)
        return f"{largest:016b}" + ("1" + ranges if self.in_ranges else "0" + bit_field(ids, largest))

    def _restrictions(self, way: str) -> str:
        return f"{len(self.restrictions):012b}" + "".join(
            f"{purpose:06b}{kind:02b}" + (int_range(ids) if way == EUROPEAN else self._vendors(ids, way))
            for purpose, kind, ids in self.restrictions)


def gpp_string(parts: dict[int, str]) -> str:
    header = f"{3:06b}{1:06b}" + fibonacci_range(set(parts))
    return "~".join([characters(header), *(parts[number] for number in sorted(parts))])


def characters(bits: str, whole: int = 6) -> str:
    bits += "0" * (-len(bits) % whole)
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))


def bit_field(ids: set[int], count: int) -> str:
    return "".join("01"[i in ids] for i in range(1, count + 1))


def groups(ids: set[int]) -> list[tuple[int, int]]:
    """The runs (first, last) of neighbours in ``ids``."""
    starts, ends = [i for i in sorted(ids) if i - 1 not in ids], [i for i in sorted(ids) if i + 1 not in ids]
    return list(zip(starts, ends))


def int_range(ids: set[int]) -> str:
    runs = groups(ids)
    return f"{len(runs):012b}" + "".join(f"0{a:016b}" if a == b else f"1{a:016b}{b:016b}" for a, b in runs)


def fibonacci_range(ids: set[int]) -> str:
    runs, last = groups(ids), 0
    out = f"{len(runs):012b}"
    for a, b in runs:
        out += f"{int(a < b)}" + fibonacci(a - last) + (fibonacci(b - a) if a < b else "")
        last = b
    return out


def fibonacci(number: int) -> str:
    values = [1, 2]
    while values[-1] <= number:
        values.append(values[-1] + values[-2])
    code = ""
    for value in reversed(values):
        if value <= number:
            number -= value
            code = "1" + code
        elif code:
            code = "0" + code
    return code + "1"
