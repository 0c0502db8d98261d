"""What is known of a screening list: which version of what decided, for the numbers' ``rule_version`` (contract section 6).

General invalid traffic is found "through routine means of filtration", by lists that are kept up to date (MRC Invalid
Traffic Detection and Filtration Standards Addendum, 2020, section 1); so a list's age is a fact of its own.
"""

import re
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

STALE_DAYS = 90  # past them a list is to be renewed


@dataclass(frozen=True)
class ListFacts:
    """``entries`` counts what the list says in force; ``date`` is when it was made, None if that is not known."""

    name: str
    reason: str  # the invalid traffic that it finds: robot, datacentre or listed
    version: str | None
    date: date | None
    entries: int
    checksum: str  # of the file's bytes, by ``checksum``

    @property
    def stamp(self) -> str:
        """The list in one word: ``datacentre:datacentres.txt@2026-11-01#1a2b3c4d``; the version, then the date, if known."""
        known = dict.fromkeys(part for part in (self.version, self.date and self.date.isoformat()) if part)  # one for both if equal
        return f"{self.reason}:{'@'.join(map(_word, (self.name, *known)))}#{self.checksum}"

    def age(self, today: date) -> int | None:
        """Days since the list's date, None if it is not known."""
        return None if self.date is None else (today - self.date).days

    def stale(self, today: date) -> bool:
        """Older than STALE_DAYS, or of unknown age."""
        age = self.age(today)
        return age is None or age > STALE_DAYS


def checksum(data: bytes) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of a list's bytes."""
    return sha256(data).hexdigest()[:8]


def _word(text: str) -> str:
    """The text without what would part the stamp: blanks, ``@``, ``:``, ``#`` and the like become underscores."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)
