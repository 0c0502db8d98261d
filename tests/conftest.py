import atexit
import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

from emulator_fixtures import bigquery, bigtable, pubsub  # noqa: F401 (fixtures)
from measurement.local.prism import find_prism

# The same examples on every machine and no time limit on a busy one; a failure prints how to run it again.
settings.register_profile("measurement", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("measurement")

# Beam announces an engine's start and end as warnings, the end after pytest's summary.
logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)


@atexit.register
def quiet():
    """DuckDB's bindings list on standard error what they did not free when the interpreter ends, behind pytest's summary."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@pytest.fixture(scope="session")
def prism() -> Path:
    """The engine; without one a test is skipped at a desk and fails in CI, where a skip would pass unseen."""
    found = find_prism()
    if found is None:
        lack = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        lack("Prism is not there: `make engine` fetches or builds it")
    return found
