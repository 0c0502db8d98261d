"""A Pub/Sub subscription as an unbounded source, on every runner: batches of messages as elements, judged as files are.

One element holds whatever has been pulled when the engine asks, so a quiet topic does not wait for a full batch and a busy
one does not send small ones. The watermark follows the event times (measurement/io/watermark.py), and the clock when the
subscription is idle: nothing waits, nothing is held, and for longer than a lease nothing came, so that what a dead process
held has come back before. A source that rebuilds reads the archive first and holds the engine's watermark until it has.
"""

import operator
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import time

import numpy as np
from apache_beam.coders import PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.metrics import Metrics
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp

from measurement.columnar.batch import NO_WATERMARK
from measurement.columnar.intake import Intake, Origin, take_in
from measurement.columnar.judge import REASONS, TOO_LATE
from measurement.columnar.screen import Screen
from measurement.io import archive, flow, handover
from measurement.io.control import Control
from measurement.io.pubsub.fence import Fence
from measurement.io.endpoints import Endpoints
from measurement.io.intake_coder import IntakeCoder
from measurement.io.pubsub import keepers
from measurement.io.pubsub.api import Subscriber
from measurement.io.pubsub.keeper import Flow, Keeper, Pulled
from measurement.io.pubsub.messages import Message, Schemas, frames
from measurement.io.pubsub.schemas import look_up
from measurement.io.watermark import END, FileWatermark
from measurement.model.events import MICROS_PER_SECOND
from measurement.model.policy import Policy

# An element costs a shuffle and a state call per shard however small it is. So the first message after a pause goes at
# once, and then, until elements are full, one goes each so many seconds; fewer and larger ones while the stages behind have
# not taken what they were sent, so that load makes an event cheaper. A message may hold thousands of events: so full is
# counted in bytes as well.
FULL_MESSAGES, FULL_BYTES, LINGER_SECONDS, BEHIND_SECONDS = 10_000, 8 << 20, 0.3, 0.6
# A reader that has nothing waits so long for news: what comes meanwhile goes at once, and a quiet topic costs few bundles.
# Not behind an element, which goes on only when its bundle ends.
_WAIT_SECONDS = 0.25
_TOO_LATE = REASONS[TOO_LATE]
_IN_FLIGHT = 400_000  # events between source and join, where the engine does not push back


@dataclass(frozen=True)
class Rebuild:
    """The archive's files to read before the subscription, which ``manifest`` lists (measurement/io/archive.py).

    Events older than ``accept_from`` are too late in the archive, than ``publish_from`` behind it (NO_WATERMARK: none).
    ``credit_from``: see measurement/transforms/config.py.
    """

    manifest: str
    accept_from: int = NO_WATERMARK
    publish_from: int = NO_WATERMARK
    credit_from: int = NO_WATERMARK


@dataclass(frozen=True)
class Reading:
    """How a subscription is read: ``bound`` (s) of disorder, ``idle_after`` (s); ``archive`` is where the source itself
    keeps what it received; ``live``: whether the subscription is read at all; ``until_idle``: ends when it is idle."""

    flow: Flow = Flow()
    bound: float = 10.0
    idle_after: float = 180.0
    archive: str | None = None
    live: bool = True
    until_idle: bool = False


class StateLost(RuntimeError):
    """A job came up without the state that what it has acknowledged is in."""


@dataclass
class Mark(CheckpointMark):
    """Where a reader stands: pulls emitted whole, the watermark's memory, archive files read, and how many intakes of the
    next pull or file were emitted, which only this process's next reader can leave out."""

    run: str
    reader: int
    number: int
    recent: list[int] = field(default_factory=list)
    state: list[int] = field(default_factory=list)
    stamp: int = MIN_TIMESTAMP.micros
    archived: int = 0
    part: int = 0

    def finalize_checkpoint(self) -> None:
        if keeper := keepers.find((self.run, self.reader)):
            keeper.finalized(self.number)


class PubSubSource(UnboundedSource):
    """``job`` names the subscription's place in the control table; ``readers`` share the subscription."""

    def __init__(self, run: str, generation: int, subscription: str, instance: str, endpoints: Endpoints, policy: Policy,
                 reading: Reading = Reading(), rebuild: Rebuild | None = None, schemas: tuple[str, ...] = (),
                 in_process: bool = False, readers: int = 1, reader: int | None = None):
        self.run, self.generation, self.subscription, self.instance = run, generation, subscription, instance
        self.endpoints, self.policy, self.reading, self.rebuild = endpoints, policy, reading, rebuild
        self.schemas, self.in_process, self.readers, self.reader = schemas, in_process, readers, reader

    def split(self, desired_num_splits, options=None):
        if self.reader is not None:
            return [self]
        return [PubSubSource(**{**self.__dict__, "reader": reader}) for reader in range(self.readers)]

    def create_reader(self, options, checkpoint_mark):
        return PubSubReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self):
        return PickleCoder()

    def default_output_coder(self):
        return IntakeCoder()

    def control(self) -> Control:
        return Control(self.endpoints, self.instance)


