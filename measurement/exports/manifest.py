"""What stands beside an export: what it holds, as of when, and how to know that it is whole."""

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import pyarrow.compute as pc

from measurement.exports.formats import digits
from measurement.exports.request import Request, instant
from measurement.exports.rows import Rows, columns, figures, sums
from measurement.exports.source import Moment
from measurement.failure import Failure
from measurement.model.tables import ATTRIBUTION

VERSION = 1
ENDING = ".manifest.json"  # behind the name of the file with the rows


def describe(request: Request, moment: Moment, rows: Rows) -> dict:
    """All but the files and when they were made: the same for the same data and flags."""
    table, of = rows.table, request.table
    by = ("model", "currency") if of is ATTRIBUTION else ("currency",)
    [whole] = sums(table, of)
    statuses = {one["values"]: one["counts"] for one in table["status"].value_counts().to_pylist()}
    told = {
        "manifest_version": VERSION, **request.filters, "format": str(request.format),
        "as_of": _instant(moment.as_of), "as_of_revision": moment.revision,
        "complete_until": _instant(moment.complete_until), "settled": _instant(moment.settled),
        "rule_versions": sorted({v for v in table["rule_version"].unique().to_pylist()}),
        "status": {name: statuses.get(name, 0) for name in ("final", "provisional", "restated")},
        "rows": table.num_rows, "columns": columns(of).names,
        "column_totals": {name: _plain(whole[name]) for name in figures(of)},
        "totals": {"by": list(by), "sums": [{n: _plain(v) for n, v in one.items()} for one in sums(table, of, by)]},
    }
    if request.withholds:
        told["withheld"] = _withheld(request, rows, by)
    return told


def _withheld(request: Request, rows: Rows, by: tuple[str, ...]) -> dict:
    apart = rows.table.filter(pc.is_null(rows.table["withheld"]))
    together = rows.table.filter(pc.is_valid(rows.table["withheld"]))
    plain = lambda some: [{n: _plain(v) for n, v in one.items()} for one in sums(some, request.table, by)]  # noqa: E731
    return {"below_conversions": request.small_cells, "told_until": _instant(rows.told_until), "rows": together.num_rows,
            "told_apart": plain(apart), "told_together": plain(together)}


def with_files(told: dict, files: dict[str, tuple[str, Path, int]], created: datetime, since: dict | None) -> dict:
    """``files``: by what they are for (rows, changes) their name, where they lie, and how many rows they have."""
    made = {use: {"name": name, "rows": rows, "bytes": path.stat().st_size, "sha256": sha256(path)} for use, (name, path, rows) in files.items()}
    changed = None if since is None else {"as_of": since["as_of"], "as_of_revision": since["as_of_revision"],
                                          "sha256": since["files"]["rows"]["sha256"]}
    return {**told, "since": changed, "files": made, "created_at": instant(created), "generator": f"ad-measurement {version('ad-measurement')}"}


def text(manifest: dict) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def parsed(given: bytes | None, where: str) -> dict:
    """Failure where it is no manifest, or one of another version."""
    if given is None:
        raise Failure(f"--since {where}: there is no such file")
    try:
        manifest = json.loads(given)
        made_as = manifest["manifest_version"]
        manifest["files"]["rows"]["sha256"], manifest["as_of"], manifest["settled"]  # noqa: B018
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"--since {where}: not the manifest of an export") from error
    if made_as != VERSION:
        raise Failure(f"--since {where}: manifest_version {made_as} and not {VERSION}")
    return manifest


def fits(manifest: dict, request: Request, where: str) -> None:
    """Failure that names what it was made with otherwise."""
    for name, asked in request.filters.items():
        if manifest.get(name) != asked:
            flag = {"table": "--table", "small_cells": "--small-cells"}.get(name, f"--{name}")
            raise Failure(f"--since {where}: is of {name} {manifest.get(name)} and {flag} asks for {asked}")


def same_totals(manifest: dict, again: dict, where: str) -> None:
    """Failure where the rows as of the manifest, read again, do not have its totals."""
    for name, n in again["column_totals"].items():
        was = manifest["column_totals"][name]
        if was != n or manifest["rows"] != again["rows"]:
            raise Failure(f"--since {where}: {name} was {was} in {manifest['rows']} rows, and is {n} in {again['rows']} as read again as of "
                          "then: rows of that time were written or deleted later; compare the files themselves")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _instant(at: datetime | None) -> str | None:
    return None if at is None else instant(at)


def _plain(value):
    """A NUMERIC as its digits in text: JSON's numbers are many readers' floats."""
    return digits(value) if isinstance(value, Decimal) else value
