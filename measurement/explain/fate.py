"""What the stateful machines made of an accepted copy."""

from dataclasses import dataclass, field

from measurement.columnar.batch import EventBatch
from measurement.explain.copies import Copy
from measurement.model import events as e


@dataclass(eq=False)
class Impression:
    """An impression that follow-ups join, and its verdict (a code of INVALID_REASONS)."""

    copy: Copy
    verdict: int = 0


@dataclass
class Rate:
    """How many distinct events somebody had in the event's hour."""

    kind: str  # user or ip
    events: int
    most: int


@dataclass(eq=False)
class Fate:
    """``outcome`` is one of the contract's, and meanwhile None while it waits and ``STANDS`` while it may yet change."""

    copy: Copy
    outcome: str | None = None
    first: Copy | None = None  # of a duplicate or a conflict: the copy that came first
    verdict: int = 0  # its own
    impression: Impression | None = None  # that it joined
    waited: bool = False  # for its impression
    apart: list[Copy] = field(default_factory=list)  # of an orphan: impressions of its impression_id that it could not join
    stands: Copy | None = None  # of a conversion that names an order: the one that stands
    orders: int = 0  # and how many conversions the order has
    rates: list[Rate] = field(default_factory=list)
    earlier: list[EventBatch] = field(default_factory=list)  # follow-ups of its impression that were read before it
    adds: dict[str, int] = field(default_factory=dict)  # to its delivery row
    alone: dict[str, int] = field(default_factory=dict)  # what it would add if nothing else followed its impression

    @property
    def followup(self) -> bool:
        return self.copy.row["type"] not in (e.IMPRESSION, e.CONVERSION)

    @property
    def reason(self) -> str:
        """Why it is invalid, empty where it is not."""
        return e.INVALID_REASONS[self.verdict or (self.impression.verdict if self.impression else 0)]

    @property
    def head(self) -> Copy | None:
        """Under whose hour and dimensions it stands: its impression's, or its own."""
        if self.followup:
            return self.impression.copy if self.impression else None
        return self.copy


STANDS = "stands"
