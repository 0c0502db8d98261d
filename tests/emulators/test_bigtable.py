"""The serving store on the emulator: rows come back, any order of writes ends in the highest revision, and failures of every
kind end in stored rows or in one line."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from zlib import crc32

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from google.api_core import exceptions
from google.cloud.bigtable_v2.types import MutateRowsResponse, ReadRowsResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from measurement.io import bigtable as sink
from measurement.io import bigtable_admin, bigtable_read
from measurement.io.bigtable import BigtableWriter, WriteBigtable, Written, sender
from measurement.io.bigtable_service import Service
from measurement.io.control import Control, Generation
from measurement.io.endpoints import Endpoints
from measurement.io.latency import carrying
from measurement.io.publication import ipc, schema
from measurement.io.retry import Patience, SinkError
from measurement.local import emulators
from measurement.model.events import COUNTS, MICROS_PER_HOUR
from measurement.model.revisions import revision
from measurement.model.tables import ATTRIBUTION, DELIVERY, Table

HOUR = 480_000 * MICROS_PER_HOUR
NULLS = dict.fromkeys(c.name for c in DELIVERY.columns)
ALWAYS = 0, 2**62  # µs
NANO = Decimal("0.000000001")
UNAVAILABLE, EXHAUSTED, DENIED, OUT_OF_RANGE = 14, 8, 7, 11  # as a row's status has them


@pytest.fixture
def instance(bigtable, request) -> str:
    """An instance of the test's own in the one emulator, which takes any name."""
    name = f"projects/demo/instances/i{crc32(request.node.nodeid.encode())}"
    bigtable_admin.provision(bigtable, name)
    return name


@dataclass
class Clock:
    """Time that passes only while something waits."""

    now: float = 0.0
    waits: int = 0

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 30
        self.now += seconds
        self.waits += 1

    def patience(self, seconds: float = 600) -> Patience:
        return Patience(seconds, lambda: self.now, self.wait)


def row(n: int, number: int = 1, hour: int = 0, advertiser: str = "a", campaign: str | None = "c", **other) -> dict:
    """Revision ``n`` of a row: every count is ``n``, so that columns of two revisions would show."""
    return NULLS | dict.fromkeys(COUNTS, n) | {
        "window_start": HOUR + hour * MICROS_PER_HOUR, "advertiser_id": advertiser, "campaign_id": campaign,
        "line_item_id": f"line {number}", "status": "final", "rule_version": f"rules {n}",
        "restated_because": "late" if n % 2 else None, "revision": revision(1, n), "published_at": HOUR + n} | other


def attributed(n: int, number: int = 1, hour: int = 0, advertiser: str = "a", campaign: str | None = "c", **other) -> dict:
    """Revision ``n`` of an attribution row: its sums are ``n`` and as many units of 10^-9."""
    return dict.fromkeys(c.name for c in ATTRIBUTION.columns) | {
        "window_start": HOUR + hour * MICROS_PER_HOUR, "advertiser_id": advertiser, "campaign_id": campaign,
        "line_item_id": f"line {number}", "model": "linear", "conversions": n + n * NANO, "value_micros": n, "status": "final",
        "rule_version": f"rules {n}" + " and a list" * 40, "revision": revision(1, n), "published_at": HOUR + n} | other


def table(rows: list[dict], of: Table = DELIVERY) -> pa.Table:
    return pa.Table.from_pylist(rows, schema(of))


def stored(at: Endpoints, instance: str, of: Table = DELIVERY) -> pa.Table:
    """All rows, which must be the same in both orders."""
    by_hour = bigtable_read.scan_all(at, instance, of.name, *ALWAYS)
    by_campaign = bigtable_read.scan_all(at, instance, of.name, *ALWAYS, by_campaign=True)
    assert ordered(by_hour, of).equals(ordered(by_campaign, of))
    return by_hour


def ordered(rows: pa.Table, of: Table = DELIVERY) -> pa.Table:
    return rows.sort_by([(c.name, "ascending") for c in of.key])


