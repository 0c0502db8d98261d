"""The compiled heart of dedup and join: one event after the other, exactly as the contract says it.

Remembered events are rows of two arrays: ``ids`` with the hash table over them says which they are and what they said
(measurement/state/identities.py), ``entries`` (``ENTRY``) holds what joining them takes besides. Each impression heads a chain
of its follow-ups through ``link``, and so does a placeholder, the entry of an impression that has not come yet. Delivery
changes are summed in ``acc[row, lane]`` (lane 0: the row's hour was open when the event was read, lane 1: it was closed),
and rows with changes are listed in ``touched`` once.
"""

import numpy as np
from numba import njit

from measurement.columnar.judge import LARGE_DISPLAY, SHOWS_AUDIBLE, SHOWS_DISPLAY, SHOWS_LARGE, SHOWS_VIDEO
from measurement.model import events as e
from measurement.state.identities import build, enter, find, slot_of

# What the join, restatements, attribution and the ledger need of an event: 68 bytes. What a follow-up asks its impression
# comes first, so that it mostly stands in one cache line.
ENTRY = np.dtype([
    ("time", "i8"),
    ("link", "i4"),  # impression, placeholder: head of its chain; follow-up: the next in the chain; -1 none
    ("row", "i4"),  # impression: its delivery row; conversion without an order: the row it is invalid under; else -1
    ("seen", "u2"),  # impression: what it was counted for already, of the once-per-impression counts
    ("joined", "u2"),  # follow-up: which of the impressions that had this id it joined, by the digest's low bits
    ("type", "u1"), ("verdict", "u1"), ("shows", "u1"), ("status", "u1"),
    ("price", "i8"),
    ("parent_hi", "u8"), ("parent_lo", "u8"),
    ("user_hi", "u8"), ("user_lo", "u8"),  # its user; of a conversion what attribution keys it by
    ("source", "i4"),  # label
])

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
_RATE = e.INVALID_REASONS.index("rate")
_AHEAD = 32  # events whose lookups are begun together: their cache lines fit the innermost cache, and wait for each other no more


@njit
def _is_followup(kind):
    return kind != e.IMPRESSION and kind != e.CONVERSION


@njit
def _is_its_own_parent(hi, lo, it):
    """A follow-up that carries its impression's id as its own: it holds that identity, so no impression can come."""
    return hi == it.parent_hi and lo == it.parent_lo


@njit
def _stands(entry):
    """Whether follow-ups can join the entry."""
    return entry.status == STANDS and entry.type == e.IMPRESSION


@njit
def _mark(identity):
    return np.uint16(identity.digest & np.uint64(0xFFFF))


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
        wanted = 0
        if imp.shows == _DISPLAY:
            wanted = SHOWS_DISPLAY
        elif imp.shows == LARGE_DISPLAY:
            wanted = SHOWS_LARGE
        elif imp.shows == _VIDEO:
            wanted = SHOWS_VIDEO
        if shows & wanted and not imp.seen & _SEEN_VIEWABLE:
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
def _why(entries, at, imp):
    """Why a standing event is invalid (0: it is valid): its own reason, else that of the impression it follows."""
    if entries[at].verdict or imp < 0:
        return entries[at].verdict
    return entries[imp].verdict


@njit
def _enter(table, low, ids, entries, count, slot, hi, lo):
    enter(table, low, ids, slot, count, hi, lo)
    entries[count].link = -1
    entries[count].row = -1
    return count + 1


@njit
def _chain_of(table, low, ids, entries, count, followup):
    """(the impression or placeholder that the follow-up's chain hangs on, entries after making one if need be)."""
    hi, lo = entries[followup].parent_hi, entries[followup].parent_lo
    imp, slot = find(table, low, ids, hi, lo)
    if imp < 0:
        imp = np.int64(count)
        count = _enter(table, low, ids, entries, count, slot, hi, lo)
        entries[imp].type = e.IMPRESSION
        entries[imp].status = PLACEHOLDER
        entries[imp].time = entries[followup].time
    elif entries[imp].status == PLACEHOLDER:
        entries[imp].time = max(entries[imp].time, entries[followup].time)
    return imp, count


@njit
def _ask(table, low, ids, entries, hi, lo):
    """Reads what a search for the identity will read; how far it got."""
    slot, tag = slot_of(table, hi), (lo >> np.uint64(32)) & ~low
    while table[slot]:
        cell = np.uint64(table[slot])
        if (cell & ~low) == tag:
            row = np.int64(cell & low) - 1
            return ids[row].digest + np.uint64(entries[row].time)
        slot += 1
        if slot == len(table):
            slot = 0
    return np.uint64(slot)


