"""What this machine has and lacks for the pipeline: `make doctor`, or `python3 measurement/local/doctor.py`.

Runs before anything is installed, so on the standard library alone and on Python 3.9.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:  # started as a file, perhaps by an interpreter that has nothing installed
    sys.path.insert(0, str(ROOT))

from measurement.local import emulators  # noqa: E402
from measurement.local.prism import GO_NEEDED, PrismMissing, find_prism  # noqa: E402

PYTHON_NEEDED = (3, 11)
# What a set-up with a build of Prism, the demo and its warehouse take, with room to spare.
FREE_DISK_GB = 5
MEMORY_GB = 4
CORES = 2
JAVA_NEEDED = (17,)

PURPOSES = {
    "apache-beam": "the pipeline itself",
    "axe-playwright-python": "tests of the page's accessibility",
    "crawler-user-agents": "screening declared robots",
    "duckdb": "the local warehouse and its views",
    "fastapi": "the report API",
    "fastavro": "Avro files and datums",
    "hypothesis": "property tests",
    "mmh3": "checking the fingerprints in tests",
    "numba": "compiled kernels",
    "numpy": "kernels over columns",
    "orjson": "JSON events",
    "pandas": "reading reports in tests",
    "playwright": "tests of the page in Chromium",
    "polars": "benchmarks beside another engine",
    "prometheus-client": "metrics of the service levels",
    "psutil": "memory and processes in tests and benchmarks",
    "pyarrow": "batches of events",
    "pyruhvro": "benchmarks beside another decoder",
    "pytest": "the tests",
    "pyyaml": "policies and profiles",
    "requests": "alerts",
    "rich": "reports on the terminal",
    "schemathesis": "tests of the report API by its own document",
    "typer": "the `measurement` command",
    "uvicorn": "the report API's server",
    "uvloop": "the report API's server",
}


@dataclass(frozen=True)
class Check:
    """One thing looked for. What is needed for `make run` is required; anything else only has a use."""

    name: str
    ok: bool
    found: str
    needed_for: str
    required: bool = True

    @property
    def verdict(self) -> str:
        return "ok" if self.ok else "MISSING" if self.required else "not there, optional"


def checks() -> list[Check]:
    return [_python(), *_dependencies(), _prism(), _go(), _java(), *_emulators(), _prometheus(), _chromium(), *_resources()]


def _python() -> Check:
    needed = _dotted(PYTHON_NEEDED)
    found = f"{_dotted(sys.version_info[:3])}, {sys.executable}"
    return Check(f"Python >= {needed}", sys.version_info >= PYTHON_NEEDED, found, "everything here")


def _dependencies() -> list[Check]:
    try:
        requirements = metadata.requires("ad-measurement") or []
    except metadata.PackageNotFoundError:
        return [Check("ad-measurement", False, "not installed here: `make env`", "every command")]
    return [_dependency(requirement) for requirement in requirements]


def _dependency(requirement: str) -> Check:
    """`name[extras]>=1,<2; extra == "test"`: there, and in the range."""
    wanted, _, marker = requirement.partition(";")
    name, versions = re.match(r"\s*([\w.-]+)(?:\[.*?\])?\s*(.*)", wanted).groups()
    extra = re.search(r"extra\s*==\s*['\"](\w+)", marker)
    label = f"{name} {versions.strip()}".strip() + (f" ({extra[1]})" if extra else "")
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        ok, found = False, "not installed: `make env`"
    else:
        ok = _in_range(installed, versions.strip())
        found = installed if ok else f"{installed}, not {versions.strip()}: `make env`"
    return Check(label, ok, found, PURPOSES.get(name.lower(), "the package"), required=not extra)


def _in_range(version: str, versions: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # comes with Beam; where Beam is missing, that is what to say first
        return True
    return SpecifierSet(versions).contains(version, prereleases=True)


def _prism() -> Check:
    try:
        path = find_prism()
        ok, found = path is not None, str(path or "not there: `make engine` fetches or builds it")
    except PrismMissing as missing:
        ok, found = False, str(missing)
    return Check("Prism", ok, found, "running jobs locally")


def _go() -> Check:
    found = "not on the PATH"
    version = ()
    if shutil.which("go"):
        found = subprocess.run(["go", "version"], capture_output=True, text=True).stdout.strip()
        version = tuple(map(int, re.findall(r"\d+", found)[:2]))
    purpose = "building the BigQuery emulator, and Prism where Beam's releases cannot be reached"
    return Check(f"Go >= {_dotted(GO_NEEDED)}", version >= GO_NEEDED, found, purpose, required=False)


def _java() -> Check:
    found = "not on the PATH"
    version = ()
    if shutil.which("java"):  # says its version on stderr, in quotes
        found = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.strip().partition("\n")[0]
        version = tuple(map(int, re.findall(r"\d+", found)[:1]))
    return Check(f"Java >= {_dotted(JAVA_NEEDED)}", version >= JAVA_NEEDED, found, "the Pub/Sub emulator", required=False)


def _emulators() -> list[Check]:
    lacks = emulators.missing()
    uses = {"Pub/Sub": "tests of the source", "Bigtable": "tests of the serving store", "BigQuery": "tests of the warehouse"}
    return [Check(f"{name} emulator", name not in lacks, lacks.get(name, "there"), use, False) for name, use in uses.items()]


def _prometheus() -> Check:
    found = shutil.which("prometheus")
    return Check("Prometheus", found is not None, found or "not on the PATH: apt-get install prometheus", "tests of the alert rules", False)


def find_chromium() -> str | None:
    """Debian's program, or Chrome's."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _chromium() -> Check:
    found = find_chromium()
    return Check("Chromium", found is not None, found or "not on the PATH: apt-get install chromium", "tests of the page for ad sales", False)


def _resources() -> list[Check]:
    disk = shutil.disk_usage(ROOT).free / 1e9
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return [
        Check(f"disk >= {FREE_DISK_GB} GB", disk >= FREE_DISK_GB, f"{disk:.0f} GB free", "the demo's data", False),
        Check(f"cores >= {CORES}", cores >= CORES, str(cores), "the speeds in the README", False),
        Check(f"memory >= {MEMORY_GB} GB", memory >= MEMORY_GB, f"{memory:.0f} GB", "state of the demo", False),
    ]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _show(results: list[Check]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        rich = False
    else:
        rich = sys.stdout.isatty()
    if not rich:
        for check in results:
            print(f"{check.verdict:<20} {check.name}: {check.found} [{check.needed_for}]")
        return
    table = Table("", "what", "found", "needed for")
    for check in results:
        style = "green" if check.ok else "red" if check.required else "yellow"
        table.add_row(check.verdict, check.name, check.found, check.needed_for, style=style)
    Console().print(table)


def main() -> int:
    results = checks()
    _show(results)
    missing = [check.name for check in results if check.required and not check.ok]
    print(f"missing for `make run`: {', '.join(missing)}" if missing else "everything for `make run` is there")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