def write(at: Endpoints, instance: str, rows: list[dict], patience: Patience | None = None, send=None,
          of: Table = DELIVERY) -> Written:
    writer = BigtableWriter(at, instance, patience, send)
    try:
        return writer.write(of.name, table(rows, of))
    finally:
        writer.close()


@pytest.fixture
def real(bigtable, instance) -> Iterator[Callable]:
    """mutate_rows of the emulator."""
    with Service(bigtable, instance) as service:
        yield sender(service)


def answer(statuses: dict[int, int]):
    """What the service says of rows by their index."""
    return MutateRowsResponse.pb(MutateRowsResponse(
        entries=[{"index": i, "status": {"code": code, "message": "as the test\nwants"}} for i, code in statuses.items()]))


def test_rows_come_back_latest_first(bigtable, instance):
    rows = [row(n, number, hour, advertiser) for n, number, hour, advertiser in [
        (1, 1, 0, "a"), (2, 1, 1, "a"), (3, 2, 1, "a"), (4, 1, 2, "a"), (5, 1, 1, "b"), (6, 1, 1, "test:a")]]
    assert write(bigtable, instance, rows) == Written(6, 0)
    read = bigtable_read.read(bigtable, instance, "delivery", "a", HOUR, HOUR + 2 * MICROS_PER_HOUR)
    assert read.schema == schema(DELIVERY) and read.equals(table([rows[1], rows[2], rows[0]]))
    assert stored(bigtable, instance).num_rows == 6
    one_hour = bigtable_read.scan_all(bigtable, instance, "delivery", HOUR + MICROS_PER_HOUR, HOUR + 2 * MICROS_PER_HOUR)
    assert one_hour.equals(table([rows[1], rows[2], rows[4], rows[5]]))


def test_a_campaign_of_an_advertiser(bigtable, instance):
    rows = [row(1, campaign=c, advertiser=a, hour=h) for a in "ab" for c in ("c", "cc", None, "") for h in range(3)]
    write(bigtable, instance, rows)
    for campaign in ("c", ""):
        read = bigtable_read.read(bigtable, instance, "delivery", "a", HOUR + 1, HOUR + 3 * MICROS_PER_HOUR, campaign)
        assert read.equals(table([row(1, campaign=campaign, hour=2), row(1, campaign=campaign, hour=1)]))
    assert bigtable_read.read(bigtable, instance, "delivery", "a", *ALWAYS).num_rows == 12


def test_nothing_is_an_empty_table(bigtable, instance):
    assert write(bigtable, instance, []) == Written(0, 0)
    for read in (stored(bigtable, instance), bigtable_read.read(bigtable, instance, "delivery", "a", *ALWAYS)):
        assert read.equals(table([]))


TEXT = st.one_of(st.none(), st.text(max_size=6), st.text(alphabet="\0\x01\x02", max_size=3), st.text(min_size=60, max_size=400))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=8, max_size=8), st.text(max_size=300), st.sampled_from([(DELIVERY, row), (ATTRIBUTION, attributed)]))
def test_any_ids_come_back(bigtable, instance, texts, advertiser, served):
    of, row_of = served
    names = (c.name for c in of.texts[1:])
    one = row_of(7, advertiser=advertiser, **dict(zip(names, texts, strict=True)) | {"window_start": HOUR})
    write(bigtable, instance, [one], of=of)
    read = bigtable_read.read(bigtable, instance, of.name, advertiser, *ALWAYS)
    assert table([one], of).to_pylist()[0] in read.to_pylist()


def test_an_id_longer_than_a_key_may_be(bigtable, instance):
    rows = [row(1, advertiser="a" * 5_000 + end, campaign="\0" * 10_000) for end in "xy"]
    write(bigtable, instance, rows)
    assert ordered(stored(bigtable, instance)).equals(table(rows))
    assert bigtable_read.read(bigtable, instance, "delivery", "a" * 5_000 + "y", *ALWAYS, "\0" * 10_000).equals(table(rows[1:]))


def test_numbers_at_their_limits_come_back(bigtable, instance):
    most = dict.fromkeys(COUNTS, 2**63 - 1) | {"revision": 2**53 - 1, "published_at": -1}
    rows = [row(1), row(1, 2) | most, row(1, 3) | dict.fromkeys(COUNTS, -(2**63))]
    write(bigtable, instance, rows)
    assert stored(bigtable, instance).equals(table(rows))


