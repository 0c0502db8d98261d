"""The console commands on the cloud's services or their emulators: flags in, one line out for what goes wrong."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from measurement import logs
from measurement.cloud.places import CloudError, Places, Profile, audits_of, named
from measurement.failure import Failure
from measurement.io.framing import UnreadableInput
from measurement.local import summary
from measurement.local.inputs import BadInputs, find
from measurement.local.run import RunError
from measurement.model.policy import PolicyError


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except (CloudError, RunError, PolicyError, BadInputs, UnreadableInput) as error:
        raise Failure(str(error)) from error


def run(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None, log_format: str, **how) -> None:
    from measurement.cloud.run import Run
    from measurement.cloud.run import run as execute

    logs.configure(log_format)
    with _plainly(), _ending_on_signals(), summary.display() as show:
        profile = Profile(profile)
        execute(Run(profile, Places.of(profile, subscription, bigtable, bigquery), **how), show.progress, show.say)


def rebuild(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None, start: int, stop: int, **how) -> None:
    from measurement.cloud.run import Run
    from measurement.cloud.run import rebuild as execute

    with _plainly(), _ending_on_signals(), summary.display() as show:
        profile = Profile(profile)
        places = Places.of(profile, subscription, bigtable, bigquery)
        execute(Run(profile, places, **how), start, stop, show.progress, show.say)


def provision(profile: str, project: str, topic: str, subscription: str, instance: str, dataset: str, archive: str | None,
              location: str, ack_seconds: int, reject_days: int | None) -> None:
    from measurement.cloud.provision import Wanted
    from measurement.cloud.provision import provision as make

    with _plainly():
        places = make(Wanted(Profile(profile), project, topic, subscription, instance, dataset, archive, location, ack_seconds,
                             reject_days), print)
    print(f"measurement run --profile {profile} --subscription {places.subscription} --bigtable {places.instance} "
          f"--bigquery {places.dataset}")


def publish(profile: str, patterns: list[str], topic: str, batch: int, audits: bool) -> None:
    from measurement.cloud.publish import publish as send

    with _plainly():
        heard = audits_of(named("--topic", topic)) if audits else None
        done = send(find(patterns), topic, heard, Profile(profile).endpoints, batch, lambda _: None)
    print(f"{done.events:,} events in {done.messages:,} messages ({done.bytes / 1e6:,.1f} MB) to {topic}")


def replay(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None, reasons: list[str]) -> None:
    from measurement.cloud.replay import replay as send

    with _plainly():
        places = Places.of(Profile(profile), subscription, bigtable, bigquery)
        done = send(places, reasons)
    print(f"{done.events:,} rejects sent back to the topic of {places.subscription}" if done.events else "no rejects to replay")


def reconcile(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None):
    from measurement.cloud.reconcile import reconcile as compare

    with _plainly():
        return compare(Places.of(Profile(profile), subscription, bigtable, bigquery))


def status(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None, slo, now: int):
    from measurement.cloud.status import status as look

    with _plainly():
        return look(Places.of(Profile(profile), subscription, bigtable, bigquery), profile, slo, now)


def place(profile: str, subscription: str | None, bigtable: str | None, bigquery: str | None):
    """Where a monitor looks (measurement/monitors/place.py)."""
    from measurement.cloud.monitor import CloudPlace

    with _plainly():
        return CloudPlace(Places.of(Profile(profile), subscription, bigtable, bigquery), profile)


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM ends a job as an interrupt from the keyboard does; the engine ends with this process."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
