"""What is so at several looks running. Behind an outage a sink writes what it held in any order, table by table: for some looks one
table has what the other will have."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

K = TypeVar("K")
LOOKS = 3


class Lasting:
    """Keys by how many looks in a row they were wrong."""

    def __init__(self):
        self._looks: dict = {}

    def look(self, wrong: Iterable[K]) -> None:
        self._looks = {key: self._looks.get(key, 0) + 1 for key in wrong}

    def of(self, wrong: Mapping[K, object]) -> dict:
        """Those of ``wrong``, which the last look was given, that have been so for LOOKS."""
        return {key: value for key, value in wrong.items() if self._looks.get(key, 0) >= LOOKS}
