"""The cloud's emulators: Pub/Sub and Bigtable from the Google Cloud CLI, and goccy's BigQuery emulator, built with Go.

    python -m measurement.local.emulators            starts all three, until interrupted
    python -m measurement.local.emulators --build    only makes sure that they are there

Only the standard library is imported at the top, so that `make doctor` can look for them before anything is installed.
"""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measurement.local.prism import GO_NEEDED

BIGQUERY_VERSION = "0.8.1"
_GO_MOD = f"""module bqemu

go {GO_NEEDED[0]}.{GO_NEEDED[1]}

require github.com/goccy/bigquery-emulator v{BIGQUERY_VERSION}
"""
_HOST = "127.0.0.1"
_START_SECONDS = 60  # until it must answer; a Java on a busy machine takes some ten
_STOP_SECONDS = 5  # until what does not end when asked is killed


class EmulatorMissing(Exception):
    """An emulator is not there or does not start; the message says why and what to install."""


def find_pubsub() -> list[str] | None:
    """The command without its address: Java and the emulator's jar, with no launcher between."""
    java = shutil.which("java")
    launcher = shutil.which("cloud-pubsub-emulator")
    homes = [Path(launcher).resolve().parents[1]] if launcher else []
    if sdk := _sdk():
        homes.append(sdk / "platform" / "pubsub-emulator")
    jars = [jar for home in homes for jar in sorted(home.glob("lib/cloud-pubsub-emulator-*.jar"))]
    return [java, "-jar", str(jars[-1])] if java and jars else None


def find_bigtable() -> Path | None:
    if found := shutil.which("cbtemulator"):
        return Path(found)
    sdk = _sdk()
    binary = sdk and sdk / "platform" / "bigtable-emulator" / "cbtemulator"
    return binary if binary and os.access(binary, os.X_OK) else None


def find_bigquery() -> Path | None:
    return _cached() if os.access(_cached(), os.X_OK) else None


def missing() -> dict[str, str]:
    """By emulator that is not there, what to install."""
    lacks = {}
    if not find_pubsub():
        lacks["Pub/Sub"] = "needs Java 17 or later and `gcloud components install pubsub-emulator`"
    if not find_bigtable():
        lacks["Bigtable"] = "needs `gcloud components install bigtable`"
    if not find_bigquery():
        go = ".".join(map(str, GO_NEEDED))
        lacks["BigQuery"] = f"`make emulators` builds it with Go {go} or later"
    return lacks


def ensure_bigquery(say: Callable[[str], None] = print) -> Path:
    """What is there, else built with Go: beside its place in the cache and renamed into it, so two at once are harmless."""
    if found := find_bigquery():
        say(f"BigQuery emulator {BIGQUERY_VERSION}: found, {found}")
        return found
    if not shutil.which("go"):
        raise EmulatorMissing(f"BigQuery emulator: install Go {'.'.join(map(str, GO_NEEDED))} or later to build it")
    target = _cached()
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"BigQuery emulator {BIGQUERY_VERSION}: building, which takes some five minutes")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        Path(scratch, "go.mod").write_text(_GO_MOD)  # -mod=mod writes go.sum, checked against Go's public checksums
        package = "github.com/goccy/bigquery-emulator/cmd/bigquery-emulator"
        command = ["go", "build", "-mod=mod", "-o", f"{scratch}/built", package]
        built = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if built.returncode:
            why = built.stderr.strip().rpartition("\n")[2] or f"go build ended with {built.returncode}"
            raise EmulatorMissing(f"BigQuery emulator: {why}")
        os.replace(f"{scratch}/built", target)
    say(f"BigQuery emulator {BIGQUERY_VERSION}: built, kept as {target}")
    return target


