"""The BigQuery emulator hangs where a query meets an append, for a minute or for good. In one process they take turns."""

import threading
from contextlib import AbstractContextManager, nullcontext

from measurement.io.endpoints import Endpoints

_emulator = threading.Lock()


def turn(endpoints: Endpoints) -> AbstractContextManager:
    """Held during a query or an append; of no effect on the service itself."""
    return nullcontext() if endpoints.bigquery is None else _emulator
