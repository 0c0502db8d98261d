import os
from collections.abc import Iterator

import pytest

from measurement.io.endpoints import Endpoints
from measurement.local import emulators


@pytest.fixture(scope="session")
def pubsub() -> Iterator[Endpoints]:
    there("Pub/Sub")
    with emulators.pubsub() as host:
        yield Endpoints(pubsub=host)


@pytest.fixture(scope="session")
def bigtable() -> Iterator[Endpoints]:
    there("Bigtable")
    with emulators.bigtable() as host:
        yield Endpoints(bigtable=host)


@pytest.fixture(scope="module")
def bigquery() -> Iterator[Endpoints]:
    """Project demo, dataset ads; one a module, since it slows with the queries it has answered."""
    there("BigQuery")
    with emulators.bigquery() as (rest, grpc):
        yield Endpoints(bigquery=rest, bigquery_storage=grpc)


def there(name: str) -> None:
    """Without the emulator a test is skipped at a desk and fails in CI, where a skip would pass unseen."""
    if lack := emulators.missing().get(name):
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"the {name} emulator is not there: {lack}")
