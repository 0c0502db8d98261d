"""`measurement monitor`: what its flags make, and its end."""

import logging
import signal
import threading
import time
from pathlib import Path

from measurement.failure import Failure
from measurement.model.policy_file import PolicyError
from measurement.monitors import slo as targets
from measurement.monitors.exporter import Exporter
from measurement.monitors.monitor import Monitor
from measurement.monitors.notify import Deadman, Outbox, PagerDuty, Receiver, Webhook, address
from measurement.monitors.place import Place, Unread
from measurement.monitors.service import Service
from measurement.monitors.slo import Slo


def slo(path: Path | None) -> Slo:
    try:
        return targets.given(path)
    except PolicyError as error:
        raise Failure(str(error)) from error


def receivers(webhooks: list[str], pagerduty_key: Path | None, runbooks: str) -> list[Receiver]:
    found: list[Receiver] = [Webhook(address("--webhook", url)) for url in webhooks]
    if pagerduty_key is not None:
        try:
            key = pagerduty_key.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"--pagerduty-key-file {pagerduty_key}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
        if not key or len(key.split()) != 1:
            raise Failure(f"--pagerduty-key-file {pagerduty_key}: must hold one routing key and nothing else")
        found.append(PagerDuty(key, runbooks=runbooks))
    return found


def listening(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise Failure(f"--listen {listen}: must be HOST:PORT")
    return host.strip("[]"), int(port)


def serve(place: Place, levels: Slo, told: list[Receiver], deadman: str | None, listen: tuple[str, int], every: float, looks: int | None,
          probing: bool) -> int:
    """Looks until it is interrupted, or so many times; 1 if the last look saw a broken level."""
    monitor, exporter = Monitor(place, levels, probing), Exporter()
    service = Service(monitor, Outbox(told), exporter, deadman and Deadman(address("--deadman", deadman)), every)
    try:
        monitor.restore(time.time_ns() // 1_000)
    except Unread as error:
        raise Failure(str(error)) from error
    try:
        served = exporter.serve(*listen)
    except OSError as error:
        raise Failure(f"--listen {listen[0]}:{listen[1]}: {error.strerror}") from error
    logging.getLogger("measurement.monitor").info("looks every %g s; metrics at http://%s:%d/metrics", every, listen[0], served.port)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        last = service.run(stop, looks)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        served.close()
    return 1 if last is not None and any(of.sample.holds is False for of in last.judged) else 0
