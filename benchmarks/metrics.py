"""What the pipeline's measurements of itself cost: latency from receipt to publication, and the log's lines on hours.

One run has both forms of the machines' chain: the job's own stages from a source's element to published rows (join, orders,
credits, totals, rows as Arrow), without an engine, every element encoded and decoded between them. Without: no receipt is
looked at and no hour told of. The log's receipts are set to the last seconds before now, as a stream's are, in as many
tenths; one as old as it is written would cost less. The promise: at most 3 % of throughput.

    python -m benchmarks.metrics --events 200000 --runs 3
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from unittest import mock

import numpy as np
from apache_beam.pvalue import TaggedOutput

from benchmarks.report import Figures, interleaved, machine, positive, publish
from measurement import logs
from measurement.columnar.batch import EventBatch
from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.intake import Intake
from measurement.io import files
from measurement.io.files import FileSource
from measurement.io.input_file import InputFile
from measurement.model.latency import RESOLUTION, no_receipts
from measurement.simulate import SimulateOptions, simulate
from measurement.state.join import JoinShard
from measurement.transforms import hours
from measurement.transforms import join as join_stage
from measurement.transforms.config import RunConfig
from measurement.transforms.credits import Credits
from measurement.transforms.distribute import EVENTS, FACTS, REJECTS, ROWS, TALLIES, Distribute
from measurement.transforms.join import ORDERS, Join
from measurement.transforms.keyed import END_OF_STREAM
from measurement.transforms.orders import Orders
from measurement.transforms.rejects import Rejects
from measurement.transforms.totals import Totals

PROMISE = 0.03  # of throughput
ELEMENT = 10_000  # events, as a busy subscription has them (measurement/io/pubsub/source.py); of larger ones less is lost
PUBLISHED = 16  # elements between publications: one goes each 0.3 s, and every 5 s is published
SPREAD = 5.0  # s: the receipts of an element's events, as those of a stream that is behind by little
WITH, WITHOUT = "with latency and hours' lines", "without"
# By stage, where its outputs go (jobs/delivery.py), and what each keyed stage takes in.
ROUTES = {
    "distribute": {EVENTS: "join", TALLIES: "totals", REJECTS: "rejects"},
    "join": {TALLIES: "totals", REJECTS: "rejects", ORDERS: "orders", FACTS: "credits"},
    "orders": {TALLIES: "totals", FACTS: "credits"},
    "credits": {None: "totals"},
    "rejects": {TALLIES: "totals", ROWS: None},
    "totals": {None: None},
}
TRAVELS = {"join": EventBatch, "orders": EventBatch, "credits": Facts, "totals": Deltas}


class Chain:
    """The job's stages, fed in order; a watermark moves every key when the element that it came with is done."""

    def __init__(self):
        config = RunConfig(f"metrics-{time.monotonic_ns()}", 1, 0, publish_seconds=1e9)  # not by the clock
        self._first = Distribute(config)
        self._stages = {"join": Join(config), "orders": Orders(config), "credits": Credits(config), "rejects": Rejects(config),
                        "totals": Totals(config)}
        self._machines: dict[tuple[str, str], object] = {}
        self.published = 0  # bytes

    def run(self, intakes: list[Intake]) -> "Chain":
        for number, intake in enumerate(intakes, 1):
            self._go("distribute", self._first.process(intake))
            self._advance(intake.before)
            if number % PUBLISHED == 0:
                for (stage, key), it in self._machines.items():
                    if stage == "totals":
                        self._go(stage, self._stages[stage].flush(key, it))
        self._advance(END_OF_STREAM)
        return self

    def _advance(self, watermark: int) -> None:
        for stage in self._stages:  # in the order in which they feed each other
            for (of, key), it in list(self._machines.items()):
                if of == stage and (due := self._stages[stage].next_due(it)) is not None and due <= watermark:
                    self._go(stage, self._stages[stage].advance(key, it, watermark))
                    it.take_changes()

    def _go(self, stage: str, outputs) -> None:
        queue = deque(self._routed(stage, outputs))
        while queue:
            to, (key, element) = queue.popleft()
            encoded = element if isinstance(element, bytes) else element.encode()
            taken = TRAVELS[to].decode(encoded) if to in TRAVELS else encoded
            if (to, key) not in self._machines:
                self._machines[to, key] = self._stages[to].machine(key)
            it = self._machines[to, key]
            queue.extend(self._routed(to, self._stages[to].absorb(key, it, taken)))
            it.take_changes()

    def _routed(self, stage: str, outputs):
        for output in outputs:
            tagged = isinstance(output, TaggedOutput)
            to, element = ROUTES[stage][output.tag if tagged else None], output.value if tagged else output
            if to is None:
                self.published += len(element[1])
            else:
                yield to, element


def read(log: Path) -> list[Intake]:
    """What the source makes of a log, received within SPREAD before now."""
    config = RunConfig("metrics", 1, 0)
    reader = FileSource(config.run, [InputFile(str(log), log.name, 0)], config.policy, in_process=False).create_reader(None, None)
    intakes = []
    with mock.patch.object(files, "FRAME_EVENTS", ELEMENT):
        there = reader.start()
        while there:
            intakes.append(reader.get_current())
            there = reader.advance()
    reader.close()
    for intake in intakes:
        rows = intake.batch.rows
        rows["receipt"] = time.time_ns() // 1_000 - np.linspace(SPREAD * 1e6, 0, len(rows)).astype(np.int64)
    return intakes


def without(intakes: list[Intake]) -> Chain:
    """The chain with what measures taken out."""
    with (mock.patch.object(JoinShard, "_received", lambda *_: None),
          mock.patch.object(join_stage, "receipts_of", lambda *_: no_receipts()), mock.patch.object(hours, "tell", lambda _: None)):
        return Chain().run(intakes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=positive, default=1_000_000, help="events of the log (1000000)")
    parser.add_argument("--runs", type=positive, default=7, help="timed runs of each form (7)")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        simulate(SimulateOptions(events=args.events, seed=7, files=1), Path(folder, "log"))
        intakes = read(Path(folder, "log", "events-01.avro"))
        with Path(folder, "lines").open("w") as lines:
            logs.configure("json")
            logging.getLogger().handlers[0].setStream(lines)
            seconds = interleaved({WITHOUT: lambda: without(intakes), WITH: lambda: Chain().run(intakes)}, args.runs)
            told = sum(1 for _ in Path(folder, "lines").open())
    table = cost(seconds, args.events, len(intakes), told // (args.runs + 1))
    publish("metrics", before, [table], events=args.events, runs=args.runs)


def cost(seconds: dict[str, list[float]], events: int, elements: int, lines: int) -> Figures:
    figures = Figures("the pipeline's measurements of itself: throughput of the machines' chain", (
        "form", "events/s", "min", "max", "of the throughput without"))
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in seconds.items():
        share = middle[WITHOUT] / middle[name]
        figures.add(name, events / middle[name], events / max(taken), events / min(taken), f"{share:.4f}")
    pairs = [1 - a / b for a, b in zip(seconds[WITHOUT], seconds[WITH], strict=True)]
    figures.notes.append(f"lost: {1 - middle[WITHOUT] / middle[WITH]:.2%} by the medians, {statistics.median(pairs):.2%} by the median "
                         f"of the pairs; promised: at most {PROMISE:.0%}")
    figures.notes.append(f"{elements} elements, receipts of {SPREAD:g} s in {SPREAD * 1e6 / RESOLUTION:.0f} tenths each; "
                         f"{lines} lines of log a run")
    return figures


if __name__ == "__main__":
    main()
