"""The monitor's pure parts: audits, probe, books, and the levels that are judged by them."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.monitors import audits, completeness, correctness, freshness, heartbeat, latency, probe, slo
from measurement.monitors.audits import BadAudit, Tally
from measurement.monitors.books import Book, Books, Row
from measurement.monitors.completeness import Said
from measurement.monitors.heartbeat import Job
from measurement.monitors.lasting import LOOKS, Lasting
from measurement.monitors.probe import DELIVERED, Probes, Verdict
from measurement.monitors.times import hour_of, instant, span

HOUR, MINUTE, SECOND = MICROS_PER_HOUR, 60 * MICROS_PER_SECOND, MICROS_PER_SECOND
NOW = hour_of(1_790_000_000 * SECOND)  # µs
LEVELS = slo.given(None).levels
NAMES = st.sampled_from(["web", "app", None])


# -- audits


@given(st.lists(st.tuples(NAMES, st.none() | st.integers(NOW, NOW + HOUR), st.integers(1, 9)), max_size=30), st.data())
def test_audits_add_up_to_what_was_sent_in_whatever_order_they_are_heard(sent, data):
    tally, said, messages = Tally("run-1"), Said(), []
    for i, (source, time, n) in enumerate(sent):
        tally.add(source, time, n)
        if i % 4 == 3:
            messages += tally.said(NOW + i)
    messages += tally.said(NOW + 99, ended=True)
    heard = data.draw(st.permutations([*messages, *messages]))  # each comes twice
    for message in heard:
        for row in audits.rows(audits.decode(message.encode()), NOW):
            minute = row["minute"] and round(row["minute"].timestamp()) * SECOND
            said.hear(row["publisher"], row["source"], minute, row["events"], row["state"], NOW, row["revision"])
    expected = Counter()
    for source, time, n in sent:
        if time is not None:
            expected[hour_of(time), source] += n
    assert +said.sums == expected
    assert not said.silent(NOW + HOUR, MINUTE)  # it has said that it ends


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[]", b"nonsense", b'{"publisher": 3}',
    b'{"publisher": "p", "number": 1, "sent_at": "then", "ended": false, "counts": []}',
    b'{"publisher": "p", "number": 1, "sent_at": "2026-03-02T06:00:00Z", "ended": false, "counts": [["web", null, -1]]}',
    b'{"publisher": "p", "number": 1, "sent_at": "2026-03-02T06:00:00Z", "ended": false, "counts": [["web", null, true]]}',
    b'{"publisher": "p", "number": 1, "sent_at": "2026-03-02T06:00:00Z", "ended": false, "counts": [["web"]]}',
    b'{"publisher": "p", "number": 1, "sent_at": "2026-03-02T06:00:00Z", "ended": false, "counts": [["", null, 1]]}',
    b'{"publisher": "' + b"p" * 2_000 + b'", "number": 1, "sent_at": "2026-03-02T06:00:00Z", "ended": false, "counts": []}',
])
def test_what_is_no_audit_is_told_in_a_line(data):
    with pytest.raises(BadAudit) as told:
        audits.decode(data)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_a_publisher_that_falls_silent_is_known_for_a_day():
    said = Said()
    said.hear("p", "web", NOW, 5, audits.SENDING, NOW, 1)
    assert said.silent(NOW + 5 * MINUTE, 10 * MINUTE) == {}
    assert said.silent(NOW + 11 * MINUTE, 10 * MINUTE) == {"p": 11 * MINUTE}
    assert said.silent(NOW + 25 * HOUR, 10 * MINUTE) == {}


# -- probe


def test_a_probe_is_six_messages_of_five_events_that_are_always_the_same():
    assert len(probe.messages(NOW)) == 6 and probe.messages(NOW) == probe.messages(NOW)
    assert len(set(probe.messages(NOW))) == 5
    assert not set(probe.messages(NOW)) & set(probe.messages(NOW + MINUTE))


def found(minute=NOW, delivered=DELIVERED, attributed=probe.ATTRIBUTED):
    name = probe.campaign(minute)
    rows = {("delivery", name): delivered} if delivered else {}
    return rows | ({("attribution", name, "last_touch"): attributed} if attributed else {})


@pytest.mark.parametrize(("rows", "expected"), [
    (found(), Verdict.found), ({}, Verdict.missing), (found(attributed=None), Verdict.missing), (found(delivered=None), Verdict.missing),
    (found(delivered={**DELIVERED, "clicks": 0}), Verdict.missing), (found(delivered={**DELIVERED, "clicks": 2}), Verdict.wrong),
    (found(attributed={"conversions": 2, "value_micros": probe.ATTRIBUTED["value_micros"]}), Verdict.wrong),
    (found(NOW + MINUTE), Verdict.missing),
])
def test_a_probe_is_found_as_it_was_sent_or_not(rows, expected):
    assert probe.verdict(NOW, rows) is expected


def test_each_probe_counts_once_at_each_end_when_it_is_there_or_when_its_time_is_over():
    level, probes = LEVELS["probe"], Probes(("bigtable", "bigquery"))
    probes.sent(NOW, NOW)
    waiting = probes.judge(level, NOW + MINUTE, {"bigtable": {}, "bigquery": None})
    assert (waiting.total, waiting.holds) == (0, None)
    first = probes.judge(level, NOW + 2 * MINUTE, {"bigtable": found(), "bigquery": {}})
    assert (first.good, first.total, first.holds) == (1, 1, True)
    late = probes.judge(level, NOW + level.at_most + SECOND, {"bigtable": found(), "bigquery": {}})
    assert (late.good, late.total, late.holds) == (0, 1, False) and "bigquery" in late.text
    again = probes.judge(level, NOW + level.at_most + MINUTE, {"bigtable": found(), "bigquery": found()})
    assert (again.good, again.total) == (0, 0)
    assert probes.judged == {("bigtable", Verdict.found): 1, ("bigquery", Verdict.missing): 1}


def test_a_probe_that_stands_wrong_is_no_longer_wrong_when_it_is_mended():
    level, probes = LEVELS["probe"], Probes(("bigquery",))
    probes.sent(NOW, NOW)
    assert probes.judge(level, NOW + MINUTE, {"bigquery": found(delivered={**DELIVERED, "clicks": 2})}).holds is False
    assert probes.wrong == [(NOW, "bigquery")] and probes.since == hour_of(NOW)
    probes.judge(level, NOW + 2 * MINUTE, {"bigquery": found()})
    assert probes.wrong == []


# -- books

SETTLE = 5 * MINUTE


def row(hour=NOW, kind="impression", outcome="counted", events=1, status="provisional", because=None, revision=1, published=NOW, source="web"):
    return Row(hour, source, kind, outcome, events, status, because, revision, published)


def arrival(**known):
    return row(**{"outcome": None, "status": None, **known})


revisions = st.lists(st.tuples(st.sampled_from([NOW, NOW + HOUR, None]), st.sampled_from(["impression", "click", "conversion"]),
                               st.sampled_from(["counted", "duplicate", "orphan"]), st.integers(0, 50)), min_size=1, max_size=25)


@given(revisions, st.data())
def test_a_book_holds_the_highest_revision_of_each_key_whatever_comes_again_or_late(said, data):
    rows = [row(hour, kind, outcome, n, revision=i) for i, (hour, kind, outcome, n) in enumerate(said)]
    last = {r.key: r for r in rows}
    book = Book()
    entered = sum(book.enter(r) for r in data.draw(st.permutations(rows + rows)))
    assert entered == sum(r.events for r in last.values())
    sums, follow_ups = Counter(), Counter()
    for r in last.values():
        if r.hour is not None:
            (follow_ups if r.event_type == "click" else sums)[r.hour if r.event_type == "click" else (r.hour, r.source)] += r.events
    assert (+book.sums, +book.follow_ups) == (+sums, +follow_ups)


def test_what_is_entered_is_told_from_the_second_look_on():
    books = Books()
    assert books.enter([row(events=10)]).events == 0
    entered = books.enter([row(events=12, revision=2), row(outcome="duplicate", events=3, status="restated", because="late")])
    assert entered.outcomes == {"counted": 2, "duplicate": 3} and entered.restated == {"late": 3}
    assert books.enter([row(events=12, revision=2)]).events == 0


def test_hours_are_complete_until_the_first_that_is_open_before_a_closed_one():
    books = Books()
    assert books.complete_until is None
    books.enter([row(NOW, status="final"), row(NOW + HOUR), row(NOW + 2 * HOUR)])
    assert books.complete_until == NOW + HOUR
    books.enter([row(NOW + 2 * HOUR, status="final", revision=2)])
    assert books.complete_until == NOW + HOUR  # the one between is still open
    books.enter([row(NOW + HOUR, status="final", revision=2)])
    assert books.complete_until == NOW + 3 * HOUR


def closed(books, hour=NOW, published=NOW + 2 * HOUR):
    books.enter([row(hour, "conversion", events=0, status="final", published=published)])


def test_what_arrived_and_is_not_in_the_ledger_a_while_later_is_lost():
    books = Books()
    books.arrive([arrival(events=5, published=NOW)])
    closed(books)
    books.enter([row(events=4, status="final", published=NOW + 2 * HOUR)])
    assert books.imbalance(SETTLE) == {(NOW, "web"): 1}
    books.enter([row(events=5, status="restated", revision=2, published=NOW + 2 * HOUR)])
    assert books.imbalance(SETTLE) == {}


def test_what_is_in_the_ledger_and_never_arrived_is_invented():
    books = Books()
    closed(books, published=NOW)
    books.enter([row(events=5, status="final", published=NOW)])
    books.arrive([arrival(events=4, published=NOW), arrival(hour=NOW + HOUR, published=NOW + HOUR)])
    assert books.imbalance(SETTLE) == {(NOW, "web"): -1}


def test_what_has_just_arrived_or_is_of_an_open_hour_or_of_a_ledger_that_stands_still_is_not_judged():
    books = Books()
    books.arrive([arrival(events=5, published=NOW + 2 * HOUR), arrival(hour=NOW + 5 * HOUR, events=7, published=NOW)])
    closed(books, published=NOW + 2 * HOUR + SETTLE - 1)
    assert books.imbalance(SETTLE) == {}
    closed(books, NOW - HOUR, published=NOW + 2 * HOUR + SETTLE)
    assert books.imbalance(SETTLE) == {(NOW, "web"): 5}


def test_follow_ups_wait_and_are_no_imbalance():
    books = Books()
    books.arrive([arrival(kind="click", events=5)])
    closed(books)
    assert books.imbalance(SETTLE) == {}
    assert books.waiting(NOW, SETTLE) == (5, 5)
    books.enter([row(kind="click", outcome="orphan", events=2, status="final")])
    assert books.waiting(NOW, SETTLE) == (3, 5) and books.waiting(NOW + HOUR, SETTLE) == (0, 0)
    books.arrive([arrival(kind="click", events=9, revision=2, published=NOW + 2 * HOUR)])
    assert books.waiting(NOW, SETTLE) == (3, 5)  # what has just arrived is on its way


def test_what_is_older_than_the_ledger_changes_is_forgotten():
    books = Books()
    books.arrive([arrival(hour=NOW - 100 * 24 * HOUR), arrival()])
    books.forget(NOW)
    assert set(books.arrivals.every) == {(NOW, "web")}


# -- levels


def test_freshness_is_good_up_to_its_limit_and_names_the_hours_beyond():
    level = LEVELS["freshness"]
    good = freshness.judge(level, NOW + level.at_most, NOW, 3)
    assert (good.good, good.total, good.holds, good.value) == (3, 3, True, level.at_most / SECOND)
    bad = freshness.judge(level, NOW + level.at_most + SECOND, NOW, 2)
    assert (bad.good, bad.total, bad.holds) == (0, 2, False)
    assert bad.hours == (instant(NOW),) and bad.since == instant(NOW + level.at_most)
    assert freshness.judge(level, NOW, None, 1).holds is None


@pytest.mark.parametrize(("job", "holds"), [
    (None, None), (Job(1, NOW, "running", SECOND), True), (Job(1, NOW, "running", 61 * SECOND), False), (Job(1, NOW, "failed"), False),
    (Job(1, NOW, "interrupted"), False), (Job(1, NOW, "ended"), None), (Job(1, NOW, "complete"), None),
])
def test_a_job_is_alive_dead_or_over(job, holds):
    assert heartbeat.judge(LEVELS["heartbeat"], job, 1).holds is holds


def test_latency_counts_events_in_time_and_says_where_they_are_not():
    level = LEVELS["latency"]
    assert latency.judge(level, {}).holds is None
    good = latency.judge(level, {("bigquery", 1_000): 990, ("bigtable", 60_000): 9, ("bigtable", 120_000): 1})
    assert (good.good, good.total, good.holds) == (999, 1000, True) and good.value == 1.0
    bad = latency.judge(level, {("bigquery", 1_000): 90, ("bigtable", None): 10})
    assert (bad.good, bad.total, bad.holds) == (90, 100, False) and "slow at bigtable" in bad.text


def heard(events, at=NOW, source="web", sent_at=NOW, state=audits.SENDING):
    said = Said()
    said.hear("p", source, at, events, state, sent_at, 1)
    return said


def judged(said, arrivals, close=NOW + HOUR, looks=LOOKS):
    """Of an hour that was closed at ``close``, with arrivals that go on for long after it."""
    books, lasting, level = Books(), Lasting(), LEVELS["completeness"]
    books.arrive([*arrivals, arrival(hour=NOW + 3 * HOUR, events=1, published=NOW + 3 * HOUR)])
    closed(books, published=close)
    for _ in range(looks):
        found = completeness.ratios(said, books, NOW - HOUR, NOW + HOUR, level.settle, "sub")
        sample = completeness.judge(level, NOW + 2 * HOUR, said, found, lasting, 1)
    return sample


def test_an_hour_is_held_against_what_was_said_when_it_has_closed_and_settled():
    ended = heard(100, state=audits.ENDED)
    assert judged(ended, [arrival(events=100)]).holds is True
    assert judged(ended, [arrival(events=60), arrival(kind="click", events=40)]).holds is True
    short = judged(ended, [arrival(events=99)])
    assert short.holds is False and short.value == 0.99 and short.hours == (instant(NOW),) and "99.0000% of what web sent" in short.text
    assert judged(ended, [], close=NOW + 3 * HOUR - LEVELS["completeness"].settle + 1).holds is not False
    assert judged(ended, [], close=NOW + 3 * HOUR - LEVELS["completeness"].settle).holds is False
    assert judged(heard(100, source=None, state=audits.ENDED), [arrival(events=100, source="sub")]).holds is True


def test_what_is_short_at_one_look_may_be_on_its_way():
    assert judged(heard(100, state=audits.ENDED), [arrival(events=9)], looks=LOOKS - 1).holds is True


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=8))
def test_what_lasts_was_so_at_each_of_the_last_looks(looks):
    lasting = Lasting()
    for wrong in looks:
        lasting.look(wrong)
    last = looks[-1] if looks else set()
    assert set(lasting.of(dict.fromkeys(last))) == {k for k in last if len(looks) >= LOOKS and all(k in look for look in looks[-LOOKS:])}


def test_a_silent_publisher_is_incompleteness_whatever_has_arrived():
    sample = judged(heard(100), [arrival(events=100)])
    assert sample.holds is False and "p has been silent for 2 h" in sample.text
    assert judged(Said(), []).holds is None


def test_any_imbalance_is_incorrect():
    level = LEVELS["correctness"]
    assert correctness.judge(level, False, {}, [], None, 1).holds is None
    assert correctness.judge(level, True, {}, [], None, 1).holds is True
    lost = correctness.judge(level, True, {(NOW, "web"): 2, (NOW, "app"): -3}, [(NOW, "bigquery")], None, 1)
    assert lost.holds is False and lost.value == 5 and lost.hours == (instant(NOW),)
    assert "2 events of web" in lost.text and "3 events of app" in lost.text and "never arrived" in lost.text


@pytest.mark.parametrize(("micros", "said"), [(0, "0 s"), (90 * SECOND, "90 s"), (12 * MINUTE, "12 min"), (HOUR, "1 h"), (HOUR + 20 * MINUTE, "1 h 20 min"),
                                              (76 * HOUR, "3 d 4 h")])
def test_durations_are_said_as_people_say_them(micros, said):
    assert span(micros) == said


# -- targets


def test_the_file_of_targets_gives_what_it_names_and_leaves_the_rest(tmp_path):
    path = tmp_path / "slo.yaml"
    path.write_text("levels:\n  freshness: {target: 99.5, at_most: 2h}\nflights: {c-1: 2026-03-02T06:00:00Z}\n")
    made, default = slo.given(path), slo.given(None)
    assert made.levels["freshness"] == replace(default.levels["freshness"], target=0.995, at_most=2 * HOUR)
    assert made.levels["latency"] == default.levels["latency"] and made.windows == default.windows
    assert made.flights == {"c-1": 1_772_431_200 * SECOND}


@pytest.mark.parametrize(("text", "told"), [
    ("levels: {fresh: {}}", "unknown key 'levels.fresh'"), ("levels: {freshness: {at_least: 1h}}", "unknown key 'levels.freshness.at_least'"),
    ("levels: {freshness: {at_most: soon}}", "levels.freshness.at_most"), ("levels: {freshness: {target: 101}}", "levels.freshness.target"),
    ("levels: {freshness: {severity: loud}}", "neither page nor ticket"), ("windows: []", "windows: must list"),
    ("windows: [{burn: 1, long: 1h}]", "windows[0]: needs"), ("windows: [{burn: 1, long: 1h, short: 2h, severity: page}]", "short must be shorter"),
    ("flights: {c: soon}", "flights.c"), ("speed: 1", "unknown key 'speed'"), ("levels: [", "not YAML"),
])
def test_a_wrong_file_of_targets_is_told_in_a_line_that_names_file_and_key(tmp_path, text, told):
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    with pytest.raises(slo.PolicyError) as error:
        slo.given(path)
    assert told in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
