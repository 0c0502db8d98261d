"""Traffic that a policy screens, made of the clean stream: other addresses, users and consents under the same events.

Data centres and listed networks by groups and by single events; crowds, which are one user or one address with about as many
events in an hour as the policy allows, one more, or more; and consent that is granted, refused, broken or not there.
Drawn from random numbers of its own.
"""

from typing import NamedTuple

import numpy as np

from measurement.model.events import CLICK, CONVERSION, MICROS_PER_HOUR, OUTCOMES
from measurement.simulate import networks
from measurement.simulate.agents import DEVICES
from measurement.simulate.columns import NO_ID, NO_IP, Booking, Columns
from measurement.simulate.consents import BROKEN, CONSENTS, GRANTING, REFUSING
from measurement.simulate.events import Clean
from measurement.simulate.ids import mix_all
from measurement.simulate.options import SimulateOptions
from measurement.simulate.trouble import Log
from measurement.simulate.world import COUNTRIES

REQUIRED_IN = ("SE", "DE", "FR", "NL", "ES", "IT", "PL")
DATACENTRES_FILE, LISTED_FILE = "datacentres.txt", "listed.txt"

_GROUPS, _SINGLES = 0.025, 0.003  # shares from data centres; from listed networks half as many
_RARE = 12  # times as many of single clicks and conversions, that credit hangs on
_STAYS = 0.9  # of a group's events: from the group's address
_IN_CROWDS, _AT_MOST = 0.02, 0.15  # of all events: in crowds of either kind, and never more than that in both
_FEW = 6  # crowds of either kind, where there is room
_PLACED, _BOOKED = 0.7, 0.4  # of conversions: say where they happened, and for what ad
_CHANGED = 0.04  # of events: under another consent than their person's
_UNLIKE = 0.5  # of conflicts in an hour with a crowd of just as many as are allowed: the one more, by its content
# What Europeans' consent strings are, of 256.
_CONSENTS = np.repeat(
    [0, *(CONSENTS.index(consent) for consent in ("CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", *GRANTING, *REFUSING, *BROKEN))],
    [12, 12, 60, 24, 30, 20, 16, 14, *(8 for _ in REFUSING), *(2 for _ in BROKEN[:4]), *(3 for _ in BROKEN[4:])],
).astype(np.uint8)
assert _CONSENTS.size == 256


class Thresholds(NamedTuple):
    per_user_hour: int
    per_ip_hour: int


class Crowds(NamedTuple):
    """Users who have exactly as many events of an hour as are allowed, by the hour."""

    hour: np.ndarray  # i8, ascending
    user: np.ndarray  # i4


def thresholds(options: SimulateOptions) -> Thresholds:
    """Above what ordinary people do: small, and larger where more of them meet in an hour."""
    more = max(1.0, options.events / options.hours / 4000) ** 0.4
    return Thresholds(round(40 * more), round(60 * more))


def policy_text(options: SimulateOptions) -> str:
    rate = thresholds(options)
    return (
        "# What this log is to be counted by.\n"
        "screening:\n"
        f"  networks: [{DATACENTRES_FILE}]\n"
        f"  listed: [{LISTED_FILE}]\n"
        f"  rate: {{per_user_hour: {rate.per_user_hour}, per_ip_hour: {rate.per_ip_hour}}}\n"
        f"  consent: {{required_in: [{', '.join(REQUIRED_IN)}], vendor: 0, purposes: [7], otherwise: {options.consent}}}\n"
    )


def files(options: SimulateOptions) -> dict[str, str]:
    """What stands beside the log: names and texts."""
    return {
        DATACENTRES_FILE: networks.file_text(networks.DATACENTRES, "Data centres"),
        LISTED_FILE: networks.file_text(networks.LISTED, "Exits and proxies"),
        "policy.yaml": policy_text(options),
    }


def screen(clean: Clean, options: SimulateOptions, rng: np.random.Generator) -> Crowds:
    """Change the clean events in place."""
    _place_conversions(clean, rng)
    _ask(clean, rng)
    _move(clean, rng)
    return _crowd(clean, thresholds(options), rng)


def unlike(log: Log, crowds: Crowds, rng: np.random.Generator) -> None:
    """Conflicts whose other content is a crowd's user's: it is activity too, though nothing comes of it."""
    conflicts = np.flatnonzero((log.fate == OUTCOMES.index("id_conflict")) & (rng.random(log.fate.size) < _UNLIKE))
    hour = log.columns.event_time[conflicts] // MICROS_PER_HOUR
    place = np.searchsorted(crowds.hour, hour)
    there = np.isin(hour, crowds.hour)
    log.columns.user[conflicts[there]] = crowds.user[place[there]]


