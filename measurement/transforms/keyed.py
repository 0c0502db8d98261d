"""One DoFn that runs a state machine per key over Beam state and event-time timers.

Beam state holds the truth: the machine's log, in bags by slot, and a token. The machine itself lives in the worker
process under (stage, key) with the token that its last bundle wrote. A bundle reads the token: equal, and the machine in
memory is the state's; different (a retried bundle, another worker, a restart), and it is rebuilt from the log. So what a
bundle costs depends on its events and not on all that is remembered, and a bundle that fails leaves no trace.
"""

import os
import threading

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from measurement.state.ring import SLOTS
from measurement.transforms.config import RunConfig

END_OF_TIME = GlobalWindow().max_timestamp().micros  # µs; timers know no later time
_MILLISECOND = 1_000
END_OF_STREAM = 2**63 - 1  # the watermark (µs) behind the last event


class _Machines:
    """The machines of this worker process, each with the token of the state that it mirrors."""

    def __init__(self):
        self._lock = threading.Lock()
        self._held: dict[tuple, tuple[bytes, object]] = {}

    def take(self, key: tuple, token: bytes | None):
        """The machine if it mirrors the state, which it stops doing now; else None."""
        with self._lock:
            held = self._held.pop(key, None)
        return held[1] if held is not None and held[0] == token else None

    def put(self, key: tuple, token: bytes, machine) -> None:
        with self._lock:
            self._held[key] = token, machine

    def release(self, run: str) -> None:
        """Drops a run's machines."""
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if key[0] != run}


MACHINES = _Machines()


def _bag(slot: int) -> BagStateSpec:
    return BagStateSpec(f"log{slot}", BytesCoder())


