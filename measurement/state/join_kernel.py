"""The compiled heart of dedup and join: one event after the other, exactly as the contract says it.

Entries are remembered events (``ENTRY``); a hash table finds them by identity. Each impression heads a chain of its
follow-ups through ``link``, and so does a placeholder, the entry of an impression that has not come yet. Delivery
changes are summed in ``acc[row, lane]`` (lane 0: the row's hour was open when the event was read, lane 1: it was
closed), and rows with changes are listed in ``touched`` once.
"""

import numpy as np
from numba import njit

from measurement.columnar.judge import SHOWS_AUDIBLE, SHOWS_DISPLAY, SHOWS_VIDEO
from measurement.model import events as e

ENTRY = np.dtype([
    # what deduplication remembers: 32 bytes an identity
    ("id_hi", "u8"), ("id_lo", "u8"), ("digest", "u8"), ("time", "i8"),
    # what the join, restatements, attribution and the ledger need besides: 60 bytes
    ("parent_hi", "u8"), ("parent_lo", "u8"), ("price", "i8"),
    ("user_hi", "u8"), ("user_lo", "u8"),  # its user; of a conversion what attribution keys it by
    ("link", "i4"),  # impression, placeholder: head of its chain; follow-up: the next in the chain; -1 none
    ("row", "i4"),  # impression: its delivery row
    ("source", "i4"),  # label
    ("seen", "u2"),  # impression: what it was counted for already, of the once-per-impression counts
    ("type", "u1"), ("verdict", "u1"), ("shows", "u1"), ("status", "u1"),
    ("joined", "u2"),  # follow-up: which of the impressions that had this id it joined, by the digest's low bits
])
IDENTITY_BYTES = 32

# Status; FREE: a rejected orphan or one older than the dedup horizon, whose id may come again under a new entry.
PLACEHOLDER, WAITING, STANDS, FREE = range(4)

# Outcome codes of this stage; 0: still waiting.
WAITS, ID_CONFLICT, DUPLICATE, ORPHAN, INVALID, COUNTED, FORGOTTEN = range(7)  # FORGOTTEN: only as a resolution
OUTCOMES = ("", "id_conflict", "duplicate", "orphan", "invalid_traffic", "counted")

_DISPLAY, _VIDEO, _AUDIO = 1, 2, 3  # an impression's ``shows``
_GROSS, _NET, _MEASURABLE, _VIEWABLE, _AUDIBLE, _CLICKS, _STARTS = range(7)
_SPEND = 11
_SEEN_MEASURABLE, _SEEN_VIEWABLE, _SEEN_AUDIBLE, _SEEN_START = 1, 2, 4, 8
_HOUR = e.MICROS_PER_HOUR


@njit
def _find(table, entries, hi, lo):
    """(entry or -1, slot where the search ended)."""
    mask = len(table) - 1
    slot = np.int64(hi) & mask
    while True:
        at = table[slot]
        if at < 0 or (entries[at].id_hi == hi and entries[at].id_lo == lo):
            return at, slot
        slot = (slot + 1) & mask


@njit
def _is_followup(kind):
    return kind != e.IMPRESSION and kind != e.CONVERSION


@njit
def _is_its_own_parent(entry):
    """A follow-up that carries its impression's id as its own: it holds that identity, so no impression can come."""
    return entry.id_hi == entry.parent_hi and entry.id_lo == entry.parent_lo


@njit
def _stands(entry):
    """Whether follow-ups can join the entry."""
    return entry.status == STANDS and entry.type == e.IMPRESSION


@njit
def _mark(impression):
    return np.uint16(impression.digest & np.uint64(0xFFFF))


@njit
def _inherit(entries, old, new):
    """Hands the chain of an id's former entry to its new one: what waits, not what had joined the former one."""
    f = entries[old].link
    entries[old].link = -1
    while f >= 0:
        after = entries[f].link
        if entries[f].status == WAITING:
            entries[f].link = entries[new].link
            entries[new].link = f
        f = after


