"""What the report API reads from: one protocol, whatever warehouse or service stands behind it. No web framework and no client."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from measurement.exports.source import Source
from measurement.model.events import TEST_ADVERTISER
from measurement.model.tables import Table

# A row: the values of ``table.columns`` in their order. Times are µs, a NUMERIC is an int in units of 10^-9.
Row = tuple


class Unavailable(Exception):
    """The figures cannot be read now. The message is one line, for the log and never for a client."""


class NotServed(Exception):
    """This set-up does not have the table."""


@dataclass(frozen=True)
class Scope:
    """Rows of an advertiser, or of its campaign, whose window_start is in [start, stop) µs."""

    table: Table
    advertiser_id: str
    start: int
    stop: int
    campaign_id: str | None = None


@dataclass(frozen=True)
class Newest:
    """Of the newest hour of a table that has closed, whoever's it is: its end, and when a row of it was published (µs)."""

    closed_until: int
    published_at: int


@dataclass(frozen=True)
class Advertiser:
    """``newest_hour``: start of the newest hour that has a delivery row, ``published_at`` when one of them was published (µs)."""

    advertiser_id: str
    newest_hour: int
    published_at: int


class Reports(Protocol):
    """Called from several threads at once. Every method may raise Unavailable."""

    short: frozenset[str]  # tables of which a campaign's week is read in milliseconds

    def rows(self, scope: Scope, after: bytes | None, most: int) -> list[Row]:
        """The first ``most`` rows of the scope behind the position ``after`` (measurement/serving/positions.py), in the order
        of positions; each the latest revision of its key. NotServed for a table that is not there."""

    def newest(self, table: Table) -> Newest | None:
        """None where no hour has closed. NotServed as above."""

    def known(self, advertiser_id: str) -> bool:
        """Whether anything was ever counted for the advertiser."""

    def advertisers(self) -> list[Advertiser]:
        """All but probes, by id."""

    def pacing(self, advertiser_id: str | None, most: int) -> list[Row]:
        """The first ``most`` bookings of the advertiser, or of all, by advertiser, start and booking: values of the columns of the view
        ``pacing`` in their order, a FLOAT64 as float. NotServed where bookings are not there to be read."""

    def source(self) -> Source:
        """What exports are made from; its queries raise Unavailable. NotServed where there is none."""

    def check(self) -> None:
        """Unavailable unless rows can be read."""

    def close(self) -> None: ...


def standing(front: Newest | None, table: Table, rows: Sequence[Row], open_from: int | None) -> tuple[int | None, int | None]:
    """as_of and complete_until (µs) of rows that were read after ``front``; the earliest hour of them that is open begins at
    ``open_from``."""
    at = [c.name for c in table.columns].index("published_at")
    as_of = max((row[at] for row in rows), default=front and front.published_at)
    return as_of, None if front is None else min(front.closed_until, front.closed_until if open_from is None else open_from)


def is_probe(advertiser_id: str) -> bool:
    return advertiser_id.startswith(TEST_ADVERTISER)
