"""The second reading: what the stateful machines make of the copies, followed event by event.

Impressions and orders live apart from each other, as the job's shards show, so the machines are given only the events that
share an impression or an order with a copy. A copy goes through them alone, and what they remember of it is looked at between
two steps. Rates hang on everybody's events, so that machine is given all activity.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from measurement.columnar.batch import EventBatch
from measurement.columnar.intake import Intake, position_text
from measurement.columnar.records import USER, Verdicts
from measurement.columnar.shards import SHIFT
from measurement.explain.copies import Copy, accepted, part
from measurement.explain.fate import STANDS, Fate, Impression, Rate
from measurement.explain.weigh import weigh
from measurement.model import events as e
from measurement.model.policy import Policy
from measurement.state import join_kernel as kernel
from measurement.state.chain import Chain
from measurement.state.join import Effects
from measurement.state.orders import Decided

_END = 2**63 - 1  # the watermark (µs) behind the last event
_KEPT = 10_000  # follow-ups of one impression before a copy: more of them change nothing of what it adds
_APART = 3  # impressions that an orphan could not join which are told of

Key = tuple[int, int]


def follow(intakes: Iterable[Intake], copies: list[Copy], policy: Policy) -> list[Fate]:
    """The fates of accepted copies, in their order."""
    following = _Following(policy, copies)
    for intake in intakes:
        following.take(intake)
    return following.end()


def _group(copy: Copy) -> Key:
    """The identity that all events of an impression share a shard by."""
    return copy.identity if copy.row["type"] in (e.IMPRESSION, e.CONVERSION) else copy.parent


class _Following:
    def __init__(self, policy: Policy, copies: list[Copy]):
        self._policy, self._chain = policy, Chain(policy)
        self._fates = {copy.place: Fate(copy) for copy in copies}
        self._live: dict[Key, Fate] = {}  # by identity: the copy that holds it
        self._identities = {copy.identity for copy in copies}
        self._groups = {_group(copy) for copy in copies}
        self._orders = {copy.parent for copy in copies if copy.row["type"] == e.CONVERSION} - {(0, 0)}
        self._followed = {_group(fate.copy) for fate in self._fates.values() if fate.followup}
        self._routes = np.array([hi for hi, _ in self._groups], np.uint64) >> np.uint64(SHIFT)
        self._impressions: dict[Key, Impression] = {}  # by group: the one that stands
        self._seen: dict[Key, list[Copy]] = defaultdict(list)  # by group: its impressions
        self._before: dict[Key, list[EventBatch]] = defaultdict(list)  # by group: its follow-ups as they were read
        self._conversions: dict[tuple[int, int, int], Copy] = {}  # of the orders, by identity and time
        self._judged: dict[tuple[int, int, int], int] = {}  # verdicts given later, by identity and digest
        self._orphans: set[tuple[int, int, int, int]] = set()  # by identity, position and index
        self._active: dict[Key, list[np.ndarray]] = {(int(a["hi"]), int(a["lo"])): [] for copy in copies for a in copy.activity}

    # -- reading --------------------------------------------------------------------------------------------------

    def take(self, intake: Intake) -> None:
        chain = self._chain
        if intake.activity is not None:
            self._count(intake.activity.rows)
            verdicts = chain.rates.absorb(intake.activity).rows
            verdicts = verdicts[np.isin(verdicts["route"], self._routes)]
            if len(verdicts):
                keys = zip(*(verdicts[c].tolist() for c in ("hi", "lo", "digest")))
                self._judged.update(zip(keys, verdicts["code"].tolist()))
                self._settle(chain.judge(Verdicts(verdicts)))
        related = self._related(intake.batch.rows)
        if len(related):
            self._absorb(part(intake.batch, related))
        self._settle(chain.advance(intake.before))

    def _count(self, rows: np.ndarray) -> None:
        for (hi, lo), parts in self._active.items():
            mine = rows[(rows["hi"] == np.uint64(hi)) & (rows["lo"] == np.uint64(lo))]
            if len(mine):
                parts.append(np.unique(mine[["id_hi", "id_lo"]]))

    def _related(self, rows: np.ndarray) -> np.ndarray:
        """Where the events stand that share an impression or an order with a copy."""
        conversion = rows["type"] == e.CONVERSION
        alone = (rows["type"] == e.IMPRESSION) | conversion
        hi, lo = (np.where(alone, rows[f"id_{half}"], rows[f"parent_{half}"]) for half in ("hi", "lo"))
        found = _among(hi, lo, self._groups)
        if self._orders:
            found |= conversion & _among(rows["parent_hi"], rows["parent_lo"], self._orders)
        return np.flatnonzero(found)

    def _absorb(self, batch: EventBatch) -> None:
        """Each copy alone, the events between two copies together."""
        rows, start = batch.rows, 0
        identities = zip(rows["id_hi"].tolist(), rows["id_lo"].tolist())
        for i in [*(i for i, identity in enumerate(identities) if identity in self._identities), len(rows)]:
            if start < i:
                others = part(batch, np.arange(start, i))
                self._note(others)
                self._looked(others, list(self._chain.absorb(others)))
            if i < len(rows):
                self._one(accepted(batch, i))
            start = i + 1

    def _one(self, copy: Copy) -> None:
        fate, first = self._fates.get(copy.place), self._live.get(copy.identity)
        earlier = list(self._before[_group(copy)])
        self._note(copy.batch)
        results = list(self._chain.absorb(copy.batch))
        if fate is not None:  # else it is one copy too many to be told of
            outcomes = {outcome for *_, outcome in results[0].ledger} | {reason for reason, _, _ in results[0].rejects}
            again = outcomes & {"duplicate", "id_conflict"}
            if again:
                fate.outcome, fate.first = again.pop(), first and first.copy
            else:
                self._live[copy.identity], fate.earlier = fate, earlier
        self._looked(copy.batch, results)

    def _note(self, batch: EventBatch) -> None:
        """Keeps of related events what may have to be told of, before the machines take them."""
        rows = batch.rows
        for i in np.flatnonzero((rows["type"] == e.CONVERSION) & (rows["parent_hi"] | rows["parent_lo"] > 0)).tolist():
            copy = accepted(batch, i)
            if copy.parent in self._orders:
                self._conversions.setdefault((*copy.identity, int(copy.row["time"])), copy)
        for key in self._followed:
            for i in _of(rows, "id", key, rows["type"] == e.IMPRESSION).tolist():
                if len(self._seen[key]) < _APART:
                    self._seen[key].append(accepted(batch, i))
            at = _of(rows, "parent", key, (rows["type"] != e.IMPRESSION) & (rows["type"] != e.CONVERSION))
            if len(at) and sum(len(b.rows) for b in self._before[key]) < _KEPT:
                self._before[key].append(part(batch, at))

    # -- looking --------------------------------------------------------------------------------------------------

    def _looked(self, batch: EventBatch, results: list[Effects | Decided]) -> None:
        self._stand(batch)
        self._settle(results)

    def _stand(self, batch: EventBatch) -> None:
        """Notes the impressions that stand now and did not before."""
        rows = batch.rows
        for key in self._groups:
            mine = _of(rows, "id", key, rows["type"] == e.IMPRESSION)
            remembered = self._chain.join.remembered(*key) if len(mine) else None
            if remembered is None or remembered[0]["status"] != kernel.STANDS:
                continue
            known = self._impressions.get(key)
            if known is None or not _is(known.copy.row, *remembered):
                now = next((i for i in mine.tolist() if _is(rows[i], *remembered)), None)
                if now is not None:
                    self._impressions[key] = Impression(accepted(batch, now))

    def _settle(self, results: Iterable[Effects | Decided]) -> None:
        """Notes what a step decided of copies, and how they stand behind it."""
        for effects in results:
            for reason, event, _ in effects.rejects if isinstance(effects, Effects) else ():
                if reason == "orphan":
                    self._orphan(event.file, event.row)
        for key, impression in self._impressions.items():
            remembered = self._chain.join.remembered(*key)
            if remembered is not None and _is(impression.copy.row, *remembered):
                impression.verdict = int(remembered[0]["verdict"])
        for fate in self._live.values():
            self._look(fate)

    def _orphan(self, file: str, row: np.void) -> None:
        position, index = int(row["position"]), int(row["index"])
        self._orphans.add((int(row["id_hi"]), int(row["id_lo"]), position, index))
        fate = self._fates.get(f"{file}@{position_text(row['encoding'], position, index)}")
        if fate is not None:
            fate.outcome, fate.verdict, fate.apart = "orphan", 0, list(self._seen[_group(fate.copy)])
            if self._live.get(fate.copy.identity) is fate:
                del self._live[fate.copy.identity]

    def _look(self, fate: Fate) -> None:
        remembered, row = self._chain.join.remembered(*fate.copy.identity), fate.copy.row
        if remembered is None or not _is(row, *remembered) or remembered[0]["status"] not in (kernel.STANDS, kernel.WAITING):
            return
        fate.verdict = int(remembered[0]["verdict"])
        if remembered[0]["status"] == kernel.WAITING:
            fate.waited = True
            return
        fate.outcome = STANDS
        if fate.followup and fate.impression is None:
            fate.impression = self._impressions.get(_group(fate.copy))
        elif row["type"] == e.CONVERSION:
            known = self._chain.orders.orders.get(fate.copy.parent, ())
            standing = next((it for it in known if not it.displaced), None)
            if standing is not None:
                fate.stands, fate.orders = self._conversions.get(standing.identity), max(fate.orders, len(known))

    # -- the end --------------------------------------------------------------------------------------------------

    def end(self) -> list[Fate]:
        """Event time ends: every wait is over."""
        self._settle(self._chain.advance(_END))
        for fate in self._fates.values():
            fate.rates = self._rates(fate.copy)
            if fate.outcome == STANDS:
                displaced = fate.stands is not None and fate.stands.place != fate.copy.place
                fate.outcome = "duplicate" if displaced else "invalid_traffic" if fate.reason else "counted"
                fate.adds, fate.alone = ({}, {}) if displaced else weigh(fate, self._policy.counting, self._judged, self._orphans)
        return list(self._fates.values())

    def _rates(self, copy: Copy) -> list[Rate]:
        rate, out = self._policy.screening.rate, []
        for activity in np.sort(copy.activity, order="kind"):
            kind, most = ("user", rate.per_user_hour) if activity["kind"] == USER else ("ip", rate.per_ip_hour)
            parts = self._active[int(activity["hi"]), int(activity["lo"])]
            out.append(Rate(kind, len(np.unique(np.concatenate(parts))), most))
        return out


def _is(row: np.void, entry: np.void, digest: int) -> bool:
    """Whether what is remembered (ENTRY) is this event (ROW)."""
    return entry["time"] == row["time"] and digest == int(row["digest"]) and entry["type"] == row["type"]


def _among(hi: np.ndarray, lo: np.ndarray, keys: set[Key]) -> np.ndarray:
    found = np.isin(hi, np.array([key[0] for key in keys], np.uint64))
    for i in np.flatnonzero(found).tolist():
        found[i] = (int(hi[i]), int(lo[i])) in keys
    return found


def _of(rows: np.ndarray, whose: str, key: Key, among: np.ndarray) -> np.ndarray:
    """Where the events stand ``among`` some whose own or parent's identity is ``key``."""
    return np.flatnonzero((rows[f"{whose}_hi"] == np.uint64(key[0])) & (rows[f"{whose}_lo"] == np.uint64(key[1])) & among)
