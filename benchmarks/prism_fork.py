"""Shows why the local profile never lets Prism split a bundle: an exact dedup in keyed state, with and without.

A bundle whose progress stands still for two ticks (100 ms each) is split. Prism then frees the keys of what it hands
back while the bundle still holds elements of those keys, so two bundles of one key run side by side from the same
state, and both let the same id through. The stall is a pause here, or, with `--pause-ms 0 --burners 6`, only a busy
machine. It is a matter of timing, so this counts over runs and is never a test.

    python -m benchmarks.prism_fork --runs 10
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import BagStateSpec
from rich.console import Console
from rich.table import Table

from measurement.local.prism import SPLIT_GUARD, ensure_prism, prism_options

SHARDS = 8
BATCH = 4_000
DUPLICATE_SHARE = 0.05
PAUSE_EVERY = 25  # batches; what a compaction, a collection of garbage or a slow disk does to an element now and then


def batches(events: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Ids in random order, one in twenty a second copy, as (shard, packed ids): one element a batch."""
    rng = np.random.default_rng(seed)
    unique = np.arange(events - duplicates(events), dtype=np.uint64)
    ids = rng.permutation(np.concatenate([unique, rng.choice(unique, duplicates(events), replace=False)]))
    for start in range(0, events, BATCH * SHARDS):
        part = ids[start : start + BATCH * SHARDS]
        for shard in range(SHARDS):
            yield b"%d" % shard, part[part % SHARDS == shard].tobytes()


def duplicates(events: int) -> int:
    return int(events * DUPLICATE_SHARE)


class CountNew(beam.DoFn):
    """Exact dedup of a shard's ids: the whole state is read for each batch, the new ids are appended."""

    SEEN = BagStateSpec("seen", BytesCoder())

    def __init__(self, pause: float):
        self.pause = pause

    def process(self, element, seen=beam.DoFn.StateParam(SEEN)):
        ids = np.frombuffer(element[1], dtype=np.uint64)
        known = np.frombuffer(b"".join(seen.read()), dtype=np.uint64)
        new = np.setdiff1d(ids, known)
        if ids[0] % PAUSE_EVERY == 0:
            time.sleep(self.pause)
        seen.add(new.tobytes())
        yield len(new)


def let_through(flags: list[str], events: int, seed: int, pause: float) -> int:
    """One run of the pipeline; how many duplicates were counted as new."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "new"
        with beam.Pipeline(options=PipelineOptions(flags)) as p:
            (
                p
                | beam.Create([seed])
                | beam.FlatMap(lambda s: batches(events, s))
                | beam.ParDo(CountNew(pause))
                | beam.CombineGlobally(sum)
                | beam.Map(lambda total: answer.write_text(str(total)))
            )
        return int(answer.read_text()) - (events - duplicates(events))


def burn(parent: int) -> None:
    """Load that ends by itself if the process that started it is gone."""
    while os.getppid() == parent:
        sum(range(100_000))


def time_is_up(*_) -> None:
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="runs of each kind (10)")
    parser.add_argument("--events", type=int, default=1_000_000, help="events a run (1000000)")
    parser.add_argument("--pause-ms", type=float, default=200, help="one batch in 25 takes this much longer (200)")
    parser.add_argument("--burners", type=int, default=os.cpu_count(), help="busy processes beside it (the cores)")
    parser.add_argument("--seconds", type=int, default=300, help="stop after this, with the runs that are done (300)")
    args = parser.parse_args()

    guarded = prism_options(ensure_prism())
    kinds = {"splits bundles": [flag for flag in guarded if SPLIT_GUARD not in flag], SPLIT_GUARD: guarded}
    seen: dict[str, list[int]] = {kind: [] for kind in kinds}
    load = [multiprocessing.Process(target=burn, args=(os.getpid(),), daemon=True) for _ in range(args.burners)]
    for process in load:
        process.start()
    signal.signal(signal.SIGALRM, time_is_up)
    signal.alarm(args.seconds)
    try:
        for run in range(args.runs):
            for kind, flags in kinds.items():
                seen[kind].append(let_through(flags, args.events, run, args.pause_ms / 1000))
                print(f"run {run}, {kind}: {seen[kind][-1]} let through", flush=True)
    except TimeoutError:
        print(f"stopped after {args.seconds} s")
    finally:
        signal.alarm(0)
        for process in load:
            process.terminate()

    table = Table(title=f"{args.events:,} events, {duplicates(args.events):,} of them duplicates")
    for column in ("Prism", "runs", "let some through", "fewest", "most"):
        table.add_column(column)
    for kind, runs in seen.items():
        if runs:
            table.add_row(kind, *map(str, (len(runs), sum(extra != 0 for extra in runs), min(runs), max(runs))))
    Console().print(table)


if __name__ == "__main__":
    main()
