"""BigQuery's sink, provisioning and reader against its emulator, and the sink's patience against a service that fails."""

import pickle
import random
from datetime import UTC, datetime
from decimal import Decimal

import apache_beam as beam
import duckdb
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.api_core.exceptions import DeadlineExceeded, NotFound, PermissionDenied, ServiceUnavailable
from google.cloud import bigquery as service
from grpc import StatusCode

from measurement.io.bigquery import AppendRowsResponse, Appender, Appended, StorageError, WriteBigQuery
from measurement.io.bigquery_admin import BigQueryError, Reader, _client, provision
from measurement.io.bigquery_rows import PART_BYTES, ROW_BYTES, message, parts, serialized
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.io.retry import Patience, SinkError
from measurement.local.warehouse import create_table
from measurement.model.sql import duckdb as in_duckdb
from measurement.model.sql import latest_view
from measurement.model.tables import BYTES, INT64, LEDGER, NUMERIC, REJECT_DAYS, REJECTS, STRING, TABLES, TIMESTAMP

DATASET = "demo.ads"
_VALUES = {
    STRING: ["", "a", "žluťoučký 🐎", "a'b\"c`d\\", "line\nend\t"],
    INT64: [0, 1, -1, 2**53, 2**63 - 1, -(2**63), 7],
    BYTES: [b"", b"\x00\x01\x00", bytes(range(256)), b"\xff"],
    TIMESTAMP: [0, 1, -1, 1_700_000_000_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000],
    NUMERIC: [Decimal(n) for n in ("0", "1", "0.000000001", "-0.00000001", "0.333333333", "123456789012.000000001")],
}


@pytest.fixture(scope="module")
def warehouse(bigquery):
    provision(bigquery, "demo", "ads")
    with Reader(bigquery, DATASET) as reader:
        yield bigquery, reader


def rows_of(table, n: int, seed: int, **fixed) -> pa.Table:
    """Rows of every type's awkward values, NULL where a column may be."""
    dice = random.Random(seed)
    def value(c):
        return None if not c.required and dice.random() < 0.4 else dice.choice(_VALUES[c.type])
    return pa.Table.from_pylist([{c.name: fixed.get(c.name, value(c)) for c in table.columns} for _ in range(n)], schema(table))


def plain(rows: pa.Table, table) -> list[tuple]:
    """Sorted rows; times as µs, which Python's datetime holds for the years 1 to 9999."""
    micros = pa.timestamp("us", "UTC")
    columns = [rows[c.name].cast(micros).cast(pa.int64()) if c.type == TIMESTAMP else rows[c.name] for c in table.columns]
    return sorted(zip(*(c.to_pylist() for c in columns)), key=repr)


def append(endpoints, name, rows) -> Appended:
    appender = Appender(endpoints, DATASET)
    try:
        return appender.append(name, rows)
    finally:
        appender.close()


# -- the emulator -----------------------------------------------------------------------------------------------------

def test_provisioning_twice_changes_nothing(warehouse):
    endpoints, reader = warehouse
    def seen():
        with _client(endpoints, "demo") as client:
            return [client.get_table(f"{DATASET}.{n}{v}").to_api_repr() for n in TABLES for v in ("", "_latest")]
    before = seen()
    provision(endpoints, "demo", "ads")
    assert seen() == before
    reader.check()
    delivery, view = before[0], before[1]
    assert delivery["timePartitioning"]["field"] == "window_start"
    assert delivery["clustering"]["fields"] == ["advertiser_id", "campaign_id"]
    assert "Key: window_start, advertiser_id" in delivery["description"]
    assert all(f["description"] for f in delivery["schema"]["fields"] + view["schema"]["fields"])


def test_rejects_expire_after_the_days_that_were_asked_for_last(bigquery):
    """The emulator keeps and answers the expiration, and drops nothing by it: that is BigQuery's own doing."""
    with Reader(bigquery, "demo.expiring") as reader:
        def kept(**asked):
            provision(bigquery, "demo", "expiring", [LEDGER, REJECTS], **asked)
            return reader.kept_days(REJECTS)
        assert kept() == REJECT_DAYS
        assert kept(reject_days=60) == 60
        assert kept() == 60  # not told, it leaves them as they are
        assert kept(reject_days=8) == 8
        assert reader.kept_days(LEDGER) is None
    with _client(bigquery, "demo") as client:
        table = client.get_table("demo.expiring.rejects")
        assert table.time_partitioning.field == "published_at" and "personal data" in table.description
        # One that was made before rejects expired, by another column: it gets the days and keeps the column.
        client.create_dataset("demo.before")
        before = service.Table("demo.before.rejects", table.schema)
        before.time_partitioning = service.TimePartitioning(field="received_at")
        client.create_table(before)
        provision(bigquery, "demo", "before", [REJECTS])
        assert client.get_table(before.reference).time_partitioning.expiration_ms is None
        provision(bigquery, "demo", "before", [REJECTS], reject_days=9)
        parts = client.get_table(before.reference).time_partitioning
        assert (parts.field, int(parts.expiration_ms)) == ("received_at", 9 * 86_400_000)


