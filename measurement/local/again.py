"""The input files of a local run once more, through the job's own reader."""

import uuid
from collections.abc import Iterator
from pathlib import Path

from measurement.columnar.intake import Intake
from measurement.io.files import FileSource
from measurement.io.framing import UnreadableInput
from measurement.io.input_file import InputFile
from measurement.local.warehouse import Warehouse, WarehouseError
from measurement.model.policy import Policy


def files(warehouse: Warehouse) -> list[InputFile]:
    """What the last run read. WarehouseError where there was no run, or a file is gone."""
    sources = warehouse.inputs()
    if not sources:
        raise WarehouseError(f"--out {warehouse.out}: no run's input is known there; `measurement run` makes one")
    for source in sources:
        if not Path(source.path).is_file():
            raise WarehouseError(f"{source.path}: an input of --out {warehouse.out}, is not there any more")
    return [InputFile(s.path, s.name, s.clock, s.replay) for s in sources]


def intakes(warehouse: Warehouse, policy: Policy) -> Iterator[Intake]:
    """What became of the files' frames at the source, in the order in which the run read them."""
    source = FileSource(f"again-{uuid.uuid4().hex}", files(warehouse), policy, in_process=False, backfill=warehouse.backfilled())
    reader = source.create_reader(None, None)
    try:
        more = reader.start()
        while more:
            yield reader.get_current()
            more = reader.advance()
    except UnreadableInput as error:
        raise WarehouseError(str(error)) from error
    finally:
        reader.close()
