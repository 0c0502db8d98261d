"""The one task, and the form in which every peer hands in its result. Each peer's own interpreter imports this: no packages.

Deduplicate by event_id over the whole log, then count exactly: by hour (start, µs), campaign_id (or null) and event_type,
the events and the sum of price_micros (0 where none has a price). ``python -m benchmarks.peers.NAME LOG OUT`` reads LOG's
files and leaves the whole result at OUT, a row a line of JSON in any order, when there is nothing left to count.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

MICROS_PER_HOUR = 3_600_000_000
# What a reader needs of an event. A peer that can skip the other fields may.
FIELDS = ("event_id", "event_type", "event_time", "campaign_id", "price_micros")

Row = tuple[int, str | None, str, int, int]  # hour, campaign_id, event_type, events, price_micros


def arguments() -> tuple[Path, Path, list[str]]:
    """LOG, OUT and what stands behind them: a peer's variant."""
    return Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:]


def avro_files(log: Path) -> list[Path]:
    """In order of arrival."""
    return sorted(log.glob("*.avro"))


def write(rows: Iterable[tuple], out: Path) -> None:
    """Leaves the result at ``out``, whole or not at all: when it is there is when the peer was done."""
    scratch = out.with_name(out.name + ".part")
    with scratch.open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    os.replace(scratch, out)


def read(out: Path) -> list[tuple]:
    with out.open() as file:
        return [tuple(json.loads(line)) for line in file]
