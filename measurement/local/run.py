"""`measurement run --profile local`: the job in a process of its own, the warehouse's one writer in this one."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measurement import memory
from measurement.io.input_file import InputFile
from measurement.io.watermark import END
from measurement.local import inputs
from measurement.local.inputs import Source
from measurement.local.prism import STAY, PrismMissing, ensure_prism, find_prism, prism_options, require_split_guard
from measurement.local.told import Job
from measurement.local.warehouse import Warehouse, WarehouseError
from measurement.model import policy
from measurement.model.revisions import tick

_TAKE_SECONDS = 1.0  # at most so old is what readers of a running job's warehouse see
_STOP_SECONDS = 30.0
_ENDPOINT_SECONDS = 10.0  # in which a job server must answer


class RunError(Exception):
    """A run that cannot begin or did not come through; the message is one line."""


@dataclass
class Progress:
    """How far a run is: events read, events that the join has taken, rejects at the source, watermark (µs)."""

    events: int = 0
    taken: int = 0
    rejected: int = 0
    watermark: int | None = None
    seconds: float = 0.0


@dataclass
class Run:
    """What is to be run into ``out``: input patterns, policy file, runner and its flags; ``replays`` are rejects' files."""

    out: Path
    patterns: list[str]
    policy: Path | None = None
    engine: str = "prism"
    flags: list[str] = field(default_factory=list)
    again: bool = False  # the files of the last run instead of patterns
    replays: list[Path] = field(default_factory=list)
    backfill: bool = False  # files in any order of time
    log_format: str = "text"  # of run.log


def run(what: Run, tell: Callable[[Progress], None], say: Callable[[str], None]) -> int:
    """Runs to the end of the input; the generation. RunError with one line where that cannot be."""
    try:
        rules = policy.given(what.policy)
        if not what.again:
            inputs.find(what.patterns)
        flags = engine_flags(what.engine, what.flags, say)
        what.out.mkdir(parents=True, exist_ok=True)
        warehouse = Warehouse(what.out)
        with warehouse.alone():
            return _run(what, warehouse, rules, flags, tell)
    except (inputs.BadInputs, policy.PolicyError, PrismMissing, WarehouseError) as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{error.filename or what.out}: {error.strerror}") from error


def engine_flags(engine: str, flags: list[str], say: Callable[[str], None]) -> list[str]:
    """Beam's flags for the runner, the user's own last. RunError for a runner or flag that Beam does not have."""
    if engine.lower().removesuffix("runner") == "prism":
        ours = prism_options(find_prism() or ensure_prism(say))
    else:
        ours = [f"--runner={engine if engine.endswith('Runner') else engine.capitalize() + 'Runner'}", "--streaming", STAY]
    if flags or "--runner=PrismRunner" not in ours:
        check_flags(ours, flags)
    return [*ours, *flags]


def check_flags(ours: list[str], flags: list[str]) -> None:
    # Beam itself only warns of a flag it does not know, and the run would not be the one that was asked for.
    from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions, _BeamArgumentParser
    from apache_beam.runners.runner import create_runner

    parser = _BeamArgumentParser(allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    if unknown := parser.parse_known_args(flags)[1]:
        raise RunError(f"{unknown[0]}: not a flag that Beam knows")
    try:
        options = PipelineOptions([*ours, *flags])
        create_runner(options.view_as(StandardOptions).runner)
        require_split_guard(options)
    except (ValueError, ImportError, AttributeError) as error:
        raise RunError(f"--engine: {error}") from error
    if endpoint := options.view_as(PortableOptions).job_endpoint:
        _answers(endpoint)


def _answers(endpoint: str) -> None:
    """RunError unless somebody listens there, whom Beam would wait for as long as for a job."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise RunError(f"--job_endpoint {endpoint}: must be HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ENDPOINT_SECONDS).close()
    except OSError as error:
        raise RunError(f"--job_endpoint {endpoint}: {error.strerror or error}") from error


def _run(what: Run, warehouse: Warehouse, rules: policy.Policy, flags: list[str], tell) -> int:
    began = time.time_ns() // 1_000
    earlier = warehouse.inputs()
    if what.again:
        files = [Path(s.path) for s in earlier if not s.replay]
        if missing := next((f for f in files if not f.is_file()), None):
            raise RunError(f"{missing}: an input of --out {what.out}, is not there any more")
    else:
        files = inputs.find(what.patterns)
    backfill = what.backfill or (what.again and warehouse.backfilled())
    schemas = inputs.check(files)
    sources = inputs.match(files, [s for s in earlier if not s.replay], began)
    sources += [s for s in earlier if s.replay]
    sources += [_replay_source(path, began) for path in what.replays]
    generation = warehouse.begin(sources, schemas, rules.rule_version, began, backfill)
    spool = what.out / ".spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    job = Job(
        run=f"{generation}-{uuid.uuid4().hex[:8]}", generation=generation, began=began,
        files=[asdict(InputFile(s.path, s.name, s.clock, s.replay)) for s in sources],
        policy=str(what.policy.resolve()) if what.policy else None, spool=str(spool.resolve()), flags=flags,
        backfill=backfill, log_format=what.log_format)
    state = "failed"
    try:
        _stream(job, what.out / "run.log", warehouse, spool, tell)
        state = "complete"
    finally:
        with contextlib.suppress(WarehouseError) if state == "failed" else contextlib.nullcontext():
            ended = time.time_ns() // 1_000
            warehouse.finish(generation, state, ended, tick(ended, began))
        shutil.rmtree(spool, ignore_errors=True)
    return generation


def _replay_source(path: Path, clock: int) -> Source:
    return Source(path.name.partition(".")[0], str(path.resolve()), path.stat().st_size, "", clock, replay=True)


def _stream(job: Job, log: Path, warehouse: Warehouse, spool: Path, tell) -> None:
    """Starts the job's process, takes what it spools while it runs, and the rest at its end."""
    with log.open("w") as errors:
        process = subprocess.Popen([sys.executable, "-m", "measurement.local.job"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
                                   env=memory.ENVIRONMENT | os.environ)
    try:
        with process.stdin:
            json.dump(asdict(job), process.stdin)
        last = _follow(process, job.generation, warehouse, spool, tell)
        process.wait()
        if process.returncode or last.get("state") != "DONE":
            raise RunError(f"the job failed: {last.get('error') or last.get('state') or 'it ended'} (see {log})")
        warehouse.take(spool, job.generation, None)
    finally:
        _stop(process)


def _follow(process, generation: int, warehouse: Warehouse, spool: Path, tell) -> dict:
    """Reads what the job says until it ends, taking the spool meanwhile; the last thing it said."""
    began = taken_at = time.monotonic()
    last: dict = {}
    progress = Progress()
    for line in process.stdout:
        last = json.loads(line)
        if "events" in last:
            watermark = last["watermark"]
            progress = Progress(last["events"], last.get("taken", last["events"]), last["rejected"],
                                None if watermark == END else watermark, time.monotonic() - began)
            tell(progress)
        if time.monotonic() - taken_at >= _TAKE_SECONDS:
            watermark = progress.watermark if progress.watermark is not None and progress.watermark > 0 else None
            warehouse.take(spool, generation, watermark)
            taken_at = time.monotonic()
    return last


def _stop(process: subprocess.Popen) -> None:
    """Ends the job's process and, with it, its engine."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    # The group's other members (the engine, if its parent was killed) end with it; it is empty as a rule.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
