"""What is to be exported, checked, and the names that its files have."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from measurement.model.events import TEST_ADVERTISER
from measurement.failure import Failure
from measurement.model.tables import ATTRIBUTION, DELIVERY, Table

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EXPORTED = {t.name: t for t in (DELIVERY, ATTRIBUTION)}
SMALL_CELLS = 10  # conversions; fewer are not told apart from others

_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?=[a-z0-9])){0,79}")
# Names that Windows keeps for devices, whatever follows a dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


class Format(StrEnum):
    csv = "csv"
    parquet = "parquet"
    xlsx = "xlsx"


class Grain(StrEnum):
    hour = "hour"
    day = "day"


@dataclass(frozen=True)
class Request:
    """One file: rows of ``table`` of an advertiser with ``start`` <= window_start < ``stop`` (UTC). ``small_cells``: below so
    many conversions what derives from users is withheld; 0 withholds nothing."""

    advertiser: str
    table: Table
    start: datetime
    stop: datetime
    grain: Grain
    format: Format
    campaign: str | None = None
    small_cells: int = SMALL_CELLS

    @property
    def filters(self) -> dict:
        """All that decides which rows the file has, as its manifest says it."""
        return {"advertiser": self.advertiser, "table": self.table.name, "from": instant(self.start), "to": instant(self.stop),
                "grain": str(self.grain), "campaign": self.campaign, "small_cells": self.small_cells if self.withholds else None}

    @property
    def withholds(self) -> bool:
        """Whether figures of few conversions are withheld: impressions and clicks are counted of nobody."""
        return self.table is ATTRIBUTION and self.small_cells > 0

    @property
    def name(self) -> str:
        """DIRECTORY/NAME of the file with its rows."""
        return f"{self.stem}.{self.format}"

    @property
    def stem(self) -> str:
        """The same without its ending."""
        campaign = "" if self.campaign is None else f"-campaign-{safe(self.campaign)}"
        return f"{safe(self.advertiser)}/{self.table.name}-{_short(self.start)}-{_short(self.stop)}-{self.grain}{campaign}"


def check_range(start: datetime | None, stop: datetime | None, grain: Grain) -> None:
    """Failure where it is no range of whole hours, or for days of whole UTC days."""
    if start is None or stop is None:
        raise Failure("--from and --to are needed, or --yesterday")
    if start >= stop:
        raise Failure(f"--from {instant(start)} --to {instant(stop)}: the first must be before the second")
    for flag, at in (("--from", start), ("--to", stop)):
        if at.replace(minute=0, second=0, microsecond=0) != at:
            raise Failure(f"{flag} {instant(at)}: not a whole hour, which is the finest there is")
        if grain is Grain.day and at.hour:
            raise Failure(f"{flag} {instant(at)}: --grain day takes whole UTC days; --grain hour takes hours")


def check_advertiser(advertiser: str) -> None:
    if not advertiser:
        raise Failure("--advertiser: is empty")
    if advertiser.startswith(TEST_ADVERTISER):
        raise Failure(f"--advertiser {advertiser}: rows of probes are no customer's figures")


def safe(text: str) -> str:
    """A file's name for any id: ids of lower-case letters, digits and ._- as they are, any other one with a hash, so that no two
    ids share a name also where names are blind to case."""
    if _PLAIN.fullmatch(text) and not _DEVICE.fullmatch(text):
        return text
    like = re.sub(r"[^a-z0-9_-]+", "_", text.lower())[:40].strip("_")
    return f"{like}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def instant(at: datetime) -> str:
    """RFC 3339, to the microsecond where it has any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _short(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if at.hour == 0 else f"{at:%Y-%m-%dT%H}"
