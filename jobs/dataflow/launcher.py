"""What the Flex Template's image runs: the template's parameters in, a described Dataflow job out.

`measurement run --engine dataflow` does the work and checks what it is given; here its options are only told from Beam's
flags, and files on Cloud Storage are fetched, since the command reads local ones. The service adds --template_location, by
which Beam describes the job instead of submitting it.

    python -m jobs.dataflow.launcher --subscription=projects/P/subscriptions/S --bigtable=projects/P/instances/I \
        --bigquery=P.DATASET --policy=gs://BUCKET/policy.yaml --project=P --temp_location=gs://BUCKET/tmp ...
"""

import argparse
import sys
import tempfile
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from measurement import cli
from measurement.model import screening

# The options of `measurement run` that a template has, as metadata.json names them; all others are not for the cloud.
PARAMETERS = ("subscription", "bigtable", "bigquery", "policy", "schemas", "resume", "readers", "idle_seconds")
_FILES = {"policy": "", "schemas": "/*.avsc"}  # what is fetched: a file, the files of a directory


def command(argv: list[str], scratch: Path) -> list[str]:
    """The arguments of `measurement run`; ``scratch`` is where files from Cloud Storage go. OSError for one that is away."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in PARAMETERS:
        parser.add_argument(f"--{name}")
    given, beams = parser.parse_known_args(argv)
    # The console sends a field that was left empty as an empty text.
    values = {name: value for name, value in vars(given).items() if value}
    # A job that replaces a running one gets its state, and with it the generation.
    resume = values.pop("resume", "false") == "true" or "--update" in beams
    for name, files in _FILES.items():
        if "://" in (place := values.get(name, "")):
            values[name] = str(fetched(place, files, scratch))
            if name == "policy":
                _fetch_lists(place.rpartition("/")[0], Path(values[name]))
    ours = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    # What workers need is in their image; a pickled main session would be this file.
    return ["run", "--profile=gcp", "--engine=dataflow", *ours, *(["--resume"] if resume else []), "--",
            "--no_save_main_session", *beams]


def fetched(place: str, files: str, scratch: Path) -> Path:
    """A local copy of a file, or of a directory's ``files`` (a pattern). OSError if there is none."""
    place = place.rstrip("/")
    [found] = FileSystems.match([place + files])
    if not found.metadata_list:
        raise FileNotFoundError(f"{place}{files}: nothing there")
    local = scratch / place.rpartition("/")[2]
    if files:
        local.mkdir()
    for metadata in found.metadata_list:
        with FileSystems.open(metadata.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            target = local / metadata.path.rpartition("/")[2] if files else local
            target.write_bytes(file.read())
    return local


def _fetch_lists(place: str, policy: Path) -> None:
    """The lists that a fetched policy names, from beside it to beside it. A policy that cannot be read, or names what is not
    there or not below it, is the command's to refuse."""
    for name in screening.files_of(policy):
        below = Path(name)
        if not below.is_absolute() and ".." not in below.parts and FileSystems.match([f"{place}/{name}"])[0].metadata_list:
            (policy.parent / below.parent).mkdir(parents=True, exist_ok=True)
            fetched(f"{place}/{name}", "", policy.parent / below.parent)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            sys.argv[1:] = command(sys.argv[1:], Path(scratch))
        except OSError as error:
            sys.exit(f"measurement: {' '.join(str(error).split())}")
        cli.main()


if __name__ == "__main__":
    main()
