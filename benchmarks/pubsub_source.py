"""The Pub/Sub source beside the client's own synchronous pull, on one emulator, with one event a message and with many.

Every form takes all messages of a subscription of its own and acknowledges them; the client's pull does nothing else with
them, while the source decodes, judges and fingerprints every event and holds acknowledgements until its mark is finalized.
The emulator, at work on the same cores, sets the wall time; what counts is events per CPU second of the process that
consumes. The whole job (source, join, totals, both sinks, Prism) is measured from its first event to its last.

    python -m benchmarks.pubsub_source --messages 100000 --runs 3
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import psutil

from benchmarks.report import Figures, machine, publish
from measurement.cloud import publish as sending
from measurement.cloud.pubsub_admin import PubSubAdmin
from measurement.io.endpoints import Endpoints
from measurement.io.pubsub import keepers, source
from measurement.io.pubsub.api import Subscriber
from measurement.local import emulators
from measurement.model.policy import Policy
from measurement.simulate import SimulateOptions, simulate

TOPIC = "projects/demo/topics/bench"
ACK_SECONDS = 60


class NoFence:
    """A generation that nobody else wants; stands for the control table."""

    def __init__(self, *_):
        pass

    def has_acknowledged(self) -> bool:
        return False

    def permit(self, acknowledging: bool) -> None:
        pass


def clients_pull(endpoints: Endpoints, subscription: str, messages: int) -> None:
    """google-cloud-pubsub's synchronous pull with acknowledgement, as its documentation has it."""
    from google.pubsub_v1.services.subscriber import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    from measurement.io.pubsub.api import channel

    client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel(endpoints)))
    while messages > 0:
        received = client.pull(subscription=subscription, max_messages=1_000).received_messages
        client.acknowledge(subscription=subscription, ack_ids=[m.ack_id for m in received])
        messages -= len(received)


def bare_pull(endpoints: Endpoints, subscription: str, messages: int) -> None:
    """The same two calls on bare protobuf messages."""
    subscriber = Subscriber(endpoints, subscription)
    while messages > 0:
        received = subscriber.pull(1_000, 10.0)
        subscriber.acknowledge([m.ack_id for m in received])
        messages -= len(received)
    subscriber.close()


def our_source(endpoints: Endpoints, subscription: str, messages: int) -> None:
    """The source's reader, a mark finalized after each element."""
    one = source.Reading(source.Flow(threads=1))  # as the emulators' profile has it
    made = source.PubSubSource(subscription, 1, subscription, "projects/demo/instances/none", endpoints, Policy(), one, reader=0)
    reader, pause = made.create_reader(None, None), threading.Event()
    has, edge = reader.start(), 0
    while True:
        if has:
            edge += sum(counts[0] for counts in reader.get_current().tallies["intake"].counts.tolist())
            reader.get_checkpoint_mark().finalize_checkpoint()
        if edge >= messages:
            break
        if not has:
            pause.wait(0.005)
        has = reader.advance()
    while keepers.find((subscription, 0)).acknowledged < messages:
        pause.wait(0.005)
    keepers.drain(subscription, 10)


def consumed(form, *args) -> tuple[float, float]:
    """(seconds, CPU seconds) of a form in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    form(*args)
    return time.perf_counter() - began, time.process_time() - cpu


def forms(endpoints: Endpoints, logs: Path, batch: int, runs: int) -> Figures:
    """Every form's rates on the same messages."""
    source.Fence = NoFence
    admin, names = PubSubAdmin(endpoints), ("client's pull", "bare pull", "our source")
    topic = f"{TOPIC}-{batch}"
    admin.make_topic(topic)
    subscriptions = {(name, run): f"projects/demo/subscriptions/b{batch}-{i}-{run}"
                     for i, name in enumerate(names) for run in range(runs)}
    for subscription in subscriptions.values():
        admin.make_subscription(subscription, topic, ACK_SECONDS)
    began, cpu = time.perf_counter(), time.process_time()
    sent = sending.publish(sorted(logs.glob("*.avro")), topic, endpoints, batch, lambda _: None)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    took = {name: [] for name in names}
    for run in range(runs):
        for name, form in zip(names, (clients_pull, bare_pull, our_source)):
            took[name].append(consumed(form, endpoints, subscriptions[name, run], sent.messages))
    figures = Figures(f"{sent.events:,} events in {sent.messages:,} messages", ("form", "events/s", "events per CPU second", "of the client's"))
    per_cpu = {name: sent.events / statistics.median(c for _, c in t) for name, t in took.items()}
    for name in names:
        wall_rate = sent.events / statistics.median(w for w, _ in took[name])
        figures.add(name, f"{wall_rate:,.0f}", f"{per_cpu[name]:,.0f}", f"{per_cpu[name] / per_cpu[names[0]]:.2f}")
    figures.add("measurement publish", f"{sent.events / wall:,.0f}", f"{sent.events / cpu:,.0f}", "")
    return figures


def whole_job(logs: Path, batch: int) -> Figures:
    """The command as a user starts it, its processes and Prism's, from its first event to its last."""
    with emulators.pubsub() as pubsub, emulators.bigtable() as bigtable, emulators.bigquery() as (rest, grpc), \
            tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, **Endpoints(pubsub, bigtable, rest, grpc).environment}
        command = [sys.executable, "-m", "measurement.cli"]
        call = lambda *a: subprocess.run([*command, *a], env=environment, check=True, capture_output=True)  # noqa: E731
        call("provision", "--profile", "emulators", "--project", "demo", "--archive", f"{scratch}/archive")
        call("publish", "--profile", "emulators", "--input", str(logs), "--topic", "projects/demo/topics/ad-events", "--batch", str(batch))
        job = psutil.Popen(
            [*command, "run", "--profile", "emulators", "--subscription", "projects/demo/subscriptions/ad-events-measurement",
             "--bigtable", "projects/demo/instances/measurement", "--bigquery", "demo.ads", "--until-idle", "--idle-seconds", "61"],
            env=environment, stdout=subprocess.PIPE, text=True)
        first = last = told = None
        for line in job.stdout:
            if found := re.match(r"([\d,]+) events read.* lag (\d[\d,]*) events", line):
                now = time.perf_counter(), _cpu(job), int(found[1].replace(",", ""))
                first = first or now
                if found.groups() != told:  # idle, it says the same each time
                    last, told = now, found.groups()
        job.wait()
    events, wall, cpu = last[2] - first[2], last[0] - first[0], last[1] - first[1]
    figures = Figures(f"the whole job, {batch:,} events a message", ("events", "events/s", "events per CPU second"))
    figures.add(f"{events:,}", f"{events / wall:,.0f}", f"{events / cpu:,.0f}")
    return figures


def _cpu(job: psutil.Process) -> float:
    processes = [job, *job.children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in processes if p.is_running())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--job-events", type=int, default=400_000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    before = machine()
    with tempfile.TemporaryDirectory() as scratch:
        single, many, long = Path(scratch, "single"), Path(scratch, "many"), Path(scratch, "long")
        simulate(SimulateOptions(events=given.messages, seed=3), single)
        simulate(SimulateOptions(events=5 * given.messages, seed=3), many)
        our = []
        for logs, batch in ((single, 1), (many, 1_000)):
            with emulators.pubsub() as host:
                our.append(forms(Endpoints(host, "127.0.0.1:9"), logs, batch, given.runs))
        if given.job_events:
            simulate(SimulateOptions(events=given.job_events, seed=3), long)
            our.append(whole_job(long, 1))
    publish("pubsub_source", before, our)


if __name__ == "__main__":
    main()
