"""bytewax, as its documentation does it: deduplication and sums as stateful steps, each keyed.

Two processes on one machine, since a worker is a Python thread: the command starts them and waits. Each event becomes a
tuple of the task's fields when it is read. Variant `recovery` snapshots state into its SQLite stores every ten seconds.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bytewax.operators as op
import fastavro
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers.plain_loop import READER
from benchmarks.peers.task import MICROS_PER_HOUR, arguments, avro_files, write

PROCESSES = 2
SNAPSHOT_SECONDS = 10
_BATCH = 1_000
_LOG, _ROWS = "BENCHMARK_LOG", "BENCHMARK_ROWS"


class FilePartition(StatefulSourcePartition):
    """A file, some events at a time; where it stands is how many were read."""

    def __init__(self, path: Path, read: int | None):
        self._file = path.open("rb")
        self._events, self._read = fastavro.reader(self._file, READER), 0
        for _ in range(read or 0):
            next(self._events)

    def next_batch(self):
        batch = []
        for event in self._events:
            at = event["event_time"]
            # Keys are texts in bytewax.
            key = f"{at - at % MICROS_PER_HOUR}|{event['campaign_id'] or ''}|{event['event_type']}"
            batch.append((event["event_id"], (key, event["price_micros"] or 0)))
            if len(batch) == _BATCH:
                break
        if not batch:
            raise StopIteration
        self._read += len(batch)
        return batch

    def snapshot(self):
        return self._read


class Files(FixedPartitionedSource):
    def __init__(self, log: Path):
        self._paths = {path.name: path for path in avro_files(log)}

    def list_parts(self):
        return list(self._paths)

    def build_part(self, step_id, for_part, resume_state):
        return FilePartition(self._paths[for_part], resume_state)


class RowsPartition(StatelessSinkPartition):
    def __init__(self, folder: Path, worker: int):
        self._file = (folder / f"{worker}.jsonl").open("w")

    def write_batch(self, items):
        for item in items:
            self._file.write(json.dumps(item) + "\n")

    def close(self):
        self._file.close()


class RowsSink(DynamicSink):
    def __init__(self, folder: Path):
        self._folder = folder

    def build(self, step_id, worker_index, worker_count):
        return RowsPartition(self._folder, worker_index)


def first_only(seen: bool | None, event):
    """The first event of an id goes on, others do not."""
    return True, () if seen else (event,)


def added(total, event):
    return total[0] + 1, total[1] + event


def dataflow() -> Dataflow:
    flow = Dataflow("count")
    events = op.input("read", flow, Files(Path(os.environ[_LOG])))
    distinct = op.stateful_flat_map("distinct", events, first_only)
    by_group = op.map("by_group", distinct, lambda event: event[1])
    totals = op.fold_final("total", by_group, lambda: (0, 0), added)
    op.output("write", totals, RowsSink(Path(os.environ[_ROWS])))
    return flow


def main() -> None:
    log, out, variant = arguments()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        rows, recovery = Path(scratch, "rows"), Path(scratch, "recovery")
        rows.mkdir()
        options = []
        if variant == ["recovery"]:
            recovery.mkdir()
            subprocess.run([sys.executable, "-m", "bytewax.recovery", recovery, str(PROCESSES)], check=True)
            options = ["-r", str(recovery), "-s", str(SNAPSHOT_SECONDS), "-b", "0"]
        # Its own way to a cluster of processes on one machine.
        flow = "benchmarks.peers.bytewax_:dataflow()"
        subprocess.run(
            [sys.executable, "-m", "bytewax.testing", flow, "-p", str(PROCESSES), "-w", "1", *options], check=True,
            env=os.environ | {_LOG: str(log), _ROWS: str(rows)})
        write(collected(rows), out)


def collected(folder: Path):
    for path in folder.iterdir():
        for line in path.open():
            key, (events, price) = json.loads(line)
            hour, campaign, type_ = key.split("|")
            yield int(hour), campaign or None, type_, events, price


if __name__ == "__main__":
    main()