def test_attribution_rows_come_back(bigtable, instance):
    rows = [attributed(n, number, hour, advertiser, campaign) for n, number, hour, advertiser, campaign in [
        (1, 1, 0, "a", "c"), (2, 1, 1, "a", "c"), (3, 2, 1, "a", None), (4, 1, 1, "b", "c"), (5, 1, 1, "test:a", "c")]]
    assert write(bigtable, instance, rows, of=ATTRIBUTION) == Written(5, 0)
    write(bigtable, instance, [row(1)])  # which lies beside them, in a table of its own
    read = bigtable_read.read(bigtable, instance, "attribution", "a", HOUR, HOUR + 2 * MICROS_PER_HOUR)
    assert read.schema == schema(ATTRIBUTION) and read.equals(table([rows[2], rows[1], rows[0]], ATTRIBUTION))
    campaign = bigtable_read.read(bigtable, instance, "attribution", "a", HOUR, HOUR + 2 * MICROS_PER_HOUR, "c")
    assert campaign.equals(table([rows[1], rows[0]], ATTRIBUTION))
    assert stored(bigtable, instance, ATTRIBUTION).num_rows == 5


def test_shares_of_a_conversion_come_back_to_the_last_digit(bigtable, instance):
    shares = [Decimal(n) for n in (0, 1, -1)] + [NANO, -NANO, 1 - NANO, (2**63 - 1) * NANO, -(2**63) * NANO]
    rows = [attributed(1, number, conversions=share) for number, share in enumerate(shares)]
    write(bigtable, instance, rows, of=ATTRIBUTION)
    assert stored(bigtable, instance, ATTRIBUTION).equals(table(rows, ATTRIBUTION))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2, 3)])
def test_the_highest_revision_of_an_attribution_row_stands(bigtable, instance, order):
    for n in order:
        write(bigtable, instance, [attributed(n)], of=ATTRIBUTION)
    assert stored(bigtable, instance, ATTRIBUTION).equals(table([attributed(3)], ATTRIBUTION))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1, 1, 2), (3, 3, 1)])
def test_any_order_of_writes_ends_in_the_highest_revision(bigtable, instance, order):
    for n in order:
        write(bigtable, instance, [row(n)])
    assert stored(bigtable, instance).equals(table([row(3)]))


def test_revisions_of_a_row_in_one_write(bigtable, instance):
    write(bigtable, instance, [row(n) for n in (2, 5, 1)])
    assert stored(bigtable, instance).equals(table([row(5)]))


def test_a_row_of_a_new_generation_stands_above_any_of_the_old(bigtable, instance):
    new = row(0) | {"revision": revision(2, 0)}
    write(bigtable, instance, [new])
    write(bigtable, instance, [row(2**31)])
    assert stored(bigtable, instance).equals(table([new]))


def test_provision_twice_keeps_what_is_there(bigtable, instance):
    write(bigtable, instance, [row(1)])
    bigtable_admin.provision(bigtable, instance)
    bigtable_admin.check(bigtable, instance)
    assert stored(bigtable, instance).num_rows == 1


def test_old_versions_go_by_their_number(bigtable, instance):
    with Service(bigtable, instance) as service:
        path = service.table("delivery")
        service.admin.modify_column_families(name=path, modifications=[
            {"id": "r", "update": {"gc_rule": {"max_num_versions": 9}}}])
        bigtable_admin.provision(bigtable, instance)
        rule = service.admin.get_table(name=path).column_families["r"].gc_rule
    assert rule.max_num_versions == 1 and not rule.max_age


def test_provision_adds_a_family_that_is_missing(bigtable):
    instance = "projects/demo/instances/half"
    with Service(bigtable, instance) as service:
        service.admin.create_table(request={"parent": instance, "table_id": "delivery", "table": {}})
    with pytest.raises(SinkError, match="no family r; run `measurement provision`"):
        bigtable_admin.check(bigtable, instance)
    bigtable_admin.provision(bigtable, instance)
    bigtable_admin.check(bigtable, instance)


