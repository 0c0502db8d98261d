"""The policy file: what a run counts by, checked whole before anything starts (contract sections 2, 4 and 6)."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from measurement.model import attribution, screening
from measurement.model.attribution import Attribution
from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.model.policy_file import PolicyError, duration, only, tree_of
from measurement.model.screening import Screening
from measurement.rules.viewability import Viewability


@dataclass(frozen=True)
class Counting:
    """Horizons of counting, µs of event time."""

    dedup_horizon: int = 7 * 24 * MICROS_PER_HOUR
    join_horizon: int = 24 * MICROS_PER_HOUR
    allowed_lateness: int = 600 * MICROS_PER_SECOND
    viewability: Viewability = Viewability()


@dataclass(frozen=True)
class Policy:
    counting: Counting = field(default_factory=Counting)
    attribution: Attribution = field(default_factory=Attribution)
    screening: Screening = field(default_factory=Screening)
    digest: str = "default"  # of the file's text; part of rule_version

    @property
    def rule_version(self) -> str:
        """The rules, the policy and every list that events are counted by."""
        return " ".join([f"counting-2 policy:{self.digest}", *(found.stamp for found in self.screening.lists)])


def given(path: Path | None) -> Policy:
    """The policy of a file, or the default without one; PolicyError as ``load``."""
    return Policy() if path is None else load(path)


_KNOWN = {
    "": {"counting", "attribution", "screening"},
    "counting": {"dedup_horizon", "join_horizon", "allowed_lateness", "viewability"},
    "counting.viewability": {*Viewability._fields, "duration_weighting"},
}


def load(path: Path) -> Policy:
    """Reads a policy; PolicyError in one line for an unreadable file, an unknown key or a value out of range."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    tree = tree_of(path, text)
    tree = {} if tree is None else tree
    _check_keys(path, "", tree)
    credited = attribution.parse(path, tree.get("attribution"))
    screened = screening.parse(path, tree.get("screening"))
    counting = tree.get("counting") or {}
    given = {
        key: duration(path, f"counting.{key}", counting[key])
        for key in ("dedup_horizon", "join_horizon", "allowed_lateness") if key in counting
    }
    made = Counting(**given, viewability=_viewability(path, counting.get("viewability") or {}))
    if made.dedup_horizon < MICROS_PER_HOUR or made.join_horizon < MICROS_PER_SECOND:
        raise PolicyError(f"{path}: counting: dedup_horizon must be at least 1h and join_horizon at least 1s")
    return Policy(made, credited, screened, hashlib.sha256(text.encode()).hexdigest()[:8])


def _check_keys(path: Path, at: str, tree) -> None:
    only(path, at, tree, _KNOWN[at])
    for key, value in tree.items():
        below = f"{at}.{key}" if at else key
        if below in _KNOWN and value is not None:
            _check_keys(path, below, value)


def _viewability(path: Path, tree: dict) -> Viewability:
    if tree.get("duration_weighting", False) is not False:
        raise PolicyError(f"{path}: counting.viewability.duration_weighting: no count is weighted by duration yet; leave it out or false")
    tree = {key: value for key, value in tree.items() if key != "duration_weighting"}
    for key, value in tree.items():
        top = 100_000_000 if key.endswith("pixels") else 100 if key.endswith("percent") else 3_600_000
        if type(value) is not int or not 0 <= value <= top:
            raise PolicyError(f"{path}: counting.viewability.{key}: {value!r} is no whole number from 0 to {top}")
    return Viewability(**tree)
