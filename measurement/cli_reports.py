"""`measurement serve` and `measurement keys`: flags in, one line out for what goes wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from measurement.cloud.places import CloudError, Profile, named
from measurement.failure import Failure
from measurement.serving.keys import KeyFile
from measurement.serving.limits import Limits
from measurement.serving.reports import Reports, Unavailable


def serve(profile: str, out: Path | None, bigtable: str | None, bigquery: str | None, keys: Path, host: str, port: int,
          limits: Limits, workers: int) -> None:
    with installed("serve"):
        from measurement.serving.server import serve as run

    KeyFile(keys).all()  # a file of keys that is not there is told now and not to the first who asks
    reports = _reports(profile, out, bigtable, bigquery)
    try:
        reports.check()
    except Unavailable as error:
        raise Failure(str(error)) from error
    finally:
        reports.close()
    run(partial(_app, profile, out, bigtable, bigquery, keys, limits), host, port, workers)


@contextmanager
def installed(what: str) -> Iterator[None]:
    """Failure for an extra that is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(f"{what}: {error.name} is not installed: pip install 'ad-measurement[serve]'") from error


def _app(profile: str, out: Path | None, bigtable: str | None, bigquery: str | None, keys: Path, limits: Limits):
    """The application of one worker, made in its own process."""
    from measurement.serving.app import create_app
    from measurement.serving.keys import KeyRing

    return create_app(_reports(profile, out, bigtable, bigquery), KeyRing(keys), limits)


def _reports(profile: str, out: Path | None, bigtable: str | None, bigquery: str | None) -> Reports:
    from measurement.serving.warehouses import BigQueryReports, DuckDbReports

    if profile == "local":
        if out is None:
            raise Failure("--out is needed with --profile local")
        return DuckDbReports(out)
    from measurement.serving.bigtable import BigtableReports

    try:
        endpoints = Profile(profile).endpoints
        instance = named("--bigtable", bigtable)
        dataset = None if bigquery is None else named("--bigquery", bigquery)
    except CloudError as error:
        raise Failure(str(error)) from error
    return BigtableReports(endpoints, instance, None if dataset is None else BigQueryReports(endpoints, dataset))


def make(keys: Path, advertiser: str | None, sales: bool, name: str, expires: datetime | None) -> None:
    if (advertiser is None) != sales:
        raise Failure("--advertiser or --sales: one of them")
    until = None if expires is None else int(expires.replace(tzinfo=UTC).timestamp())
    key, text = KeyFile(keys).make(advertiser, name, until)
    print(f"{text}\nkey {key.id} of {_owner(key)}, {_until(key)}; it is shown this once and kept nowhere")


def show(keys: Path) -> None:
    file = KeyFile(keys)
    now = datetime.now(UTC).timestamp()
    for key in file.all():
        print("\t".join((key.id, key.state(now), _owner(key), f"made {_time(key.created_at)}", _until(key), key.name)))


def revoke(keys: Path, id_: str) -> None:
    key = KeyFile(keys).revoke(id_)
    print(f"key {key.id} of {_owner(key)} is revoked")


def _owner(key) -> str:
    return "sales" if key.sales else f"advertiser {key.advertiser_id}"


def _until(key) -> str:
    return "until it is revoked" if key.expires_at is None else f"until {_time(key.expires_at)}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