# What a reader has when it goes on where another stood.
_INHERITED = ("_schemas", "_screen", "_rebuilding", "_archive", "_keeper", "_intakes", "_behind", "_ended")


class PubSubReader(UnboundedReader):
    """Emits one Intake for each encoding and writer's schema among the messages at hand."""

    def __init__(self, source: PubSubSource, mark: Mark | None):
        self._source = source
        self._resumed = mark is not None
        self._mark = mark or Mark(source.run, source.reader or 0, 0)
        self._key, self._started = (source.run, self._mark.reader), False
        self._watermark = FileWatermark(round(source.reading.bound * MICROS_PER_SECOND))
        if mark is not None:
            self._watermark.recent[:], self._watermark.state[:] = mark.recent, mark.state
        # Elements pulled and archive files read whose last intake has been emitted: no mark covers half of one.
        self._number, self._archived, self._stamp = self._mark.number, self._mark.archived, self._mark.stamp
        self._part = 0  # of what is pulled or read at once, intakes emitted
        self._behind = self._number, self._archived  # when what waits in ``_intakes`` has been emitted
        self._intakes: deque[Intake] = deque()
        self._current: Intake | None = None
        self._gave = False  # whether the last call gave an element
        self._ended = False
        self._keeper: Keeper | None = None
        self._archive: Iterator[tuple[int, list[Message]]] = iter(())
        self._received = Metrics.counter("pubsub", "messages")
        self._held, self._outages = Metrics.gauge("pubsub", "held_messages"), Metrics.gauge("pubsub", "failed_calls")
        self._acknowledged = Metrics.gauge("pubsub", "acknowledged_messages")

    def start(self) -> bool:
        last = handover.take_over(self._key, self, self._mark)
        if last is not None:
            for name in _INHERITED:
                setattr(self, name, getattr(last, name))
        else:
            self._open()
        self._started = True
        return self.advance()

    def _open(self) -> None:
        source = self._source
        self._schemas = Schemas(list(source.schemas), look_up(source.endpoints))
        self._screen = Screen(source.policy.screening)
        self._rebuilding = source.rebuild is not None
        if self._rebuilding:
            self._archive = self._archived_messages()
        if source.reading.live:
            fence = Fence(source.control(), source.subscription, source.generation, self._mark.reader)
            if not self._resumed and fence.has_acknowledged():
                raise StateLost(f"{source.subscription}: generation {source.generation} has acknowledged messages, and the "
                                "state that they are in is gone: start the job anew, so that it rebuilds from the archive")
            self._keeper = keepers.open_(self._key, lambda: Keeper(
                Subscriber(source.endpoints, source.subscription), source.reading.flow, fence.permit))
            self._keeper.give_back(self._number)

    # -- elements

    def advance(self) -> bool:
        if not self._intakes and self._ahead() <= _IN_FLIGHT:
            self._fill(0.0 if self._gave else _WAIT_SECONDS)
        self._gave = bool(self._intakes)
        if not self._gave:
            return False
        self._current = self._intakes.popleft()
        self._part += 1
        if not self._intakes:
            (self._number, self._archived), self._part = self._behind, 0
        return True

    def _ahead(self) -> int:
        """Events that were emitted and not taken, where that can be known."""
        return flow.ahead(self._source.run) if self._source.in_process else 0

    def _fill(self, wait: float) -> None:
        """Makes the next elements, from the archive while there is more of it; ``wait``: s, for messages."""
        if self._rebuilding:
            for number, messages in self._archive:
                self._take(messages, self._source.rebuild.accept_from)
                self._leave_out_unread()
                if self._intakes:
                    self._behind = self._number, number
                    return
            self._rebuilding = False
        if self._keeper is None:
            self._ended = True
            return
        if self._keeper.superseded:
            raise self._keeper.superseded
        linger = BEHIND_SECONDS if self._ahead() > 0 else LINGER_SECONDS
        pulled = self._keeper.take(FULL_MESSAGES, FULL_BYTES, linger, wait)
        if pulled:
            self._pulled(pulled)
        else:
            self._idle()
        self._held.set(len(self._keeper.leases))
        self._outages.set(self._keeper.outages)
        self._acknowledged.set(self._keeper.acknowledged)

    def _leave_out_unread(self) -> None:
        """Drops the rejects of events that are too late only for where the archive is read from: an earlier generation took
        them, and their hours stand."""
        first = self._source.rebuild.accept_from
        known = self._watermark.value
        since = NO_WATERMARK if known == NO_WATERMARK else known - self._source.policy.counting.dedup_horizon
        for intake in self._intakes:
            intake.rejects = [r for r in intake.rejects if r["reason"] != _TOO_LATE or not since <= r["event_time"] < first]

    def _archived_messages(self) -> Iterator[tuple[int, list[Message]]]:
        """(files read by then, messages) of this reader's part of the archive; a message that was kept twice comes once."""
        number, done = 0, self._archived
        for hour, paths in enumerate(archive.listed(self._source.rebuild.manifest)):
            if hour % self._source.readers != self._mark.reader:
                continue
            if number + len(paths) <= done:
                number += len(paths)
                continue
            seen: set[str] = set()  # copies were published once, and so are kept in one hour
            for path in paths:
                number += 1
                messages = [m for m in archive.read(path) if not (m.id in seen or seen.add(m.id))]
                if number > done:
                    yield number, messages

    def _pulled(self, pulled: list[Pulled]) -> None:
        received = [m for some in pulled for m in some.messages]
        messages = [_message(m.message) for m in received]
        messages.sort(key=_ORDER)  # pulls run side by side, and an id's first content is to be first
        self._behind = self._number + 1, self._archived
        self._keeper.leases.emitted(self._number + 1, [m.ack_id for m in received], sum(p.size for p in pulled), pulled[0].at)
        if self._source.reading.archive is not None:  # before anything of them can be published
            archive.write(self._source.reading.archive, self._source.subscription, messages)
        self._received.inc(len(messages))
        self._take(messages, self._source.rebuild.publish_from if self._source.rebuild else NO_WATERMARK)

    def _take(self, messages: list[Message], floor: int) -> None:
        source = self._source
        for frame in frames(messages, self._schemas):
            origin = Origin(source.subscription, np.array(frame.positions, np.int64), frame.encoding,
                            frame.schema.id if frame.schema else None, np.array(frame.clocks, np.int64))
            edge = {hour: tuple(counts) for hour, counts in frame.edge.items()}
            intake = take_in(frame.decoded(), origin, edge, source.policy, self._watermark, END, self._screen, floor)
            self._intakes.append(intake)
            accepted, rejected = len(intake.batch.rows), len(intake.rejects)
            flow.progress(source.run, accepted + rejected, rejected, self._watermark.value)

    def _idle(self) -> None:
        """Moves the watermark by the clock when nothing has come for long."""
        reading = self._source.reading
        if self._keeper.idle() < reading.idle_after:
            return
        self._watermark.advance(round((time() - reading.idle_after - reading.bound) * MICROS_PER_SECOND))
        self._ended = reading.until_idle

    # -- what the engine asks

    def get_current(self) -> Intake:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        # Rises by at least a millisecond an element, since engines order a key's elements by timestamp. The archive's are
        # before any event's time, so that no stage takes it for read while an element of it is under way.
        unknown = self._rebuilding or self._current.before == NO_WATERMARK
        least = MIN_TIMESTAMP.micros if unknown else self._current.before
        self._stamp = max(least // 1000 * 1000, self._stamp + 1000)
        return Timestamp(micros=self._stamp)

    def get_watermark(self) -> Timestamp:
        if self._intakes or self._rebuilding:
            return MIN_TIMESTAMP if self._rebuilding else self._behind_current()
        if self._ended:
            return MAX_TIMESTAMP
        watermark = self._watermark.value
        return MIN_TIMESTAMP if watermark == NO_WATERMARK else Timestamp(micros=watermark)

    def _behind_current(self) -> Timestamp:
        """The watermark in front of the elements that are made and not emitted yet."""
        before = self._intakes[0].before
        return MIN_TIMESTAMP if before == NO_WATERMARK else Timestamp(micros=before)

    def get_checkpoint_mark(self) -> Mark:
        return Mark(self._source.run, self._mark.reader, self._number, self._watermark.recent.tolist(),
                    self._watermark.state.tolist(), self._stamp, self._archived, self._part)

    def abandon(self, mark: Mark) -> bool:
        """Whether it stands at ``mark``; what it has is the next reader's then."""
        return self._started and self.get_checkpoint_mark() == mark

    def close(self) -> None:
        if handover.let_go(self._key, self) and self._keeper is not None:
            self._keeper.close()


_ORDER = operator.attrgetter("order")


def _message(m) -> Message:
    """A received message (protobuf) as it is used."""
    at = m.publish_time
    return Message(m.message_id, at.seconds * MICROS_PER_SECOND + at.nanos // 1_000, m.attributes, m.data)
