"""Rates beyond a person's: who has more distinct events in an hour than a threshold has all of them invalid.

No Beam here. General invalid traffic by activity (MRC Invalid Traffic Detection and Filtration Standards Addendum (2020),
section 1, "activity-based filtration"; contract section 6). A machine holds, of each user or address and hour, the
distinct events until they are one more than the threshold: then all of them are judged at once and every later one as it
comes, so the verdicts do not hang on the order. Nobody costs more than the threshold and one.
"""

import numpy as np
from numba import njit

from measurement.columnar.hashing import avalanche
from measurement.columnar.records import ADDRESS, USER, Activity, Verdicts
from measurement.columnar.table import Keys, grown
from measurement.model.events import INVALID_REASONS
from measurement.model.screening import Rate
from measurement.state.identities import Identities, enter, find
from measurement.state.ring import SLOTS, Buckets, Changes

_RATE = INVALID_REASONS.index("rate")
_ITSELF, _ALL = 1, 2  # events that a row makes known to be invalid
_UNLIMITED = np.iinfo(np.int32).max
_WHOSE = np.dtype([("count", "i4"), ("held", "i4"), ("last", "i4")])  # distinct identities, events remembered, the last of them
# A remembered event beside its identity, which stands in ``Identities`` mixed with who and hour, since one event is both a
# user's and an address's. An identity that comes with another content is no more activity, but may be what stands in the end:
# it is remembered as well, its digest mixed in (``other``).
_EVENT = np.dtype([("time", "i8"), ("whose", "i4"), ("before", "i4"), ("route", "u4"), ("kind", "u1"), ("other", "u1")])


@njit
def _mixed(hi, lo, digest, other):
    """An identity with its digest mixed in, or out again, where it is of another content."""
    if not other:
        return hi, lo
    own = avalanche(digest)
    return hi ^ own, lo ^ avalanche(own)


@njit
def _tell(verdict, hi, lo, digest, time, route, watermark):
    verdict.hi = hi
    verdict.lo = lo
    verdict.digest = digest
    verdict.time = time
    verdict.route = route
    verdict.watermark = watermark
    verdict.code = _RATE


@njit(cache=True, nogil=True)
def _absorb(rows, of, limits, table, low, ids, events, count, whose, new, tells):
    """Takes in activity. ``of`` is each row's number among the keys and in ``whose``. ``new`` (bool) says which rows were entered,
    ``tells`` (uint8) what each makes known: nothing, itself, or all of whoever it is of. Returns the number of events."""
    for i in range(len(rows)):
        it, w = rows[i], of[i]
        limit, who = limits[it.kind], whose[w]
        if who.count > limit:
            tells[i] = _ITSELF
            continue
        hi, lo = it.id_hi ^ it.hi, it.id_lo ^ it.lo
        at, slot = find(table, low, ids, hi, lo)
        other = at >= 0 and ids[at].digest != it.digest
        if other:
            hi, lo = _mixed(hi, lo, it.digest, True)
            at, slot = find(table, low, ids, hi, lo)
        if at >= 0:
            continue
        enter(table, low, ids, slot, count, hi, lo)
        ids[count].digest = it.digest
        event = events[count]
        event.time = it.time
        event.whose = w
        event.route = it.route
        event.kind = it.kind
        event.other = other
        event.before = who.last
        who.last = count
        who.held += 1
        count += 1
        new[i] = True
        if not other:
            who.count += 1
        if who.count > limit:
            tells[i] = _ALL
    return count


@njit(cache=True, nogil=True)
def _verdicts(rows, of, tells, ids, events, whose, verdicts):
    """Fills the verdicts that rows make known."""
    told = 0
    for i in range(len(rows)):
        it = rows[i]
        if tells[i] == _ITSELF:
            _tell(verdicts[told], it.id_hi, it.id_lo, it.digest, it.time, it.route, it.watermark)
            told += 1
        elif tells[i] == _ALL:
            f = whose[of[i]].last
            for _ in range(whose[of[i]].held):
                hi, lo = _mixed(ids[f].hi ^ it.hi, ids[f].lo ^ it.lo, ids[f].digest, events[f].other)
                _tell(verdicts[told], hi, lo, ids[f].digest, events[f].time, events[f].route, it.watermark)
                told += 1
                f = events[f].before


@njit(cache=True, nogil=True)
def _unmixed(hi, lo, digests, other, out_hi, out_lo):
    for i in range(len(hi)):
        out_hi[i], out_lo[i] = _mixed(hi[i], lo[i], digests[i], other[i])


