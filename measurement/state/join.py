"""Dedup and join of one shard: what it remembers, what it decides, and the log it can be rebuilt from.

No Beam here. A caller feeds batches in order of arrival (``absorb``), moves event time on (``advance``), passes later
verdicts (``judge``), and after each call writes ``take_changes()`` to its state; ``restore`` rebuilds the same machine
from the log. Everything remembered expires by event time.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import orjson

from measurement.columnar.batch import DIMS, NO_WATERMARK, ROW, EventBatch, blobs, kept, pack, unpack
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE, ON_TIME, Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.labels import named
from measurement.columnar.records import Verdicts, packed, unpacked
from measurement.columnar.table import Keys, grown
from measurement.columnar.texts import numbered
from measurement.model import events as e
from measurement.model.policy import Counting
from measurement.state import invalid
from measurement.state import join_kernel as kernel
from measurement.state.join_kernel import ENTRY, FREE, PLACEHOLDER, STANDS, WAITING
from measurement.state import join_facts
from measurement.state.identities import IDENTITY, Identities
from measurement.state.ring import SLOTS, Buckets, Changes

_VERSION = 4
_EVENT = np.dtype([("id_hi", "u8"), ("id_lo", "u8"), *ENTRY.descr])  # a remembered event, without its digest
# What a log tells of an entry: chains, and what impressions were counted for, follow from the entries. A column stands whole
# behind the other, so that they compress.
_LOGGED = tuple(name for name in ENTRY.names if name not in ("link", "seen"))
_CHANGE = np.dtype([("hi", "u8"), ("lo", "u8"), ("time", "i8"), ("status", "u1"), ("verdict", "u1"), ("joined", "u2")])
_NO_CHANGES = np.zeros(0, _CHANGE)
_STALE = 10_000  # so many that have come are no reason to make a table anew
_NO_VERDICTS = np.zeros(0, Verdicts.DTYPE)
_NO_EVENTS = EventBatch(np.zeros(0, ROW), np.zeros(0, DIMS), blobs([]), [])
DETAILS = {  # of its rejects
    "id_conflict": "another event with this identity and other content came first",
    "orphan": "no impression within the join horizon came while it waited",
}


@dataclass(frozen=True)
class Waiting:
    """A follow-up that waits for its impression, whole, since it may yet become a reject."""

    row: np.void  # ROW
    payload: bytes
    source: str
    file: str
    schema: str | None

    @property
    def event_id(self) -> str:
        at, length = int(self.row["id_at"]), int(self.row["id_length"])
        return self.payload[at : at + length].decode() if at >= 0 else orjson.loads(self.payload)["event_id"]


@dataclass
class Effects:
    """What a call decided."""

    delivery: Deltas | None = None
    invalid: Deltas | None = None  # of invalid_traffic
    ledger: Counter = field(default_factory=Counter)  # by (hour, because, source, event_type, outcome)
    rejects: list[tuple[str, Waiting, bool]] = field(default_factory=list)  # (reason, the event, whether its hour had closed)
    orders: EventBatch | None = None  # new conversions that name an order: their outcome is the order's to say
    facts: Facts | None = None  # what attribution is to know, but for conversions that name an order
    judged: Verdicts | None = None  # on conversions that name an order, which is told of
    received: np.ndarray | None = None  # receipts (µs) of the batch's events that ``delivery`` counts


class _Bucket:
    """What a bucket's log already holds: the labels and delivery rows that its runs refer to by number."""

    def __init__(self):
        self.labels: dict[str, int] = {}
        self.rows = 0


