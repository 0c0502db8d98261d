"""What the tables hold and how far the job is, for `measurement status`."""

from dataclasses import dataclass
from datetime import datetime

from measurement.monitors.ledger import Query, Result, complete_until, tables
from measurement.monitors.levels import Levels

_HOURS = """
SELECT worst, count(*) FROM (
  SELECT window_start, CASE WHEN logical_or(status = 'provisional') THEN 'provisional'
    WHEN logical_or(status = 'restated') THEN 'restated' ELSE 'final' END AS worst
  FROM {delivery} GROUP BY 1) AS hours GROUP BY 1
"""
# Conversions that stand, and those of them that a touch has earned; each once, whatever models credit it.
CREDITED = """
SELECT count(*) AS credited, count(touched) AS touched FROM (
  SELECT max(touch_id) AS touched FROM {conversion_credits} WHERE credit > 0
  GROUP BY advertiser_id, conversion_id, conversion_time) AS conversions
"""


@dataclass
class Status:
    generation: int
    state: str
    began: datetime
    ended: datetime | None
    complete_until: datetime | None  # hours before it are closed
    received: int
    outcomes: dict[str, int]
    hours: dict[str, int]  # by the status of their delivery rows
    credited: int  # conversions
    touched: int  # those of them that a touch has earned
    balanced: bool | None  # None while too little is settled to tell
    levels: Levels

    @property
    def healthy(self) -> bool:
        """Whether the job is as it should be, the ledger balances and no level is broken."""
        return self.state in ("running", "complete", "ended") and self.balanced is not False and not self.levels.broken


def of_tables(query: Query, dataset: str, result: Result, generation: int, began: datetime, ended: datetime | None,
              levels: Levels) -> Status:
    hours = {worst: int(n) for worst, n in query(_HOURS.format(**tables(dataset)))}
    [(credited, touched)] = query(CREDITED.format(**tables(dataset)))
    told = result.holds if result.settled is not None or not result.under_way else None
    return Status(generation, result.state, began, ended, complete_until(query, dataset), result.received, result.outcomes, hours,
                  int(credited), int(touched), told, levels)
