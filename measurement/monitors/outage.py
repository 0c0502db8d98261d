"""When shares cannot be held against their history: while the way that events take is out, and for an hour behind it. Pure; times are µs.

What comes behind an outage is not like other hours: what could not be acknowledged is delivered again, hours have closed meanwhile,
and follow-ups come before their impressions, since Pub/Sub gives a backlog out in any order. All that is counted as it should
be, and whoever is woken has been woken by the outage.
"""

from collections.abc import Iterable

from measurement.model.events import MICROS_PER_HOUR
from measurement.monitors.burn import Judged

_WAY = ("freshness", "latency", "probe", "heartbeat")  # levels that tell of an outage
_MOVED = ("duplicates", "late", "restated", "unjoined")  # shares that it moves; what is invalid or rejected it leaves
_BEHIND = MICROS_PER_HOUR  # the most over which a share is judged (rates.py): by then nothing of the outage is in it


class Outage:
    """``quickest`` is the window whose alert says that the way is out: the slow ones stand for days behind an outage."""

    def __init__(self, quickest: str):
        self._quickest = quickest
        self._last: tuple[int, str] | None = None  # when the way was last found out, and by which level

    def see(self, now: int, of: Judged) -> None:
        self.restore(now, of.level.name, (window.name for window in of.burn.firing))

    def restore(self, at: int, level: str, windows: Iterable[str]) -> None:
        """Alerts of the level over these windows were open when a monitor looked at ``at``."""
        if level in _WAY and self._quickest in windows:
            self._last = at, level

    def moves(self, level: str, now: int) -> str | None:
        """Why the level cannot be judged now, or None."""
        if level not in _MOVED or self._last is None or now - self._last[0] > _BEHIND:
            return None
        return f"not judged in an outage, found by {self._last[1]}, nor for an hour behind it"
