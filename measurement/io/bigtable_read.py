"""Rows read back from Bigtable: the latest revision of each, as Arrow tables with the public columns."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigtable_v2.types import ReadRowsResponse

from measurement.io import bigtable_keys as keys
from measurement.io.bigtable_service import MICROS_A_REVISION, SERVED, Service, numbers, of_int64, unpack, words
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.io.retry import RETRYABLE, Backoff, Patience, SinkError, said
from measurement.model.tables import Table

_PATIENCE = Patience(60)
_AT_ONCE_BYTES = 1 << 20  # of answers that are taken apart together
_Answer = ReadRowsResponse.pb()
Row = tuple[bytes, int, bytes]  # key, timestamp in µs, value


class BigtableReader:
    """One connection, kept by who reads often. SinkError where Bigtable is away for longer than ``patience``."""

    def __init__(self, endpoints: Endpoints, instance: str, patience: Patience = _PATIENCE):
        self._service = Service(endpoints, instance)
        self._patience = patience

    def read(self, table: str, advertiser_id: str, start: int, stop: int, campaign_id: str | None = None) -> pa.Table:
        """An advertiser's rows, or its campaign's, with hours in [start, stop) µs, latest hour first."""
        campaign = None if campaign_id is None else keys.text(campaign_id)
        return _arrow(SERVED[table], list(self.scan(table, *keys.hours_of(keys.text(advertiser_id), start, stop, campaign))))

    def scan_all(self, table: str, start: int, stop: int, by_campaign: bool = False) -> pa.Table:
        """Everyone's rows with hours in [start, stop) µs, from the keys by hour or from those by campaign.

        Goes from advertiser to advertiser, since no key begins with time: by hour it reads what it returns and one row more
        for each; by campaign it reads all there is.
        """
        rows: list[Row] = []
        for advertiser in self.advertisers(table):
            if by_campaign:
                scan = self.scan(table, *keys.campaigns_of(advertiser))
                rows += (row for row in scan if start <= keys.parse(row[0])[1] < stop)
            else:
                rows += self.scan(table, *keys.hours_of(advertiser, start, stop))
        return _arrow(SERVED[table], rows)

    def advertisers(self, table: str) -> Iterator[bytes]:
        """Everyone who has rows, as the element that their keys begin with; a request each."""
        after = b""
        while found := next(self.scan(table, after, b"", limit=1), None):
            advertiser = keys.advertiser_of(found[0])
            yield advertiser
            after = keys.behind(advertiser)

    def scan(self, table: str, first: bytes, end: bytes, limit: int = 0, value: bytes | None = None) -> Iterator[Row]:
        """Keys in [first, end), no end where it is empty; at most ``limit`` where there is one; only rows whose latest value
        matches ``value`` (a regular expression), where there is one. After a failure it goes on behind the last row it gave."""
        if end and first >= end:
            return
        latest: dict = {"cells_per_column_limit_filter": 1}
        wanted = latest if value is None else {"chain": {"filters": [latest, {"value_regex_filter": value}]}}
        rows = {"start_key_closed": first, "end_key_open": end} if end else {"start_key_closed": first}
        backoff, left = Backoff(f"Bigtable {self._service.table(table)}", self._patience), limit
        while left or not limit:  # a limit counts what was given before a failure
            try:
                answers = self._service.read_rows(table, backoff.timeout(), rows={"row_ranges": [rows]}, rows_limit=left, filter=wanted)
                for row in _rows(answers):
                    rows = {"start_key_open": row[0], **({"end_key_open": end} if end else {})}
                    left -= 1 if limit else 0
                    yield row
                return
            except GoogleAPICallError as error:
                if error.grpc_status_code not in RETRYABLE:
                    raise SinkError(f"Bigtable {self._service.table(table)}: {said(error)}") from error
                backoff.again(said(error))

    def close(self) -> None:
        self._service.close()

    def __enter__(self) -> "BigtableReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read(endpoints: Endpoints, instance: str, table: str, advertiser_id: str, start: int, stop: int,
         campaign_id: str | None = None) -> pa.Table:
    """BigtableReader.read on a connection of its own."""
    with BigtableReader(endpoints, instance) as reader:
        return reader.read(table, advertiser_id, start, stop, campaign_id)


def scan_all(endpoints: Endpoints, instance: str, table: str, start: int, stop: int, by_campaign: bool = False) -> pa.Table:
    """BigtableReader.scan_all on a connection of its own."""
    with BigtableReader(endpoints, instance) as reader:
        return reader.scan_all(table, start, stop, by_campaign)


def _rows(answers: Iterable[bytes]) -> Iterator[Row]:
    """Rows of one cell each, put together from chunks: a long value comes in several, and only a commit makes a row."""
    key, timestamp, value = b"", 0, b""
    for chunk in _chunks(answers):
        if not chunk.reset_row:
            key, timestamp, value = chunk.row_key or key, chunk.timestamp_micros or timestamp, value + chunk.value
            if not chunk.commit_row:
                continue
            yield key, timestamp, value
        key, timestamp, value = b"", 0, b""


def _chunks(answers: Iterable[bytes]) -> Iterator:
    """Many answers are taken apart at once: messages of protobuf one behind another are one message with the chunks of all."""
    held, size = [], 0
    try:
        for answer in answers:
            held.append(answer)
            size += len(answer)
            if size >= _AT_ONCE_BYTES:
                yield from _Answer.FromString(b"".join(held)).chunks
                held, size = [], 0
    except GoogleAPICallError:
        yield from _Answer.FromString(b"".join(held)).chunks  # what came before a failure counts
        raise
    yield from _Answer.FromString(b"".join(held)).chunks


def _arrow(table: Table, rows: list[Row]) -> pa.Table:
    heads, texts = unpack(table, [value for _, _, value in rows])
    inner = [word.name for word in words(table)]
    hours, key_texts = [], []
    for (key, _, _), row_texts in zip(rows, texts, strict=True):
        _, hour, found = keys.parse(key)
        hours.append(hour)
        key_texts.append(row_texts[len(inner) :] if keys.CUT in found else found)
    columns: dict[str, pa.Array] = {"window_start": pa.array(hours, pa.int64())}
    for at, column in enumerate(table.texts):
        columns[column.name] = pa.array([found[at] for found in key_texts], pa.string())
    for at, column in enumerate(numbers(table)):
        columns[column.name] = of_int64(column, heads[:, at])
    for at, name in enumerate(inner):
        columns[name] = pa.array([row_texts[at] for row_texts in texts], pa.string())
    columns["revision"] = pa.array([timestamp // MICROS_A_REVISION for _, timestamp, _ in rows], pa.int64())
    public = schema(table)
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in public], schema=public)