def test_a_read_that_breaks_goes_on_behind_its_last_row(bigtable, instance, monkeypatch):
    rows, breaks, clock = [row(1, number) for number in range(10, 20)], [0, 3, 1], Clock()
    write(bigtable, instance, rows)
    with bigtable_read.BigtableReader(bigtable, instance, clock.patience()) as reader:
        real = reader._service.read_rows

        def breaking(*asked, **request):
            answers = real(*asked, **request)
            if breaks:
                for _ in range(breaks.pop()):
                    yield next(answers)  # the emulator's answers are of one row each
                raise exceptions.ServiceUnavailable("the stream broke")
            yield from answers

        monkeypatch.setattr(reader._service, "read_rows", breaking)
        assert reader.read("delivery", "a", *ALWAYS).equals(table(rows))
        assert not breaks and clock.waits == 3
        breaks[:] = [0] * 1000
        with pytest.raises(SinkError, match="gave up after 600 s"):
            reader.read("delivery", "a", *ALWAYS)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_a_value_in_several_chunks_and_a_row_that_is_begun_anew(monkeypatch, at_once):
    monkeypatch.setattr(bigtable_read, "_AT_ONCE_BYTES", at_once)
    cell = {"family_name": "r", "qualifier": b"v"}
    answers = [ReadRowsResponse.serialize(ReadRowsResponse(chunks=chunks)) for chunks in [
        [cell | {"row_key": b"one", "timestamp_micros": 7, "value": b"a", "value_size": 3}],
        [{"value": b"b", "value_size": 3}, {"value": b"c", "commit_row": True}, cell | {"row_key": b"two", "value": b"lost"}],
        [{"reset_row": True}], [],
        [cell | {"row_key": b"two", "timestamp_micros": 9, "value": b"kept", "commit_row": True}]]]
    assert list(bigtable_read._rows(answers)) == [(b"one", 7, b"abc"), (b"two", 9, b"kept")]


def test_a_value_of_another_layout_is_refused(bigtable, instance):
    write(bigtable, instance, [row(1)])
    with Service(bigtable, instance) as service:
        (one, _) = sink.mutations(DELIVERY, table([row(2)]))
        list(sender(service)(sink.request_of(service.table("delivery"), [one._replace(value=b"\x02" + one.value[1:])]), 10))
    with pytest.raises(SinkError, match="a value of layout 2, which this version cannot read"):
        bigtable_read.read(bigtable, instance, "delivery", "a", *ALWAYS)


def test_without_credentials_the_real_service_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(SinkError, match="Bigtable: no credentials: .*none.json") as error:
        Service(Endpoints(), "projects/demo/instances/real")
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named_in_one_line(bigtable):
    with pytest.raises(SinkError, match=r"instances/none/tables/delivery: no such table; run `measurement provision`$"):
        bigtable_admin.check(bigtable, "projects/demo/instances/none")
    with pytest.raises(SinkError, match="NOT_FOUND.*run `measurement provision`$"):
        write(bigtable, "projects/demo/instances/none", [row(1)])
    with pytest.raises(SinkError, match=r"Bigtable at 127.0.0.1:1, .*UNAVAILABLE") as away:
        bigtable_admin.check(Endpoints(bigtable="127.0.0.1:1"), "projects/demo/instances/none")
    assert "\n" not in str(away.value)


def test_only_the_failed_half_is_sent_again(bigtable, instance, real):
    sent = []

    def send(request, timeout):
        sent.append(len(request.entries))
        if len(sent) > 1:
            return real(request, timeout)
        half = type(request)(table_name=request.table_name, entries=request.entries[::2])
        list(real(half, timeout))
        return iter([answer({i: EXHAUSTED if i % 2 else 0 for i in range(sent[0])})])

    rows, clock = [row(1, number) for number in range(50)], Clock()
    assert write(bigtable, instance, rows, clock.patience(), send) == Written(50, 50)
    assert sent == [100, 50] and clock.waits == 1
    assert ordered(stored(bigtable, instance)).equals(ordered(table(rows)))


