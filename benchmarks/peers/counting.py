"""The task as a Beam pipeline of this project's parts: frames of events as elements, machines per key over Beam state.

    files -> frames, decoded to columns -> by shard of the id -> distinct ids, partial sums -> by shard of the row -> totals

Between stages travels what the next one needs and no payload: of an event 16 bytes of its id's fingerprint, the number of
its row and its price; of a row its key and what is added to it. The machines are rebuilt from logs in Beam state after a
failure, as the job's are (measurement/transforms/keyed.py), and the totals are the job's own (measurement/state/totals.py):
they publish rows as they change, each at most every five seconds. Nothing is forgotten, as Flink is not asked to forget.
"""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import orjson
from apache_beam.coders import Coder, PickleCoder, registry
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from benchmarks.peers import parts
from benchmarks.peers.parts import Ids, Part
from benchmarks.peers.task import Row
from measurement.columnar.deltas import Deltas
from measurement.io import flow
from measurement.io.files import FRAME_EVENTS
from measurement.io.framing import frames
from measurement.transforms import coders  # noqa: F401 (registers how Deltas travel)
from measurement.transforms.end import End
from measurement.transforms.config import RunConfig
from measurement.transforms.keyed import END_OF_STREAM, KeyedMachine

ID_SHARDS, ROW_SHARDS = 4, 2
PUBLISH_SECONDS = 5.0
_IN_FLIGHT = 4 * FRAME_EVENTS
_FRAMES_A_BUNDLE, _READ_SECONDS, _POLL_SECONDS = 2, 2.0, 0.02


class PartCoder(Coder):
    def encode(self, value) -> bytes:
        return value.encode()

    def decode(self, encoded):
        return Part.decode(encoded)

    def is_deterministic(self) -> bool:
        return False

    def estimate_size(self, value) -> int:
        return value.size

    def to_type_hint(self):
        return Part


registry.register_coder(Part, PartCoder)


# -- source -----------------------------------------------------------------------------------------------------------

@dataclass
class Place(CheckpointMark):
    """Which file is read, the offset in it, and how many frames were read before."""

    file: int = 0
    offset: int = 0
    frames: int = 0

    def finalize_checkpoint(self) -> None:
        """Files need no acknowledgement."""


class LogReader(UnboundedReader):
    """Emits a Part a frame. The watermark stands still until all is read: the log's disorder is for the peers to bear."""

    def __init__(self, source: "LogSource", place: Place):
        self._source, self._place = source, place
        self._frames, self._current, self._ended = None, None, False

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        if flow.ahead(self._source.run) > _IN_FLIGHT:
            return False
        place = self._place
        while place.file < len(self._source.paths):
            if self._frames is None:
                self._frames = frames(Path(self._source.paths[place.file]), FRAME_EVENTS, FRAME_EVENTS, place.offset)
            for frame, behind in self._frames:
                self._current = Part.of(frame.decoded())
                flow.progress(self._source.run, len(self._current), 0, 0)
                self._place = Place(place.file, behind, place.frames + 1)
                return True
            self._frames = None
            place = self._place = Place(place.file + 1, 0, place.frames)
        self._ended = True
        return False

    def get_current(self) -> Part:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        # Rises, since engines order a key's elements by timestamp.
        return Timestamp(micros=MIN_TIMESTAMP.micros + 1_000 * self._place.frames)

    def get_watermark(self) -> Timestamp:
        return MAX_TIMESTAMP if self._ended else MIN_TIMESTAMP

    def get_checkpoint_mark(self) -> Place:
        self._current = None
        return self._place

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()


class LogSource(UnboundedSource):
    """The log's files, one after another."""

    def __init__(self, run: str, paths: list[str]):
        self.run, self.paths = run, paths

    def split(self, desired_num_splits, options=None):
        return [self]

    def create_reader(self, options, checkpoint_mark):
        return LogReader(self, checkpoint_mark or Place())

    def get_checkpoint_mark_coder(self):
        return PickleCoder()

    def default_output_coder(self):
        return PartCoder()


# -- machines ---------------------------------------------------------------------------------------------------------

class Distinct(KeyedMachine):
    """(shard, Part) to (shard of rows, Deltas): what the events add that are the first of their id."""

    stage, stages_behind = "distinct", 1

    def machine(self, key):
        return Ids()

    def absorb(self, key, machine, part):
        flow.released(self._config.run, len(part))
        sums = part.sums(machine.absorb(part))
        for shard, some in sums.split(ROW_SHARDS):
            yield str(shard), some

    def advance(self, key, machine, watermark):
        return ()


class Totals(KeyedMachine):
    """(shard, Deltas) to rows (hour, campaign, type, events, price) as they stand."""

    stage, flush_after = "totals", PUBLISH_SECONDS

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self._flushed: dict[str, float] = {}

    def machine(self, key):
        return parts.totals()

    def next_due(self, machine):
        return None  # no hour closes before the log's end

    def absorb(self, key, machine, deltas):
        machine.absorb(deltas)
        if time.monotonic() - self._flushed.setdefault(key, time.monotonic()) >= self.flush_after:
            yield from self.flush(key, machine)

    def advance(self, key, machine, watermark):
        if watermark == END_OF_STREAM:
            yield from self.flush(key, machine)

    def flush(self, key, machine):
        self._flushed[key] = time.monotonic()
        revisions = machine.flush(0)
        if revisions is not None and len(revisions):
            yield orjson.dumps(parts.rows(revisions))


class Write(beam.DoFn):
    """Rows to files."""

    def __init__(self, folder: str):
        self._folder = folder

    def process(self, rows):
        Path(self._folder, f"{uuid.uuid4().hex}.json").write_bytes(rows)
        return ()


def count(paths: list[Path], folder: Path, flags: list[str]) -> list[Row]:
    """The result over the files by the engine that Beam's ``flags`` name; rows are published to ``folder`` meanwhile."""
    run = uuid.uuid4().hex
    config = RunConfig(run, 1, 0)
    source = ReadFromUnboundedSource(LogSource(run, list(map(str, paths))), _POLL_SECONDS, _FRAMES_A_BUNDLE, _READ_SECONDS)
    with beam.Pipeline(options=PipelineOptions(flags)) as p:
        (
            p
            | "Read" >> source
            | "By id" >> beam.FlatMap(Part.split, ID_SHARDS).with_output_types(beam.typehints.KV[str, Part])
            | "Distinct" >> beam.ParDo(Distinct(config)).with_output_types(beam.typehints.KV[str, Deltas])
            | "Totals" >> beam.ParDo(Totals(config)).with_output_types(bytes)
            | "Write" >> beam.ParDo(Write(str(folder)))
            | "Written" >> End()
        )
    return last(folder)


def last(folder: Path) -> list[Row]:
    """Each row as it was published last: with the most events, since counts only rise."""
    rows: dict[tuple, tuple[int, int]] = {}
    for path in folder.iterdir():
        for hour, campaign, type_, events, price in orjson.loads(path.read_bytes()):
            key = hour, campaign, type_
            rows[key] = max(rows.get(key, (0, 0)), (events, price))
    return [(*key, *value) for key, value in rows.items()]
