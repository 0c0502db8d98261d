"""`measurement provision`: topic, subscription, archive, Bigtable tables, BigQuery dataset, tables and views."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measurement.cloud.places import CloudError, Places, Profile, audits_of, named
from measurement.cloud.pubsub_admin import PubSubAdmin
from measurement.io import bigquery_admin, bigtable_admin
from measurement.io.bigquery_admin import BigQueryError
from measurement.io.control import Control
from measurement.io.retry import SinkError
from measurement.model.tables import REJECTS

# Settings of a job in the control table.
ARCHIVE, ARCHIVE_SINCE, FIRST_BEGAN, RULES = "archive", "archive_since", "first_began", "rules"
_AUDIT_SECONDS = 60  # after so long an audit that a monitor took and did not store comes back


@dataclass(frozen=True)
class Wanted:
    """What is to be there. ``archive``: a gs:// directory, or with emulators any that Beam's filesystems write."""

    profile: Profile
    project: str
    topic: str
    subscription: str
    instance: str
    dataset: str
    archive: str | None
    location: str
    ack_seconds: int
    reject_days: int | None = None  # None: as they are; of a new table the default

    def places(self) -> Places:
        return Places.of(self.profile, f"projects/{self.project}/subscriptions/{self.subscription}",
                         f"projects/{self.project}/instances/{self.instance}", f"{self.project}.{self.dataset}")


def provision(wanted: Wanted, say: Callable[[str], None]) -> Places:
    """Makes what is not there; safe to run again. CloudError, one line, where something cannot be."""
    places = wanted.places()
    topic = named("--topic", f"projects/{wanted.project}/topics/{wanted.topic}")
    on_gcp = wanted.profile is Profile.gcp
    archive = wanted.archive
    if on_gcp and archive is not None and not archive.startswith("gs://"):
        raise CloudError(f"--archive {archive}: a Cloud Storage subscription writes it, to gs://BUCKET/DIRECTORY")
    if archive is None and not on_gcp:
        archive = str(Path("data", "archive", wanted.subscription).resolve())
    try:
        pubsub = PubSubAdmin(places.endpoints)
        say(f"topic {topic}: {_made(pubsub.make_topic(topic))}")
        if on_gcp and archive is not None:
            # Before the job's own subscription: what that one receives, the archive has.
            made = pubsub.make_archive(f"{places.subscription}-archive", topic, archive)
            say(f"archive subscription {places.subscription}-archive: {_made(made)}")
        say(f"subscription {places.subscription}: {_made(pubsub.make_subscription(places.subscription, topic, wanted.ack_seconds))}")
        pubsub.make_topic(audits_of(topic))
        heard = pubsub.make_subscription(audits_of(places.subscription), audits_of(topic), _AUDIT_SECONDS)
        say(f"audits {audits_of(topic)} and its subscription: {_made(heard)}")
        bigtable_admin.provision(places.endpoints, places.instance)
        say(f"Bigtable tables in {places.instance}: there")
        bigquery_admin.provision(places.endpoints, wanted.project, wanted.dataset, location=wanted.location,
                                 reject_days=wanted.reject_days)
        with bigquery_admin.Reader(places.endpoints, places.dataset) as reader:
            days = reader.kept_days(REJECTS)
        say(f"BigQuery tables and views in {places.dataset}: there, "
            f"rejects for {f'{days} days' if days else 'ever; --reject-days N ends that'}")
        say(f"archive: {_settle_archive(places, archive) or 'none; without one, lost state cannot be rebuilt'}")
    except (SinkError, BigQueryError) as error:
        raise CloudError(str(error)) from error
    return places


def _settle_archive(places: Places, archive: str | None) -> str | None:
    """Notes where the archive is and since when; CloudError if it is somewhere else already."""
    control = Control(places.endpoints, places.instance)
    there = control.setting(places.subscription, ARCHIVE)
    if archive is None or there == archive:
        return there
    if there is not None:
        raise CloudError(f"--archive {archive}: this subscription's is {there}, and all that it has received must be in one")
    control.configure(places.subscription, ARCHIVE_SINCE, str(time.time_ns() // 1_000))
    control.configure(places.subscription, ARCHIVE, archive)
    return archive


def _made(made: bool) -> str:
    return "made" if made else "there"
