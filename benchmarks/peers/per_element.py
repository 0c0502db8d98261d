"""The delivery job in the form that comes to mind first: one Beam element an event, state by impression, totals by row.

The same files, rules, engine and flags as the real job, and the same final delivery rows, checked against the simulator's
truth. In its favour it leaves out what the real job also does: the ledger and its balance, rejects with their bytes, orders,
revisions while an hour is open, and forgetting (no state of it ever expires). So a ratio to it is a lower bound.
"""

import io
import ipaddress
import json
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import apache_beam as beam
import crawleruseragents
import fastavro
import mmh3
import numpy as np
from apache_beam.coders import FastPrimitivesCoder, StrUtf8Coder
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from benchmarks.peers.elements import Elements
from measurement.columnar.batch import NO_WATERMARK
from measurement.io.framing import frames
from measurement.io.watermark import SUPPORT
from measurement.local.prism import ensure_prism, prism_options
from measurement.model import events as e
from measurement.model.policy import Counting

COUNTING = Counting()
_SCHEMA = fastavro.parse_schema({
    **e.SCHEMA, "fields": [{**f, "type": "long"} if f["name"] == "event_time" else
                           {**f, "type": ["null", "long"]} if f["name"] == "received_time" else f for f in e.SCHEMA["fields"]]})
_GROSS, _NET, _MEASURABLE, _VIEWABLE, _AUDIBLE, _CLICKS, _STARTS, _SPEND = 0, 1, 2, 3, 4, 5, 6, 11
_READING: list[Callable[[], None]] = []  # called when the first event is read; engine and workers share this process


@lru_cache(maxsize=100_000)
def _is_robot(user_agent: str) -> bool:
    return crawleruseragents.is_crawler(user_agent)


# -- source -----------------------------------------------------------------------------------------------------------

def accepted(path: str) -> Iterator[tuple[dict, int]]:
    """(event, watermark behind it in µs) of each accepted event of one file."""
    for tell in _READING:
        tell()
    recent, watermark = [], NO_WATERMARK
    for event in _events(Path(path)):
        if _is_sound(event, watermark):
            recent = [*recent[1 - SUPPORT :], event["event_time"]]
            if len(recent) == SUPPORT:
                watermark = max(watermark, min(recent))
            yield event, watermark


def _events(path: Path) -> Iterator[dict]:
    """Every event that can be read; a datum that cannot hides the rest of its block."""
    for frame, _ in frames(path, 2_000, 2_000):
        for piece, count in zip(frame.pieces, frame.counts):
            stream = io.BytesIO(piece)
            for _ in range(count):
                try:
                    yield fastavro.schemaless_reader(stream, _SCHEMA)
                except (ValueError, EOFError, IndexError):
                    break


def _is_sound(event: dict, watermark: int) -> bool:
    """Whether the rules that need one event alone, and the watermark, accept it (contract section 2)."""
    kind, at = event["event_type"], event["event_time"]
    if not event["event_id"] or not event["advertiser_id"] or kind not in e.EVENT_TYPES:
        return False
    if kind != "conversion" and not event["campaign_id"]:
        return False
    if kind not in ("conversion", "impression") and not event["impression_id"]:
        return False
    if not e.MIN_TIME_MICROS <= at <= e.MAX_TIME_MICROS:
        return False
    if any((event[name] or 0) < 0 for name in e.NOT_NEGATIVE) or not 0 <= (event["visible_percent"] or 0) <= 100:
        return False
    if event["format"] and event["format"] not in e.FORMATS:
        return False
    if event["ip"] and not _is_address(event["ip"]):
        return False
    if at > (event["received_time"] or at) + e.FUTURE_TOLERANCE_MICROS:
        return False
    return watermark == NO_WATERMARK or at >= watermark - COUNTING.dedup_horizon


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# -- join -------------------------------------------------------------------------------------------------------------

def by_impression(event: dict) -> tuple[str, dict]:
    """Keyed by the impression that an event belongs to, with what is counted of it and nothing else."""
    kind = event["event_type"]
    impression = event["event_id"] if kind in ("impression", "conversion") else event["impression_id"]
    content = [value for name, value in event.items() if name != "received_time"]
    small = {
        "id": event["event_id"], "type": kind, "time": event["event_time"], "price": event["price_micros"] or 0,
        "digest": mmh3.hash64(repr(content))[0], "invalid": bool(event["user_agent"]) and _is_robot(event["user_agent"]),
    }
    if kind == "impression":
        hour = event["event_time"] // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR
        small["format"], small["pixels"] = event["format"], (event["creative_width"] or 0) * (event["creative_height"] or 0)
        small["row"] = json.dumps([hour, *(event[name] or None for name in e.DIMENSIONS)])
    elif kind == "viewability":
        for name in ("visible_percent", "visible_ms", "audible_ms"):
            small[name] = event[name]
    return impression, small


