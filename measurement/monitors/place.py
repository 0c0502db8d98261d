"""Where a monitor looks: the pipeline's tables, its job, and the topics beside it, on one machine or in the cloud."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from measurement.monitors.audits import Audit
from measurement.monitors.heartbeat import Job
from measurement.monitors.ledger import Result
from measurement.monitors.probe import Found


class Unread(Exception):
    """Something could not be read or written now; the message is one line."""


class Place(Protocol):
    """Unread from any call where what it asks is away.

    ``job`` names the job to those who are told, ``where`` are the flags by which commands find it; ``unnamed`` is the source of the
    events that name none; ``ends`` are the far ends where probes are looked for.
    """

    job: str
    where: str
    dataset: str
    unnamed: str
    ends: tuple[str, ...]

    def query(self, sql: str) -> list[tuple]: ...

    def clock(self, now: int) -> int:
        """The time (µs) that the data are to be up to at ``now``: of a stream the clock's, of files their end."""

    def recent(self, now: int) -> int:
        """Since when (µs) what was published is news to a first look at ``now``."""

    def state(self) -> Job | None:
        """The last generation; None where no job has run."""

    def balance(self) -> Result:
        """The whole ledger, balanced."""

    def probed(self, end: str, since: int) -> Found:
        """What a far end has of the probes of hours from ``since`` (µs) on."""

    def send(self, messages: list[bytes]) -> None:
        """Sends a probe's events on their way."""

    @contextmanager
    def heard(self) -> Iterator[list[Audit]]:
        """Publishers' audits that have come; they come again unless the context ends well."""

    def store(self, table: str, rows: list[dict]) -> None:
        """Appends rows to a table."""
