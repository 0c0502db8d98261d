"""How long from an event's publication until its count can be read in Bigtable, and what elements the source makes meanwhile.

The job is the command as a user starts it, on the emulators with Prism; it runs once for all that follows.

*Latency* is open-loop: every event has its intended time of publication before the first is sent, at an even rate, and its
latency counts from that time, whether the publisher was punctual or not; nothing waits for an answer. Rates are shares of the
measured maximum: what becomes readable a second while the publisher keeps so many events ahead of what can be read that the
job never waits for it, publisher and emulators at work on the same cores.

*Readable*: events are numbered and fall on rows in turn. All rows are read again and again; the n-th event of a row is
readable at the end of the first look that shows n impressions or more. A look counts events and cannot name them: were two
events of a row to overtake each other, each would get the other's time, which leaves the mean as it is and can make the
largest smaller. A latency is too long by up to a look and the pause before it, which are shown.

*Elements* are what the source emits at once: the archive, which it writes on the emulators, has a file for each.

    python -m benchmarks.latency --seconds 20
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fastavro
import numpy as np
import psutil
from google.pubsub_v1.types import pubsub as types

from benchmarks.report import Figures, machine, positive, publish
from measurement.io import archive
from measurement.io.bigtable_read import BigtableReader
from measurement.io.endpoints import Endpoints
from measurement.io.pubsub.api import channel
from measurement.local import emulators

TOPIC, SUBSCRIPTION = "projects/demo/topics/ad-events", "projects/demo/subscriptions/ad-events-measurement"
INSTANCE = "projects/demo/instances/measurement"
COMMAND = [sys.executable, "-m", "measurement.cli"]
ADVERTISER, ROWS = "adv-latency", 16
ALL_HOURS = 0, 4_102_444_800_000_000  # µs: 1970 to 2100
SHARES = 0.5, 0.7, 0.9
AHEAD = 20_000  # events, where the maximum is measured: two full elements
_PAUSE = 0.02  # s between looks
_REQUEST = 1_000  # messages, the service's most
_SCHEMA = fastavro.parse_schema(fastavro.schema.load_schema(Path(__file__).parents[1] / "schemas" / "ad_event.avsc"))
_DRAIN_SECONDS = 120.0


class Publisher:
    """Sends numbered impressions and keeps the time (s, monotonic) at which each was to be sent."""

    def __init__(self, host: str):
        self._channel = channel(Endpoints(pubsub=host))
        self._call = self._channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish", request_serializer=types.PublishRequest.pb().SerializeToString)
        self._unanswered: deque[Future] = deque()
        self.intended: list[np.ndarray] = []
        self.sent, self.late = 0, 0.0  # s, the latest of a schedule's events
        self._wait = threading.Event().wait

    def follow(self, schedule: np.ndarray) -> None:
        """Sends each event when its time has come, and waits for nothing else."""
        messages, at, self.late = self._made(schedule), 0, 0.0
        while at < len(schedule):
            now = time.monotonic()
            due = int(np.searchsorted(schedule, now, "right"))
            for first in range(at, due, _REQUEST):
                self.late = max(self.late, time.monotonic() - schedule[first])
                self._send(messages[first : min(first + _REQUEST, due)])
            at = due
            if at < len(schedule):
                self._wait(max(0.002, schedule[at] - time.monotonic()))

    def keep_ahead(self, looker: "Looker", seconds: float) -> None:
        """Sends so many that ``AHEAD`` of them cannot be read yet, all the time."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if self.sent - looker.readable < AHEAD:
                self._send(self._made(np.full(_REQUEST, now)))
            else:
                self._wait(0.005)

    def _made(self, intended: np.ndarray) -> list[bytes]:
        first, to_wall = sum(map(len, self.intended)), time.time() - time.monotonic()
        self.intended.append(intended)
        return [_impression(first + i, int((at + to_wall) * 1e6)) for i, at in enumerate(intended.tolist())]

    def _send(self, messages: list[bytes]) -> None:
        request = types.PublishRequest.pb()(topic=TOPIC)
        for data in messages:
            request.messages.add().data = data
        self._unanswered.append(self._call.future(request, timeout=60))
        self.sent += len(messages)
        while self._unanswered and self._unanswered[0].done():
            self._unanswered.popleft().result()

    def close(self) -> None:
        self._channel.close()


