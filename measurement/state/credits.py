"""Attribution of one shard of users: the touches and conversions it knows, and what each new one changes of the credits.

No Beam here. Facts come in any order (measurement/columnar/facts.py). Touches are appended without being read; a conversion
reads those of its user, and so do the user's later conversions when a touch comes late. What a call changes is the difference
of what the conversions that it reaches are credited with after and before it, so nothing but facts is remembered, and the log
is the facts themselves.

By its watermark each fact came before or after a conversion's hour had closed. What the facts before it say is published as
final; what the others change on top restates it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from measurement.columnar.batch import NO_WATERMARK, Blobs, blobs, joined, kept, pack, unpack
from measurement.columnar.deltas import LATE, Deltas
from measurement.columnar.facts import FACT, TERMS, Facts
from measurement.columnar.labels import Labels
from measurement.columnar.table import Keys, grown
from measurement.model.attribution import Attribution
from measurement.model.events import CLICK, CONVERSION, IMPRESSION, MICROS_PER_HOUR, TEST_ADVERTISER
from measurement.model.policy import Counting
from measurement.state import conversions as c
from measurement.state.candidates import Candidates, collected, tied
from measurement.state.conversions import Conversions
from measurement.state.credit_rows import attribution, conversion_credits, texts_of
from measurement.state.credit_views import NO_TOUCH, Reached, changes, nothing, together
from measurement.state.ring import SLOTS, Buckets, Changes
from measurement.state.touches import Touches, copy_texts

_VERSION = 1
# An engine that goes back to a checkpoint has published what its state does not know of. What led to it comes again, and
# perhaps in another order: for so long all that a conversion might have been credited to meanwhile is published, with zeros
# where it is not.
_DOUBT_SECONDS = 600.0
_END = np.iinfo(np.int64).max


@dataclass
class Credited:
    """What a call changes: of the tables conversion_credits and attribution. ``dropped``: touches beyond a user's limit."""

    credits: Deltas | None = None
    attribution: Deltas | None = None
    dropped: int = 0


@dataclass(frozen=True)
class _Entered:
    """Of n facts which were ``kept`` (bool); rows of the conversions that they reach; and of those that late facts of their own
    changed (2, k) rows and why."""

    kept: np.ndarray
    reached: np.ndarray
    because: np.ndarray


