"""How figures, rules and names of the comparison are worded, on a terminal and on a page."""

import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from measurement.model.attribution import CLICK_OVER_VIEW, AttributionRule
from measurement.model.policy_file import duration_text
from measurement.paths.compare import Comparison

LABELS = {
    "last_touch": "Last touch", "first_touch": "First touch", "linear": "Linear", "time_decay": "Time decay",
    "position_based": "Position based", "markov": "Markov", "shapley": "Shapley", "shapley_rate": "Shapley, rate",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def conversions(credit: int, places: int = 9) -> str:
    """A credit in units of 10^-9 as a decimal; with fewer than 9 places it is rounded."""
    return f"{Decimal(credit).scaleb(-9):z,.{places}f}"


def amount(micros: int, places: int = 6) -> str:
    """Micros as a decimal of the currency's unit; with fewer than 6 places it is rounded."""
    return f"{Decimal(micros).scaleb(-6):z,.{places}f}"


def currency(name: str | None) -> str:
    return "no currency" if name is None else name


def one_line(text: str) -> str:
    """A name from outside without what would move a cursor, break a line or turn the writing direction."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def time(micros: int) -> str:
    at = _EPOCH + timedelta(microseconds=micros)
    return f"{at:%Y-%m-%dT%H:%M:%S}{f'.{at.microsecond:06}' if at.microsecond else ''}Z"


def span(since: int | None, until: int | None) -> str:
    """The range of conversions, in words."""
    if since is None and until is None:
        return "all that is stored"
    return " ".join(f"{word} {time(at)}" for word, at in (("from", since), ("before", until)) if at is not None)


def rule(of: AttributionRule) -> str:
    first = "clicks before views" if of.priority == CLICK_OVER_VIEW else "clicks and views alike"
    weights = ":".join(map(str, of.position_weights))
    return (f"clicks up to {duration_text(of.click_lookback)}, views up to {duration_text(of.view_lookback)}, {first}, "
            f"half-life {duration_text(of.half_life)}, position weights {weights}")


def others(comparison: Comparison) -> str:
    """The name of the row that sums the campaigns not shown."""
    return f"{comparison.others:,} other campaign{'s' * (comparison.others > 1)}"