def test_provisioning_adds_a_missing_column_and_refuses_another_type(bigquery):
    with _client(bigquery, "demo") as client:
        client.create_dataset("demo.older")
        client.create_table(service.Table("demo.older.ledger", [service.SchemaField(c.name, c.type) for c in LEDGER.columns[1:]]))
        client.create_table(service.Table("demo.older.rejects", [service.SchemaField("payload", "STRING")]))
        # The emulator keeps what a table is said to have apart from what it has: no view can read the new column there.
        with pytest.raises(BigQueryError, match="window_start"):
            provision(bigquery, "demo", "older", [LEDGER])
        assert [f.name for f in client.get_table("demo.older.ledger").schema][-1] == "window_start"
    with pytest.raises(BigQueryError, match="column payload is STRING and not BYTES"):
        provision(bigquery, "demo", "older", [REJECTS])


@pytest.mark.parametrize("name", TABLES)
def test_every_value_of_every_type_comes_back(warehouse, name):
    endpoints, reader = warehouse
    rows = rows_of(TABLES[name], 60, seed=len(name))
    assert append(endpoints, name, rows).rows == 60
    assert plain(reader.query(f"SELECT * FROM `{DATASET}.{name}`"), TABLES[name]) == plain(rows, TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_the_view_holds_the_highest_revision_and_is_duckdbs(bigquery, name):
    """Appending a revision twice, in any order, changes nothing; NULL keys are equal."""
    table, dataset = TABLES[name], f"views_{name}"
    provision(bigquery, "demo", dataset, [table])
    keys = rows_of(table, 8, seed=3).to_pylist()
    written = [{**key, **{c.name: Decimal(r).scaleb(-9) if c.type == NUMERIC else r for c in table.values if c not in table.key},
                "revision": r, "published_at": datetime.fromtimestamp(r % 9, UTC)}
               for key in keys for r in (3, 1, 2**52, 2)]
    random.Random(1).shuffle(written)
    rows = pa.Table.from_pylist(written + written[:9], schema(table))
    appender = Appender(bigquery, f"demo.{dataset}")
    appender.append(name, rows)
    appender.append(name, rows.slice(0, 5))
    appender.close()
    with Reader(bigquery, f"demo.{dataset}") as reader:
        seen = reader.query(f"SELECT * FROM `demo.{dataset}.{name}_latest`")
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute(create_table(table, name))
        db.register("rows", rows)
        db.execute(f"INSERT INTO {name} SELECT * FROM rows")
        same = db.sql(in_duckdb(latest_view(table, "main"))).to_arrow_table()
    assert set(seen["revision"].to_pylist()) == {2**52}
    assert seen.num_rows == len({tuple(key[c.name] for c in table.identity) for key in keys})
    assert plain(seen, table) == plain(same, table)


def test_a_beam_bundle_is_appended_and_counted(bigquery):
    provision(bigquery, "demo", "beam", [LEDGER])
    sink = pickle.loads(pickle.dumps(WriteBigQuery(bigquery, "demo.beam")))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([("ledger", stream(rows_of(LEDGER, 10, seed=s))) for s in range(3)]) | beam.ParDo(sink)
    counters = pipeline.result.metrics().query(MetricsFilter().with_namespace("bigquery"))["counters"]
    metrics = {m.key.metric.name: m.committed for m in counters}
    assert metrics["rows"] == 30 and metrics["bytes"] > 0 and not metrics["retries"]
    with Reader(bigquery, "demo.beam") as reader:
        assert reader.query("SELECT count(*) n FROM `demo.beam.ledger`")["n"].to_pylist() == [30]


def test_many_requests_in_one_append(bigquery):
    provision(bigquery, "demo", "large", [REJECTS])
    rows = rows_of(REJECTS, 9, seed=4, payload=b"\x00" * 1_000_000)
    appender = Appender(bigquery, "demo.large")
    assert appender.append("rejects", rows).bytes > 2 * PART_BYTES
    assert appender.append("rejects", rows.slice(0, 1)).rows == 1  # on the same connection
    appender.close()
    with Reader(bigquery, "demo.large") as reader:
        assert reader.query("SELECT sum(length(payload)) n FROM `demo.large.rejects`")["n"].to_pylist() == [10_000_000]


@pytest.mark.parametrize("dataset, message", [
    ("demo.nowhere", "BigQuery: dataset demo.nowhere is not there; run `measurement provision`"),
    ("demo.empty", "BigQuery: table demo.empty.delivery is not there; run `measurement provision`"),
    ("other.ads", "no project other there"),
])
def test_what_is_missing_is_named(bigquery, dataset, message):
    with _client(bigquery, "demo") as client:
        if "demo.empty" not in [f"demo.{d.dataset_id}" for d in client.list_datasets()]:
            client.create_dataset("demo.empty")
    with Reader(bigquery, dataset) as reader, pytest.raises(BigQueryError, match=message) as caught:
        reader.check()
    assert "\n" not in str(caught.value)
    if dataset.startswith("other."):
        return  # of an append to a project that is not there, the emulator dies
    appender = Appender(bigquery, dataset, Patience(10))
    with pytest.raises(SinkError, match=f"^BigQuery {dataset}.ledger: .*not found"):
        appender.append("ledger", rows_of(LEDGER, 1, seed=1))
    appender.close()


def test_nobody_there_is_said_at_once():
    with Reader(Endpoints(bigquery="127.0.0.1:1"), DATASET) as reader:
        for ask in (reader.check, lambda: reader.query("SELECT 1")):
            with pytest.raises(BigQueryError, match="BigQuery emulator at 127.0.0.1:1: not reachable"):
                ask()


def test_a_wrong_query_is_one_line(warehouse):
    with pytest.raises(BigQueryError, match="nonsense") as caught:
        warehouse[1].query(f"SELECT nonsense FROM `{DATASET}.delivery`")
    assert "\n" not in str(caught.value)


# -- a service that fails -----------------------------------------------------------------------------------------------

class Clock:
    """Time passes when somebody waits, and at no other time."""

    def __init__(self):
        self.now = 0.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, seconds: float = 600) -> Patience:
        return Patience(seconds, lambda: self.now, self.wait)


