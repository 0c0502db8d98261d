"""What publishers say they have sent: their messages, and what these add up to.

A publisher counts events by source and minute of the events' own time, and says the sums so far, absolute, so that a message that
comes twice or not at all does no harm beyond its own minute. Its last message says that it ends: silence after it is no fault.

    {"publisher": "web-17", "number": 3, "sent_at": "2026-03-02T06:00:00Z", "ended": false,
     "counts": [["web", "2026-03-02T05:59:00Z", 1200], ["web", "2026-03-02T06:00:00Z", 7], [null, null, 1]]}

``publisher`` names one run of one sender, ``number`` rises with its messages. A source or minute is null where events have none.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_SECOND, MIN_TIME_MICROS
from measurement.monitors.times import MINUTE, instant

SENDING, ENDED = "sending", "ended"
_MOST_COUNTS = 100_000  # a message


class BadAudit(ValueError):
    """A message that is no audit; the message is one line."""


@dataclass(frozen=True)
class Audit:
    """Of one run of a publisher: its message's ``number``, when it was sent (µs), whether it was the last, and events so far by
    (source, minute in µs)."""

    publisher: str
    number: int
    sent_at: int
    ended: bool
    counts: dict[tuple[str | None, int | None], int]

    def encode(self) -> bytes:
        counts = [[source, None if minute is None else _text(minute), n] for (source, minute), n in self.counts.items()]
        return orjson.dumps({"publisher": self.publisher, "number": self.number, "sent_at": _text(self.sent_at), "ended": self.ended,
                             "counts": counts})


def decode(data: bytes) -> Audit:
    """BadAudit for anything but what ``encode`` makes, or others by its form."""
    try:
        said = orjson.loads(data)
        if not isinstance(said, dict) or not isinstance(said["counts"], list) or len(said["counts"]) > _MOST_COUNTS:
            raise BadAudit("an audit is an object with publisher, number, sent_at, ended and counts")
        counts = {}
        for source, minute, n in said["counts"]:
            counts[_name(source) if source is not None else None, None if minute is None else _micros(minute) // MINUTE * MINUTE] = _count(n)
        return Audit(_name(said["publisher"]), _count(said["number"]), _micros(said["sent_at"]), said["ended"] is True, counts)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAudit(f"no audit: {' '.join(str(error).split())[:200]}") from error


@dataclass
class Tally:
    """A publisher's own count of what it has sent."""

    publisher: str
    number: int = 0
    _counts: Counter = field(default_factory=Counter)
    _changed: set = field(default_factory=set)

    def add(self, source: str | None, time: int | None, events: int = 1) -> None:
        """Events of a ``time`` (µs; None where they state none that can be read)."""
        key = source, None if time is None else time // MINUTE * MINUTE
        self._counts[key] += events
        self._changed.add(key)

    def said(self, now: int, ended: bool = False) -> list[Audit]:
        """What is to be sent at ``now`` (µs): the sums that changed since the last time, in as many messages as they take."""
        changed, self._changed = sorted(self._changed, key=lambda k: (k[0] or "", k[1] or 0)), set()
        parts = [changed[i : i + _MOST_COUNTS // 10] for i in range(0, len(changed), _MOST_COUNTS // 10)] or [[]]
        out = []
        for i, part in enumerate(parts):
            self.number += 1
            last = ended and i == len(parts) - 1
            out.append(Audit(self.publisher, self.number, now, last, {key: self._counts[key] for key in part}))
        return out


def rows(audit: Audit, now: int) -> list[dict]:
    """An audit as rows of the table ``audits``, published at ``now`` (µs). The one without source and minute says whether the
    publisher goes on."""
    counts = dict(audit.counts)
    counts.setdefault((None, None), 0)
    stamps = {"sent_at": instant(audit.sent_at), "revision": audit.number, "published_at": instant(now)}
    return [{"publisher": audit.publisher, "source": source, "minute": None if minute is None else instant(minute), "events": n,
             "state": ENDED if audit.ended else SENDING, **stamps} for (source, minute), n in counts.items()]


def _name(value) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1_000:
        raise BadAudit(f"{value!r:.100} is no name")
    return value


def _count(value) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise BadAudit(f"{value!r:.100} is no count")
    return value


def _micros(value: str) -> int:
    at = datetime.fromisoformat(value)
    micros = round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * MICROS_PER_SECOND)
    if not MIN_TIME_MICROS <= micros <= MAX_TIME_MICROS:
        raise BadAudit(f"{value!r:.100} is out of range")
    return micros


def _text(micros: int) -> str:
    return instant(micros).isoformat().replace("+00:00", "Z")
