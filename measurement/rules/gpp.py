"""Consent in a GPP string of the IAB Tech Lab Global Privacy Platform, version 1.

"Global Privacy Platform String", "Header": a header that lists the ids of the sections, then the sections in that order,
joined by tildes. "Section Information" numbers them. Two hold consents to purposes: 2, the European TC string as it is, and
5, the Canadian one. Those of the United States (6 and up) hold notices and opt-outs: no consent to a purpose can be read from
them, and they are left unread, as is any other section.

A string may hold both sections, and which of them applies is told beside the string (the macro GPP_SID), not in it. Consent then
holds only if both hold it, so that none is ever read from a law that is not the user's.
"""

from collections.abc import Collection

from measurement.rules import tcf, tcf_canada
from measurement.rules.bits import Bits, Malformed

HEADER, VERSION = 3, 1
_CONSENTS = ((2, tcf.granted), (5, tcf_canada.granted))


def granted(text: str, vendor: int, purposes: Collection[int]) -> bool:
    """Whether a GPP string holds the user's consent to all ``purposes`` and, unless it is 0, to ``vendor``.

    ValueError where its header or a section that could hold it does not parse.
    """
    parts = sections(text)
    answers = [read(parts[number], vendor, purposes) for number, read in _CONSENTS if number in parts]
    return bool(answers) and all(answers)


def sections(text: str) -> dict[int, str]:
    """The sections of a GPP string by id; ValueError where the header does not parse or lists more or fewer than follow it."""
    header, *parts = text.split("~")
    bits = Bits(header)
    if bits.take(6) != HEADER or bits.take(6) != VERSION:
        raise Malformed("no GPP string of version 1")
    numbers: list[int] = []
    for start, end in bits.fibonacci_ranges():
        if len(numbers) + end - start >= len(parts):
            raise Malformed("the header lists more sections than there are")
        numbers.extend(range(start, end + 1))
    if len(numbers) != len(parts):
        raise Malformed("the header lists fewer sections than there are")
    return dict(zip(numbers, parts))
