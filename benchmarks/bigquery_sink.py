"""Rows appended to BigQuery's emulator by the job's sink, beside the bare client that is given finished messages.

Both append the same delivery rows to tables of their own over a committed stream, taking turns, in requests of the same
size; wall time, most of which is the emulator's. Making the messages is timed alone too, on the processor's clock. The
rows that then stand in both tables are counted.

    python -m benchmarks.bigquery_sink --rows 20000 --runs 3
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from grpc import insecure_channel

from benchmarks.report import Figures, interleaved, machine, publish, rates
from measurement.io.bigquery import Appender
from measurement.io.bigquery_admin import Reader, provision
from measurement.io.bigquery_rows import descriptor, parts, serialized
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.local import emulators
from measurement.model.tables import DELIVERY, STRING, TIMESTAMP

OURS, BARE = "Appender, from Arrow rows", "bare client, messages given"


def delivery(n: int) -> pa.Table:
    """Rows as wide as the job's: texts of few values, counts of few digits."""
    dice, columns = np.random.default_rng(7), []
    for field, column in zip(schema(DELIVERY), DELIVERY.columns):
        if column.type == STRING:
            columns.append(pa.array([f"{column.name[:8]}-{k:04}" for k in dice.integers(0, 5_000, n)]))
        elif column.type == TIMESTAMP:
            hours = dice.integers(0, 72, n)
            columns.append(pa.array(1_699_999_200_000_000 + 3_600_000_000 * hours).cast(field.type))
        else:
            columns.append(pa.array(dice.integers(0, 100_000, n)))
    return pa.Table.from_arrays(columns, schema=schema(DELIVERY))


class Bare:
    """A committed stream by the client alone: no retries, no row errors looked at."""

    def __init__(self, endpoints: Endpoints, dataset: str, messages: list[bytes]):
        self._parts = list(parts(messages))
        channel = insecure_channel(endpoints.bigquery_storage)
        self._client = BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))
        kind = types.WriteStream(type_=types.WriteStream.Type.COMMITTED)
        self._name = self._client.create_write_stream(
            parent=f"projects/demo/datasets/{dataset}/tables/delivery", write_stream=kind).name

    def append(self) -> None:
        for answer in self._client.append_rows(iter([self._request(rows) for rows in self._parts])):
            assert not answer.error.code

    def _request(self, rows: list[bytes]) -> types.AppendRowsRequest:
        request = types.AppendRowsRequest.pb()(write_stream=self._name)
        request.proto_rows.writer_schema.proto_descriptor.CopyFrom(descriptor("delivery"))
        request.proto_rows.rows.serialized_rows.extend(rows)
        return types.AppendRowsRequest.wrap(request)


def turns(forms: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Wall seconds of each run, the forms taking turns; one untimed turn first."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for run in range(runs + 1):
        # The emulator slows as its tables grow, so that neither form may always go first.
        for name in list(forms)[:: 1 if run % 2 else -1]:
            began = time.perf_counter()
            forms[name]()
            if run:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="delivery rows of an append (50000)")
    parser.add_argument("--runs", type=int, default=4, help="timed appends of each form (4)")
    args = parser.parse_args()
    before, rows = machine(), delivery(args.rows)
    messages = serialized("delivery", rows)
    alone = interleaved({"serialized": lambda: serialized("delivery", rows)}, args.runs)
    made = rates("delivery rows to messages, processor time", alone, args.rows, "serialized", "rows")
    with emulators.bigquery() as (rest, grpc):
        endpoints = Endpoints(bigquery=rest, bigquery_storage=grpc)
        for dataset in ("ours", "bare"):
            provision(endpoints, "demo", dataset, [DELIVERY])
        appender, bare = Appender(endpoints, "demo.ours"), Bare(endpoints, "bare", messages)
        seconds = turns({OURS: lambda: appender.append("delivery", rows), BARE: bare.append}, args.runs)
        appender.close()
        for dataset in ("ours", "bare"):
            with Reader(endpoints, f"demo.{dataset}") as reader:
                stored = reader.query(f"SELECT count(*) n FROM `demo.{dataset}.delivery`")["n"][0].as_py()
            if stored != args.rows * (args.runs + 1):
                sys.exit(f"{dataset}: {stored} rows stored of {args.rows * (args.runs + 1)}, so its speed means nothing")
    speed: Figures = rates("delivery rows appended to the emulator, wall time", seconds, args.rows, OURS, "rows")
    ratio = statistics.median(seconds[BARE]) / statistics.median(seconds[OURS])
    speed.notes.append(f"Ours has {ratio:.2f} of the bare client's rate; a row is {sum(map(len, messages)) / args.rows:.0f} bytes.")
    publish("bigquery_sink", before, [speed, made], rows=args.rows, runs=args.runs)


if __name__ == "__main__":
    main()
