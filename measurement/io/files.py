"""Input files as one unbounded source: all open together, read in order, the file furthest behind first.

The watermark is the least over the files (measurement/io/watermark.py). Reading the file whose watermark is least keeps
files that cover the same days abreast, and days that follow each other in sequence. A replay's files begin when all
others are at their end: what was rejected is judged again with all there is to know, before the stream ends.
"""

import resource
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from apache_beam.coders import PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from measurement.columnar.batch import NO_WATERMARK
from measurement.columnar.intake import Intake, Origin, accepted_times, take_in
from measurement.columnar.screen import Screen
from measurement.io import flow, handover, replays
from measurement.io.framing import Frame, frames
from measurement.io.input_file import InputFile
from measurement.io.intake_coder import IntakeCoder
from measurement.io.watermark import END, HELD, FileWatermark
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.policy import Policy

# Enough that what an element costs by itself is little beside its events, in some 40 MB; half of it costs a twelfth more of
# processor time, a sixth of it half as much again.
FRAME_EVENTS = 98_304
_PEEK_EVENTS = 64  # of each file's first frame, which stays in memory until the file's turn
_IN_FLIGHT = 4 * FRAME_EVENTS  # events between source and join, where the engine does not push back


@dataclass
class Position(CheckpointMark):
    """Where each file stands: offset behind what was emitted, the watermark's memory, whether it is at its end."""

    files: dict[str, tuple[int, list[int], list[int], bool]] = field(default_factory=dict)
    stamp: int = 0

    def finalize_checkpoint(self) -> None:
        """Files need no acknowledgement."""


