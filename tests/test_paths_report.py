"""Paths of stored facts, the comparison of models over them, and its page: every rule by hand, and against a slow oracle."""

import csv
import json
import subprocess
import sys
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path as File
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement import cli
from measurement.failure import Failure
from measurement.model.attribution import CLICK_OVER_VIEW, MODELS, NO_PRIORITY, Attribution, AttributionRule, Terms
from measurement.model.policy import Policy
from measurement.paths import command, compare as comparing, journeys as module, report
from measurement.paths.compare import ALL_MODELS, Comparison, Model, compare
from measurement.paths.facts import Facts
from measurement.paths.journeys import exact_sums, journeys
from measurement.rules.attribution import CREDIT_UNITS
from measurement.rules.paths import Path
from oracle import DAY, HOUR
from test_paths import BRYL, PUZYROV, many_channels

START = 20_000 * DAY
LARGEST = 2**63 - 1


def touch(user, channel, time, *, click=False, impression=None, id=None, advertiser="a"):
    """``user`` 0: none. Without ``impression`` an impression of its own."""
    return SimpleNamespace(**locals())


def conversion(user, time, *, value=0, currency="EUR", advertiser="a"):
    return SimpleNamespace(**locals())


def facts(touches, conversions) -> Facts:
    codes = [sorted({getattr(x, name) for x in of}, key=lambda t: (t is None, t or "")) for name, of in (
        ("advertiser", [*touches, *conversions]), ("channel", touches), ("currency", conversions))]

    def code(which, texts):
        return np.array([codes[which].index(t) for t in texts], np.int32)

    def prints(of):
        # Both halves count: users differ in either, and impressions too.
        return np.array([(0, 0) if not x else (x % 3 + 1, x // 3) for x in of], np.uint64).reshape(-1, 2)

    def users(of):
        return prints([x.user and x.user * 16 + codes[0].index(x.advertiser) for x in of])

    return Facts(
        *codes, users(touches), code(0, [t.advertiser for t in touches]), code(1, [t.channel for t in touches]),
        np.array([t.time for t in touches], np.int64), np.array([t.click for t in touches], bool),
        prints([i + 1_000 if t.impression is None else t.impression + 1 for i, t in enumerate(touches)]),
        [t.id or f"e{i:04}" for i, t in enumerate(touches)],
        users(conversions), code(0, [c.advertiser for c in conversions]), np.array([c.time for c in conversions], np.int64),
        np.array([c.value for c in conversions], np.int64), code(2, [c.currency for c in conversions]))


def found(touches, conversions, rule=AttributionRule(), since=None, until=None) -> dict[tuple, tuple[int, int]]:
    """Conversions and nulls by sequence, of the one advertiser."""
    of = journeys(facts(touches, conversions), Attribution((Terms(default=rule),)), since, until)
    return dict(zip(of[0].sequences, of[0].counts)) if of else {}


# --- Converting paths ----------------------------------------------------------------------------------------

def test_eligible_touches_in_order():
    touches = [touch(1, "late", START + 9 * HOUR), touch(1, "early", START), touch(1, "other", START, advertiser="b"),
               touch(2, "stranger", START), touch(1, "at it", START + 10 * HOUR)]
    assert found(touches[:4], [conversion(1, START + 10 * HOUR)])["early", "late"] == (1, 0)
    # What is at the conversion's very time did not lead to it.
    assert found(touches, [conversion(1, START + 10 * HOUR)])["at it",] == (0, 1)


def test_lookbacks_include_their_ends():
    for click, lookback in (True, 30 * DAY), (False, DAY):
        for off, outcome in (0, (1, 0)), (1, (0, 1)):
            assert found([touch(1, "x", START - lookback - off, click=click)], [conversion(1, START)]) == {("x",): outcome}


def test_equal_times_go_by_event_id():
    ids = ["b", "a", "c", "é", "Z"]
    assert found([touch(1, i, START, id=i) for i in ids], [conversion(1, START + 1)]) == {tuple(sorted(ids)): (1, 0)}


def test_an_impression_is_one_touch():
    touches = [touch(1, "seen", START, impression=7), touch(1, "clicked", START + 1, click=True, impression=7),
               touch(1, "clicked again", START + 2, click=True, impression=7)]
    assert found(touches, [conversion(1, START + HOUR)]) == {("clicked again",): (1, 0)}
    assert found(touches, []) == {("clicked again",): (0, 1)}
    # Before the clicks the impression stands for itself; after the conversion they stand for it.
    assert found(touches, [conversion(1, START + 1)]) == {("seen",): (1, 0), ("clicked again",): (0, 1)}


def test_priority():
    touches = [touch(1, "seen", START), touch(1, "clicked", START + 1, click=True), touch(1, "seen too", START + 2)]
    for conversions, outcome in ([conversion(1, START + HOUR)], (1, 0)), ([], (0, 1)):
        assert found(touches, conversions) == {("clicked",): outcome}
        alike = replace(AttributionRule(), priority=NO_PRIORITY)
        assert found(touches, conversions, alike) == {("seen", "clicked", "seen too"): outcome}


def test_conversions_without_a_touch_stand_apart():
    of, = journeys(facts([touch(1, "x", START)], [
        conversion(0, START + 1, value=5), conversion(2, START + 1, value=7, currency=None), conversion(1, START + 1, value=11)]),
        Attribution())
    assert (of.conversions, of.untouched, of.converting, of.nulls, of.touches) == (3, 2, 1, 0, 1)
    assert of.currencies == ("EUR", None) and of.value == (16, 7) and of.untouched_value == (5, 7)
    assert of.paths(0) == [Path(("x",), 1, 11)] and of.paths(1) == [Path(("x",), 1, 0)]


def test_nobodys_touches():
    assert found([touch(0, "x", START)], [conversion(0, START + 1)]) == {}


def test_each_conversion_has_its_path():
    touches = [touch(1, "x", START), touch(1, "y", START + 2)]
    assert found(touches, [conversion(1, START + 1), conversion(1, START + 3)]) == {("x",): (1, 0), ("x", "y"): (1, 0)}


def test_no_campaign_and_repeats():
    assert found([touch(1, None, START), touch(1, None, START + 1), touch(1, "", START + 2)], [conversion(1, START + 3)]) == {
        (module.NO_CHANNEL, module.NO_CHANNEL, ""): (1, 0)}


def test_terms_hold_from_their_time():
    short = AttributionRule(view_lookback=HOUR)
    attribution = Attribution((Terms(), Terms(START, default=short)))
    of, = journeys(facts([touch(1, "x", START - 3 * HOUR), touch(2, "x", START - 3 * HOUR)],
                         [conversion(1, START - 1, value=1), conversion(2, START, value=1)]), attribution)
    assert dict(zip(of.sequences, of.counts)) == {("x",): (1, 1)}
    assert of.rules == (AttributionRule(), short)


# --- Non-converting paths ------------------------------------------------------------------------------------

def test_what_no_conversion_followed():
    """A view two days before the conversion led nowhere; one within its lookback led there, even if a click displaced it."""
    touches = [touch(1, "old view", START - 2 * DAY), touch(1, "view", START - 2), touch(1, "click", START - 1, click=True),
               touch(1, "after", START + 1)]
    assert found(touches, [conversion(1, START)]) == {("old view",): (0, 1), ("click",): (1, 0), ("after",): (0, 1)}


def test_cut_where_touches_lie_far_apart():
    rule = replace(AttributionRule(), click_lookback=3 * DAY)
    times = [0, 3 * DAY, 6 * DAY + 1]
    assert found([touch(1, f"x{i}", START + t) for i, t in enumerate(times)], [], rule) == {("x0", "x1"): (0, 1), ("x2",): (0, 1)}
    # A view joins two clicks only as long as it stands.
    clicked = [touch(1, f"x{i}", START + t, click=i != 1) for i, t in enumerate(times[:2] + [6 * DAY])]
    assert found(clicked, [], rule) == {("x0",): (0, 1), ("x2",): (0, 1)}
    assert found(clicked, [], replace(rule, priority=NO_PRIORITY)) == {("x0", "x1", "x2"): (0, 1)}


def test_cut_at_conversions():
    touches = [touch(1, "x", START), touch(1, "y", START + 3 * DAY)]
    assert found(touches, [conversion(1, START + 2 * DAY)]) == {("x",): (0, 1), ("y",): (0, 1)}
    assert found(touches, [conversion(1, START + 3 * DAY)]) == {("x",): (0, 1), ("y",): (0, 1)}  # at the later one's time
    assert found(touches, [conversion(1, START + 3 * DAY + 1)]) == {("x",): (0, 1), ("y",): (1, 0)}
    for other in conversion(2, START + 2 * DAY), conversion(1, START):
        assert found(touches, [other]) == {("x", "y"): (0, 1)}


def test_range():
    """Conversions by their time and other paths by their last touch's; what lies outside still follows, and still cuts."""
    touches = [touch(1, "x", START - HOUR), touch(1, "y", START + HOUR), touch(2, "z", START - HOUR), touch(2, "z", START)]
    conversions = [conversion(1, START), conversion(1, START + 2 * HOUR)]
    assert found(touches, conversions, since=START, until=START + 2 * HOUR) == {("x",): (1, 0), ("z", "z"): (0, 1)}
    assert found(touches, conversions, until=START) == {}
    assert found(touches, conversions, since=START + 1) == {("x", "y"): (1, 0)}


def test_advertisers():
    touches = [touch(1, "x", START), touch(1, "y", START, advertiser="b"), touch(1, "z", START, advertiser="c")]
    given = facts(touches, [conversion(1, START + 1), conversion(1, START + 1, advertiser="b"),
                            conversion(9, START, advertiser="d")])
    rules = Attribution((Terms(advertisers={"b": AttributionRule(view_lookback=1), "a": AttributionRule()}),))
    all_of = journeys(given, rules)
    assert [(j.advertiser, j.conversions, j.sequences) for j in all_of] == [
        ("a", 1, (("x",),)), ("b", 1, (("y",),)), ("c", 0, (("z",),)), ("d", 1, ())]
    assert all_of[1].rules[0].view_lookback == 1
    for j in all_of:
        alone, = journeys(given, rules, advertiser=j.advertiser)
        assert (alone.sequences, alone.counts, alone.values, alone.touches) == (j.sequences, j.counts, j.values, j.touches)
    with pytest.raises(ValueError):
        journeys(given, rules, advertiser="e")


def test_nothing_at_all():
    assert journeys(facts([], []), Attribution()) == []


# --- Against an oracle ---------------------------------------------------------------------------------------

def oracle(touches, conversions, attribution: Attribution, since, until):
    """Conversions, micros and nulls by advertiser and sequence, straight from the definition."""
    out: dict = defaultdict(lambda: [0, Counter(), 0])
    ids = {id(t): t.id or f"e{i:04}" for i, t in enumerate(touches)}
    prints = {id(t): (x % 3 + 1, x // 3) for i, t in enumerate(touches)
              for x in [i + 1_000 if t.impression is None else t.impression + 1]}

    def order(t):
        return t.time, ids[id(t)], prints[id(t)]

    def sequence(of):
        return tuple(module.NO_CHANNEL if t.channel is None else t.channel for t in of)

    led: set[int] = set()
    for c in conversions:
        rule = attribution.rule_for(c.advertiser, c.time)
        mine = [t for t in touches if t.user and (t.user, t.advertiser) == (c.user, c.advertiser)
                and 0 < c.time - t.time <= (rule.click_lookback if t.click else rule.view_lookback)]
        led |= {id(t) for t in mine}
        clicked = {prints[id(t)]: t for t in sorted(mine, key=order) if t.click}
        views = [t for t in mine if not t.click and prints[id(t)] not in clicked]
        stand = [*clicked.values(), *(views if not clicked or rule.priority != CLICK_OVER_VIEW else [])]
        if since <= c.time < until and stand:
            found = out[c.advertiser, sequence(sorted(stand, key=order))]
            found[0] += 1
            found[1][c.currency] += c.value
    people = {(t.user, t.advertiser) for t in touches if t.user}
    for user, advertiser in people:
        mine = sorted((t for t in touches if (t.user, t.advertiser) == (user, advertiser)), key=order)
        latest = {}
        for t in sorted(mine, key=lambda t: (t.click, order(t))):
            latest[prints[id(t)]] = t
        mine = [t for t in mine if latest[prints[id(t)]] is t and id(t) not in led]
        at = sorted(c.time for c in conversions if (c.user, c.advertiser) == (user, advertiser))

        def cut(of):
            paths = []
            for t in of:
                lookback = attribution.rule_for(advertiser, t.time).click_lookback
                before = paths[-1][-1] if paths else None
                if before and t.time - before.time <= lookback and bisect_right(at, before.time) == bisect_right(at, t.time):
                    paths[-1].append(t)
                else:
                    paths.append([t])
            return paths

        for path in cut(mine):
            clicks = [t for t in path if t.click]
            alone = clicks and attribution.rule_for(advertiser, path[-1].time).priority == CLICK_OVER_VIEW
            for part in cut(clicks) if alone else [path]:
                if since <= part[-1].time < until:
                    out[advertiser, sequence(part)][2] += 1
    return {key: (n, {k: v for k, v in value.items() if v}, nulls) for key, (n, value, nulls) in out.items()}


@st.composite
def worlds(draw):
    """Few users, moments, ids and impressions, so that ties, clicks and conversions meet."""
    moment = st.integers(0, 14).map(lambda h: START + h * HOUR)
    who, of = st.integers(0, 3), st.sampled_from("ab")
    touches = draw(st.lists(st.builds(
        touch, who, st.sampled_from(["x", "y", None]), moment, click=st.just(False), impression=st.integers(0, 60),
        id=st.sampled_from(["p", "q", "rr"]), advertiser=of), max_size=14, unique_by=lambda t: t.impression))
    seen = [t.impression for t in touches] or [99]
    touches += draw(st.lists(st.builds(
        touch, who, st.sampled_from(["x", "z"]), moment, click=st.just(True), impression=st.sampled_from(seen),
        id=st.sampled_from(["p", "q", "s", "t", "u"]), advertiser=of),
        max_size=10, unique_by=lambda t: (t.impression, t.id)))
    conversions = draw(st.lists(st.builds(
        conversion, who, moment, value=st.sampled_from([0, 1, 10**9, LARGEST]), currency=st.sampled_from(["EUR", None]),
        advertiser=of), max_size=8))
    spans = st.integers(1, 6).map(lambda h: h * HOUR)
    rule = st.builds(AttributionRule, st.just(("linear",)), spans, spans, st.sampled_from([CLICK_OVER_VIEW, NO_PRIORITY]))
    terms = [Terms(default=draw(rule)), Terms(START + 7 * HOUR, draw(rule), {"b": draw(rule)})]
    since = draw(st.integers(0, 8))
    return touches, conversions, Attribution(tuple(terms)), START + since * HOUR, START + (since + draw(st.integers(1, 15))) * HOUR


@pytest.mark.parametrize("pieces", [1, 1 << 22])
@given(world=worlds())
@settings(max_examples=300)
def test_against_oracle(pieces, world):
    touches, conversions, attribution, since, until = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CANDIDATES", pieces)
        made = journeys(facts(touches, conversions), attribution, since, until)
    found = {
        (j.advertiser, sequence): (n, {c: of[i] for c, of in zip(j.currencies, j.values) if of[i]}, nulls)
        for j in made for i, (sequence, (n, nulls)) in enumerate(zip(j.sequences, j.counts))}
    assert found == oracle(touches, conversions, attribution, since, until)
    for j in made:
        inside = [c for c in conversions if c.advertiser == j.advertiser and since <= c.time < until]
        assert j.conversions == len(inside) == j.untouched + sum(n for n, _ in j.counts)
        assert sum(j.value) == sum(c.value for c in inside) == sum(j.untouched_value) + sum(map(sum, j.values))
        for of in comparisons_of(j):
            assert all(sum(m.credit) == j.converting * CREDIT_UNITS for m in of.models)
            for i, (whole, rest) in enumerate(zip(j.value, j.untouched_value)):
                assert {sum(m.micros[i]) for m in of.models} == {whole - rest}


def comparisons_of(j) -> list[Comparison]:
    return [whole := compare(j, 2), whole.top(1)] if j.conversions else []


def test_sums_beyond_64_bits():
    assert exact_sums(np.array([1, 1, 0, 1]), np.array([LARGEST, LARGEST, 3, LARGEST]), 3) == [3, 3 * LARGEST, 0]


# --- The comparison ------------------------------------------------------------------------------------------

def walked(paths: list[Path], advertiser="a") -> tuple[list, list]:
    """Facts that make these paths: a user for each walk, an hour between touches; a path's value with its first conversion."""
    touches, conversions, user = [], [], 0
    for path in paths:
        for walk in range(path.conversions + path.nulls):
            user += 1
            touches += [touch(user, c, START + i * HOUR, advertiser=advertiser) for i, c in enumerate(path.channels)]
            if walk < path.conversions:
                conversions.append(conversion(user, START + len(path.channels) * HOUR, advertiser=advertiser,
                                              value=0 if walk else path.value))
    return touches, conversions


def compared(paths: list[Path], order=1, advertiser="a") -> Comparison:
    of, = journeys(facts(*walked(paths, advertiser)), Attribution())
    return compare(of, order)


def by_campaign(of: Comparison, name: str) -> dict[str, int]:
    return dict(zip(of.campaigns, next(m for m in of.models if m.name == name).credit))


def test_published_examples_through_the_whole_chain():
    """Bryl 2016 and Puzyrov 2019, from touches on (references in test_paths)."""
    of = compared(BRYL)
    assert by_campaign(of, "markov") == {"C1": 200_000_000, "C2": 400_000_000, "C3": 400_000_000}
    assert by_campaign(of, "last_touch") == {"C1": 0, "C2": 0, "C3": CREDIT_UNITS}
    assert by_campaign(of, "first_touch") == {"C1": CREDIT_UNITS, "C2": 0, "C3": 0}
    assert by_campaign(of, "linear") == {"C1": 333_333_334, "C2": 333_333_333, "C3": 333_333_333}
    assert by_campaign(of, "position_based") == {"C1": 400_000_000, "C2": 200_000_000, "C3": 400_000_000}
    assert next(m for m in of.models if m.name == "markov").micros[0] == (400, 200, 400)
    assert of.campaigns == ("C3", "C1", "C2") and [m.name for m in of.models] == list(ALL_MODELS)
    assert by_campaign(compared(PUZYROV), "markov") == {"google ads": 2_400_000_000, "mailing": 1_600_000_000}
    assert by_campaign(compared(PUZYROV), "shapley") == {"google ads": 2_500_000_000, "mailing": 1_500_000_000}


def test_each_conversion_by_the_rule_of_its_time():
    weights = AttributionRule(position_weights=(1, 0, 0))
    touches = [touch(u, c, START + h * HOUR) for u in (1, 2) for h, c in enumerate("xyz")]
    given = facts(touches, [conversion(1, START + 3 * HOUR, value=10), conversion(2, START + 4 * HOUR, value=10)])
    of, = journeys(given, Attribution((Terms(), Terms(START + 4 * HOUR, weights))))
    position = next(m for m in compare(of).models if m.name == "position_based")
    assert position.credit == (400_000_000, 1_400_000_000, 200_000_000)  # z, x, y
    assert position.micros == ((4, 14, 2),)


def test_value_by_currency():
    touches, _ = walked([Path(("x", "y"), 2, 0), Path(("y",), 1, 0)])
    given = facts(touches, [conversion(1, START + 2 * HOUR, value=100), conversion(2, START + 2 * HOUR, value=7, currency="SEK"),
                            conversion(3, START + HOUR, value=50, currency="SEK")])
    of = compare(journeys(given, Attribution())[0])
    assert of.journeys.currencies == ("EUR", "SEK")
    micros = {m.name: {c: (e, s) for c, e, s in zip(of.campaigns, *m.micros)} for m in of.models}
    assert micros["last_touch"] == {"y": (100, 57), "x": (0, 0)}
    assert micros["first_touch"] == {"y": (0, 50), "x": (100, 7)}
    assert micros["shapley"] == {"y": (50, 53), "x": (50, 4)} or micros["shapley"] == {"y": (50, 54), "x": (50, 3)}


def test_others_are_summed():
    whole = compared(many_channels(8, 60))
    short = whole.top(3)
    assert short.campaigns == whole.campaigns[:3] and short.others == 5 and short.rows == 4
    for m, s in zip(whole.models, short.models):
        assert s.credit[:3] == m.credit[:3] and s.credit[3] == sum(m.credit[3:])
        assert s.micros[0][3] == sum(m.micros[0][3:])
    assert whole.top(8) is whole and whole.others == 0


def test_many_campaigns_are_sampled_and_say_so(monkeypatch):
    monkeypatch.setattr(comparing, "_PERMUTATIONS", 1_000)
    of = compared(many_channels(13, 120))
    assert len(of.campaigns) == 13
    assert {m.name for m in of.models if m.errors} == {"shapley_rate"}
    errors = of.models[-1].errors
    assert len(errors) == 13 and all(e > 0 for e in errors)
    page = Page(report.page([of], top=5))
    shown = [c for c in page.cells if "±" in c or "≤" in c]
    assert len(shown) == 6 and f"± {errors[0]:,.3g}" in shown[0] and f"≤ {sum(errors[5:]):,.3g}" in shown[5]
    assert not [c for c in Page(report.page([compared(many_channels(12, 60))])).cells if "±" in c]


# --- The page ------------------------------------------------------------------------------------------------

VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """The elements of a document; fails for tags that do not match."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.cells, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1] += data

    def of(self, tag):
        return [attributes for t, attributes in self.elements if t == tag]


NASTY = '<script>alert("x")</script>\n&amp;\x1b[31m\u202e\'" onload=\'x'


def test_texts_from_outside_stay_texts():
    page = Page(report.page([compared([Path((NASTY, "b"), 2, 10), Path((NASTY,), 0, 0, 2)], advertiser=NASTY)]))
    assert not page.of("script") and not [a for _, a in page.elements if any(k.startswith("on") for k in a)]
    shown = '<script>alert("x")</script>\ufffd&amp;\ufffd[31m\ufffd\'" onload=\'x'
    assert page.cells.count(shown) == 2 and shown in page.texts
    assert not {"\x1b", "\u202e"} & set("".join(page.texts))


def test_page_needs_nothing_else():
    text = report.page([compared(BRYL), compared(PUZYROV)])
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    assert not {t for t, _ in page.elements} & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base"}
    for _, attributes in page.elements:
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
    assert "default-src 'none'" in page.of("meta")[2]["content"]


def test_page_for_every_reader():
    page = Page(report.page([compared(BRYL)]))
    assert page.of("html") == [{"lang": "en"}] and len(page.of("title")) > 1 and len(page.of("h1")) == 1
    assert page.of("meta")[1] == {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert len(page.of("caption")) == len(page.of("table")) == 2
    assert all(h["scope"] in ("col", "row") for h in page.of("th"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)


def test_page_says_what_was_counted():
    touches, conversions = walked(PUZYROV)
    of, = journeys(facts(touches, [*conversions, conversion(0, START, value=1_500_000)]), Attribution(), START, START + DAY)
    text = " ".join(Page(report.page([compare(of, 3)], START, START + DAY, left_out=2)).texts)
    for said in ("from 2024-10-04T00:00:00Z before 2024-10-05T00:00:00Z", "order 3", "5, worth 1.50 EUR", "4 converting paths",
                 "1, nobody's credit", "1 without a conversion", "6 in all these paths", "clicks up to 30d, views up to 1d",
                 "position weights 2:1:2", "2 more advertisers"):
        assert said in text, said


def test_table_has_the_exact_figures():
    of = compared(BRYL)
    cells = Page(report.page([of])).cells
    at = cells.index("C1")
    assert cells[at : at + 9] == ["C1", *(f"{by_campaign(of, m)['C1'] / 1e9:.9f}" for m in ALL_MODELS)]
    assert cells.count("1.000000000") >= len(ALL_MODELS) and cells.count("0.001000") >= len(ALL_MODELS)


def test_plot():
    of = compared([Path(("a",), 10, 10, 0), Path(("a", "b"), 1, 1, 9), Path(("b",), 0, 0, 10)])
    assert by_campaign(of, "shapley_rate")["b"] < 0
    page = Page(report.page([of]))
    bars = [a for a in page.of("rect") if a["width"].endswith("%")]
    assert len(bars) == len(of.campaigns) * len(of.models) and len({a["fill"] for a in bars}) == len(of.models)
    for a in bars:
        begin, wide = (float(a[k].rstrip("%")) for k in ("x", "width"))
        assert begin >= 0 and wide >= 0 and begin + wide <= 84.01


@pytest.mark.parametrize("credit", [0, 1, -1, 10**6, 10**9, 10**18])
def test_plot_of_any_size(credit):
    of = compared(BRYL)
    models = tuple(Model(m.name, (credit, 0, 0), m.micros, (0.5, 0.0, 0.0)) for m in of.models)
    ticks = Page(report.page([replace(of, models=models)])).of("line")
    assert len(ticks) < 24 + len(models) * 3


def test_page_without_a_path():
    of, = journeys(facts([], [conversion(0, START)]), Attribution())
    assert "No path with a campaign." in Page(report.page([compare(of)])).texts


# --- The command ---------------------------------------------------------------------------------------------

@pytest.fixture
def given() -> Facts:
    touches, conversions = walked(PUZYROV)
    return facts([*touches, touch(1, "x", START, advertiser="b")], [*conversions, conversion(0, START, value=9)])


def test_command(given, tmp_path, capsys):
    html, rows = tmp_path / "p.html", tmp_path / "p.csv"
    assert command.run(lambda: given, Policy(), html=html, csv=rows, top=1) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "a: 5 conversions, 1 of them without a touch; 1 paths without a conversion"
    assert out[1].split("\t")[:2] == ["campaign", "Last touch"] and [line.split("\t")[0] for line in out[2:5]] == [
        "google ads", "1 other campaign", "sum"]
    assert out[5:] == ["1 more advertiser without conversions in the range", f"written: {html}", f"written: {rows}"]
    assert Page(html.read_text()).of("table")
    with rows.open() as file:
        found = {(r["campaign_id"], r["model"]): r for r in csv.DictReader(file)}
    assert len(found) == 2 * len(ALL_MODELS)
    assert found["mailing", "markov_1"]["conversions"] == "1.600000000"
    assert found["mailing", "last_touch"]["value_micros_EUR"] == "20"


def test_command_for_machines(given, tmp_path, capsys):
    assert command.run(lambda: given, Policy(), advertiser="a", since=START, until=START + DAY, html=tmp_path / "p.html",
                       as_json=True) == 0
    tree = json.loads(capsys.readouterr().out)
    a, = tree["advertisers"]
    assert (tree["from"], a["conversions"], a["without_touch"]["conversions"]) == ("2024-10-04T00:00:00Z", 5, 1)
    by = {c["campaign_id"]: c["models"] for c in a["campaigns"]}
    assert by["mailing"]["markov"]["conversions"] == "1.600000000"
    assert by["mailing"]["last_touch"]["value"] == [{"currency": "EUR", "value_micros": 20}]
    assert set(MODELS) < set(by["mailing"])


@pytest.mark.parametrize("asked, said", [
    ({"advertiser": "nobody"}, "--advertiser nobody: has no touch and no conversion here; known: a, b"),
    ({"order": 4}, "--order 4: "), ({"order": 0}, "--order 0: "),
    ({"since": START, "until": START}, "--from 2024-10-04T00:00:00Z --to 2024-10-04T00:00:00Z: "),
    ({"html": File("/nowhere/p.html")}, "--html /nowhere/p.html: there is no directory /nowhere"),
    ({"html": File("/")}, "--html /: is a directory"),
])
def test_command_refuses(given, asked, said):
    with pytest.raises(Failure) as failure:
        command.run(lambda: given, Policy(), **asked)
    assert str(failure.value).startswith(said)


def test_command_without_conversions(given, tmp_path, capsys):
    for asked, of in ({"since": START + DAY}, ""), ({"advertiser": "b"}, " of b"):
        assert command.run(lambda: given, Policy(), html=tmp_path / "p.html", **asked) == 1
        assert f"no conversions{of} in the range: " in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()


def test_console_command(given, tmp_path, monkeypatch, capsys):
    seen = []

    def read(warehouse, policy):
        seen.append((warehouse.out, policy.digest))
        return given

    monkeypatch.setitem(sys.modules, "measurement.local.facts", SimpleNamespace(read=read))
    import measurement.local
    monkeypatch.setattr(measurement.local, "facts", sys.modules["measurement.local.facts"], raising=False)

    def asked(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["measurement", "paths", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    assert asked("--out", tmp_path, "--from", "2024-10-04", "--to", "2024-10-05", "--order", 2) == 0
    assert seen == [(tmp_path, "default")] and (tmp_path / "paths.html").is_file()
    capsys.readouterr()
    assert asked("--out", tmp_path, "--from", "2024-10-05T00:00:00Z") == 1
    for wrong in (["--order", 4], ["--from", "2024-10-05", "--to", "2024-10-04"], ["--advertiser", "x"], ["--top", 0],
                  ["--policy", tmp_path / "none.yaml"], ["--html", tmp_path / "none" / "p.html"]):
        assert asked("--out", tmp_path, *wrong) == 2
    assert asked() == asked("--out", tmp_path / "none") == 2
    assert all(line.startswith("measurement: ") for line in capsys.readouterr().err.splitlines())


def test_no_engine_is_loaded():
    code = "import sys, measurement.paths.command; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
