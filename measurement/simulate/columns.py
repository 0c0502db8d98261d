"""A log's distinct events, column by column: the form between drawing them and writing them."""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from measurement.model.events import EVENT_TYPES

NULL = -(2**31)  # a number that is absent
NO_ID = -1  # in `key`: empty text; in `impression`, `user`, `order`: null
NO_IP, BAD_IP = -1, -2

UNKNOWN_TYPES = ("hover", "adLoaded", "creativeView")
TYPES = (*EVENT_TYPES, *UNKNOWN_TYPES, "")
EMPTY_TYPE = len(TYPES) - 1


class Booking(IntEnum):
    """How much of its package's booking (advertiser, campaign, line item, creative, placement) an event carries."""

    FULL = 0
    NO_LINE_ITEM = 1
    NO_CREATIVE = 2
    NO_PLACEMENT = 3
    CAMPAIGN_ONLY = 4
    ADVERTISER_ONLY = 5
    OTHER_CREATIVE = 6  # what makes a conflicting content
    EMPTY_ADVERTISER = 7
    NO_CAMPAIGN = 8  # as empty text
    UNDECODABLE = 9  # the campaign's union branch does not exist


_CARRIED: dict[Booking, Callable[[str, str, str, str, str], tuple]] = {
    Booking.FULL: lambda *names: names,
    Booking.NO_LINE_ITEM: lambda a, c, li, cr, pl: (a, c, None, cr, pl),
    Booking.NO_CREATIVE: lambda a, c, li, cr, pl: (a, c, li, None, pl),
    Booking.NO_PLACEMENT: lambda a, c, li, cr, pl: (a, c, li, cr, None),
    Booking.CAMPAIGN_ONLY: lambda a, c, li, cr, pl: (a, c, None, None, None),
    Booking.ADVERTISER_ONLY: lambda a, c, li, cr, pl: (a, None, None, None, None),
    Booking.OTHER_CREATIVE: lambda a, c, li, cr, pl: (a, c, li, cr + "-b", pl),
    Booking.EMPTY_ADVERTISER: lambda a, c, li, cr, pl: ("", c, li, cr, pl),
    Booking.NO_CAMPAIGN: lambda a, c, li, cr, pl: (a, "", li, cr, pl),
    Booking.UNDECODABLE: lambda *names: names,
}


def booking_names(names: tuple[str, ...], booking: Booking) -> tuple[str | None, ...]:
    """The five texts that an event carries of its package's booking."""
    return _CARRIED[booking](*names)


class Columns(NamedTuple):
    """One array a column, all of the events' number. Codes count into the lists of `world` and `agents`."""

    key: np.ndarray  # i8: the event's number, of which its id is made
    event_type: np.ndarray  # u1 code into TYPES
    event_time: np.ndarray  # i8 micros
    booking: np.ndarray  # i4: package * len(Booking) + Booking
    impression: np.ndarray  # i8: the impression's key
    user: np.ndarray  # i4: number of the person, where known to the sender
    context: np.ndarray  # i2: format, country, device type
    ip: np.ndarray  # i8: below 2**32 the IPv4 address, else what the IPv6 one is made of, or of `networks.ADDRESSES`
    agent: np.ndarray  # i2
    consent: np.ndarray  # u1
    price: np.ndarray  # i4 micros
    currency: np.ndarray  # u1
    visible_percent: np.ndarray  # i4
    visible_ms: np.ndarray  # i4
    audible_ms: np.ndarray  # i4
    played_ms: np.ndarray  # i4
    conversion_type: np.ndarray  # u1
    value: np.ndarray  # i8 micros
    order: np.ndarray  # i4
    experiment: np.ndarray  # u1
    site: np.ndarray  # i2: source and publisher
    session: np.ndarray  # i8, 0 for null
    spec: np.ndarray  # i4: 1 + package, 0 for null: creative size, duration, pricing model

    def take(self, rows: np.ndarray) -> "Columns":
        return Columns(*(column[rows] for column in self))

    @staticmethod
    def concat(parts: list["Columns"]) -> "Columns":
        return Columns(*(np.concatenate(columns) for columns in zip(*parts)))
