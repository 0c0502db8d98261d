"""The probe: a synthetic advertiser's events, known by construction, and what they must have become at each far end.

Each minute has a campaign of its own, so that one row of ``delivery`` and one of ``attribution`` tell of it. Its events are marked
``test``: they go all the way and stand under an advertiser that no customer has. One of them is sent twice.
"""

import io
from dataclasses import dataclass, field
from enum import StrEnum

import fastavro
import pyarrow as pa

from measurement.model.events import FIELDS, MICROS_PER_SECOND, SCHEMA, TEST_ADVERTISER
from measurement.model.tables import ATTRIBUTION, DELIVERY
from measurement.monitors.sample import Sample, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import DAY, hour_of, instant

NAME = "measurement-probe"  # the probe's advertiser_id and source_id
ADVERTISER = TEST_ADVERTISER + NAME  # as the tables have it
_PRICE, _VALUE = 1_500, 40_000_000  # micros
_CURRENCY = "XTS"  # ISO 4217's code for testing
_AVRO = fastavro.parse_schema(SCHEMA)

# What one minute's probe comes to: the sums of its rows of delivery, and those of attribution by each model.
DELIVERED = {"gross_impressions": 2, "impressions": 2, "measurable_impressions": 1, "viewable_impressions": 1, "clicks": 1,
             "spend_micros": 2 * _PRICE}
ATTRIBUTED = {"conversions": 1, "value_micros": _VALUE}
FIGURES = {DELIVERY.name: DELIVERED, ATTRIBUTION.name: ATTRIBUTED}

# What a far end has of the probes: of each table and campaign (and model) the figures.
Found = dict[tuple, dict[str, int]]


class Verdict(StrEnum):
    """What became of one minute's probe at one far end."""

    found = "found"
    missing = "missing"
    wrong = "wrong"


def campaign(minute: int) -> str:
    """The campaign of a minute's (µs) probe."""
    return instant(minute).strftime("probe-%Y%m%dT%H%MZ")


def messages(minute: int) -> list[bytes]:
    """The probe of a minute (µs), as Avro datums; always the same."""
    name = campaign(minute)
    common = {"advertiser_id": NAME, "source_id": NAME, "test": True, "currency": _CURRENCY}
    shown = {**common, "campaign_id": name, "format": "display", "price_micros": _PRICE}
    follows = {**common, "campaign_id": name, "impression_id": f"{name}-1"}
    events = [
        {**shown, "event_id": f"{name}-1", "event_type": "impression", "user_id": name, "event_time": minute},
        {**shown, "event_id": f"{name}-2", "event_type": "impression", "event_time": minute + MICROS_PER_SECOND},
        {**follows, "event_id": f"{name}-3", "event_type": "viewability", "visible_percent": 100, "visible_ms": 60_000,
         "event_time": minute + 2 * MICROS_PER_SECOND},
        {**follows, "event_id": f"{name}-4", "event_type": "click", "user_id": name, "event_time": minute + 2 * MICROS_PER_SECOND},
        {**common, "event_id": f"{name}-5", "event_type": "conversion", "user_id": name, "conversion_type": "probe",
         "value_micros": _VALUE, "event_time": minute + 3 * MICROS_PER_SECOND},
    ]
    return [_datum(event) for event in (*events, events[1])]


def _datum(event: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _AVRO, {**dict.fromkeys(FIELDS), **event})
    return out.getvalue()


def found_in(table: str, rows: pa.Table) -> Found:
    """What rows of the probe's advertiser come to, by (table, campaign_id) or (table, campaign_id, model)."""
    keys, figures = ["campaign_id", *(["model"] if table == ATTRIBUTION.name else [])], list(FIGURES[table])
    sums = rows.select([*keys, *figures]).group_by(keys).aggregate([(name, "sum") for name in figures])
    return {(table, *(row[key] for key in keys)): {name: int(row[f"{name}_sum"]) for name in figures} for row in sums.to_pylist()}


