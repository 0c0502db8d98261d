"""Finding, fetching and building the engine, the guard against split bundles, and the doctor. No network."""

import io
import os
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.runners.portability.prism_runner import PrismJobServer
from apache_beam.testing.util import assert_that, equal_to

from measurement.cloud.engines import engine
from measurement.local import doctor
from measurement.local import prism as setup
from measurement.local.run import RunError

FAKE_GO = """#!/bin/sh
echo "$@" > "$GOBIN/prism"
chmod +x "$GOBIN/prism"
"""


@pytest.fixture
def nothing_there(tmp_path, monkeypatch) -> Path:
    """A machine without Prism, Go or a network; the folder is first on its PATH."""
    monkeypatch.delenv("MEASUREMENT_PRISM", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(PrismJobServer, "BIN_CACHE", str(tmp_path / "beam"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def unreachable(url, timeout):
        raise URLError("no route to host")

    monkeypatch.setattr(setup, "urlopen", unreachable)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@pytest.fixture
def fake_go(nothing_there, monkeypatch) -> None:
    """A Go whose `install` leaves its own arguments where the binary belongs."""
    program(nothing_there / "go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{nothing_there}:/usr/bin:/bin")


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_named_prism_is_taken(nothing_there, monkeypatch):
    named = program(nothing_there / "my-prism")
    monkeypatch.setenv("MEASUREMENT_PRISM", str(named))
    assert setup.ensure_prism(say=lambda line: None) == named


def test_named_prism_that_is_not_there_is_an_error_not_a_build(fake_go, monkeypatch):
    monkeypatch.setenv("MEASUREMENT_PRISM", "/no/such/prism")
    with pytest.raises(setup.PrismMissing, match="MEASUREMENT_PRISM names /no/such/prism"):
        setup.ensure_prism()


def test_prism_that_beam_fetched_itself_is_used_if_it_is_of_this_version(nothing_there):
    cache = Path(PrismJobServer.BIN_CACHE)
    program(cache / "apache_beam-v2.1.0-prism-linux-amd64")
    assert setup.find_prism() is None
    fetched = program(cache / Path(setup._release_url()).stem)
    assert setup.find_prism() == fetched


def test_release_is_fetched_into_the_cache_and_found_from_then_on(nothing_there, monkeypatch):
    fetched = []

    def release(url, timeout):
        fetched.append(url)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(Path(url).stem, "#!/bin/sh\n")
        packed.seek(0)
        return packed

    monkeypatch.setattr(setup, "urlopen", release)
    path = setup.ensure_prism()
    assert setup.ensure_prism() == path and len(fetched) == 1
    assert os.access(path, os.X_OK)
    assert [file.name for file in path.parent.iterdir()] == ["prism"]  # nothing half made stays behind


def test_prism_is_built_with_go_where_the_release_is_out_of_reach(fake_go):
    said = []
    path = setup.ensure_prism(say=said.append)
    assert path.read_text() == f"install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam.__version__}\n"
    assert len(said) == 1 and "no route to host" in said[0] and f"from go install, kept as {path}" in said[0]


def test_two_builds_at_once_leave_one_whole_binary(fake_go):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: setup.ensure_prism(), range(4)))
    assert len(set(paths)) == 1
    assert [file.name for file in paths[0].parent.iterdir()] == ["prism"]


def test_failed_build_says_what_was_tried_and_what_to_install(nothing_there, monkeypatch):
    with pytest.raises(setup.PrismMissing, match=r"no route to host.*no go on the PATH.*Install Go 1\.\d+ or later"):
        setup.ensure_prism()
    program(nothing_there / "go", "#!/bin/sh\necho first >&2\necho 'go: module lookup disabled' >&2\nexit 1\n")
    with pytest.raises(setup.PrismMissing, match=r"go install failed \(go: module lookup disabled\)"):
        setup.ensure_prism()
    assert setup.find_prism() is None


@pytest.mark.parametrize(
    "runner", ["PrismRunner", "prism", "apache_beam.runners.portability.prism_runner.PrismRunner", "DirectRunner"]
)
def test_prism_that_may_split_bundles_is_refused(runner):
    with pytest.raises(ValueError, match=setup.SPLIT_GUARD):
        setup.require_split_guard(PipelineOptions([f"--runner={runner}", "--experiments=beam_fn_api"]))
    setup.require_split_guard(PipelineOptions([f"--runner={runner}", f"--experiments=beam_fn_api,{setup.SPLIT_GUARD}"]))


def test_unnamed_runner_is_refused_since_it_may_become_prism():
    with pytest.raises(ValueError, match=setup.SPLIT_GUARD):
        setup.require_split_guard(PipelineOptions([]))


@pytest.mark.parametrize("runner", ["FlinkRunner", "DataflowRunner", "PortableRunner", "FnApiRunner"])
def test_other_runners_need_no_guard(runner):
    setup.require_split_guard(PipelineOptions([f"--runner={runner}"]))


def test_job_runs_with_the_local_flags(prism):
    options = PipelineOptions(setup.prism_options(prism))
    setup.require_split_guard(options)
    with beam.Pipeline(options=options) as p:
        assert_that(p | beam.Create([1, 2]) | beam.Map(lambda x: x * 2), equal_to([2, 4]))


def test_doctor_passes_where_all_that_a_run_needs_is_there(nothing_there, monkeypatch, capsys):
    monkeypatch.setenv("MEASUREMENT_PRISM", str(program(nothing_there / "prism")))
    assert doctor.main() == 0
    shown = capsys.readouterr().out
    assert "duckdb" in shown and "everything for `make run` is there" in shown
    assert "not there, optional  Go" in shown


def test_doctor_fails_naming_what_is_missing_and_its_use(nothing_there, capsys):
    assert doctor.main() == 1
    shown = capsys.readouterr().out
    assert "MISSING              Prism: not there: `make engine`" in shown and "[running jobs locally]" in shown
    assert shown.endswith("missing for `make run`: Prism\n")


def test_doctor_runs_where_nothing_is_installed():
    bare = subprocess.run([sys.executable, "-S", "-I", doctor.__file__], capture_output=True, text=True)
    assert bare.returncode == 1 and not bare.stderr
    assert "apache-beam" in bare.stdout and "make env" in bare.stdout


def test_a_job_is_waited_for_longer_than_beams_deadline(tmp_path):
    options = PipelineOptions([*setup.prism_options(tmp_path), "--runner=PrismRunner"])
    assert options.view_as(PortableOptions).job_server_timeout >= 365 * 24 * 3600  # by default it is over after 300 s


def test_a_job_server_that_is_not_there_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for endpoint, told in ((f"127.0.0.1:{free}", "Connection refused"), ("somewhere", "must be HOST:PORT")):
        with pytest.raises(RunError, match=f"--job_endpoint {endpoint}: {told}"):
            engine("portable", [f"--job_endpoint={endpoint}"], print)
