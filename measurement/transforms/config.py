"""What the job's transforms need to know of a run."""

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from measurement.columnar.batch import NO_WATERMARK
from measurement.model.policy import Policy
from measurement.model.tables import Table
from measurement.rules.robots import LIST_VERSION


class Stored(Protocol):
    """Where published rows can be read."""

    def latest(self, table: Table, since: int | None, until: int | None) -> pa.Table:
        """The latest revision of each row of hours from ``since`` to before ``until`` (µs); rows without an hour where
        ``since`` is None."""


@dataclass(frozen=True)
class Rebuilding:
    """A generation that makes the rows of an earlier one anew: nothing is published before the watermark moves, which it
    does when the archive has been read. Hours from ``publish_from`` to before ``publish_until`` (µs; None: no end) are
    rebuilt; with an end, no other is published."""

    stored: Stored
    publish_from: int = NO_WATERMARK
    publish_until: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """``run``: a name no other run has; ``generation`` and when it began (µs) number its revisions."""

    run: str
    generation: int
    began: int
    policy: Policy = field(default_factory=Policy)
    event_shards: int = 4  # of impressions and orders
    delivery_shards: int = 2
    reject_shards: int = 1
    rebuilding: Rebuilding | None = None
    publish_seconds: float = 5.0  # at most so often is a row published while its hour is open

    @property
    def rule_version(self) -> str:
        return self.policy.rule_version(LIST_VERSION)
