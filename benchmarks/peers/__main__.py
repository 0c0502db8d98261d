"""One task, one log, many engines: exact counts behind exact deduplication, each engine tuned as its own users would.

What each reads, does and hands in is in benchmarks/peers/task.py; what it is set to, in its own module. Every run is a tree of
processes of its own, the peers take turns, and a speed is shown only of a result that is the oracle's row by row.

    python -m benchmarks.peers --events 200000 --runs 1 --only ours "Flink SQL, heap"
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import delivery_oracle, environments, log, oracle, task
from benchmarks.report import Figures, machine, positive, publish

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ad-measurement" / "peers"
OURS, KERNELS, JOB = "ours", "ours, kernels alone", "ours, whole delivery job"
HEAP, POLARS = "Flink SQL, heap", "Polars, batch"
SIDE_BY_SIDE = (OURS, HEAP), (JOB, HEAP), (KERNELS, POLARS)


@dataclass
class Peer:
    name: str
    module: str
    environment: str
    variant: tuple[str, ...] = ()
    small: bool = False  # too slow for the whole log
    right: Callable[[Path], list[tuple]] = oracle.rows
    runs: list[dict] = field(default_factory=list)
    trouble: str = ""  # why no speed of it is shown


def peers() -> list[Peer]:
    return [
        Peer(OURS, "ours", "project"),
        Peer(JOB, "delivery", "project", right=delivery_oracle.rows),
        Peer(HEAP, "flink", "flink", ("hashmap",)),
        Peer("Flink SQL, RocksDB", "flink", "flink", ("rocksdb",)),
        Peer("Spark, HDFS state", "spark", "spark", ("hdfs",)),
        Peer("Spark, RocksDB", "spark", "spark", ("rocksdb",)),
        Peer("bytewax", "bytewax_", "bytewax"),
        Peer("bytewax, recovery", "bytewax_", "bytewax", ("recovery",)),
        Peer("Pathway", "pathway_", "pathway"),
        Peer("Beam, an element an event, on Prism", "beam_elements", "project", ("prism",), small=True),
        Peer("Beam, an element an event, on FnApiRunner", "beam_elements", "project", ("fnapi",), small=True),
        Peer("plain Python loop", "plain_loop", "python"),
        Peer(KERNELS, "kernels", "project"),
        Peer(POLARS, "polars_", "polars"),
        Peer("DuckDB, batch, Avro", "duckdb_", "duckdb-avro", ("avro",)),
        Peer("DuckDB, batch, Parquet", "duckdb_", "duckdb"),
    ]


def main() -> None:
    args = arguments()
    chosen = [peer for peer in peers() if not args.only or peer.name in args.only]
    before = machine()
    whole, small = (log.ensure(log.Parameters(events, args.seed, args.codec), args.cache / "logs")
                    for events in (args.events, min(args.small_events, args.events)))
    prepare(chosen, args.cache)
    for peer in chosen:
        if not peer.trouble:
            peer.right(small if peer.small else whole)
    for folder in (whole, small):
        for path in [*folder.glob("*.avro"), *folder.glob("parquet/*")]:
            path.read_bytes()  # so that each peer finds the log in memory, the first one as well
    for peer in chosen:
        if peer.name in (OURS, KERNELS, JOB):
            run(peer, small, args.cache, args.limit)  # untimed: kernels are compiled once an installation
            peer.runs.clear()
    for _ in range(args.runs):
        for peer in chosen:
            if not peer.trouble and not (peer.runs and peer.runs[0]["seconds"] > args.once):
                run(peer, small if peer.small else whole, args.cache, args.limit)
                said = peer.trouble or ", ".join(f"{name} {value:,.2f}" for name, value in peer.runs[-1].items())
                print(f"{peer.name}: {said}", file=sys.stderr, flush=True)
    told = log.manifest(whole)
    few = log.manifest(small)["events"]
    tables = [compared(chosen, told["events"], few), side_by_side(chosen, told["events"])]
    publish("peers", before, [table for table in tables if table.rows], runs=args.runs, log=told,
            environments={name: [*it.packages, *it.jars] for name, it in environments.ENVIRONMENTS.items()})
    sys.exit(any(peer.trouble for peer in chosen if peer.environment == "project"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=positive, default=2_000_000, help="events of the log (2000000)")
    parser.add_argument("--small-events", type=positive, default=20_000, help="events for what is too slow for it (20000)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--codec", default="null", choices=("null", "deflate"), help="of the Avro files (null)")
    parser.add_argument("--runs", type=positive, default=3, help="runs of each (3)")
    parser.add_argument("--once", type=positive, default=60, help="a peer that takes more seconds than that has one run (60)")
    parser.add_argument("--limit", type=positive, default=1_800, help="seconds after which a run is ended (1800)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these peers; their names with --list")
    parser.add_argument("--list", action="store_true", help="name the peers")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"logs and environments ({CACHE})")
    args = parser.parse_args()
    names = [peer.name for peer in peers()]
    if args.list:
        print("\n".join(names))
        sys.exit()
    if unknown := sorted(set(args.only or ()) - set(names)):
        parser.error(f"argument --only: no peer is named {unknown[0]!r}; --list names them")
    try:
        args.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --cache: {error.filename}: {error.strerror}")
    return args


def prepare(chosen: list[Peer], cache: Path) -> None:
    """Makes the environments; a peer without one has its trouble."""
    troubles = {}
    for name in dict.fromkeys(peer.environment for peer in chosen):
        try:
            environments.ensure(name, cache)
        except environments.Missing as missing:
            troubles[name] = f"not run: {missing}"
    for peer in chosen:
        peer.trouble = troubles.get(peer.environment, "")


def run(peer: Peer, folder: Path, cache: Path, limit: float) -> None:
    """One run of a peer: its figures, or its trouble if it fails or its result is not the oracle's."""
    python, variables = environments.ensure(peer.environment, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, Path(scratch, "said").open("w+") as said:
        out = Path(scratch, "result")
        command = [sys.executable, "-m", "benchmarks.peers.measure", str(folder), str(out), str(limit),
                   python, "-m", f"benchmarks.peers.{peer.module}", str(folder), str(out), *peer.variant]
        ran = subprocess.run(command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=said, text=True)
        said.seek(0)
        last = next((line for line in reversed(said.read().splitlines()) if line.strip()), "")
        if ran.returncode:
            sys.exit(f"a run could not be measured: {last}")
        figures = json.loads(ran.stdout)
        if figures.pop("status") or not out.is_file():
            late = figures["seconds"] > limit
            peer.trouble = f"ended after {limit:.0f} s: too slow" if late else f"failed: {last.strip()[:200]}"
            return
        peer.trouble = difference(task.read(out), peer.right(folder))
        peer.runs.append(figures)


def difference(got: list[tuple], right: list[tuple]) -> str:
    """Nothing, if the results have the same rows, in whatever order."""
    got, right = Counter(got), Counter(right)
    missing, wrong = ((a - b).total() for a, b in ((right, got), (got, right)))
    return f"WRONG: of the right {right.total():,} rows {missing:,} are missing, and {wrong:,} others are there" if missing or wrong else ""


def compared(chosen: list[Peer], events: int, few: int) -> Figures:
    figures = Figures("Avro files to exact counts", (
        "peer", "events", "runs", "events/s", "min", "max", "ours is faster by", "events a CPU s", "ours takes less CPU by",
        "peak MB", "start-up s", "whole run s"))
    ours = next((peer for peer in chosen if peer.name == OURS and not peer.trouble), None)
    for peer in chosen:
        n = few if peer.small else events
        if peer.trouble:
            figures.add(peer.name, n, len(peer.runs), peer.trouble.partition(":")[0], *[""] * (len(figures.columns) - 4))
            figures.notes.append(f"{peer.name}: {peer.trouble}")
            continue
        rates = [n / run["reading"] for run in peer.runs]
        faster, thriftier = (f"{a / b:.2f} x" if ours and peer is not ours else "" for a, b in zip(
            speeds(ours, events) if ours else (0, 0), speeds(peer, n)))
        rate, thrift = speeds(peer, n)
        figures.add(peer.name, n, len(peer.runs), rate, min(rates), max(rates), faster, thrift, thriftier,
                    round(median(peer, "peak") / 1e6), median(peer, "starting"), median(peer, "seconds"))
    figures.notes[:0] = [
        "events/s: from the first file opened to the whole result in place; CPU and memory: of all processes, start-up included.",
        "A small log mostly shows how an engine warms up. Below 1.00 x the peer wins.",
        "The whole delivery job does more than the task, and is held against an oracle of its own.",
        "The kernels alone, the plain loop and the batch engines know no stream, no state and no failure; the last three are ceilings.",
    ]
    return figures


def side_by_side(chosen: list[Peer], events: int) -> Figures:
    """The ratios that this project sets itself aims for."""
    figures = Figures("Ours to theirs", ("ours", "theirs", "events/s", "events a CPU s"))
    sound = {peer.name: peer for peer in chosen if not peer.trouble}
    for ours, theirs in SIDE_BY_SIDE:
        if ours in sound and theirs in sound:
            figures.add(ours, theirs, *(f"{a / b:.2f} x" for a, b in zip(speeds(sound[ours], events), speeds(sound[theirs], events))))
    return figures


def speeds(peer: Peer, events: int) -> tuple[float, float]:
    """Events a second and events a CPU second, by the medians of its runs."""
    return events / median(peer, "reading"), events / median(peer, "cpu")


def median(peer: Peer, figure: str) -> float:
    return statistics.median(run[figure] for run in peer.runs)


if __name__ == "__main__":
    main()
