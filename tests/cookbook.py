"""docs/cookbook.md read: its questions, and the file of bookings that it shows."""

import re
from pathlib import Path
from typing import NamedTuple

_TEXT = (Path(__file__).resolve().parents[1] / "docs" / "cookbook.md").read_text()


class Question(NamedTuple):
    number: int
    asks: str
    sql: str
    columns: list[str]

    def over(self, dataset: str) -> str:
        return re.sub(r"\bads\.(\w+)", rf"`{dataset}.\1`", self.sql)


def _questions():
    for part in re.split(r"^## ", _TEXT, flags=re.M)[1:]:
        number, asks = re.match(r"(\d+)\. (.+)", part).groups()
        [sql] = re.findall(r"```sql\n(.*?)```", part, re.S)
        [answer] = re.findall(r"^Answer: (.+?)\.(?:\s|\Z)", part, re.M | re.S)
        yield Question(int(number), asks, sql, re.findall(r"`(\w+)`", answer))


QUESTIONS = tuple(_questions())
[BOOKINGS] = re.findall(r"```csv\n(.*?)```", _TEXT, re.S)
