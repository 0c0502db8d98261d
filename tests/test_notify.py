"""Alerts told to a real HTTP server that takes them by PagerDuty's rules, or answers badly, late or not at all."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from measurement.failure import Failure
from measurement.monitors import notify
from measurement.monitors.alerts import Action, Alert, Notice
from measurement.monitors.notify import Deadman, Outbox, PagerDuty, Webhook, address
from measurement.monitors.slo import Severity

KEY = "0123456789abcdef0123456789abcdef"
NOW = 1_772_431_200_000_000  # 2026-03-02T06:00:00Z


class Server(ThreadingHTTPServer):
    """Keeps what it is sent. ``answers`` are the next requests': a status, "lost" (taken, and the connection closed without a word)
    or "held" (no answer before ``released``); where there are none, 202."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/secret-{KEY}"
        self.bodies: list[dict] = []  # of all that came
        self.taken: list[dict] = []  # of those that were answered with 2xx, or lost
        self.answers: list[int | str] = []
        self.released = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.answers.pop(0) if self.server.answers else 202
        self.server.bodies.append(body)
        if answer == "held":
            self.server.released.wait(30)
            return
        if answer == "lost" or answer < 300:
            self.server.taken.append(body)
        if answer != "lost":
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.released.set()
        found.shutdown()
        thread.join()


def alert(level: str = "freshness", window: str = "1h", summary: str = "freshness is broken", severity: Severity = Severity.page) -> Alert:
    return Alert("job", level, window, severity, NOW, summary, 5400.0, 0.999, 0.25, {"1h": 20.0}, ("adv-1",),
                 (datetime(2026, 3, 2, 4, tzinfo=UTC),), f"docs/runbooks/{level}.md", "measurement status --out DIR")


def trigger(*args, **of) -> Notice:
    return Notice(Action.trigger, alert(*args, **of))


def resolve(*args, **of) -> Notice:
    return Notice(Action.resolve, alert(*args, **of))