class Join(beam.DoFn):
    """(impression, event) to (row, counts): deduplicates, joins follow-ups, and says what each adds to its row."""

    HELD = ReadModifyWriteStateSpec("held", FastPrimitivesCoder())
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def process(self, element, held=beam.DoFn.StateParam(HELD), over=beam.DoFn.TimerParam(OVER)):
        _, event = element
        known = held.read() or {"ids": {}, "impression": None, "seen": [], "waiting": []}
        if event["id"] not in known["ids"]:  # else a duplicate, or a conflict with what came first
            known["ids"][event["id"]] = event["digest"]
            yield from self._accept(known, event, over)
            held.write(known)

    def _accept(self, known: dict, event: dict, over):
        if event["type"] == "impression":
            known["impression"] = event
            yield event["row"], _impression(event)
            for waiting in known["waiting"]:
                if abs(waiting["time"] - event["time"]) <= COUNTING.join_horizon:
                    yield from self._follow(known, waiting)
            known["waiting"] = []
        elif event["type"] != "conversion":
            impression = known["impression"]
            if impression is None:
                known["waiting"].append(event)
                over.set(_wait_ends(known["waiting"]))
            elif abs(event["time"] - impression["time"]) <= COUNTING.join_horizon:
                yield from self._follow(known, event)

    @on_timer(OVER)
    def on_over(self, held=beam.DoFn.StateParam(HELD), over=beam.DoFn.TimerParam(OVER), at=beam.DoFn.TimestampParam):
        known = held.read()
        if not known or not known["waiting"]:
            return
        orphans = [w for w in known["waiting"] if w["time"] + COUNTING.join_horizon <= at.micros]
        known["waiting"] = [w for w in known["waiting"] if w not in orphans]
        for orphan in orphans:
            del known["ids"][orphan["id"]]  # the id may come again
        if known["waiting"]:
            over.set(_wait_ends(known["waiting"]))
        held.write(known)

    @staticmethod
    def _follow(known: dict, event: dict):
        impression = known["impression"]
        if not event["invalid"] and not impression["invalid"]:
            yield impression["row"], _followup(impression, event, known["seen"])


def _wait_ends(waiting: list[dict]) -> Timestamp:
    """When the first of them is an orphan, rounded up to the milliseconds that timers know."""
    micros = min(event["time"] for event in waiting) + COUNTING.join_horizon
    return Timestamp(micros=-(-micros // 1_000) * 1_000)


def _impression(event: dict) -> list[int]:
    counts = [0] * len(e.COUNTS)
    counts[_GROSS] = 1
    if not event["invalid"]:
        counts[_NET], counts[_SPEND] = 1, event["price"]
    return counts


def _followup(impression: dict, event: dict, seen: list[int]) -> list[int]:
    """What a follow-up adds; ``seen`` are the counts that its impression already has, each of them once."""
    counts = [0] * len(e.COUNTS)
    counts[_SPEND] = event["price"]
    kind, shown = event["type"], []
    if kind == "click":
        counts[_CLICKS] = 1
    elif kind == "viewability":
        view, form = COUNTING.viewability, impression["format"]
        percent, visible, audible = (event[n] or 0 for n in ("visible_percent", "visible_ms", "audible_ms"))
        shown.append(_MEASURABLE)
        large = impression["pixels"] >= view.large_display_pixels
        if (form == "display" and percent >= (view.large_display_percent if large else view.display_percent) and visible >= view.display_ms
                or form == "video" and percent >= view.video_percent and visible >= view.video_ms):
            shown.append(_VIEWABLE)
        if form in ("video", "audio") and audible >= view.audible_ms:
            shown.append(_AUDIBLE)
    else:
        shown.append(_STARTS + e.EVENT_TYPES.index(kind) - e.START)
    for count in shown:
        if count not in seen:
            seen.append(count)
            counts[count] = 1
    return counts


# -- totals -----------------------------------------------------------------------------------------------------------

class Totals(beam.DoFn):
    """(row, counts) to the row's totals when the stream ends."""

    SUMS = ReadModifyWriteStateSpec("sums", FastPrimitivesCoder())
    ROW = ReadModifyWriteStateSpec("row", StrUtf8Coder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(self, element, sums=beam.DoFn.StateParam(SUMS), row=beam.DoFn.StateParam(ROW), end=beam.DoFn.TimerParam(END)):
        key, counts = element
        so_far = sums.read()
        if so_far is None:
            row.write(key)
            end.set(GlobalWindow().max_timestamp())
            sums.write(counts)
        else:
            sums.write([a + b for a, b in zip(so_far, counts)])

    @on_timer(END)
    def on_end(self, sums=beam.DoFn.StateParam(SUMS), row=beam.DoFn.StateParam(ROW)):
        yield row.read(), sums.read()


class Write(beam.DoFn):
    """Rows to files, one a bundle."""

    def __init__(self, folder: str):
        self._folder = folder

    def start_bundle(self):
        self._rows = []

    def process(self, element):
        self._rows.append(element)

    def finish_bundle(self):
        if self._rows:
            Path(self._folder, f"{uuid.uuid4().hex}.json").write_text(json.dumps(self._rows))


def run(log: Path, out: Path, reading: Callable[[], None]) -> None:
    """Runs to the end of the log's one file; ``reading`` is called when the first event is read."""
    _READING.append(reading)
    out.mkdir(parents=True, exist_ok=True)
    keyed = beam.typehints.KV[str, beam.typehints.Any]
    with beam.Pipeline(options=PipelineOptions(prism_options(ensure_prism(lambda _: None)))) as p:
        (
            p
            | ReadFromUnboundedSource(Elements(accepted, str(log / "events-01.avro")), 0.02)
            | "By impression" >> beam.Map(by_impression).with_output_types(keyed)
            | beam.ParDo(Join()).with_output_types(keyed)
            | beam.ParDo(Totals()).with_output_types(keyed)
            | beam.ParDo(Write(str(out)))
        )


def delivery(out: Path) -> Iterator[tuple]:
    """Rows (hour as text, dimensions, counts) of a finished run that are not all zero."""
    for path in out.glob("*.json"):
        for key, counts in json.loads(path.read_text()):
            hour, *dimensions = json.loads(key)
            yield (f"{np.datetime64(hour, 'us').astype('datetime64[s]')}Z", *dimensions, *counts)
