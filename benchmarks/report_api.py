"""The report API over the official Bigtable emulator, under an open load: requests go out when they are due, whether or not the
answers before them have come, and a latency counts from the moment that its request was due.

Server, emulator and load are processes of their own on one machine; the server is `measurement serve` as anybody starts it. Each
request asks for another campaign's week, on a connection that is kept; nothing is answered from a cache.

    python -m benchmarks.report_api --rate 200 --seconds 30
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.report import Figures, machine, positive, publish
from measurement.io import bigtable_admin
from measurement.io.bigtable import BigtableWriter
from measurement.io.endpoints import Endpoints
from measurement.io.publication import schema
from measurement.local import emulators
from measurement.model.events import COUNTS, MICROS_PER_HOUR
from measurement.model.revisions import revision
from measurement.model.tables import DELIVERY
from measurement.serving.keys import KeyFile

INSTANCE = "projects/demo/instances/benchmark"
HOURS = 168
FIRST = 490_896 * MICROS_PER_HOUR  # 2026-01-01T00:00:00Z
WEEK = "from=2026-01-01T00:00:00Z&to=2026-01-08T00:00:00Z"
ADVERTISERS, CAMPAIGNS = 10, 5  # each advertiser's
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_WARM_SECONDS = 5
_CONNECTIONS = 16  # at first; more where all have a request under way


def week(advertiser: int, campaign: int, an_hour: int) -> pa.Table:
    """A campaign's 168 hours, ``an_hour`` rows each: line items, creatives and placements as dimensions, five-digit counts."""
    n = HOURS * an_hour
    rng, kind = np.random.default_rng(1000 * advertiser + campaign), np.arange(n) % an_hour
    columns = {
        "window_start": FIRST + np.arange(n) // an_hour * MICROS_PER_HOUR, "advertiser_id": [f"adv-{advertiser}"] * n,
        "campaign_id": [f"cmp-{advertiser}-{campaign}"] * n, "line_item_id": [f"line-{k // 2}" for k in kind],
        "creative_id": [f"creative-{k}" for k in kind], "placement_id": [f"placement-{k % 3}" for k in kind], "format": ["video"] * n,
        "country": ["DE"] * n, "device_type": ["mobile"] * n, "currency": ["EUR"] * n, **{c: rng.integers(0, 100_000, n) for c in COUNTS},
        "status": ["final"] * n, "restated_because": pa.nulls(n, pa.string()), "rule_version": ["counting-2 policy:7f5a36a5 robot:list@1.67.0"] * n,
        "revision": [revision(1, 1)] * n, "published_at": [FIRST + 200 * MICROS_PER_HOUR] * n}
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema(DELIVERY)}, schema=schema(DELIVERY))


class Client(asyncio.Protocol):
    """One kept connection with one request at a time under way."""

    open = True

    def __init__(self):
        self._head, self._left, self._done = bytearray(), None, None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future:
        """The status, and the bytes of the body, when all of it is there."""
        self._head, self._left = bytearray(), None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            if (end := self._head.find(b"\r\n\r\n")) < 0:
                return
            self._length = int(_LENGTH.search(self._head, 0, end)[1])
            self._left = end + 4 + self._length - len(self._head)
        else:
            self._left -= len(data)  # what is in them costs the load's own core
        if self._left == 0:
            self._done.set_result((int(self._head[9:12]), self._length))

    def connection_lost(self, exc) -> None:
        self.open = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("closed"))