def _impression(number: int, micros: int) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, _SCHEMA, {
        "event_id": f"e{number:012d}", "event_type": "impression", "event_time": micros, "advertiser_id": ADVERTISER,
        "campaign_id": f"c{number % ROWS:02d}", "line_item_id": "l1", "creative_id": "cr1", "placement_id": "p1",
        "user_id": f"u{number % 9973}", "format": "display", "country": "SE", "device_type": "phone", "price_micros": 1_000,
        "currency": "EUR", "source_id": "latency"})
    return stream.getvalue()


class Looker:
    """Reads the rows again and again in a thread of its own."""

    def __init__(self, bigtable: str):
        self._reader = BigtableReader(Endpoints(bigtable=bigtable), INSTANCE)
        self.at, self.counts, self.took = [], [], []  # looks: end (s, monotonic), impressions by row, how long (s)
        self.readable = 0  # events
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(_PAUSE):
            began, counts = time.monotonic(), np.zeros(ROWS, np.int64)
            rows = self._reader.read("delivery", ADVERTISER, *ALL_HOURS)
            for campaign, impressions in zip(rows["campaign_id"].to_pylist(), rows["impressions"].to_pylist()):
                counts[int(campaign[1:])] += impressions
            self.at.append(time.monotonic())
            self.counts.append(counts)
            self.took.append(self.at[-1] - began)
            self.readable = int(counts.sum())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def latencies(self, intended: np.ndarray) -> np.ndarray:
        """Of all events by number (s)."""
        at, counts, out = np.array(self.at), np.maximum.accumulate(np.array(self.counts)), np.empty(len(intended))
        for row in range(ROWS):
            numbers = np.arange(row, len(intended), ROWS)
            first = np.searchsorted(counts[:, row], np.arange(1, len(numbers) + 1))
            out[numbers] = at[first] - intended[numbers]
        return out


class Part:
    """What happens from entering to leaving it: events, wall time, processor time of the job and its engine."""

    def __init__(self, name: str, publisher: Publisher, job: psutil.Process):
        self.name, self._publisher, self._job = name, publisher, job

    def __enter__(self) -> "Part":
        self.first, self.began, self._cpu, self._at = self._publisher.sent, time.time(), _cpu(self._job), time.monotonic()
        return self

    def __exit__(self, *_) -> None:
        self.ended, self.seconds = time.time(), time.monotonic() - self._at
        self.cpu = {role: n - self._cpu.get(role, 0.0) for role, n in _cpu(self._job).items()}
        self.events, self.late = self._publisher.sent - self.first, self._publisher.late


def _cpu(job: psutil.Process) -> dict[str, float]:
    spent = {"job": 0.0, "Prism": 0.0}
    for process in (job, *job.children(recursive=True)):
        times = process.cpu_times()
        spent["Prism" if process.name().startswith("prism") else "job"] += times.user + times.system
    return spent


def even(rate: float, seconds: float, begin: float) -> np.ndarray:
    """Times (s, monotonic) of events at an even rate."""
    return begin + np.arange(max(1, round(rate * seconds))) / rate


def drained(publisher: Publisher, looker: Looker) -> None:
    """Returns when all that was sent can be read."""
    pause, end = threading.Event(), time.monotonic() + _DRAIN_SECONDS
    while looker.readable < publisher.sent:
        if time.monotonic() > end:
            sys.exit(f"{publisher.sent - looker.readable:,} of {publisher.sent:,} events cannot be read")
        pause.wait(0.05)


@contextmanager
def running(environment: dict[str, str], log: Path):
    """The job's process, from its start to its end."""
    with log.open("w") as said:
        job = psutil.Popen([*COMMAND, "run", "--profile", "emulators", "--subscription", SUBSCRIPTION, "--bigtable", INSTANCE,
                            "--bigquery", "demo.ads"], env=environment, stdout=said, stderr=said)
        try:
            yield job
        finally:
            for process in (*job.children(recursive=True), job):
                process.terminate()
            job.wait(30)