def test_rows_without_an_answer_are_sent_again(bigtable, instance, real):
    """The stream of answers ends early, once with an error and once without."""
    sent = []

    def send(request, timeout):
        sent.append(len(request.entries))
        if len(sent) > 2:
            yield from real(request, timeout)
            return
        yield answer({0: 0, 1: 0})
        if len(sent) == 1:
            raise exceptions.Cancelled("the stream broke")

    clock = Clock()
    assert write(bigtable, instance, [row(1, number) for number in range(5)], clock.patience(), send).retries == 8 + 6
    assert sent == [10, 8, 6]


def test_a_timeout_after_the_commit_changes_nothing(bigtable, instance, real):
    calls = []

    def send(request, timeout):
        calls.append(timeout)
        stored_ = list(real(request, timeout))
        if len(calls) == 1:
            raise exceptions.DeadlineExceeded("no answer in time")
        return iter(stored_)

    write(bigtable, instance, [row(1)], Clock().patience(), send)
    assert len(calls) == 2 and stored(bigtable, instance).equals(table([row(1)]))


def test_away_for_a_minute(bigtable, instance, real):
    clock = Clock()

    def send(request, timeout):
        if clock.now < 60:
            raise exceptions.ServiceUnavailable("away")
        return real(request, timeout)

    write(bigtable, instance, [row(1)], clock.patience(), send)
    assert 60 <= clock.now < 120 and clock.waits < 30
    assert stored(bigtable, instance).num_rows == 1


def test_gives_up_at_its_deadline_with_one_line(bigtable, instance):
    clock = Clock()

    def send(request, timeout):
        assert 1 <= timeout <= 60
        return iter([answer({i: UNAVAILABLE for i in range(len(request.entries))})])

    with pytest.raises(SinkError, match="gave up after 600 s and .* attempts: UNAVAILABLE: as the test wants$") as error:
        write(bigtable, instance, [row(1)], clock.patience(), send)
    assert clock.now == pytest.approx(600) and "\n" not in str(error.value)


@pytest.mark.parametrize("send", [
    lambda request, timeout: iter([answer({0: 0, 1: OUT_OF_RANGE})]),
    lambda request, timeout: iter([answer({0: DENIED})]),
    lambda request, timeout: (_ for _ in ()).throw(exceptions.PermissionDenied("no bigtable.tables.mutateRows")),
])
def test_what_will_not_get_better_fails_at_once(bigtable, instance, send):
    clock = Clock()
    with pytest.raises(SinkError, match="OUT_OF_RANGE|PERMISSION_DENIED"):
        write(bigtable, instance, [row(1)], clock.patience(), send)
    assert not clock.waits


@pytest.mark.usefixtures("bigtable")  # which says what to do where there is none
def test_an_emulator_that_is_taken_away_and_brought_back(monkeypatch):
    """It keeps nothing, so what was stored before is written again: a replay, after which all is there once."""
    monkeypatch.setattr(sink, "_REQUEST_MUTATIONS", 10)
    instance, rows = "projects/demo/instances/away", [row(1, number) for number in range(40)]
    with emulators.bigtable_emulator() as emulator:
        at = Endpoints(bigtable=emulator.host)
        bigtable_admin.provision(at, instance)
        sent = waited = 0

        def send(request, timeout):
            nonlocal sent
            sent += 1
            if sent == 4:
                emulator.stop()
            return real(request, timeout)

        def wait(seconds):
            nonlocal waited
            waited += 1
            if waited == 3:
                emulator.start()
                bigtable_admin.provision(at, instance)

        with Service(at, instance) as service:
            real = sender(service)
            written = write(at, instance, rows, Patience(wait=wait), send)
        assert written.rows == 40 and written.retries >= 30 and waited >= 3
        assert 0 < stored(at, instance).num_rows < 40
        write(at, instance, rows)
        assert ordered(stored(at, instance)).equals(ordered(table(rows)))


