"""Many fixed strings searched in many texts in one pass: the automaton of Aho and Corasick ("Efficient string matching: an
aid to bibliographic search", CACM 18(6), 1975), compiled.

A step costs one table entry, whatever the number of strings, and no text makes it go back: the time is linear in the
texts' bytes. Every text stands between two bytes that UTF-8 never has, so a needle can ask for its beginning or its end.
"""

import numpy as np
from numba import njit

START, END = b"\xff", b"\xfe"


@njit(cache=True, nogil=True)
def _scan(buf, bounds, at, classes, step, needle_of, shorter, seen, texts, needles):
    """Pairs of text and needle from text ``at`` on, while there is room for a text that has them all.

    Returns the text to go on with and the number of pairs.
    """
    count = 0
    while at < len(bounds) - 1 and len(texts) - count >= len(seen):
        state = 0
        for i in range(bounds[at], bounds[at + 1]):
            move = step[state, classes[buf[i]]]
            state = move >> 1
            if move & 1:
                ending = state if needle_of[state] >= 0 else shorter[state]
                while ending > 0:
                    needle = needle_of[ending]
                    if seen[needle] != at:
                        seen[needle] = at
                        texts[count], needles[count] = at, needle
                        count += 1
                    ending = shorter[ending]
        at += 1
    return at, count


class Needles:
    """Distinct byte strings, none empty, numbered as given; ``START + needle`` stands only at a text's beginning, and
    ``needle + END`` at its end."""

    def __init__(self, needles: list[bytes]):
        children: list[dict[int, int]] = [{}]
        needle_of = [-1]
        for number, needle in enumerate(needles):
            state = 0
            for byte in needle:
                if byte not in children[state]:
                    children[state][byte] = len(children)
                    children.append({})
                    needle_of.append(-1)
                state = children[state][byte]
            needle_of[state] = number
        used = sorted(set(b"".join(needles)))
        self._classes = np.zeros(256, np.uint8 if len(used) < 256 else np.uint16)  # 0: in no needle
        self._classes[used] = np.arange(1, len(used) + 1)
        self._count = len(needles)
        self._needle_of = np.array(needle_of, np.int32)
        # ``shorter``: the longest proper suffix that is a needle. A state's row is its longest suffix's, but for its children.
        suffix, self._shorter = np.zeros(len(children), np.int32), np.zeros(len(children), np.int32)
        step = np.zeros((len(children), len(used) + 1), np.int32)
        order = [0]
        for state in order:
            row = step[state]
            row[:] = step[suffix[state]]
            for byte, child in children[state].items():
                at = self._classes[byte]
                to = suffix[child] = row[at]
                self._shorter[child] = to if needle_of[to] >= 0 else self._shorter[to]
                row[at] = child
                order.append(child)
        ends = (self._needle_of >= 0) | (self._shorter > 0)
        self._step = step << 1 | ends[step]

    def find(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(text, needle), both int32: each needle that is in a text, once; in order of the texts."""
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        buf = np.frombuffer(START + (END + START).join(raw) + END, np.uint8)
        bounds = np.zeros(len(raw) + 1, np.int64)
        np.cumsum([len(r) + 2 for r in raw], out=bounds[1:])
        seen = np.full(self._count, -1, np.int32)
        where, which = (np.empty(len(raw) + self._count, np.int32) for _ in range(2))
        found, at = [], 0
        while at < len(raw):
            at, count = _scan(buf, bounds, at, self._classes, self._step, self._needle_of, self._shorter, seen, where, which)
            found.append((where[:count].copy(), which[:count].copy()))
        return tuple(np.concatenate(column) if found else np.empty(0, np.int32) for column in (zip(*found) if found else ((), ())))
