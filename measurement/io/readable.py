"""A Beam sink's edge: the latency of what it has written, as rows and as counters.

Counters (namespace ``latency``) are one for each bucket, SINK_BOUND with the bound in ms or ``longer``: an engine's metrics
lack distributions where they have counters.
"""

import time

import pyarrow as pa
from apache_beam.metrics import Metrics

from measurement.io.latency import carried, rows_of
from measurement.model.latency import BUCKETS


class Readable:
    """Of one sink."""

    def __init__(self, sink: str):
        self._sink = sink
        self._counters = {bound: Metrics.counter("latency", f"{sink}_{'longer' if bound is None else bound}") for bound in BUCKETS}

    def rows(self, written: list[pa.Table]) -> pa.Table | None:
        """Of rows that can be read as of now: rows of table ``latency``; None where no event is measured by them."""
        received = carried(written)
        if not received:
            return None
        rows = rows_of(self._sink, received, time.time_ns() // 1_000)
        for bound, n in zip(rows["at_most_ms"].to_pylist(), rows["events"].to_pylist()):
            self._counters[bound].inc(n)
        return rows
