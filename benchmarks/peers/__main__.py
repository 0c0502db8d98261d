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
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import environments, log, oracle, task
from benchmarks.report import Figures, machine, publish

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ad-measurement" / "peers"
OURS = "ours"


@dataclass
class Peer:
    name: str
    module: str
    environment: str
    variant: tuple[str, ...] = ()
    small: bool = False  # too slow for the whole log
    runs: list[dict] = field(default_factory=list)
    trouble: str = ""  # why no speed of it is shown


def peers() -> list[Peer]:
    return [
        Peer(OURS, "ours", "project"),
        Peer("Flink SQL, heap", "flink", "flink", ("hashmap",)),
        Peer("Flink SQL, RocksDB", "flink", "flink", ("rocksdb",)),
        Peer("Spark, HDFS state", "spark", "spark", ("hdfs",)),
        Peer("Spark, RocksDB", "spark", "spark", ("rocksdb",)),
        Peer("bytewax", "bytewax_", "bytewax"),
        Peer("bytewax, recovery", "bytewax_", "bytewax", ("recovery",)),
        Peer("Beam, an element an event", "beam_elements", "project", small=True),
        Peer("plain Python loop", "plain_loop", "python"),
        Peer("Polars, batch", "polars_", "polars"),
        Peer("DuckDB, batch, Avro", "duckdb_", "duckdb-avro", ("avro",)),
        Peer("DuckDB, batch, Parquet", "duckdb_", "duckdb"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000, help="events of the log (2000000)")
    parser.add_argument("--small-events", type=int, default=20_000, help="events for what is too slow for it (20000)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--codec", default="null", choices=("null", "deflate"), help="of the Avro files (null)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--limit", type=float, default=1_800, help="seconds after which a run is ended (1800)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these peers; others with --list")
    parser.add_argument("--list", action="store_true", help="name the peers")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"logs and environments ({CACHE})")
    args = parser.parse_args()
    chosen = [peer for peer in peers() if not args.only or peer.name in args.only]
    if args.list or not chosen:
        sys.exit("\n".join(peer.name for peer in peers()))
    before = machine()
    whole, small = (log.ensure(log.Parameters(events, args.seed, args.codec), args.cache / "logs")
                    for events in (args.events, min(args.small_events, args.events)))
    prepare(chosen, args.cache)
    for folder in (whole, small):
        oracle.rows(folder)
        for path in [*folder.glob("*.avro"), *folder.glob("parquet/*")]:
            path.read_bytes()  # so that each peer finds the log in memory, the first one as well
    if any(peer.name == OURS for peer in chosen):
        run(peers()[0], small, args.cache, args.limit)  # untimed: its kernels are compiled once an installation
    for _ in range(args.runs):
        for peer in chosen:
            if not peer.trouble:
                run(peer, small if peer.small else whole, args.cache, args.limit)
                said = peer.trouble or ", ".join(f"{name} {value:,.2f}" for name, value in peer.runs[-1].items())
                print(f"{peer.name}: {said}", file=sys.stderr, flush=True)
    told = log.manifest(whole)
    publish("peers", before, [compared(chosen, told["events"], log.manifest(small)["events"])], runs=args.runs, log=told,
            environments={name: [*it.packages, *it.jars] for name, it in environments.ENVIRONMENTS.items()})


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
        peer.trouble = difference(task.read(out), oracle.rows(folder))
        peer.runs.append(figures)


def difference(got: list[task.Row], right: list[task.Row]) -> str:
    """Nothing, if the results are the same."""
    if got == right:
        return ""
    ours, theirs = ({row[:3]: row[3:] for row in rows} for rows in (got, right))
    differ = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
    return f"WRONG: {differ:,} rows differ from the right {len(right):,}"


def compared(chosen: list[Peer], events: int, few: int) -> Figures:
    figures = Figures("Avro files to exact counts", (
        "peer", "events", "events/s", "min", "max", "ours is faster by", "events a CPU s", "ours takes less CPU by",
        "peak MB", "start-up s", "whole run s"))
    rates = {peer.name: [(few if peer.small else events) / run["reading"] for run in peer.runs] for peer in chosen}
    median = {peer.name: {name: statistics.median(run[name] for run in peer.runs) for name in peer.runs[0]}
              for peer in chosen if peer.runs}
    for peer in chosen:
        if peer.trouble:
            figures.add(peer.name, few if peer.small else events, peer.trouble.partition(":")[0], *[""] * (len(figures.columns) - 3))
            figures.notes.append(f"{peer.name}: {peer.trouble}")
            continue
        n, it = few if peer.small else events, median[peer.name]
        rate, thrift = statistics.median(rates[peer.name]), n / it["cpu"]
        faster = thriftier = ""
        if peer.name != OURS and rates.get(OURS) and not chosen[0].trouble:
            faster = f"{statistics.median(rates[OURS]) / rate:.2f} x"
            thriftier = f"{events / median[OURS]['cpu'] / thrift:.2f} x"
        spread = min(rates[peer.name]), max(rates[peer.name])
        figures.add(peer.name, n, rate, *spread, faster, thrift, thriftier,
                    round(it["peak"] / 1e6), it["starting"], it["seconds"])
    figures.notes[:0] = [
        "events/s: from the first file opened to the whole result in place; CPU and memory: of all processes, start-up included.",
        "A small log mostly shows how an engine warms up. Below 1.00 x the peer wins.",
        "The plain loop and the batch engines know no stream, no state and no failure; the batch engines are ceilings.",
    ]
    return figures


if __name__ == "__main__":
    main()
