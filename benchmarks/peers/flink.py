"""Flink SQL on its local cluster: the deduplication query of its documentation, then one GROUP BY.

Parallelism 2, a checkpoint each ten seconds, object reuse, mini-batches and aggregation in two phases; state on the heap or,
as variant `rocksdb`, in RocksDB with managed memory and incremental checkpoints. The first row of an id by processing time is
the form of deduplication that keeps the least state and emits no retractions. Nothing is forgotten. Mini-batches of 5,000 or none
at all took a fifth and a third more processor time.

What the last GROUP BY emits is a changelog. The print connector takes it, since each row through Python would be the slowest part
of the job, and a file sink would commit the end of a finite log only with the next periodic checkpoint, seconds after the last
row is counted; the last change of each row is the result.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.peers.task import MICROS_PER_HOUR, arguments, write

PARALLELISM = 2
HEAP = "4g"
SETTINGS = {
    "parallelism.default": str(PARALLELISM),
    "execution.checkpointing.interval": "10 s",
    "execution.checkpointing.checkpoints-after-tasks-finish": "false",  # nor is there a last one to wait for
    "pipeline.object-reuse": "true",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "5 s",
    "table.exec.mini-batch.size": "50000",
    "table.optimizer.agg-phase-strategy": "TWO_PHASE",
    "taskmanager.numberOfTaskSlots": str(PARALLELISM),
    "taskmanager.memory.network.min": "128m",
    "taskmanager.memory.network.max": "128m",
}
STATE = {
    "hashmap": {"state.backend.type": "hashmap"},
    "rocksdb": {
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "taskmanager.memory.managed.size": "1g",
        "state.backend.rocksdb.predefined-options": "FLASH_SSD_OPTIMIZED",
    },
}

EVENTS = """
CREATE TABLE events (
    event_id STRING NOT NULL, event_type STRING NOT NULL, event_time BIGINT NOT NULL, campaign_id STRING, price_micros BIGINT,
    arrived AS PROCTIME()
) WITH ('connector' = 'filesystem', 'path' = 'file://{log}', 'source.path.regex-pattern' = '.*[.]avro', 'format' = 'avro')
"""
TOTALS = """
CREATE TABLE totals (hour_start BIGINT, campaign_id STRING, event_type STRING, events BIGINT, price_micros BIGINT)
WITH ('connector' = 'print')
"""
TASK = """
INSERT INTO totals
SELECT hour_start, campaign_id, event_type, COUNT(*), COALESCE(SUM(price_micros), 0)
FROM (
    SELECT event_time - MOD(event_time, {hour}) AS hour_start, campaign_id, event_type, price_micros
    FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY arrived ASC) AS nth FROM events)
    WHERE nth = 1
)
GROUP BY hour_start, campaign_id, event_type
"""


def main() -> None:
    log, out, variant = arguments()
    # The whole local cluster is in this one JVM. Its scripts choose G1; the parallel collector took less processor time here.
    os.environ.setdefault("JVM_ARGS", f"-Xms{HEAP} -Xmx{HEAP} -XX:+UseParallelGC")
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment

    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        printed = Path(scratch, "printed")
        with printed.open("w") as file:
            os.dup2(file.fileno(), 1)  # the cluster's standard output is what it inherits
        settings = SETTINGS | STATE[variant[0] if variant else "hashmap"]
        settings |= {"execution.checkpointing.dir": f"file://{scratch}/checkpoints", "io.tmp.dirs": scratch,
                     "pipeline.jars": ";".join(f"file://{jar}" for jar in os.environ["BENCHMARK_JARS"].split(os.pathsep))}
        configuration = Configuration()
        for key, value in settings.items():
            configuration.set_string(key, value)
        tables = TableEnvironment.create(
            EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build())
        tables.execute_sql(EVENTS.format(log=log))
        tables.execute_sql(TOTALS)
        tables.execute_sql(TASK.format(hour=MICROS_PER_HOUR)).wait()
        write(last(printed), out)


def last(printed: Path):
    """Each row as its last change left it; all changes of a row are printed by one subtask, in order."""
    rows = {}
    with printed.open() as lines:
        for line in lines:  # 1> +U[1772323200000000, cmp-0001, click, 7, 2500]
            change, _, row = line.partition("[")
            kind = change[-2:]
            if kind in ("+I", "+U"):
                key, events, price = row.rsplit(", ", 2)
                rows[key] = events, price
            elif kind == "-D":
                del rows[row.rsplit(", ", 2)[0]]
    for key, (events, price) in rows.items():
        hour, campaign, type_ = key.split(", ")
        yield int(hour), None if campaign == "null" else campaign, type_, int(events), int(price.rstrip("]\n"))


if __name__ == "__main__":
    main()
