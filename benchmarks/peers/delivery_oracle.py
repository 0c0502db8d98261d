"""The delivery job's result over the log, from the contract and by itself: one event at a time, dicts and loops.

Nothing of the project is used but the form of the result; robots are asked of their list's own package. tests/oracle.py knows
all rules and would take hours over this log, so this one knows the rules that the log needs, and refuses a log that needs others:
all events well formed, inside the horizons and with one content an id, an impression within a day of each follow-up, no
order twice.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import crawleruseragents
import fastavro

from benchmarks.peers import oracle
from benchmarks.peers.task import MICROS_PER_HOUR, avro_files

DIMENSIONS = "advertiser_id", "campaign_id", "line_item_id", "creative_id", "placement_id", "format", "country", "device_type", "currency"
REQUIRED = "event_id", "event_type", "event_time", "advertiser_id"
ONCE = {"start": 6, "firstQuartile": 7, "midpoint": 8, "thirdQuartile": 9, "complete": 10}  # of an impression, and where it counts
GROSS, NET, MEASURABLE, VIEWABLE, AUDIBLE, CLICKS, SPEND = 0, 1, 2, 3, 4, 5, 11
DAY = 24 * MICROS_PER_HOUR
CLICK_LOOKBACK, VIEW_LOOKBACK = 30 * DAY, DAY  # the default policy: the last click, and the last impression where there is none


@cache
def is_robot(user_agent: str | None) -> bool:
    return user_agent is not None and crawleruseragents.is_crawler(user_agent)


def rows(log: Path) -> list[tuple]:
    """The right result, rows as in benchmarks/peers/delivery.py."""
    return oracle.kept(log, counted, Path(__file__))


def counted(log: Path) -> Iterator[tuple]:
    """Two readings of the log: an impression may come after what follows it."""
    impressions = {
        event["event_id"]: Impression(event) for event, again in events(log) if event["event_type"] == "impression" and not again}
    ledger, conversions, touches = Counter(), [], {}
    orders = set()
    for event, again in events(log):
        kind, valid = event["event_type"], not is_robot(event["user_agent"])
        impression = impressions.get(event["impression_id"] or event["event_id"])
        if impression:
            valid = valid and impression.valid
        elif kind != "conversion":
            raise ValueError(f"event {event['event_id']} has no impression")
        elif event["order_id"] in orders and not again:
            raise ValueError(f"order {event['order_id']} comes twice")
        outcome = "duplicate" if again else "counted" if valid else "invalid_traffic"
        ledger[hour(event["event_time"]), event["source_id"], kind, outcome] += 1
        if outcome != "counted":
            continue
        if kind == "conversion":
            orders.add(event["order_id"])
            conversions.append(event)
            continue
        if kind != "impression":
            impression.follow(event)
        if kind in ("impression", "click"):
            touch = event["event_time"], event["event_id"], kind, impression.row
            touches.setdefault((event["user_id"], event["advertiser_id"]), []).append(touch)
    for key, n in ledger.items():
        yield "ledger", *key, n
    delivery: dict[tuple, list[int]] = {}
    for impression in impressions.values():
        total = delivery.setdefault(impression.row, [0] * 12)
        delivery[impression.row] = [a + b for a, b in zip(total, impression.counts)]
    for key, counts in delivery.items():
        yield "delivery", *key, *counts
    yield from credited(conversions, touches)


class Impression:
    """Its row, and what it and all that follows it add to that row."""

    def __init__(self, event: dict):
        self.time, self.format = event["event_time"], event["format"]
        self.row = hour(self.time), *(event[name] for name in DIMENSIONS)
        self.valid = not is_robot(event["user_agent"])
        self.counts = [0] * 12
        self.counts[GROSS] = 1
        if self.valid:
            self.counts[NET], self.counts[SPEND] = 1, event["price_micros"] or 0

    def follow(self, event: dict) -> None:
        if abs(event["event_time"] - self.time) > DAY:
            raise ValueError(f"event {event['event_id']} is more than a day from its impression")
        counts, kind = self.counts, event["event_type"]
        counts[SPEND] += event["price_micros"] or 0
        if kind == "click":
            counts[CLICKS] += 1
        elif kind == "viewability":
            counts[MEASURABLE] = 1
            long = {"display": 1_000, "video": 2_000}.get(self.format)
            if long and (event["visible_percent"] or 0) >= 50 and (event["visible_ms"] or 0) >= long:
                counts[VIEWABLE] = 1
            if self.format in ("audio", "video") and (event["audible_ms"] or 0) >= 2_000:
                counts[AUDIBLE] = 1
        else:
            counts[ONCE[kind]] = 1


def credited(conversions: list[dict], touches: dict[tuple, list[tuple]]) -> Iterator[tuple]:
    """Rows of conversion_credits and attribution: to each conversion its person's last click at the advertiser, or impression."""
    sums: dict[tuple, list[int]] = {}
    for event in conversions:
        at = event["event_time"]
        eligible = [
            (kind == "click", time, event_id, row) for time, event_id, kind, row in touches.get((event["user_id"], event["advertiser_id"]), ())
            if 0 < at - time <= (CLICK_LOOKBACK if kind == "click" else VIEW_LOOKBACK)]
        touch_id = touch_type = touch_time = None
        shown = [None] * 4
        if eligible:
            click, touch_time, touch_id, row = max(eligible)
            touch_type, shown = "click" if click else "impression", row[2:6]
        kind, advertiser, currency, value = (event[name] for name in ("conversion_type", "advertiser_id", "currency", "value_micros"))
        value = value or 0
        yield ("conversion_credits", event["event_id"], "last_touch", touch_id, at, kind, advertiser, touch_type, touch_time, *shown,
               "1.000000000", value, currency)
        total = sums.setdefault((hour(at), advertiser, *shown, kind, "last_touch", touch_type, currency), [0, 0])
        total[0] += 1
        total[1] += value
    for key, (n, value) in sums.items():
        yield "attribution", *key, f"{n}.000000000", value


def events(log: Path) -> Iterator[tuple[dict, bool]]:
    """Every event in order of arrival, and whether its id was there before."""
    seen: dict[str, int] = {}
    first, last = float("inf"), float("-inf")
    for path in avro_files(log):
        with path.open("rb") as file:
            for event in fastavro.reader(file, return_named_type=False):
                received = oracle.micros(event.pop("received_time"))
                event["event_time"] = oracle.micros(event["event_time"])
                content, known = hash(tuple(event.values())), seen.get(event["event_id"])
                if known is None:
                    seen[event["event_id"]] = content
                elif known != content:
                    raise ValueError(f"event {event['event_id']} has two contents")
                if not all(event[name] for name in REQUIRED) or event["test"] or event["event_time"] > received:
                    raise ValueError(f"event {event['event_id']} is not well formed")
                first, last = min(first, event["event_time"]), max(last, event["event_time"])
                yield event, known is not None
    if last - first > 7 * DAY:
        raise ValueError("the log is longer than the horizon of deduplication")


def hour(time: int) -> int:
    return time // MICROS_PER_HOUR * MICROS_PER_HOUR
