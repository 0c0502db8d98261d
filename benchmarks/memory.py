"""Whether memory stays flat while a log far longer than the horizons streams through the local run.

What a stream remembers is bounded by its horizons and not by its length: once the first horizon is full, every expired
bucket makes room for a new one. The log spans ten days, the horizons (12 h of deduplication, 6 h of join: all that the
simulator's latest events need) a thirteenth of it.

    python -m benchmarks.memory --events 1000000
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.local_run import check_local, run_local
from benchmarks.report import Figures, Watched, machine, publish, watched
from measurement.simulate import SimulateOptions, simulate

HOURS = 240
POLICY = "counting: {dedup_horizon: 12h, join_horizon: 6h}\n"
ROWS = 10
ROLES = "job", "Prism", "main"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000, help="events over ten days (10000000, 4 GB on disk meanwhile)")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        log, policy, out = Path(folder, "log"), Path(folder, "policy.yaml"), Path(folder, "out")
        policy.write_text(POLICY)
        simulate(SimulateOptions(events=args.events, seed=7, hours=HOURS), log)
        run = watched(run_local, log, out, policy, every=1.0)
        check_local(log, out)
        warehouse = (out / "warehouse.duckdb").stat().st_size
    figures = by_events(run, args.events)
    figures.notes.append(f"{args.events / (run.seconds - run.starting):,.0f} events/s, start-up left out; the result is the simulator's truth; "
                         f"warehouse {warehouse / 1e6:,.0f} MB; CPU s {', '.join(f'{role} {s:,.0f}' for role, s in run.cpu.items())}")
    publish("memory", before, [figures], events=args.events, policy=POLICY.strip(), samples=[
        (round(t, 1), events, {role: round(size / 1e6) for role, size in sizes.items()}) for t, events, sizes in run.samples])


def by_events(run: Watched, events: int) -> Figures:
    """Peaks of resident memory by how much had been read, and the last quarter's against the second's."""
    figures = Figures("peak resident MB while reading", ("events read, up to", *ROLES, "job and Prism"))
    for row in range(ROWS):
        low, high = (events * share // ROWS for share in (row, row + 1))
        figures.add(f"{high:,}", *(round(p / 1e6) for p in peaks(run, low, high)))
    second, last = peaks(run, events // 4, events // 2), peaks(run, events * 3 // 4, events - 1)
    for i, role in enumerate((*ROLES, "job and Prism")):
        figures.notes.append(f"{role}: last quarter / second quarter = {last[i] / max(second[i], 1):.2f}")
    return figures


def peaks(run: Watched, low: int, high: int) -> list[int]:
    """Bytes: each role's, and job and Prism together, of the samples with more than ``low`` and at most ``high`` events read."""
    sizes = [sizes for _, read, sizes in run.samples if low < read <= high]
    one = [max((s.get(role, 0) for s in sizes), default=0) for role in ROLES]
    return [*one, max((s.get("job", 0) + s.get("Prism", 0) for s in sizes), default=0)]


if __name__ == "__main__":
    main()
