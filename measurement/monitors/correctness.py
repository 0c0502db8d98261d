"""Correctness: the ledger's imbalance, and probes that stand with figures that nobody sent. Nothing of either is promised to be.

What waits for nothing (impressions, conversions) must be in the ledger soon after it arrived: that is looked at each time
(measurement/monitors/books.py). All else is found when the whole ledger is balanced, every so often (measurement/monitors/ledger.py).
"""

from measurement.monitors.ledger import Result
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import hour_of, instant, text

_SHOWN = 3
_LOST, _INVENTED = "arrived and are not in the ledger", "are in the ledger and never arrived"


def judge(level: Level, begun: bool, imbalance: dict[tuple[int, str], int], wrong_probes: list[tuple[int, str]], balanced: Result | None,
          minutes: int) -> Sample:
    """Good while nothing is out of balance. ``imbalance``: events by (hour, source) that arrived and are not in the ledger, or,
    negative, are there and never arrived; ``balanced``: the last balance of everything, None before the first."""
    if not begun:
        return unknown(level.name, "nothing has been entered yet")
    told = [f"{abs(n):,} events of {source} in {instant(hour):%Y-%m-%dT%HZ} {_LOST if n > 0 else _INVENTED}"
            for (hour, source), n in sorted(imbalance.items())]
    told += [f"the probe of {text(minute)} stands wrong in {end}" for minute, end in wrong_probes]
    if balanced is not None:
        told += [f"does not hold: {check.says} ({len(wrong):,} keys)" for check, wrong in balanced.failures]
        told += balanced.unbalanced
    off = sum(map(abs, imbalance.values()))
    if not told:
        return at_look(level.name, True, minutes, 0, "the ledger balances" + ("" if balanced is None else ", and all that follows from it"))
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    hours = sorted({hour for hour, _ in imbalance} | {hour_of(minute) for minute, _ in wrong_probes})
    return at_look(level.name, False, minutes, off or len(told), "; ".join(told[:_SHOWN]) + more, hours=tuple(map(instant, hours)))
