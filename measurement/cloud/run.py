"""`measurement run` and `measurement rebuild` on the cloud's services, or on their emulators: one path, other endpoints."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

from jobs.stream import stream
from measurement.cloud import generation as generations
from measurement.cloud.engines import Engine, engine
from measurement.cloud.generation import Archive, Reach
from measurement.cloud.places import CloudError, Places, Profile
from measurement.cloud.provision import ARCHIVE, ARCHIVE_SINCE, FIRST_BEGAN, RULES
from measurement.cloud.pubsub_admin import ARCHIVE_SECONDS, PubSubAdmin
from measurement.cloud.stored import StoredRows
from measurement.io import archive as archives
from measurement.io import bigtable_admin, flow
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.causes import cause
from measurement.io.control import Control, Generation
from measurement.io.pubsub import keepers
from measurement.io.pubsub.fence import BEAT, heard, running
from measurement.io.pubsub.keeper import Flow
from measurement.io.pubsub.source import PubSubSource, Reading, Rebuild
from measurement.io.retry import SinkError
from measurement.local.prism import PrismMissing
from measurement.local.run import Progress, RunError
from measurement.model import policy
from measurement.transforms.config import Rebuilding, RunConfig
from measurement.transforms.keyed import MACHINES
from measurement.transforms.worker import settle

_TELL_SECONDS = 0.25
_DRAIN_SECONDS = 10.0
# The emulator answers pulls that meet each other at half the rate of one after the other, for twice the processor time.
_PULL_THREADS = {Profile.emulators: 1, Profile.gcp: 2}
# How often an open hour's row is published at most: what is read at once, or what a service bills (docs/scale.md).
_PUBLISH_SECONDS = {Profile.emulators: 0.5, Profile.gcp: 5.0}
_SILENT_SECONDS = 6 * BEAT  # after so long without a heartbeat a job is taken for dead
ENDED, FAILED = "ended", "failed"


@dataclass
class Run:
    """What is to be run. ``resume``: the engine has the state of the last generation, which goes on."""

    profile: Profile
    places: Places
    policy: Path | None = None
    engine: str = "prism"
    flags: list[str] = field(default_factory=list)
    schemas: Path | None = None
    resume: bool = False
    until_idle: bool = False
    idle_after: float = 180.0
    readers: int = 1
    publish_seconds: float | None = None  # None: the profile's


def run(what: Run, tell: Callable[[Progress], None], say: Callable[[str], None]) -> None:
    """Streams until the job ends, which it does when it is cancelled or fails, or with ``until_idle``. CloudError, RunError
    or PolicyError, one line, for what is missing before it starts and what ended it."""
    rules = policy.given(what.policy)
    by = _engine(what, say)
    lease = check(what.places)
    if what.idle_after <= lease:
        raise CloudError(f"--idle-seconds {what.idle_after:g}: must be longer than the subscription's ack deadline, {lease:g} s, or "
                         "what a dead worker held would come back too late")
    control = Control(what.places.endpoints, what.places.instance)
    with _said():
        last = control.generation(what.places.subscription)
        archive = _archive(control, what.places.subscription)
        if what.resume:
            if last is None:
                raise CloudError("--resume: no generation has begun here")
            if (was := control.setting(what.places.subscription, RULES)) != rules.digest:
                # The engine's state has the source as it was, policy and all: events would be judged half by one.
                raise CloudError(f"--resume: generation {last.number} counts by policy {was}, not by {rules.digest}; leave it out")
            new, rebuild = last, None
        else:
            new, rebuild = _begin(control, what.places, last, archive, rules, say)
            control.configure(what.places.subscription, RULES, rules.digest)
    own = archive.directory if archive and what.profile is Profile.emulators else None
    # What is acknowledged must be in the archive, and one that a subscription writes is behind by as long as a file is open.
    hold = by.hold if own or not archive else max(by.hold, 2.5 * ARCHIVE_SECONDS)
    reading = Reading(Flow(_PULL_THREADS[what.profile], lease=lease, hold=hold), idle_after=what.idle_after, archive=own, until_idle=what.until_idle)
    _execute(what, by, control, new, rules, reading, rebuild,
             None if rebuild is None else Rebuilding(_stored(what.places, new), rebuild.publish_from, None, rebuild.credit_from), tell)


def rebuild(what: Run, start: int, stop: int, tell: Callable[[Progress], None], say: Callable[[str], None]) -> None:
    """Rebuilds the hours from ``start`` to before ``stop`` (µs) from the archive, under a new generation."""
    rules = policy.given(what.policy)
    by = _engine(what, say)
    check(what.places)
    control = Control(what.places.endpoints, what.places.instance)
    with _said():
        last = control.generation(what.places.subscription)
        archive = _archive(control, what.places.subscription)
        if archive is None or last is None:
            raise CloudError(f"{what.places.subscription}: nothing to rebuild from: no {'job has run' if archive else 'archive'}")
        at = heard(last.state)
        if at is not None and time.time() - at < _SILENT_SECONDS:
            # What a running job publishes later would stand below the rebuilt rows and never be seen.
            raise CloudError(f"{what.places.subscription}: generation {last.number} is running; stop it, rebuild, and start it again")
        reach = generations.of_hours(archive, rules, start, stop)
        if reach.publish_from >= stop:
            raise CloudError(f"{archive.directory}: was begun too late to have any of these hours whole")
        new = _take(control, what.places.subscription, last)
        files = _listed(archive, new, reach)
    say(f"generation {new.number}: rebuilds from {archive.directory}")
    stored = Rebuilding(_stored(what.places, new), files.publish_from, stop, files.credit_from)
    _execute(what, by, control, new, rules, Reading(live=False), files, stored, tell)


def check(places: Places) -> float:
    """The subscription's ack deadline (s). CloudError, one line, of the first thing that is missing, before anything starts."""
    subscription = PubSubAdmin(places.endpoints).subscription(places.subscription)
    with _said():
        bigtable_admin.check(places.endpoints, places.instance)
        with Reader(places.endpoints, places.dataset) as reader:
            reader.check()
    return subscription.ack_deadline_seconds