def verdict(minute: int, found: Found) -> Verdict:
    """Wrong is what exceeds the probe; what is there in part is missing, until somebody waits no longer."""
    name = campaign(minute)
    rows = [(DELIVERED, found.get((DELIVERY.name, name)))]
    rows += [(ATTRIBUTED, got) for key, got in found.items() if key[:2] == (ATTRIBUTION.name, name)] or [(ATTRIBUTED, None)]
    if any(got is not None and any(got[key] > n for key, n in wanted.items()) for wanted, got in rows):
        return Verdict.wrong
    return Verdict.found if all(got == wanted for wanted, got in rows) else Verdict.missing


@dataclass
class Probes:
    """The probes under way: which minutes' were sent, and what has become of them at each of the ``ends``."""

    ends: tuple[str, ...]
    judged: dict[tuple[str, Verdict], int] = field(default_factory=dict)  # so far, by (end, verdict)
    _waiting: dict[tuple[int, str], int] = field(default_factory=dict)  # (minute, end): when it was sent, µs
    _last: dict[str, tuple[int, Verdict]] = field(default_factory=dict)  # end: (minute, verdict) of the latest judged
    _wrong: dict[tuple[int, str], None] = field(default_factory=dict)  # (minute, end), to be looked at again

    def sent(self, minute: int, at: int) -> None:
        for end in self.ends:
            self._waiting[minute, end] = at

    @property
    def since(self) -> int | None:
        """The first hour (µs) of which probes are waited for or looked at again."""
        minutes = [minute for minute, _ in (*self._waiting, *self._wrong)]
        return hour_of(min(minutes)) if minutes else None

    def judge(self, level: Level, now: int, found: dict[str, Found | None]) -> Sample:
        """Judges by what was ``found`` at each end at ``now`` (µs; None: it could not be read). Each probe counts once at each
        end: when its rows are there, or when ``level.at_most`` is over."""
        good = total = 0
        for (minute, end), at in list(self._waiting.items()):
            seen = found.get(end)
            became = Verdict.missing if seen is None else verdict(minute, seen)
            if became is Verdict.missing and now - at <= level.at_most:
                continue
            del self._waiting[minute, end]
            total += 1
            good += became is Verdict.found
            self.judged[end, became] = self.judged.get((end, became), 0) + 1
            if became is Verdict.wrong:
                self._wrong[minute, end] = None
            if end not in self._last or minute > self._last[end][0]:
                self._last[end] = minute, became
        self._mend(now, found)
        bad = {end: last for end, last in self._last.items() if last[1] is not Verdict.found}
        if not self._last:
            return unknown(level.name, "no probe has come to its end yet" if self.ends else "no probes are sent here")
        if bad:
            said = ", ".join(f"{end}: the probe of {_text(minute)} is {became.value}" for end, (minute, became) in sorted(bad.items()))
            hours = tuple(sorted({instant(hour_of(minute)) for minute, _ in bad.values()}))
            return Sample(level.name, good, total, False, len(bad), said, advertisers=(ADVERTISER,), hours=hours)
        latest = min(minute for minute, _ in self._last.values())
        return Sample(level.name, good, total, True, 0, f"the probes up to {_text(latest)} are at {', '.join(sorted(self._last))}")

    @property
    def wrong(self) -> list[tuple[int, str]]:
        """(minute, end) of the probes that stand with figures above what was sent."""
        return sorted(self._wrong)

    def _mend(self, now: int, found: dict[str, Found | None]) -> None:
        """Forgets what was wrong and is right now, and what is a day old."""
        for minute, end in list(self._wrong):
            seen = found.get(end)
            if now - minute > DAY or (seen is not None and verdict(minute, seen) is Verdict.found):
                del self._wrong[minute, end]


def _text(at: int) -> str:
    return instant(at).strftime("%Y-%m-%dT%H:%MZ")
