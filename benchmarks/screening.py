"""What screening by lists adds to each event's processor time, and its look-ups alone against the obvious ways to do them.

One thread, no Beam. A simulated log is rewritten to have many distinct user agents and IPv6 addresses; the lists are the
open list of robots and networks drawn at random. Tables begin empty in every run, so each distinct user agent is judged
once within the time. Consent and rates are a form of their own: consent is asked for in all countries, and rates are kept of
users and addresses, with the state that remembers each event of both.

    python -m benchmarks.screening --events 200000 --runs 3
"""

import argparse
import dataclasses
import random
import re
import statistics
import tempfile
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import crawleruseragents
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.kernels import POLICY, Together, _decode, same
from benchmarks.report import Figures, interleaved, machine, positive, publish, rates
from measurement.columnar import identify
from measurement.columnar.addresses import parse
from measurement.columnar.intervals import Networks
from measurement.columnar.judge import ACCEPTED, judge
from measurement.columnar.screen import Screen
from measurement.io.files import FRAME_EVENTS
from measurement.io.framing import Frame, frames
from measurement.model.events import INVALID_REASONS
from measurement.model.lists import ListFacts
from measurement.model.screening import Consent, Rate, Screening
from measurement.rules.networks import NetworkList
from measurement.rules.robots import Robots
from measurement.simulate import SimulateOptions, simulate
from measurement.simulate.agents import HUMAN, ROBOTS
from measurement.simulate.world import COUNTRIES
from measurement.state.rates import RatesShard

PEER_ADDRESSES, PEER_AGENTS = 50_000, 2_000  # what the peers are given; more would only take longer
SIX = 0.3  # of the addresses are IPv6
LISTED = 0.1  # of the addresses are in a network
_WHOLE = "all kernels of a log, decode to publish"


class World:
    """Networks, addresses and user agents, the same for the same numbers."""

    def __init__(self, networks: int, agents: int):
        self.random = random.Random(7)
        people = [agent for agents_ in HUMAN.values() for agent in agents_]
        drawn: dict[str, None] = dict.fromkeys(ROBOTS)
        while len(drawn) < agents:
            build = f"{self.random.randrange(10_000)}.{self.random.randrange(1_000)}"
            drawn[f"{self.random.choice(people)} Build/{build}"] = None
        self.agents = list(drawn)[-agents:]
        draw = self.random.getrandbits
        self.networks = [
            IPv6Network((self._six(), self.random.choice((32, 40, 48, 56))), strict=False) if self.random.random() < SIX
            else IPv4Network((draw(32), self.random.choice((16, 20, 22, 24, 24, 28))), strict=False)
            for _ in range(networks)]

    def _six(self) -> int:
        return (0x2001 + self.random.randrange(0xA00)) << 112 | self.random.getrandbits(112)

    def address(self) -> str:
        if self.random.random() < LISTED:
            network = self.random.choice(self.networks)
            return str(network[self.random.randrange(network.num_addresses)])
        if self.random.random() < SIX:
            return str(ip_address(self._six()))
        return str(ip_address(self.random.getrandbits(32)))

    def rewrite(self, log: Path, to: Path) -> None:
        """The log with other user agents and addresses."""
        with log.open("rb") as old, to.open("wb") as new:
            reader = fastavro.reader(old)
            events = (event | {"user_agent": self.random.choice(self.agents), "ip": self.address()} for event in reader)
            fastavro.writer(new, reader.writer_schema, events, codec=reader.codec)


class Screened:
    """Decoding, judging and identifying frames, with what screening then does."""

    def __init__(self, screening: Screening | None):
        self.events, self.invalid = 0, Counter()
        self.screen = screening and Screen(screening)
        self.rates = RatesShard(screening.rate, POLICY.counting.dedup_horizon) if screening and screening.rate.asked else None

    def run(self, frames_: list[Frame]) -> "Screened":
        for frame in frames_:
            decoded = _decode(frame)
            clocks = np.zeros(len(decoded.values), np.int64)
            refused = sum(map(len, self.screen.without_consent(decoded))) if self.screen else 0
            judged = judge(decoded.buf, decoded.values, decoded.lengths, clocks, POLICY.counting.viewability)
            chosen, labels = np.flatnonzero(judged["reason"] == ACCEPTED), identify.Labels()
            identify.sources(decoded, labels, "log")
            rows = identify.batch(decoded, chosen, judged["type"], labels).rows
            self.events += len(chosen)
            if self.screen:
                activity = self.screen.judge(decoded, judged, chosen, rows)
                codes, counts = np.unique(rows["verdict"], return_counts=True)
                self.invalid.update({INVALID_REASONS[c] or "valid": n for c, n in zip(codes.tolist(), counts.tolist())})
                self.invalid["without consent"] += refused
            if self.rates:
                self.invalid["beyond a rate"] += len(self.rates.absorb(activity))
                self.rates.take_changes()
        return self


