"""The BigQuery emulator hangs where a query meets an append, for a minute or for good: all who use one take turns."""

import contextlib
import fcntl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from measurement.io.endpoints import Endpoints

_here = threading.Lock()  # of this process: a file's lock is the process's


def turn(endpoints: Endpoints) -> AbstractContextManager:
    """Held during a query or an append, by one process of the machine; of no effect on the service itself."""
    return nullcontext() if endpoints.bigquery is None else _emulator(endpoints.bigquery)


@contextlib.contextmanager
def _emulator(host: str) -> Iterator[None]:
    with _here, Path(tempfile.gettempdir(), f"bigquery-emulator-{host.replace(':', '-')}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
