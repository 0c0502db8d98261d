"""A file to read, as the command that names it and the source that reads it both know it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputFile:
    """The name that it has in the tables, and its reader's clock (µs), the receipt of events without one."""

    path: str
    name: str
    clock: int
    replay: bool = False
