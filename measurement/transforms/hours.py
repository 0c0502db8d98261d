"""The log's lines on hours: one when an hour closes, one when a closed one is restated, told by the ledger's rows.

All events have a row there, and its totals have one key, so that an hour is told of in one place. A bundle that fails and is
run again tells again.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from measurement.columnar.deltas import BECAUSE, NO_HOUR
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.tables import LEDGER
from measurement.state.totals import FINAL, RESTATED, Revisions

_LOG = logging.getLogger("measurement.hours")
_OUTCOME = [c.name for c in LEDGER.texts].index("outcome")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST = 100  # hours restated in one publication that have lines of their own: a reject's hour is what its sender states


def tell(revisions: Revisions) -> None:
    """Logs what a publication of the ledger's rows says of hours."""
    for message, fields in told(revisions):
        _LOG.info(message, extra=fields)


def told(revisions: Revisions) -> Iterator[tuple[str, dict]]:
    """(message, fields) of each line. Rows without an hour have none."""
    timed = revisions.hours != NO_HOUR
    if (final := timed & (revisions.status == FINAL)).any():
        for hour in np.unique(revisions.hours[final]).tolist():
            yield _closed(hour, revisions, np.flatnonzero(final & (revisions.hours == hour)))
    if (restated := timed & (revisions.status == RESTATED)).any():
        yield from _restated(revisions.hours[restated] // MICROS_PER_HOUR, revisions.because[restated])


def _restated(hours: np.ndarray, because: np.ndarray) -> Iterator[tuple[str, dict]]:
    """``hours``: their numbers since 1970, by row."""
    found, rows = (a.tolist() for a in np.unique(hours * len(BECAUSE) + because, return_counts=True))
    for one, n in zip(found[-MOST:], rows[-MOST:]):
        hour, why = divmod(one, len(BECAUSE))
        at, why = _text(hour * MICROS_PER_HOUR), BECAUSE[why]
        yield (f"hour {at} restated ({why}): {n:,} rows of the ledger",
               {"event": "hour_restated", "hour": at, "because": why, "rows": n})
    if len(found) > MOST:
        others, n = len(found) - MOST, sum(rows[:-MOST])
        yield (f"{others:,} older hours restated: {n:,} rows of the ledger",
               {"event": "hours_restated", "hours": others, "rows": n})


def _closed(hour: int, revisions: Revisions, at: np.ndarray) -> tuple[str, dict]:
    by: dict[str, int] = {}
    for code, n in zip(revisions.codes[at, _OUTCOME].tolist(), revisions.counts[at, 0].tolist()):
        by[revisions.labels[code]] = by.get(revisions.labels[code], 0) + n
    by = {outcome: n for outcome, n in sorted(by.items()) if n}
    hour, events = _text(hour), sum(by.values())
    outcomes = ", ".join(f"{outcome} {n:,}" for outcome, n in by.items())
    return (f"hour {hour} closed: {events:,} events ({outcomes})",
            {"event": "hour_closed", "hour": hour, "events": events, "by_outcome": by})


def _text(hour: int) -> str:
    return (_EPOCH + timedelta(microseconds=hour)).isoformat().replace("+00:00", "Z")
