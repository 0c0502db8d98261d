"""This project's whole delivery job over the task's log, as `measurement run --profile local` runs it.

It does far more than the task: judges each event, joins follow-ups to their impressions, screens robots, credits conversions,
keeps the ledger and what it is held against, publishes revisions while hours are open, closes them, and leaves all of it in a
DuckDB warehouse. What is handed in is read from there: the ledger, delivery, credits and attribution as they stand
(benchmarks/peers/delivery_oracle.py has the rows).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.task import arguments, avro_files, write
from measurement.local.run import Run, run
from measurement.local.warehouse import Warehouse
from measurement.model.events import COUNTS, DIMENSIONS

# What came to nothing again, such as the credit of a touch that another one took, is no row of the result.
QUERIES = {
    "ledger": "epoch_us(window_start), source, event_type, outcome, events FROM ledger_latest WHERE events > 0",
    "delivery": f"epoch_us(window_start), {', '.join((*DIMENSIONS, *COUNTS))} FROM delivery_latest WHERE gross_impressions > 0",
    "conversion_credits":
        "conversion_id, model, touch_id, epoch_us(conversion_time), conversion_type, advertiser_id, touch_type, epoch_us(touch_time), "
        "campaign_id, line_item_id, creative_id, placement_id, credit::VARCHAR, value_micros, currency "
        "FROM conversion_credits_latest WHERE credit <> 0",
    "attribution":
        "epoch_us(window_start), advertiser_id, campaign_id, line_item_id, creative_id, placement_id, conversion_type, model, "
        "touch_type, currency, conversions::VARCHAR, value_micros FROM attribution_latest WHERE conversions <> 0",
}


def rows(out: Path) -> Iterator[tuple]:
    """(table, its columns as in QUERIES) of a finished run."""
    with Warehouse(out).read() as db:
        for table, query in QUERIES.items():
            yield from db.execute(f"SELECT '{table}', {query}").fetchall()


def delivered(paths: list[Path], folder: Path) -> Iterator[tuple]:
    """The result over the files; the run's output directory is in ``folder``."""
    run(Run(folder / "out", list(map(str, paths))), lambda progress: None, lambda text: None)
    return rows(folder / "out")


def main() -> None:
    log, out, _ = arguments()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        write(delivered(avro_files(log), Path(scratch)), out)


if __name__ == "__main__":
    main()
