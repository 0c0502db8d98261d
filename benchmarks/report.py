"""What the benchmarks share: the machine, fair timing, tables, and results kept as data.

A ratio of two forms is worth more than either figure: both meet the same neighbours, caches and clock when their runs
take turns. So forms are timed interleaved, the median stands, and the extremes are shown beside it.

    python -m benchmarks.report            the results kept, once more
"""

import argparse
import gc
import json
import logging
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from measurement.model.events import DIMENSIONS

RESULTS = Path(__file__).parent / "results"


@dataclass
class Figures:
    """One table of a benchmark: what it shows, under which columns."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *row) -> None:
        self.rows.append(row)


@dataclass(frozen=True)
class Truth:
    """What a simulated log must come to: events by outcome, and counts by (hour, dimensions)."""

    outcomes: dict[str, int]
    delivery: dict[tuple, tuple]

    @classmethod
    def read(cls, log: Path) -> "Truth":
        told = orjson.loads((log / "truth.json").read_bytes())
        return cls(told["outcomes"], keyed(told["delivery"]))


def keyed(rows: Iterable[tuple]) -> dict[tuple, tuple]:
    """Delivery rows (hour, dimensions, counts) by key, the last of each; the hour as text."""
    width = 1 + len(DIMENSIONS)
    return {(_hour(row[0]), *row[1:width]): tuple(row[width:]) for row in rows}


def _hour(at) -> str:
    return at if isinstance(at, str) else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Watched:
    """A program that ran in processes of its own: when it said what, and what its processes took, by their role."""

    seconds: float = 0.0
    starting: float = 0.0  # seconds until it said for the first time that it had read events
    cpu: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)  # bytes resident
    samples: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)  # seconds, events read, bytes resident


def watched(program: Callable, *args, every: float = 0.2) -> Watched:
    """Runs ``program(*args, read)`` in a new process, which calls ``read`` with how many events it has read, and watches it
    and all its descendants. Exits if it fails."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_tell_by, args=(tell, program, args))
    it, began, events = Watched(), time.monotonic(), 0
    cpu: dict[tuple, tuple[str, float]] = {}
    process.start()
    tell.close()
    root = psutil.Process(process.pid)
    while process.is_alive():
        process.join(every)
        while told.poll():
            try:
                events = told.recv()
            except EOFError:
                break
            if events and not it.starting:
                it.starting = time.monotonic() - began
        resident: dict[str, int] = {}
        for one in _family(root):
            try:
                role, times, bytes_ = _role(one, root), one.cpu_times(), one.memory_info().rss
            except psutil.Error:
                continue
            cpu[one.pid, one.create_time()] = role, times.user + times.system
            resident[role] = resident.get(role, 0) + bytes_
        it.samples.append((time.monotonic() - began, events, resident))
        for role, bytes_ in resident.items():
            it.peak[role] = max(it.peak.get(role, 0), bytes_)
    it.seconds = time.monotonic() - began
    if process.exitcode:
        sys.exit(f"{program.__module__}.{program.__name__} failed with {process.exitcode}")
    for role, seconds in cpu.values():
        it.cpu[role] = it.cpu.get(role, 0.0) + seconds
    return it


def _tell_by(tell, program: Callable, args: tuple) -> None:
    logging.disable(logging.WARNING)  # Beam announces an engine's start and end as warnings
    program(*args, tell.send)


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _role(process: psutil.Process, root: psutil.Process) -> str:
    if process.name().startswith("prism"):
        return "Prism"
    return "main" if process.pid == root.pid else "job"


def positive(text: str) -> int:
    """A number of events, runs or seconds on a command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def machine() -> str:
    """The processor, its cores, what runs on them, and how busy they are now."""
    return (f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def interleaved(forms: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Processor seconds of each run of each form, the forms taking turns; one untimed turn first, for compilers and caches.

    The processor's clock stands still while a neighbour has the core, so that a busy machine shifts the figures less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for run in range(runs + 1):
        for name, form in forms.items():
            gc.collect()
            began = time.process_time()
            form()
            took = time.process_time() - began
            if run:
                seconds[name].append(took)
    return seconds


def rates(title: str, seconds: dict[str, list[float]], units: int, ours: str, unit: str = "events") -> Figures:
    """Median rate of each form, its extremes, and how many times as fast ``ours`` is."""
    figures = Figures(title, ("form", f"{unit}/s", "min", "max", "ours is faster by"))
    base = statistics.median(seconds[ours])
    for name, taken in seconds.items():
        times = statistics.median(taken) / base
        figures.add(name, units / statistics.median(taken), units / max(taken), units / min(taken),
                    "" if name == ours else f"{times:.2f} x")
    return figures


def publish(name: str, before: str, tables: list[Figures], **facts) -> None:
    """Prints the tables and keeps them as results/NAME.json. ``before`` is the machine as the benchmark found it."""
    kept = {"machine": before, "ended": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts,
            "tables": [asdict(t) for t in tables]}
    _print(name, kept)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _print(name: str, kept: dict) -> None:
    console = Console(highlight=False, width=None if os.isatty(1) else 140)
    console.print(f"\n[bold]{name}[/] on {kept['machine']} ({kept['at']})")
    for it in kept["tables"]:
        table = Table(title=it["title"], title_justify="left", caption="\n".join(it["notes"]) or None, caption_justify="left")
        for i, column in enumerate(it["columns"]):
            table.add_column(column, justify="right" if i else "left")
        for row in it["rows"]:
            table.add_row(*map(_text, row))
        console.print(table)


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        _print(path.stem, json.loads(path.read_text()))


if __name__ == "__main__":
    main()
