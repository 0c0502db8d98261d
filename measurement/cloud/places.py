"""Where a job on the cloud's services reads and writes, named as the command line names them."""

import re
from dataclasses import dataclass
from enum import StrEnum

from measurement.io.endpoints import Endpoints, emulators


class CloudError(Exception):
    """A command cannot go on; the message is one line that names the flag, resource or service."""


class Profile(StrEnum):
    emulators = "emulators"
    gcp = "gcp"

    @property
    def endpoints(self) -> Endpoints:
        return emulators() if self is Profile.emulators else Endpoints()


_FORMS = {
    "--subscription": (r"projects/[^/]+/subscriptions/[A-Za-z][\w.~+%-]{2,254}", "projects/P/subscriptions/S"),
    "--topic": (r"projects/[^/]+/topics/[A-Za-z][\w.~+%-]{2,254}", "projects/P/topics/T"),
    "--bigtable": (r"projects/[^/]+/instances/[a-z][a-z0-9-]{4,31}[a-z0-9]", "projects/P/instances/I"),
    "--bigquery": (r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*[a-z0-9]\.\w{1,1024}", "P.DATASET"),
}


def named(flag: str, value: str | None) -> str:
    """The value, CloudError if it is missing or not of the flag's form."""
    pattern, form = _FORMS[flag]
    if value is None:
        raise CloudError(f"{flag} is needed with this profile: {form}")
    if not re.fullmatch(pattern, value):
        raise CloudError(f"{flag} {value}: not of the form {form}")
    return value


def audits_of(name: str) -> str:
    """The topic on which a topic's publishers say what they have sent, and the subscription on which a subscription's monitor
    hears it."""
    return f"{name}-audits"


@dataclass(frozen=True)
class Places:
    """``subscription``: projects/P/subscriptions/S, also the job's name in the control table; ``instance``:
    projects/P/instances/I; ``dataset``: P.DATASET."""

    endpoints: Endpoints
    subscription: str
    instance: str
    dataset: str

    @classmethod
    def of(cls, profile: Profile, subscription: str | None, bigtable: str | None, bigquery: str | None) -> "Places":
        return cls(profile.endpoints, named("--subscription", subscription), named("--bigtable", bigtable),
                   named("--bigquery", bigquery))
