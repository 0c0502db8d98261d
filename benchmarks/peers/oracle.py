"""The result as brute force has it: every event as a dict, every id in one set, every sum in one dict.

The plain Python loop of the table is the same few lines on purpose: there they are timed, here they are believed.
"""

import hashlib
from pathlib import Path

import fastavro

from benchmarks.peers.task import MICROS_PER_HOUR, Row, avro_files, read, write


def rows(log: Path) -> list[Row]:
    """The right result, computed once a log and kept beside it."""
    kept = log / f"oracle-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}.jsonl"
    if not kept.is_file():
        write(counted(log), kept)
    return read(kept)


def counted(log: Path) -> list[Row]:
    seen: set[str] = set()
    sums: dict[tuple, tuple[int, int]] = {}
    for path in avro_files(log):
        with path.open("rb") as file:
            for event in fastavro.reader(file, return_named_type=False):
                if event["event_id"] in seen:
                    continue
                seen.add(event["event_id"])
                micros = round(event["event_time"].timestamp() * 1_000_000)
                key = micros // MICROS_PER_HOUR * MICROS_PER_HOUR, event["campaign_id"], event["event_type"]
                events, price = sums.get(key, (0, 0))
                sums[key] = events + 1, price + (event["price_micros"] or 0)
    return [(*key, *value) for key, value in sums.items()]
