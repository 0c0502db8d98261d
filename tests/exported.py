"""A local warehouse made of rows, and the console command's export of it."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
from books import HOUR, row

from measurement.io.publication import ipc, schema
from measurement.local.inputs import Source
from measurement.local.warehouse import Warehouse
from measurement.model.revisions import revision
from measurement.model.tables import TABLES

D = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
CLOSED = D + 40 * DAY  # when rows were published, unless they say otherwise


def delivered(at: datetime, advertiser: str = "adv-1", n: int = 1, **other) -> dict:
    return row("delivery", **{"window_start": at, "advertiser_id": advertiser, "campaign_id": "c1", "currency": "EUR", "format": "display",
                              "gross_impressions": n, "impressions": n, "spend_micros": 1000 * n, "revision": revision(1, 1),
                              "published_at": CLOSED, **other})


def earned(at: datetime, conversions, campaign: str | None = "c1", advertiser: str = "adv-1", model: str = "last_touch", **other) -> dict:
    return row("attribution", **{"window_start": at, "advertiser_id": advertiser, "campaign_id": campaign, "model": model,
                                 "conversion_type": "buy", "currency": "EUR", "conversions": Decimal(conversions),
                                 "value_micros": int(Decimal(conversions) * 1_000_000), "revision": revision(1, 1), "published_at": CLOSED,
                                 **other})


def restated(one: dict, n: int, **changes) -> dict:
    """The row's n-th revision after its close, published n hours behind it."""
    return one | {"status": "restated", "restated_because": "late", "revision": revision(1, n + 1), "published_at": CLOSED + n * HOUR} | changes


def whole_days(until: datetime, first: datetime = D, advertiser: str = "probe") -> list[dict]:
    """Delivery of somebody in every hour, by which the hours are known to have closed."""
    return [delivered(first + n * HOUR, advertiser) for n in range(int((until - first) / HOUR))]


class Made:
    """A directory with a warehouse of these rows, as a run leaves it."""

    def __init__(self, out: Path, delivery: list[dict], attribution: list[dict] = (), state: str = "complete"):
        out.mkdir(exist_ok=True)
        self.out, self._files = out, 0
        self.warehouse = Warehouse(out)
        self.generation = self.warehouse.begin([Source("e.jsonl", "/e.jsonl", 1, "sha", 0, False)], {}, "rules", 0)
        self.add(delivery=delivery, attribution=attribution)
        if state != "running":
            self.warehouse.finish(self.generation, state, 0, 7)

    def add(self, **rows: list[dict]) -> None:
        for name, some in rows.items():
            self._files += 1
            stream = ipc(pa.Table.from_pylist(list(some), schema(TABLES[name])))
            (self.out / f"{name}.{self._files}.x.arrow").write_bytes(stream)
        self.warehouse.take(self.out, self.generation, None)


def read_manifest(out: Path, name: str) -> dict:
    return json.loads((out / f"{name}.manifest.json").read_text())