def adding(world: World, folder: Path, events: int, runs: int) -> Figures:
    """Processor time of an event without and with screening."""
    simulate(SimulateOptions(events=events, seed=7, files=1, undecodable_rate=0), folder)
    log, other = folder / "events-01.avro", folder / "other.avro"
    world.rewrite(log, other)
    frames_ = [f for f, _ in frames(other, FRAME_EVENTS, FRAME_EVENTS)]
    by_lists = Screening(datacentre=(NetworkList(ListFacts("drawn", "datacentre", None, None, 0, ""), tuple(world.networks)),))
    all_ = dataclasses.replace(by_lists, rate=Rate(500, 5_000), consent=Consent(frozenset(filter(None, COUNTRIES))))
    forms = {"decode, judge, identify": None, "and screened by lists": by_lists, "and by consent and rates": all_}
    seconds = interleaved({name: lambda rules=rules: Screened(rules).run(frames_) for name, rules in forms.items()}
                          | {_WHOLE: lambda: Together().run(log)}, runs)
    each = {name: statistics.median(taken) / events * 1e9 for name, taken in seconds.items()}
    without = each["decode, judge, identify"]
    figures = Figures("screening: what it adds to an event", ("form", "ns an event", "adds", "to these kernels", "to all of a log"))
    for name in forms:
        added = each[name] - without
        figures.add(name, each[name], added, f"{added / without:.1%}", f"{added / each[_WHOLE]:.1%}")
    figures.add(_WHOLE, each[_WHOLE], 0.0, "", "")
    done = Screened(all_).run(frames_)
    figures.notes.append(f"{len(world.networks):,} networks, {len(world.agents):,} user agents; of {done.events:,} events "
                         + ", ".join(f"{n:,} {what}" for what, n in done.invalid.items()))
    return figures


def addresses(world: World, networks: Networks, runs: int) -> Figures:
    """Address texts looked up in the networks."""
    texts = [world.address() for _ in range(PEER_ADDRESSES)]
    raw = [t.encode() for t in texts]
    lengths = np.array([len(r) for r in raw], np.int32)
    buf, starts = np.frombuffer(b"".join(raw), np.uint8), np.cumsum(lengths) - lengths
    hi, lo, _ = parse(buf, starts, lengths)
    merged = {version: _merged([n for n in world.networks if n.version == version]) for version in (4, 6)}

    def peer() -> list[bool]:
        found = []
        for text in texts:
            address = ip_address(text)
            firsts, lasts = merged[address.version]
            at = bisect_right(firsts, int(address)) - 1
            found.append(at >= 0 and int(address) <= lasts[at])
        return found

    same("networks", networks.has(hi, lo).tolist(), peer())
    times = range(20)  # so that the clock has something to count
    forms = {
        "parse and Networks.has": lambda: [networks.has(*parse(buf, starts, lengths)[:2]) for _ in times],
        "Networks.has (addresses parsed)": lambda: [networks.has(hi, lo) for _ in times],
        "ipaddress and bisect": peer,
    }
    seconds = interleaved(forms, runs)
    seconds["ipaddress and bisect"] = [s * len(times) for s in seconds["ipaddress and bisect"]]
    return rates("addresses looked up in networks", seconds, len(texts) * len(times), "parse and Networks.has", "look-ups")


def _merged(networks: list) -> tuple[list[int], list[int]]:
    firsts: list[int] = []
    lasts: list[int] = []
    for network in sorted(networks, key=lambda n: int(n.network_address)):
        if lasts and int(network.network_address) <= lasts[-1]:
            lasts[-1] = max(lasts[-1], int(network.broadcast_address))
        else:
            firsts.append(int(network.network_address))
            lasts.append(int(network.broadcast_address))
    return firsts, lasts


def agents(world: World, runs: int) -> Figures:
    """Distinct user agents judged by the open list."""
    expression = "|".join(entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA)
    pattern, few = re.compile(expression), world.random.sample(world.agents, min(PEER_AGENTS, len(world.agents)))
    robots = Robots()

    def one_by_one() -> list[bool]:
        cached = lru_cache(maxsize=None)(lambda text: pattern.search(text) is not None)
        return [cached(text) for text in few]

    def re2() -> list[bool]:
        return pc.match_substring_regex(pa.array(few), expression).to_pylist()

    same("robots", robots.judge(few).tolist(), one_by_one(), re2(), [crawleruseragents.is_crawler(text) for text in few])
    ours, peers = "Robots.judge", {"one expression of Python's re, lru_cache": one_by_one,
        "one expression of RE2, in PyArrow": re2}
    seconds = interleaved({ours: lambda: robots.judge(world.agents)} | peers, runs)
    for name in peers:
        seconds[name] = [s * len(world.agents) / len(few) for s in seconds[name]]
    return rates("distinct user agents judged by the open list", seconds, len(world.agents), ours, "user agents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=positive, default=1_000_000, help="events of the log (1000000)")
    parser.add_argument("--runs", type=positive, default=5, help="timed runs of each form (5)")
    parser.add_argument("--networks", type=positive, default=10_000, help="networks (10000)")
    parser.add_argument("--agents", type=positive, default=100_000, help="distinct user agents (100000)")
    args = parser.parse_args()
    before, world = machine(), World(args.networks, args.agents)
    networks = Networks(world.networks)
    with tempfile.TemporaryDirectory() as folder:
        tables = [adding(world, Path(folder), args.events, args.runs), addresses(world, networks, args.runs),
                  agents(world, args.runs)]
    publish("screening", before, tables, events=args.events, runs=args.runs, networks=args.networks, agents=args.agents)


if __name__ == "__main__":
    main()
