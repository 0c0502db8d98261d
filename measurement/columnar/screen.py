"""Screening of decoded events by what they show themselves: consent, declared robots, networks; and the activity for rates.

Contract section 6. Here the address and the user agent are read and left behind: what goes on is a verdict and, where rates
are asked for, a keyed hash of them.
"""

import numpy as np
from numba import njit

from measurement.columnar.by_value import ByValue
from measurement.columnar.decode import Decoded
from measurement.columnar.intervals import Networks
from measurement.columnar.records import ADDRESS, USER, Activity
from measurement.columnar.shards import SHIFT
from measurement.columnar.siphash import siphash
from measurement.model import events as e
from measurement.model.screening import REJECT, Screening
from measurement.rules import consent
from measurement.rules.robots import JUDGED_BYTES, Robots

_F = e.FIELD_INDEX
_AGENT, _IP, _COUNTRY, _CONSENT, _TEST = (_F[name] for name in ("user_agent", "ip", "country", "consent", "test"))
_ROBOT, _DATACENTRE, _LISTED = (e.INVALID_REASONS.index(reason) for reason in ("robot", "datacentre", "listed"))
_NONE = np.zeros(0, np.int64)
_ROUTE, _KIND = np.uint64(SHIFT), np.uint64(1)


@njit(cache=True, nogil=True)
def _in_countries(buf, starts, lengths, countries, out):
    """Whether each text is one of ``countries`` (uint16, as its two bytes in capitals)."""
    for i in range(len(starts)):
        if lengths[i] == 2:
            code = (buf[starts[i]] & 0xDF) << 8 | (buf[starts[i] + 1] & 0xDF)
            for country in countries:
                out[i] |= code == country


@njit(cache=True, nogil=True)
def _activity(rows, at, hi, lo, worlds, key, out):
    """The activity of the ROWs ``at`` by whoever ``hi`` and ``lo`` are. ``worlds`` (uint64) keep kinds, their lowest bit, and a
    probe's events apart."""
    for n in range(len(at)):
        i = at[n]
        it, to = rows[i], out[n]
        to.hi, to.lo = siphash(key, (hi[i], lo[i], np.uint64(it.time // e.MICROS_PER_HOUR), worlds[i]))
        to.id_hi = it.id_hi
        to.id_lo = it.id_lo
        to.digest = it.digest
        to.time = it.time
        to.watermark = it.watermark
        alone = it.type == e.IMPRESSION or it.type == e.CONVERSION
        to.route = (it.id_hi if alone else it.parent_hi) >> _ROUTE
        to.kind = worlds[i] & _KIND


class Screen:
    """What a reader screens by; it remembers texts that it has judged, so a reader keeps one. Not for several threads."""

    def __init__(self, screening: Screening):
        self._rules = screening
        self._key = np.frombuffer(screening.key, np.uint64)
        self._robots = ByValue(Robots(screening.iab).judge, at_most=JUDGED_BYTES)
        self._networks = [(reason, Networks(network for found in lists for network in found.networks))
                          for reason, lists in ((_DATACENTRE, screening.datacentre), (_LISTED, screening.listed)) if lists]
        asked = screening.consent
        if asked is not None:
            self._countries = np.array([ord(c[0]) << 8 | ord(c[1]) for c in sorted(asked.required_in)], np.uint16)
            self._granted = ByValue(lambda texts: np.array([consent.granted(t, asked.asked) for t in texts], bool))

    def without_consent(self, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the events that were to have consent and have none: those to be refused, and those to be counted without their
        user; the policy says which of the two they are."""
        if self._rules.consent is None:
            return _NONE, _NONE
        asked = np.zeros(len(decoded.values), bool)
        _in_countries(decoded.buf, decoded.values[:, _COUNTRY], decoded.lengths[:, _COUNTRY], self._countries, asked)
        at = np.flatnonzero(asked)
        at = at[self._granted.verdicts(decoded.buf, decoded.values[at, _CONSENT], decoded.lengths[at, _CONSENT]) == 0]
        return (at, _NONE) if self._rules.consent.otherwise == REJECT else (_NONE, at)

    def judge(self, decoded: Decoded, judged: dict[str, np.ndarray], chosen: np.ndarray, rows: np.ndarray) -> Activity | None:
        """Sets the verdicts of accepted events ``chosen``, whose ROWs these are; their activity, where a rate asks for it."""
        robots = self._robots.verdicts(decoded.buf, decoded.values[chosen, _AGENT], decoded.lengths[chosen, _AGENT]) > 0
        rows["verdict"][robots] = _ROBOT
        rate = self._rules.rate
        activity = []
        if rate.per_user_hour is not None:  # whose fingerprint says itself whether it is a probe's
            known = np.flatnonzero(rows["user_hi"] | rows["user_lo"])
            worlds = np.broadcast_to(np.uint64(USER), len(rows))
            activity.append(self._activity(rows, known, rows["user_hi"], rows["user_lo"], worlds))
        if self._networks or rate.per_ip_hour is not None:
            hi, lo, good = judged["ip_hi"][chosen], judged["ip_lo"][chosen], decoded.lengths[chosen, _IP] > 0
            for reason, networks in self._networks:
                rows["verdict"][good & networks.has(hi, lo) & (rows["verdict"] == 0)] = reason
            if rate.per_ip_hour is not None:
                tests = (decoded.lengths[chosen, _TEST] >= 0) & (decoded.values[chosen, _TEST] == 1)
                worlds = ADDRESS + 2 * tests.astype(np.uint64)
                activity.append(self._activity(rows, np.flatnonzero(good), hi, lo, worlds))
        return Activity(np.concatenate(activity)) if activity else None

    def _activity(self, rows: np.ndarray, at: np.ndarray, hi: np.ndarray, lo: np.ndarray, worlds: np.ndarray) -> np.ndarray:
        out = np.empty(len(at), Activity.DTYPE)
        _activity(rows, at, hi, lo, worlds, self._key, out)
        return out