def test_the_dofn_writes_what_is_served_and_tells_of_what_that_counts_first(bigtable, instance):
    rows = table([row(1, number) for number in range(3)])
    earned = table([attributed(1, number) for number in range(2)], ATTRIBUTION)
    received = np.array([[time.time_ns() // 10**8, 7]])
    elements = [("delivery", ipc(carrying(rows, received))), ("attribution", ipc(earned)), ("ledger", b"not for Bigtable"),
                ("conversion_credits", b"nor this")]
    write_bigtable = pickle.loads(pickle.dumps(WriteBigtable(bigtable, instance)))
    with beam.Pipeline(runner=FnApiRunner()) as p:
        told = p | beam.Create(elements) | beam.ParDo(write_bigtable)
        assert_that(told | beam.MapTuple(lambda name, stream: (name, pa.ipc.open_stream(stream).read_all()["events"].to_pylist())),
                    equal_to([("latency", [7])]))
    counters = p.result.metrics().query()["counters"]
    assert {c.key.metric.name: c.committed for c in counters if c.key.metric.namespace == "bigtable"} == {"rows": 5, "retries": 0}
    assert stored(bigtable, instance).equals(rows)
    assert stored(bigtable, instance, ATTRIBUTION).equals(earned)


FIRST = Generation(1, began=5, floor=None, state="rebuilding")


@pytest.fixture
def control(bigtable, instance) -> Iterator[Control]:
    it = Control(bigtable, instance)
    yield it
    it.close()


def test_generations_begin_one_after_another(control):
    assert control.generation("job") is None
    assert control.begin("job", None, FIRST) and control.generation("job") == FIRST
    assert not control.begin("job", None, replace(FIRST, began=6))
    second = Generation(2, began=9, floor=7, state="")
    assert not control.begin("job", 3, replace(second, number=4))
    assert control.begin("job", 1, second) and control.generation("job") == second
    assert control.begin("other/job", None, FIRST) and control.generation("job") == second
    with pytest.raises(ValueError, match="does not come after"):
        control.begin("job", 2, second)


def test_state_and_witnesses_belong_to_the_generation(control):
    control.begin("job", None, FIRST)
    control.set_state("job", 1, "running")
    assert control.generation("job") == replace(FIRST, state="running")
    for reader in ("reader 1", "number"):
        assert not control.witnessed("job", 1, reader)
        control.witness("job", 1, reader)  # and again, as after an answer that was lost
        control.witness("job", 1, reader)
        assert control.witnessed("job", 1, reader)
    control.begin("job", 1, Generation(2, 6, None, ""))
    assert not control.witnessed("job", 1, "reader 1") and not control.witnessed("job", 2, "reader 1")
    for late in (lambda: control.witness("job", 1, "reader 1"), lambda: control.set_state("job", 1, "done")):
        with pytest.raises(SinkError, match="generation 1 is not the last"):
            late()
    control.witness("job", 2, "reader 1")
    assert control.witnessed("job", 2, "reader 1") and not control.witnessed("job", 1, "reader 1")
    assert control.generation("job") == Generation(2, 6, None, "")


def test_two_launches_never_take_the_same_generation(bigtable, instance):
    last, winners, barrier = None, [], threading.Barrier(2)
    controls = [Control(bigtable, instance) for _ in range(2)]

    def launch(control: Control, number: int) -> None:
        barrier.wait(30)
        if control.begin("job", last, Generation(number, id(control), None, "")):
            winners.append((number, id(control)))

    for number in range(1, 51):
        racing = [threading.Thread(target=launch, args=(control, number)) for control in controls]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join()
        assert [n for n, _ in winners] == list(range(1, number + 1))
        assert controls[0].generation("job").began == winners[-1][1]
        last = number
    for control in controls:
        control.close()


def test_a_begin_that_was_done_but_not_answered_is_ours(bigtable, instance, monkeypatch):
    control, clock = Control(bigtable, instance, Clock().patience()), Clock()
    real, calls = control._service.data.check_and_mutate_row, []

    def lost_answer(**request):
        calls.append(clock)
        done = real(**request)
        if len(calls) == 1:
            raise exceptions.DeadlineExceeded("no answer in time")
        return done

    monkeypatch.setattr(control._service.data, "check_and_mutate_row", lost_answer)
    assert control.begin("job", None, FIRST) and len(calls) == 2
    control.close()
