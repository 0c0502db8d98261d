"""Alerts told to others: PagerDuty, a plain webhook, and a dead-man's signal to whoever sounds the alarm when it stops.

Whatever a receiver does, a look goes on: what could not be sent is kept and tried again at the next. Keys and addresses, whose
paths are often keys, are named in no log and no error: of an address the host alone.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

import requests

from measurement.failure import Failure
from measurement.monitors.alerts import Action, Alert, Notice
from measurement.monitors.slo import Severity
from measurement.monitors.times import instant

log = logging.getLogger("measurement.notify")
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)  # below that it logs whole paths

REQUEST_SECONDS = 2.0  # until a connection, and again until an answer
RECEIVER_SECONDS = 3.0  # after that, what is left for a receiver waits for the next look
SUMMARY_MOST = 1024  # characters, by PagerDuty's Events API v2


def address(flag: str, url: str) -> str:
    """The address that a flag gives. Failure where it is none, without showing it."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Failure(f"{flag}: must be an address that begins with http:// or https://")
    return url


class Receiver(Protocol):
    """Where notices go: each by one POST of its ``body`` as JSON to ``url``."""

    url: str

    def body(self, notice: Notice) -> dict: ...


@dataclass(frozen=True)
class PagerDuty:
    """Events API v2 (developer.pagerduty.com, "Send an event"). ``runbooks``: the web address under which this repository's files
    can be read; without one the runbook is named by its path alone, since a link must be an address."""

    routing_key: str = field(repr=False)
    url: str = field(default="https://events.pagerduty.com/v2/enqueue", repr=False)
    runbooks: str = ""

    def body(self, notice: Notice) -> dict:
        alert = notice.alert
        event = {"routing_key": self.routing_key, "event_action": str(notice.action), "dedup_key": alert.key}
        if notice.action is Action.resolve:  # all that PagerDuty takes of it
            return event
        event["payload"] = {
            "summary": alert.summary if len(alert.summary) <= SUMMARY_MOST else alert.summary[:SUMMARY_MOST - 1] + "…",
            "source": alert.job, "severity": "critical" if alert.severity is Severity.page else "warning",
            "timestamp": _rfc3339(alert.since), "component": alert.level, "group": "measurement",
            "class": f"burn rate over {alert.window}", "custom_details": _plain(alert),
        }
        if self.runbooks:
            event["links"] = [{"href": f"{self.runbooks.rstrip('/')}/{alert.runbook}", "text": "Runbook"}]
        return event


@dataclass(frozen=True)
class Webhook:
    """A JSON object of every field of the alert, its ``key`` and the ``action``, trigger or resolve."""

    url: str = field(repr=False)

    def body(self, notice: Notice) -> dict:
        return {"action": str(notice.action), "key": notice.alert.key, **_plain(notice.alert)}


class Outbox:
    """What is to be told, kept until each receiver has taken it or refused it for good.

    Of one alert a receiver gets the notices in order, and of those that wait at most the last two: one that opened and ended while
    nobody could be reached is told as that, and of one that did so many times the last. So what waits is bounded by the alerts
    that there can be. A receiver that does not answer is left alone until the next look.
    """

    def __init__(self, receivers: Iterable[Receiver], clock: Callable[[], float] = time.monotonic):
        self._waiting: list[tuple[Receiver, dict[str, list[Notice]]]] = [(receiver, {}) for receiver in receivers]
        self._clock = clock

    def __len__(self) -> int:
        return sum(len(notices) for _, waiting in self._waiting for notices in waiting.values())

    def send(self, notices: Iterable[Notice]) -> None:
        """Takes the notices of a look and sends what it can, theirs and older ones; within some seconds, and without raising."""
        for notice in notices:
            for _, waiting in self._waiting:
                before = waiting.get(notice.alert.key, [])
                waiting[notice.alert.key] = [*before, notice] if len(before) < 2 else [notice]
        for receiver, waiting in self._waiting:
            end = self._clock() + RECEIVER_SECONDS
            taken = True
            while waiting and taken and self._clock() < end:
                key = next(iter(waiting))
                notices = waiting.pop(key)
                taken = _taken(receiver, notices[0])
                if left := notices[taken:]:
                    waiting[key] = left  # behind the others, so that one that is never taken stops none


@dataclass(frozen=True)
class Deadman:
    """A sign of life after each completed look, to a receiver such as healthchecks.io that sounds the alarm when it stops."""

    url: str = field(repr=False)

    def signal(self, at: datetime) -> bool:
        """Whether it was taken. One that was not is not repeated: the next look has its own."""
        try:
            answer = _post(self.url, {"at": at.astimezone(UTC).isoformat()})
        except requests.RequestException as error:
            log.warning("dead-man's signal to %s: %s", _host(self.url), type(error).__name__)
            return False
        if answer >= 300:
            log.warning("dead-man's signal to %s: answered %d", _host(self.url), answer)
        return answer < 300


def _taken(receiver: Receiver, notice: Notice) -> bool:
    """Whether the notice is done with: taken, or refused in a way that no repetition mends."""
    host = _host(receiver.url)
    try:
        answer = _post(receiver.url, receiver.body(notice))
    except requests.RequestException as error:
        log.warning("%s of %s to %s: %s; tried again at the next look", notice.action, notice.alert.key, host, type(error).__name__)
        return False
    if answer < 300:
        return True
    if answer == 429 or answer >= 500:
        log.warning("%s of %s to %s: answered %d; tried again at the next look", notice.action, notice.alert.key, host, answer)
        return False
    log.error("%s of %s is lost: %s refused it with %d", notice.action, notice.alert.key, host, answer)
    return True


def _post(url: str, body: dict) -> int:
    """The answer's status. What is in it is not read, since that could take any time."""
    with requests.post(url, json=body, timeout=REQUEST_SECONDS, allow_redirects=False, stream=True) as answer:
        return answer.status_code


def _host(url: str) -> str:
    return urlsplit(url).hostname or "an address without a host"


def _plain(alert: Alert) -> dict:
    """The alert's fields as JSON has them."""
    return asdict(alert) | {
        "severity": str(alert.severity), "since": _rfc3339(alert.since), "rates": dict(alert.rates),
        "hours": [hour.astimezone(UTC).isoformat() for hour in alert.hours],
    }


def _rfc3339(at: int) -> str:
    return instant(at).isoformat(timespec="milliseconds")
