"""Spark Structured Streaming: dropDuplicatesWithinWatermark, then one aggregation in update mode, file after file.

local[2] and as many partitions of state, not the 200 that a cluster gets. State is in memory with files behind it (the default,
named for HDFS) or, as variant `rocksdb`, in RocksDB with changelog checkpoints. Each micro-batch takes two of the files, ends in a
checkpoint and writes the rows that it changed; the last of each is the result.

The watermark is 13 hours: an event may be late by six hours and its resend come six hours later. With ten minutes, the delay
of most examples, Spark drops late rows; here only with micro-batches of one file, since its filter is a micro-batch behind.
"""

import json
import os
import tempfile
from datetime import datetime
from pathlib import Path

from benchmarks.peers.task import arguments, write

DELAY = "13 hours"
FILES_A_BATCH = 2
SETTINGS = {
    "spark.driver.memory": "4g",  # of the one JVM
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",  # took a little less processor time than G1, and more memory
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",  # the last one would only move the watermark
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
STATE = {
    "hdfs": {},
    "rocksdb": {
        "spark.sql.streaming.stateStore.providerClass": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    },
}
SCHEMA = "event_id STRING, event_type STRING, event_time TIMESTAMP, campaign_id STRING, price_micros BIGINT"


def main() -> None:
    from pyspark.sql import SparkSession, functions as f

    log, out, variant = arguments()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        jars = os.environ["BENCHMARK_JARS"].replace(os.pathsep, ",")
        builder = SparkSession.builder.master("local[2]")
        for key, value in (SETTINGS | {"spark.local.dir": scratch, "spark.jars": jars} | STATE[variant[0] if variant else "hdfs"]).items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        events = (
            spark.readStream.format("avro").schema(SCHEMA)
            .option("pathGlobFilter", "*.avro").option("maxFilesPerTrigger", FILES_A_BATCH).load(str(log))
        )
        totals = (
            events.withWatermark("event_time", DELAY)
            .dropDuplicatesWithinWatermark(["event_id"])
            .groupBy(f.window("event_time", "1 hour").start.alias("hour"), "campaign_id", "event_type")
            .agg(f.count("*").alias("events"), f.coalesce(f.sum("price_micros"), f.lit(0)).alias("price_micros"))
        )
        query = (
            totals.writeStream.outputMode("update").trigger(availableNow=True)
            .option("checkpointLocation", f"{scratch}/checkpoint")
            .foreachBatch(lambda rows, batch: rows.write.json(f"{scratch}/rows/{batch:06d}"))
            .start()
        )
        query.awaitTermination()
        write(last(Path(scratch, "rows")), out)
        spark.stop()


def last(folder: Path):
    """Each row as the last micro-batch that changed it left it."""
    rows = {}
    for path in sorted(folder.glob("*/*.json")):
        for line in path.open():
            row = json.loads(line)
            hour = round(datetime.fromisoformat(row["hour"]).timestamp() * 1_000_000)
            rows[hour, row.get("campaign_id"), row["event_type"]] = row["events"], row["price_micros"]
    return [(*key, *value) for key, value in rows.items()]


if __name__ == "__main__":
    main()
