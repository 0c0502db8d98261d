"""The ledger and the arrivals as the monitor knows them: absolute rows by key, and what was entered since the last look.

Only rows published since are read at each look, so that a look costs what is new. Times are µs.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from measurement.model.events import CLICK, CONVERSION, EVENT_TYPES, IMPRESSION, MICROS_PER_HOUR

# Whose outcome waits for nothing: they must be in the ledger soon after they arrived. Follow-ups may wait for a day.
_AT_ONCE = {EVENT_TYPES[IMPRESSION], EVENT_TYPES[CONVERSION]}
_FOLLOW_UPS = frozenset(EVENT_TYPES[CLICK:]) - _AT_ONCE
KEPT = 92 * 24 * MICROS_PER_HOUR  # as long as the ledger's rows change


@dataclass(frozen=True)
class Row:
    """A revision of a row of ``ledger`` or (``outcome`` and ``status`` None) of ``arrivals``. ``hour`` and ``published`` µs."""

    hour: int | None
    source: str
    event_type: str | None
    outcome: str | None
    events: int
    status: str | None
    because: str | None
    revision: int
    published: int

    @property
    def key(self) -> tuple:
        return self.hour, self.source, self.event_type, self.outcome


@dataclass
class Entered:
    """What came into the ledger since the last look: events by outcome, and those entered into closed hours by why."""

    outcomes: Counter = field(default_factory=Counter)
    restated: Counter = field(default_factory=Counter)

    @property
    def events(self) -> int:
        return sum(self.outcomes.values())


class Book:
    """One of the two tables: the highest revision of each key, and sums by hour and source of what waits for nothing."""

    def __init__(self):
        self._rows: dict[tuple, tuple[int, int]] = {}  # key: (revision, events)
        self.every: Counter = Counter()  # (hour, source): events
        self.sums: Counter = Counter()  # the same, of types whose outcome waits for nothing
        self.settled: Counter = Counter()  # the same, of what was published a while ago
        self.follow_ups: Counter = Counter()  # hour: events
        self.settled_follow_ups: Counter = Counter()
        self._unsettled: deque[tuple[int, Counter, tuple | int, int]] = deque()  # (published, what it settles in, its key there, events)
        self.published = 0  # of the newest row

    def enter(self, row: Row) -> int:
        """By how much the row's events changed; 0 where a later revision is known."""
        known = self._rows.get(row.key)
        if known is not None and known[0] >= row.revision:
            return 0
        change = row.events - (known[1] if known else 0)
        self._rows[row.key] = row.revision, row.events
        self.published = max(self.published, row.published)
        if row.hour is not None:
            self.every[row.hour, row.source] += change
        if row.hour is not None and row.event_type in _AT_ONCE:
            self.sums[row.hour, row.source] += change
            self._unsettled.append((row.published, self.settled, (row.hour, row.source), change))
        elif row.hour is not None and row.event_type in _FOLLOW_UPS:
            self.follow_ups[row.hour] += change
            self._unsettled.append((row.published, self.settled_follow_ups, row.hour, change))
        return change

    def settle(self, published: int) -> None:
        """Takes what was published by then (µs) for settled."""
        late = deque()
        while self._unsettled:
            at, sums, key, change = self._unsettled.popleft()
            if at <= published:
                sums[key] += change
            else:
                late.append((at, sums, key, change))
        self._unsettled = late

    def forget(self, before: int) -> None:
        """Drops hours before ``before``."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] is None or key[0] >= before}
        for sums in self.every, self.sums, self.settled:
            for key in [key for key in sums if key[0] < before]:
                del sums[key]
        for hours in self.follow_ups, self.settled_follow_ups:
            for hour in [hour for hour in hours if hour < before]:
                del hours[hour]


class Books:
    """Both, and the hours that the ledger has closed."""

    def __init__(self):
        self.arrivals, self.ledger = Book(), Book()
        self.last_closed: int | None = None  # the latest hour that is closed
        self.open: set[int] = set()  # hours with rows that are not
        self._closed: dict[int, int] = {}  # hour: when its first closed row was published
        self.begun = False

    def arrive(self, rows: list[Row]) -> None:
        for row in rows:
            self.arrivals.enter(row)

    def enter(self, rows: list[Row]) -> Entered:
        """Enters rows of the ledger. The first time everything is new, and nothing is told of it."""
        entered = Entered()
        for row in sorted(rows, key=lambda r: r.revision):
            change = self.ledger.enter(row)
            if row.hour is not None:
                self._note(row)
            if change > 0:
                entered.outcomes[row.outcome] += change
                if row.status == "restated":
                    entered.restated[row.because] += change
        told, self.begun = (entered if self.begun else Entered()), True
        return told

    def _note(self, row: Row) -> None:
        if row.status == "provisional":
            if self.last_closed is None or row.hour > self.last_closed:
                self.open.add(row.hour)
        else:
            self.open.discard(row.hour)
            self._closed[row.hour] = min(row.published, self._closed.get(row.hour, row.published))
            if self.last_closed is None or row.hour > self.last_closed:
                self.last_closed = row.hour

    @property
    def complete_until(self) -> int | None:
        """The time before which every hour is closed: behind the last that is, or the first of those before it that is not."""
        if self.last_closed is None:
            return None
        return min([self.last_closed + MICROS_PER_HOUR, *(hour for hour in self.open if hour < self.last_closed)])

    def settled(self, hour: int, settle: int) -> bool:
        """Whether the arrivals are as readable as they were ``settle`` (µs) behind the hour's close."""
        return hour in self._closed and self._closed[hour] + settle <= self.arrivals.published

    def imbalance(self, settle: int) -> dict[tuple[int, str], int]:
        """By (hour, source) of closed hours, what arrived and is not in the ledger ``settle`` (µs) later; negative: what is in the
        ledger and never arrived. Time is that of the other table's publications: where it stands still nothing is judged."""
        self._settle(settle)
        until = self.complete_until
        if until is None:
            return {}
        wrong = {}
        for key in self.arrivals.sums.keys() | self.ledger.sums.keys():
            if key[0] >= until:
                continue
            lost = self.arrivals.settled[key] - self.ledger.sums[key]
            invented = self.ledger.settled[key] - self.arrivals.sums[key]
            if lost > 0 or invented > 0:
                wrong[key] = lost if lost > 0 else -invented
        return wrong

    def waiting(self, since: int, settle: int) -> tuple[int, int]:
        """Of the follow-ups of hours from ``since`` on that arrived ``settle`` (µs) ago: (how many are not decided yet, how many they
        are)."""
        self._settle(settle)
        waits = arrived = 0
        for hour, n in self.arrivals.settled_follow_ups.items():
            if hour >= since:
                waits, arrived = waits + max(0, n - self.ledger.follow_ups[hour]), arrived + n
        return waits, arrived

    def _settle(self, settle: int) -> None:
        self.arrivals.settle(self.ledger.published - settle)
        self.ledger.settle(self.arrivals.published - settle)

    def forget(self, now: int) -> None:
        for book in self.arrivals, self.ledger:
            book.forget(now - KEPT)
        self._closed = {hour: at for hour, at in self._closed.items() if hour >= now - KEPT}
