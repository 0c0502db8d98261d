"""The IAB/ABC International Spiders and Bots List, as far as an operator has licensed it and points at its files: general
invalid traffic (GIVT) by MRC Invalid Traffic Detection and Filtration Standards Addendum (2020), section 1.

The files and their meaning are those that the list's own comments describe. Known robots, fields parted by ``|``: pattern,
active (1 or 0), exceptions parted by commas, needless in a two-pass check (1 or 0), what it impacts first (0 pages, 1 ads,
2 both), only at the start (1 or 0), date of inactivity. Valid browsers: pattern, active, only at the start, date of
inactivity. Patterns and exceptions are found anywhere and in any case; ``#`` at a line's beginning makes a comment.

A user agent is a robot if an active entry of the robots is in it and none of that entry's exceptions, or, with a file of
valid browsers (the two-pass check), if no active entry of theirs is. What an entry impacts *first* takes it out of no
check: the list calls whatever matches non-human and to be left out of counts. Entries needless in a two-pass check are
checked too, to the same result.
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from measurement.columnar.needles import START, Needles
from measurement.model.lists import ListFacts, checksum
from measurement.model.policy_file import PolicyError
from measurement.rules import networks
from measurement.rules.networks import NetworkList, content, wrong

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
_DATED = re.compile(r"([A-Za-z]+) (\d{1,2}), (\d{4})", re.ASCII)  # January 21, 2010
_TITLE = re.compile(r"IAB_ABC\w*?_(\d[\w-]*)", re.ASCII)  # ends in the version
_INACTIVE = re.compile(r"(\d\d/\d\d/\d{4})?", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """An active entry, in small letters."""

    pattern: str
    at_start: bool
    exceptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Iab:
    """The active entries; ``browsers`` is None without a file of theirs. ``facts`` are the files'."""

    robots: tuple[Entry, ...]
    browsers: tuple[Entry, ...] | None
    facts: tuple[ListFacts, ...]


def read(exclude: Path, include: Path | None = None) -> Iab:
    """The files of robots and of valid browsers; PolicyError in one line for one that cannot be read or a malformed line."""
    robots, of_robots = _read(exclude, _robot)
    if include is None:
        return Iab(robots, None, (of_robots,))
    browsers, of_browsers = _read(include, _browser)
    return Iab(robots, browsers, (of_robots, of_browsers))


def read_networks(path: Path) -> NetworkList:
    """The list's addresses, reason ``listed``. It has networks with bits behind their prefix, which are left out."""
    return networks.read(path, "listed", strict=False)


def _read(path: Path, parse) -> tuple[tuple[Entry, ...], ListFacts]:
    data = content(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # the list's comments have quotation marks of older encodings
    entries, active, version, made = 0, [], None, None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line.startswith("#"):
            if not entries:
                said = line.strip("# \t")
                version = version or ((title := _TITLE.match(said)) and title[1])
                made = made or _date(said)
        elif line.strip():
            entry = parse(line.split("|"))
            if isinstance(entry, str):
                raise wrong(path, number, line, entry)
            entries += 1
            active += [entry] if entry else []
    if not active:
        raise PolicyError(f"{path}: there is no active entry in it")
    return tuple(active), ListFacts(path.name, "robot", version, made, len(active), checksum(data))


def _date(text: str) -> date | None:
    """The date that a comment consists of, None if it is another comment."""
    found = _DATED.fullmatch(text)
    if found is None or found[1].lower() not in _MONTHS:
        return None
    try:
        return date(int(found[3]), _MONTHS.index(found[1].lower()) + 1, int(found[2]))
    except ValueError:
        return None


def _robot(fields: list[str]) -> Entry | str | None:
    """An active entry, None for an inactive one, or what is wrong."""
    if not 6 <= len(fields) <= 7:
        return f"{len(fields)} fields, not 6 or 7"
    pattern, active, exceptions, needless, impact, at_start, inactive = [*fields, ""][:7]
    parts = tuple(part.strip().lower() for part in exceptions.split(",") if part.strip())
    return _entry(pattern, active, at_start, inactive, parts, (needless, "01"), (impact, "012"))


def _browser(fields: list[str]) -> Entry | str | None:
    if not 3 <= len(fields) <= 4:
        return f"{len(fields)} fields, not 3 or 4"
    pattern, active, at_start, inactive = [*fields, ""][:4]
    return _entry(pattern, active, at_start, inactive)


def _entry(pattern: str, active: str, at_start: str, inactive: str, exceptions: tuple[str, ...] = (), *flags) -> Entry | str | None:
    if not pattern.strip():
        return "an empty pattern"
    for flag, known in ((active, "01"), (at_start, "01"), *flags):
        if len(flag.strip()) != 1 or flag.strip() not in known:
            return f"the flag {flag.strip()[:8]!r} is not one of {', '.join(known)}"
    if not _INACTIVE.fullmatch(inactive.strip()):
        return "the last field is no date such as 12/31/2025"
    return Entry(pattern.lower(), at_start.strip() == "1", exceptions) if active.strip() == "1" else None


class Check:
    """The check compiled for whole batches of texts."""

    def __init__(self, iab: Iab):
        self._two_pass = iab.browsers is not None
        number: dict[bytes, int] = {}

        def needle(text: str, at_start: bool = False) -> int:
            return number.setdefault((START if at_start else b"") + text.encode(), len(number))

        robots = [(needle(e.pattern, e.at_start), [needle(x) for x in e.exceptions]) for e in iab.robots]
        browsers = [needle(e.pattern, e.at_start) for e in iab.browsers or ()]
        self._needles = Needles(list(number))
        self._robot, self._browser, self._doubtful, self._exception = np.zeros((4, len(number)), bool)
        self._browser[browsers] = True
        self._unless: dict[int, list[frozenset[int]]] = {}  # by pattern: the exceptions of each entry
        for pattern, exceptions in robots:
            (self._doubtful if exceptions else self._robot)[pattern] = True
            if exceptions:
                self._exception[exceptions] = True
                self._unless.setdefault(pattern, []).append(frozenset(exceptions))

    def judge(self, texts: list[str]) -> np.ndarray:
        """Which of the texts are robots' user agents: bool."""
        text, needle = self._needles.find([t.lower() for t in texts])
        robot, browser = np.zeros((2, len(texts)), bool)
        robot[text[self._robot[needle]]] = True
        browser[text[self._browser[needle]]] = True
        at = np.flatnonzero(self._doubtful[needle] & ~robot[text])
        excused: dict[int, set[int]] = {}
        doubtful = np.zeros(len(texts), bool)
        doubtful[text[at]] = True
        for where in np.flatnonzero(self._exception[needle] & doubtful[text]).tolist():
            excused.setdefault(int(text[where]), set()).add(int(needle[where]))
        for t, n in zip(text[at].tolist(), needle[at].tolist()):
            if any(unless.isdisjoint(excused.get(t, ())) for unless in self._unless[n]):
                robot[t] = True
        return robot | ~browser if self._two_pass else robot
