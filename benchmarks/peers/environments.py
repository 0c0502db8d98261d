"""Each peer's own interpreter and jars, of pinned versions, from the registries that pip and Maven are set up for."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class Missing(Exception):
    """An environment that cannot be had; the message says why in one line."""


@dataclass(frozen=True)
class Environment:
    packages: tuple[str, ...] = ()  # none: the project's own interpreter
    jars: tuple[str, ...] = ()  # group:artifact:version
    java: bool = False


FASTAVRO = "fastavro==1.13.1"
ENVIRONMENTS = {
    "project": Environment(),
    "python": Environment((FASTAVRO,)),
    "flink": Environment(("apache-flink==2.3.0",), ("org.apache.flink:flink-sql-avro:2.3.0",), java=True),
    # The newest Spark whose Avro connector is to be had; the connector must be of the same version.
    "spark": Environment(("pyspark==4.1.1",), ("org.apache.spark:spark-avro_2.13:4.1.1", "org.tukaani:xz:1.10"), java=True),
    "bytewax": Environment(("bytewax==0.21.1", FASTAVRO)),
    "pathway": Environment(("pathway==0.33.0", FASTAVRO)),
    "polars": Environment(("polars==2.1.0",)),
    "duckdb": Environment(("duckdb==2.0.0",)),
    # DuckDB fetches extensions from a place of its own; this is the newest that is packaged. With 1.4.4 the result was wrong:
    # a null came back at the same place of every later vector of 2,048 rows (its issue 21444).
    "duckdb-avro": Environment(("duckdb==1.5.5", "duckdb-extension-avro==1.5.5")),
}
_SECONDS = 1_800  # for an installation


def ensure(name: str, cache: Path) -> tuple[str, dict[str, str]]:
    """The interpreter, and what its process finds in its environment. Made below ``cache`` if it is not there."""
    wanted = ENVIRONMENTS[name]
    for needed, program in (wanted.java, "java"), (wanted.jars, "mvn"):
        if needed and not shutil.which(program):
            raise Missing(f"no {program} on the PATH{' (17 or later)' if needed is True else ''}")
    if not wanted.packages:
        return sys.executable, {}
    folder = cache / name
    stamp, told = folder / ".installed", "\n".join([sys.version, *wanted.packages, *wanted.jars])
    if not stamp.is_file() or stamp.read_text() != told:
        shutil.rmtree(folder, ignore_errors=True)
        python = str(folder / "bin" / "python")
        _run(sys.executable, "-m", "venv", str(folder))
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.packages)
        for jar in wanted.jars:
            _run("mvn", "--quiet", "--batch-mode", "dependency:copy", f"-Dartifact={jar}", f"-DoutputDirectory={folder / 'jars'}",
                 cwd=folder)
        stamp.write_text(told)
    jars = {"BENCHMARK_JARS": os.pathsep.join(map(str, sorted((folder / "jars").glob("*.jar"))))} if wanted.jars else {}
    return str(folder / "bin" / "python"), jars


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise Missing(f"no {command[0]} on the PATH") from error
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{Path(command[0]).name} took longer than {_SECONDS} s") from error
    if ran.returncode:
        said = next((line for line in (ran.stdout + ran.stderr).splitlines() if "ERROR" in line), "it did not say why")
        why = said.partition(" (from versions")[0].rpartition("ERROR")[2].strip("]: ")
        raise Missing(f"{' '.join(Path(part).name for part in command[:4])} failed: {why[:300]}")
