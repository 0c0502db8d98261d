"""The touches of one bucket of event time, each behind its user's last: appended blind, walked for a conversion.

A touch costs a look-up of its user among those of the bucket and a row, however many touches the user has. A user with more
than ``LIMIT`` facts in a bucket is no person: none of its touches there earns anything, and no more of them are kept.
"""

import numpy as np
from numba import njit

from measurement.columnar.batch import Blobs
from measurement.columnar.table import Keys, grown
from measurement.model.events import CLICK

TOUCH = np.dtype([
    ("id_hi", "u8"), ("id_lo", "u8"), ("parent_hi", "u8"), ("parent_lo", "u8"), ("time", "i8"), ("watermark", "i8"),
    ("text_at", "i8"), ("text_length", "i4"),  # the event_id among the bucket's texts
    ("terms", "i4"),  # row of the machine's terms, -1: the fact only changes the sum
    ("link", "i4"),  # the user's fact before this one, -1 none
    ("is_click", "u1"), ("delta", "i1"), ("because", "u1"), ("reserved", "u1"),
])  # 72 bytes

LIMIT = 10_000

_ROOM = 1 << 22  # candidates; more are counted first
OLD, NEW, DROPPED = range(3)  # a fact known before the call, one of this call, one that its user's flood took away in it


class Touches:
    """Facts of one bucket, as many as one call or more brought."""

    def __init__(self):
        self.users = Keys()
        self.head = np.full(len(self.users.hi), -1, np.int32)
        self.count = np.zeros(len(self.users.hi), np.int32)  # facts of the user, at most LIMIT + 1
        self.rows = np.zeros(1024, TOUCH)
        self.size = 0
        self.before = 0  # as many were there before the call
        self.texts = np.zeros(1 << 16, np.uint8)
        self.text_size = 0

    def append(self, facts: np.ndarray, terms: np.ndarray, ids: Blobs) -> tuple[np.ndarray, np.ndarray]:
        """Appends FACT (n,) whose rows of terms and event_ids are these; bool (n,) twice: which were kept, and whose user is
        beyond the limit now."""
        known = self.users.rows
        users = self.users.add(facts["user_hi"].copy(), facts["user_lo"].copy())
        if self.users.rows > len(self.head):
            self.head, self.count = grown(self.head, self.users.rows), grown(self.count, self.users.rows)
        self.head[known : self.users.rows] = -1
        if self.size + len(facts) > len(self.rows):
            self.rows = grown(self.rows, self.size + len(facts))
        kept = np.empty(len(facts), np.bool_)
        size, end = _append(facts, terms, ids.offsets, users, self.rows, self.size, self.text_size, self.head, self.count, kept)
        texts = ids if kept.all() else ids.take(np.flatnonzero(kept))
        if end > len(self.texts):
            self.texts = grown(self.texts, end)
        self.texts[self.text_size : end] = texts.data
        self.size, self.text_size = size, end
        return kept, self.count[users] > LIMIT

    def candidates(self, conversions: np.ndarray, user_hi, user_lo, times, click_lookback, view_lookback):
        """The facts of each conversion's user that are within the lookback of their type, each conversion's as they were
        appended: which conversion's (of the numbers ``conversions``), which fact, and OLD, NEW or DROPPED. ``times`` and
        lookbacks are µs, one a conversion."""
        users = self.users.find(user_hi, user_lo)
        at = np.flatnonzero(users >= 0)
        walk = conversions[at], users[at], times[at], click_lookback[at], view_lookback[at]
        room = min(int(self.count[users[at]].sum()), _ROOM)
        while True:
            out = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.uint8)
            found = _walk(*walk, self.rows, self.before, self.head, self.count, *out)
            if found <= room:
                return tuple(column[:found] for column in out)
            room = found

    def users_of(self) -> tuple[np.ndarray, np.ndarray]:
        """The user (hi, lo) of every fact."""
        user = np.empty(self.size, np.int32)
        _unchain(self.rows, self.head[: self.users.rows], user)
        return self.users.hi[user], self.users.lo[user]

    def settle(self) -> None:
        """Ends a call: what was new is old now."""
        self.before = self.size

    @property
    def nbytes(self) -> int:
        """Bytes in use, room to grow left out."""
        users = self.users.rows * (self.users.hi.itemsize * 2 + self.head.itemsize + self.count.itemsize)
        return self.size * TOUCH.itemsize + self.text_size + users + self.users.table.nbytes


@njit(cache=True, nogil=True)
def _append(facts, terms, offsets, users, rows, size, text_size, head, count, kept):
    for i in range(len(users)):
        user = users[i]
        kept[i] = count[user] <= LIMIT
        if not kept[i]:
            continue
        fact, row = facts[i], rows[size]
        row.id_hi, row.id_lo, row.parent_hi, row.parent_lo = fact.id_hi, fact.id_lo, fact.parent_hi, fact.parent_lo
        row.time, row.watermark, row.delta, row.because = fact.time, fact.watermark, fact.delta, fact.because
        row.terms, row.is_click = terms[i], fact.type == CLICK
        row.text_at, row.text_length = text_size, offsets[i + 1] - offsets[i]
        row.link = head[user]
        head[user] = size
        count[user] += 1
        size += 1
        text_size += row.text_length
    return size, text_size


@njit(cache=True, nogil=True)
def copy_texts(at, touch, texts, offsets, out):
    """Copies the event_ids of ``touch[at]`` from their bucket's texts to where ``offsets`` has them in ``out``."""
    for i in at:
        start = touch[i].text_at
        out[offsets[i] : offsets[i + 1]] = texts[start : start + touch[i].text_length]


@njit(cache=True, nogil=True)
def _unchain(rows, head, user):
    for u in range(len(head)):
        at = head[u]
        while at >= 0:
            user[at] = u
            at = rows[at].link


@njit(cache=True, nogil=True)
def _walk(conversions, users, times, click_lookback, view_lookback, rows, before, head, count, whose, which, state):
    """Writes as many candidates as there is room for; returns how many there are."""
    n = 0
    for i in range(len(conversions)):
        first = n
        flooded = count[users[i]] > LIMIT
        if flooded:
            known, at = 0, head[users[i]]
            while at >= 0:
                known += at < before
                at = rows[at].link
            if known > LIMIT:
                continue  # it was so before
        at = head[users[i]]
        while at >= 0:
            age = times[i] - rows[at].time
            if 0 < age <= (click_lookback[i] if rows[at].is_click else view_lookback[i]) and not (flooded and at >= before):
                if n < len(whose):
                    whose[n], which[n] = conversions[i], at
                    state[n] = DROPPED if flooded else NEW if at >= before else OLD
                n += 1
            at = rows[at].link
        last = n - 1
        while first < last < len(whose):  # the chain goes back in time
            which[first], which[last] = which[last], which[first]
            state[first], state[last] = state[last], state[first]
            first, last = first + 1, last - 1
    return n
