"""All that is told of one copy."""

from dataclasses import dataclass, field

from measurement.explain.copies import Copy
from measurement.explain.fate import Fate
from measurement.explain.said import Said
from measurement.explain.steps import Step, dimensions, hour, outcome
from measurement.explain.tables import Row
from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_HOUR, MIN_TIME_MICROS
from measurement.model.revisions import GENERATION_BITS


@dataclass(frozen=True)
class Check:
    table: str
    agrees: bool
    says: str


@dataclass(frozen=True)
class Revision:
    """One publication of a delivery row; ``changed``: counts before and after."""

    row: Row
    changed: dict[str, tuple[int, int]]

    @property
    def text(self) -> str:
        generation, n = divmod(self.row["revision"], 1 << GENERATION_BITS)
        return f"{generation}.{n}"


@dataclass(eq=False)
class Story:
    """``fate`` is of an accepted copy alone. ``refused``: of an orphan the rejects of its impression."""

    copy: Copy
    said: Said
    fate: Fate | None
    steps: list[Step]
    checks: list[Check] = field(default_factory=list)
    history: list[Revision] = field(default_factory=list)
    credits: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)

    @property
    def outcome(self) -> str | None:
        """None while it waits."""
        return self.copy.refused[0] if self.fate is None else self.fate.outcome

    @property
    def shadowed(self) -> bool:
        """Whether another copy counts for the same identity, so that what the tables credit is that one's."""
        return self.fate is not None and self.fate.first is not None

    @property
    def reason(self) -> str:
        """Of invalid traffic."""
        return self.fate.reason if self.outcome == "invalid_traffic" else ""

    @property
    def told(self) -> str | None:
        """The outcome that the steps lead to."""
        return outcome(self.steps)

    @property
    def entry(self) -> tuple[int | None, str, str | None, str | None]:
        """Its row of the ledger: its own hour, source, type and outcome."""
        time, kind = self.said.get("event_time"), self.said.get("event_type")
        readable = time is not None and MIN_TIME_MICROS <= time <= MAX_TIME_MICROS
        return time // MICROS_PER_HOUR * MICROS_PER_HOUR if readable else None, self.copy.ledger_source, kind, self.outcome

    @property
    def hour(self) -> int:
        """That it is counted under."""
        return hour(self.fate.head)

    @property
    def dimensions(self) -> dict[str, str | None]:
        """That it is counted under."""
        return dimensions(self.fate.head)

    @property
    def is_touch(self) -> bool:
        """Whether conversions may be credited to it."""
        return self.outcome == "counted" and self.said.get("event_type") in ("impression", "click") and self.has_user

    @property
    def has_user(self) -> bool:
        return bool(self.fate.copy.row["user_hi"] | self.fate.copy.row["user_lo"])

    @property
    def agrees(self) -> bool:
        return all(check.agrees for check in self.checks)
