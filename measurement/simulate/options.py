"""What may be asked of the generator, and what it answers."""

from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measurement.model.policy import Counting, Policy, PolicyError, load

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Options that add events of their own beside the clean ones; their sum must leave room for at least one clean event.
ADDING = (
    "resend_rate", "conflict_rate", "missing_rate", "unknown_type_rate",
    "bad_value_rate", "future_rate", "too_late_rate", "undecodable_rate",
)


@dataclass(frozen=True)
class SimulateOptions:
    """One log: its size, its seed, its span and how much of each trouble it holds. Rates are shares, 0 to 1."""

    events: int  # all events in the files, resent and broken ones included
    seed: int = 0
    start: datetime = datetime(2026, 3, 2, tzinfo=UTC)
    hours: float = 24  # span of the impressions' event times; what follows them may come up to 6 h after its end
    files: int = 3  # at most; a small log has fewer, so that each file's own watermark gets going
    jitter_seconds: float = 2.0  # mean of the random part of an event's way to the collector; 0: files in time order
    late_rate: float = 0.01  # of all events, from mobile clients, 10 min to 6 h on their way
    resend_rate: float = 0.05  # of all events: a second sending of the same content, seconds to 6 h later
    conflict_rate: float = 0.0005  # of all events: a second content under an identity already used
    orphan_rate: float = 0.002  # of all events, about: follow-ups of impressions never sent
    robot_rate: float = 0.03  # of impressions, and of clicks on people's impressions
    order_repeat_rate: float = 0.08  # of orders: reported a second time under another event_id
    missing_rate: float = 0.001  # this and the following: of all events
    unknown_type_rate: float = 0.0004
    bad_value_rate: float = 0.0008
    future_rate: float = 0.0003
    too_late_rate: float = 0.0003
    undecodable_rate: float = 0.0002
    policy: Path | None = None  # what the truth's credits follow; the default policy without it
    screening: bool = False  # also traffic to be screened, and beside the log the policy that screens it
    consent: str = "drop_user"  # with screening: what becomes of events without a needed consent; or "reject"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_rate") and not 0 <= value <= 1:
                raise ValueError(f"{_flag(field.name)}: a share from 0 to 1, not {value}")
        if self.events < 1:
            raise ValueError(f"--events: at least 1, not {self.events}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed: 0 or more and below 2**63, not {self.seed}")
        if not 0 < self.hours <= 240:
            raise ValueError(f"--hours: more than 0, at most 240, not {self.hours}")
        if not 1 <= self.files <= 64:
            raise ValueError(f"--files: 1 to 64, not {self.files}")
        if not 0 <= self.jitter_seconds <= 60:
            raise ValueError(f"--jitter-seconds: 0 to 60, not {self.jitter_seconds}")
        if self.start.tzinfo is None or not 1970 < self.start.year < 9999:
            raise ValueError(f"--start: a time with its zone, in the years 1971 to 9998, not {self.start.isoformat()}")
        if self.consent not in ("drop_user", "reject"):
            raise ValueError(f"--consent: drop_user or reject, not {self.consent}")
        if self.consent != "drop_user" and not self.screening:
            raise ValueError("--consent: only with --screening")
        if self.policy is not None and self.screening:
            raise ValueError("--policy: a log with --screening brings its own")
        if sum(getattr(self, name) for name in ADDING) >= 1:
            raise ValueError(f"{', '.join(map(_flag, ADDING))}: together less than 1")

    def number(self, rate: str) -> int:
        """Events that the option named `rate` adds to the log: rounded down, so that a clean event always remains."""
        return int(self.events * getattr(self, rate) + 1e-6)

    @property
    def start_micros(self) -> int:
        return (self.start - EPOCH) // timedelta(microseconds=1)

    def as_json(self) -> dict:
        """All but the policy, which is known by what it says and not by where it lay."""
        given = asdict(self) | {"start": self.start.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        del given["policy"]
        return given


def policy_of(options: SimulateOptions) -> Policy:
    """The policy of the credits; PolicyError for one that counts otherwise than outcomes and delivery do here."""
    if options.policy is None:
        return Policy()
    policy = load(options.policy)
    known = Counting()
    if replace(policy.counting, allowed_lateness=known.allowed_lateness) != known:  # lateness changes no final figure
        raise PolicyError(f"{options.policy}: counting: a simulated log's truth counts by the defaults; leave it out")
    return policy


@dataclass(frozen=True)
class Summary:
    """What was written."""

    files: tuple[Path, ...]
    truth: Path
    events: int
    bytes: int  # of the event files
    outcomes: dict[str, int]
    delivery_rows: int


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
