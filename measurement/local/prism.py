"""Prism, Beam's own streaming engine, for the local profile: found, fetched or built, and never let split a bundle.

Only the standard library is imported at the top, so that `make doctor` can look for it before anything is installed.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

SPLIT_GUARD = "prism_disable_sdf_split"
GO_NEEDED = (1, 26)  # by the go.mod of Beam 2.77
DOWNLOAD_TIMEOUT = 10  # seconds without an answer; where releases are blocked, connections often just hang


class PrismMissing(Exception):
    """No Prism could be had; the message says what was tried and what to install."""


def find_prism() -> Path | None:
    """The Prism that is already on this machine, without asking the network."""
    if named := os.environ.get("MEASUREMENT_PRISM"):
        path = Path(named).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise PrismMissing(f"MEASUREMENT_PRISM names {named}, which is not a program that can be run")
        return path
    if (path := _cached()).is_file():
        return path
    from apache_beam.runners.portability.prism_runner import PrismJobServer

    path = Path(PrismJobServer.BIN_CACHE, Path(_release_url()).stem)
    return path if path.is_file() else None


def ensure_prism(say: Callable[[str], None] = print) -> Path:
    """Prism of exactly the installed Beam's version: what is there, else Beam's release, else built with Go.

    A new one is made beside its place in the cache and renamed into it, so two processes at once are harmless.
    """
    if found := find_prism():
        say(f"Prism {_version()}: found, {found}")
        return found
    target = _cached()
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for way, get in (("Beam's release", _download), ("go install", _build)):
        try:
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                os.replace(get(Path(scratch)), target)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, http.client.HTTPException) as error:
            failures.append(f"{way} failed ({error})")
        else:
            say("; ".join([*failures, f"Prism {_version()}: from {way}, kept as {target}"]))
            return target
    go = ".".join(map(str, GO_NEEDED))
    raise PrismMissing(
        f"no Prism {_version()}: {'; '.join(failures)}. "
        f"Install Go {go} or later, or set MEASUREMENT_PRISM to the path of a Prism binary."
    )


# Beam 2.77 gives the streams by which a launcher hears of its job this deadline (portable_runner.py, JobServiceHandle.run),
# its help to the contrary; by default a job is over after five minutes, engine and all.
STAY = f"--job_server_timeout={365 * 24 * 3600}"


def prism_options(path: Path) -> list[str]:
    """The flags every local job has. One engine serves a process's jobs and ends with the process.

    Not `disable_prism_server_singleton`: Beam stops an engine when the interpreter exits, singleton or not, so that
    experiment leaves one idle engine for every job until then.
    """
    return [
        "--runner=PrismRunner",
        f"--prism_location={path}",
        "--prism_log_level=warn",
        f"--experiments={SPLIT_GUARD}",
        "--environment_type=LOOPBACK",
        "--streaming",
        STAY,
    ]


def require_split_guard(options: PipelineOptions) -> None:
    """Refuses Prism where it may split bundles: keyed state would fork and events be counted twice, silently.

    Prism 2.77 splits a bundle whose progress stalls between two ticks. `splitBundle` (engine/elementmanager.go) then
    frees the keys of the residual elements while the primary still holds elements of the same keys; a second bundle
    of such a key starts beside the first, reads the state as it was before both, and each lets the same ids through.
    `benchmarks/prism_fork.py` shows it. DirectRunner, which is also what an unnamed runner means, may hand the
    pipeline to Prism and is held to the same.
    """
    from apache_beam.options.pipeline_options import DebugOptions, StandardOptions

    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    may_be_prism = runner.rpartition(".")[2].lower().removesuffix("runner") in ("prism", "direct", "switchingdirect")
    if may_be_prism and SPLIT_GUARD not in (options.view_as(DebugOptions).experiments or ()):
        raise ValueError(
            f"{runner} without --experiments={SPLIT_GUARD}: Prism would split slow bundles, which forks keyed state "
            "and counts events twice"
        )


def _version() -> str:
    try:
        return metadata.version("apache-beam")
    except metadata.PackageNotFoundError:
        raise PrismMissing("Prism's version is Beam's, and apache-beam is not installed: run `make env`") from None


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ad-measurement" / f"prism-{_version()}" / "prism"


def _release_url() -> str:
    """Where Beam itself would fetch its release from, on this system."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.prism_runner import PrismJobServer

    server = PrismJobServer(PipelineOptions([]))
    return server.construct_download_url(f"v{_version()}", platform.system(), platform.machine())


def _download(scratch: Path) -> Path:
    url = _release_url()
    archive = scratch / "prism.zip"
    with urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer, archive.open("wb") as out:
        shutil.copyfileobj(answer, out)
    with zipfile.ZipFile(archive) as zipped:
        binary = Path(zipped.extract(Path(url).stem, scratch))
    binary.chmod(0o755)
    return binary


def _build(scratch: Path) -> Path:
    if not shutil.which("go"):
        raise OSError("no go on the PATH")
    package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{_version()}"
    built = subprocess.run(
        ["go", "install", package], env={**os.environ, "GOBIN": str(scratch)}, capture_output=True, text=True
    )
    if built.returncode:
        raise OSError(built.stderr.strip().rpartition("\n")[2] or f"go install ended with {built.returncode}")
    return scratch / "prism"


if __name__ == "__main__":
    try:
        ensure_prism()
    except PrismMissing as missing:
        sys.exit(str(missing))