async def _load(port: int, requests: list[bytes], rate: float, seconds: float) -> tuple[list[float], int, int]:
    loop = asyncio.get_running_loop()
    # Connections take turns, as those of many clients do: one that is used again and again keeps a single worker busy.
    idle = deque([(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(_CONNECTIONS)])
    took: list[float] = []
    errors, size = 0, 0

    async def one(due: float, request: bytes) -> None:
        nonlocal errors, size
        try:
            while idle and not idle[0].open:
                idle.popleft()
            client = idle.popleft() if idle else (await loop.create_connection(Client, "127.0.0.1", port))[1]
            status, length = await client.ask(request)
        except OSError:
            errors += 1
            return
        idle.append(client)
        took.append(time.perf_counter() - due)
        size += length
        errors += status != 200

    began, tasks = time.perf_counter() + 0.1, set()  # uvloop's own clock is of its turn's beginning, in whole ms
    for i in range(int(rate * seconds)):
        due = began + i / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = loop.create_task(one(due, requests[i % len(requests)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return took, errors, size


def load(port: int, requests: list[bytes], rate: float, seconds: float, tell) -> None:
    """In a process of its own: a round that does not count, then the one that does."""
    import uvloop

    uvloop.run(_load(port, requests, rate, _WARM_SECONDS))
    tell.send(uvloop.run(_load(port, requests, rate, seconds)))


def measured(port: int, requests: list[bytes], rate: float, seconds: float) -> tuple[list[float], int, int]:
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=load, args=(port, requests, rate, seconds, tell))
    process.start()
    tell.close()
    try:
        return told.recv()
    finally:
        process.join()


class Serving:
    """`measurement serve` in a process of its own."""

    def __init__(self, host: str, scratch: Path, workers: int):
        keys = scratch / "keys.json"
        self.keys = {a: KeyFile(keys).make(f"adv-{a}")[1] for a in range(ADVERTISERS)}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._log = (scratch / "serve.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "measurement.cli", "serve", "--profile", "emulators", "--bigtable", INSTANCE, "--keys", str(keys), "--port",
             str(self.port), "--rate", "100000", "--burst", "100000", "--workers", str(workers)], env={**os.environ, "BIGTABLE_EMULATOR_HOST": host}, stderr=self._log)

    def __enter__(self) -> "Serving":
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the server does not start: {Path(self._log.name).read_text()}")
                time.sleep(0.1)

    def cpu(self) -> float:
        root = psutil.Process(self._process.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (root, *root.children(recursive=True)))

    def requests(self, gzip: bool) -> list[bytes]:
        accepts = "Accept-Encoding: gzip\r\n" if gzip else ""
        return [f"GET /v1/advertisers/adv-{a}/delivery?campaign_id=cmp-{a}-{c}&{WEEK} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.keys[a]}\r\n"
                f"{accepts}\r\n".encode() for c in range(CAMPAIGNS) for a in range(ADVERTISERS)]

    def rows(self) -> int:
        """Of the first answer."""
        url = f"http://127.0.0.1:{self.port}/v1/advertisers/adv-0/delivery?campaign_id=cmp-0-0&{WEEK}"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {self.keys[0]}"})) as got:
            return len(json.load(got)["rows"])

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=positive, default=200, help="requests a second (200)")
    parser.add_argument("--seconds", type=positive, default=30, help="of each form (30)")
    parser.add_argument("--rows", type=positive, nargs="+", default=[1, 2], help="rows an hour of a campaign (1 2)")
    parser.add_argument("--workers", type=positive, default=2, help="processes of the server (2)")
    args = parser.parse_args()
    before = machine()
    figures = Figures(f"a campaign-week at {args.rate} requests/s, ms from when a request was due",
                      ("answer", "rows", "kB", "requests", "errors", "p50", "p99", "p99.9", "max", "server CPU ms"))
    for an_hour in args.rows:
        with emulators.bigtable() as host, tempfile.TemporaryDirectory() as scratch:
            at = Endpoints(bigtable=host)
            bigtable_admin.provision(at, INSTANCE)
            writer = BigtableWriter(at, INSTANCE)
            for advertiser in range(ADVERTISERS):
                writer.write(DELIVERY.name, pa.concat_tables([week(advertiser, c, an_hour) for c in range(CAMPAIGNS)]))
            writer.close()
            with Serving(host, Path(scratch), args.workers) as server:
                assert server.rows() == HOURS * an_hour, "rows are missing, so its speed means nothing"
                for name, gzip in (("gzip", True), ("plain", False)):
                    cpu = server.cpu()
                    took, errors, size = measured(server.port, server.requests(gzip), args.rate, args.seconds)
                    each = 1000 * (server.cpu() - cpu) / (len(took) * (1 + _WARM_SECONDS / args.seconds))
                    p50, p99, p999, most = (1000 * np.quantile(took, [0.5, 0.99, 0.999, 1])).tolist()
                    figures.add(name, HOURS * an_hour, size / len(took) / 1000, len(took), errors, p50, p99, p999, most, each)
    figures.notes.append(f"{ADVERTISERS * CAMPAIGNS} campaigns in turns; {args.workers} processes of the server, emulator and load share the machine's cores")
    publish("report_api", before, [figures], rate=args.rate, seconds=args.seconds, workers=args.workers)


if __name__ == "__main__":
    main()
