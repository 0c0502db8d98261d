"""`measurement export`: an advertiser's files, or all advertisers', each with its manifest.

All advertisers are exported as of one time. Where that is cut off, the same command goes on with the same time and leaves alone
what is there whole; the time is kept in OUT until the last file is written, and for a day at most.
"""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from measurement.exports import changes, destination, formats, manifest
from measurement.exports.destination import Destination, put_export, whole
from measurement.exports.request import Request, check_advertiser, check_range, instant, safe
from measurement.exports.rows import shaped
from measurement.exports.source import Moment, Source
from measurement.exports.told import month
from measurement.failure import Failure

_KEPT = timedelta(days=1)  # that a cut-off export of all can be gone on with


@dataclass(frozen=True)
class Written:
    request: Request
    manifest: dict
    fresh: bool  # not there whole already


def export(source: Source, out: str, requests: Sequence[Request], earlier: dict[str, tuple[str, dict]], now: Callable[[], datetime],
           say: Callable[[str], None]) -> list[Written]:
    """Writes each request's files, all as of one time. ``earlier``: of a table the manifest, and where it was read, since which
    the changes are told. Failure where the advertiser was never seen."""
    check(requests)
    for request in requests:
        if request.table.name in earlier:
            manifest.fits(earlier[request.table.name][1], request, earlier[request.table.name][0])
    to = destination.of(out)
    for advertiser in {r.advertiser for r in requests}:
        if not source.knows(advertiser):
            raise Failure(f"--advertiser {advertiser}: no row of it was ever published here")
    moment = source.moment(month(requests[0].start))
    return [_write(source, to, request, moment, earlier.get(request.table.name), now, say) for request in requests]


def export_all(source: Source, out: str, wanted: Sequence[Request], now: Callable[[], datetime], say: Callable[[str], None]) -> list[Written]:
    """The same for every advertiser that has rows in the range; ``wanted`` are requests of a table each, of no advertiser.
    One that fails does not keep the others from their files; the first such Failure ends the command."""
    check(wanted, named=False)
    to = destination.of(out)
    first = wanted[0]
    pin = f".unfinished-{hashlib.sha256(repr([(r.filters, r.format) for r in wanted]).encode()).hexdigest()[:16]}.json"
    moment = _moment(source, to, pin, month(first.start), now(), say)
    written, failed = [], []
    for advertiser in source.advertisers([r.table for r in wanted], first.start, first.stop, moment.as_of):
        for request in wanted:
            try:
                written.append(_write(source, to, dataclasses.replace(request, advertiser=advertiser), moment, None, now, say))
            except Failure as failure:
                failed.append((advertiser, request.table.name, failure))
    if failed:
        advertiser, table, failure = failed[0]
        raise Failure(f"{len(failed)} of {len(failed) + len(written)} exports failed; {table} of {advertiser}: {failure}") from failure
    to.remove(pin)
    return written


def check(requests: Sequence[Request], named: bool = True) -> None:
    """Failure for what no request may be."""
    for request in requests:
        check_range(request.start, request.stop, request.grain)
        if named:
            check_advertiser(request.advertiser)
        if request.small_cells < 0:
            raise Failure(f"--small-cells {request.small_cells}: 0 withholds nothing; else a number of conversions")


def earlier(where: str) -> tuple[str, dict]:
    """A manifest read from a path or URL; Failure where it is none."""
    directory, _, name = where.rpartition("/")
    return where, manifest.parsed(destination.of(directory or ("/" if where.startswith("/") else ".")).get(name), where)


def _moment(source: Source, to: Destination, pin: str, first: datetime, now: datetime, say: Callable[[str], None]) -> Moment:
    kept = to.get(pin)
    if kept is not None:
        begun = json.loads(kept)
        if now - datetime.fromisoformat(begun["begun"]) < _KEPT:
            say(f"going on with what was begun as of {begun['as_of']}")
            return _at(source, first, begun)
    moment = source.moment(first)
    if moment.as_of is not None:
        settled = None if moment.settled is None else instant(moment.settled)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "pin")
            file.write_text(json.dumps({"as_of": instant(moment.as_of), "settled": settled, "begun": instant(now)}))
            to.put(pin, file)
    return moment


def _at(source: Source, first: datetime, told: dict) -> Moment:
    """The moment that a manifest, or the note of an unfinished export, tells of."""
    if told["as_of"] is None:
        return Moment(first, None, None, {}, None, None)
    moment = source.moment(first, datetime.fromisoformat(told["as_of"]))
    settled = None if told["settled"] is None else datetime.fromisoformat(told["settled"])
    return dataclasses.replace(moment, settled=settled)


def _write(source: Source, to: Destination, request: Request, moment: Moment, since: tuple[str, dict] | None,
           now: Callable[[], datetime], say: Callable[[str], None]) -> Written:
    there = _there(to, request, moment, since)
    if there is not None:
        say(f"{there['files']['rows']['name']}: is there already, as of {there['as_of']}")
        return Written(request, there, False)
    rows = shaped(source, request, moment)
    told = manifest.describe(request, moment, rows)
    changed = None if since is None else _changes(source, request, moment, since, rows.table)
    with tempfile.TemporaryDirectory() as scratch:
        files = {"rows": (request.name, Path(scratch, "rows"), rows.table.num_rows)}
        formats.write(files["rows"][1], request.format, rows.table, _about(told))
        if changed is not None:
            name = f"{request.stem}.changes-since-{_compact(since[1]['as_of'])}.{request.format}"
            files["changes"] = (name, Path(scratch, "changes"), changed.num_rows)
            formats.write(files["changes"][1], request.format, changed, _about(told) | {"changes since": since[1]["as_of"]})
        made = manifest.with_files(told, files, now(), since and since[1])
        put_export(to, {name: path for name, path, _ in files.values()}, made)
    for name, _, count in files.values():
        say(f"{name}: {count:,} rows")
    return Written(request, made, True)


def _there(to: Destination, request: Request, moment: Moment, since: tuple[str, dict] | None) -> dict | None:
    """The manifest of a whole export that is this one."""
    kept = to.get(request.name + manifest.ENDING)
    if kept is None or since is not None:
        return None
    try:
        found = json.loads(kept)
        files = found["files"]
    except (ValueError, KeyError, TypeError):
        return None  # written by something else: it is replaced
    wanted = request.filters | {"manifest_version": manifest.VERSION, "format": str(request.format), "since": None,
                                "as_of": moment.as_of and instant(moment.as_of), "settled": moment.settled and instant(moment.settled)}
    same = all(found.get(name, ...) == value for name, value in wanted.items())
    return found if same and "rows" in files and whole(to, found) else None


def _changes(source: Source, request: Request, moment: Moment, since: tuple[str, dict], rows):
    where, told = since
    then = _at(source, moment.first, told)
    old = shaped(source, request, then)
    manifest.same_totals(told, manifest.describe(request, then, old), where)
    return changes.since(request, old.table, rows)


def _about(told: dict) -> dict[str, str | int]:
    """What a sheet says of itself."""
    flat = {name.replace("_", " "): value for name, value in told.items() if isinstance(value, str | int)}
    flat |= {f"rows {name}": n for name, n in told["status"].items()}
    if "withheld" in told:
        flat |= {"told until": told["withheld"]["told_until"] or "-", "rows that tell several together": told["withheld"]["rows"]}
    return flat


def _compact(at: str | None) -> str:
    return "nothing" if at is None else safe(at.replace(":", "").replace("T", "-").rstrip("Z"))
