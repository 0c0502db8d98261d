"""`measurement export`'s flags made requests: which tables, which range, read from where."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measurement.cloud.places import CloudError
from measurement.exports import command
from measurement.exports.request import EXPORTED, Format, Grain, Request, check_range, instant
from measurement.exports.source import Source, cloud, local
from measurement.failure import Failure
from measurement.io.bigquery_admin import BigQueryError
from measurement.local.warehouse import WarehouseError


def export(out: str, advertiser: str | None, everyone: bool, start: datetime | None, stop: datetime | None, yesterday: bool, format_: str,
           tables: list[str], grain: str, campaign: str | None, small_cells: int, since: list[str], profile: str, warehouse: Path | None,
           bigquery: str | None) -> None:
    if (advertiser is None) != everyone:
        raise Failure("--advertiser A or --all is needed, and not both")
    if yesterday and (start or stop):
        raise Failure("--yesterday: is a range by itself, without --from and --to")
    if everyone and since:
        raise Failure("--since: is of one advertiser's export, without --all")
    if yesterday:
        stop = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = stop - timedelta(days=1)
    else:
        start, stop = (t and t.replace(tzinfo=UTC) for t in (start, stop))
    check_range(start, stop, Grain(grain))
    if unknown := [t for t in tables if t not in EXPORTED]:
        raise Failure(f"--table {unknown[0]}: not one of {', '.join(EXPORTED)}")
    earlier = {found[1]["table"]: found for found in map(command.earlier, since)}
    if extra := [t for t in earlier if tables and t not in tables]:
        raise Failure(f"--since {earlier[extra[0]][0]}: is of {extra[0]}, which --table leaves out")
    chosen = list(dict.fromkeys(tables)) or list(earlier) or list(EXPORTED)
    requests = [Request(advertiser or "", EXPORTED[t], start, stop, Grain(grain), Format(format_), campaign, small_cells) for t in chosen]
    clock, say = lambda: datetime.now(UTC), lambda line: print(line, flush=True)  # noqa: E731
    with _plainly(), _source(profile, warehouse, bigquery) as source:
        if everyone:
            written = command.export_all(source, out, requests, clock, say)
        else:
            written = command.export(source, out, requests, earlier, clock, say)
    if not written:
        print(f"measurement: no advertiser has rows from {instant(start)} to {instant(stop)}: nothing was written", file=sys.stderr)
    notes = Counter(note for one in written for note in _notes(one))
    for note, files in notes.items():
        print(f"measurement: {note}{f' ({files} files)' if everyone else ''}", file=sys.stderr)


def _notes(written: command.Written) -> Iterator[str]:
    """What who only looks at the rows would not see."""
    told, request = written.manifest, written.request
    if not told["rows"]:
        yield f"{request.table.name}: no rows"
    if told["complete_until"] is None or told["complete_until"] < told["to"]:
        yield f"hours from {told['complete_until'] or told['from']} on were open: their rows are provisional or not there yet"
    until = told["withheld"]["told_until"] if request.withholds else told["to"]
    if until != told["to"]:
        yield f"conversions are told until {until or told['from']}: a later day is open, or has with those before it fewer than {request.small_cells}"


@contextmanager
def _source(profile: str, warehouse: Path | None, bigquery: str | None) -> Iterator[Source]:
    if profile != "local":
        with cloud(profile, bigquery) as source:
            yield source
        return
    if warehouse is None:
        raise Failure("--warehouse is needed with --profile local: the directory of a run")
    yield local(warehouse)


@contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except (CloudError, BigQueryError, WarehouseError) as error:
        raise Failure(str(error)) from error
