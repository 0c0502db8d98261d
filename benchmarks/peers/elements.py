"""A source of one Beam element an event, for the forms of both pipelines that come to mind first."""

from collections.abc import Callable, Iterator

from apache_beam.coders import FastPrimitivesCoder, PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from measurement.columnar.batch import NO_WATERMARK


class Place(CheckpointMark):
    """How many events were emitted."""

    def __init__(self, emitted: int):
        self.emitted = emitted

    def finalize_checkpoint(self) -> None:
        """Files need no acknowledgement."""


class Reader(UnboundedReader):
    """Emits events at their times."""

    def __init__(self, events: Iterator[tuple[dict, int]], emitted: int):
        self._events, self._emitted = events, emitted
        self._current, self._watermark, self._ended = None, NO_WATERMARK, False
        for _ in range(emitted):
            next(events)

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        self._current, self._watermark = next(self._events, (None, self._watermark))
        self._ended = self._current is None
        self._emitted += not self._ended
        return not self._ended

    def get_current(self) -> dict:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._current["event_time"])

    def get_watermark(self) -> Timestamp:
        if self._ended:
            return MAX_TIMESTAMP
        return MIN_TIMESTAMP if self._watermark == NO_WATERMARK else Timestamp(micros=self._watermark)

    def get_checkpoint_mark(self) -> Place:
        return Place(self._emitted)


class Elements(UnboundedSource):
    """What ``events(*args)`` yields, from its begin each time: (event, watermark in µs or NO_WATERMARK)."""

    def __init__(self, events: Callable[..., Iterator[tuple[dict, int]]], *args):
        self._events, self._args = events, args

    def split(self, desired_num_splits, options=None):
        return [self]

    def create_reader(self, options, checkpoint_mark):
        return Reader(self._events(*self._args), checkpoint_mark.emitted if checkpoint_mark else 0)

    def get_checkpoint_mark_coder(self):
        return PickleCoder()

    def default_output_coder(self):
        return FastPrimitivesCoder()