@njit
def _ask_ahead(rows, start, stop, table, low, ids, entries):
    """Brings what the events ``start`` to ``stop`` will look up into the caches. Each read waits for none of the others, so they
    take together what one after the other would take each. The sum makes no sense but keeps the reads from being left out."""
    read = np.uint64(0)
    for i in range(start, stop):
        read += table[slot_of(table, rows[i].id_hi)]
        if _is_followup(rows[i].type):
            read += table[slot_of(table, rows[i].parent_hi)]
    for i in range(start, stop):
        read += _ask(table, low, ids, entries, rows[i].id_hi, rows[i].id_lo)
        if _is_followup(rows[i].type):
            read += _ask(table, low, ids, entries, rows[i].parent_hi, rows[i].parent_lo)
    return read


@njit(cache=True, nogil=True)
def absorb(rows, row_of, source_of, user_hi, user_lo, table, low, ids, entries, count, acc, marks, touched, dedup, join, lateness,
           outcomes, at, under, joined_at, why, resolved, resolution, asked):
    """Takes in a batch. ``row_of`` is each impression's and conversion's row, ``source_of`` maps batch labels to the shard's.

    Writes each event's outcome code to ``outcomes``, its entry to ``at`` (-1: none was made), the row that it is counted
    under to ``under``, its impression's time to ``joined_at`` and why it is invalid to ``why`` (0: it is not); earlier events
    that were decided on the way go to ``resolved`` (entry, index of the deciding event, row, why) and ``resolution``
    (outcome), both with room for every waiting entry and every row. ``asked`` (1,) receives nothing of use. Returns
    (entries, resolved).
    """
    decided = 0
    for i in range(len(rows)):
        if i % _AHEAD == 0:
            asked[0] += _ask_ahead(rows, i, min(len(rows), i + _AHEAD), table, low, ids, entries)
        new = rows[i]
        found, slot = find(table, low, ids, new.id_hi, new.id_lo)
        at[i] = under[i] = -1
        why[i] = 0
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
            outcomes[i] = DUPLICATE if ids[found].digest == new.digest else ID_CONFLICT
            continue
        heads = not _is_followup(new.type) or _is_its_own_parent(new.id_hi, new.id_lo, new)  # its id is that of an impression
        if found < 0 or entries[found].status == FREE:
            old = found
            found = np.int64(count)
            count = _enter(table, low, ids, entries, count, slot, new.id_hi, new.id_lo)
            if old >= 0 and heads:
                _inherit(entries, old, found)
        here = entries[found]
        ids[found].digest = new.digest
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
        if not _is_followup(new.type):
            here.row = under[i] = row_of[i]
            why[i] = new.verdict
            outcomes[i] = INVALID if new.verdict else COUNTED
        if new.type == e.IMPRESSION:
            # Follow-ups that waited for it join before it is counted, so that one sum covers them all.
            f = here.link
            while f >= 0:
                if (entries[f].status == WAITING and abs(entries[f].time - new.time) <= join
                        and new.watermark < entries[f].time + join):
                    entries[f].status = STANDS
                    entries[f].joined = _mark(ids[found])
                    resolved[decided, 0], resolved[decided, 1], resolved[decided, 2] = f, i, here.row
                    resolved[decided, 3] = _why(entries, f, found)
                    resolution[decided] = INVALID if resolved[decided, 3] else COUNTED
                    decided += 1
                f = entries[f].link
            _sums(entries, found, _lane(acc, marks, touched, here.row, _closed(new.time, new.watermark, lateness)))
        elif new.type != e.CONVERSION:
            imp = -1
            if not heads:
                imp, count = _chain_of(table, low, ids, entries, count, found)
                here.link = entries[imp].link
                entries[imp].link = found
            if imp >= 0 and _stands(entries[imp]) and abs(entries[imp].time - new.time) <= join:
                here.joined = _mark(ids[imp])
                under[i], joined_at[i] = entries[imp].row, entries[imp].time
                why[i] = _why(entries, found, imp)
                outcomes[i] = INVALID if why[i] else COUNTED
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


@njit
def _head(table, low, ids, entries, at):
    """The impression that a standing event belongs to, itself if it is one or a conversion; -1: it is forgotten, and nothing
    can change the event any more."""
    if not _is_followup(entries[at].type):
        return np.int64(at)
    imp, _ = find(table, low, ids, entries[at].parent_hi, entries[at].parent_lo)
    if imp < 0 or not _stands(entries[imp]) or entries[at].joined != _mark(ids[imp]):
        return np.int64(-1)
    return imp


@njit(cache=True, nogil=True)
def seek(table, low, ids, entries, verdicts, at, heads):
    """Finds what VERDICTS are on: ``at`` (int32) receives each one's entry, -1 where none has come yet, -2 where nothing is to
    change; ``heads`` (int32) the impression that a standing event belongs to, -1 of one that waits, whose verdict is set.
    Returns for how many entries ``judge`` needs room."""
    room = 0
    for i in range(len(verdicts)):
        found, _ = find(table, low, ids, verdicts[i].hi, verdicts[i].lo)
        heads[i] = -1
        at[i] = -1
        if found < 0 or entries[found].status == PLACEHOLDER or entries[found].status == FREE:
            continue
        if ids[found].digest != verdicts[i].digest:
            continue  # another content: what is judged is in conflict with it, or comes when it is forgotten
        at[i] = -2
        entry = entries[found]
        if not _replaces(entry.verdict, verdicts[i].code):
            continue
        if entry.status == WAITING:
            entry.verdict = verdicts[i].code
            at[i] = found
            continue
        head = _head(table, low, ids, entries, found)
        if head < 0:
            continue
        at[i], heads[i] = found, head
        room += 1
        f = entries[found].link if head == found else np.int32(-1)
        while f >= 0:
            room += 1
            f = entries[f].link
    return room


