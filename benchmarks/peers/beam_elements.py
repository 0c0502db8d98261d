"""Beam as it comes to mind first: one element an event, a state an id, hours as windows. The engine and its flags are the ones
of `ours`.

It gets a smaller log of the same kind, since millions of elements would take this engine an hour.
"""

import json
import logging
import tempfile
import uuid
from pathlib import Path

import apache_beam as beam
import fastavro
from apache_beam.coders import BooleanCoder, FastPrimitivesCoder, PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import FixedWindows
from apache_beam.typehints import KV, Any, Tuple
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from benchmarks.peers.plain_loop import READER
from benchmarks.peers.task import arguments, avro_files, write
from measurement.local.prism import ensure_prism, prism_options
from measurement.transforms.end import End

SECONDS_PER_HOUR = 3_600
_POLL_SECONDS = 0.02


class Place(CheckpointMark):
    """How many events were emitted."""

    def __init__(self, emitted: int):
        self.emitted = emitted

    def finalize_checkpoint(self) -> None:
        """Files need no acknowledgement."""


class EventsReader(UnboundedReader):
    """Emits events as dicts at their times; the watermark stands still until all is read."""

    def __init__(self, paths: list[str], emitted: int):
        self._events, self._emitted = _events(paths), emitted
        self._current, self._ended = None, False
        for _ in range(emitted):
            next(self._events)

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        self._current = next(self._events, None)
        self._ended = self._current is None
        self._emitted += not self._ended
        return not self._ended

    def get_current(self) -> dict:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._current["event_time"])

    def get_watermark(self) -> Timestamp:
        return MAX_TIMESTAMP if self._ended else MIN_TIMESTAMP

    def get_checkpoint_mark(self) -> Place:
        return Place(self._emitted)


class EventSource(UnboundedSource):
    def __init__(self, paths: list[str]):
        self.paths = paths

    def split(self, desired_num_splits, options=None):
        return [self]

    def create_reader(self, options, checkpoint_mark):
        return EventsReader(self.paths, checkpoint_mark.emitted if checkpoint_mark else 0)

    def get_checkpoint_mark_coder(self):
        return PickleCoder()

    def default_output_coder(self):
        return FastPrimitivesCoder()


def _events(paths: list[str]):
    for path in paths:
        with open(path, "rb") as file:
            yield from fastavro.reader(file, READER)


def by_id(event: dict):
    return event["event_id"], (event["campaign_id"], event["event_type"], event["price_micros"] or 0)


class First(beam.DoFn):
    """The first event of an id goes on, by its row."""

    SEEN = ReadModifyWriteStateSpec("seen", BooleanCoder())

    def process(self, element, seen=beam.DoFn.StateParam(SEEN)):
        if not seen.read():
            seen.write(True)
            campaign, type_, price = element[1]
            yield json.dumps([campaign, type_]), (1, price)


class Write(beam.DoFn):
    """Rows to files, one a bundle."""

    def __init__(self, folder: str):
        self._folder = folder

    def start_bundle(self):
        self._rows = []

    def process(self, element, window=beam.DoFn.WindowParam):
        key, totals = element
        self._rows.append([window.start.micros, *json.loads(key), *totals])
        return ()

    def finish_bundle(self):
        if self._rows:
            Path(self._folder, f"{uuid.uuid4().hex}.json").write_text(json.dumps(self._rows))


def add(parts):
    """Sums of (events, price)."""
    return tuple(map(sum, zip(*parts))) or (0, 0)


def main() -> None:
    log, out, _ = arguments()
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        with beam.Pipeline(options=PipelineOptions(prism_options(ensure_prism(lambda _: None)))) as p:
            (
                p
                | "Read" >> ReadFromUnboundedSource(EventSource(list(map(str, avro_files(log)))), _POLL_SECONDS)
                | "By id" >> beam.Map(by_id).with_output_types(KV[str, Tuple[Any, str, int]])
                | "First" >> beam.ParDo(First()).with_output_types(KV[str, Tuple[int, int]])
                | "Hours" >> beam.WindowInto(FixedWindows(SECONDS_PER_HOUR))
                | "Sum" >> beam.CombinePerKey(add)
                | "Write" >> beam.ParDo(Write(scratch))
                | "Written" >> End()
            )
        write((row for path in Path(scratch).glob("*.json") for row in json.loads(path.read_text())), out)


if __name__ == "__main__":
    main()
