"""Declared robots by user agent: general invalid traffic (GIVT), MRC Invalid Traffic Detection and Filtration
Standards Addendum (2020), section 1: known bots and spiders by a maintained list.

The list is the openly licensed package crawler-user-agents (MIT), beside it the IAB's where the policy points at it. The
open list's entries are regular expressions, most of them plain texts. All plain texts are searched in one pass over all
user agents; so is, for each of the few other expressions, a text without which it cannot match, and only where that
stands the expression itself is tried.
"""

import re
from datetime import datetime
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

import crawleruseragents
import numpy as np

from measurement.columnar.needles import END, START, Needles
from measurement.model.lists import ListFacts, checksum
from measurement.rules import iab

# A user agent is judged by its first characters alone: real ones are some hundred, and patterns searched in a text of
# megabytes would make one hostile event stall its batch.
JUDGED_CHARACTERS = 2_000
JUDGED_BYTES = 4 * JUDGED_CHARACTERS  # so many of UTF-8 hold them, whatever they are

_PACKAGE = "crawler-user-agents"
_ENTRIES = crawleruseragents.CRAWLER_USER_AGENTS_DATA

# An escape, a class, a count, or one character.
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{[^}]*\}|.", re.DOTALL)


def found_in(user_agent: str) -> list[str]:
    """The open list's expressions that declare the user agent a robot."""
    return [_ENTRIES[i]["pattern"] for i in crawleruseragents.matching_crawlers(user_agent[:JUDGED_CHARACTERS])]


@lru_cache(maxsize=1)
def facts() -> ListFacts:
    """What is known of the open list; its date is the latest of its entries'."""
    data = Path(crawleruseragents.__file__).with_name(f"{_PACKAGE}.json").read_bytes()
    added = [datetime.strptime(entry["addition_date"], "%Y/%m/%d").date() for entry in _ENTRIES if "addition_date" in entry]
    return ListFacts(_PACKAGE, "robot", version(_PACKAGE), max(added, default=None), len(_ENTRIES), checksum(data))


class Robots:
    """Judges user agents by the open list and, if given, the IAB's. ``facts`` are the lists'.

    It travels as the IAB's entries alone and is built anew where it arrives; there the open list must be the same.
    """

    def __init__(self, licensed: iab.Iab | None = None):
        self._licensed = licensed
        self.facts = (facts(), *(licensed.facts if licensed else ()))

    @cached_property
    def _checks(self) -> list:
        return [_open()] + ([iab.Check(self._licensed)] if self._licensed else [])

    def __reduce__(self):
        return _rebuilt, (self._licensed, facts())

    def judge(self, texts: list[str]) -> np.ndarray:
        """Which of the texts are robots' user agents: bool."""
        judged = [text[:JUDGED_CHARACTERS] for text in texts]
        return np.logical_or.reduce([check.judge(judged) for check in self._checks])


def _rebuilt(licensed: iab.Iab | None, meant: ListFacts) -> Robots:
    if facts() != meant:
        raise RuntimeError(f"the list of robots here is {facts().stamp}, the run's is {meant.stamp}: install the same package")
    return Robots(licensed)


@lru_cache(maxsize=1)
def _open() -> "_Expressions":
    return _Expressions([entry["pattern"] for entry in _ENTRIES])


class _Expressions:
    """Regular expressions as Python's ``re`` reads them, searched in whole batches of texts."""

    def __init__(self, patterns: list[str]):
        number: dict[bytes, int] = {}
        certain: list[int] = []
        self._tried: dict[int, list[re.Pattern]] = {}  # by needle
        self._always: list[re.Pattern] = []
        for pattern in patterns:
            plain = _plain(pattern)
            needed = _needed(pattern) if plain is None else []
            certain += [number.setdefault(needle, len(number)) for needle in plain or ()]
            if None in needed:
                self._always.append(re.compile(pattern))
                continue
            for needle in needed:
                self._tried.setdefault(number.setdefault(needle, len(number)), []).append(re.compile(pattern))
        self._needles = Needles(list(number))
        self._certain = np.zeros(len(number), bool)
        self._certain[certain] = True
        self._doubtful = np.zeros(len(number), bool)
        self._doubtful[list(self._tried)] = True

    def judge(self, texts: list[str]) -> np.ndarray:
        """In which of the texts one of the expressions is found: bool."""
        text, needle = self._needles.find(texts)
        out = np.zeros(len(texts), bool)
        out[text[self._certain[needle]]] = True
        at = np.flatnonzero(self._doubtful[needle] & ~out[text])
        for t, n in zip(text[at].tolist(), needle[at].tolist()):
            out[t] = out[t] or any(pattern.search(texts[t]) for pattern in self._tried[n])
        if self._always:
            for t in np.flatnonzero(~out).tolist():
                out[t] = any(pattern.search(texts[t]) for pattern in self._always)
        return out


def _literal(token: str) -> str | None:
    """The one character that a token of an expression stands for, None if it is more."""
    if len(token) == 2 and token[0] == "\\":
        return None if token[1].isalnum() else token[1]
    return token if len(token) == 1 and token not in "\\.^$*+?{}[]()|" else None


def _plain(pattern: str) -> list[bytes] | None:
    """The needles of which one is in a text exactly if the pattern matches; None if it is no plain text, anchored or not."""
    tokens = _TOKEN.findall(pattern)
    start = START if tokens[:1] == ["^"] else b""
    at_end = tokens[-1:] == ["$"]
    characters = [_literal(token) for token in tokens[len(start) : len(tokens) - at_end]]
    if not characters or None in characters:
        return None
    needle = start + "".join(characters).encode()
    # In Python ``$`` also matches in front of a last line's end.
    return [needle + END, needle + b"\n" + END] if at_end else [needle]


def _needed(pattern: str) -> list[bytes | None]:
    """For each alternative the longest plain text in every match of it, None where there is none to be seen."""
    runs: list[list[str]] = [[""]]
    depth = 0
    for token in _TOKEN.findall(pattern):
        character = _literal(token)
        if token == "|" and depth == 0:
            runs.append([""])
        elif character is not None and depth == 0:
            runs[-1][-1] += character
        else:
            depth += (token == "(") - (token == ")")
            if depth == 0 and token[0] in "*?{":
                runs[-1][-1] = runs[-1][-1][:-1]  # it may be there no time
            runs[-1].append("")
    return [max(alternative, key=len).encode() or None for alternative in runs]