class JoinShard:
    """State machine of one shard of impressions, their follow-ups, and conversions."""

    def __init__(self, counting: Counting):
        self.counting = counting
        # A follow-up may be as old as the dedup horizon, its impression a join horizon older still.
        self.buckets = Buckets(counting.dedup_horizon + counting.join_horizon)
        self.watermark = NO_WATERMARK
        self._reset()
        self._changes = Changes()

    def _reset(self):
        self.known = Identities()
        self.entries = np.zeros(len(self.known.ids), ENTRY)  # row by row beside the identities
        self.waiting: dict[int, tuple[EventBatch, int]] = {}  # entry: where its event stands, whole
        self._due: dict[int, list[np.ndarray]] = defaultdict(list)  # hour of a waiting follow-up's time: entries
        self.labels: list[str] = []
        self._codes: dict[str, int] = {}
        self._log: dict[int, _Bucket] = defaultdict(_Bucket)
        self._expected: dict[tuple[int, int, int], tuple[int, int]] = {}  # identity, digest: bucket of time, verdict
        self._early = Keys()  # of these, and of some that have come
        self._set_rows(Keys(), np.zeros(1024, np.int64), np.zeros((1024, len(e.DIMENSIONS)), np.int32), np.zeros(1024, np.int32))

    def _set_rows(self, keys, hours, codes, local):
        self.row_keys, self.row_hours, self.row_codes = keys, hours, codes
        self.row_local = local  # the row's number in its bucket's log
        self.acc = np.zeros((len(hours), 2, len(e.COUNTS)), np.int64)
        self.marks = np.zeros(len(hours), np.uint8)
        self.touched = np.zeros(len(hours) + 1, np.int32)

    @property
    def count(self) -> int:
        """Events remembered, and placeholders."""
        return self.known.count

    def remembered(self, hi: int, lo: int) -> tuple[np.void, int] | None:
        """An identity's ENTRY and the digest of its content, as they are now; None where it is not known."""
        at = self.known.find(hi, lo)
        return None if at < 0 else (self.entries[at].copy(), int(self.known.ids["digest"][at]))

    # -- events ---------------------------------------------------------------------------------------------------

    def absorb(self, batch: EventBatch) -> Effects:
        """Takes in a batch in order of arrival."""
        batch = self._with_verdicts(batch)
        rows, n = batch.rows, len(batch.rows)
        label_of = np.array([self._label(text) for text in batch.labels], np.int32)
        first_new_row = self.row_keys.rows
        row_of = self._rows_of(batch, label_of)
        self._room(2 * n)
        outcomes, at = np.empty(n, np.uint8), np.empty(n, np.int32)
        under, joined_at = np.empty(n, np.int32), np.empty(n, np.int64)
        why = np.empty(n, np.uint8)
        resolved = np.zeros((len(self.waiting) + 2 * n, 4), np.int32)
        resolution = np.empty(len(resolved), np.uint8)
        users = join_facts.users(batch)
        known = self.known
        known.count, decided = kernel.absorb(
            rows, row_of, label_of, *users, known.table, known.low, known.ids, self.entries, known.count, self.acc, self.marks,
            self.touched, self.counting.dedup_horizon, self.counting.join_horizon, self.counting.allowed_lateness, outcomes, at,
            under, joined_at, why, resolved, resolution, np.zeros(1, np.uint64))
        effects = Effects(delivery=self._harvest(LATE), invalid=self._invalid(rows, under, why, resolved[:decided], resolution[:decided]))
        told = join_facts.Told(self.labels)
        self._tell(batch, users, label_of, outcomes, under, joined_at, told)
        changes = self._settle(batch, outcomes, at, resolved[:decided], resolution[:decided], effects, told)
        effects.facts = told.facts()
        effects.received = self._received(rows, outcomes, at)
        self._tally(batch, outcomes, effects)
        for outcome in (kernel.ID_CONFLICT, kernel.ORPHAN):
            for i in np.flatnonzero(outcomes == outcome).tolist():
                effects.rejects.append((kernel.OUTCOMES[outcome], _whole(batch, i), bool(self._closed(rows["time"][i], rows["watermark"][i]))))
        ordered = np.flatnonzero((rows["type"] == e.CONVERSION) & ~_unordered(rows) & (outcomes >= kernel.INVALID))
        if len(ordered):
            effects.orders = join_facts.ordered(batch, ordered, *users)
        self._log_runs(batch, outcomes, at, first_new_row, changes)
        return effects

    def _tell(self, batch: EventBatch, users, label_of: np.ndarray, outcomes, under, joined_at, told: "join_facts.Told") -> None:
        """Tells attribution of the impressions, clicks and conversions that were decided at once."""
        rows = batch.rows
        decided = outcomes >= kernel.INVALID
        touches = np.flatnonzero(decided & ((rows["type"] == e.IMPRESSION) | (rows["type"] == e.CLICK)))
        told.touches(batch, touches, joined_at[touches], self.row_codes[under[touches]], rows["watermark"][touches],
                     outcomes[touches] == kernel.COUNTED)
        free = np.flatnonzero(decided & _unordered(rows))
        told.conversions(batch, free, users, label_of, outcomes[free] == kernel.COUNTED)

    def _received(self, rows: np.ndarray, outcomes: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Receipts (µs) of the events that delivery counts from this batch on, those among them whose impression came behind them in
        it. Who waited longer waited for the impression and not for us."""
        counts = (outcomes >= kernel.INVALID) & (rows["type"] != e.CONVERSION)
        waited = np.flatnonzero(outcomes == kernel.WAITS)
        counts[waited] = self.entries["status"][at[waited]] == STANDS
        return rows["receipt"][counts]

    def _label(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self.labels)
            self.labels.append(text)
        return code

    def _rows_of(self, batch: EventBatch, label_of: np.ndarray) -> np.ndarray:
        """The row (hour and dimensions) of each impression and conversion of the batch, -1 for other events and for conversions
        that name an order, whose outcome is the order's to say."""
        rows = batch.rows
        row_of = np.full(len(rows), -1, np.int32)
        own = np.flatnonzero((rows["type"] == e.IMPRESSION) | _unordered(rows))
        if not len(own):
            return row_of
        hours = rows["time"][own] // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR
        dims = batch.dims[rows["dims"][own]]
        known = self.row_keys.rows
        found = self.row_keys.add(*numbered(dims["hi"], dims["lo"], hours))
        row_of[own] = found
        if self.row_keys.rows > len(self.row_hours):
            self._grow_rows()
        fresh = np.flatnonzero(found >= known)
        self.row_hours[found[fresh]] = hours[fresh]
        codes = dims["codes"][fresh, : len(e.DIMENSIONS)]
        self.row_codes[found[fresh]] = np.where(codes < 0, -1, label_of[codes])
        return row_of

    def _grow_rows(self) -> None:
        need = self.row_keys.rows
        self._set_rows(self.row_keys, grown(self.row_hours, need), grown(self.row_codes, need), grown(self.row_local, need))

    def _room(self, more: int) -> None:
        """Room for ``more`` entries."""
        self.known.room(more)
        if len(self.entries) < len(self.known.ids):
            self.entries = grown(self.entries, len(self.known.ids))

    def _events(self, at: np.ndarray) -> np.ndarray:
        """Remembered events by their entries' numbers, _EVENT."""
        out = np.empty(len(at), _EVENT)
        ids, entries = self.known.ids[at], self.entries[at]
        out["id_hi"], out["id_lo"] = ids["hi"], ids["lo"]
        for name in ENTRY.names:
            out[name] = entries[name]
        return out

    def _invalid(self, rows, under, why, resolved, resolution) -> Deltas | None:
        """The changes of invalid_traffic by the events of a batch and those that they decided."""
        own, joined = np.flatnonzero((why > 0) & (under >= 0)), resolved[resolution == kernel.INVALID]
        if not len(own) + len(joined):
            return None
        entered, by, row, reasons = joined.T
        row = np.concatenate([under[own], row])
        types = np.concatenate([rows["type"][own], self.entries["type"][entered]])
        closed = self._closed(self.row_hours[row], rows["watermark"][np.concatenate([own, by])])
        return invalid.deltas(row, types, np.concatenate([why[own], reasons]), closed, np.ones(len(row), np.int64), LATE,
                              self.row_hours, self.row_codes, self.labels)

    def _harvest(self, because_closed: int) -> Deltas | None:
        """The delivery changes summed since the last harvest."""
        touched = self.touched[1 : 1 + self.touched[0]].copy()
        if not len(touched):
            return None
        self.touched[0] = 0
        self.marks[touched] = 0
        sums = self.acc[touched]
        self.acc[touched] = 0
        at, lane = np.nonzero(sums.any(axis=2))
        if not len(at):
            return None
        rows = touched[at]
        codes, labels = named(self.row_codes[rows], self.labels)
        keys = np.column_stack([self.row_keys.hi[rows], self.row_keys.lo[rows]])
        because = np.where(lane == 0, ON_TIME, because_closed).astype(np.uint8)
        return Deltas(keys, self.row_hours[rows], because, codes, sums[at, lane], labels)

    def _settle(self, batch, outcomes, at, resolved, resolution, effects, told) -> list[np.ndarray]:
        """Settles the waiting follow-ups that were decided and enters the new ones; the changes of status to log."""
        changes = []
        starts = np.flatnonzero(outcomes == kernel.WAITS)
        for entry, by in resolved[resolution == kernel.ORPHAN, :2].tolist():
            started = starts[(at[starts] == entry) & (starts < by)]  # in this very batch, if the watermark leapt
            event = (batch, int(started[-1])) if len(started) else self.waiting.pop(entry)
            changes.append(self._orphan(_whole(*event), int(batch.rows["watermark"][by]), effects))
        changes.append(self._noted(resolved[resolution == kernel.FORGOTTEN, 0]))
        joins = (resolution == kernel.INVALID) | (resolution == kernel.COUNTED)
        entered, by, under, _ = resolved[joins].T
        if len(entered):
            entries, watermarks = self.entries[entered], batch.rows["watermark"][by]
            self._tally_entries(entries, resolution[joins], watermarks, effects)
            changes.append(self._noted(entered))
            here = dict(zip(at[starts].tolist(), starts.tolist()))  # those that began to wait in this very batch
            events = [self.waiting.pop(entry, None) or (batch, here[entry]) for entry in entered.tolist()]
            clicks = np.flatnonzero(entries["type"] == e.CLICK)
            if len(clicks):
                clicked = _gathered([events[i] for i in clicks.tolist()])
                told.touches(clicked, np.arange(len(clicks)), batch.rows["time"][by[clicks]], self.row_codes[under[clicks]],
                             watermarks[clicks], resolution[joins][clicks] == kernel.COUNTED)
        starts = starts[self.entries["status"][at[starts]] == WAITING]
        if len(starts):
            self._wait(at[starts], _some(batch, starts))
        return changes

    def _wait(self, entries: np.ndarray, events: EventBatch) -> None:
        """Enters follow-ups that wait: ``entries`` and their events, whole."""
        self.waiting.update(zip(entries.tolist(), zip(repeat(events), range(len(entries)))))
        hours = events.rows["time"] // e.MICROS_PER_HOUR
        for hour in np.unique(hours).tolist():
            self._due[hour].append(entries[hours == hour])

    def _orphan(self, event: Waiting, watermark: int, effects: Effects) -> np.ndarray:
        """Rejects a follow-up whose wait is over; the change of status to log."""
        hour = int(event.row["time"]) // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR
        because = LATE if self._closed(hour, watermark) else ON_TIME
        effects.rejects.append(("orphan", event, because == LATE))
        effects.ledger[hour, because, event.source, e.EVENT_TYPES[event.row["type"]], "orphan"] += 1
        change = np.zeros(1, _CHANGE)
        change["hi"], change["lo"], change["time"] = event.row["id_hi"], event.row["id_lo"], event.row["time"]
        change["status"], change["verdict"] = FREE, event.row["verdict"]
        return change

    def _closed(self, times: np.ndarray, watermarks: np.ndarray) -> np.ndarray:
        """Whether the hours of ``times`` are closed at the watermarks (µs): uint8."""
        closes = (times // e.MICROS_PER_HOUR + 1) * e.MICROS_PER_HOUR + self.counting.allowed_lateness
        return np.greater_equal(watermarks, closes).astype(np.uint8)

    def _tally(self, batch: EventBatch, outcomes: np.ndarray, effects: Effects) -> None:
        """Ledger entries of the events decided at once; conversions that name an order are the order's to enter."""
        rows = batch.rows
        by_order = (rows["type"] == e.CONVERSION) & ~_unordered(rows) & (outcomes >= kernel.INVALID)
        at = np.flatnonzero((outcomes != kernel.WAITS) & ~by_order)
        self._count(rows["time"][at], rows["watermark"][at], rows["source"][at], rows["type"][at], outcomes[at], batch.labels,
                    effects, 1, LATE)

    def _tally_entries(self, entries, outcomes, watermarks, effects: Effects) -> None:
        """Ledger entries of remembered events."""
        self._count(entries["time"], watermarks, entries["source"], entries["type"], outcomes, self.labels, effects, 1, LATE)

    def _count(self, times, watermarks, sources, types, outcomes, labels: list[str], effects: Effects, events: int,
               because_closed: int) -> None:
        if not len(times):
            return
        hours = times // e.MICROS_PER_HOUR
        first = hours.min()
        late = self._closed(times, watermarks)
        packed = ((hours - first) * (len(labels) + 1) + sources) << 9
        packed += (late.astype(np.int64) << 8) + (types.astype(np.int64) << 4) + outcomes
        for group, n in zip(*(a.tolist() for a in np.unique(packed, return_counts=True))):
            hour, source = divmod(group >> 9, len(labels) + 1)
            key = ((hour + int(first)) * e.MICROS_PER_HOUR, because_closed if group >> 8 & 1 else ON_TIME, labels[source],
                   e.EVENT_TYPES[group >> 4 & 15], kernel.OUTCOMES[group & 15])
            effects.ledger[key] += events * n

    # -- event time -----------------------------------------------------------------------------------------------

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next has something to do; None if nothing is remembered."""
        due = [min(self._due) * e.MICROS_PER_HOUR + e.MICROS_PER_HOUR + self.counting.join_horizon] if self._due else []
        if self._log:
            due.append(self.buckets.expires(min(self._log)))
        return min(due, default=None)

    def advance(self, watermark: int) -> Effects:
        """Rejects the follow-ups whose wait is over and forgets what can no longer be asked for."""
        self.watermark = max(self.watermark, watermark)
        effects, changes = Effects(), []
        for hour in sorted(h for h in self._due if h * e.MICROS_PER_HOUR + self.counting.join_horizon <= watermark):
            entries = np.unique(np.concatenate(self._due.pop(hour)))
            there = self.entries[entries]
            # Entries that were decided meanwhile, and perhaps used again, are not this hour's any more.
            entries = entries[(there["status"] == WAITING) & (there["time"] // e.MICROS_PER_HOUR == hour)]
            over = self.entries["time"][entries] + self.counting.join_horizon <= watermark
            if not over.all():
                self._due[hour].append(entries[~over])
            for entry in entries[over].tolist():
                self.entries["status"][entry] = FREE
                event = _whole(*self.waiting.pop(entry))
                changes.append(self._orphan(event, int(event.row["time"]) + self.counting.join_horizon, effects))
        self._log_changes(changes)
        first = self.buckets.first_kept(watermark)
        if any(bucket < first for bucket in self._log):
            self._forget(first)
        return effects

    # -- verdicts -------------------------------------------------------------------------------------------------

    def judge(self, verdicts: Verdicts) -> Effects:
        """Sets events' verdicts at any time; those on events that have not come are kept until they do.

        What was counted by the old verdict is restated, its follow-ups with it.
        """
        known = self.known.table, self.known.low, self.known.ids, self.entries
        rows = verdicts.rows
        at, heads = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
        room = kernel.seek(*known, rows, at, heads)
        early = rows[at == -1]
        self._expect(early)
        waiting = np.unique(at[(at >= 0) & (heads < 0)])
        standing = np.flatnonzero(heads >= 0)
        standing = standing[np.unique(at[standing], return_index=True)[1]]
        standing = standing[np.argsort(heads[standing], kind="stable")]
        rows, at, heads = rows[standing], at[standing], heads[standing]
        closed = self._closed(self.entries["time"][heads], rows["watermark"])
        changed, under = np.empty(room, np.int32), np.empty(room, np.int32)
        was, now = np.empty(room, np.uint8), np.empty(room, np.uint8)
        n = kernel.judge(self.entries, rows["code"], at, heads, closed, self.acc, self.marks, self.touched, changed, under, was, now)
        effects = Effects(delivery=self._harvest(INVALID_TRAFFIC))
        if n:
            watermark = int(rows["watermark"].max())
            self._restate(changed[:n], under[:n], was[:n], now[:n], watermark, effects)
        self._log_changes([self._noted(np.concatenate([waiting, at]))], early)
        return effects

    def _restate(self, changed, under, was, now, watermark: int, effects: Effects) -> None:
        """What follows from changed reasons: of the ledger, of invalid_traffic, for attribution and for orders."""
        entries, heads = self.entries[changed], self.entries[under]
        by_order = heads["row"] < 0  # a conversion's whose order says its outcome
        if by_order.any():
            effects.judged = self._to_orders(changed[by_order], now[by_order], watermark)
        changed, entries, heads, was, now = (each[~by_order] for each in (changed, entries, heads, was, now))
        if not len(changed):
            return
        effects.invalid = invalid.of_judged(heads["row"], entries["type"], was, now, self._closed(heads["time"], watermark),
                                            self.row_hours, self.row_codes, self.labels)
        turned = (was > 0) != (now > 0)
        changed, entries, heads, was, now = (each[turned] for each in (changed, entries, heads, was, now))
        watermarks = np.full(len(changed), watermark)
        for why, events in (was, -1), (now, 1):
            outcomes = np.where(why > 0, np.uint8(kernel.INVALID), np.uint8(kernel.COUNTED))
            self._count(entries["time"], watermarks, entries["source"], entries["type"], outcomes, self.labels, effects, events,
                        INVALID_TRAFFIC)
        told = join_facts.Told(self.labels)
        at = np.flatnonzero((entries["type"] == e.IMPRESSION) | (entries["type"] == e.CLICK) | (entries["type"] == e.CONVERSION))
        advertisers = np.where(entries["type"] == e.CONVERSION, -1, self.row_codes[heads["row"], 0])
        told.changes(self._events(changed[at]), heads["time"][at], advertisers[at], np.where(now[at] > 0, -1, 1), watermark)
        effects.facts = told.facts()

    def _to_orders(self, at: np.ndarray, codes: np.ndarray, watermark: int) -> Verdicts:
        rows, ids, entries = np.zeros(len(at), Verdicts.DTYPE), self.known.ids[at], self.entries[at]
        rows["hi"], rows["lo"], rows["digest"] = ids["hi"], ids["lo"], ids["digest"]
        rows["order_hi"], rows["order_lo"], rows["time"] = entries["parent_hi"], entries["parent_lo"], entries["time"]
        rows["watermark"], rows["code"] = watermark, codes
        return Verdicts(rows)

    def _expect(self, verdicts: np.ndarray) -> None:
        """Keeps verdicts on events that have not come: another stage may be ahead of this one."""
        bucket = self.buckets.of(verdicts["time"])
        for b, *key, code in zip(bucket.tolist(), *(verdicts[c].tolist() for c in ("hi", "lo", "digest", "code"))):
            self._expected[tuple(key)] = b, code
        self._early.add(np.ascontiguousarray(verdicts["hi"]), verdicts["lo"] ^ verdicts["digest"])

    def _still_expect(self, which: Callable[[tuple[int, int, int], int], bool]) -> None:
        """Keeps the expected (identity and digest, bucket) that ``which`` says."""
        self._expected = {key: kept for key, kept in self._expected.items() if which(key, kept[0])}
        keys = np.array([*self._expected], np.uint64).reshape(-1, 3)
        self._early = Keys(keys[:, 0], keys[:, 1] ^ keys[:, 2])

    def _has_come(self, hi: int, lo: int, digest: int) -> bool:
        at = self.known.find(hi, lo)
        return at >= 0 and self.entries["status"][at] in (WAITING, STANDS) and self.known.ids["digest"][at] == digest

    def _with_verdicts(self, batch: EventBatch) -> EventBatch:
        """The batch with the verdicts that came before its events."""
        if not self._expected:
            return batch
        rows = batch.rows
        at = np.flatnonzero(self._early.find(np.ascontiguousarray(rows["id_hi"]), rows["id_lo"] ^ rows["digest"]) >= 0)
        if not len(at):
            return batch
        rows = rows.copy()
        for i in at.tolist():
            key = int(rows["id_hi"][i]), int(rows["id_lo"][i]), int(rows["digest"][i])
            if key in self._expected:
                code = self._expected.pop(key)[1]
                rows["verdict"][i] = rows["verdict"][i] or code
        if self._early.rows > 2 * len(self._expected) + _STALE:
            self._still_expect(lambda key, bucket: True)
        return EventBatch(rows, batch.dims, lambda: batch.payloads, batch.labels)

    # -- log ------------------------------------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log_runs(self, batch, outcomes, at, first_new_row, changes: list[np.ndarray]) -> None:
        """One run for each bucket of event time that the batch added to."""
        new = np.flatnonzero(at >= 0)
        buckets = self.buckets.of(batch.rows["time"][new])
        new_rows = np.arange(first_new_row, self.row_keys.rows)
        row_buckets = self.buckets.of(self.row_hours[new_rows])
        noted = self._by_bucket(changes)
        for bucket in sorted({*np.unique(buckets).tolist(), *np.unique(row_buckets).tolist(), *noted}):
            log = self._log[bucket]
            rows = new_rows[row_buckets == bucket]
            self.row_local[rows] = np.arange(log.rows, log.rows + len(rows))
            log.rows += len(rows)
            mine = new[buckets == bucket]
            waits = mine[(outcomes[mine] == kernel.WAITS) & (self.entries["status"][at[mine]] == WAITING)]
            run = self._run(bucket, at[mine], rows, _some(batch, waits), noted.get(bucket, _NO_CHANGES))
            self._changes.append(bucket, run)

    def _log_changes(self, changes: list[np.ndarray], expected: np.ndarray = _NO_VERDICTS) -> None:
        noted, expected = self._by_bucket(changes), self._by_bucket([expected])
        for bucket in noted.keys() | expected.keys():
            run = self._run(bucket, np.empty(0, np.int32), np.empty(0, np.int64), _NO_EVENTS, noted.get(bucket, _NO_CHANGES),
                            expected.get(bucket, _NO_VERDICTS))
            self._changes.append(bucket, run)

    def _by_bucket(self, changes: list[np.ndarray]) -> dict[int, np.ndarray]:
        if not changes:
            return {}
        all_ = np.concatenate(changes)
        buckets = self.buckets.of(all_["time"])
        return {bucket: all_[buckets == bucket] for bucket in np.unique(buckets).tolist()}

    def _run(self, bucket: int, at: np.ndarray, rows: np.ndarray, waiting: EventBatch, changes: np.ndarray,
             expected: np.ndarray = _NO_VERDICTS) -> bytes:
        """New entries, new rows, waiting events, changes of status and verdicts on events to come, in terms of the bucket's own
        numbers."""
        log = self._log[bucket]
        known = len(log.labels)
        entries = self.entries[at]
        entries["source"] = self._local(log, entries["source"])
        of_row = entries["row"] >= 0
        entries["row"][of_row] = self.row_local[entries["row"][of_row]]
        codes = self._local(log, self.row_codes[rows])
        labels = list(log.labels)[known:]
        return pack(_VERSION, (
            np.int64(bucket).tobytes(), orjson.dumps(labels), self.row_keys.hi[rows].tobytes(), self.row_keys.lo[rows].tobytes(),
            self.row_hours[rows].tobytes(), codes.tobytes(), self.known.ids[at].tobytes(), packed(entries, _LOGGED), waiting.encode(),
            changes.tobytes(), expected.tobytes(),
        ))

    def _noted(self, at: np.ndarray) -> np.ndarray:
        """What can change of the entries ``at``, as a log tells it."""
        changes, ids, entries = np.zeros(len(at), _CHANGE), self.known.ids[at], self.entries[at]
        changes["hi"], changes["lo"] = ids["hi"], ids["lo"]
        for name in ("time", "status", "verdict", "joined"):
            changes[name] = entries[name]
        return changes

    def _local(self, log: _Bucket, codes: np.ndarray) -> np.ndarray:
        """Shard label codes as the bucket's own, entering those it lacks."""
        used, where = np.unique(codes, return_inverse=True)
        own = [-1 if c < 0 else log.labels.setdefault(self.labels[c], len(log.labels)) for c in used.tolist()]
        return np.array(own, np.int32)[where].reshape(codes.shape)

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log: the runs of every slot, each slot's in the order of writing."""
        self._reset()
        waited: list[EventBatch] = []
        shelves: dict[int, tuple[list, Identities, np.ndarray]] = {}  # bucket: its rows, its identities, its entries
        for run in runs:
            bucket, labels, hi, lo, hours, codes, ids, entries, waits, noted, expected = unpack(_VERSION, run)
            bucket = int(np.frombuffer(bucket, np.int64)[0])
            rows, known, shelf = shelves.get(bucket) or ([], Identities(), np.zeros(1024, ENTRY))
            log = self._log[bucket]
            for text in orjson.loads(labels):
                log.labels[text] = len(log.labels)
            label_of = np.array([self._label(text) for text in log.labels] or [0], np.int32)
            hours = np.frombuffer(hours, np.int64)
            codes = np.frombuffer(codes, np.int32).reshape(-1, len(e.DIMENSIONS))
            rows += self._restore_rows(log, np.frombuffer(hi, np.uint64), np.frombuffer(lo, np.uint64), hours,
                                       np.where(codes < 0, -1, label_of[codes]))
            ids = np.frombuffer(ids, IDENTITY)
            entries = _unpacked(entries, len(ids))
            entries["source"] = label_of[entries["source"]]
            of_row = entries["row"] >= 0
            entries["row"][of_row] = np.array(rows or [0], np.int32)[entries["row"][of_row]]
            noted = np.frombuffer(noted, _CHANGE)
            known.room(len(noted) + len(ids))
            shelf = grown(shelf, len(known.ids)) if len(known.ids) > len(shelf) else shelf
            # What became of earlier entries comes first: a freed id may have come again in the same call.
            at = known.upsert(noted)
            shelf["status"][at], shelf["verdict"][at], shelf["joined"][at] = noted["status"], noted["verdict"], noted["joined"]
            at = known.upsert(ids)
            known.ids["digest"][at], shelf[at] = ids["digest"], entries
            shelves[bucket] = rows, known, shelf
            waited.append(EventBatch.decode(bytes(waits)))
            self._expect(np.frombuffer(expected, Verdicts.DTYPE))
        parts = [(known.ids[: known.count], shelf[: known.count]) for _, known, shelf in shelves.values()]
        shelves.clear()
        self._take_all(parts)
        self._relink(self._waiting(waited))
        self._still_expect(lambda key, bucket: not self._has_come(*key))

    def _restore_rows(self, log: _Bucket, hi, lo, hours, codes) -> list[int]:
        """Enters a bucket's delivery rows again; their numbers in the shard."""
        found = self.row_keys.add(hi, lo)
        if self.row_keys.rows > len(self.row_hours):
            self._grow_rows()
        self.row_hours[found], self.row_codes[found] = hours, codes
        self.row_local[found] = np.arange(log.rows, log.rows + len(found))
        log.rows += len(found)
        return found.tolist()

    def _take_all(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Takes what stands or waits of identities and entries, part by part, for all that is remembered. ``parts`` is emptied
        on the way, so that no more than one of them is there twice."""
        live = [np.flatnonzero((entries["status"] == WAITING) | (entries["status"] == STANDS)) for _, entries in parts]
        self.known = Identities(sum(map(len, live)) + 1024)
        self.entries, known = np.zeros(len(self.known.ids), ENTRY), self.known
        while parts:
            (ids, entries), some = parts.pop(), live.pop()
            known.ids[known.count : known.count + len(some)] = ids[some]
            self.entries[known.count : known.count + len(some)] = entries[some]
            known.count += len(some)

    def _waiting(self, waited: list[EventBatch]) -> dict[tuple[int, int, int], tuple[EventBatch, int]]:
        """Of events that waited at some time those that do, and perhaps some others, by identity and time: an id that was freed
        may wait again in another slot, whichever is read first."""
        known = np.sort(self.known.ids["hi"][: self.count][self.entries["status"][: self.count] == WAITING])
        found = {}
        for batch in waited if len(known) else ():
            hi = batch.rows["id_hi"]
            at = np.flatnonzero(known[np.minimum(np.searchsorted(known, hi), len(known) - 1)] == hi)
            rows = batch.rows[at]
            identities = zip(rows["id_hi"].tolist(), rows["id_lo"].tolist(), rows["time"].tolist())
            found.update((identity, (batch, i)) for identity, i in zip(identities, at.tolist()))
        return found

    def _relink(self, waiting: dict[tuple[int, int, int], tuple[EventBatch, int]]) -> None:
        """Makes table and chains anew, and finds the events that wait again by their identities and times."""
        known, at = self.known, np.flatnonzero(self.entries["status"][: self.count] == WAITING)
        self._room(len(at))  # placeholders of their impressions
        known.table[:] = 0
        ids, times = known.ids[at], self.entries["time"][at]
        known.count = kernel.relink(known.table, known.low, known.ids, self.entries, known.count, np.zeros(1, np.uint64))
        self.waiting, self._due = {}, defaultdict(list)
        if len(at):
            identities = zip(ids["hi"].tolist(), ids["lo"].tolist(), times.tolist())
            self._wait(at.astype(np.int32), _gathered([waiting[identity] for identity in identities]))

    def _forget(self, first: int) -> None:
        """Drops every bucket before ``first``: entries, delivery rows and labels that nothing names any more."""
        expired = [bucket for bucket in self._log if bucket < first]
        for bucket in expired:
            del self._log[bucket]
            self._changes.clear(bucket)
        self._still_expect(lambda key, bucket: bucket >= first)
        rows = np.flatnonzero(self.buckets.of(self.row_hours[: self.row_keys.rows]) >= first)
        new_row = np.full(self.row_keys.rows + 1, -1, np.int32)  # the last one for entries without a row
        new_row[rows] = np.arange(len(rows))
        codes, sources = self.row_codes[rows], np.zeros(len(self.labels), bool)
        self.known.count = kernel.compact(self.known.ids, self.entries, self.count, first * self.buckets.width, new_row, sources)
        used, number = kept(len(self.labels), codes, np.flatnonzero(sources))
        kernel.relabel(self.entries, self.count, number)
        codes = number[codes]
        texts = [self.labels[c] for c in used.tolist()]
        self.labels, self._codes = texts, {text: i for i, text in enumerate(texts)}
        keys = Keys(self.row_keys.hi[rows], self.row_keys.lo[rows])
        room = len(keys.hi)
        hours, local = np.zeros(room, np.int64), np.zeros(room, np.int32)
        all_codes = np.zeros((room, codes.shape[1]), np.int32)
        hours[: len(rows)], local[: len(rows)], all_codes[: len(rows)] = self.row_hours[rows], self.row_local[rows], codes
        self._set_rows(keys, hours, all_codes, local)
        waiting = {(int(b.rows["id_hi"][i]), int(b.rows["id_lo"][i]), int(b.rows["time"][i])): (b, i)
                   for b, i in self.waiting.values()}
        if 2 * self.count < len(self.entries):
            self._take_all([(self.known.ids[: self.count], self.entries[: self.count])])
        self._relink(waiting)
        slots = {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._log if b % SLOTS in slots]:
            self._rewrite(bucket)

    def _rewrite(self, bucket: int) -> None:
        """Logs a bucket again, whole: it shared its slot with one that expired."""
        log = self._log[bucket] = _Bucket()
        rows = np.flatnonzero(self.buckets.of(self.row_hours[: self.row_keys.rows]) == bucket)
        self.row_local[rows] = np.arange(len(rows))
        log.rows = len(rows)
        entries = self.entries[: self.count]
        at = np.flatnonzero((self.buckets.of(entries["time"]) == bucket) & (entries["status"] != PLACEHOLDER)).astype(np.int32)
        waits = _gathered([self.waiting[i] for i in at.tolist() if i in self.waiting])
        expected = np.array([(*key, bucket * self.buckets.width, 0, 0, 0, 0, code)
                             for key, (b, code) in self._expected.items() if b == bucket], Verdicts.DTYPE)
        self._changes.append(bucket, self._run(bucket, at, rows, waits, _NO_CHANGES, expected))

    def state_bytes(self) -> dict[str, float]:
        """Bytes of memory for each remembered identity: what deduplication needs, and what the join needs besides."""
        n = max(self.count, 1)
        rows = self.row_keys.rows * (2 * 8 + self.row_hours.itemsize + sum(
            a.nbytes // len(self.row_hours) for a in (self.row_codes, self.row_local, self.acc, self.marks)))
        return {
            "identities": self.count,
            "identity and digest": IDENTITY.itemsize,
            "table": self.known.table.nbytes / n,
            "join": ENTRY.itemsize,
            "delivery rows": (rows + self.row_keys.table.nbytes + self.touched.nbytes) / n,
        }


def _unordered(rows: np.ndarray) -> np.ndarray:
    """Which rows (bool) are conversions that name no order."""
    return (rows["type"] == e.CONVERSION) & (rows["parent_hi"] | rows["parent_lo"] == 0)


def _unpacked(columns: memoryview, n: int) -> np.ndarray:
    """ENTRY rows (n,) as a log has them, without what follows from them."""
    return unpacked(columns, n, ENTRY, _LOGGED)


def _whole(batch: EventBatch, i: int) -> Waiting:
    row = batch.rows[i].copy()
    schema = batch.labels[row["schema"]] if row["schema"] >= 0 else None
    return Waiting(row, batch.payloads[i], batch.labels[row["source"]], batch.labels[row["file"]], schema)


def _some(batch: EventBatch, at: np.ndarray) -> EventBatch:
    """The follow-ups at ``at``, copied, with the labels that they name and no others."""
    if not len(at):
        return _NO_EVENTS
    rows = batch.rows[at]
    columns = ("source", "file", "schema")
    local, labels = named(np.stack([rows[c] for c in columns]), batch.labels)
    for column, codes in zip(columns, local):
        rows[column] = codes
    return EventBatch(rows, _NO_EVENTS.dims, batch.payloads.take(at), labels)


def _gathered(events: list[tuple[EventBatch, int]]) -> EventBatch:
    """Events of several batches as one."""
    labels: dict[str, int] = {}
    rows = np.array([batch.rows[i] for batch, i in events], ROW)
    for row, (batch, i) in zip(rows, events):
        for column in ("source", "file", "schema"):
            if row[column] >= 0:
                row[column] = labels.setdefault(batch.labels[row[column]], len(labels))
    return EventBatch(rows, _NO_EVENTS.dims, blobs([batch.payloads[i] for batch, i in events]), list(labels))
