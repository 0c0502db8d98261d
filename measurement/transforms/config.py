"""What the job's transforms need to know of a run."""

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from measurement.columnar.batch import NO_WATERMARK
from measurement.model.policy import Policy
from measurement.model.tables import ATTRIBUTION, CREDITS, Table


class Stored(Protocol):
    """Where published rows can be read."""

    def latest(self, table: Table, since: int | None, until: int | None) -> list[pa.Table]:
        """At each place that has the table, the latest revision of each row of hours from ``since`` to before ``until`` (µs);
        rows without an hour where ``since`` is None. All have the schema that the table is published with."""


@dataclass(frozen=True)
class Rebuilding:
    """A generation that makes the rows of an earlier one anew: nothing is published before the watermark moves, which it
    does when the archive has been read. Hours from ``publish_from`` to before ``publish_until`` (µs; None: no end) are
    rebuilt, conversions' credits from ``credit_from`` (µs); with an end, no other is published."""

    stored: Stored
    publish_from: int = NO_WATERMARK
    publish_until: int | None = None
    credit_from: int = NO_WATERMARK

    def has(self, time: int) -> bool:
        """Whether a time (µs) is of the rebuilt hours."""
        return self.publish_from <= time and (self.publish_until is None or time < self.publish_until)

    def first(self, table: Table) -> int:
        """From when on (µs) a table's rows are rebuilt."""
        return max(self.publish_from, self.credit_from) if table in (CREDITS, ATTRIBUTION) else self.publish_from


@dataclass(frozen=True)
class RunConfig:
    """``run``: a name no other run has; ``generation`` and when it began (µs) number its revisions."""

    run: str
    generation: int
    began: int
    policy: Policy = field(default_factory=Policy)
    event_shards: int = 4  # of impressions
    user_shards: int = 2
    delivery_shards: int = 2  # of the totals of large tables
    reject_shards: int = 1
    order_shards: int = 1  # few conversions name an order, and each part of an element costs as much as the element
    rate_shards: int = 2  # of users and addresses
    rebuilding: Rebuilding | None = None
    publish_seconds: float = 5.0  # at most so often is a row published while its hour is open

    @property
    def rule_version(self) -> str:
        return self.policy.rule_version