class Failing:
    """A write service: ``answers`` are given in turn, an exception raised, a message answered, None for a stored request."""

    def __init__(self, *answers, create=lambda: None):
        self.answers, self._create = list(answers), create
        self.created, self.connected, self.requests, self.stored = 0, 0, [], []

    def create(self, table, timeout):
        self._create()
        self.created += 1
        return f"{table}/streams/{self.created}"

    def connect(self, name):
        self.connected += 1
        return FailingConnection(self)

    def close(self):
        pass


class FailingConnection:
    def __init__(self, of: Failing):
        self._of, self._sent, self._first = of, [], True

    def send(self, request):
        assert request.write_stream and self._first == request.proto_rows.HasField("writer_schema")
        self._first = False
        self._sent.append(request)
        self._of.requests.append(request)

    def receive(self, timeout):
        assert 0 < timeout <= 60
        rows = self._sent.pop(0).proto_rows.rows.serialized_rows
        answer = self._of.answers.pop(0) if self._of.answers else None
        if isinstance(answer, DeadlineExceeded) or answer is None:
            self._of.stored += rows  # a timeout after the commit
        if isinstance(answer, Exception):
            raise answer
        return answer or AppendRowsResponse.pb()()

    def close(self):
        pass


def refusal(code: StatusCode, storage: int | None = None, row: str | None = None):
    answer = AppendRowsResponse.pb()()
    answer.error.code, answer.error.message = code.value[0], "said the service"
    if storage is not None:
        answer.error.details.add().Pack(StorageError.pb()(code=storage))
    if row is not None:
        answer.row_errors.add(index=3, message=row)
    return answer


ROWS = rows_of(LEDGER, 5, seed=9)
MESSAGES = serialized("ledger", ROWS)


def tried(failing: Failing, clock: Clock | None = None, seconds: float = 600) -> Appended:
    return Appender(Endpoints(), DATASET, (clock or Clock()).patience(seconds), failing).append("ledger", ROWS)


def test_a_timeout_after_the_commit_appends_again():
    failing = Failing(DeadlineExceeded("late"))
    assert tried(failing) == Appended(5, sum(map(len, MESSAGES)), 1)
    assert failing.stored == MESSAGES * 2 and failing.created == 1 and failing.connected == 2