class KeyedMachine(beam.DoFn):
    """Feeds (key, batch) elements and due times to a machine and writes its log.

    Subclasses say what the machine is (``machine``), what a batch does (``absorb``) and what due time does (``advance``: no more
    than the machine's own unless they say so); both yield outputs. A machine has ``restore``, ``take_changes`` and ``next_due``.
    """

    TOKEN = ReadModifyWriteStateSpec("token", BytesCoder())
    DUE = TimerSpec("due", TimeDomain.WATERMARK)
    END = TimerSpec("end", TimeDomain.WATERMARK)
    FLUSH = TimerSpec("flush", TimeDomain.REAL_TIME)
    # Slot SLOTS is for what has no event time.
    LOG0, LOG1, LOG2, LOG3, LOG4, LOG5, LOG6, LOG7, LOG8, LOG9, LOG10, LOG11, LOG12 = (_bag(s) for s in range(SLOTS + 1))

    stage: str  # by which it is told from the job's other stages

    def __init__(self, config: RunConfig):
        self._config = config

    def machine(self, key: str):
        raise NotImplementedError

    def absorb(self, key: str, machine, batch):
        raise NotImplementedError

    def advance(self, key: str, machine, watermark: int):
        machine.advance(watermark)
        return ()

    def next_due(self, machine) -> int | None:
        """The watermark (µs) at which ``advance`` is to be called next; None if there is none."""
        return machine.next_due()

    # Keyed stages that take this one's outputs: theirs must end later, since a stage's last outputs bear the time of its
    # own end and a watermark lets timers of that very time fire before them.
    stages_behind = 0
    flush_after: float | None = None  # seconds until what a machine holds back is published without a further batch

    def flush(self, key: str, machine):
        raise NotImplementedError

    def flush_in(self, key: str) -> float:
        """Seconds from now until ``flush``."""
        return self.flush_after

    def process(
        self, element, token=beam.DoFn.StateParam(TOKEN), due=beam.DoFn.TimerParam(DUE),
        end=beam.DoFn.TimerParam(END), flush=beam.DoFn.TimerParam(FLUSH),
        l0=beam.DoFn.StateParam(LOG0), l1=beam.DoFn.StateParam(LOG1), l2=beam.DoFn.StateParam(LOG2),
        l3=beam.DoFn.StateParam(LOG3), l4=beam.DoFn.StateParam(LOG4), l5=beam.DoFn.StateParam(LOG5),
        l6=beam.DoFn.StateParam(LOG6), l7=beam.DoFn.StateParam(LOG7), l8=beam.DoFn.StateParam(LOG8),
        l9=beam.DoFn.StateParam(LOG9), l10=beam.DoFn.StateParam(LOG10), l11=beam.DoFn.StateParam(LOG11),
        l12=beam.DoFn.StateParam(LOG12),
    ):
        key, batch = element
        log = l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, l10, l11, l12
        end.set(Timestamp(micros=END_OF_TIME - self.stages_behind * _MILLISECOND))
        yield from self._call(key, token, due, flush, log, lambda machine: self.absorb(key, machine, batch))

    @on_timer(DUE)
    def on_due(
        self, key=beam.DoFn.KeyParam, fired=beam.DoFn.TimestampParam,
        token=beam.DoFn.StateParam(TOKEN), due=beam.DoFn.TimerParam(DUE), flush=beam.DoFn.TimerParam(FLUSH),
        l0=beam.DoFn.StateParam(LOG0), l1=beam.DoFn.StateParam(LOG1), l2=beam.DoFn.StateParam(LOG2),
        l3=beam.DoFn.StateParam(LOG3), l4=beam.DoFn.StateParam(LOG4), l5=beam.DoFn.StateParam(LOG5),
        l6=beam.DoFn.StateParam(LOG6), l7=beam.DoFn.StateParam(LOG7), l8=beam.DoFn.StateParam(LOG8),
        l9=beam.DoFn.StateParam(LOG9), l10=beam.DoFn.StateParam(LOG10), l11=beam.DoFn.StateParam(LOG11),
        l12=beam.DoFn.StateParam(LOG12),
    ):
        log = l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, l10, l11, l12
        yield from self._call(key, token, due, flush, log, lambda machine: self.advance(key, machine, fired.micros))

    @on_timer(END)
    def on_end(
        self, key=beam.DoFn.KeyParam,
        token=beam.DoFn.StateParam(TOKEN), due=beam.DoFn.TimerParam(DUE), flush=beam.DoFn.TimerParam(FLUSH),
        l0=beam.DoFn.StateParam(LOG0), l1=beam.DoFn.StateParam(LOG1), l2=beam.DoFn.StateParam(LOG2),
        l3=beam.DoFn.StateParam(LOG3), l4=beam.DoFn.StateParam(LOG4), l5=beam.DoFn.StateParam(LOG5),
        l6=beam.DoFn.StateParam(LOG6), l7=beam.DoFn.StateParam(LOG7), l8=beam.DoFn.StateParam(LOG8),
        l9=beam.DoFn.StateParam(LOG9), l10=beam.DoFn.StateParam(LOG10), l11=beam.DoFn.StateParam(LOG11),
        l12=beam.DoFn.StateParam(LOG12),
    ):
        # All that was due one time after the other is done at once when a stream ends, but bears the time when the first
        # of it was due: by the time of the end, later stages have forgotten what it changes.
        log = l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, l10, l11, l12
        yield from self._call(key, token, due, flush, log, lambda machine: self._end(key, machine))

    def _end(self, key: str, machine):
        first = machine.next_due()
        time = Timestamp(micros=min(END_OF_TIME if first is None else first, END_OF_TIME))
        for output in self.advance(key, machine, END_OF_STREAM):
            if isinstance(output, TaggedOutput):
                yield TaggedOutput(output.tag, TimestampedValue(output.value, time))
            else:
                yield TimestampedValue(output, time)

    @on_timer(FLUSH)
    def on_flush(self, key=beam.DoFn.KeyParam, token=beam.DoFn.StateParam(TOKEN)):
        # Only a machine in memory is flushed: nothing has to be logged for it (what was not flushed stays marked so in
        # the log), and one that has moved meanwhile is flushed with its next batch.
        place = self._config.run, self.stage, key
        machine = MACHINES.take(place, token.read())
        if machine is not None:
            yield from self.flush(key, machine)
            self._keep(place, token, machine)

    def _call(self, key: str, token, due, flush, log, act):
        place = self._config.run, self.stage, key
        written = token.read()
        machine = MACHINES.take(place, written)
        if machine is None:
            machine = self.machine(key)
            if written is not None:
                machine.restore(run for bag in log for run in bag.read())
        yield from act(machine)
        changes = machine.take_changes()
        for slot in changes.cleared:
            log[slot].clear()
        for slot, run in changes.appended:
            log[slot].add(run)
        self._keep(place, token, machine)
        next_due = self.next_due(machine)
        if next_due is None:
            due.clear()
        else:
            # Timers know milliseconds: rounded up, so that the watermark has passed the time when one fires.
            at_most = END_OF_TIME - self.stages_behind * _MILLISECOND
            due.set(Timestamp(micros=min(-(-next_due // _MILLISECOND) * _MILLISECOND, at_most)))
        if self.flush_after is not None:
            if machine.dirty:
                flush.set(Timestamp.now() + self.flush_in(key))
            else:
                flush.clear()  # Prism, which drains no faster than its wall-clock timers, fires a cleared one at once

    def _keep(self, place: tuple, token, machine) -> None:
        written = os.urandom(16)
        token.write(written)
        MACHINES.put(place, written, machine)
