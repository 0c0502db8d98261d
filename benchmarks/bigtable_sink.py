"""The Bigtable sink, from Arrow rows to stored rows, beside the client's own mutate_rows on mutations that are ready.

All write the same cells to one emulator, in turns: two mutations a row, one for each key. The client gets its rows prepared,
so what it is compared with is more than it does. The third form is the emulator alone, on prepared requests. By the wall,
since most of the time is another process's.

    python -m benchmarks.bigtable_sink --rows 20000 --runs 3
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from google.cloud.bigtable import Client
from google.cloud.bigtable.row import DirectRow

from benchmarks.report import Figures, machine, publish
from measurement.io import bigtable, bigtable_admin, bigtable_read
from measurement.io.bigtable_service import FAMILY, QUALIFIER, Service
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.local import emulators
from measurement.model.events import COUNTS, MICROS_PER_HOUR
from measurement.model.revisions import revision
from measurement.model.tables import DELIVERY

PROJECT, INSTANCE = "demo", "bench"
PATH = f"projects/{PROJECT}/instances/{INSTANCE}"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 480_000 * MICROS_PER_HOUR
# How many there are of each dimension, in the table's order.
IDS = {"advertiser_id": 200, "campaign_id": 2_000, "line_item_id": 10_000, "creative_id": 20_000, "placement_id": 50_000,
       "format": 3, "country": 30, "device_type": 5, "currency": 3}


def delivery(rows: int, seed: int = 7) -> pa.Table:
    """Rows of a day, all different, a tenth of them with a dimension that is not known."""
    rng = np.random.default_rng(seed)
    columns = {"window_start": HOUR + rng.integers(0, 24, rows) * MICROS_PER_HOUR}
    for name, count in IDS.items():
        unknown = rng.random(rows) < (0 if name == "advertiser_id" else 0.1)
        columns[name] = pa.array([f"{name}-{i:x}" for i in rng.integers(0, count, rows)], mask=unknown)
    columns["line_item_id"] = pa.array([f"line-{i}" for i in range(rows)])
    columns |= {name: rng.integers(0, 10_000, rows) for name in COUNTS}
    columns |= {"status": ["final"] * rows, "restated_because": pa.nulls(rows, pa.string()), "rule_version": ["r1"] * rows,
                "revision": [revision(1, 0)] * rows, "published_at": [HOUR] * rows}
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema(DELIVERY)}, schema=schema(DELIVERY))


def prepared(client_table, mutations: list[bigtable.Mutation]) -> list[DirectRow]:
    rows = []
    for one in mutations:
        row = client_table.direct_row(one.key)
        # The client takes a datetime; those reach the revisions of the first generations.
        row.set_cell(FAMILY, QUALIFIER, one.value, EPOCH + timedelta(microseconds=one.timestamp))
        rows.append(row)
    return rows


def timed(form: Callable[[], object]) -> float:
    began = time.perf_counter()
    form()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows of delivery (20000); the client takes 50000 at most")
    parser.add_argument("--runs", type=int, default=1, help="runs of each form (1), after one that does not count")
    args = parser.parse_args()
    before, rows = machine(), delivery(args.rows)
    mutations = bigtable.mutations(DELIVERY, rows)
    with emulators.bigtable() as host:
        os.environ["BIGTABLE_EMULATOR_HOST"] = host  # the client's only way to an emulator
        at = Endpoints(bigtable=host)
        bigtable_admin.provision(at, PATH)
        warnings.filterwarnings("ignore", "Connecting to Bigtable emulator", RuntimeWarning)
        peer = Client(project=PROJECT).instance(INSTANCE).table(DELIVERY.name)
        client_rows = prepared(peer, mutations)
        writer = bigtable.BigtableWriter(at, PATH)
        with Service(at, PATH) as service:
            send, path = bigtable.sender(service), service.table(DELIVERY.name)
            requests = [bigtable.request_of(path, part) for part in bigtable.batches(mutations)]
            forms = {
                "this sink, from Arrow": lambda: writer.write(DELIVERY.name, rows),
                "the client's mutate_rows, prepared": lambda: check(peer.mutate_rows(client_rows)),
                "the emulator alone, prepared requests": lambda: [list(send(request, 60)) for request in requests],
            }
            seconds = {name: [] for name in forms}
            for run in range(args.runs + 1):
                for name, form in forms.items():
                    took = timed(form)
                    if run:
                        seconds[name].append(took)
        writer.close()
        stored = bigtable_read.scan_all(at, PATH, DELIVERY.name, HOUR, HOUR + 24 * MICROS_PER_HOUR)
        assert stored.sort_by("line_item_id").equals(rows.sort_by("line_item_id")), "rows are missing, so its speed means nothing"
    publish("bigtable_sink", before, [compared(seconds, args.rows, mutations)], runs=args.runs)


def check(statuses) -> None:
    assert not any(status.code for status in statuses)


def compared(seconds: dict[str, list[float]], rows: int, mutations: list[bigtable.Mutation]) -> Figures:
    columns = "form", "rows/s", "min", "max", "this sink is faster by"
    figures = Figures("rows stored in the emulator, each under two keys", columns)
    ours = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        median = statistics.median(taken)
        figures.add(name, rows / median, rows / max(taken), rows / min(taken), f"{median / ours:.2f} x")
    each = len(mutations) / rows
    figures.notes.append(f"bytes a row: {each * statistics.mean(len(m.key) for m in mutations):.0f} of keys, "
                         f"{each * statistics.mean(len(m.value) for m in mutations):.0f} of values")
    return figures


if __name__ == "__main__":
    main()
