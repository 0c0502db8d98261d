"""What the join tells attribution of: impressions, joined clicks and conversions, each by the user it belongs to."""

import numpy as np

from measurement.columnar.batch import Blobs, EventBatch, blobs, joined, kept
from measurement.columnar.deltas import INVALID_TRAFFIC, LATE
from measurement.columnar.facts import FACT, TERMS, Facts, impressions, terms_of
from measurement.columnar.identify import TERMS_AT
from measurement.columnar.texts import combined, text_fingerprints
from measurement.model import events as e


def users(batch: EventBatch) -> tuple[np.ndarray, np.ndarray]:
    """The user of each event (hi, lo; uint64, 0 where it has none); of a conversion what attribution keys it by: advertiser
    and user, or its own identity."""
    rows = batch.rows
    hi, lo = rows["user_hi"].copy(), rows["user_lo"].copy()
    at = np.flatnonzero(rows["type"] == e.CONVERSION)
    if len(at):
        own_hi, own_lo = _keyed(hi[at], lo[at], batch.dims["codes"][rows["dims"][at], 0], batch.labels)
        none = (own_hi == 0) & (own_lo == 0)
        hi[at], lo[at] = np.where(none, rows["id_hi"][at], own_hi), np.where(none, rows["id_lo"][at], own_lo)
    return hi, lo


def _keyed(hi: np.ndarray, lo: np.ndarray, advertisers: np.ndarray, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The users as one advertiser's; ``advertisers`` are label codes. No user stays none."""
    used, number = kept(len(labels), advertisers)
    of_hi, of_lo = text_fingerprints([*(labels[c] for c in used.tolist()), ""])
    own = number[advertisers]
    return combined(np.ascontiguousarray(hi), np.ascontiguousarray(lo), of_hi[own], of_lo[own])


def ordered(batch: EventBatch, at: np.ndarray, user_hi: np.ndarray, user_lo: np.ndarray) -> EventBatch:
    """The conversions at ``at``, of their payloads the event_id alone, and keyed as attribution does."""
    rows, ids = batch.rows[at], batch.event_ids(at)
    rows["id_at"], rows["id_length"] = 0, np.diff(ids.offsets)
    rows["user_hi"], rows["user_lo"] = user_hi[at], user_lo[at]
    return EventBatch(rows, batch.dims, ids, batch.labels).own()


class Told:
    """Collects the facts of one call; texts are named by the codes of ``labels``."""

    def __init__(self, labels: list[str]):
        self._labels = labels
        self._facts: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []
        self._ids: list[Blobs] = []

    def touches(self, batch: EventBatch, at: np.ndarray, times: np.ndarray, codes: np.ndarray, watermarks: np.ndarray,
                counted: np.ndarray) -> None:
        """Impressions and joined clicks at some places of a batch. ``times`` and ``codes``: their impressions' times and
        dimensions. One that does not count is told of too: it may come to."""
        rows = batch.rows[at]
        hi, lo = _keyed(rows["user_hi"], rows["user_lo"], codes[:, 0], self._labels)
        known = np.flatnonzero((hi != 0) | (lo != 0))
        if not len(known):
            return
        rows, facts = rows[known], np.zeros(len(known), FACT)
        facts["user_hi"], facts["user_lo"] = hi[known], lo[known]
        _of_impression(facts, rows, times[known])
        self._enter(facts, rows, codes[known, :5], batch.event_ids(at[known]), watermarks[known], counted[known])

    def conversions(self, batch: EventBatch, at: np.ndarray, users: tuple[np.ndarray, np.ndarray], label_of: np.ndarray,
                    counted: np.ndarray) -> None:
        """Conversions at some places of a batch whose ``users`` are these, and whose label codes ``label_of`` gives ours for."""
        if not len(at):
            return
        rows, facts = batch.rows[at], np.zeros(len(at), FACT)
        codes = np.full((len(at), 5), -1, np.int32)
        own = batch.dims["codes"][rows["dims"]][:, TERMS_AT]
        codes[:, :3] = np.where(own < 0, -1, label_of[own])
        facts["user_hi"], facts["user_lo"] = (half[at] for half in users)
        facts["value"] = rows["price"]
        self._enter(facts, rows, codes, batch.event_ids(at), rows["watermark"], counted)

    def _enter(self, facts, rows, codes, ids: Blobs, watermarks, counted) -> None:
        for name in ("id_hi", "id_lo", "time", "type"):
            facts[name] = rows[name]
        facts["watermark"], facts["delta"], facts["because"] = watermarks, counted, LATE
        self._facts.append(facts)
        self._codes.append(codes)
        self._ids.append(ids)

    def changes(self, entries: np.ndarray, times: np.ndarray, advertisers: np.ndarray, delta: np.ndarray, watermark: int) -> None:
        """Verdicts that changed what stands; ``entries`` ENTRY, ``times`` of their impressions, ``advertisers`` the codes of
        these (-1: a conversion's, which is keyed already)."""
        touch = advertisers >= 0
        hi, lo = _keyed(entries["user_hi"], entries["user_lo"], advertisers, self._labels)
        facts = np.zeros(len(entries), FACT)
        facts["user_hi"], facts["user_lo"] = np.where(touch, hi, entries["user_hi"]), np.where(touch, lo, entries["user_lo"])
        for name in ("id_hi", "id_lo", "time", "type"):
            facts[name] = entries[name]
        _of_impression(facts, entries, times)
        facts["watermark"], facts["delta"], facts["because"] = watermark, delta, INVALID_TRAFFIC
        facts = facts[(facts["user_hi"] != 0) | (facts["user_lo"] != 0)]
        self._facts.append(facts)
        self._codes.append(np.full((len(facts), 5), -2, np.int32))  # told of before
        self._ids.append(blobs([b""] * len(facts)))

    def facts(self) -> Facts | None:
        """All that was told; None if nothing was."""
        if not sum(map(len, self._facts)):
            return None
        facts, codes = np.concatenate(self._facts), np.concatenate(self._codes)
        whole = np.flatnonzero(codes[:, 0] >= 0)
        terms = np.zeros(0, TERMS)
        facts["terms"] = -1
        if len(whole):
            terms, facts["terms"][whole] = terms_of(codes[whole], self._labels)
        return Facts(facts, terms, joined(self._ids), self._labels).take(np.arange(len(facts)))


def _of_impression(facts: np.ndarray, events: np.ndarray, times: np.ndarray) -> None:
    """Fills in which impressions touches belong to."""
    own = events["type"] == e.IMPRESSION
    hi, lo = (np.where(own, events[f"id_{half}"], events[f"parent_{half}"]) for half in ("hi", "lo"))
    facts["parent_hi"], facts["parent_lo"] = impressions(hi, lo, times)
