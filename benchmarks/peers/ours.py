"""This project's way to do the task: benchmarks/peers/counting.py, on Prism."""

import logging
import tempfile
from pathlib import Path

from benchmarks.peers import counting
from benchmarks.peers.task import arguments, avro_files, write


def main() -> None:
    log, out, _ = arguments()
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        write(counting.count(avro_files(log), Path(scratch)), out)


if __name__ == "__main__":
    main()
