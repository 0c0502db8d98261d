"""The log's lines: of JSON or text, one for each hour that closes or is restated, none for an event."""

import io
import json
import logging
from datetime import datetime

import numpy as np
import pytest

from measurement import logs
from measurement.columnar.deltas import BECAUSE, NO_HOUR
from measurement.state.totals import FINAL, PROVISIONAL, RESTATED, Revisions
from measurement.transforms import hours
from oracle import HOUR
from test_oracle import T

LABELS = ["s", "click", "counted", "duplicate"]


def revisions(*rows: tuple[int, int, int, int, str]) -> Revisions:
    """Of the ledger: (hour, outcome's label, events, status, because)."""
    at, outcome, events, status, because = zip(*rows)
    n = len(rows)
    codes = np.array([[0, 1, o] for o in outcome], np.int32)
    return Revisions(np.array(at), codes, np.array(events)[:, None], np.array(status), np.array([BECAUSE.index(b) for b in because]),
                     np.ones(n, np.int64), LABELS)


@pytest.fixture
def lines():
    """What is logged in either format, as it comes; the process's logging is as before when it is over."""
    root, ours = logging.getLogger(), logging.getLogger("measurement")
    before = root.handlers[:], root.level, ours.level
    said = io.StringIO()

    def configure(form: str) -> io.StringIO:
        root.handlers = []  # a test's runner has its own
        logs.configure(form)
        root.handlers[0].setStream(said)
        return said

    yield configure
    root.handlers, root.level = before[0], before[1]
    ours.setLevel(before[2])


def hour() -> int:
    return T // HOUR * HOUR


def test_an_hour_that_closes_has_one_line_with_its_events_by_outcome(lines):
    said = lines("json")
    hours.tell(revisions((hour(), 2, 10, FINAL, ""), (hour(), 3, 2, FINAL, ""), (hour(), 2, 5, FINAL, ""), (hour() + HOUR, 2, 1, PROVISIONAL, ""),
                         (NO_HOUR, 2, 1, FINAL, "")))
    [line] = map(json.loads, said.getvalue().splitlines())
    at = datetime.fromisoformat(line.pop("time"))
    assert at.utcoffset().total_seconds() == 0
    told = datetime.fromisoformat(line["hour"]).timestamp() * 1e6
    assert told == hour() and line.pop("hour").endswith("Z") and line.pop("message")
    assert line == {"level": "INFO", "logger": "measurement.hours", "event": "hour_closed", "events": 17,
                    "by_outcome": {"counted": 15, "duplicate": 2}}


def test_an_hour_that_is_restated_has_one_line_for_each_reason(lines):
    said = lines("json")
    hours.tell(revisions(*[(hour(), 2, 10, RESTATED, why) for why in ("late", "late", "order")], (hour() + HOUR, 2, 1, RESTATED, "late"),
                         (NO_HOUR, 2, 1, RESTATED, "late")))
    found = [json.loads(line) for line in said.getvalue().splitlines()]
    assert {(line["event"], datetime.fromisoformat(line["hour"]).timestamp() * 1e6 - hour(), line["because"], line["rows"]) for line in found} == {
        ("hour_restated", 0, "late", 2), ("hour_restated", 0, "order", 1), ("hour_restated", HOUR, "late", 1)}
    assert len(found) == 3


def test_hours_that_senders_make_up_have_a_line_together():
    told = [fields for _, fields in hours.told(revisions(*[(hour() - n * HOUR, 2, 1, RESTATED, "late") for n in range(hours.MOST + 7)]))]
    assert len(told) == hours.MOST + 1 and told[-1] == {"event": "hours_restated", "hours": 7, "rows": 7}
    assert max(line["hour"] for line in told[:-1]) == told[-2]["hour"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_only_our_own_loggers_are_heard_at_info(lines, form):
    said = lines(form)
    logging.getLogger("apache_beam.runners").info("noise")
    logging.getLogger("measurement.hours").debug("detail")
    assert said.getvalue() == ""
    logging.getLogger("apache_beam.runners").warning("trouble")
    logging.getLogger("measurement.hours").info("news")
    assert said.getvalue().count("\n") == 2


def test_an_exception_is_one_line_of_json_too(lines):
    said = lines("json")
    try:
        raise ValueError("what\nwent wrong")
    except ValueError:
        logging.exception("the job failed")
    [line] = map(json.loads, said.getvalue().splitlines())
    assert (line["level"], line["message"]) == ("ERROR", "the job failed") and "went wrong" in line["exception"]
