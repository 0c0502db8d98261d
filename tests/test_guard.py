"""The design's costs, counted and not timed: what crosses the engine, what is asked of its state, what Python does a batch.

A fixed log goes through the job's own source and DoFns, with a state that counts what it is asked. Counts do not depend on
the machine or on how busy it is, so a bound that fails was passed by a change of the code. Each bound stands beside the
figure that it was set by, with room for honest growth; who passes one on purpose measures again and says why.
"""

import gc
import sys
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from apache_beam.pvalue import TaggedOutput

from benchmarks.metrics import ROUTES, TRAVELS
from measurement.io import files
from measurement.io.files import FileSource
from measurement.io.input_file import InputFile
from measurement.simulate import SimulateOptions, simulate
from measurement.simulate.options import ADDING
from measurement.state.identities import IDENTITY, Identities
from measurement.state.ring import SLOTS
from measurement.transforms.config import RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import Distribute
from measurement.transforms.join import Join
from measurement.transforms.keyed import MACHINES
from measurement.transforms.orders import Orders
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import Totals

LOG = 200_000  # events
CLOCK = 1_790_000_000_000_000


# --- An engine that counts -----------------------------------------------------------------------------------

class State:
    """All of a key's state and timers, each under the names that a DoFn calls; ``asked`` counts the calls."""

    def __init__(self, asked: Counter):
        self.token = _Value(asked)
        self.bags = [_Bag(asked) for _ in range(SLOTS + 1)]
        self.timers = {name: _Timer(asked) for name in ("due", "end", "flush")}

    def arguments(self) -> dict:
        return {"token": self.token, **self.timers, **{f"l{slot}": bag for slot, bag in enumerate(self.bags)}}


@dataclass
class _Value:
    asked: Counter
    value: bytes | None = None

    def read(self):
        self.asked["values read"] += 1
        return self.value

    def write(self, value: bytes) -> None:
        self.asked["values written"] += 1
        self.value = value


@dataclass
class _Bag:
    asked: Counter
    runs: list[bytes] = field(default_factory=list)

    def read(self):
        self.asked["bags read"] += 1
        return list(self.runs)

    def add(self, run: bytes) -> None:
        self.asked["runs appended"] += 1
        self.asked["bytes appended"] += len(run)
        self.runs.append(run)

    def clear(self) -> None:
        self.asked["bags cleared"] += 1
        self.runs.clear()


@dataclass
class _Timer:
    asked: Counter

    def set(self, time) -> None:
        self.asked["timers set"] += 1

    def clear(self) -> None:
        self.asked["timers cleared"] += 1


class Job:
    """The job's DoFns by stage. ``asked``: by stage what was asked of the engine: elements, their bytes, calls of state."""

    def __init__(self, run: str):
        config = RunConfig(run, 1, 0, publish_seconds=1e9)  # nothing is published because time has passed
        self.config = config
        self.stages = {"distribute": Distribute(config), "join": Join(config), "orders": Orders(config),
                       "credits": Credits(config), "rejects": Rejects(config), "totals": Totals(config)}
        self.asked = {stage: Counter() for stage in self.stages}
        self.frames = self.events = 0
        self.at = "source"  # the stage that runs now
        self._states: dict[tuple[str, str], State] = {}

    def take(self, intake) -> None:
        """One element of the source, and all that follows from it."""
        self.frames += 1
        self.events += len(intake.batch.rows) + len(intake.rejects)
        queue = deque(self._routed("distribute", self.stages["distribute"].process(intake)))
        self.at = "engine"
        while queue:
            stage, (key, element) = queue.popleft()
            encoded = element if isinstance(element, bytes) else element.encode()
            asked = self.asked[stage]
            asked["elements"] += 1
            asked["bytes"] += len(encoded)
            if (stage, key) not in self._states:
                self._states[stage, key] = State(asked)
            taken = TRAVELS[stage].decode(encoded) if stage in TRAVELS else encoded
            state = self._states[stage, key].arguments()
            queue.extend(self._routed(stage, self.stages[stage].process((key, taken), **state)))
        self.at = "source"

    def _routed(self, stage: str, outputs):
        self.at = stage
        for output in outputs:
            tagged = isinstance(output, TaggedOutput)
            to = ROUTES[stage][output.tag if tagged else None]
            if to is not None:
                yield to, output.value if tagged else output


def intakes(run: str, paths: list):
    """What the source emits."""
    inputs = [InputFile(str(path), path.name, CLOCK) for path in paths]
    reader = FileSource(run, inputs, RunConfig(run, 1, 0).policy, in_process=False).create_reader(None, None)
    there = reader.start()
    while there:
        yield reader.get_current()
        there = reader.advance()
    reader.close()


