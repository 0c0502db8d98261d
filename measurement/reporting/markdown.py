"""Markdown from values and from docstrings."""

import re
from collections.abc import Iterable
from inspect import cleandoc
from textwrap import fill

WIDTH = 130


def prose(*sentences: str) -> str:
    """A paragraph."""
    return _filled(" ".join(sentences))


def points(items: Iterable[str]) -> str:
    """A list of points."""
    return "\n".join(_filled(item, initial_indent="- ", subsequent_indent="  ") for item in items)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; what is None is left blank."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


def listed(names: Iterable[str]) -> str:
    """Names as code, with commas."""
    return ", ".join(map(code, names))


def of_docstring(text: str) -> str:
    """A docstring: its paragraphs and points as they are, what is indented as a block of code."""
    out, block = [], []

    def close() -> None:
        if block:
            out.extend(["", "```", *block, "```", ""])
            block.clear()

    for line in cleandoc(text).splitlines():
        if line.startswith("  ") and not _of_point(out, block):
            block.append(line)
        else:
            close()
            out.append(line)
    close()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def _filled(text: str, **indents: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False, **indents)


def _of_point(out: list[str], block: list[str]) -> bool:
    """Whether an indented line goes on with a point of a list."""
    return not block and bool(out) and out[-1].startswith(("- ", "  "))


def _cell(text: str | None) -> str:
    return "" if text is None else " ".join(str(text).split()).replace("|", "\\|")
