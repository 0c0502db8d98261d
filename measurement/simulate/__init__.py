"""A realistic, seeded event log and its truth: `measurement simulate`."""

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from measurement.model.events import OUTCOMES
from measurement.simulate import booked, screened
from measurement.simulate.encode import phrases, write_container
from measurement.simulate.events import clean_events
from measurement.simulate.options import SimulateOptions, Summary, policy_of
from measurement.simulate.trouble import clean_count, send
from measurement.simulate.truth import truth_of, write_truth
from measurement.simulate.world import build_world

__all__ = ["SimulateOptions", "Summary", "simulate"]


def simulate(options: SimulateOptions, out: Path, overwrite: bool = False) -> Summary:
    """Write OUT/events-*.avro, OUT/bookings.csv and OUT/truth.json, with screening also the policy; the same options give the same bytes.

    Raises ValueError where OUT already holds events, unless they may be overwritten, and for a broken policy.
    """
    policy = policy_of(options)
    out = Path(out)
    old = sorted(out.glob("events*.avro"))
    if old and not overwrite:
        raise ValueError(f"--out: {out} already holds {old[0].name}")
    out.mkdir(parents=True, exist_ok=True)

    seeds = np.random.SeedSequence(options.seed)
    salt = int(seeds.generate_state(1, np.uint64)[0])
    world_rng, event_rng, trouble_rng, ways_rng, screening_rng, booked_rng = map(np.random.default_rng, seeds.spawn(6))
    world = build_world(world_rng)
    clean = clean_events(world, options, clean_count(options), event_rng, ways_rng)
    crowds = screened.screen(clean, options, screening_rng) if options.screening else None
    log = send(clean, options, trouble_rng)
    if crowds:
        screened.unlike(log, crowds, screening_rng)

    book = phrases(world)
    undecodable = log.fate == OUTCOMES.index("undecodable")
    files = log.files()
    paths = [out / f"events-{number + 1:02d}.avro" for number in range(len(files))]
    with tempfile.TemporaryDirectory(prefix=".simulate-", dir=out) as unfinished, ThreadPoolExecutor(2) as pool:
        written = [Path(unfinished) / path.name for path in paths]
        sizes = pool.map(
            lambda path, sendings: write_container(
                path, log.columns, book, salt, log.row[sendings], log.received[sendings], undecodable[log.row[sendings]]
            ),
            written, files,
        )
        truth = truth_of(world, clean, log, options, policy, salt)  # while the files are being written
        total_bytes = sum(sizes)
        for path in old:
            path.unlink()
        for path, final in zip(written, paths):
            os.replace(path, final)
    if options.screening:
        for name, text in screened.files(options).items():
            (out / name).write_text(text)
        policy = replace(policy, digest=hashlib.sha256(screened.policy_text(options).encode()).hexdigest()[:8])
    write_truth(out / "truth.json", options, policy, truth)
    booked.write(out / booked.NAME, booked.bookings(truth, booked_rng))
    return Summary(tuple(paths), out / "truth.json", options.events, total_bytes, truth.outcomes, len(truth.delivery))
