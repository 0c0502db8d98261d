"""Which figures that derive from users are told apart, so that nobody can compute one of fewer than k conversions.

What is published are sums of *leaves*. A leaf is a set of attribution's cells in a stretch of time; leaves do not overlap, and
which there are is decided once, from what a closed day held at its close, whatever range, grain or campaign is asked for.

- Days are taken together in their order, from the month's first that the job closed, until they have k conversions: a *period*. A day of a busy
  advertiser is one by itself. What a month's last days have less than k is not told.
- A period is divided by campaign, in each by currency, then by line item, by creative, placement and touch, by conversion type,
  by hour. At each step the parts that have k conversions or none in every model are told apart; the others are told as one,
  ``OTHER``. If these have too few together, the smallest of the parts goes to them, and the next, until they have k.
- All models are divided alike: what is the same in two models cannot be held against what is not.
- A later change is told of a leaf when its figure has moved by k conversions in every model in which it moved, and has k or
  none left. Until then the leaf stands as it was told; one that moved by k and has fewer left is told no more.

So each leaf, and each change of one, is of k conversions, and every figure in every file of the same k, whenever it is made, is
a sum of whole leaves and whole changes: no sum or difference of such figures divides one. docs/exports.md says what that does not
cover. Times are µs; no clock is asked.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from itertools import groupby

DAY = 86_400_000_000
# By which columns a period is divided, step by step, and what OTHER stands for at each. Hours come last.
LEVELS = (("campaign_id",), ("currency",), ("line_item_id",), ("creative_id", "placement_id", "touch_type"), ("conversion_type",))
NAMES = ("campaigns", "currencies", "line items", "creatives", "conversion types", "hours")
CURRENCY = 1
_FEW, _FEW_HOURS = " (too few are left)", " (hours with too few left are not in it)"
_TOUCH, _DEPTH = (0, 2, 3), len(NAMES)  # where one is OTHER so are those behind it: other campaigns' line items are not told


class Other(Enum):
    OTHER = "other"


OTHER = Other.OTHER
Path = tuple  # of a cell or leaf: a tuple of values for each of LEVELS and (hour,), or OTHER
Figures = dict[str, tuple[Decimal, int]]  # of each model: conversions, value_micros


@dataclass(frozen=True, slots=True)
class Entry:
    """A published revision of a cell. ``base``: of those at its day's close."""

    path: Path
    model: str
    conversions: Decimal
    value: int
    revision: int
    published: int
    base: bool
    because: str | None = None
    rules: str = ""


@dataclass(slots=True)
class Leaf:
    """As it is told: of ``start`` <= time < ``stop``. ``hidden``: its figures are told no more; ``partly``: those of some of its
    hours. ``currencies``: of its values."""

    path: Path
    start: int
    stop: int
    told: Figures
    hidden: bool = False
    partly: bool = False
    restated: bool = False
    because: set[str] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)
    currencies: set[str | None] = field(default_factory=set)
    revision: int = 0
    published: int = 0

    def note(self, other: "Leaf") -> None:
        """Takes over what ``other`` says of its changes."""
        self.because |= other.because
        self.rules |= other.rules
        self.currencies |= other.currencies
        self.revision, self.published = max(self.revision, other.revision), max(self.published, other.published)


def periods(days: Iterable[tuple[int, dict[str, Decimal]]], k: int) -> list[tuple[int, int]]:
    """[start, stop) of the periods that are whole, from closed ``days`` one after the other, with each model's conversions."""
    found, begun, sums = [], None, defaultdict(Decimal)
    for day, conversions in days:
        if begun is None or _month(day) != _month(begun):
            begun, sums = day, defaultdict(Decimal)
        for model, n in conversions.items():
            sums[model] += n
        if _enough(sums, k):
            found.append((begun, day + DAY))
            begun, sums = None, defaultdict(Decimal)
    return found


def at_close(entries: Iterable[Entry]) -> dict[tuple[Path, str], Entry]:
    """By cell and model what was published of it at its day's close."""
    cells: dict[tuple[Path, str], Entry] = {}
    for entry in entries:
        key = entry.path, entry.model
        if entry.base and (key not in cells or cells[key].revision < entry.revision):
            cells[key] = entry
    return cells