def went(run: str, paths: list) -> Job:
    """The job, when it has taken all of the files."""
    job = Job(run)
    for intake in intakes(run, paths):
        job.take(intake)
    return job


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """With every kind of trouble."""
    folder = tmp_path_factory.mktemp("log")
    simulate(SimulateOptions(events=LOG, seed=7, files=1), folder)
    return sorted(folder.glob("*.avro"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Without events that have to be looked at one by one: no rejects, nothing late, nothing that waits."""
    folder = tmp_path_factory.mktemp("clean")
    none = dict.fromkeys((*ADDING, "late_rate", "orphan_rate", "robot_rate", "order_repeat_rate"), 0.0)
    simulate(SimulateOptions(events=LOG, seed=7, files=1, jitter_seconds=0, **none), folder)
    return sorted(folder.glob("*.avro"))


@pytest.fixture(scope="module")
def job(log):
    yield went("guard", log)
    MACHINES.release("guard")


def within(counted: dict[str, float], bounds: dict[str, float], what: str) -> None:
    """Fails, naming all of them, where a count is beyond its bound or has none."""
    beyond = {name: (round(n, 3), bounds.get(name)) for name, n in counted.items() if n > bounds.get(name, 0)}
    assert not beyond, f"{what}: {{stage: (counted, bound)}} {beyond}"


def by_stage(job: Job, name: str, each: float) -> dict[str, float]:
    return {stage: asked[name] / each for stage, asked in job.asked.items()}


# --- Across the engine ---------------------------------------------------------------------------------------

def test_few_bytes_an_event_cross_the_engine(job):
    within(by_stage(job, "bytes", job.events), {
        "join": 190,  # 171
        "orders": 0.6,  # 0.37
        "credits": 29,  # 24
        "rejects": 3,  # 2.3
        "totals": 36,  # 29
    }, "bytes an event that a shuffle brings to a stage; what is encoded has grown, or parts carry what is not theirs")


def test_elements_come_by_frame_and_shard_and_not_by_event(job):
    within(by_stage(job, "elements", job.frames), {
        "join": 4,  # event shards
        "orders": 4,  # 3: from each event shard
        "credits": 17,  # 14: to each user shard from each of these
        "rejects": 5,  # 3.8
        "totals": 65,  # 54
    }, "elements that a stage takes for one of the source; each is a round trip and a call of Python, however few its events")


def test_an_element_costs_a_token_and_some_appended_runs(job):
    stages = list(TRAVELS) + ["rejects"]
    for name, bound in {
        "values read": 1,  # the token
        "values written": 1,
        "bags read": 0,  # the machine in memory is the state's: its log is read only where it is not
        "bags cleared": 0,  # nothing expires within a day
        "runs appended": 1.6,  # 1 to 1.4: one for each bucket of event time
        "timers set": 3,  # due, end, and of totals flush
        "timers cleared": 0.2,  # of totals, 0.04: what was published at once waits for no timer
    }.items():
        counted = {stage: job.asked[stage][name] / job.asked[stage]["elements"] for stage in stages}
        within(counted, dict.fromkeys(stages, bound), f"{name}, for an element")


# --- Into state ----------------------------------------------------------------------------------------------

def test_few_bytes_an_event_are_appended_to_state(job):
    within(by_stage(job, "bytes appended", job.events), {
        "join": 68,  # 58
        "orders": 0.7,  # 0.49
        "credits": 29,  # 24
        "rejects": 0.1,  # 0.06
        "totals": 56,  # 46
    }, "bytes an event appended to a stage's log")


def test_what_is_appended_does_not_grow_with_what_is_remembered(log, monkeypatch):
    monkeypatch.setattr(files, "FRAME_EVENTS", LOG // 12)
    job, appended = Job("growing"), []
    for intake in intakes("growing", log):
        before = {stage: asked["bytes appended"] for stage, asked in job.asked.items()}
        job.take(intake)
        appended.append({stage: asked["bytes appended"] - before[stage] for stage, asked in job.asked.items()})
    MACHINES.release("growing")
    early, late = ({stage: sum(each[stage] for each in some) for stage in ("join", "credits", "totals")}
                   for some in (appended[2:5], appended[8:11]))  # the first frame is a few events, the last what is left
    within({stage: late[stage] / early[stage] for stage in early}, dict.fromkeys(early, 1.25),  # 0.9 to 1.1
           "bytes appended for late frames, by those for early ones of as many events")


def test_an_identity_and_its_digest_take_at_most_32_bytes():
    known, rng, most = Identities(), np.random.default_rng(1), 0.0
    new = np.zeros(1_000, IDENTITY)
    for _ in range(400):
        new["hi"], new["lo"] = rng.integers(0, 2**64, (2, len(new)), np.uint64)
        known.upsert(new)
        if known.count >= 20_000:
            most = max(most, known.table.nbytes / known.count)
    took = IDENTITY.itemsize + most  # 31
    assert took <= 32, f"{took:.1f} bytes of an identity, its digest and its share of the hash table, growth included"


# --- In Python -----------------------------------------------------------------------------------------------

class Lines:
    """Counts the lines of Python that run, in loops, comprehensions and generators alike, by the job's stage."""

    def __init__(self, job: Job):
        self.job, self.by = job, Counter()

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _called(self, frame, event, arg):
        return self._line

    def _line(self, frame, event, arg):
        if event == "line":
            self.by[self.job.at] += 1
        return self._line


def test_no_stage_runs_python_for_each_event(clean):
    """A loop over events is a line or more for each. What runs now is of labels, rows and elements, many events each."""
    went("warm", clean)  # what is compiled at first sight is compiled
    job = Job("lines")
    with Lines(job) as lines:
        for intake in intakes("lines", clean):
            job.take(intake)
    MACHINES.release("warm")
    MACHINES.release("lines")
    within({stage: count / job.events for stage, count in lines.by.items()}, {
        "source": 0.6,  # 0.39
        "distribute": 0.15,  # 0.05
        "join": 1.0,  # 0.7
        "orders": 0.4,  # 0.22
        "credits": 0.8,  # 0.56
        "totals": 1.9,  # 1.3
        "engine": 0.01,  # the fake one's own
    }, "lines of Python an event")


def test_no_python_object_is_kept_for_each_event(clean):
    went("warm", clean)
    MACHINES.release("warm")
    gc.collect()
    before = sys.getallocatedblocks()
    job = went("blocks", clean)
    gc.collect()
    kept = (sys.getallocatedblocks() - before) / job.events
    MACHINES.release("blocks")
    assert kept < 0.27, f"{kept:.2f} blocks of memory an event are kept: labels and rows have some, events none"  # 0.18
