"""Polars, batch: the whole log in memory, sorted out at once. A ceiling and no peer, since it knows no stream.

Its own Avro reader, which reads a file at a time on one thread and cannot scan lazily; the rest uses every thread.
"""

import polars as pl

from benchmarks.peers.task import FIELDS, MICROS_PER_HOUR, arguments, avro_files, write


def main() -> None:
    log, out, _ = arguments()
    events = pl.concat([pl.read_avro(path, columns=list(FIELDS)) for path in avro_files(log)])
    hour = pl.col("event_time").cast(pl.Int64) // MICROS_PER_HOUR * MICROS_PER_HOUR
    result = (
        events.lazy()
        .unique("event_id", keep="any")
        .group_by(hour.alias("hour"), "campaign_id", "event_type")
        .agg(pl.len().cast(pl.Int64).alias("events"), pl.col("price_micros").sum())
        .collect()
    )
    write(result.iter_rows(), out)


if __name__ == "__main__":
    main()