class RatesShard:
    """State machine of one shard of users and addresses. ``horizon`` (µs): how far behind the watermark an event may come."""

    def __init__(self, rate: Rate, horizon: int):
        self._limits = np.zeros(2, np.int64)
        self._limits[USER], self._limits[ADDRESS] = (_UNLIMITED if n is None else n for n in (rate.per_user_hour, rate.per_ip_hour))
        self.buckets = Buckets(horizon)
        self._changes = Changes()
        self._reset()

    def _reset(self, room: int = 1024):
        self._known = Identities(room)
        self._events = np.zeros(len(self._known.ids), _EVENT)
        self._keys = Keys()
        self._whose = np.zeros(len(self._keys.hi), _WHOSE)
        self._logged: set[int] = set()  # buckets

    @property
    def count(self) -> int:
        """Events remembered, each once as a user's and once as an address's."""
        return self._known.count

    def absorb(self, activity: Activity) -> Verdicts:
        """Takes in activity in any order; the verdicts on what it makes invalid."""
        rows = activity.rows
        new, verdicts = self._enter(rows)
        rows = rows.take(new)  # which copies whole records, as [] does not
        buckets = self.buckets.of(rows["time"])
        if len(rows) and (buckets == buckets[0]).all():
            self._log(int(buckets[0]), rows)
            return verdicts
        for bucket in np.unique(buckets).tolist():
            self._log(bucket, rows[buckets == bucket])
        return verdicts

    def _enter(self, rows: np.ndarray) -> tuple[np.ndarray, Verdicts]:
        """(places of the rows that were entered, verdicts)."""
        of, known = self._keys.add(np.ascontiguousarray(rows["hi"]), np.ascontiguousarray(rows["lo"])), self._known
        if len(self._whose) < self._keys.rows:
            self._whose = grown(self._whose, self._keys.rows)
        known.room(len(rows))
        if len(self._events) < len(known.ids):
            self._events = grown(self._events, len(known.ids))
        new, tells = np.zeros(len(rows), bool), np.zeros(len(rows), np.uint8)
        known.count = _absorb(rows, of, self._limits, known.table, known.low, known.ids, self._events, known.count, self._whose,
                              new, tells)
        told = np.count_nonzero(tells == _ITSELF) + int(self._whose["held"][of[tells == _ALL]].sum())
        verdicts = np.zeros(told, Verdicts.DTYPE)
        if told:
            _verdicts(rows, of, tells, known.ids, self._events, self._whose, verdicts)
        return np.flatnonzero(new), Verdicts(verdicts)

    # -- event time and log ---------------------------------------------------------------------------------------

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return self.buckets.expires(min(self._logged)) if self._logged else None

    def advance(self, watermark: int) -> None:
        """Forgets the hours that no event can come for any more."""
        first = self.buckets.first_kept(watermark)
        expired = [bucket for bucket in self._logged if bucket < first]
        if not expired:
            return
        rows = self._rows()
        rows = rows[self.buckets.of(rows["time"]) >= first]
        logged = self._logged
        self._reset(len(rows) + 1024)
        self._enter(rows)
        self._logged = {bucket for bucket in logged if bucket >= first}
        for bucket in expired:
            self._changes.clear(bucket)
        buckets, slots = self.buckets.of(rows["time"]), {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._logged if b % SLOTS in slots]:  # it shared a slot with one that expired
            self._log(bucket, rows[buckets == bucket])

    def _rows(self) -> np.ndarray:
        """What is remembered, as it came."""
        n = self._known.count
        ids, events = self._known.ids[:n], self._events[:n]
        rows = np.zeros(n, Activity.DTYPE)
        rows["hi"], rows["lo"] = self._keys.hi[events["whose"]], self._keys.lo[events["whose"]]
        rows["digest"] = ids["digest"]
        _unmixed(ids["hi"] ^ rows["hi"], ids["lo"] ^ rows["lo"], rows["digest"], events["other"], rows["id_hi"], rows["id_lo"])
        for name in ("time", "route", "kind"):
            rows[name] = events[name]
        return rows

    def _log(self, bucket: int, rows: np.ndarray) -> None:
        self._logged.add(bucket)
        self._changes.append(bucket, Activity(rows).encode())

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log: all runs, in any order."""
        self._reset()
        for run in runs:
            rows = Activity.decode(run).rows
            self._enter(rows)
            self._logged |= set(np.unique(self.buckets.of(rows["time"])).tolist())
