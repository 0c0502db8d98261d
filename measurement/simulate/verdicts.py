"""Which events are invalid by themselves and why, and whose consent is missing: from what the generator knows of each."""

from typing import NamedTuple

import numpy as np

from measurement.model.events import INVALID_REASONS, MICROS_PER_HOUR, OUTCOMES
from measurement.simulate import networks, screened
from measurement.simulate.agents import FIRST_ROBOT
from measurement.simulate.columns import NO_ID, NO_IP
from measurement.simulate.consents import GRANTED
from measurement.simulate.events import Clean
from measurement.simulate.options import SimulateOptions
from measurement.simulate.trouble import CLEAN, Log
from measurement.simulate.world import COUNTRIES

_ROBOT, _RATE = map(INVALID_REASONS.index, ("robot", "rate"))
# Of what trouble alone decides, that which does not undo a refused consent: it comes after it.
_AFTER_CONSENT = [CLEAN, *range(OUTCOMES.index("consent_denied"), len(OUTCOMES))]


class Verdicts(NamedTuple):
    reason: np.ndarray  # i1[C]: clean events' own first one, a code into INVALID_REASONS
    denied: np.ndarray  # bool[D]: refused for want of consent
    user: np.ndarray  # i4[C]: clean events' user where consent lets it be used, else NO_ID


def verdicts_of(clean: Clean, log: Log, options: SimulateOptions) -> Verdicts:
    robot = clean.columns.agent >= FIRST_ROBOT
    if not options.screening:
        return Verdicts(robot * np.int8(_ROBOT), np.zeros(log.fate.size, np.bool_), clean.columns.user)
    count = robot.size
    required = np.array([name in screened.REQUIRED_IN for name in COUNTRIES])
    missing = required[screened.country_of(log.columns)] & ~np.array(GRANTED)[log.columns.consent]
    denied = missing & np.isin(log.fate, _AFTER_CONSENT) & (options.consent == "reject")
    dropped = missing[:count] & (options.consent == "drop_user")

    by_network = networks.reasons_of(clean.columns.ip)
    reason = np.where(_beyond(log, denied, screened.thresholds(options))[:count], _RATE, 0)
    reason = np.where(by_network, by_network, reason)
    reason = np.where(robot, _ROBOT, reason).astype(np.int8)
    return Verdicts(reason, denied, np.where(dropped, NO_ID, clean.columns.user))


def _beyond(log: Log, denied: np.ndarray, allowed: screened.Thresholds) -> np.ndarray:
    """Events (bool[D]) of a user or an address with more than a person's in their hour, by all that are accepted: whatever
    becomes of them, but each identity once."""
    active = np.flatnonzero(np.isin(log.fate, [CLEAN, OUTCOMES.index("id_conflict")]) & ~denied)
    columns = log.columns
    key, hour = columns.key[active], columns.event_time[active] // MICROS_PER_HOUR
    beyond = np.zeros(log.fate.size, np.bool_)
    for who, nobody, threshold in (
        (columns.user[active].astype(np.int64), NO_ID, allowed.per_user_hour),
        (networks.numbers_of(columns.ip[active]), NO_IP, allowed.per_ip_hour),
    ):
        known = np.flatnonzero(who != nobody)
        if not known.size:
            continue
        _, person = np.unique(who[known], return_inverse=True)
        hours, cell = np.unique(person * (1 << 20) + hour[known] - hour.min(), return_inverse=True)
        _, once = np.unique(cell * (int(key.max()) + 1) + key[known], return_index=True)
        many = np.bincount(cell[once], minlength=hours.size) > threshold
        beyond[active[known[many[cell]]]] = True
    return beyond
