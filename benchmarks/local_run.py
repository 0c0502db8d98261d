"""The whole local run on Prism, from files to the warehouse, against the same job with one Beam element an event.

Each runs in processes of its own, in turns, and what it delivers must be the simulator's truth before its speed counts.
The peer (benchmarks/peers/per_element.py) is too slow for the same log, so it gets a smaller one of the same kind; its rate
does not depend on the size, but for a start-up that is left out of the ratio on both sides.

    python -m benchmarks.local_run --events 200000 --peer-events 5000 --runs 1
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import per_element
from benchmarks.report import Figures, Truth, Watched, keyed, machine, publish, watched
from measurement.local import run as local
from measurement.local.reconcile import reconcile
from measurement.local.warehouse import Warehouse
from measurement.model.events import COUNTS, DIMENSIONS
from measurement.simulate import SimulateOptions, simulate


def run_local(log: Path, out: Path, policy: Path | None, read: Callable[[int], None]) -> None:
    """`measurement run --profile local`; the caller's process writes the warehouse, as the command's does."""
    local.run(local.Run(out, [str(log / "*.avro")], policy), lambda progress: read(progress.events), lambda text: None)


def run_per_element(log: Path, out: Path, read: Callable[[int], None]) -> None:
    per_element.run(log, out, lambda: read(1))


def check_local(log: Path, out: Path) -> None:
    """Exits unless the warehouse balances and holds the simulator's truth."""
    truth, warehouse = Truth.read(log), Warehouse(out)
    result = reconcile(warehouse)
    with warehouse.read() as db:
        columns = ", ".join(("window_start", *DIMENSIONS, *COUNTS))
        delivered = keyed(db.execute(f"SELECT {columns} FROM delivery_latest").fetchall())
    if not result.holds or result.outcomes != truth.outcomes or delivered != truth.delivery:
        sys.exit("the local run is not the simulator's truth, so its speed means nothing")


def check_per_element(log: Path, out: Path) -> None:
    if keyed(per_element.delivery(out)) != Truth.read(log).delivery:
        sys.exit("the per-element run is not the simulator's truth, so its speed means nothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="events of the local run (1000000)")
    parser.add_argument("--peer-events", type=int, default=30_000, help="events of the per-element run (30000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (3)")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        log, small = Path(folder, "log"), Path(folder, "small")
        simulate(SimulateOptions(events=args.events, seed=7), log)
        simulate(SimulateOptions(events=args.peer_events, seed=7, files=1), small)
        ours, peers = [], []
        for run in range(args.runs):
            out, peer_out = Path(folder, f"out-{run}"), Path(folder, f"peer-{run}")
            ours.append(watched(run_local, log, out, None))
            check_local(log, out)
            peers.append(watched(run_per_element, small, peer_out))
            check_per_element(small, peer_out)
    figures = compared({"local run": (args.events, ours), "one element an event": (args.peer_events, peers)})
    publish("local_run", before, [figures], runs=args.runs)


def compared(forms: dict[str, tuple[int, list[Watched]]]) -> Figures:
    """Events a second by the wall and by the processor, memory, and how many times as fast the first form is."""
    figures = Figures("files to final rows, on Prism", (
        "form", "events", "start-up s", "events/s", "min", "max", "events/s, start-up included", "CPU s a million events", "peak MB"))
    medians = []
    for name, (events, runs) in forms.items():
        rates = [events / (r.seconds - r.starting) for r in runs]
        medians.append(statistics.median(rates))
        cpu = [sum(r.cpu.values()) for r in runs]
        figures.add(name, events, statistics.median(r.starting for r in runs), medians[-1], min(rates), max(rates),
                    statistics.median(events / r.seconds for r in runs), statistics.median(cpu) / events * 1e6,
                    round(statistics.median(sum(r.peak.values()) for r in runs) / 1e6))
        figures.notes.append(f"{name}: CPU s {_by_role(runs, lambda r: r.cpu, 1)}; peak MB {_by_role(runs, lambda r: r.peak, 1e6)}")
    figures.notes.insert(0, f"{medians[0] / medians[1]:.0f} times as fast as one element an event, start-up left out; both are the simulator's truth.")
    return figures


def _by_role(runs: list[Watched], what: Callable[[Watched], dict], unit: float) -> str:
    roles = sorted({role for r in runs for role in what(r)})
    return ", ".join(f"{role} {statistics.median(what(r).get(role, 0) for r in runs) / unit:,.1f}" for role in roles)


if __name__ == "__main__":
    main()
