"""The screening lists in force, as a person sees them: version, date, age, checksum, and a warning for what is to be renewed.

A table on a terminal, plain lines elsewhere; warnings go to standard error and fail nothing.
"""

import json
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from measurement.model import policy as policies
from measurement.model.lists import STALE_DAYS, ListFacts

_COLUMNS = ("list", "reason", "entries", "version", "date", "age in days", "checksum")
_NUMBERS = ("entries", "age in days")


def lists_in_force(policy: Path | None) -> list[ListFacts]:
    """The lists that events are screened by under a policy, the open one first; PolicyError for a policy or a file of its
    that cannot be used."""
    return policies.given(policy).screening.lists


def show(lists: list[ListFacts], today: date) -> None:
    """Prints the lists; those that are stale are marked with ``!``, and named on standard error."""
    console = Console(highlight=False, markup=False)  # a file may be called anything
    rows = [_row(one, today) for one in lists]
    if console.is_terminal:
        table = Table()
        for column in _COLUMNS:
            table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
        for one, row in zip(lists, rows):
            table.add_row(*row, style="bold red" if one.stale(today) else None)
        console.print(table)
    else:
        print("\t".join(_COLUMNS))
        for row in rows:
            print("\t".join(row))
    warn(lists, today)


def show_json(lists: list[ListFacts], today: date) -> None:
    """The same for machines: an array of objects."""
    print(json.dumps([asdict(one) | {"age_days": one.age(today), "stale": one.stale(today)} for one in lists], default=str))
    warn(lists, today)


def warn(lists: list[ListFacts], today: date) -> None:
    """A line on standard error for each list that is to be renewed."""
    for one in lists:
        if one.stale(today):
            age = one.age(today)
            told = "its age is not known" if age is None else f"it is {age} days old, more than {STALE_DAYS}"
            print(f"measurement: warning: the list {one.name} ({one.reason}): {told}", file=sys.stderr)


def _row(one: ListFacts, today: date) -> tuple[str, ...]:
    age = one.age(today)
    told = "unknown" if age is None else f"{age:,}"
    return (one.name, one.reason, f"{one.entries:,}", one.version or "-", str(one.date or "-"),
            f"{told} !" if one.stale(today) else told, one.checksum)
