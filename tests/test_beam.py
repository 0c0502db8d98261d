"""The job through Beam on Prism, against the oracle, also on a busy machine."""

import subprocess
import sys
import time
from collections import Counter
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
from measurement.io.files import FileSource, InputFile
from measurement.io.spool import WriteSpool, ready, table_of
from measurement.local.prism import prism_options
from measurement.model.tables import TABLES
from measurement.simulate import SimulateOptions, simulate
from measurement.transforms.config import RunConfig
from oracle import Received, count
from strategies import event_logs

CLOCK = 1_790_000_000_000_000
_runs = iter(range(1, 1_000_000))


def on_prism(prism: Path, files: list[Path], spool: Path) -> dict[str, dict[tuple, dict]]:
    """Each table's latest rows by key, of the job run over the files on PrismRunner."""
    spool.mkdir()
    config = RunConfig(f"test-{next(_runs)}", 1, time.time_ns() // 1000, event_shards=3, publish_seconds=0.5)
    source = FileSource(config.run, [InputFile(str(f), f.name, CLOCK) for f in files], config.policy, in_process=True)
    with beam.Pipeline(options=PipelineOptions(prism_options(prism))) as p:
        p | ReadFromUnboundedSource(source, 0.02, 2, 1.0) | Delivery(config) | beam.ParDo(WriteSpool(str(spool)))
    latest: dict[str, dict[tuple, dict]] = {table: {} for table in TABLES}
    for path in ready(spool):
        table = TABLES[table_of(path)]
        for row in pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist():
            key = tuple(row[c.name] for c in table.key)
            if key not in latest[table.name] or latest[table.name][key]["revision"] < row["revision"]:
                latest[table.name][key] = row
    return latest


def micros(at) -> int | None:
    return None if at is None else round(at.timestamp()) * 1_000_000


def figures(latest) -> tuple[dict, dict, Counter]:
    """(delivery, ledger, rejects) in the oracle's terms."""
    counts = [c.name for c in TABLES["delivery"].values]
    delivery = {(micros(k[0]), *k[1:]): tuple(r[c] for c in counts) for k, r in latest["delivery"].items()}
    ledger = {(micros(k[0]), *k[1:]): r["events"] for k, r in latest["ledger"].items()}
    rejects = Counter((r["reason"], r["event_id"], r["payload"]) for r in latest["rejects"].values())
    return ({k: v for k, v in delivery.items() if any(v)}, {k: n for k, n in ledger.items() if n}, rejects)


def expected(arrivals, files: int) -> tuple[dict, dict, Counter]:
    oracle = count(arrivals, files)
    rejects = Counter((reason, event_id, payload) for reason, event_id, _, _, payload in oracle.rejects())
    return oracle.delivery(), oracle.ledger(), rejects


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
        delivery, ledger, _ = figures(on_prism(prism, files, tmp_path / again))
        outcomes = Counter()
        for (*_, outcome), events in ledger.items():
            outcomes[outcome] += events
        assert outcomes == truth["outcomes"]
        assert sorted(delivery.values()) == sorted(tuple(row[10:]) for row in truth["delivery"])


def test_one_simulated_file_through_prism_gives_the_oracles_rows(prism, tmp_path):
    simulate(SimulateOptions(events=4_000, seed=8, files=1, undecodable_rate=0.0, late_rate=0.1, orphan_rate=0.05), tmp_path / "log")
    path = next((tmp_path / "log").glob("*.avro"))
    with path.open("rb") as file:
        reader = fastavro.block_reader(file)
        payloads = [datum for block in reader for datum in datums(block)]
    arrivals = [(0, Received(p, "avro", path.name, CLOCK)) for p in payloads] + [(0, None)]
    assert figures(on_prism(prism, [path], tmp_path / "spool")) == expected(arrivals, 1)


def datums(block) -> list[bytes]:
    """A block's datums as they are, cut where fastavro's reader stops."""
    data, out = block.bytes_, []
    for _ in range(block.num_records):
        start = data.tell()
        fastavro.schemaless_reader(data, block.writer_schema)
        end = data.tell()
        data.seek(start)
        out.append(data.read(end - start))
    return out
