"""What README.md says that ad sales, advertisers and analysts do, done by its words alone: its commands as they are printed."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from measurement.simulate import SimulateOptions, simulate

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def commands(title: str) -> list[str]:
    """The commands of the section whose title begins so, each with its further lines and without the remark behind it."""
    [section] = [part for part in re.split(r"^##+ ", README, flags=re.M) if part.startswith(title)]
    found: list[str] = []
    for line in re.findall(r"^    (.*)$", section, re.M):
        if line.startswith(("measurement ", "curl ")):
            found.append(line)
        else:
            found[-1] += f"\n{line}"
    return [re.sub(r"\s{2,}#.*", "", command) for command in found]


@pytest.fixture(scope="module")
def desk(prism, tmp_path_factory) -> Path:
    """A directory as `make run` leaves it, of fewer events."""
    at = tmp_path_factory.mktemp("desk")
    simulate(SimulateOptions(20_000, seed=7), at / "data" / "demo-1000000-7")
    done(at, "measurement run --profile local --input 'data/demo-1000000-7/events*.avro' --out out/demo")
    return at


def _environment(**more: str) -> dict[str, str]:
    """With this Python's commands, and no proxy before 127.0.0.1."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "127.0.0.1", **more}


def done(at: Path, command: str, **environment: str) -> str:
    ended = subprocess.run(["bash", "-c", command], cwd=at, env=_environment(**environment), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, (command, ended.stderr)
    return ended.stdout


@contextmanager
def served(at: Path, command: str) -> Iterator[tuple[str, str]]:
    """A server that stays, at a free port in place of 8080: its origin, and the line in which it said so."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(["bash", "-c", f"exec {command} --port {port}"], cwd=at, env=_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    try:
        said = next((line for line in server.stdout if f"http://127.0.0.1:{port}" in line), None)
        assert said is not None, f"{command} ended with {server.wait()}"
        yield f"http://127.0.0.1:{port}", said.strip()
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_ad_sales_open_the_page_that_demo_prints(desk):
    [demo] = commands("Ad sales")
    with served(desk, demo) as (origin, said):
        address, key = re.search(r"(http://\S+)#key=(\S+)", said).groups()
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"<title>ad-measurement" in page.read()
        asked = urllib.request.Request(f"{origin}/v1/advertisers", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked, timeout=30) as got:
            assert len(json.load(got)["advertisers"]) > 1


def test_advertisers_ask_over_http_and_get_files(desk):
    make, serve, curl, *exports = commands("Advertisers")
    key = done(desk, make).splitlines()[0]
    with served(desk, serve.removesuffix("cloud: --profile gcp --bigtable …").rstrip()) as (origin, _):
        told = json.loads(done(desk, curl.replace("http://127.0.0.1:8080", origin).replace("curl ", "curl -sS "), KEY=key))
    assert told["rows"] and {row["advertiser_id"] for row in told["rows"]} == {"adv-6"} and told["complete_until"]
    for export in exports:
        done(desk, export)
    assert {path.suffix for path in (desk / "exports" / "adv-6").iterdir()} == {".xlsx", ".json"}


def test_analysts_state_load_and_ask(desk):
    *first, query = commands("Analysts")
    for command in first:
        done(desk, command)
    rows = list(csv.DictReader(io.StringIO(done(desk, query))))
    assert {row["day"] for row in rows} >= {"2026-03-02"} and all(int(row["impressions"]) > 0 for row in rows) and {row["complete"] for row in rows} <= {"true", "false"}
