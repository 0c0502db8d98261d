"""Absolute totals of one shard of one table: rows by time and texts, the close of their hours, and the revisions to publish.

No Beam here. While an hour is open, events read after its close are held back (they were late by the watermark, however
soon the engine's timer fires), so that a final row holds exactly the on-time events and a restated one the rest.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import orjson

from measurement.columnar.batch import NO_WATERMARK, pack, unpack
from measurement.columnar.deltas import LATE, NO_HOUR, REBUILD, Deltas
from measurement.columnar.labels import named
from measurement.columnar.table import Keys, grown
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.latency import merged
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 3
PROVISIONAL, FINAL, RESTATED = range(3)
STATUSES = ("provisional", "final", "restated")

_END = np.iinfo(np.int64).max
_REWRITE_FACTOR = 4  # a bag is rewritten when it holds this many times its live bytes,
_REWRITE_BYTES = 1 << 20  # and at least so many more
_PARTS = 64  # so many parts of receipts are summed up
TIMELESS = NO_HOUR  # the bucket of rows that do not expire: without an hour, or older than the horizon when they came

# The ledger and what it is held against take events of any age, since a reject has an hour too. Their rows, small and
# few, are kept for a quarter; a row for a still older hour stays for good.
LEDGER_HORIZON = 92 * 24 * MICROS_PER_HOUR


@dataclass(frozen=True)
class Revisions:
    """n publications of rows: hours (int64 µs), label codes (n, k), absolute counts (n, m), status and because codes,
    and n of the revision."""

    hours: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    status: np.ndarray
    because: np.ndarray
    number: np.ndarray
    labels: list[str]

    def __len__(self) -> int:
        return len(self.hours)


class TotalsShard:
    """State machine of one shard of a table with ``texts`` key texts and ``counts`` counts a row.

    Rows change until the watermark is the ``horizon`` (µs) behind their hour. Receipts (measurement/model/latency.py) wait
    beside them for the publication and are in no log: whoever rebuilds the machine measures a few events less.
    """

    def __init__(self, texts: int, counts: int, allowed_lateness: int, horizon: int):
        self.lateness = allowed_lateness
        self.buckets = Buckets(horizon)
        self._receipts: list[np.ndarray] = []
        self._row = np.dtype([
            ("hi", "u8"), ("lo", "u8"), ("hour", "i8"), ("codes", "i4", (texts,)), ("totals", "i8", (counts,)),
            ("held", "i8", (counts,)), ("number", "i8"), ("bucket", "i8"), ("because", "u1"), ("holds", "u1"), ("dirty", "u1"), ("stands", "u1"),
        ])
        self._reset()
        self._changes = Changes()

    def _reset(self):
        self.watermark = NO_WATERMARK  # of the last close
        self.labels: list[str] = []
        self._codes: dict[str, int] = {}
        self.keys = Keys()
        self.rows = np.zeros(len(self.keys.hi), self._row)
        self._open: dict[int, list[np.ndarray]] = defaultdict(list)  # hour: its rows, until it closes
        self._dirty: list[np.ndarray] = []
        self._written: dict[int, int] = defaultdict(int)  # bucket: bytes in its log
        self._size: dict[int, int] = defaultdict(int)  # bucket: rows

    # -- changes --------------------------------------------------------------------------------------------------

    def absorb(self, deltas: Deltas) -> None:
        known = self.keys.rows
        at = self.keys.add(deltas.keys[:, 0], deltas.keys[:, 1])
        if self.keys.rows > len(self.rows):
            self.rows = grown(self.rows, self.keys.rows)
        self._enter(at, known, deltas)
        rows = self.rows
        closed = self._closes(deltas.hours) <= self.watermark
        held = ~closed & (deltas.because > 0)
        np.add.at(rows["held"], at[held], deltas.counts[held])
        rows["holds"][at[held]] = deltas.because[held]
        now = ~held
        np.add.at(rows["totals"], at[now], deltas.counts[now])
        rows["because"][at[now & closed]] = np.maximum(deltas.because, LATE)[now & closed]
        rows["stands"][at[now]] = 0
        self._mark(at[now])
        self._log(np.unique(at))

    def _enter(self, at: np.ndarray, known: int, deltas: Deltas) -> None:
        """Fills the rows that are new."""
        fresh = np.flatnonzero(at >= known)
        if not len(fresh):
            return
        at, hours, codes = at[fresh], deltas.hours[fresh], deltas.codes[fresh]
        label_of = np.array([self._label(text) for text in deltas.labels] or [0], np.int32)
        self.rows["hour"][at] = hours
        self.rows["codes"][at] = np.where(codes < 0, -1, label_of[codes])
        self.rows["hi"][at], self.rows["lo"][at] = deltas.keys[fresh, 0], deltas.keys[fresh, 1]
        bucket = self.buckets.of(hours)
        timeless = (hours == NO_HOUR) | (bucket < self.buckets.first_kept(max(self.watermark, 0)))
        self.rows["bucket"][at] = np.where(timeless, TIMELESS, bucket)
        new = np.arange(known, self.keys.rows)
        self._index(new)

    def _index(self, new: np.ndarray) -> None:
        """Notes rows under their bucket and, if it is open, their hour."""
        for bucket, n in zip(*(a.tolist() for a in np.unique(self.rows["bucket"][new], return_counts=True))):
            self._size[bucket] += n
        hours = _hours(self.rows["hour"][new])
        for hour in np.unique(hours).tolist():
            if self._hour_closes(hour) > self.watermark:
                self._open[hour].append(new[hours == hour])

    def _keep_older(self, first: int) -> None:
        """Takes the rows before bucket ``first`` for ones that do not expire: nothing told of the time when they came, and
        as old as they are others may come for them, which must not begin them anew."""
        buckets = self.rows["bucket"][: self.keys.rows]
        at = np.flatnonzero((buckets != TIMELESS) & (buckets < first))
        if not len(at):
            return
        old = np.unique(buckets[at]).tolist()
        self.rows["bucket"][at] = TIMELESS
        for bucket in old:
            del self._size[bucket]
            self._written.pop(bucket, None)
            self._changes.clear(bucket)
        self._size[TIMELESS] += len(at)
        slots = {bucket % SLOTS for bucket in old}
        for bucket in [b for b in self._size if b != TIMELESS and b % SLOTS in slots]:
            self._rewrite(bucket)
        self._log(at)

    def _label(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self.labels)
            self.labels.append(text)
        return code

    def _hour_closes(self, hour: int) -> int:
        """The watermark (µs) that closes an hour; rows without one close at the end of the stream."""
        return _END if hour == NO_HOUR else hour + MICROS_PER_HOUR + self.lateness

    def _closes(self, times: np.ndarray) -> np.ndarray:
        """The same of rows' times."""
        return np.where(times == NO_HOUR, _END, _hours(times) + (MICROS_PER_HOUR + self.lateness))

    def _mark(self, at: np.ndarray) -> None:
        fresh = np.unique(at[self.rows["dirty"][at] == 0])
        if len(fresh):
            self.rows["dirty"][fresh] = 1
            self._dirty.append(fresh)

    def note(self, receipts: np.ndarray) -> None:
        """Receipts of what was absorbed."""
        self._receipts.append(receipts)
        if len(self._receipts) >= _PARTS:
            self._receipts = [merged(self._receipts)]

    def take_receipts(self) -> np.ndarray:
        """Receipts of what was absorbed since the last call."""
        receipts, self._receipts = merged(self._receipts), []
        return receipts

    # -- publications ---------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        return bool(self._dirty)

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next closes or forgets something; None if there is nothing."""
        if self.watermark == _END:
            return None
        due = [self._hour_closes(hour) for hour in self._open]
        due += [self.buckets.expires(b) for b in self._size if b != TIMELESS]
        return min(due, default=None)

    def flush(self, tick: int) -> Revisions | None:
        """Publishes the rows that changed: provisional while their hour is open, restated after its close."""
        if not self._dirty:
            return None
        at = np.unique(np.concatenate(self._dirty))
        self._dirty = []
        at = at[self.rows["dirty"][at] == 1]
        # What an earlier generation had closed is restated, open as its hour may be to this one.
        rebuilt = self.rows["because"][at] >= REBUILD
        closed = (self._closes(self.rows["hour"][at]) <= self.watermark) | rebuilt
        published = self._publish(at, np.where(closed, RESTATED, PROVISIONAL), tick)
        self.rows["stands"][at] = rebuilt  # its final row was the earlier generation's
        self._log(at)
        return published

    def advance(self, watermark: int, tick: int) -> list[Revisions]:
        """Closes the hours that the watermark has passed: final rows, then restated ones where late events wait."""
        out = []
        due = [hour for hour in self._open if self._hour_closes(hour) <= watermark]
        if self.watermark == NO_WATERMARK:
            self._keep_older(self.buckets.first_kept(watermark))
        self.watermark = max(self.watermark, watermark)
        if due:
            at = np.concatenate([part for hour in due for part in self._open.pop(hour)])
            rows = self.rows
            # A row that only late events made was never on time: it begins restated.
            on_time = at[(rows["totals"][at] != 0).any(axis=1) | (rows["number"][at] > 0) | (rows["holds"][at] == 0)]
            on_time = on_time[rows["stands"][on_time] == 0]
            out.append(self._publish(on_time, np.where(rows["because"][on_time] >= REBUILD, RESTATED, FINAL), tick))
            late = at[rows["holds"][at] > 0]
            rows["totals"][late] += rows["held"][late]
            rows["because"][late] = rows["holds"][late]
            rows["held"][late], rows["holds"][late] = 0, 0
            out.append(self._publish(late, np.full(len(late), RESTATED), tick))
            self._log(at)
            self._dirty = [left for part in self._dirty if len(left := part[rows["dirty"][part] == 1])]
        first = self.buckets.first_kept(watermark)
        # Nothing is forgotten at the end of the stream: what still comes with its last watermark must find its row.
        expired = [b for b in self._size if b != TIMELESS and b < first and self.watermark < _END]
        if expired:
            out += filter(None, [self.flush(tick)])  # what is forgotten is published first
            self._forget(expired, first)
        return [r for r in out if len(r)]

    def rebuilt(self, stored: Deltas, closed: np.ndarray, apart: np.ndarray, publish_from: int) -> None:
        """Compares what this generation made of the archive with what the one before published, before it publishes.

        ``stored``: the rows as they stand and why they would be restated, ``closed`` (n,) bool: whether they were published as final or restated, ``apart``
        (n,) bool: whether not in all places. Rows equal to their stored form stand as they are; others, and those that stand
        apart, are restated, those that were not made again with zeros. What is nothing and was never published is not
        published. Rows of hours before ``publish_from`` (µs), and those without an hour if there is one, were not rebuilt:
        what is stored is where they begin.
        """
        known = self.keys.rows
        at = self.keys.add(stored.keys[:, 0].copy(), stored.keys[:, 1].copy())
        if self.keys.rows > len(self.rows):
            self.rows = grown(self.rows, self.keys.rows)
        self._enter(at, known, stored)
        rows, base = self.rows, stored.hours < publish_from
        np.add.at(rows["totals"], at[base], stored.counts[base])
        rows["stands"][at[base]] = closed[base]
        made = np.flatnonzero(~base)
        # What this reading of the archive takes for late is part of what is stored, or comes on top of it.
        rows["totals"][at[made]] += rows["held"][at[made]]
        rows["held"][at[made]], rows["holds"][at[made]] = 0, 0
        same = (rows["totals"][at[made]] == stored.counts[made]).all(axis=1) & ~apart[made]
        rows["stands"][at[made]] = same & closed[made]
        rows["dirty"][at[made[same & closed[made]]]] = 0
        anew = np.setdiff1d(np.arange(known), at)
        nothing = anew[(rows["totals"][anew] + rows["held"][anew] == 0).all(axis=1)]  # such as a credit that went elsewhere
        rows["totals"][nothing], rows["held"][nothing], rows["holds"][nothing] = 0, 0, 0
        rows["stands"][nothing], rows["dirty"][nothing] = 1, 0
        other = made[~same]
        rows["because"][at[other]] = np.where(closed[other], stored.because[other], rows["because"][at[other]])
        self._mark(at[other])
        self._log(np.unique(np.concatenate([at, nothing])))

    def _publish(self, at: np.ndarray, status: np.ndarray, tick: int) -> Revisions:
        rows = self.rows
        rows["dirty"][at], rows["stands"][at] = 0, 0
        rows["number"][at] = np.maximum(rows["number"][at] + 1, tick)
        because = np.where(status == RESTATED, np.maximum(rows["because"][at], LATE), 0)
        rows["because"][at] = 0
        codes, labels = named(rows["codes"][at], self.labels)
        return Revisions(rows["hour"][at], codes, rows["totals"][at], status, because, rows["number"][at], labels)

    # -- log ------------------------------------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log(self, at: np.ndarray) -> None:
        """Appends snapshots of rows to their buckets' logs; a log grown far beyond its live rows is written anew."""
        buckets = self.rows["bucket"][at]
        for bucket in np.unique(buckets).tolist():
            run = self._run(at[buckets == bucket], bucket)
            live = self._size[bucket] * self._row.itemsize
            if self._written[bucket] + len(run) > _REWRITE_FACTOR * live + _REWRITE_BYTES:
                self._rewrite(bucket)
            else:
                self._append(bucket, run)

    def _append(self, bucket: int, run: bytes) -> None:
        self._written[bucket] += len(run)
        if bucket == TIMELESS:
            self._changes.appended.append((SLOTS, run))
        else:
            self._changes.append(bucket, run)

    def _rewrite(self, bucket: int) -> None:
        """Writes a slot anew: the bucket and any other that shares it."""
        slot = SLOTS if bucket == TIMELESS else bucket % SLOTS
        sharing = [b for b in self._size if (SLOTS if b == TIMELESS else b % SLOTS) == slot]
        self._changes.cleared.add(slot)
        self._changes.appended = [(s, run) for s, run in self._changes.appended if s != slot]
        buckets = self.rows["bucket"][: self.keys.rows]
        for shared in sharing:
            self._written[shared] = 0
            self._append(shared, self._run(np.flatnonzero(buckets == shared), shared))

    def _run(self, at: np.ndarray, bucket: int) -> bytes:
        rows = self.rows[at]
        rows["codes"], labels = named(rows["codes"], self.labels)
        return pack(_VERSION, (np.int64(bucket).tobytes(), np.int64(self.watermark).tobytes(), rows.tobytes(), orjson.dumps(labels)))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log: the runs of every slot, each slot's in the order of writing."""
        self._reset()
        for run in runs:
            bucket, watermark, rows, labels = unpack(_VERSION, run)
            rows = np.frombuffer(rows, self._row).copy()
            self._written[int(np.frombuffer(bucket, np.int64)[0])] += len(run)
            self.watermark = max(self.watermark, int(np.frombuffer(watermark, np.int64)[0]))
            label_of = np.array([self._label(text) for text in orjson.loads(labels)] or [0], np.int32)
            rows["codes"] = np.where(rows["codes"] < 0, -1, label_of[rows["codes"]])
            at = self.keys.add(rows["hi"], rows["lo"])
            if self.keys.rows > len(self.rows):
                self.rows = grown(self.rows, self.keys.rows)
            self.rows[at] = rows
        new = np.arange(self.keys.rows)
        self._index(new)
        dirty = new[self.rows["dirty"][: len(new)] == 1]
        if len(dirty):
            self._dirty.append(dirty)

    def _forget(self, expired: list[int], first: int) -> None:
        """Drops the buckets before ``first`` and the labels that nothing names any more."""
        buckets = self.rows["bucket"][: self.keys.rows]
        kept = np.flatnonzero((buckets == TIMELESS) | (buckets >= first))
        rows = self.rows[kept]
        written, watermark = self._written, self.watermark
        rows["codes"], labels = named(rows["codes"], self.labels)
        self._reset()
        self.watermark, self.labels = watermark, labels
        self._codes = {text: i for i, text in enumerate(labels)}
        self.keys = Keys(rows["hi"], rows["lo"])
        self.rows = grown(rows, len(self.keys.hi)) if len(rows) else np.zeros(len(self.keys.hi), self._row)
        self._index(np.arange(len(rows)))
        dirty = np.flatnonzero(rows["dirty"] == 1)
        if len(dirty):
            self._dirty.append(dirty)
        for bucket in expired:
            self._changes.clear(bucket)
        self._written.update((b, n) for b, n in written.items() if b in self._size)
        slots = {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._size if b != TIMELESS and b % SLOTS in slots]:
            self._rewrite(bucket)


def _hours(times: np.ndarray) -> np.ndarray:
    """The hour (µs) of each time."""
    return np.where(times == NO_HOUR, NO_HOUR, times // MICROS_PER_HOUR * MICROS_PER_HOUR)
