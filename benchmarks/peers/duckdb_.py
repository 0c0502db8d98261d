"""DuckDB, batch: one query. A ceiling and no peer, since it knows no stream.

Over the Parquet form of the log, whose making is not counted; or, as variant `avro`, over the log itself by its extension.
"""

import sysconfig
from pathlib import Path

import duckdb

from benchmarks.peers.task import MICROS_PER_HOUR, arguments, write

QUERY = """
SELECT hour, campaign_id, event_type, count(*), coalesce(sum(price_micros), 0)::BIGINT
FROM (
    SELECT event_id, any_value({time} // {hour} * {hour}) AS hour, any_value(campaign_id) AS campaign_id,
        any_value(event_type) AS event_type, any_value(price_micros) AS price_micros
    FROM {log} GROUP BY event_id
)
GROUP BY ALL
"""


def main() -> None:
    log, out, variant = arguments()
    db = duckdb.connect()
    source, time = f"read_parquet('{log}/parquet/*.parquet')", "event_time"
    if variant == ["avro"]:
        # The extension as a package: it lies among the interpreter's others.
        db.load_extension(str(next(Path(sysconfig.get_path("purelib")).glob("*/extensions/*/avro.duckdb_extension"))))
        source = f"read_avro('{log}/*.avro')"
        if db.execute(f"SELECT typeof(event_time) FROM {source} LIMIT 1").fetchone() != ("BIGINT",):
            time = "epoch_us(event_time)"
    query = QUERY.format(log=source, time=time, hour=MICROS_PER_HOUR)
    write(db.execute(query).fetchall(), out)


if __name__ == "__main__":
    main()
