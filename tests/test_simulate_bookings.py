"""The simulator's bookings: taken by the loader, each kind of flight among them, their paces as the truth has them."""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from measurement.model.bookings import METRICS
from measurement.reporting.bookings import read
from measurement.simulate import SimulateOptions, simulate


@pytest.mark.parametrize("seed", [1, 7])
def test_goals_make_flights_of_each_kind(tmp_path: Path, seed: int) -> None:
    simulate(SimulateOptions(events=200_000, seed=seed), tmp_path)
    truth = orjson.loads((tmp_path / "truth.json").read_bytes())
    rows = [dict(zip(truth["delivery_columns"], row)) for row in truth["delivery"]]
    end = max(datetime.fromisoformat(row["window_start"]) for row in rows) + timedelta(hours=1)
    booked = read(tmp_path / "bookings.csv")
    assert len({b["booking_id"] for b in booked}) == len(booked) >= 24 and {b["metric"] for b in booked} == set(METRICS)
    kinds, campaigns = Counter(), defaultdict(set)
    for one in booked:
        campaigns[one["advertiser_id"]].add(one["campaign_id"])
        inside = [row for row in rows if row["advertiser_id"] == one["advertiser_id"] and row["campaign_id"] == one["campaign_id"]
                  and one["currency"] in (None, row["currency"]) and one["starts_at"] <= datetime.fromisoformat(row["window_start"]) < one["ends_at"]]
        delivered = sum(row[one["metric"]] for row in inside)
        if one["starts_at"] > end:
            kinds["not begun"] += 1
            assert delivered == 0
            continue
        pace = delivered / (one["goal"] * ((end - one["starts_at"]) / (one["ends_at"] - one["starts_at"])))
        kinds["ended" if one["ends_at"] <= end else "behind" if pace < 0.9 else "ahead" if pace > 1.1 else "on time"] += 1
        assert 0.4 < pace < 1.7
    assert len(kinds) == 5 and min(kinds.values()) >= 3
    assert all(1 <= len(some) <= 12 for some in campaigns.values()) and min(Counter(b["advertiser_id"] for b in booked).values()) >= 3


@pytest.mark.parametrize("events", [1, 40, 3_000])
def test_a_small_log_has_few_bookings_or_none(tmp_path: Path, events: int) -> None:
    simulate(SimulateOptions(events=events, hours=0.5, start=datetime.fromisoformat("2026-03-02T10:20:00+00:00")), tmp_path)
    assert len(read(tmp_path / "bookings.csv")) <= events // 30
