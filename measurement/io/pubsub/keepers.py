"""The keepers of this process, by (run, reader): an engine finalizes marks long after it let go of their reader."""

import threading
from collections.abc import Callable

from measurement.io.pubsub.keeper import Keeper

_lock = threading.Lock()
_keepers: dict[tuple[str, int], Keeper] = {}


def find(key: tuple[str, int]) -> Keeper | None:
    with _lock:
        return _keepers.get(key)


def open_(key: tuple[str, int], make: Callable[[], Keeper]) -> Keeper:
    """The reader's keeper, a new one if there is none or it is closed."""
    with _lock:
        keeper = _keepers.get(key)
        if keeper is None or keeper.closed:
            keeper = _keepers[key] = make()
        return keeper


def drain(run: str, seconds: float) -> None:
    """Closes a run's keepers and waits for their last acknowledgements."""
    with _lock:
        ours = [_keepers.pop(key) for key in list(_keepers) if key[0] == run]
    for keeper in ours:
        keeper.drain(seconds)