@njit
def _replaces(old, new):
    """Whether a later verdict takes an earlier one's place: what an event showed by itself comes before its rate."""
    return old != new and (old == 0 or old == _RATE)


@njit(cache=True, nogil=True)
def judge(entries, codes, at, heads, closed, acc, marks, touched, changed, under, was, now):
    """Sets verdicts (``codes``) on standing events ``at`` of impressions ``heads``, those of one impression behind each other;
    ``closed`` (uint8): whether the impression's hour is.

    ``changed``, ``under`` (int32), ``was`` and ``now`` (uint8) receive the entries whose reason changed, their impressions and
    the reasons. Returns how many. The cost is that of the impressions' chains, however many verdicts are on each.
    """
    sums = np.zeros(acc.shape[2], np.int64)
    told = start = 0
    while start < len(at):
        imp, stop, whole = heads[start], start, False
        while stop < len(at) and heads[stop] == imp:
            whole = whole or at[stop] == imp
            stop += 1
        counts = entries[imp].type == e.IMPRESSION
        first = told
        if whole:
            f = imp
            while f >= 0:
                if entries[f].status == STANDS:
                    changed[told] = f
                    told += 1
                f = entries[f].link if counts else np.int32(-1)
        else:
            for i in range(start, stop):
                changed[told] = at[i]
                told += 1
        for c in range(first, told):
            was[c] = _why(entries, changed[c], imp)
        if counts:
            sums[:] = 0
            _sums(entries, imp, sums)
            delta = _lane(acc, marks, touched, entries[imp].row, closed[start])
            delta -= sums
        for i in range(start, stop):
            if _replaces(entries[at[i]].verdict, codes[i]):
                entries[at[i]].verdict = codes[i]
        if counts:
            sums[:] = 0
            _sums(entries, imp, sums)
            delta += sums
        kept = first
        for c in range(first, told):
            why = _why(entries, changed[c], imp)
            if why != was[c]:
                changed[kept], under[kept], was[kept], now[kept] = changed[c], imp, was[c], why
                kept += 1
        told, start = kept, stop
    return told


@njit(cache=True, nogil=True)
def compact(ids, entries, count, since, new_row, sources):
    """Moves what stands or waits and is of ``since`` (µs) or later to the front; how many they are. ``new_row`` gives each
    delivery row's new number, the last one -1's; the labels of their sources are set in ``sources``."""
    kept = 0
    for i in range(count):
        it = entries[i]
        if it.time >= since and (it.status == WAITING or it.status == STANDS):
            ids[kept] = ids[i]
            entries[kept] = it
            entries[kept].row = new_row[it.row]
            sources[it.source] = True
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def relabel(entries, count, number):
    """Gives the sources' labels their new numbers."""
    for i in range(count):
        entries[i].source = number[entries[i].source]


@njit(cache=True, nogil=True)
def relink(table, low, ids, entries, count, asked):
    """Enters ``count`` entries into an empty table and rebuilds every chain and what impressions were seen for.

    ``ids``, ``entries`` and ``table`` must have room for as many placeholders as follow-ups wait; ``asked`` (1,) receives
    nothing of use. Returns the number of entries.
    """
    build(table, low, ids, count)
    for i in range(count):
        entries[i].link = -1
    scratch = np.zeros(16, np.int64)
    known = count
    for i in range(known):
        if i % _AHEAD == 0:
            for j in range(i, min(known, i + _AHEAD)):
                if _is_followup(entries[j].type):
                    asked[0] += table[slot_of(table, entries[j].parent_hi)]
            for j in range(i, min(known, i + _AHEAD)):
                if _is_followup(entries[j].type):
                    asked[0] += _ask(table, low, ids, entries, entries[j].parent_hi, entries[j].parent_lo)
        if not _is_followup(entries[i].type) or _is_its_own_parent(ids[i].hi, ids[i].lo, entries[i]):
            continue
        if entries[i].status == WAITING:
            imp, count = _chain_of(table, low, ids, entries, count, i)
        else:
            imp = _head(table, low, ids, entries, i)
            if imp < 0:
                continue
        entries[i].link = entries[imp].link
        entries[imp].link = i
    for i in range(known):
        if entries[i].type == e.IMPRESSION and entries[i].status == STANDS:
            _sums(entries, i, scratch)
    return count