def country_of(columns: Columns) -> np.ndarray:
    """Codes into COUNTRIES."""
    return columns.context // len(DEVICES) % len(COUNTRIES)


def _place_conversions(clean: Clean, rng: np.random.Generator) -> None:
    """Most conversions say where they happened, and some say the ad."""
    columns = clean.columns
    rows = np.flatnonzero(columns.event_type == CONVERSION)
    under = clean.impression_row[clean.group[rows]]
    placed = (under >= 0) & (rng.random(rows.size) < _PLACED)
    columns.context[rows[placed]] = columns.context[under[placed]]
    booked = rows[rng.random(rows.size) < _BOOKED]
    columns.booking[booked] += Booking.FULL - columns.booking[booked] % len(Booking)


def _ask(clean: Clean, rng: np.random.Generator) -> None:
    columns = clean.columns
    european = np.array([name not in (None, "US", "BR", "JP") for name in COUNTRIES])
    asked = np.flatnonzero(european[country_of(columns)])
    salt = rng.integers(0, 2**63, dtype=np.uint64)
    who = np.where(columns.user[asked] == NO_ID, -2 - clean.group[asked].astype(np.int64), columns.user[asked])
    place = mix_all(who, salt) & np.uint64(255)
    changed = rng.random(asked.size, np.float32) < _CHANGED
    place[changed] = rng.integers(0, 256, int(changed.sum()), np.uint64)
    columns.consent[asked] = _CONSENTS[place]


def _move(clean: Clean, rng: np.random.Generator) -> None:
    """Groups and single events to addresses in the networks, and a few to their neighbours."""
    columns = clean.columns
    groups = clean.impression_row.size
    u = rng.random(groups, np.float32)
    of_group = np.full(groups, NO_IP, np.int64)
    single = rng.random(columns.ip.size, np.float32)
    single[(columns.event_type == CLICK) | (columns.event_type == CONVERSION)] /= _RARE
    for reason, first, last in (
        (networks.DATACENTRE, 0.0, 1.0), (networks.LISTED_REASON, 1.0, 1.5), (networks.NONE, 1.5, 1.6)
    ):
        addresses = networks.by_reason(reason)
        chosen = (u >= first * _GROUPS) & (u < last * _GROUPS)
        of_group[chosen] = addresses[rng.integers(0, addresses.size, int(chosen.sum()))]
        alone = (single >= first * _SINGLES) & (single < last * _SINGLES)
        columns.ip[alone] = addresses[rng.integers(0, addresses.size, int(alone.sum()))]
    of_event = of_group[clean.group]
    moved = (of_event != NO_IP) & (rng.random(of_event.size, np.float32) < _STAYS)
    columns.ip[moved] = of_event[moved]


def _crowd(clean: Clean, allowed: Thresholds, rng: np.random.Generator) -> Crowds:
    """Give events of an hour to one user or one address, in turns; no event to two."""
    columns = clean.columns
    hour = columns.event_time // MICROS_PER_HOUR
    first_hour = int(hour.min())
    shuffled = rng.permutation(clean.impression_row.size)  # a group's events of an hour stay together
    order = np.argsort((hour - first_hour) * shuffled.size + shuffled[clean.group], kind="stable")
    end = np.cumsum(np.bincount(hour - first_hour))
    free = np.concatenate([[0], end[:-1]])  # of each hour: where in `order` those begin that nobody took

    size = columns.event_time.size
    room = size * _AT_MOST
    stranger = int(columns.user.max()) + 1
    exact = []
    number = int(max(_FEW, size * _IN_CROWDS / allowed.per_user_hour / 2))
    for turn, at in enumerate(rng.integers(0, size, 2 * number).tolist()):
        by_user = turn % 2 == 0
        threshold = allowed.per_user_hour if by_user else allowed.per_ip_hour
        events = threshold * (1, 1, 2, 3)[turn // 2 % 4] + (1, 0, 0, 1)[turn // 2 % 4]  # one more, just as many, far more
        h = int(hour[at]) - first_hour
        if free[h] + events > end[h] or events > room:
            continue
        rows = order[free[h] : free[h] + events]
        free[h] += events
        room -= events
        if by_user:
            stranger += 3  # a household each
            columns.user[rows] = stranger
            if events == threshold:
                exact.append((first_hour + h, stranger))
        else:
            spellings = networks.CROWDS[turn // 2 % len(networks.CROWDS)]
            columns.ip[rows] = spellings[rng.integers(0, spellings.size, events)]
    exact.sort()
    hours, users = zip(*exact) if exact else ((), ())
    return Crowds(np.array(hours, np.int64), np.array(users, np.int32))