@pytest.mark.parametrize("code", [StatusCode.RESOURCE_EXHAUSTED, StatusCode.ABORTED, StatusCode.INTERNAL, StatusCode.CANCELLED])
def test_what_passes_is_tried_again_on_the_same_stream(code):
    failing = Failing(refusal(code), refusal(code))
    assert tried(failing).retries == 2
    assert failing.stored == MESSAGES and failing.created == 1


@pytest.mark.parametrize("answer", [
    NotFound("no such stream"), refusal(StatusCode.FAILED_PRECONDITION), ServiceUnavailable("connection reset"),
    refusal(StatusCode.INVALID_ARGUMENT, StorageError.pb().STREAM_FINALIZED),
])
def test_a_lost_stream_is_made_anew(answer):
    failing = Failing(answer)
    assert tried(failing).retries == 1
    assert failing.stored == MESSAGES and failing.created == 2


@pytest.mark.parametrize("answer, message", [
    (refusal(StatusCode.INVALID_ARGUMENT, row="Field x:\nnot a number"), "1 rows refused, row 3: Field x: not a number"),
    (refusal(StatusCode.INVALID_ARGUMENT, StorageError.pb().SCHEMA_MISMATCH_EXTRA_FIELDS), "INVALID_ARGUMENT: said the service"),
    (PermissionDenied("not yours"), "PERMISSION_DENIED: not yours"),
])
def test_what_will_not_pass_fails_at_once(answer, message):
    clock, failing = Clock(), Failing(answer)
    with pytest.raises(SinkError, match=f"^BigQuery demo.ads.ledger: .*{message}") as caught:
        tried(failing, clock)
    assert clock.now == 0 and "\n" not in str(caught.value)


def test_a_missing_table_is_named_with_what_to_do():
    def gone():
        raise NotFound("Not found: table")
    with pytest.raises(SinkError, match="demo.ads.ledger: .*; run `measurement provision`"):
        tried(Failing(create=gone))


def test_away_for_a_minute():
    clock = Clock()
    def away():
        if clock.now < 60:
            raise ServiceUnavailable("refused")
    failing = Failing(create=away)
    assert 4 < tried(failing, clock).retries < 60
    assert failing.stored == MESSAGES and 60 <= clock.now < 100


def test_gives_up_at_the_deadline():
    clock = Clock()
    def away():
        raise ServiceUnavailable("refused")
    with pytest.raises(SinkError, match="BigQuery demo.ads.ledger: gave up after 90 s .*UNAVAILABLE: refused"):
        tried(Failing(create=away), clock, seconds=90)
    assert clock.now == pytest.approx(90)


def test_requests_that_were_answered_are_not_sent_again():
    rows = rows_of(REJECTS, 8, seed=4, payload=b"\x01" * 1_000_000)
    failing = Failing(None, None, ServiceUnavailable("gone"))
    Appender(Endpoints(), DATASET, Clock().patience(), failing).append("rejects", rows)
    assert failing.stored == serialized("rejects", rows)
    assert [len(r.proto_rows.rows.serialized_rows) for r in failing.requests] == [2, 2, 2, 2, 2, 2]
    assert all(r.ByteSize() < 4 << 20 for r in failing.requests)


def test_a_row_that_no_request_holds_is_refused():
    assert list(parts([b"x" * (ROW_BYTES - 1), b"y"])) == [[b"x" * (ROW_BYTES - 1)], [b"y"]]
    with pytest.raises(SinkError, match="BigQuery demo.ads.rejects: a row of 9,"):
        Appender(Endpoints(), DATASET, service=Failing()).append("rejects", rows_of(REJECTS, 1, seed=1, payload=b"x" * ROW_BYTES))


@pytest.mark.parametrize("name", TABLES)
def test_messages_hold_what_the_rows_hold(name):
    rows = rows_of(TABLES[name], 50, seed=2)
    read = [message(name).FromString(m) for m in serialized(name, rows)]
    micros = pa.table({c.name: rows[c.name].cast(pa.int64()) if c.type == TIMESTAMP else rows[c.name]
                       for c in TABLES[name].columns})
    assert [{f.name: v for f, v in m.ListFields()} for m in read] == [
        {k: f"{v:.9f}" if isinstance(v, Decimal) else v for k, v in row.items() if v is not None} for row in micros.to_pylist()]


def stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()
