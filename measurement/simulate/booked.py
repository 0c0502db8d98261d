"""What was booked of a log's campaigns: a file for `measurement bookings load`, with goals taken from the truth.

Whoever looks at the pacing of a simulated log sees each kind of flight: on time, behind, ahead, ended and not begun.
"""

import csv
import os
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from measurement.model.bookings import BOOKINGS, METRICS
from measurement.model.events import COUNTS, DIMENSIONS
from measurement.simulate.truth import Truth

NAME = "bookings.csv"
_ADVERTISERS, _MOST, _LEAST = 8, 12, 3  # the largest, and how many bookings each of them has
_ENOUGH = 30  # of a metric delivered, below which no pace can be aimed at
_COLUMNS = ("window_start", *DIMENSIONS, *COUNTS)
_ADVERTISER, _CAMPAIGN, _CURRENCY = (_COLUMNS.index(name) for name in ("advertiser_id", "campaign_id", "currency"))
_AT = {metric: _COLUMNS.index(metric) for metric in METRICS}


@dataclass(frozen=True)
class _Kind:
    """Flights that begin so many days behind the log's end, or with the log (None), and end so many days behind its end; and
    between which bounds what is delivered stands to what is due at the log's end."""

    begins: int | None
    ends: tuple[int, ...]
    pace: tuple[float, float]


_ON_TIME = _Kind(None, (2, 4, 6, 13), (0.98, 1.03))
_BEHIND = _Kind(None, (2, 4, 6), (0.45, 0.85))
_AHEAD = _Kind(None, (4, 6, 13), (1.15, 1.6))
_ENDED = _Kind(None, (0,), (0.9, 1.1))
_NOT_BEGUN = _Kind(1, (8, 15), (0.9, 1.1))
_KINDS = (_ON_TIME, _BEHIND, _AHEAD, _ENDED, _NOT_BEGUN)


def bookings(truth: Truth, rng: np.random.Generator) -> list[dict]:
    """Rows of a file of bookings; none of a log that delivered next to nothing."""
    if not truth.delivery:
        return []
    hours = [datetime.fromisoformat(at) for at in (truth.delivery[0][0], truth.delivery[-1][0])]
    begin, end = hours[0], hours[1] + timedelta(hours=1)
    delivered = _delivered(truth.delivery)
    made: list[dict] = []
    for place, (advertiser, campaigns) in enumerate(_largest(delivered)):
        for turn in range(min(_MOST, max(_LEAST, len(campaigns)))):
            campaign = campaigns[turn % len(campaigns)]
            metric, currency, figure = _metric(delivered[advertiser, campaign], place + turn + turn // len(campaigns))
            flight = _flight(_KINDS[(place + turn) % len(_KINDS)], begin, end, figure, rng)
            made.append({"booking_id": f"bk-{len(made) + 1:04d}", "advertiser_id": advertiser, "campaign_id": campaign, "metric": metric,
                         "currency": currency, **flight})
    return made


def write(path: Path, rows: list[dict]) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [c.name for c in BOOKINGS.body], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, path)


def _delivered(rows: list[tuple]) -> dict[tuple[str, str], dict[tuple[str, str | None], int]]:
    """By advertiser and campaign what was delivered of each metric, of spend by its currency."""
    sums: dict = defaultdict(lambda: defaultdict(int))
    for row in rows:
        of = sums[row[_ADVERTISER], row[_CAMPAIGN]]
        for metric, at in _AT.items():
            of[metric, row[_CURRENCY] if metric == "spend_micros" else None] += row[at]
    return sums


def _largest(delivered: dict) -> list[tuple[str, list[str]]]:
    """Advertisers by impressions and each one's campaigns by impressions, those that have enough of them."""
    campaigns: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (advertiser, campaign), figures in delivered.items():
        if campaign is not None and figures["impressions", None] >= _ENOUGH:
            campaigns[advertiser].append((-figures["impressions", None], campaign))
    ordered = sorted((sum(n for n, _ in some), advertiser) for advertiser, some in campaigns.items())
    return [(advertiser, [campaign for _, campaign in sorted(campaigns[advertiser])]) for _, advertiser in ordered[:_ADVERTISERS]]


def _metric(figures: dict, turn: int) -> tuple[str, str | None, int]:
    """In turn one of which enough was delivered: its name, the currency of money, and how much was delivered."""
    enough = {metric: (currency, n) for (metric, currency), n in sorted(figures.items(), key=lambda one: one[1])
              if n >= _ENOUGH and (metric != "spend_micros" or currency is not None)}
    known = [metric for metric in METRICS if metric in enough]
    return known[turn % len(known)], *enough[known[turn % len(known)]]


def _flight(kind: _Kind, begin: datetime, end: datetime, figure: int, rng: np.random.Generator) -> dict:
    starts = begin if kind.begins is None else end + timedelta(days=kind.begins)
    ends = end + timedelta(days=int(rng.choice(kind.ends)))
    goal = figure * ((ends - starts) / (end - begin)) / rng.uniform(*kind.pace)
    return {"goal": max(1, _rounded(goal)), "starts_at": _text(starts), "ends_at": _text(ends)}


def _rounded(goal: float) -> int:
    """As people book: three digits and zeros."""
    return int(float(f"{goal:.3g}"))


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