def measured(seconds: float, quiet: float) -> list[Figures]:
    with ExitStack() as stack:
        pubsub, bigtable = stack.enter_context(emulators.pubsub()), stack.enter_context(emulators.bigtable())
        rest, grpc = stack.enter_context(emulators.bigquery())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**os.environ, **Endpoints(pubsub, bigtable, rest, grpc).environment}
        subprocess.run([*COMMAND, "provision", "--profile", "emulators", "--project", "demo", "--archive", f"{scratch}/archive"],
                       env=environment, check=True, capture_output=True)
        job = stack.enter_context(running(environment, scratch / "job.log"))
        publisher, looker = Publisher(pubsub), Looker(bigtable)
        stack.callback(publisher.close)
        stack.callback(looker.close)
        parts: dict[str, Part] = {}

        def part(name: str) -> Part:
            parts[name] = Part(name, publisher, job)
            return parts[name]

        soon = lambda events=1: time.monotonic() + 1.0 + 3e-5 * events  # noqa: E731 (until those of a schedule are made)
        publisher.follow(even(1, 1, soon()))
        drained(publisher, looker)
        publisher.keep_ahead(looker, seconds)  # what is compiled at its first call is
        with part("backlog"):
            before = looker.readable
            publisher.keep_ahead(looker, seconds)
            most = (looker.readable - before) / seconds
        drained(publisher, looker)
        for share in SHARES:
            with part(f"{share:.0%}"):
                publisher.follow(even(share * most, seconds, soon(share * most * seconds)))
                drained(publisher, looker)
        for name, rate, long in (("quiet", 1.0, quiet), ("then busy", 0.7 * most, seconds), ("then quiet", 1.0, quiet)):
            with part(name):  # each follows at once: what the one before has left is taken along
                publisher.follow(even(rate, long, soon(rate * long)))
        drained(publisher, looker)
        looker.close()
        latencies, elements = looker.latencies(np.concatenate(publisher.intended)), _elements(scratch / "archive")
        looks = np.array(looker.took)
    return [table(parts, most, latencies, looks), batches(parts, latencies, elements)]


def table(parts: dict[str, Part], most: float, latencies: np.ndarray, looks: np.ndarray) -> Figures:
    figures = Figures(f"from intended publication to readable in Bigtable, at shares of {most:,.0f} events/s",
                      ("share", "events/s", "events", "p50 s", "p99 s", "p99.9 s", "max s", "job CPU µs/event", "Prism CPU µs/event"))
    for share in SHARES:
        it = parts[f"{share:.0%}"]
        shown = np.percentile(latencies[it.first : it.first + it.events], [50, 99, 99.9, 100]).tolist()
        figures.add(it.name, share * most, it.events, *shown, *(1e6 * n / it.events for n in it.cpu.values()))
        figures.notes.append(f"{it.name}: the publisher was {it.late:.3f} s behind its schedule at most")
    figures.notes.append(f"a look took {np.median(looks):.3f} s (median; p99 {np.percentile(looks, 99):.3f}), {_PAUSE} s between looks")
    return figures


def batches(parts: dict[str, Part], latencies: np.ndarray, elements: list[tuple[float, int]]) -> Figures:
    figures = Figures("elements that the source emitted", ("part", "events", "s", "elements", "events an element", "largest", "p50 s", "max s"))
    for name in ("quiet", "then busy", "then quiet", "backlog"):
        it = parts[name]
        sizes = [n for at, n in elements if it.began <= at < it.ended] or [0]
        mine = latencies[it.first : it.first + it.events]
        figures.add(name, it.events, it.seconds, len(sizes), float(np.mean(sizes)), max(sizes), *np.percentile(mine, [50, 100]).tolist())
    figures.notes.append("quiet: 1 event/s; busy: 70 % of the maximum; backlog: as the maximum was measured, "
                         f"{AHEAD:,} events ahead of what could be read, which is its latency")
    return figures


def _elements(directory: Path) -> list[tuple[float, int]]:
    """When each element was archived (s since 1970), and its messages."""
    return sorted((path.stat().st_mtime, sum(1 for _ in archive.read(str(path)))) for path in directory.rglob("*.avro"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=positive, default=20, help="of each rate (default 20)")
    parser.add_argument("--quiet", type=positive, default=15, help="seconds of each quiet part (default 15)")
    given = parser.parse_args()
    before = machine()
    publish("latency", before, measured(given.seconds, given.quiet))


if __name__ == "__main__":
    main()
