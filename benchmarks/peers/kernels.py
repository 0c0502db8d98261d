"""This project's kernels and machines alone: those of `ours`, one behind the other in one process, without Beam.

The difference to `ours` is what an engine, its coders and its state cost. Like the batch engines, beside which it stands, it keeps
nothing for a failure. Frames are read in order and decoded on as many threads as there are cores, since the kernels run without
Python's global lock; the machines take them in order.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers import parts
from benchmarks.peers.parts import Ids, Part
from benchmarks.peers.task import Row, arguments, avro_files, write
from measurement import memory
from measurement.io.framing import Frame, frames

FRAME_EVENTS = 16_384  # whose columns stay in a core's cache between one kernel and the next
THREADS = os.cpu_count() or 1


def count(paths: Iterable[Path], events: int = FRAME_EVENTS) -> list[Row]:
    """The result over the files, read in frames of about so many ``events``."""
    ids, totals = Ids(), parts.totals()
    for part in decoded(frame for path in paths for frame, _ in frames(path, events, events)):
        totals.absorb(part.sums(ids.absorb(part)))
        totals.take_changes()
    revisions = totals.flush(0)
    return parts.rows(revisions) if revisions else []


def decoded(read: Iterable[Frame]) -> Iterator[Part]:
    """Each frame's Part, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque = deque()
        for frame in read:
            ahead.append(pool.submit(lambda frame: Part.of(frame.decoded()), frame))
            if len(ahead) > THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def main() -> None:
    log, out, _ = arguments()
    memory.keep()
    write(count(avro_files(log)), out)


if __name__ == "__main__":
    main()
