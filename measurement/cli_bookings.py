"""The console commands for what people state: bookings, and in whose time zone days are told."""

import time
from functools import partial
from pathlib import Path
from zoneinfo import available_timezones

from measurement.failure import Failure
from measurement.model.bookings import BOOKINGS, TIME_ZONES
from measurement.model.tables import Table
from measurement.reporting.bookings import BadBookings, read
from measurement.reporting.loading import Loaded, load

_NO_ZONES = {"localtime", "Factory"}  # files beside the zones: of a machine's own, and of none


def load_bookings(file: Path, profile: str, out: Path | None, bigquery: str | None) -> None:
    try:
        rows = read(file)
    except BadBookings as error:
        raise Failure(str(error)) from error
    done = _load(BOOKINGS, rows, profile, out, bigquery)
    print(f"{len(rows):,} bookings: {done.new:,} new, {done.changed:,} changed, {done.same:,} as they were")


def set_time_zone(zone: str, advertiser: str | None, profile: str, out: Path | None, bigquery: str | None) -> None:
    if zone not in available_timezones() - _NO_ZONES:
        raise Failure(f"{zone}: not a time zone of IANA's database, such as Europe/Berlin")
    done = _load(TIME_ZONES, [{"advertiser_id": advertiser, "time_zone": zone}], profile, out, bigquery)
    who = "advertisers without a zone of their own" if advertiser is None else advertiser
    print(f"{who}: {zone}{' (as it was)' if done.same else ''}")


def _load(table: Table, rows: list[dict], profile: str, out: Path | None, bigquery: str | None) -> Loaded:
    return (_local if profile == "local" else _cloud)(table, rows, time.time_ns() // 1_000, profile, out, bigquery)


def _local(table: Table, rows: list[dict], now: int, _, out: Path | None, __) -> Loaded:
    from measurement.local.loaded import append
    from measurement.local.warehouse import Warehouse, WarehouseError

    if out is None:
        raise Failure("--out is needed with --profile local")
    try:
        return load(table, rows, now, partial(append, Warehouse(out)))
    except WarehouseError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"{error.filename or out}: {error.strerror}") from error


def _cloud(table: Table, rows: list[dict], now: int, profile: str, _, bigquery: str | None) -> Loaded:
    from measurement.cloud.places import CloudError, Profile, named
    from measurement.io.bigquery_admin import BigQueryError, append

    try:
        return load(table, rows, now, partial(append, Profile(profile).endpoints, named("--bigquery", bigquery)))
    except (CloudError, BigQueryError) as error:
        raise Failure(str(error)) from error