def leaves(start: int, stop: int, entries: Sequence[Entry], k: int) -> list[Leaf]:
    """A period's leaves as its ``entries``, all that were published of its hours, have them told."""
    cells = at_close(entries)
    kept = _kept([(e.path, e.model, e.conversions) for e in cells.values()], k)
    found: dict[Path, Leaf] = {}
    now: dict[Path, Figures] = defaultdict(dict)  # as it is, told or not
    pending: dict[Path, Leaf] = {}

    def leaf(path: Path) -> Leaf:
        if path not in found:
            of_hour = path[-1] is not OTHER
            found[path] = Leaf(path, path[-1][0] if of_hour else start, path[-1][0] + DAY // 24 if of_hour else stop, {})
        return found[path]

    for entry in cells.values():
        one = leaf(_leaf(kept, entry.path))
        _add(one.told, entry.model, entry.conversions, entry.value)
        _note(one, entry)
    for path, one in found.items():
        now[path] = dict(one.told)
    later = sorted((e for e in entries if not e.base), key=lambda e: (e.published, e.revision))
    for _, together in groupby(later, key=lambda e: e.published):
        touched = set()
        for entry in together:
            key, path = (entry.path, entry.model), _leaf(kept, entry.path)
            before = cells.get(key)
            if before is not None and before.revision >= entry.revision:
                continue
            cells[key] = entry
            had = (before.conversions, before.value) if before else (Decimal(0), 0)
            _add(now[path], entry.model, entry.conversions - had[0], entry.value - had[1])
            _note(pending.setdefault(path, Leaf(path, 0, 0, {})), entry)
            touched.add(path)
        for path in touched:
            _tell(leaf(path), now[path], pending, k)
    return list(found.values())


def by_period(found: Iterable[Leaf], start: int, stop: int) -> list[Leaf]:
    """Leaves with their hours summed: one that is told no more is in no sum, and its sum says so."""
    made: dict[Path, Leaf] = {}
    for one in found:
        path = one.path[:-1]
        into = made.setdefault(path, Leaf(path, start, stop, {}, hidden=True))
        for model, (n, value) in one.told.items():
            _add(into.told, model, *((Decimal(0), 0) if one.hidden else (n, value)))
        into.hidden &= one.hidden
        into.partly |= one.hidden
        into.restated |= one.restated
        into.note(one)
    return list(made.values())


def withheld(leaf: Leaf) -> str | None:
    """What a row says of what it does not tell apart, or no more; None where nothing is withheld."""
    others = [name for name, part in zip(NAMES, leaf.path) if part is OTHER]
    implied = [n for n in others if NAMES.index(n) in _TOUCH][1:]
    told = [f"other {name}" for name in others if name not in implied]
    few = _FEW if leaf.hidden else _FEW_HOURS if leaf.partly else ""
    return (", ".join(told) + few).strip() or None


def apart(withheld: str | None) -> str | None:
    """What tells a row apart of what it says it withholds: not that too few are left in it."""
    return (withheld or "").removesuffix(_FEW_HOURS.strip()).removesuffix(_FEW.strip()).rstrip() or None


def _tell(leaf: Leaf, now: Figures, pending: dict[Path, Leaf], k: int) -> None:
    moved = [n - leaf.told.get(model, (0, 0))[0] for model, (n, _) in now.items()]
    if not any(moved) or any(0 < abs(by) < k for by in moved):
        return
    if all(n == 0 or n >= k for n, _ in now.values()):
        leaf.told, leaf.hidden = dict(now), False
    elif leaf.hidden:
        return
    else:
        leaf.hidden = True
    since = pending.pop(leaf.path)
    leaf.restated = True
    leaf.note(since)


def _note(leaf: Leaf, entry: Entry) -> None:
    currency = entry.path[CURRENCY][0]
    leaf.note(Leaf(leaf.path, 0, 0, {}, because={entry.because} - {None}, rules={entry.rules}, revision=entry.revision,
                   published=entry.published, currencies={currency} if entry.value else set()))


def _add(figures: Figures, model: str, conversions: Decimal, value: int) -> None:
    n, v = figures.get(model, (Decimal(0), 0))
    figures[model] = n + conversions, v + value


def _kept(cells: list[tuple[Path, str, Decimal]], k: int) -> frozenset[Path]:
    """The heads of paths, of any length, that are told apart."""
    kept: set[Path] = set()

    def divide(head: Path, inside: list) -> None:
        level = len(head)
        if level == _DEPTH:
            return
        parts: dict[Path, list] = defaultdict(list)
        for cell in inside:
            parts[cell[0][level]].append(cell)
        implied = level in _TOUCH and any(head[at] is OTHER for at in _TOUCH if at < level)
        apart = set() if implied else _apart(parts, k)
        for part in apart:
            kept.add((*head, part))
            divide((*head, part), parts[part])
        if others := [cell for part, some in parts.items() if part not in apart for cell in some]:
            divide((*head, OTHER), others)

    divide((), cells)
    return frozenset(kept)


def _apart(parts: dict[Path, list], k: int) -> set[Path]:
    sums = {part: _sum(cells) for part, cells in parts.items()}
    smallest_last = sorted((p for p, s in sums.items() if _enough(s, k)), key=lambda p: (min(n for n in sums[p].values() if n), repr(p)),
                           reverse=True)
    others = _sum([cell for part, cells in parts.items() if not _enough(sums[part], k) for cell in cells])
    while any(0 < n < k for n in others.values()):
        for model, n in sums[smallest_last.pop()].items():
            others[model] += n
    return set(smallest_last)


def _sum(cells: list) -> dict[str, Decimal]:
    sums = defaultdict(Decimal)
    for _, model, n in cells:
        sums[model] += n
    return sums


def _enough(sums: dict[str, Decimal], k: int) -> bool:
    """k or none in every model, and not none in all."""
    return any(sums.values()) and all(n == 0 or n >= k for n in sums.values())


def _leaf(kept: frozenset[Path], path: Path) -> Path:
    head: Path = ()
    for part in path:
        head += (part if (*head, part) in kept else OTHER,)
    return head


def _month(day: int) -> str:
    return f"{datetime.fromtimestamp(day // 1_000_000, UTC):%Y-%m}"
