"""The job through Beam on PrismRunner, against the oracle, also on a busy machine and with machines that are lost."""

import gzip
import io
import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import apache_beam as beam
import fastavro
import orjson
import pyarrow as pa
import pytest
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from jobs.delivery import Delivery
from measurement.io.files import FileSource
from measurement.io.input_file import InputFile
from measurement.io.spool import ready, table_of
from measurement.local.prism import prism_options
from measurement.model.tables import TABLES
from measurement.simulate import SimulateOptions, simulate
from measurement.transforms import keyed
from measurement.transforms.config import RunConfig
from measurement.transforms.spool import WriteSpool
from oracle import PLAIN_SCHEMA, Received, count
from oracle_attribution import ATTRIBUTION_KEY, CREDIT_KEY, attribution, credits
from strategies import event_logs

CLOCK = 1_790_000_000_000_000
_runs = iter(range(1, 1_000_000))


def on_prism(prism: Path, files: list[Path], spool: Path) -> dict[str, dict[tuple, dict]]:
    """Each table's latest rows by what tells them apart, of the job run over the files on PrismRunner."""
    spool.mkdir()
    config = RunConfig(f"test-{next(_runs)}", 1, time.time_ns() // 1000, event_shards=3, publish_seconds=0.5)
    source = FileSource(config.run, [InputFile(str(f), f.name, CLOCK) for f in files], config.policy, in_process=True)
    with beam.Pipeline(options=PipelineOptions(prism_options(prism))) as p:
        p | ReadFromUnboundedSource(source, 0.02, 2, 1.0) | Delivery(config) | beam.ParDo(WriteSpool(str(spool)))
    latest: dict[str, dict[tuple, dict]] = {table: {} for table in TABLES}
    for path in ready(spool):
        table = TABLES[table_of(path)]
        for row in pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist():
            key = tuple(row[c.name] for c in table.identity)
            if key not in latest[table.name] or latest[table.name][key]["revision"] < row["revision"]:
                latest[table.name][key] = row
    return latest


def micros(at) -> int | None:
    return None if at is None else (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def earned(latest, name: str, columns: tuple[str, ...]) -> dict[tuple, tuple[int, int]]:
    """A table of credits as the oracle has it."""
    figure = TABLES[name].values[0].name
    rows = {tuple(micros(r[c]) if isinstance(r[c], datetime) else r[c] for c in columns):
            (int(r[figure].scaleb(9)), r["value_micros"]) for r in latest[name].values()}
    assert len(rows) == len(latest[name])
    return {key: counts for key, counts in rows.items() if any(counts)}


def figures(latest) -> tuple[dict, dict, Counter, dict, dict]:
    """(delivery, ledger, rejects, credits, attribution) in the oracle's terms."""
    counts = [c.name for c in TABLES["delivery"].values]
    delivery = {(micros(k[0]), *k[1:]): tuple(r[c] for c in counts) for k, r in latest["delivery"].items()}
    ledger = {(micros(k[0]), *k[1:]): r["events"] for k, r in latest["ledger"].items()}
    rejects = Counter((r["reason"], r["event_id"], r["payload"]) for r in latest["rejects"].values())
    return ({k: v for k, v in delivery.items() if any(v)}, {k: n for k, n in ledger.items() if n}, rejects,
            earned(latest, "conversion_credits", CREDIT_KEY), earned(latest, "attribution", ATTRIBUTION_KEY))


def expected(arrivals, files: int) -> tuple[dict, dict, Counter, dict, dict]:
    oracle = count(arrivals, files)
    rejects = Counter((reason, event_id, payload) for reason, event_id, _, _, payload in oracle.rejects())
    rows = credits(oracle, None)
    return oracle.delivery(), oracle.ledger(), rejects, rows, attribution(rows)


@pytest.fixture
def load():
    """Three processes that keep the machine busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    yield
    for process in busy:
        process.kill()
        process.wait()


def test_random_logs_through_prism_give_the_oracles_rows(prism, tmp_path):
    runs = iter(range(100))

    @seed(20260302)
    @settings(max_examples=3, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(event_logs(max_files=1, encoding="json"), min_size=8, max_size=8))
    def through_prism(logs):
        # One file of many small logs: a larger log of the same nasty ids.
        events = [Received(r.payload, r.encoding, "e.jsonl", CLOCK) for files in logs for file in files for r in file]
        if not events:
            return
        at = tmp_path / str(next(runs))
        at.mkdir()
        (at / "e.jsonl").write_bytes(b"\n".join(r.payload for r in events))
        found = figures(on_prism(prism, [at / "e.jsonl"], at / "spool"))
        arrivals = [(0, r) for r in events] + [(0, None)]
        assert found == expected(arrivals, 1)

    through_prism()


def test_a_log_of_three_files_on_a_busy_machine_is_exact_twice(prism, tmp_path, load):
    """Resends, conflicts and late events through keyed state, with the option that keeps Prism from forking it."""
    options = SimulateOptions(events=60_000, seed=5, resend_rate=0.3, late_rate=0.05, conflict_rate=0.01, orphan_rate=0.01)
    simulate(options, tmp_path / "log")
    truth = orjson.loads((tmp_path / "log" / "truth.json").read_bytes())
    files = sorted((tmp_path / "log").glob("*.avro"))
    for again in "ab":
        latest = on_prism(prism, files, tmp_path / again)
        delivery, ledger, *_ = figures(latest)
        outcomes = Counter()
        for (*_, outcome), events in ledger.items():
            outcomes[outcome] += events
        assert outcomes == truth["outcomes"]
        assert sorted(delivery.values()) == sorted(tuple(row[10:]) for row in truth["delivery"])
        for name in ("conversion_credits", "attribution"):
            columns, sums = truth[name]["columns"], [c.name for c in TABLES[name].values]
            rows = [dict(zip(columns, row)) for row in truth[name]["rows"]]
            found = (r for r in latest[name].values() if any(r[c] for c in sums))
            assert Counter(plain(r, columns) for r in found) == Counter(plain(r, columns) for r in rows)


TROUBLED = SimulateOptions(
    events=12_000, seed=8, late_rate=0.1, resend_rate=0.1, conflict_rate=0.01, orphan_rate=0.03, order_repeat_rate=0.3,
    missing_rate=0.01, unknown_type_rate=0.01, bad_value_rate=0.01, future_rate=0.01, too_late_rate=0.01,
    undecodable_rate=0.01,
)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> tuple[list[Path], tuple]:
    """Files of both encodings, plain and compressed, and what the oracle makes of them."""
    directory = tmp_path_factory.mktemp("log")
    simulate(TROUBLED, directory)
    files, contents = [], []
    for number, path in enumerate(sorted(directory.glob("*.avro"))):
        with path.open("rb") as file:
            payloads = [datum for block in fastavro.block_reader(file) for datum in datums(block)]
        if number == 0:
            with path.open("rb") as packed:
                whole = gzip.compress(packed.read(), 1)
            path = path.with_name(path.name + ".gz")
            path.write_bytes(whole)
        elif number == 1:
            payloads = [as_line(payload) for payload in payloads]
            path = path.with_suffix(".jsonl")
            path.write_bytes(b"\n".join(payloads))
        files.append(path)
        encoding = "json" if path.suffix == ".jsonl" else "avro"
        contents.append([Received(payload, encoding, path.name, CLOCK) for payload in payloads])
    assert len(files) == 3
    # The files cover the same day, within the horizons, so that the order among them changes no figure. Of an orphan's
    # copies it decides which one is refused, and each bears its own received_time.
    by_turns = itertools.zip_longest(*([(number, event) for event in content] for number, content in enumerate(contents)))
    arrivals = [arrival for turn in by_turns for arrival in turn if arrival is not None]
    return files, whichever_copy(expected(arrivals, 3))


def plain(row: dict, columns: list[str]) -> tuple:
    """A row of credits whose times are micros and whose credit is its digits, as the simulator's truth may have them."""
    def value(name: str):
        it = row[name]
        if it is not None and name in ("conversion_time", "touch_time", "window_start"):
            return micros(datetime.fromisoformat(it) if isinstance(it, str) else it)
        return f"{Decimal(it):.9f}" if name in ("credit", "conversions") else it

    return tuple(value(name) for name in columns)


def whichever_copy(rows: tuple[dict, dict, Counter, dict, dict]) -> tuple[dict, dict, Counter, dict, dict]:
    delivery, ledger, rejects, *earned = rows
    told = Counter()
    for (reason, event_id, payload), n in rejects.items():
        told[reason, event_id, None if reason == "orphan" else payload] += n
    return delivery, ledger, told, *earned


def as_line(datum: bytes) -> bytes:
    """The event as JSON; what cannot be decoded becomes a line that cannot either."""
    try:
        event = fastavro.schemaless_reader(io.BytesIO(datum), PLAIN_SCHEMA)
    except (ValueError, EOFError, IndexError):
        return b"{" + datum.hex().encode()
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def test_files_of_both_encodings_give_the_oracles_rows_on_prism(prism, tmp_path, troubled):
    files, rows = troubled
    assert whichever_copy(figures(on_prism(prism, files, tmp_path / "spool"))) == rows


def test_machines_that_are_lost_are_rebuilt_from_the_state_that_prism_keeps(prism, tmp_path, troubled, monkeypatch):
    files, rows = troubled
    take, chance, lost = keyed.MACHINES.take, random.Random(1), Counter()

    def forgetful(place, token):
        machine = take(place, token)
        if machine is not None and chance.random() < 0.5:
            lost[place[1]] += 1
            return None
        return machine

    monkeypatch.setattr(keyed.MACHINES, "take", forgetful)
    assert whichever_copy(figures(on_prism(prism, files, tmp_path / "spool"))) == rows
    assert set(lost) == {"join", "orders", "credits", "rejects", "totals"}


def datums(block) -> list[bytes]:
    """A block's datums as they are, cut where fastavro's reader stops."""
    data, out = block.bytes_, []
    for _ in range(block.num_records):
        start = data.tell()
        try:
            fastavro.schemaless_reader(data, PLAIN_SCHEMA)
        except (ValueError, EOFError, IndexError):
            assert block.num_records == 1  # one that cannot be decoded has no end either
            data.seek(0, io.SEEK_END)
        end = data.tell()
        data.seek(start)
        out.append(data.read(end - start))
    return out