class CreditsShard:
    """State machine of one shard of users."""

    def __init__(self, policy: Attribution, counting: Counting, clock: Callable[[], float] = time.monotonic):
        """``clock``: seconds."""
        self.policy, self.counting = policy, counting
        self._clock, self._doubts_until = clock, -math.inf
        # A conversion may be as old as the dedup horizon, and be changed by a click that joins late.
        self.buckets = Buckets(policy.longest_lookback + counting.dedup_horizon + counting.join_horizon)
        self._changes = Changes()
        self._reset()

    def _reset(self):
        self.touches: dict[int, Touches] = {}
        self.conversions = Conversions()
        self._terms = Keys()
        self._codes = np.zeros((len(self._terms.hi), 5), np.int32)
        self._labels = Labels()

    # -- facts ----------------------------------------------------------------------------------------------------

    def absorb(self, batch: Facts) -> Credited:
        """Takes in facts in any order."""
        known, before = self._known(batch)
        entered = self._enter(batch)
        self._log(batch, entered.kept)
        out = Credited(dropped=int(len(batch) - entered.kept.sum()))
        crowds, more = np.unique(self.conversions.rows["crowd"][before : len(self.conversions)], return_counts=True)
        now = self.conversions.crowd[crowds]
        crossed = crowds[(now > c.LIMIT) & (now - more <= c.LIMIT)]
        reached = [entered.reached]
        if len(crossed):  # a robot, once
            reached.append(np.flatnonzero(np.isin(self.conversions.rows["crowd"][: len(self.conversions)], crossed)))
        at = np.unique(np.concatenate(reached))
        if len(at):
            was = _was(self.conversions.rows.take(at), at, known, before)
            place = np.minimum(np.searchsorted(crowds, self.conversions.rows["crowd"][at]), max(len(crowds) - 1, 0))
            fresh = np.where(crowds[place] == self.conversions.rows["crowd"][at], more[place], 0) if len(crowds) else 0
            crowded = self.conversions.crowd[self.conversions.rows["crowd"][at]]
            self._credit(at, was, np.stack([crowded, crowded - fresh]) <= c.LIMIT, entered.because, out)
        for some in self.touches.values():
            some.settle()
        return out

    def _known(self, batch: Facts) -> tuple[np.ndarray, int]:
        """The conversions that the batch changes, as they are before it: row numbers (``link``) and all else; and how many
        there are at all."""
        at = self.conversions.find(batch.facts[batch.facts["type"] == CONVERSION])
        at = np.unique(at[at >= 0])
        known = self.conversions.rows.take(at)
        known["link"] = at
        return known, len(self.conversions)

    def _enter(self, batch: Facts) -> "_Entered":
        """Appends facts; which conversions they reach."""
        facts, terms = batch.facts, self._terms_of(batch)
        buckets, touch = self.buckets.of(facts["time"]), facts["type"] != CONVERSION
        keep, reached, width = np.ones(len(facts), bool), [np.zeros(0, np.int64)], self.buckets.width
        at = np.flatnonzero(~touch)
        because = np.zeros((2, 0), np.int64)
        if len(at):
            late = facts["watermark"][at] >= self._closes(facts["time"][at])
            rows = self.conversions.enter(facts.take(at), terms[at], batch.ids.take(at), buckets[at], late)
            reached.append(rows.astype(np.int64))
            because = np.stack([rows[late], facts["because"][at][late]]).astype(np.int64)
        for bucket in _distinct(buckets[touch]):
            at = np.flatnonzero(touch & (buckets == bucket))
            own, some = facts.take(at), self.touches.setdefault(bucket, Touches())
            keep[at], flooded = some.append(own, terms[at], batch.ids.take(at))
            if len(self.conversions):
                since = np.where(flooded, bucket * width - 1, own["time"])
                until = np.where(flooded, (bucket + 1) * width, own["time"]) + self.policy.longest_lookback
                mine = np.flatnonzero(keep[at])
                reached.append(self.conversions.of_touches(own.take(mine), since[mine], until[mine]))
        return _Entered(keep, np.concatenate(reached), because)

    def _closes(self, times: np.ndarray) -> np.ndarray:
        """The watermark (µs) at which the hour of each time closes."""
        return (times // MICROS_PER_HOUR + 1) * MICROS_PER_HOUR + self.counting.allowed_lateness

    def _terms_of(self, batch: Facts) -> np.ndarray:
        """The machine's row of terms of each fact, int32, -1 where it has none."""
        known = self._terms.rows
        found = self._terms.add(batch.terms["hi"].copy(), batch.terms["lo"].copy())
        if self._terms.rows > len(self._codes):
            self._codes = grown(self._codes, self._terms.rows)
        fresh = np.flatnonzero(found >= known)
        if len(fresh):
            codes = batch.terms["codes"][fresh]
            used, number = kept(len(batch.labels), codes.ravel())
            label = np.array([*(self._labels.code(batch.labels[c]) for c in used.tolist()), -1], np.int32)
            self._codes[found[fresh]] = label[number[codes]]
        return np.append(found, np.int32(-1))[batch.facts["terms"]]

    # -- credits --------------------------------------------------------------------------------------------------

    def _credit(self, at: np.ndarray, was: np.ndarray, uncrowded: np.ndarray, because: np.ndarray, out: Credited) -> None:
        """What the call changed of the conversions at ``at``. ``was`` (2, r): by how many facts, and on-time ones, each stood;
        ``uncrowded`` (2, r): after and before; ``because`` (2, k): rows that late facts of their own changed, and why."""
        rows = self.conversions.rows.take(at)
        advertisers = self._codes[rows["terms"], 0]
        used, number = kept(len(self._labels.texts), advertisers)
        names = [self._labels.texts[c].removeprefix(TEST_ADVERTISER) for c in used.tolist()]
        rules, rule = self.policy.rules_for([*names, ""], number[advertisers], rows["time"])
        told = rows["terms"] >= 0
        stands = np.stack([(rows["stands"] > 0) & told, (rows["on_time"] > 0) & told, was[0] > 0, was[1] > 0])
        why = np.zeros(len(at), np.uint8)
        np.maximum.at(why, np.searchsorted(at, because[0]), because[1].astype(np.uint8))
        reached = Reached(rows["time"], rows["value"], self._closes(rows["time"]), stands, uncrowded[[0, 0, 1, 1]], rules, rule, why)
        doubts = self._clock() < self._doubts_until
        candidates = self._candidates(rows, reached, told if doubts else (stands & reached.open).any(axis=0))
        changed = changes(reached, candidates, self._ranks(candidates))
        if doubts:
            changed = together([changed, nothing(reached, told, candidates)])
        if not len(changed.model):
            return
        touched = np.flatnonzero(changed.candidate != NO_TOUCH)
        which = changed.candidate[touched]
        touch = candidates.touch.take(which)
        codes, is_click = np.full((len(changed.model), 5), -1, np.int32), np.zeros(len(changed.model), np.int32)
        codes[touched], is_click[touched] = self._codes.take(touch["terms"], axis=0), touch["is_click"]
        texts = texts_of(self._codes[rows["terms"], :3], codes, is_click, self._labels.texts)
        ids = self._touch_ids(touch, candidates.bucket(which))
        out.credits = conversion_credits(changed, rows["time"], texts, self.conversions.ids(at), ids, touch["time"])
        out.attribution = attribution(changed, rows["time"], texts, doubts)

    def _candidates(self, rows: np.ndarray, reached: Reached, asks: np.ndarray) -> Candidates:
        """The facts that those of the reached conversions which ask (bool) may have of their users."""
        lookbacks = np.array([(r.click_lookback, r.view_lookback) for r in reached.rules], np.int64)[reached.rule]
        first, last = self.buckets.of(rows["time"] - lookbacks.max(axis=1)), self.buckets.of(rows["time"])
        found = []
        for bucket, some in sorted(self.touches.items()):  # nearly in the order of touches, which is sorted soon
            those = np.flatnonzero(asks & (first <= bucket) & (bucket <= last))
            if not len(those):
                continue
            whose, which, state = some.candidates(
                those.astype(np.int32), rows["user_hi"][those], rows["user_lo"][those], rows["time"][those], *lookbacks[those].T.copy())
            if len(whose):
                found.append((some.rows, bucket, whose, which, state))
        return collected(len(rows), found)

    def _ranks(self, candidates: Candidates) -> np.ndarray:
        """What orders candidates of one conversion and equal time: their event_ids. Those that not even these tell apart differ
        in their rows' other columns, or are one row."""
        touch, ranks = candidates.touch, np.zeros(len(candidates.touch), np.int64)
        at = tied(candidates)
        if not len(at):
            return ranks
        ids = self._touch_ids(touch[at], candidates.bucket(at))
        texts = [[("" if c < 0 else self._labels.texts[c]).encode() for c in codes] for codes in self._codes[touch["terms"][at]].tolist()]
        keys = [(ids[i], int(touch["is_click"][at[i]]), *texts[i]) for i in range(len(at))]
        place = {key: i for i, key in enumerate(sorted(set(keys)))}
        ranks[at] = [place[key] for key in keys]
        return ranks

    def _touch_ids(self, touch: np.ndarray, buckets: np.ndarray) -> Blobs:
        """The event_ids of TOUCH (n,) of some buckets."""
        offsets = np.zeros(len(touch) + 1, np.int64)
        np.cumsum(touch["text_length"], out=offsets[1:])
        data = np.empty(offsets[-1], np.uint8)
        for bucket, some in self.touches.items():
            copy_texts(np.flatnonzero(buckets == bucket), touch, some.texts, offsets, data)
        return Blobs(offsets, data)

    # -- event time -----------------------------------------------------------------------------------------------

    def next_due(self) -> int | None:
        """The watermark (µs) at which ``advance`` next forgets something; None if nothing is remembered."""
        return min((self.buckets.expires(bucket) for bucket in self._buckets()), default=None)

    def _buckets(self) -> set[int]:
        return {*self.touches, *self.conversions.buckets}

    def _bucket_of_conversions(self) -> np.ndarray:
        return self.buckets.of(self.conversions.rows["time"][: len(self.conversions)])

    def advance(self, watermark: int) -> None:
        """Forgets what no conversion can ask for any more."""
        first = self.buckets.first_kept(watermark)
        expired = {bucket for bucket in self._buckets() if bucket < first}
        if not expired:
            return
        for bucket in expired:
            self.touches.pop(bucket, None)
            self._changes.clear(bucket)
        remain = self._conversion_facts(np.flatnonzero(self._bucket_of_conversions() >= first))
        self.conversions = Conversions()
        self._forget_terms()
        self._enter(remain)
        slots = {bucket % SLOTS for bucket in expired}
        for bucket in [b for b in self._buckets() if b % SLOTS in slots]:  # they shared a slot with one that expired
            self._changes.append(bucket, _run(self._facts(bucket)))

    def _forget_terms(self) -> None:
        """Drops the terms and labels that no touch names any more."""
        used, number = kept(self._terms.rows, *(some.rows["terms"][: some.size] for some in self.touches.values()))
        for some in self.touches.values():
            rows = some.rows["terms"]
            rows[: some.size] = number[rows[: some.size]]
        codes, (hi, lo), labels = self._codes[used], (self._terms.hi[used], self._terms.lo[used]), self._labels.texts
        named, label = kept(len(labels), codes.ravel())
        self._terms = Keys(hi, lo)
        self._codes = np.zeros((len(codes) + 1, 5), np.int32)  # one more: a fact without terms names the last
        self._codes[: len(codes)] = label[codes]
        self._labels = Labels(labels[c] for c in named.tolist())

    # -- log ------------------------------------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        """What to write to the log since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _log(self, batch: Facts, keep: np.ndarray) -> None:
        buckets = self.buckets.of(batch.facts["time"])
        for bucket in _distinct(buckets[keep]):
            at = np.flatnonzero(keep & (buckets == bucket))
            self._changes.append(bucket, _run(batch if len(at) == len(batch) else batch.take(at)))

    def restore(self, runs) -> None:
        """Rebuilds the machine from its log, the runs in any order."""
        self._reset()
        self._doubts_until = self._clock() + _DOUBT_SECONDS
        for run in runs:
            (facts,) = unpack(_VERSION, run)
            self._enter(Facts.decode(facts))
        for some in self.touches.values():
            some.settle()

    def _facts(self, bucket: int) -> Facts:
        """All facts of a bucket, those of a conversion summed."""
        of_conversions = self._conversion_facts(np.flatnonzero(self._bucket_of_conversions() == bucket))
        if bucket not in self.touches:
            return of_conversions
        some = self.touches[bucket]
        touch, facts = some.rows[: some.size], np.zeros(some.size, FACT)
        facts["user_hi"], facts["user_lo"] = some.users_of()
        for name in ("id_hi", "id_lo", "parent_hi", "parent_lo", "time", "watermark", "terms", "delta", "because"):
            facts[name] = touch[name]
        facts["type"] = np.where(touch["is_click"] == 1, CLICK, IMPRESSION)
        ids = self._touch_ids(touch, np.full(some.size, bucket))
        return self._told(np.concatenate([facts, of_conversions.facts]), joined([ids, of_conversions.ids]))

    def _conversion_facts(self, at: np.ndarray) -> Facts:
        """What is known of conversions: one fact for what came while their hour was open, and one for the rest."""
        rows = self.conversions.rows.take(at)
        facts = np.zeros((2, len(at)), FACT)
        for name in ("user_hi", "user_lo", "id_hi", "id_lo", "time", "value"):
            facts[name] = rows[name]
        facts["type"], facts["because"] = CONVERSION, LATE
        facts["watermark"] = [[NO_WATERMARK], [_END]]
        facts["delta"] = rows["on_time"], rows["stands"] - rows["on_time"]
        facts["terms"] = rows["terms"], np.full(len(at), -1)
        needed = np.flatnonzero(facts[1]["delta"])
        ids = joined([self.conversions.ids(at), blobs([b""] * len(needed))])
        return self._told(np.concatenate([facts[0], facts[1][needed]]), ids)

    def _told(self, facts: np.ndarray, ids: Blobs) -> Facts:
        """Facts in the machine's own terms as a batch that stands alone."""
        terms = np.zeros(self._terms.rows, TERMS)
        terms["hi"], terms["lo"] = self._terms.hi[: len(terms)], self._terms.lo[: len(terms)]
        terms["codes"] = self._codes[: len(terms)]
        return Facts(facts, terms, ids, self._labels.texts).take(np.arange(len(facts)))

    def state_bytes(self) -> dict[str, int]:
        """Bytes of memory in use, and what for."""
        return {
            "touches": sum(some.size for some in self.touches.values()), "touch bytes": sum(some.nbytes for some in self.touches.values()),
            "conversions": len(self.conversions), "conversion bytes": self.conversions.nbytes,
        }


def _was(rows: np.ndarray, at: np.ndarray, known: np.ndarray, before: int) -> np.ndarray:
    """By how many facts, and on-time ones, each conversion (``rows``, of numbers ``at``) stood (2, r) when there were
    ``before``, and those that have changed since were as ``known``."""
    was = np.stack([rows["stands"], rows["on_time"]])
    place = np.searchsorted(at, known["link"])
    was[:, place] = known["stands"], known["on_time"]
    told = rows["terms"] >= 0
    told[place] = known["terms"] >= 0
    return np.where(told & (at < before), was, 0)


def _distinct(buckets: np.ndarray) -> list[int]:
    if len(buckets) and buckets.min() == buckets.max():  # nearly always
        return buckets[:1].tolist()
    return np.unique(buckets).tolist()


def _run(facts: Facts) -> bytes:
    return pack(_VERSION, (facts.encode(),))
