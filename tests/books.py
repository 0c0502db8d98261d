"""A few events' books, filled by hand: all public tables as they stand when nothing is amiss, for what checks them."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from measurement.io.publication import schema
from measurement.model.tables import ATTRIBUTION, CREDITS, TABLES

H = datetime(2026, 3, 2, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)

Books = dict[str, list[dict]]


def row(table: str, **values) -> dict:
    """A row of a table; NULL or 0 where nothing is said."""
    blank = {c.name: 0 if c in TABLES[table].values else None for c in TABLES[table].columns}
    stated = {"status": "final", "rule_version": "rules"} if TABLES[table].stated else {}
    return blank | stated | {"revision": 1, "published_at": H + 9 * HOUR} | values


def credit(conversion: str, time: datetime, model: str, touch: str | None, share: str, value: int, advertiser: str = "a") -> dict:
    touched = {"touch_id": touch, "touch_type": "click", "touch_time": time - _MINUTE, "campaign_id": f"of {touch}"} if touch else {}
    return row("conversion_credits", conversion_id=conversion, model=model, conversion_time=time, conversion_type="buy",
               advertiser_id=advertiser, credit=Decimal(share), value_micros=value, currency="EUR", **touched)


def right() -> Books:
    """Two impressions, one of a robot with a click, and five valid conversions in two hours; of a sixth, which no longer stands,
    rows of zeros."""
    at = H + 7 * _MINUTE
    credits = [
        credit("two models", at, "linear", "t1", "0.333333334", 4), credit("two models", at, "linear", "t2", "0.333333333", 3),
        credit("two models", at, "linear", "t3", "0.333333333", 3),
        credit("two models", at, "last_touch", "t1", "0", 0), credit("two models", at, "last_touch", "t3", "1", 10),
        credit("untouched", at + _MINUTE, "last_touch", None, "1", 0),
        credit("twice", at, "last_touch", "t1", "1", 7), credit("twice", at, "last_touch", None, "1", 8, "test:a"),
        credit("earlier", at, "last_touch", "t1", "0", 0), credit("earlier", at, "linear", "t1", "0", 0),
        credit("later", at + HOUR, "last_touch", "t1", "1", 2**60),
    ]
    counted = [("impression", H, 1), ("conversion", H, 4), ("conversion", H + HOUR, 1)]
    robots = [("impression", H, 1), ("click", H + HOUR, 1)]  # a click counts in its impression's hour
    entered = {"source": "s", "outcome": "counted"}
    left_out = {"source": "s", "outcome": "invalid_traffic"}
    return {
        "intake": [row("intake", received_hour=H, source="s", messages=1, events=8, bytes=100)],
        "arrivals": [row("arrivals", window_start=hour, source="s", event_type=kind, events=n)
                     for kind, hour, n in [("impression", H, 2), *counted[1:], robots[1]]],
        "ledger": [row("ledger", window_start=hour, event_type=kind, events=n, **outcome)
                   for some, outcome in ((counted, entered), (robots, left_out)) for kind, hour, n in some],
        "delivery": [row("delivery", window_start=H, advertiser_id="a", gross_impressions=2, impressions=1)],
        "invalid_traffic": [row("invalid_traffic", window_start=H, advertiser_id="a", event_type=kind, reason="robot", events=n)
                            for kind, _, n in robots],
        "conversion_credits": credits,
        "attribution": attributed(credits),
        "rejects": [],
    }


def attributed(credits: list[dict]) -> list[dict]:
    sums = defaultdict(lambda: [Decimal(0), 0])
    for one in credits:
        hour = one["conversion_time"].replace(minute=0, second=0, microsecond=0)
        sum_ = sums[tuple((one | {"window_start": hour})[c.name] for c in ATTRIBUTION.key)]
        sum_[0] += one["credit"]
        sum_[1] += one["value_micros"]
    return [row("attribution", **dict(zip((c.name for c in ATTRIBUTION.key), key)), conversions=conversions, value_micros=value)
            for key, (conversions, value) in sums.items()]


def arrow(books: Books) -> dict[str, pa.Table]:
    return {name: pa.Table.from_pylist(rows, schema(TABLES[name])) for name, rows in books.items()}


def rows_of(books: Books, conversion: str, model: str | None = None) -> list[dict]:
    """A conversion's rows of conversion_credits, to be changed."""
    return [r for r in books[CREDITS.name] if r["conversion_id"] == conversion and model in (None, r["model"])]