def check_event(event: dict) -> None:
    """The Events API v2's rules of an event ("Send an event": required fields, enumerations, lengths)."""
    assert set(event) <= {"routing_key", "event_action", "dedup_key", "payload", "images", "links", "client", "client_url"}
    assert len(event["routing_key"]) == 32 and event["event_action"] in ("trigger", "acknowledge", "resolve")
    assert 0 < len(event["dedup_key"]) <= 255
    if event["event_action"] != "trigger":
        return
    payload = event["payload"]
    assert set(payload) <= {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
    assert 0 < len(payload["summary"]) <= 1024 and payload["source"]
    assert payload["severity"] in ("critical", "error", "warning", "info")
    assert datetime.fromisoformat(payload["timestamp"]).tzinfo is not None
    for link in event.get("links", ()):
        assert urlsplit(link["href"]).scheme == "https"


def test_pagerduty_gets_events_by_its_rules(server):
    outbox = Outbox([PagerDuty(KEY, server.url, runbooks="https://git.example/blob/main/")])
    outbox.send([trigger(), trigger("late", "3d", severity=Severity.ticket, summary="x" * 3000), resolve()])
    for event in server.bodies:
        check_event(event)
    first, second, third = sorted(server.bodies, key=lambda e: (e["event_action"] == "resolve", e["dedup_key"]))
    assert first["payload"] | {"custom_details": None} == {
        "summary": "freshness is broken", "source": "job", "severity": "critical", "timestamp": "2026-03-02T06:00:00.000+00:00",
        "component": "freshness", "group": "measurement", "class": "burn rate over 1h", "custom_details": None}
    assert first["links"] == [{"href": "https://git.example/blob/main/docs/runbooks/freshness.md", "text": "Runbook"}]
    details = first["payload"]["custom_details"]
    assert (details["command"], details["advertisers"], details["hours"], details["spent"]) == (
        "measurement status --out DIR", ["adv-1"], ["2026-03-02T04:00:00+00:00"], 0.25)
    assert (second["payload"]["severity"], second["payload"]["summary"][-2:]) == ("warning", "x…")
    assert third == {"routing_key": KEY, "event_action": "resolve", "dedup_key": first["dedup_key"]}


def test_a_webhook_gets_every_field(server):
    Outbox([Webhook(server.url)]).send([trigger()])
    assert server.bodies == [{
        "action": "trigger", "key": "measurement/job/freshness/1h", "job": "job", "level": "freshness", "window": "1h", "severity": "page",
        "since": "2026-03-02T06:00:00.000+00:00", "summary": "freshness is broken", "value": 5400.0, "target": 0.999, "spent": 0.25,
        "rates": {"1h": 20.0}, "advertisers": ["adv-1"], "hours": ["2026-03-02T04:00:00+00:00"], "runbook": "docs/runbooks/freshness.md",
        "command": "measurement status --out DIR"}]


@pytest.mark.parametrize("answer", [429, 500, 503, "lost"])
def test_what_is_not_taken_is_tried_again_at_the_next_look_a_resolve_behind_its_trigger(server, answer):
    outbox = Outbox([Webhook(server.url)])
    server.answers = [answer, answer]
    outbox.send([trigger()])
    outbox.send([resolve()])
    assert (len(server.bodies), len(outbox)) == (2, 2)
    outbox.send([])
    assert ([b["action"] for b in server.bodies[2:]], len(outbox)) == (["trigger", "resolve"], 0)
    outbox.send([])
    assert len(server.bodies) == 4


@pytest.mark.parametrize("answer", [301, 400, 403, 404])
def test_what_is_refused_for_good_is_dropped_with_an_error(server, answer, caplog):
    outbox = Outbox([Webhook(server.url)])
    server.answers = [answer]
    outbox.send([trigger(), trigger("late")])
    assert (len(server.bodies), len(outbox)) == (2, 0)
    [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == f"trigger of measurement/job/freshness/1h is lost: 127.0.0.1 refused it with {answer}"


def test_one_that_is_never_taken_stops_no_other(server):
    outbox = Outbox([Webhook(server.url)])
    server.answers = [500]
    outbox.send([trigger("freshness"), trigger("late")])
    server.answers = [202, 500]
    outbox.send([])
    assert [b["level"] for b in server.bodies] == ["freshness", "late", "freshness"]
    assert [b["level"] for b in server.taken] == ["late"] and len(outbox) == 1


def test_receivers_do_not_wait_for_each_other(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{free.getsockname()[1]}/"
    outbox = Outbox([Webhook(refused), PagerDuty(KEY, server.url)])
    outbox.send([trigger()])
    assert len(server.taken) == 1 and len(outbox) == 1


def test_a_receiver_that_does_not_answer_holds_a_look_for_no_longer_than_it_may(server, monkeypatch):
    monkeypatch.setattr(notify, "REQUEST_SECONDS", 0.3)
    outbox = Outbox([Webhook(server.url)])
    server.answers = ["held"] * 10
    began = time.monotonic()
    outbox.send([trigger(level) for level in ("freshness", "late", "probe")])
    assert time.monotonic() - began < 2
    assert (len(server.bodies), len(outbox)) == (1, 3)


def test_a_slow_receiver_gets_the_rest_at_the_next_look(server):
    clock = iter(range(0, 1000, 2))  # two seconds a look at the clock
    outbox = Outbox([Webhook(server.url)], clock=lambda: next(clock))
    outbox.send([trigger(level) for level in ("freshness", "late", "probe")])
    assert (len(server.taken), len(outbox)) == (1, 2)
    outbox.send([])
    outbox.send([])
    assert len(server.taken) == 3 and len({b["level"] for b in server.taken}) == 3


def test_what_waits_is_bounded_and_ends_in_what_is_so(server):
    outbox = Outbox([Webhook(server.url)])
    server.answers = [500] * 1000
    for _ in range(100):
        outbox.send([trigger()])
        outbox.send([resolve()])
    outbox.send([trigger()])
    assert len(outbox) <= 2
    server.answers.clear()
    outbox.send([])
    assert server.taken[-1]["action"] == "trigger" and len(outbox) == 0


_levels = st.sets(st.sampled_from(["freshness", "late", "probe"]))
_answers = st.lists(st.sampled_from([202, 202, 429, 500, "lost"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(_levels, _answers), max_size=12))
def test_whatever_outages_there_are_what_pagerduty_has_open_in_the_end_is_what_is_open(server, looks):
    outbox, open_, keys = Outbox([PagerDuty(KEY, server.url)]), set(), {}
    server.taken.clear()
    server.answers.clear()
    for firing, answers in looks:
        server.answers[:] = answers
        outbox.send([trigger(level) for level in sorted(firing - open_)] + [resolve(level) for level in sorted(open_ - firing)])
        open_ = firing
    server.answers.clear()
    outbox.send([])
    assert len(outbox) == 0
    for event in server.taken:
        check_event(event)
        keys[event["dedup_key"]] = event["event_action"]
    assert {key.split("/")[2] for key, action in keys.items() if action == "trigger"} == open_
    if not any("lost" in answers for _, answers in looks):  # what is taken and not known to be is sent again
        by_key = [[e["event_action"] for e in server.taken if e["dedup_key"] == key] for key in keys]
        assert all(actions == ["trigger", "resolve"] * (len(actions) // 2) + ["trigger"] * (len(actions) % 2) for actions in by_key)


def test_a_dead_mans_signal_says_when(server, caplog):
    deadman = Deadman(server.url)
    assert deadman.signal(datetime(2026, 3, 2, 6, tzinfo=UTC))
    assert server.bodies == [{"at": "2026-03-02T06:00:00+00:00"}]
    server.answers = [500, "lost"]
    assert not deadman.signal(datetime.now(UTC)) and not deadman.signal(datetime.now(UTC))
    assert len(caplog.records) == 2


def test_no_key_and_no_path_is_ever_shown(server, caplog):
    caplog.set_level(logging.DEBUG)
    receivers = [PagerDuty(KEY, server.url), Webhook(server.url)]
    server.answers = [500, 404, "lost"]
    outbox = Outbox(receivers)
    for _ in range(3):
        outbox.send([trigger(), resolve()])
    server.answers = ["lost"]
    Deadman(server.url).signal(datetime.now(UTC))
    assert caplog.records
    shown = [record.getMessage() for record in caplog.records] + [repr(r) for r in receivers] + [repr(Deadman(server.url))]
    assert not any(KEY in text for text in shown), shown


@pytest.mark.parametrize("given_", ["", "hooks.example/x", "ftp://hooks.example/x", "https://", "/path"])
def test_what_is_no_address_is_refused_by_its_flag_and_not_shown(given_):
    with pytest.raises(Failure, match=r"^--webhook: must be an address that begins with http:// or https://$"):
        address("--webhook", given_)
    assert address("--webhook", "https://hooks.example/x") == "https://hooks.example/x"
