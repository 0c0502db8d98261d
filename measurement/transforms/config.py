"""What the job's transforms need to know of a run."""

from dataclasses import dataclass, field

from measurement.model.policy import Policy
from measurement.rules.robots import LIST_VERSION


@dataclass(frozen=True)
class RunConfig:
    """``run``: a name no other run has; ``generation`` and when it began (µs) number its revisions."""

    run: str
    generation: int
    began: int
    policy: Policy = field(default_factory=Policy)
    event_shards: int = 4  # of impressions and orders
    delivery_shards: int = 2
    publish_seconds: float = 5.0  # at most so often is a row published while its hour is open

    @property
    def rule_version(self) -> str:
        return self.policy.rule_version(LIST_VERSION)
