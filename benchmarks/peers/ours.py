"""This project's way to do the task: benchmarks/peers/counting.py, on Prism."""

import logging
import tempfile
from pathlib import Path

from benchmarks.peers import counting
from benchmarks.peers.task import arguments, avro_files, write
from measurement.local.prism import ensure_prism, prism_options
from measurement.transforms.worker import settle


def main() -> None:
    log, out, _ = arguments()
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    settle()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        write(counting.count(avro_files(log), Path(scratch), prism_options(ensure_prism(lambda _: None))), out)


if __name__ == "__main__":
    main()
