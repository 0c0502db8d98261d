"""The conversions of one shard of users: whether each stands, and which a touch may earn something of."""

import numpy as np
from numba import njit

from measurement.columnar.batch import Blobs, gather
from measurement.columnar.table import Keys, grown
from measurement.columnar.texts import numbered

ENTRY = np.dtype([
    ("user_hi", "u8"), ("user_lo", "u8"), ("id_hi", "u8"), ("id_lo", "u8"), ("time", "i8"), ("value", "i8"),
    ("text_at", "i8"), ("text_length", "i4"),  # the event_id among the texts
    ("terms", "i4"),  # row of the machine's terms, -1: only what became of it has come yet
    ("link", "i4"),  # the user's conversion before this one, -1 none
    ("crowd", "i4"),  # number of the user's conversions in this bucket of event time
    ("stands", "i2"), ("on_time", "i2"),  # the sum of its facts, and of those that came before its hour closed
])
# A user with more conversions in a bucket is no person, and no touch earns anything of them.
LIMIT = 1_000


class Conversions:
    """Known by identity and time: an id that comes again behind the dedup horizon is another conversion."""

    def __init__(self):
        self.keys = Keys()
        self.rows = np.zeros(len(self.keys.hi), ENTRY)
        self.users = Keys()
        self.head = np.full(len(self.users.hi), -1, np.int32)
        self.crowds = Keys()
        self.crowd = np.zeros(len(self.crowds.hi), np.int32)
        self.texts = np.zeros(1 << 12, np.uint8)
        self.text_size = 0
        self.buckets: set[int] = set()  # of event time, in which there are any
        self._marks = np.zeros(len(self.rows), np.bool_)  # all false between calls, which must not cost what is remembered

    def __len__(self) -> int:
        return self.keys.rows

    def find(self, facts: np.ndarray) -> np.ndarray:
        """Row of each fact's conversion, int32, -1 where it is not known."""
        return self.keys.find(*_with(facts["id_hi"], facts["id_lo"], facts["time"]))

    def enter(self, facts: np.ndarray, terms: np.ndarray, ids: Blobs, buckets: np.ndarray, late: np.ndarray) -> np.ndarray:
        """Takes in FACT (n,); the row of each, int32. ``terms`` as in ENTRY, ``ids`` their event_ids, ``buckets`` of their
        times, ``late`` bool: it came when the conversion's hour was closed."""
        known = self.keys.rows
        at = self.keys.add(*_with(facts["id_hi"], facts["id_lo"], facts["time"]))
        if self.keys.rows > len(self.rows):
            self.rows, self._marks = grown(self.rows, self.keys.rows), grown(self._marks, self.keys.rows)
        rows = self.rows
        _, first = np.unique(at, return_index=True)
        new = first[at[first] >= known]
        self._begin(known, facts.take(new), buckets[new])
        self.buckets.update(np.unique(buckets[new]).tolist())
        whole = np.flatnonzero(terms >= 0)
        texts, told = ids.take(whole), at[whole]
        rows["value"][told], rows["terms"][told] = facts["value"][whole], terms[whole]
        rows["text_at"][told], rows["text_length"][told] = texts.offsets[:-1] + self.text_size, np.diff(texts.offsets)
        end = self.text_size + len(texts.data)
        if end > len(self.texts):
            self.texts = grown(self.texts, end)
        self.texts[self.text_size : end] = texts.data
        self.text_size = end
        np.add.at(rows["stands"], at, facts["delta"])
        np.add.at(rows["on_time"], at[~late], facts["delta"][~late])
        return at

    def _begin(self, known: int, facts: np.ndarray, buckets: np.ndarray) -> None:
        """Begins the rows behind the ``known`` ones, each with its first fact."""
        new = self.rows[known : self.keys.rows]
        for name in ("user_hi", "user_lo", "id_hi", "id_lo", "time"):
            new[name] = facts[name]
        new["terms"] = -1
        hi, lo = new["user_hi"].copy(), new["user_lo"].copy()
        users_known = self.users.rows
        users = self.users.add(hi, lo)
        if self.users.rows > len(self.head):
            self.head = grown(self.head, self.users.rows)
        self.head[users_known : self.users.rows] = -1
        new["crowd"] = self.crowds.add(*_with(hi, lo, buckets))
        if self.crowds.rows > len(self.crowd):
            self.crowd = grown(self.crowd, self.crowds.rows)
        _link(self.rows, known, users, self.head, self.crowd)

    def of_touches(self, facts: np.ndarray, since: np.ndarray, until: np.ndarray) -> np.ndarray:
        """Rows of the conversions that touches FACT (n,) may belong to, in any order: of their users, behind ``since`` and
        not behind ``until`` (µs, one a touch)."""
        users = self.users.find(facts["user_hi"].copy(), facts["user_lo"].copy())
        at = np.flatnonzero(users >= 0)
        found = np.empty(len(self), np.int32)
        count = _mark(users[at], since[at], until[at], self.rows, self.head, self._marks, found)
        return found[:count].astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes in use, room to grow left out."""
        tables = self.keys.table.nbytes + self.users.table.nbytes + self.crowds.table.nbytes
        keys = 16 * (self.keys.rows + self.users.rows + self.crowds.rows)
        return len(self) * (ENTRY.itemsize + 1) + self.text_size + keys + 4 * (self.users.rows + self.crowds.rows) + tables

    def ids(self, at: np.ndarray) -> Blobs:
        """Their event_ids."""
        rows = self.rows.take(at)
        return gather(rows["text_at"], rows["text_length"].astype(np.int64), self.texts, np.arange(len(at)))


def _with(hi: np.ndarray, lo: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return numbered(np.ascontiguousarray(hi), np.ascontiguousarray(lo), np.ascontiguousarray(number))


@njit(cache=True, nogil=True)
def _link(rows, known, users, head, crowd):
    for i in range(len(users)):
        row = rows[known + i]
        row.link = -1
        crowd[row.crowd] += 1
        if crowd[row.crowd] <= LIMIT:  # what no touch can change needs not be found by one
            row.link = head[users[i]]
            head[users[i]] = known + i


@njit(cache=True, nogil=True)
def _mark(users, since, until, rows, head, marks, found):
    n = 0
    for i in range(len(users)):
        at = head[users[i]]
        while at >= 0:
            if since[i] < rows[at].time <= until[i] and not marks[at]:
                marks[at] = True
                found[n] = at
                n += 1
            at = rows[at].link
    for i in range(n):
        marks[found[i]] = False
    return n
