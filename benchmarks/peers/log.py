"""The log that every peer reads: contract events as Avro object containers, the same bytes for the same parameters.

A day of events in order of arrival, cut into files as a collector cuts them: seconds to minutes out of order, one in a
hundred late by up to six hours, and one in twenty a resend, up to six hours behind the first. A follow-up belongs to an
impression shown minutes before, and half of the conversions are by somebody who was shown an advertisement. Conversions
have no campaign, as the contract allows, so a peer has to group by a null as well.

Blocks are of 64 kB, as Avro's Java library cuts them, and not compressed unless asked for: inflating costs each peer the same
and would only bring their figures closer together. The same events stand beside as Parquet, for what reads nothing else.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from measurement.model.events import (
    CONVERSION, EVENT_TYPES, FIELDS, FORMATS, IMPRESSION, MICROS_PER_HOUR, MICROS_PER_SECOND, SCHEMA)
from measurement.simulate.agents import AGENTS

BEGIN = 1_772_323_200 * MICROS_PER_SECOND  # 2026-03-01T00:00:00Z
SPAN = 24 * MICROS_PER_HOUR
LATEST = 6 * MICROS_PER_HOUR  # a late event or a resend is at most so far behind
CAMPAIGNS, FILES, BLOCK_BYTES = 200, 8, 64_000
RESENDS, LATE = 0.05, 0.01
_DISORDER = 20 * MICROS_PER_SECOND  # on average; ten minutes at most
_AFTERWARDS = 120 * MICROS_PER_SECOND  # on average, from an impression to what follows it
_CHUNK = 25_000  # events in memory as Python objects
_SHARES = (0.40, 0.012, 0.003, 0.22, 0.11, 0.085, 0.07, 0.055, 0.045)  # of EVENT_TYPES
_ARROW = {"string": pa.string(), "long": pa.int64(), "int": pa.int32(), "boolean": pa.bool_()}


@dataclass(frozen=True)
class Parameters:
    events: int = 2_000_000
    seed: int = 7
    codec: str = "null"

    @property
    def name(self) -> str:
        """Of the parameters, and of all that makes the same parameters the same bytes."""
        recipe = json.dumps([asdict(self), SCHEMA, AGENTS]).encode() + Path(__file__).read_bytes()
        return f"log-{self.events}-{self.seed}-{self.codec}-{hashlib.sha256(recipe).hexdigest()[:12]}"


def ensure(parameters: Parameters, cache: Path) -> Path:
    """The folder of the log, written if it is not there: *.avro, parquet/*.parquet and manifest.json."""
    folder = cache / parameters.name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _write(parameters, Path(scratch, "log"))
            shutil.move(Path(scratch, "log"), folder)
    return folder


def manifest(log: Path) -> dict:
    """The parameters of a log, its bytes and the digest of its files."""
    return json.loads((log / "manifest.json").read_text())


def _write(parameters: Parameters, folder: Path) -> None:
    (folder / "parquet").mkdir(parents=True)
    rng = np.random.default_rng(parameters.seed)
    draws, bookings = _draw(rng, parameters.events), _bookings(rng)
    schema = fastavro.parse_schema(SCHEMA)
    columns = pa.schema([(f["name"], _arrow(f["type"])) for f in SCHEMA["fields"]])
    digest, size = hashlib.sha256(), 0
    for number, part in enumerate(np.array_split(draws["order"], FILES)):
        path = folder / f"events-{number:02d}.avro"
        sync = hashlib.sha256(f"{parameters.seed} {number}".encode()).digest()[:16]
        beside = folder / "parquet" / f"{path.stem}.parquet"
        with path.open("wb") as file, pq.ParquetWriter(beside, columns, compression="zstd") as other:
            container = fastavro.write.Writer(file, schema, parameters.codec, BLOCK_BYTES, sync_marker=sync)
            for at in range(0, len(part), _CHUNK):
                events = list(_events(draws, bookings, part[at : at + _CHUNK]))
                for event in events:
                    container.write(event)
                other.write_table(pa.Table.from_pylist(events, columns))
            container.flush()
        digest.update(path.read_bytes())
        size += path.stat().st_size
    told = asdict(parameters) | {"bytes": size, "files": FILES, "sha256": digest.hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(told, indent=1) + "\n")


def _arrow(avro) -> pa.DataType:
    inner = avro[1] if isinstance(avro, list) else avro
    return _ARROW[inner["type"] if isinstance(inner, dict) else inner]


def _draw(rng: np.random.Generator, events: int) -> dict[str, np.ndarray]:
    """What is drawn for each distinct event, and ``order``: which of them arrive, resends included, in order of arrival;
    a number from ``distinct`` on is a resend of ``again``."""
    resends = int(events * RESENDS)
    n = events - resends
    happened = np.sort(BEGIN + rng.integers(0, SPAN, n))
    under_way = np.minimum(rng.exponential(_DISORDER, n), 600 * MICROS_PER_SECOND)
    late = rng.random(n) < LATE
    under_way[late] = rng.uniform(600 * MICROS_PER_SECOND, LATEST, int(late.sum()))
    arrived = happened + under_way.astype(np.int64)
    again = rng.choice(n, resends, replace=False)
    received = np.concatenate([arrived, arrived[again] + rng.integers(MICROS_PER_SECOND, LATEST, resends)])
    order = np.argsort(received, kind="stable")
    type_ = rng.choice(len(EVENT_TYPES), n, p=_SHARES).astype(np.uint8)
    unled = (type_ == IMPRESSION) | (type_ == CONVERSION) & (rng.random(n) < 0.5)  # others take user and booking from a parent
    parent = np.where(unled, np.arange(n), _parents(rng, happened, type_))
    agent, user = rng.integers(0, len(AGENTS), n), rng.integers(0, max(1, n // 6), n)
    booking = (CAMPAIGNS * 8 * rng.random(n) ** 2).astype(np.int64)
    return {
        "order": order, "again": again, "distinct": np.array(n), "happened": happened, "received": received, "type": type_,
        "id": rng.integers(0, 256, (n, 16), np.uint8), "shown": rng.integers(0, 101, n), "parent": parent,
        "booking": booking[parent], "user": user[parent], "agent": agent[parent],
    }


def _parents(rng: np.random.Generator, happened: np.ndarray, type_: np.ndarray) -> np.ndarray:
    """For each event an impression that was there before it; the first of the day for what precedes them all."""
    shown = np.flatnonzero(type_ == IMPRESSION)
    if not len(shown):
        return np.arange(len(happened))
    last = np.searchsorted(happened[shown], happened - rng.exponential(_AFTERWARDS, len(happened)), side="right") - 1
    return shown[np.maximum(last, 0)]


def _bookings(rng: np.random.Generator) -> list[dict]:
    """What a line item fixes of its events."""
    bookings = []
    for i in range(CAMPAIGNS * 8):
        campaign, format_ = i % CAMPAIGNS, FORMATS[int(rng.choice(3, p=(0.6, 0.3, 0.1)))]
        cpc = bool(rng.random() < 0.2)
        bookings.append({
            "advertiser_id": f"adv-{campaign % 40:03d}", "campaign_id": f"cmp-{campaign:04d}", "line_item_id": f"li-{i:05d}",
            "creative_id": f"cr-{i * 7 % 3_989:05d}", "placement_id": f"pl-{i * 11 % 997:04d}", "format": format_,
            "country": ("DE", "FR", "GB", "SE", "US")[int(rng.integers(5))], "device_type": ("mobile", "desktop", "ctv")[i % 3],
            "consent": "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", "currency": ("EUR", "USD")[campaign % 2],
            "publisher_id": f"pub-{i % 60:03d}", "pricing_model": "cpc" if cpc else "cpm",
            "price_micros": int(rng.integers(200_000, 1_500_000) if cpc else rng.integers(2_000, 12_000)),
        })
    return bookings


def _events(draws: dict[str, np.ndarray], bookings: list[dict], order: np.ndarray) -> Iterator[dict]:
    distinct = int(draws["distinct"])
    of = np.where(order < distinct, order, draws["again"][np.maximum(order - distinct, 0)])
    columns = (draws[name][of].tolist() for name in ("happened", "type", "booking", "user", "agent", "shown"))
    ids, parents = (_uuids(draws["id"][at]) for at in (of, draws["parent"][of]))
    nothing = dict.fromkeys(FIELDS)
    for event_id, parent, received, happened, type_, booking, user, agent, shown in zip(
            ids, parents, draws["received"][order].tolist(), *columns):
        name, booked = EVENT_TYPES[type_], bookings[booking]
        event = nothing | booked
        event["event_id"], event["event_type"], event["event_time"], event["received_time"] = event_id, name, happened, received
        event["user_id"], event["session_id"] = f"u-{user:010x}", f"s-{user:08x}-{happened // MICROS_PER_HOUR % 1000:03d}"
        event["ip"], event["user_agent"] = f"10.{user >> 16 & 255}.{user >> 8 & 255}.{user & 255}", AGENTS[agent]
        event["source_id"] = "adserver-eu" if type_ < 3 else "player-sdk"
        if name != ("click" if booked["pricing_model"] == "cpc" else "impression"):
            event["price_micros"] = None
        if name == "conversion":
            event["campaign_id"] = event["line_item_id"] = event["creative_id"] = event["placement_id"] = None
            event["conversion_type"], event["value_micros"], event["order_id"] = "purchase", shown * 1_000_000, f"o-{event_id[:13]}"
        elif name != "impression":
            event["impression_id"] = parent
        if name == "viewability":
            event["visible_percent"], event["visible_ms"] = shown, shown * 40
            event["audible_ms"] = None if booked["format"] == "display" else shown * 40
        elif type_ > 3:
            event["played_ms"] = (type_ - 4) * 3_750
        yield event


def _uuids(raw: np.ndarray) -> list[str]:
    """Random bytes (n, 16) as the texts of version 4 UUIDs."""
    raw = raw.copy()
    raw[:, 6], raw[:, 8] = raw[:, 6] & 0x0F | 0x40, raw[:, 8] & 0x3F | 0x80
    text = raw.tobytes().hex()
    return [f"{t[:8]}-{t[8:12]}-{t[12:16]}-{t[16:20]}-{t[20:]}" for t in (text[i : i + 32] for i in range(0, len(text), 32))]
