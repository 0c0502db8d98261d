"""The service levels' targets, read from a file: what is promised, how fast a budget may burn, and who is told.

Alerts by several windows: Google's SRE Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts".
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib import resources
from pathlib import Path

from measurement.model.events import MICROS_PER_SECOND, OUTCOMES, REJECTED
from measurement.model.policy_file import PolicyError, duration, duration_text, only, tree_of

MOST_WINDOW = 3 * 24 * 3600 * MICROS_PER_SECOND


class Severity(StrEnum):
    """How loud an alert is: a page wakes somebody, a ticket waits for the morning."""

    page = "page"
    ticket = "ticket"


@dataclass(frozen=True)
class Level:
    """One service level. ``target``: the share of 1 of what is judged that must be as promised. Times are µs. Which of the others
    a level has is what config/slo.yaml gives it; docs/reliability.md says what they mean."""

    name: str
    target: float
    severity: Severity
    at_most: int = 0
    silent: int = 0
    settle: int = 0
    reconcile: int = 0
    z: float = 0.0
    least: float = 0.0
    events: int = 0
    share: float = 0.0
    expected: int = 0
    every: int = 0
    by_time: bool = False  # what is judged are minutes, of which there are as many as there are


@dataclass(frozen=True)
class Window:
    """An alert fires where both the ``long`` and the ``short`` window (µs) burn the budget ``burn`` times as fast as 30 days
    would spend it, and is over when one of them does not."""

    burn: float
    long: int
    short: int
    severity: Severity

    @property
    def name(self) -> str:
        return duration_text(self.long)


@dataclass(frozen=True)
class Slo:
    levels: dict[str, Level]
    windows: tuple[Window, ...]
    flights: dict[str, int] = field(default_factory=dict)  # by campaign_id: when it ended (µs)


_TIMES = {"at_most", "silent", "settle", "reconcile", "every"}
_NUMBERS = {"z": 1_000.0, "least": 1.0, "share": 1.0, "target": 100.0}
_MOST_EVENTS = 1_000_000_000
_BY_THINGS = {"latency", "probe"}  # levels of which events or probes are judged
# The reasons of rejection, each a level of its own, in the contract's order.
REASONS = tuple(f"rejected_{reason}" for reason in OUTCOMES if reason in REJECTED)


def given(path: Path | None) -> Slo:
    """The levels of a file, what it leaves out as in config/slo.yaml. PolicyError in one line for what is wrong with it."""
    with resources.as_file(resources.files("config").joinpath("slo.yaml")) as shipped:
        default = _tree(shipped)
    if path is None:
        return _parse(shipped, default)
    tree = _tree(path)
    only(path, "", tree, set(default))
    levels = tree.get("levels") or {}
    only(path, "levels", levels, set(default["levels"]))
    for name, level in levels.items():
        only(path, f"levels.{name}", level, set(default["levels"][name]))
    merged = {name: {**level, **levels.get(name, {})} for name, level in default["levels"].items()}
    return _parse(path, {**default, **{k: v for k, v in tree.items() if v is not None}, "levels": merged})


def _tree(path: Path) -> dict:
    try:
        return tree_of(path, path.read_text()) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error


def _parse(path: Path, tree: dict) -> Slo:
    levels: dict[str, Level] = {}
    for name, given in tree["levels"].items():
        for each in REASONS if name == "rejected" else (name,):
            values = {key: _value(path, f"levels.{name}.{key}", key, value) for key, value in given.items()}
            levels[each] = Level(each, **values, by_time=name not in _BY_THINGS)
    if not isinstance(tree["windows"], list) or not tree["windows"]:
        raise PolicyError(f"{path}: windows: must list the windows that alerts go by")
    windows = tuple(_window(path, i, window) for i, window in enumerate(tree["windows"]))
    if len({w.long for w in windows}) < len(windows):
        raise PolicyError(f"{path}: windows: two have the same long window, by which their alerts are known")
    flights = tree.get("flights") or {}
    only(path, "flights", flights, None)
    return Slo(levels, windows, {str(campaign): _instant(path, f"flights.{campaign}", at) for campaign, at in flights.items()})


def _value(path: Path, key: str, name: str, value):
    if name in _TIMES:
        return duration(path, key, value)
    if name == "severity":
        return _severity(path, key, value)
    if name in _NUMBERS:
        number = _number(path, key, value, _NUMBERS[name])
        return round(number / 100, 12) if name == "target" else number
    if type(value) is not int or not 0 < value <= _MOST_EVENTS:
        raise PolicyError(f"{path}: {key}: {value!r} is no whole number from 1 to {_MOST_EVENTS:,}")
    return value


def _number(path: Path, key: str, value, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise PolicyError(f"{path}: {key}: {value!r} is no number above 0 and up to {most:g}")
    return float(value)


def _severity(path: Path, key: str, value) -> Severity:
    try:
        return Severity(value)
    except ValueError:
        raise PolicyError(f"{path}: {key}: {value!r} is neither page nor ticket") from None


def _window(path: Path, i: int, tree) -> Window:
    at = f"windows[{i}]"
    only(path, at, tree, {"burn", "long", "short", "severity"})
    if len(tree) < 4:
        raise PolicyError(f"{path}: {at}: needs burn, long, short and severity")
    found = Window(_number(path, f"{at}.burn", tree["burn"], 1e6), duration(path, f"{at}.long", tree["long"]),
                   duration(path, f"{at}.short", tree["short"]), _severity(path, f"{at}.severity", tree["severity"]))
    if not 0 < found.short < found.long <= MOST_WINDOW:
        raise PolicyError(f"{path}: {at}: short must be shorter than long, and long at most 3d")
    return found


def _instant(path: Path, key: str, value) -> int:
    """µs of a time, which YAML has read already or which is RFC 3339 text."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise PolicyError(f"{path}: {key}: {value!r} is no time such as 2026-03-02T06:00:00Z") from None
    return round((at.replace(tzinfo=at.tzinfo or UTC)).timestamp() * MICROS_PER_SECOND)