@njit
def _closed(time, watermark, lateness):
    """Whether the hour of ``time`` was closed at the watermark: 0 or 1, also the lane of its changes."""
    return 1 if watermark >= (time // _HOUR + 1) * _HOUR + lateness else 0


@njit
def _add_followup(imp, followup, sums):
    """Adds what a valid follow-up counts for under its valid impression (contract section 2)."""
    sums[_SPEND] += followup.price
    kind = followup.type
    if kind == e.CLICK:
        sums[_CLICKS] += 1
    elif kind == e.VIEWABILITY:
        if not imp.seen & _SEEN_MEASURABLE:
            imp.seen |= _SEEN_MEASURABLE
            sums[_MEASURABLE] += 1
        shows = followup.shows
        viewable = (imp.shows == _DISPLAY and shows & SHOWS_DISPLAY) or (imp.shows == _VIDEO and shows & SHOWS_VIDEO)
        if viewable and not imp.seen & _SEEN_VIEWABLE:
            imp.seen |= _SEEN_VIEWABLE
            sums[_VIEWABLE] += 1
        audible = (imp.shows == _AUDIO or imp.shows == _VIDEO) and shows & SHOWS_AUDIBLE
        if audible and not imp.seen & _SEEN_AUDIBLE:
            imp.seen |= _SEEN_AUDIBLE
            sums[_AUDIBLE] += 1
    else:
        quartile = kind - e.START
        if not imp.seen & (_SEEN_START << quartile):
            imp.seen |= _SEEN_START << quartile
            sums[_STARTS + quartile] += 1


@njit
def _sums(entries, at, sums):
    """The whole contribution of an impression and its chain, added to ``sums``; sets what it was seen for."""
    imp = entries[at]
    imp.seen = 0
    sums[_GROSS] += 1
    if imp.verdict:
        return
    sums[_NET] += 1
    sums[_SPEND] += imp.price
    f = imp.link
    while f >= 0:
        if entries[f].status == STANDS and entries[f].verdict == 0:
            _add_followup(imp, entries[f], sums)
        f = entries[f].link


@njit
def _lane(acc, marks, touched, row, lane):
    """The sums to change, noting the row as touched."""
    if not marks[row]:
        marks[row] = 1
        touched[touched[0] + 1] = row
        touched[0] += 1
    return acc[row, lane]


@njit
def _outcome(entries, at, imp):
    """What a standing event's outcome is, its impression considered."""
    if entries[at].verdict or (imp >= 0 and entries[imp].verdict):
        return INVALID
    return COUNTED


@njit
def _enter(table, entries, count, slot, hi, lo):
    table[slot] = count
    entries[count].id_hi = hi
    entries[count].id_lo = lo
    entries[count].link = -1
    entries[count].row = -1
    return count + 1


@njit
def _chain_of(table, entries, count, followup):
    """(the impression or placeholder that the follow-up's chain hangs on, entries after making one if need be)."""
    imp, slot = _find(table, entries, entries[followup].parent_hi, entries[followup].parent_lo)
    if imp < 0:
        imp = count
        count = _enter(table, entries, count, slot, entries[followup].parent_hi, entries[followup].parent_lo)
        entries[imp].type = e.IMPRESSION
        entries[imp].status = PLACEHOLDER
        entries[imp].time = entries[followup].time
    elif entries[imp].status == PLACEHOLDER:
        entries[imp].time = max(entries[imp].time, entries[followup].time)
    return imp, count


@njit(cache=True, nogil=True)
def absorb(rows, row_of, source_of, user_hi, user_lo, table, entries, count, acc, marks, touched, dedup, join, lateness,
           outcomes, at, under, joined_at, resolved, resolution):
    """Takes in a batch. ``row_of`` is each impression's delivery row, ``source_of`` maps batch labels to the shard's.

    Writes each event's outcome code to ``outcomes``, its entry to ``at`` (-1: none was made), the delivery row that it is
    counted under to ``under`` and its impression's time to ``joined_at``; earlier events that were decided on the way go to ``resolved`` (entry, index of the deciding
    event, delivery row) and ``resolution`` (outcome), both with room for every waiting entry and every row. Returns (entries,
    resolved).
    """
    decided = 0
    for i in range(len(rows)):
        new = rows[i]
        found, slot = _find(table, entries, new.id_hi, new.id_lo)
        at[i] = under[i] = -1
        if found >= 0 and entries[found].status == WAITING and new.watermark >= entries[found].time + join:
            # Its wait was over before this event came, though no timer has said so yet.
            entries[found].status = FREE
            resolved[decided, 0], resolved[decided, 1] = found, i
            resolution[decided] = ORPHAN
            decided += 1
        elif found >= 0 and entries[found].status == STANDS and new.watermark > entries[found].time + dedup:
            entries[found].status = FREE
            resolved[decided, 0], resolved[decided, 1] = found, i
            resolution[decided] = FORGOTTEN
            decided += 1
        if found >= 0 and (entries[found].status == WAITING or entries[found].status == STANDS):
            outcomes[i] = DUPLICATE if entries[found].digest == new.digest else ID_CONFLICT
            continue
        heads = not _is_followup(new.type) or _is_its_own_parent(new)  # its id is that of an impression
        if found < 0 or entries[found].status == FREE:
            old = found
            found = count
            count = _enter(table, entries, count, slot, new.id_hi, new.id_lo)
            if old >= 0 and heads:
                _inherit(entries, old, found)
        here = entries[found]
        here.digest = new.digest
        here.time = joined_at[i] = new.time
        here.parent_hi = new.parent_hi
        here.parent_lo = new.parent_lo
        here.price = new.price
        here.user_hi = user_hi[i]
        here.user_lo = user_lo[i]
        here.source = source_of[new.source]
        here.seen = 0
        here.joined = 0
        here.type = new.type
        here.verdict = new.verdict
        here.shows = new.shows
        here.status = STANDS
        at[i] = found
        if new.type == e.CONVERSION:
            outcomes[i] = INVALID if new.verdict else COUNTED
        elif new.type == e.IMPRESSION:
            here.row = under[i] = row_of[i]
            outcomes[i] = INVALID if new.verdict else COUNTED
            # Follow-ups that waited for it join before it is counted, so that one sum covers them all.
            f = here.link
            while f >= 0:
                if (entries[f].status == WAITING and abs(entries[f].time - new.time) <= join
                        and new.watermark < entries[f].time + join):
                    entries[f].status = STANDS
                    entries[f].joined = _mark(here)
                    resolved[decided, 0], resolved[decided, 1], resolved[decided, 2] = f, i, here.row
                    resolution[decided] = _outcome(entries, f, found)
                    decided += 1
                f = entries[f].link
            _sums(entries, found, _lane(acc, marks, touched, here.row, _closed(new.time, new.watermark, lateness)))
        else:
            imp = -1
            if not heads:
                imp, count = _chain_of(table, entries, count, found)
                here.link = entries[imp].link
                entries[imp].link = found
            if imp >= 0 and _stands(entries[imp]) and abs(entries[imp].time - new.time) <= join:
                here.joined = _mark(entries[imp])
                under[i], joined_at[i] = entries[imp].row, entries[imp].time
                outcomes[i] = _outcome(entries, found, imp)
                if outcomes[i] == COUNTED:
                    lane = _closed(entries[imp].time, new.watermark, lateness)
                    _add_followup(entries[imp], here, _lane(acc, marks, touched, entries[imp].row, lane))
            elif new.watermark >= new.time + join:
                here.status = FREE
                outcomes[i] = ORPHAN
            else:
                here.status = WAITING
                outcomes[i] = WAITS
    return count, decided


@njit(cache=True, nogil=True)
def judge(table, entries, hi, lo, verdict, watermark, acc, marks, touched, lateness, changed, was, now):
    """Sets the verdict on one event. Returns how many ledger entries changed, or -1 if the event is not known.

    ``changed``, ``was`` and ``now`` receive entries and their outcomes before and after, with room for its chain.
    """
    at, _ = _find(table, entries, hi, lo)
    if at < 0 or entries[at].status == PLACEHOLDER or entries[at].status == FREE:
        return -1
    if entries[at].verdict == verdict:
        return 0
    if entries[at].status == WAITING:
        entries[at].verdict = verdict
        return 0
    if entries[at].type == e.CONVERSION:
        changed[0], was[0] = at, _outcome(entries, at, -1)
        entries[at].verdict = verdict
        now[0] = _outcome(entries, at, -1)
        return 1 if was[0] != now[0] else 0
    imp = at
    if _is_followup(entries[at].type):
        imp, _ = _find(table, entries, entries[at].parent_hi, entries[at].parent_lo)
        if imp < 0 or not _stands(entries[imp]) or entries[at].joined != _mark(entries[imp]):
            return -1  # its impression is forgotten: nothing can change it any more
    lane = _closed(entries[imp].time, watermark, lateness)
    sums = np.zeros(acc.shape[2], np.int64)
    _sums(entries, imp, sums)
    delta = _lane(acc, marks, touched, entries[imp].row, lane)
    delta -= sums
    changes = 0
    f = imp
    while f >= 0:
        if entries[f].status == STANDS and (imp == at or f == at):
            changed[changes] = f
            was[changes] = _outcome(entries, f, imp)
            changes += 1
        f = entries[f].link
    entries[at].verdict = verdict
    sums[:] = 0
    _sums(entries, imp, sums)
    delta += sums
    kept = 0
    for c in range(changes):
        outcome = _outcome(entries, changed[c], imp)
        if outcome != was[c]:
            changed[kept], was[kept], now[kept] = changed[c], was[c], outcome
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def chain_length(table, entries, hi, lo):
    """Entries on the chain of the event's impression, the impression included; 1 where there is none."""
    at, _ = _find(table, entries, hi, lo)
    if at >= 0 and _is_followup(entries[at].type):
        at, _ = _find(table, entries, entries[at].parent_hi, entries[at].parent_lo)
    length = 1
    while at >= 0:
        length += 1
        at = entries[at].link
    return length


@njit(cache=True, nogil=True)
def relink(table, entries, count):
    """Enters ``count`` entries into an empty table and rebuilds every chain and what impressions were seen for.

    ``entries`` and ``table`` must have room for as many placeholders as follow-ups. Returns the number of entries.
    """
    for i in range(count):
        _, slot = _find(table, entries, entries[i].id_hi, entries[i].id_lo)
        table[slot] = i
        entries[i].link = -1
    scratch = np.zeros(16, np.int64)
    for i in range(count):
        if not _is_followup(entries[i].type) or _is_its_own_parent(entries[i]):
            continue
        if entries[i].status == WAITING:
            imp, count = _chain_of(table, entries, count, i)
        else:
            imp, _ = _find(table, entries, entries[i].parent_hi, entries[i].parent_lo)
            if imp < 0 or not _stands(entries[imp]) or entries[i].joined != _mark(entries[imp]):
                continue  # its impression is forgotten: nothing can change it any more
        entries[i].link = entries[imp].link
        entries[imp].link = i
    for i in range(count):
        if entries[i].type == e.IMPRESSION and entries[i].status == STANDS:
            _sums(entries, i, scratch)
    return count
