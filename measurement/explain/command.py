"""The command `explain`: what became of one event and why, and whether the tables say the same."""

import json
from collections.abc import Callable

from rich.console import Console

from measurement.explain.explanation import Reading, explain
from measurement.explain.show import show
from measurement.explain.tree import tree
from measurement.failure import Failure
from measurement.model.policy import Policy


def run(read: Callable[[], Reading], event_id: str, policy: Policy, *, as_json: bool = False) -> int:
    """Prints the explanation and returns the exit code: 0 if the event was received and everything agrees, else 1."""
    try:
        event_id.encode()
    except UnicodeEncodeError as error:
        raise Failure("EVENT_ID: is no UTF-8 text, and no event has such an id") from error
    if not event_id:
        raise Failure("EVENT_ID: is empty, and no event has such an id")
    reading, waiting = read(), Console(stderr=True)
    if waiting.is_terminal:
        with waiting.status("reading what was received, twice"):
            explained = explain(reading, event_id, policy)
    else:
        explained = explain(reading, event_id, policy)
    if as_json:
        print(json.dumps(tree(explained)))
    else:
        show(explained)
    return 0 if explained.stories and explained.agrees else 1