def _stored(places: Places, new: Generation) -> StoredRows:
    return StoredRows(places.endpoints, places.dataset, places.instance, f"{places.subscription} {new.number}")


def _engine(what: Run, say) -> Engine:
    try:
        return engine(what.engine, what.flags, say)
    except PrismMissing as error:
        raise RunError(str(error)) from error


def _archive(control: Control, job: str) -> Archive | None:
    directory = control.setting(job, ARCHIVE)
    if directory is None:
        return None
    return Archive(directory, int(control.setting(job, ARCHIVE_SINCE)), int(control.setting(job, FIRST_BEGAN) or 1 << 62))


def _begin(control: Control, places: Places, last: Generation | None, archive: Archive | None, rules: policy.Policy,
           say) -> tuple[Generation, Rebuild | None]:
    """The new generation, and what it must rebuild if it is not the first."""
    if last is None:
        new = _take(control, places.subscription, None)
        control.configure(places.subscription, FIRST_BEGAN, str(new.began))
        return new, None
    if archive is None:
        raise CloudError(f"{places.subscription}: generation {last.number} has published here, and there is no archive to rebuild "
                         "its hours from; --resume if the engine has its state")
    new = _take(control, places.subscription, last)
    if heard(last.state) is not None:
        # A job that was running learns within a beat that it is over; until then it acknowledges what only it has counted.
        threading.Event().wait(BEAT + 1)
    say(f"generation {new.number}: first rebuilds from {archive.directory}")
    return new, _listed(archive, new, generations.before_streaming(archive, rules, new.began))


def _listed(archive: Archive, new: Generation, reach: Reach) -> Rebuild:
    place = archives.manifest(archive.directory, new.number, reach.read_from, reach.read_until)
    return Rebuild(place, reach.accept_from, reach.publish_from, reach.credit_from)


def _take(control: Control, job: str, last: Generation | None) -> Generation:
    now = time.time()
    new = Generation(1 if last is None else last.number + 1, round(now * 1_000_000), None, running(now))
    if not control.begin(job, None if last is None else last.number, new):
        raise CloudError(f"{job}: another launch has just begun generation {new.number}")
    return new


def _execute(what: Run, by: Engine, control: Control, new: Generation, rules: policy.Policy, reading: Reading,
             rebuild: Rebuild | None, rebuilding: Rebuilding | None, tell) -> None:
    places = what.places
    name = f"{new.number}-{uuid.uuid4().hex[:8]}"
    config = RunConfig(name, new.number, new.began, rules, rebuilding=rebuilding, publish_seconds=what.publish_seconds or _PUBLISH_SECONDS[what.profile])
    source = PubSubSource(name, new.number, places.subscription, places.instance, places.endpoints, rules, reading, rebuild,
                          _schemas(what.schemas), by.in_process, what.readers)
    p = beam.Pipeline(options=PipelineOptions(by.flags))
    stream(p, source, config, places.endpoints, places.dataset, places.instance, by.read_seconds)
    if by.in_process:
        settle()
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(name, tell, done), daemon=True)
    teller.start()
    state: str | None = FAILED
    try:
        result = p.run()
        if getattr(result, "has_job", True):
            result.wait_until_finish()
            state = ENDED
        else:  # only described, for a template: the service submits it, and its readers keep the state
            state = None
    except (RuntimeError, ValueError, OSError, DataflowRuntimeException) as error:
        raise RunError(f"the job failed: {cause(str(error))}") from error
    finally:
        done.set()
        teller.join()
        keepers.drain(name, _DRAIN_SECONDS)
        MACHINES.release(name)
        if state is not None:
            with contextlib.suppress(SinkError):  # it is over already where another has begun
                control.set_state(places.subscription, new.number, state)


def _schemas(directory: Path | None) -> tuple[str, ...]:
    if directory is None:
        return ()
    if not directory.is_dir():
        raise RunError(f"--schemas {directory}: not a directory")
    return tuple(path.read_text() for path in sorted(directory.glob("*.avsc")))


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except (SinkError, BigQueryError, OSError) as error:
        raise CloudError(" ".join(str(error).split())) from error


def _tell(run: str, tell: Callable[[Progress], None], done: threading.Event) -> None:
    began = time.monotonic()
    while not done.wait(_TELL_SECONDS):
        now = flow.PROGRESS.get(run, flow.Progress())
        watermark = now.watermark if now.watermark is not None and now.watermark > 0 else None
        tell(Progress(now.events, flow.taken(run), now.rejected, watermark, time.monotonic() - began))
