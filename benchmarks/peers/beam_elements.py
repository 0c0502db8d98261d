"""Beam as it comes to mind first: one element an event, a state an id, hours as windows.

The engine and its flags are the ones of `ours` or, as variant `fnapi`, Beam's older in-process runner. It gets a smaller log of
the same kind, since millions of elements would take either engine an hour.
"""

import json
import logging
import tempfile
import uuid
from pathlib import Path

import apache_beam as beam
import fastavro
from apache_beam.coders import BooleanCoder
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import FixedWindows
from apache_beam.typehints import KV, Any, Tuple

from benchmarks.peers.elements import Elements
from benchmarks.peers.plain_loop import READER
from benchmarks.peers.task import Row, arguments, avro_files, write
from measurement.columnar.batch import NO_WATERMARK
from measurement.local.prism import ensure_prism, prism_options
from measurement.transforms.end import End

SECONDS_PER_HOUR = 3_600
_POLL_SECONDS = 0.02


def read(paths: list[str]):
    """The log's events; the watermark stands still until all is read."""
    for path in paths:
        with open(path, "rb") as file:
            for event in fastavro.reader(file, READER):
                yield event, NO_WATERMARK


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


def count(paths: list[Path], folder: Path, flags: list[str]) -> list[Row]:
    """The result over the files by the engine that Beam's ``flags`` name; rows are written to ``folder`` first."""
    with beam.Pipeline(options=PipelineOptions(flags)) as p:
        (
            p
            | "Read" >> ReadFromUnboundedSource(Elements(read, list(map(str, paths))), _POLL_SECONDS)
            | "By id" >> beam.Map(by_id).with_output_types(KV[str, Tuple[Any, str, int]])
            | "First" >> beam.ParDo(First()).with_output_types(KV[str, Tuple[int, int]])
            | "Hours" >> beam.WindowInto(FixedWindows(SECONDS_PER_HOUR))
            | "Sum" >> beam.CombinePerKey(add)
            | "Write" >> beam.ParDo(Write(str(folder)))
            | "Written" >> End()
        )
    return [tuple(row) for path in folder.glob("*.json") for row in json.loads(path.read_text())]


def main() -> None:
    log, out, variant = arguments()
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    flags = ["--runner=FnApiRunner", "--streaming"] if variant == ["fnapi"] else prism_options(ensure_prism(lambda _: None))
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        write(count(avro_files(log), Path(scratch), flags), out)


if __name__ == "__main__":
    main()