class Emulator:
    """A process that can be taken away and brought back at the same addresses; what it held is then gone.

    ``command`` has {0}, {1} … where the ports stand; ``answers`` is asked with each host:port whether it is up. Ports of 0
    are chosen. A context manager: started on entry, stopped on exit.
    """

    def __init__(self, name: str, command: list[str], answers: list[Callable[[str], bool]], ports: tuple[int, ...] = ()):
        self.name = name
        free = _free_ports(ports or (0,) * len(answers))
        self.hosts = [f"{_HOST}:{port}" for port in free]
        self._command = [part.format(*free) for part in command]
        self._answers = answers
        self._process: subprocess.Popen | None = None

    @property
    def host(self) -> str:
        return self.hosts[0]

    def start(self) -> None:
        """Returns when it answers; EmulatorMissing with what it last said where it does not."""
        if self._process:
            raise RuntimeError(f"the {self.name} emulator is started")
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                             start_new_session=True)
            try:
                self._wait_for_answers()
            except EmulatorMissing as lack:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise EmulatorMissing(f"{lack}: {last}") from None

    def _wait_for_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        try:
            for host, answers in zip(self.hosts, self._answers, strict=True):
                while not answers(host):
                    if time.monotonic() > deadline:
                        raise EmulatorMissing(f"the {self.name} emulator did not answer in {_START_SECONDS} s")
                    if _ended(self._process, within=0.05):
                        raise EmulatorMissing(f"the {self.name} emulator ended with {self._process.returncode}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Its process group and nothing else; harmless where it is stopped already."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                pass
            if _ended(process, _STOP_SECONDS):
                return

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def pubsub_emulator(port: int = 0) -> Emulator:
    command = find_pubsub() or _lacks("Pub/Sub")
    return Emulator("Pub/Sub", [*command, f"--host={_HOST}", "--port={0}"], [_grpc_answers], (port,))


def bigtable_emulator(port: int = 0) -> Emulator:
    binary = find_bigtable() or _lacks("Bigtable")
    return Emulator("Bigtable", [str(binary), f"-host={_HOST}", "-port={0}"], [_grpc_answers], (port,))


def bigquery_emulator(project: str = "demo", dataset: str = "ads", ports: tuple[int, int] = (0, 0)) -> Emulator:
    """Its hosts are REST's and gRPC's."""
    binary = find_bigquery() or _lacks("BigQuery")
    command = [str(binary), f"--project={project}", f"--dataset={dataset}", f"--host={_HOST}", "--port={0}", "--grpc-port={1}"]
    rest = functools.partial(_http_answers, path=f"/bigquery/v2/projects/{project}/datasets/{dataset}")
    return Emulator("BigQuery", command, [rest, _grpc_answers], ports)


@contextmanager
def pubsub() -> Iterator[str]:
    """host:port of a Pub/Sub emulator of its own."""
    with pubsub_emulator() as emulator:
        yield emulator.host


@contextmanager
def bigtable() -> Iterator[str]:
    """host:port of a Bigtable emulator of its own."""
    with bigtable_emulator() as emulator:
        yield emulator.host


@contextmanager
def bigquery(project: str = "demo", dataset: str = "ads") -> Iterator[tuple[str, str]]:
    """host:port of REST and of gRPC of a BigQuery emulator of its own."""
    with bigquery_emulator(project, dataset) as emulator:
        yield tuple(emulator.hosts)


def _lacks(name: str):
    raise EmulatorMissing(f"the {name} emulator is not there: {missing()[name]}")


def _sdk() -> Path | None:
    """Where the Google Cloud CLI is installed."""
    gcloud = shutil.which("gcloud")
    return _sdk_of(gcloud) if gcloud else None


@functools.cache
def _sdk_of(gcloud: str) -> Path | None:
    beside = Path(gcloud).resolve().parents[1]
    if (beside / "platform").is_dir():
        return beside  # asking it takes seconds
    asked = subprocess.run([gcloud, "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True)
    return Path(asked.stdout.strip()) if asked.stdout.strip() else None


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ad-measurement" / f"bigquery-emulator-{BIGQUERY_VERSION}"


def _free_ports(wanted: tuple[int, ...]) -> list[int]:
    """The wanted ports, or others where those are taken. All are held until the last is chosen."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in wanted]
        for one, port in zip(sockets, wanted, strict=True):
            try:
                one.bind((_HOST, port))
            except OSError:
                one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _ended(process: subprocess.Popen, within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _grpc_answers(host: str) -> bool:
    import grpc

    # Refused once, a channel waits a second before it tries again, unless told otherwise.
    soon = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel(host, soon) as channel:
        try:
            grpc.channel_ready_future(channel).result(1)
        except grpc.FutureTimeoutError:
            return False
    return True


def _http_answers(host: str, path: str) -> bool:
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _make_sure() -> int:
    """Says what is there; what is missing fails in CI alone, where a skipped test would pass unseen."""
    try:
        ensure_bigquery()
    except EmulatorMissing as lack:
        print(lack)
    lacks = missing()
    for name in ("Pub/Sub", "Bigtable"):
        print(f"{name} emulator: {lacks.get(name, 'found')}")
    return 1 if lacks and os.environ.get("CI") == "true" else 0


def _serve() -> None:
    with ExitStack() as stack:
        # The usual ports where they are free: then nothing needs to be exported.
        pubsub = stack.enter_context(pubsub_emulator(8085))
        bigtable = stack.enter_context(bigtable_emulator(8086))
        bigquery = stack.enter_context(bigquery_emulator(ports=(9050, 9060)))
        print(f"export PUBSUB_EMULATOR_HOST={pubsub.host}")
        print(f"export BIGTABLE_EMULATOR_HOST={bigtable.host}")
        print(f"export BIGQUERY_EMULATOR_HOST=http://{bigquery.hosts[0]}")
        print(f"export BIGQUERY_STORAGE_EMULATOR_HOST={bigquery.hosts[1]}", flush=True)
        signal.pause()


def main(arguments: list[str]) -> int:
    if arguments == ["--build"]:
        return _make_sure()
    if arguments:
        print(__doc__)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, after stopping what was started
    try:
        _serve()
    except KeyboardInterrupt:
        return 0
    except EmulatorMissing as lack:
        print(lack, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
