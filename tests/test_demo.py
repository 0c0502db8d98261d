"""`measurement demo` as a process: its address, its key, its end, and what it refuses."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from serving import A, Asking, books, write

WEEK = {"from_": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}


def demo(*flags, **how) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "measurement.cli", "demo", *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("demo") / "out", books())


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_page_with_its_key_is_served_until_it_is_stopped(out, tmp_path, ending):
    import os

    process = demo("--out", out, "--port", 0, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        said, address = process.stdout.readline(), process.stdout.readline().strip()
        assert "Ctrl-C" in said and str(out) in said
        where, _, key = address.partition("/#key=")
        api = Asking(int(where.removeprefix("http://127.0.0.1:")))
        assert api.get("/").headers["Content-Type"].startswith("text/html")
        assert [a["advertiser_id"] for a in api.get("/v1/advertisers", key).json["advertisers"]][:2] == ["a", "a/b"]
        assert api.get(f"{A}/delivery/sums", key, by="campaign_id", **WEEK).json["rows"]
        assert api.get("/v1/advertisers").status == 401
        [private] = tmp_path.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700 and key not in (private / "keys.json").read_text()
        assert json.loads((private / "keys.json").read_text())["keys"][0]["owner"] == {"sales": True}
        process.send_signal(ending)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (0, "", "")
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("flags, names", [
    (["--host", "0.0.0.0"], "measurement serve"), (["--host", "::"], "measurement serve"), (["--host", "example.org"], "measurement serve"),
    (["--host", "192.0.2.1"], "measurement serve"), (["--out", "nowhere"], "make run"), (["--port", "70000"], "port")])
def test_what_cannot_be_shown_is_told_in_one_line(out, flags, names):
    process = demo(*(flags if "--out" in flags else ["--out", out, *flags]))
    told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (2, "") and names in errors and errors.count("\n") == 1


def test_a_port_that_is_taken_is_named(out):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = demo("--out", out, "--port", taken.getsockname()[1])
        told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (2, "") and "--port" in errors and errors.count("\n") == 1
