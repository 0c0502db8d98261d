"""The policy file: what a run counts by, checked whole before anything starts (contract sections 2, 4 and 6)."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.rules.viewability import Viewability

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class PolicyError(ValueError):
    """A policy that cannot be used; the message is one line naming file and key."""


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
    digest: str = "default"  # of the file's text; part of rule_version

    def rule_version(self, robots: str) -> str:
        return f"counting-1 robots:{robots} policy:{self.digest}"


_KNOWN = {
    "": {"counting", "attribution", "screening"},
    "counting": {"dedup_horizon", "join_horizon", "allowed_lateness", "viewability"},
    "counting.viewability": set(Viewability._fields),
}
_ATTRIBUTION = {"model", "models", "click_lookback", "view_lookback", "priority", "half_life", "position_weights"}


def load(path: Path) -> Policy:
    """Reads a policy; PolicyError in one line for an unreadable file, an unknown key or a value out of range."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PolicyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    tree = {} if tree is None else tree
    _check_keys(path, "", tree)
    _check_attribution(path, tree.get("attribution") or {})
    if tree.get("screening"):
        # Counting without the rules would bill by others than the file says. Attribution changes no count made here.
        raise PolicyError(f"{path}: screening: only declared robots are screened yet; leave the key out")
    counting = tree.get("counting") or {}
    given = {
        key: _duration(path, f"counting.{key}", counting[key])
        for key in ("dedup_horizon", "join_horizon", "allowed_lateness") if key in counting
    }
    made = Counting(**given, viewability=_viewability(path, counting.get("viewability") or {}))
    if made.dedup_horizon < MICROS_PER_HOUR or made.join_horizon < MICROS_PER_SECOND:
        raise PolicyError(f"{path}: counting: dedup_horizon must be at least 1h and join_horizon at least 1s")
    return Policy(made, hashlib.sha256(text.encode()).hexdigest()[:8])


def _check_attribution(path: Path, tree) -> None:
    """The shape alone: what the values mean is for attribution to say."""
    _only(path, "attribution", tree, {"default", "advertisers"})
    policies = {"attribution.default": tree.get("default") or {}}
    advertisers = tree.get("advertisers") or {}
    _only(path, "attribution.advertisers", advertisers, None)
    policies |= {f"attribution.advertisers.{name}": below or {} for name, below in advertisers.items()}
    for at, below in policies.items():
        _only(path, at, below, _ATTRIBUTION)


def _only(path: Path, at: str, tree, known: set[str] | None) -> None:
    if not isinstance(tree, dict):
        raise PolicyError(f"{path}: {at or 'the file'} must be a mapping of keys, not {type(tree).__name__}")
    for key in tree:
        if known is not None and key not in known:
            name = f"{at}.{key}" if at else key
            raise PolicyError(f"{path}: unknown key {name!r}; known here: {', '.join(sorted(known))}")


def _check_keys(path: Path, at: str, tree) -> None:
    _only(path, at, tree, _KNOWN[at])
    for key, value in tree.items():
        below = f"{at}.{key}" if at else key
        if below in _KNOWN and value is not None:
            _check_keys(path, below, value)


def _duration(path: Path, key: str, value) -> int:
    """µs of a duration such as 30d, 24h, 10m or 90s."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise PolicyError(f"{path}: {key}: {value!r} is no duration such as 7d, 24h, 10m or 90s")
    return int(match[1]) * _UNITS[match[2]] * MICROS_PER_SECOND


def _viewability(path: Path, tree: dict) -> Viewability:
    for key, value in tree.items():
        top = 100 if key.endswith("percent") else 3_600_000
        if type(value) is not int or not 0 <= value <= top:
            raise PolicyError(f"{path}: counting.viewability.{key}: {value!r} is no whole number from 0 to {top}")
    return Viewability(**tree)