class _Cursor:
    """One file being read."""

    def __init__(self, file: InputFile, kept: tuple | None, policy: Policy, screen: Screen, backfill: bool):
        self.file, self._policy, self._screen = file, policy, screen
        self.watermark = FileWatermark(HELD if backfill else 0)
        self.offset, self.done = 0, False
        if kept is not None:
            self.offset, recent, state, self.done = kept
            self.watermark.recent[:], self.watermark.state[:] = recent, state
        if file.replay:
            self._frames = replays.frames(Path(file.path), FRAME_EVENTS, self.offset)
        else:
            # A resumed file is cut as it would have been, so that the files are read in the same order.
            first = FRAME_EVENTS if self.offset else _PEEK_EVENTS
            self._frames = frames(Path(file.path), FRAME_EVENTS, first, self.offset)
        self._next: tuple[Frame | replays.Replayed, int] | None = None
        if not self.done:
            self._advance()
            if file.replay:
                self.watermark.state[1] = END  # what counts is where the files ended
            elif self.offset == 0 and not self.done and not backfill:
                self.watermark.open(accepted_times(self._next[0].decoded(), file.clock, policy, screen))

    def _advance(self) -> None:
        self._next = next(self._frames, None)
        self.done = self._next is None

    def read(self, others: int) -> Intake:
        """The next frame, judged; the cursor moves on."""
        frame, behind = self._next
        origin = Origin(self.file.name, np.array(frame.positions, np.int64), frame.encoding,
                        frame.schema.id if frame.schema else None, np.full(len(frame.positions), self.file.clock))
        edge = {self.file.clock // MICROS_PER_HOUR * MICROS_PER_HOUR: (frame.messages, frame.events, frame.bytes)}
        intake = take_in(frame.decoded(), origin, edge, self._policy, self.watermark, others, self._screen)
        self.offset = behind
        self._advance()
        return intake

    @property
    def mark(self) -> tuple:
        return self.offset, self.watermark.recent.tolist(), self.watermark.state.tolist(), self.done

    def close(self) -> None:
        self._frames.close()


class FilesReader(UnboundedReader):
    """Emits one Intake a frame; its timestamp is the watermark when it was read, so that no stage passes it by."""

    def __init__(self, source: "FileSource", mark: Position | None):
        self._source = source
        self._mark = mark or Position()
        self._cursors: list[_Cursor] | None = None
        self._current: Intake | None = None
        self._stamp = self._mark.stamp

    def start(self) -> bool:
        _allow_open_files(len(self._source.files) + 256)
        last = handover.take_over((self._source.run,), self, self._mark)
        if last is not None:
            self._cursors, last._cursors = last._cursors, None
        else:
            source = self._source
            screen = Screen(source.policy.screening)
            self._cursors = [_Cursor(file, self._mark.files.get(file.path), source.policy, screen, source.backfill)
                             for file in source.files]
        return self.advance()

    def abandon(self, mark: Position) -> bool:
        """Whether it stands at ``mark``, and its files are the next reader's; if not they are closed."""
        if self._cursors is None:
            return False
        self._mark = self.get_checkpoint_mark()
        if self._mark != mark:
            self._close_files()
        return self._mark == mark

    def _close_files(self) -> None:
        for cursor in self._cursors or ():
            cursor.close()
        self._cursors = None

    def advance(self) -> bool:
        if self._cursors is None:  # another has gone on in its place
            return self.start()
        cursor = self._furthest_behind()
        if cursor is None or self._too_far_ahead():
            return False
        if cursor.file.replay:
            others = self._after_files()
        else:
            others = min((c.watermark.value for c in self._reading() if c is not cursor and not c.file.replay), default=END)
        self._current = cursor.read(others)
        accepted, rejected = len(self._current.batch.rows), len(self._current.rejects)
        flow.progress(self._source.run, accepted + rejected, rejected, self._watermark())
        return True

    def _reading(self) -> list[_Cursor]:
        return [c for c in self._cursors if not c.done]

    def _furthest_behind(self) -> _Cursor | None:
        reading = self._reading()
        files = [c for c in reading if not c.file.replay] or reading
        return min(files, key=lambda c: c.watermark.value, default=None)

    def _too_far_ahead(self) -> bool:
        return self._source.in_process and flow.ahead(self._source.run) > _IN_FLIGHT

    def _after_files(self) -> int:
        """The watermark that a replay is judged by: where the files ended."""
        return max((c.watermark.value for c in self._cursors if not c.file.replay), default=NO_WATERMARK)

    def _watermark(self) -> int:
        """µs; END when everything is read."""
        reading = self._reading()
        files = [c.watermark.value for c in reading if not c.file.replay]
        if files:
            return min(files)
        return self._after_files() if reading else END

    def get_current(self) -> Intake:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        # Rises by at least a millisecond an element, since engines order a key's elements by timestamp.
        least = MIN_TIMESTAMP.micros if self._current.before == NO_WATERMARK else self._current.before
        self._stamp = max(least // 1000 * 1000, self._stamp + 1000)
        return Timestamp(micros=self._stamp)

    def get_watermark(self) -> Timestamp:
        watermark = self._watermark()
        if watermark == END:
            return MAX_TIMESTAMP
        return MIN_TIMESTAMP if watermark == NO_WATERMARK else Timestamp(micros=watermark)

    def get_checkpoint_mark(self) -> Position:
        self._current = None  # what was emitted is not kept until the next bundle
        if self._cursors is None:
            return self._mark
        return Position({c.file.path: c.mark for c in self._cursors}, self._stamp)

    def close(self) -> None:
        handover.let_go((self._source.run,), self)
        self._close_files()


class FileSource(UnboundedSource):
    """Files as a stream of Intake elements. ``in_process``: the workers share this process (see flow). ``backfill``: files in
    any order of time; the watermark moves when all are read, so nothing in them is late."""

    def __init__(self, run: str, files: list[InputFile], policy: Policy, in_process: bool, backfill: bool = False):
        self.run, self.files, self.policy, self.in_process, self.backfill = run, files, policy, in_process, backfill

    def split(self, desired_num_splits, options=None):
        return [self]  # one reader: the watermark is a function of all files

    def create_reader(self, options, checkpoint_mark):
        return FilesReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self):
        return PickleCoder()

    def default_output_coder(self):
        return IntakeCoder()


def _allow_open_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
