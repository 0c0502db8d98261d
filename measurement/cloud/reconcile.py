"""`measurement reconcile` on the cloud: the ledger against BigQuery, and BigQuery against Bigtable."""

import threading
import time
from decimal import Decimal

import pyarrow as pa

from measurement.cloud.places import CloudError, Places
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.bigtable_read import scan_all
from measurement.io.bigtable_service import SERVED
from measurement.io.control import Control, Generation
from measurement.io.pubsub.fence import heard
from measurement.io.retry import SinkError
from measurement.model.policy import Counting
from measurement.model.tables import REJECTS, Table
from measurement.monitors.ledger import Check, Result, balance, micros, number, tables

_LOOKS, _BETWEEN_SECONDS = 3, 7.0  # a job that runs publishes its tables one after the other, each every few seconds


def reconcile(places: Places) -> Result:
    """Compares what is readable at the far ends with what was received. CloudError where something cannot be read."""
    try:
        with Reader(places.endpoints, places.dataset) as reader:
            state = _state(generation(places))
            for look in range(_LOOKS):
                result = balance(query_of(reader), places.dataset, state, Counting.join_horizon, _kept_since(reader.kept_days(REJECTS)))
                for table in SERVED.values():
                    _compare_served(places, query_of(reader), result, table)
                if result.holds or not result.under_way or look == _LOOKS - 1:
                    return result
                threading.Event().wait(_BETWEEN_SECONDS)
    except (BigQueryError, SinkError) as error:
        raise CloudError(str(error)) from error


def _kept_since(days: int | None) -> int | None:
    """The start (µs) of the first day whose partition has surely not expired; None where none does."""
    return None if days is None else (int(time.time()) // 86_400 - days + 1) * 86_400 * 1_000_000


def generation(places: Places) -> Generation:
    """The job's last; CloudError where none has run."""
    last = Control(places.endpoints, places.instance).generation(places.subscription)
    if last is None:
        raise CloudError(f"{places.subscription}: no job has run")
    return last


def _state(last: Generation) -> str:
    return "running" if heard(last.state) is not None else last.state


def query_of(reader: Reader):
    """A Query (measurement/monitors/ledger.py) of the reader."""
    return lambda sql: [tuple(row.values()) for row in reader.query(sql).to_pylist()]


def _compare_served(places: Places, query, result: Result, table: Table) -> None:
    """Each hour's and advertiser's sums in Bigtable against those in BigQuery, of the hours that have settled."""
    sums = [c.name for c in table.values]
    rows = query(f"SELECT window_start, advertiser_id, {', '.join(f'sum({c}) AS {c}' for c in sums)} "
                 f"FROM {tables(places.dataset)[table.name]} GROUP BY 1, 2")
    settled = result.settled if result.under_way else 1 << 62
    if settled is None:
        return
    analysed = {(hour, advertiser): figures for hour, advertiser, *figures in rows if micros(hour) < settled}
    if not analysed:
        return
    hours = [micros(hour) for hour, _ in analysed]
    served = _summed(scan_all(places.endpoints, places.instance, table.name, min(hours), max(hours) + 1), sums)
    zeros = [0] * len(sums)
    wrong = []
    for key in analysed.keys() | {k for k in served if micros(k[0]) < settled}:
        pairs = zip(sums, analysed.get(key, zeros), served.get(key, zeros))
        wrong += [(*key, name, number(left), number(right)) for name, left, right in pairs if left != right]
    if wrong:
        says = f"{table.name} in BigQuery = {table.name} in Bigtable"
        result.failures.append((Check(says, ("window_start", "advertiser_id", "sum of")), sorted(wrong)))


def _summed(rows: pa.Table, sums: list[str]) -> dict[tuple, list[int | Decimal]]:
    grouped = rows.group_by(["window_start", "advertiser_id"]).aggregate([(c, "sum") for c in sums])
    keys = zip(grouped["window_start"].to_pylist(), grouped["advertiser_id"].to_pylist())
    return dict(zip(keys, map(list, zip(*(grouped[f"{c}_sum"].to_pylist() for c in sums)))))
