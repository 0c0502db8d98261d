"""The contract's section 4 by worked examples, a test a sentence, and the laws that hold for every log.

What these tests fix is what the pipeline is then compared with.
"""

import itertools
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle import DAY, HOUR, JOIN_HORIZON, MINUTE, SECOND, Oracle, Screening, count, hour_of
from oracle_attribution import (
    ATTRIBUTION_KEY, CREDIT_KEY, WHOLE_CREDIT, WITHOUT_A_POLICY, attribution, credits, decayed, rule_for, shares,
    span, weights_of,
)
from strategies import ROBOT, event_logs, interleavings
from test_oracle import T, click, conversion, counted, first_contents_first, impression, json_event, push

LOGS = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LARGEST = 2**63 - 1


# --- Writing examples ----------------------------------------------------------------------------------------

def seen(event_id: str, ago: int, **fields) -> dict:
    """An impression of the user so long before the conversion."""
    return impression(event_id, T - ago, **{"user_id": "u", **fields})


def clicked(event_id: str, of: str, ago: int, **fields) -> dict:
    return click(event_id, T - ago, of, **{"user_id": "u", **fields})


def bought(event_id: str = "c", time: int = T, **fields) -> dict:
    return conversion(event_id, time, **{"user_id": "u", **fields})


def rows_of(log, policy=None) -> list[dict]:
    """The credits of a log, by column, in the order of touch_time and touch_id; but for what moves the watermark."""
    oracle = log if isinstance(log, Oracle) else counted(*log)
    rows = [
        {**dict(zip(CREDIT_KEY, key)), "credit": figures[0], "value_micros": figures[1]}
        for key, figures in credits(oracle, policy).items() if not key[0].startswith("push-")
    ]
    return sorted(rows, key=lambda row: (
        row["conversion_time"], row["conversion_id"], row["touch_time"] or 0, row["touch_id"] or "",
    ))


def credited(log, policy=None) -> dict[str | None, int]:
    """touch_id -> credit; None where there was no touch."""
    rows = rows_of(log, policy)
    assert len({row["touch_id"] for row in rows}) == len(rows)
    return {row["touch_id"]: row["credit"] for row in rows}


def touched(log, **rule) -> list[str]:
    """The touches in touch order, under linear unless another model is named."""
    found = credited(log, {"default": {"model": "linear", **rule}})
    return [] if list(found) == [None] else list(found)


def alike(**rule) -> dict:
    """A policy under which impressions count beside clicks."""
    return {"default": {"model": "linear", "priority": "none", **rule}}


NOBODY = {None: WHOLE_CREDIT}


# --- Touches -------------------------------------------------------------------------------------------------

def test_a_touch_is_an_impression_or_a_click():
    assert credited([seen("i", HOUR), bought()]) == {"i": WHOLE_CREDIT}
    assert credited([seen("i", HOUR), clicked("k", "i", MINUTE), bought()]) == {"k": WHOLE_CREDIT}


@pytest.mark.parametrize("event_type", [
    "viewability", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "conversion",
])
def test_nothing_else_is_a_touch(event_type):
    other = {**clicked("f", "i", MINUTE), "event_type": event_type}
    rows = rows_of([seen("i", HOUR), other, bought()])
    assert [row["touch_id"] for row in rows if row["conversion_id"] == "c"] == ["i"]


@pytest.mark.parametrize("theirs, ours", [
    ("v", "u"), (None, "u"), ("", "u"), ("u", None), ("u", ""), (None, None), ("", ""),
])
def test_a_touch_is_the_conversions_users_and_nobody_is_no_user(theirs, ours):
    assert credited([seen("i", HOUR, user_id=theirs), bought(user_id=ours)]) == NOBODY


def test_a_touch_is_the_conversions_advertisers():
    log = [seen("i", HOUR), seen("j", HOUR, advertiser_id="other"), bought(), bought("d", advertiser_id="other")]
    assert [(row["conversion_id"], row["touch_id"]) for row in rows_of(log)] == [("c", "i"), ("d", "j")]
    assert credited([seen("i", HOUR), bought(advertiser_id="third")]) == NOBODY


def test_a_clicks_advertiser_is_its_impressions():
    log = [seen("i", HOUR), clicked("k", "i", MINUTE, advertiser_id="other")]
    assert credited([*log, bought()]) == {"k": WHOLE_CREDIT}
    assert credited([*log, bought(advertiser_id="other")]) == NOBODY


def test_a_clicks_user_is_its_own():
    log = [seen("i", HOUR, user_id="v"), clicked("k", "i", MINUTE)]
    assert credited([*log, bought()]) == {"k": WHOLE_CREDIT}
    assert credited([*log, bought(user_id="v")]) == {"i": WHOLE_CREDIT}
    assert credited([seen("i", HOUR), clicked("k", "i", MINUTE, user_id=None), bought()]) == {"i": WHOLE_CREDIT}


def test_a_clicks_row_has_its_own_id_and_time_and_the_impressions_place():
    ours = dict(campaign_id="camp-i", line_item_id="l", creative_id="cr", placement_id="p")
    theirs = dict(campaign_id="camp-k", line_item_id="x", creative_id=None, placement_id="x")
    log = [
        seen("i", HOUR, currency="SEK", **ours), clicked("k", "i", MINUTE, currency="NOK", **theirs),
        bought(value_micros=7, currency="EUR", conversion_type="lead", campaign_id="camp-c", line_item_id="y"),
    ]
    assert rows_of(log) == [{
        "conversion_id": "c", "model": "last_touch", "touch_id": "k", "conversion_time": T, "conversion_type": "lead",
        "advertiser_id": "adv", "touch_type": "click", "touch_time": T - MINUTE, **ours, "currency": "EUR",
        "credit": WHOLE_CREDIT, "value_micros": 7,
    }]


def test_an_impressions_row_has_its_own_place():
    [row] = rows_of([seen("i", HOUR, line_item_id="l", creative_id=""), bought()])
    assert (row["touch_type"], row["touch_time"], row["campaign_id"], row["line_item_id"], row["creative_id"]) == (
        "impression", T - HOUR, "camp", "l", None,
    )


def test_a_click_is_joined_whatever_arrives_first():
    log = [seen("i", HOUR), clicked("k", "i", MINUTE), bought(value_micros=5)]
    for arrived in itertools.permutations(log):
        assert rows_of(arrived) == rows_of(log)


def test_a_click_that_waits_is_no_touch_until_its_impression_arrives():
    oracle = Oracle(files=1)
    for event in (bought(), clicked("k", "i", MINUTE)):
        oracle.receive(0, json_event(event))
    assert credited(oracle) == NOBODY
    oracle.receive(0, json_event(seen("i", HOUR)))
    assert credited(oracle) == {"k": WHOLE_CREDIT}


def test_a_click_out_of_its_impressions_reach_is_no_touch():
    assert credited([clicked("k", "i", HOUR), seen("i", HOUR + JOIN_HORIZON), bought()]) == {"k": WHOLE_CREDIT}
    assert credited([clicked("k", "i", HOUR), seen("i", HOUR + JOIN_HORIZON + 1), bought()]) == NOBODY


def test_a_touch_that_arrives_after_its_conversion_is_credited():
    log = [seen("i", 2 * HOUR), bought(), seen("j", HOUR)]
    assert credited(log) == {"j": WHOLE_CREDIT}


def test_what_is_refused_is_no_touch():
    assert credited([seen("i", HOUR, price_micros=-1), bought()]) == NOBODY
    log = [seen("i", HOUR), clicked("k", "i", MINUTE), clicked("k", "i", MINUTE - 1), bought()]
    assert [row["touch_time"] for row in rows_of(log)] == [T - MINUTE]  # the second k is an id_conflict


def test_what_comes_too_late_is_no_touch():
    long = {"default": {"view_lookback": "30d"}}
    assert credited([bought(), *push(T), seen("i", 7 * DAY)], long) == {"i": WHOLE_CREDIT}
    assert credited([bought(), *push(T), seen("i", 7 * DAY + 1)], long) == NOBODY


def test_a_copy_is_no_second_touch():
    log = [seen("i", HOUR), seen("i", HOUR), seen("j", MINUTE), bought()]
    assert touched(log) == ["i", "j"]
    assert credited(log, alike()) == {"i": WHOLE_CREDIT // 2, "j": WHOLE_CREDIT // 2}


def test_a_robots_touch_is_none():
    assert credited([seen("i", HOUR), seen("j", MINUTE, user_agent=ROBOT), bought()]) == {"i": WHOLE_CREDIT}
    log = [seen("i", HOUR), clicked("k", "i", MINUTE, user_agent=ROBOT), bought()]
    assert credited(log) == {"i": WHOLE_CREDIT}


def test_a_click_on_a_robots_impression_is_no_touch():
    assert credited([seen("i", HOUR, user_agent=ROBOT), clicked("k", "i", MINUTE), bought()]) == NOBODY


def test_a_verdict_given_later_takes_a_touch_away_and_taken_back_returns_it():
    first, second, third = seen("i", HOUR), clicked("k", "i", MINUTE), seen("j", 2 * HOUR)
    oracle = counted(first, second, third, bought())
    assert credited(oracle) == {"k": WHOLE_CREDIT}
    click_itself, impression_itself = (False, "i", "k"), (False, "i", "i")
    oracle.judge_identity(click_itself, "rate")
    assert credited(oracle) == {"i": WHOLE_CREDIT}
    oracle.judge_identity(impression_itself, "datacentre")
    assert credited(oracle) == {"j": WHOLE_CREDIT}
    oracle.judge_identity(click_itself, "")
    assert credited(oracle) == {"j": WHOLE_CREDIT}  # its impression is invalid still
    oracle.judge_identity(impression_itself, "")
    assert credited(oracle) == {"k": WHOLE_CREDIT}


# --- Conversions ---------------------------------------------------------------------------------------------

def test_a_conversion_without_a_touch_has_one_row_a_model_with_all_its_value():
    log = [bought(value_micros=5, currency="EUR", conversion_type="lead", campaign_id="camp", line_item_id="l")]
    rows = rows_of(log, {"default": {"models": ["linear", "time_decay"]}})
    assert [row.pop("model") for row in rows] == ["linear", "time_decay"]
    assert rows == [{
        "conversion_id": "c", "touch_id": None, "conversion_time": T, "conversion_type": "lead", "advertiser_id": "adv",
        "touch_type": None, "touch_time": None, "campaign_id": None, "line_item_id": None, "creative_id": None,
        "placement_id": None, "currency": "EUR", "credit": WHOLE_CREDIT, "value_micros": 5,
    }] * 2


def test_a_null_value_is_0():
    log = [seen("i", HOUR), seen("j", MINUTE)]
    for value in (None, 0):
        assert [row["value_micros"] for row in rows_of([*log, bought(value_micros=value)], alike())] == [0, 0]


def test_a_copy_of_a_conversion_is_credited_once():
    assert credited([seen("i", HOUR), bought(), bought()]) == {"i": WHOLE_CREDIT}


def test_an_invalid_conversion_has_no_rows():
    assert rows_of([seen("i", HOUR), bought(user_agent=ROBOT)]) == []
    oracle = counted(seen("i", HOUR), bought())
    oracle.judge_identity((False, "c", "c"), "listed")
    assert rows_of(oracle) == []
    oracle.judge_identity((False, "c", "c"), "")
    assert credited(oracle) == {"i": WHOLE_CREDIT}


def test_of_an_orders_conversions_only_the_earliest_is_credited_whatever_arrives_first():
    log = [seen("i", HOUR), bought("c", order_id="o"), bought("d", T - MINUTE, order_id="o")]
    for arrived in itertools.permutations(log):
        assert [(row["conversion_id"], row["touch_id"]) for row in rows_of(arrived)] == [("d", "i")]


def test_an_order_that_is_displaced_loses_its_credit():
    oracle = Oracle(files=1)
    for event in (seen("i", HOUR), bought("c", order_id="o")):
        oracle.receive(0, json_event(event))
    assert [row["conversion_id"] for row in rows_of(oracle)] == ["c"]
    oracle.receive(0, json_event(bought("d", T - 2 * HOUR, order_id="o")))
    assert [(row["conversion_id"], row["touch_id"]) for row in rows_of(oracle)] == [("d", None)]


def test_conversions_share_their_touches():
    rows = rows_of([seen("i", HOUR), bought("c"), bought("d")])
    assert [(row["conversion_id"], row["touch_id"]) for row in rows] == [("c", "i"), ("d", "i")]


# --- Consent and rates ---------------------------------------------------------------------------------------

ASKS = Screening(required_in=["SE"], granted=lambda consent: consent == "yes")


def test_an_event_without_consent_is_no_touch():
    near = seen("j", MINUTE, country="SE", consent="no")
    assert credited(counted(seen("i", HOUR), near, bought(), screening=ASKS)) == {"i": WHOLE_CREDIT}
    assert credited(counted(seen("i", HOUR), {**near, "consent": "yes"}, bought(), screening=ASKS)) == {"j": WHOLE_CREDIT}
    log = [seen("i", HOUR), clicked("k", "i", MINUTE, country="SE"), bought()]
    assert credited(counted(*log, screening=ASKS)) == {"i": WHOLE_CREDIT}


def test_a_clicks_consent_is_its_own():
    log = [seen("i", HOUR, country="SE", consent="no"), clicked("k", "i", MINUTE), bought()]
    assert credited(counted(*log, screening=ASKS)) == {"k": WHOLE_CREDIT}


def test_a_conversion_without_consent_has_no_touch_and_keeps_its_value():
    [row] = rows_of(counted(seen("i", HOUR), bought(country="SE", value_micros=7), screening=ASKS))
    assert (row["touch_id"], row["credit"], row["value_micros"]) == (None, WHOLE_CREDIT, 7)


def test_a_touch_beyond_a_persons_rate_is_none_whenever_the_last_event_comes():
    screening = Screening(per_user_hour=2)
    log = [seen("h", 3 * HOUR), seen("i", HOUR), seen("j", MINUTE), bought(), seen("l", HOUR - MINUTE, advertiser_id="other")]
    for arrived in itertools.permutations(log):
        assert credited(counted(*arrived, screening=screening)) == {"h": WHOLE_CREDIT}
    assert credited(counted(*log[:-1], screening=screening)) == {"j": WHOLE_CREDIT}


# --- A probe's world -----------------------------------------------------------------------------------------

def test_a_probes_events_only_meet_each_other():
    log = [seen("i", HOUR), seen("p", MINUTE, test=True), bought("c"), bought("d", test=True)]
    assert [(row["advertiser_id"], row["conversion_id"], row["touch_id"]) for row in rows_of(log)] == [
        ("adv", "c", "i"), ("test:adv", "d", "p"),
    ]
    assert credited([seen("i", HOUR), bought(test=True)]) == NOBODY
    assert credited([seen("i", HOUR, test=True), bought()]) == NOBODY


def test_test_false_and_null_are_one_world():
    assert credited([seen("i", HOUR, test=False), bought()]) == {"i": WHOLE_CREDIT}


def test_a_probes_conversion_is_credited_by_its_advertisers_rule():
    policy = {"advertisers": {"adv": {"model": "first_touch"}, "test:adv": {"model": "linear"}}}
    log = [seen("i", HOUR, test=True), seen("j", MINUTE, test=True), bought(test=True)]
    assert credited(log, policy) == {"i": WHOLE_CREDIT}


# --- What is eligible ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("ago, is_touch", [(0, False), (-1, False), (1, True), (DAY, True), (DAY + 1, False)])
def test_an_impression_is_before_the_conversion_and_within_the_view_lookback(ago, is_touch):
    assert credited([seen("i", ago), bought()]) == ({"i": WHOLE_CREDIT} if is_touch else NOBODY)


@pytest.mark.parametrize("ago, is_touch", [(0, False), (-1, False), (1, True), (30 * DAY, True), (30 * DAY + 1, False)])
def test_a_click_is_before_the_conversion_and_within_the_click_lookback(ago, is_touch):
    log = [seen("i", ago + 1), clicked("k", "i", ago), bought()]
    touches = credited(log, {"default": {"view_lookback": "1s"}})
    assert touches.get("k", 0) == (WHOLE_CREDIT if is_touch else 0)


def test_lookbacks_are_the_policys():
    log = [seen("i", 90 * MINUTE), seen("j", HOUR + 1), clicked("k", "j", 12 * HOUR), bought()]
    assert touched(log, view_lookback="90m", click_lookback="11h") == ["i", "j"]
    assert touched(log, view_lookback="5399s", click_lookback="11h") == ["j"]
    assert touched(log, view_lookback="90m", click_lookback="12h") == ["k"]


def test_an_impression_gives_way_to_its_eligible_click():
    log = [seen("i", 2 * HOUR), seen("j", HOUR), clicked("k", "i", MINUTE), bought()]
    assert touched(log, priority="none") == ["j", "k"]


def test_an_impression_stands_where_its_click_is_not_eligible():
    log = [seen("i", 2 * HOUR), clicked("k", "i", HOUR + 1), bought()]
    assert touched(log, click_lookback="1h") == ["i"]
    assert touched([seen("i", HOUR), clicked("k", "i", 0), bought()]) == ["i"]
    assert touched([seen("i", HOUR), clicked("k", "i", MINUTE, user_id="v"), bought()]) == ["i"]


def test_a_click_stands_where_its_impression_is_not_eligible():
    assert touched([seen("i", HOUR), clicked("k", "i", MINUTE), bought()], view_lookback="59m") == ["k"]
    assert touched([seen("i", -1), clicked("k", "i", 1), bought()]) == ["k"]  # a clock that is behind


def test_of_one_impressions_clicks_the_latest_eligible_stands():
    log = [seen("i", 2 * HOUR), *(clicked(name, "i", ago) for name, ago in (("a", 5), ("b", 1), ("c2", 0), ("d", 9)))]
    assert touched([*log, bought()], priority="none") == ["b"]
    assert touched([*log, bought()]) == ["b"]


def test_of_one_impressions_clicks_at_one_time_the_last_by_event_id_as_utf_8_stands():
    log = [seen("i", HOUR), clicked("\U0001f600", "i", 5), clicked("\uff5e", "i", 5), clicked("z", "i", 5), bought()]
    for arrived in itertools.permutations(log[1:4]):
        assert touched([log[0], *arrived, log[4]]) == ["\U0001f600"]


def test_each_impressions_latest_click_stands():
    log = [
        seen("i", 2 * HOUR), seen("j", 2 * HOUR), clicked("a", "i", 9), clicked("b", "j", 8), clicked("d", "i", 7),
        bought(),
    ]
    assert touched(log) == ["b", "d"]


def test_click_over_view_leaves_impressions_out_where_a_click_is_eligible():
    log = [seen("i", 2 * HOUR), clicked("k", "i", HOUR + 1), seen("j", MINUTE), bought()]
    assert credited(log) == {"k": WHOLE_CREDIT}
    assert touched(log, priority="click_over_view") == ["k"]
    assert touched(log, priority="click_over_view", click_lookback="1h") == ["i", "j"]


def test_priority_none_treats_clicks_and_impressions_alike():
    log = [seen("i", 2 * HOUR), clicked("k", "i", HOUR + 1), seen("j", MINUTE), bought()]
    assert touched(log, priority="none") == ["k", "j"]
    assert credited(log, {"default": {"priority": "none"}}) == {"j": WHOLE_CREDIT}


def test_touches_are_ordered_by_time_and_not_by_arrival():
    log = [seen("b", 1), seen("a", 3), seen("c", 2)]
    assert credited([*log, bought("z")], {"default": {"model": "first_touch"}}) == {"a": WHOLE_CREDIT}
    assert credited([*log, bought("z")]) == {"b": WHOLE_CREDIT}


def test_equal_times_are_ordered_by_event_id_as_utf_8():
    log = [seen("\U0001f600", HOUR), seen("\uff5e", HOUR), bought()]  # UTF-16 has them the other way
    for arrived in itertools.permutations(log):
        assert credited(arrived) == {"\U0001f600": WHOLE_CREDIT}
        assert credited(arrived, {"default": {"model": "first_touch"}}) == {"\uff5e": WHOLE_CREDIT}


def test_an_impression_and_anothers_click_at_one_time_are_ordered_by_their_own_ids():
    log = [seen("z", 2 * HOUR), clicked("a", "z", HOUR), seen("b", HOUR), bought()]
    assert credited(log, {"default": {"priority": "none"}}) == {"b": WHOLE_CREDIT}


def test_equal_event_ids_at_one_time_are_ordered_by_where_they_were_shown():
    log = [
        seen("i", 2 * HOUR, campaign_id="camp-i"), seen("j", 3 * HOUR, campaign_id="camp-j"),
        clicked("k", "j", HOUR), clicked("k", "i", HOUR), bought(),
    ]
    assert [row["campaign_id"] for row in rows_of(log)] == ["camp-j"]
    assert [row["campaign_id"] for row in rows_of(log, {"default": {"model": "first_touch"}})] == ["camp-i"]
    log = [seen("i", 2 * HOUR), clicked("j", "i", HOUR), seen("j", HOUR), bought()]
    assert [row["touch_type"] for row in rows_of(log, {"default": {"priority": "none"}})] == ["click"]


def test_rows_that_are_one_key_are_added():
    log = [
        seen("i", 2 * HOUR), seen("j", 2 * HOUR), seen("l", 2 * HOUR), clicked("k", "i", HOUR), clicked("k", "j", HOUR),
        clicked("m", "l", HOUR), bought(value_micros=5),
    ]
    rows = rows_of(log, {"default": {"model": "linear"}})
    assert [(row["touch_id"], row["credit"], row["value_micros"]) for row in rows] == [
        ("k", 666_666_667, 4), ("m", 333_333_333, 1),
    ]


def test_an_impression_under_an_id_that_was_forgotten_is_one_of_its_own():
    log = [seen("i", 10 * DAY), *push(T - DAY), seen("i", HOUR), bought()]
    rows = rows_of(log, alike(view_lookback="30d"))
    assert [(row["touch_id"], row["touch_time"]) for row in rows] == [("i", T - 10 * DAY), ("i", T - HOUR)]


# --- Models --------------------------------------------------------------------------------------------------

THREE = [seen("a", 3 * HOUR), seen("b", 2 * HOUR), seen("c", HOUR)]


def by_model(model: str, log: list[dict], value: int | None = None, **rule) -> list[tuple[str, int, int]]:
    rows = rows_of([*log, bought("z", value_micros=value)], {"default": {"model": model, **rule}})
    return [(row["touch_id"], row["credit"], row["value_micros"]) for row in rows]


def test_last_touch():
    assert by_model("last_touch", THREE, 7) == [("c", WHOLE_CREDIT, 7)]


def test_first_touch():
    assert by_model("first_touch", THREE, 7) == [("a", WHOLE_CREDIT, 7)]


def test_linear_with_what_is_left_over_to_the_first():
    assert by_model("linear", THREE, 5) == [("a", 333_333_334, 2), ("b", 333_333_333, 2), ("c", 333_333_333, 1)]
    assert by_model("linear", THREE[:2], 1) == [("a", 500_000_000, 1), ("b", 500_000_000, 0)]


def test_time_decay_halves_with_every_half_life():
    # 1, 2 and 4 sevenths of 10^9 are 142857142.86, 285714285.71 and 571428571.43.
    assert by_model("time_decay", THREE, 700, half_life="1h") == [
        ("a", 142_857_143, 100), ("b", 285_714_286, 200), ("c", 571_428_571, 400),
    ]


def test_time_decay_goes_by_the_age_behind_the_youngest():
    old = [{**event, "event_time": event["event_time"] - 20 * HOUR} for event in THREE]
    assert by_model("time_decay", old, 700, half_life="1h") == by_model("time_decay", THREE, 700, half_life="1h")
    assert [row[1] for row in by_model("time_decay", THREE[:1], half_life="1s")] == [WHOLE_CREDIT]


def test_time_decay_between_half_lives():
    # The older weighs 2^-0.5 of the younger: floor(2^47.5) = 199032864766430, of 480507841477086 in all.
    assert by_model("time_decay", THREE[:2], 10**9, half_life="2h") == [
        ("a", 414_213_562, 414_213_562), ("b", 585_786_438, 585_786_438),
    ]


def test_time_decay_of_the_policy_is_a_week():
    log = [seen("i", 8 * DAY), clicked("a", "i", 8 * DAY), seen("j", DAY), clicked("b", "j", DAY)]
    assert by_model("time_decay", log, 9) == [("a", 333_333_333, 3), ("b", 666_666_667, 6)]


def test_a_touch_that_decayed_to_nothing_has_no_row():
    # 2^-60, 2^-30 and 1: the first is floored to 0, the second is 0.93 of a unit and gets the one left over.
    assert by_model("time_decay", THREE, 7, half_life="2m") == [("b", 1, 0), ("c", 999_999_999, 7)]
    assert by_model("time_decay", THREE, 7, half_life="1s") == [("c", WHOLE_CREDIT, 7)]


@pytest.mark.parametrize("lag, half_life, weight", [
    (0, 1, 2**48), (DAY, DAY, 2**47), (48 * DAY, DAY, 1), (49 * DAY, DAY, 0), (90 * DAY, 1, 0),
    (48 * DAY + 1, DAY, 0), (48 * DAY - 1, DAY, 1), (1, 2, 199032864766430), (3, 2, 99516432383215),
    (95, 2, 1), (97, 2, 0), (1, 365 * DAY, 2**48 - 7),
])
def test_a_decayed_weight_is_the_floor_of_the_real_number(lag, half_life, weight):
    assert decayed(lag, half_life) == weight


@given(st.integers(0, 300), st.integers(1, 6))
def test_a_decayed_weight_is_between_its_neighbours_powers(lag, half_life):
    # w <= 2^(48 - lag/h) < w + 1, both sides to the power h, in whole numbers.
    weight = decayed(lag, half_life)
    assert weight**half_life * 2**lag <= 2**(48 * half_life) < (weight + 1)**half_life * 2**lag


def test_position_based_40_20_40():
    four = [seen("0", 4 * HOUR), *THREE]
    assert by_model("position_based", THREE, 10) == [
        ("a", 400_000_000, 4), ("b", 200_000_000, 2), ("c", 400_000_000, 4),
    ]
    assert by_model("position_based", four, 10) == [
        ("0", 400_000_000, 4), ("a", 100_000_000, 1), ("b", 100_000_000, 1), ("c", 400_000_000, 4),
    ]


def test_position_based_splits_two_by_first_and_last_and_gives_one_all():
    uneven = dict(position_weights=[0.1, 0.2, 0.7])
    assert by_model("position_based", THREE[:1], 7, **uneven) == [("a", WHOLE_CREDIT, 7)]
    assert by_model("position_based", THREE[:2], 8, **uneven) == [("a", 125_000_000, 1), ("b", 875_000_000, 7)]
    assert by_model("position_based", THREE, 10, **uneven) == [
        ("a", 100_000_000, 1), ("b", 200_000_000, 2), ("c", 700_000_000, 7),
    ]


def test_position_weights_are_the_decimals_that_were_written():
    assert weights_of("position_based", [1, 2, 3], {"position_weights": [0.1, 0.2, 0.7]}) == [
        Fraction(1, 10), Fraction(2, 10), Fraction(7, 10),
    ]
    assert weights_of("position_based", [1, 2], {"position_weights": [1, 0, 0]}) == [1, 0]
    tiny = weights_of("position_based", [1, 2, 3], {"position_weights": [1e-9, 0.999999998, 1e-9]})
    assert tiny[0] == tiny[2] == Fraction(1, 10**9)


def test_a_position_of_weight_0_has_no_row():
    assert by_model("position_based", THREE, 7, position_weights=[1, 0, 0]) == [("a", WHOLE_CREDIT, 7)]
    assert by_model("position_based", THREE, 3, position_weights=[0.5, 0.0, 0.5]) == [
        ("a", 500_000_000, 2), ("c", 500_000_000, 1),
    ]


def test_models_credit_side_by_side():
    log = [*THREE, bought("z", value_micros=6)]
    rows = rows_of(log, {"default": {"models": ["linear", "first_touch"]}})
    assert sorted((row["model"], row["touch_id"], row["value_micros"]) for row in rows) == [
        ("first_touch", "a", 6), ("linear", "a", 2), ("linear", "b", 2), ("linear", "c", 2),
    ]


@pytest.mark.parametrize("total, weights, shared", [
    (10, [1, 1, 1], [4, 3, 3]), (11, [1, 1, 1], [4, 4, 3]), (2, [1, 1, 1], [1, 1, 0]), (0, [1, 5], [0, 0]),
    (10, [1, 2, 4], [1, 3, 6]),  # 1.43, 2.86, 5.71: the two largest remainders, not the first
    (5, [1, 3, 1, 3], [1, 2, 0, 2]),  # 0.625, 1.875, 0.625, 1.875: both threes, then the first of equal ones
    (1, [1, 3], [0, 1]), (1, [0, 1], [0, 1]), (1, [1, 1], [1, 0]),
    (100, [Fraction(1, 3), Fraction(2, 3)], [33, 67]),
    (LARGEST, [1, 1], [2**62, 2**62 - 1]), (LARGEST, [1] * 3, [LARGEST // 3 + 1, LARGEST // 3, LARGEST // 3]),
])
def test_largest_remainder(total, weights, shared):
    assert shares(total, weights) == shared


def test_the_largest_value_is_shared_to_the_last_micro():
    assert [row[2] for row in by_model("linear", THREE[:2], LARGEST)] == [2**62, 2**62 - 1]


# --- The policy ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("policy", [
    None, {}, [], {"default": None, "advertisers": None}, {"advertisers": {"adv": None}},
])
def test_without_a_policy_the_default_holds(policy):
    assert rule_for(policy, "adv", T) == WITHOUT_A_POLICY == {
        "models": ["last_touch"], "click_lookback": "30d", "view_lookback": "1d", "priority": "click_over_view",
        "half_life": "7d", "position_weights": [0.4, 0.2, 0.4],
    }


def test_an_advertiser_inherits_what_it_does_not_name():
    policy = {
        "default": {"models": ["linear", "time_decay"], "half_life": "36h"},
        "advertisers": {"a": {"model": "first_touch"}, "b": {"view_lookback": "7d"}},
    }
    assert rule_for(policy, "a", T) == {**WITHOUT_A_POLICY, "models": ["first_touch"], "half_life": "36h"}
    assert rule_for(policy, "b", T) == {
        **WITHOUT_A_POLICY, "models": ["linear", "time_decay"], "half_life": "36h", "view_lookback": "7d",
    }
    assert rule_for(policy, "other", T) == {**WITHOUT_A_POLICY, "models": ["linear", "time_decay"], "half_life": "36h"}


def test_each_advertiser_is_credited_by_its_own_rule():
    log = [seen("i", HOUR), seen("j", MINUTE), bought("c")]
    theirs = [{**event, "event_id": event["event_id"] + "2", "advertiser_id": "other"} for event in log]
    policy = {"default": {"model": "first_touch"}, "advertisers": {"other": {"model": "last_touch"}}}
    assert [row["touch_id"] for row in rows_of([*log, *theirs], policy)] == ["i", "j2"]


@pytest.mark.parametrize("text, micros", [
    ("30d", 30 * DAY), ("12h", 12 * HOUR), ("90m", 90 * MINUTE), ("5s", 5 * SECOND),
])
def test_spans(text, micros):
    assert span(text) == micros


@pytest.mark.parametrize("begins", [datetime(2024, 5, 6, 10, tzinfo=UTC), "2024-05-06T12:00:00+02:00"])
def test_terms_hold_for_conversions_from_their_time_on(begins):
    policy = [
        {"default": {"model": "first_touch", "half_life": "1h"}},
        {"from": begins, "advertisers": {"a": {"model": "linear"}}},
    ]
    assert rule_for(policy, "a", T - 1) == {**WITHOUT_A_POLICY, "models": ["first_touch"], "half_life": "1h"}
    assert rule_for(policy, "a", T) == {**WITHOUT_A_POLICY, "models": ["linear"]}
    assert rule_for(policy, "b", T) == WITHOUT_A_POLICY


def test_before_the_first_terms_the_default_holds():
    policy = [{"from": "2024-05-06T10:00:00Z", "default": {"model": "linear"}}]
    assert rule_for(policy, "a", T - 1) == WITHOUT_A_POLICY
    assert rule_for(policy, "a", T)["models"] == ["linear"]


# --- The table attribution -----------------------------------------------------------------------------------

def test_attribution_sums_credits_by_the_conversions_hour():
    log = [
        seen("i", HOUR, line_item_id="l"), seen("j", MINUTE, line_item_id="l"),
        *(bought(name, time, value_micros=5, currency="EUR", conversion_type="lead")
          for name, time in (("c", T), ("d", T + HOUR - 1), ("e", T + HOUR))),
    ]
    rows = attribution(credits(counted(*log), alike()))
    place = ("adv", "camp", "l", None, None, "lead", "linear", "impression", "EUR")
    assert rows == {(T, *place): (2 * WHOLE_CREDIT, 10), (T + HOUR, *place): (WHOLE_CREDIT, 5)}


def test_attribution_keeps_what_had_no_touch():
    log = [bought(value_micros=5), bought("d", value_micros=None)]
    assert attribution(credits(counted(*log), None)) == {
        (T, "adv", None, None, None, None, None, "last_touch", None, None): (2 * WHOLE_CREDIT, 5),
    }


def test_attribution_tells_apart_clicks_and_impressions_models_currencies_and_probes():
    log = [
        seen("i", HOUR), seen("j", HOUR), clicked("k", "i", MINUTE), bought("c"), bought("d", currency="EUR"),
        seen("p", HOUR, test=True), bought("e", test=True),
    ]
    policy = {"default": {"models": ["linear", "last_touch"], "priority": "none"}}
    rows = attribution(credits(counted(*log), policy))
    columns = ("advertiser_id", "model", "touch_type", "currency")
    told = {tuple(dict(zip(ATTRIBUTION_KEY, key))[name] for name in columns): row[0] for key, row in rows.items()}
    half = WHOLE_CREDIT // 2
    assert told == {
        ("adv", "linear", "click", None): half, ("adv", "linear", "impression", None): half,
        ("adv", "linear", "click", "EUR"): half, ("adv", "linear", "impression", "EUR"): half,
        ("adv", "last_touch", "click", None): WHOLE_CREDIT, ("adv", "last_touch", "click", "EUR"): WHOLE_CREDIT,
        ("test:adv", "linear", "impression", None): WHOLE_CREDIT,
        ("test:adv", "last_touch", "impression", None): WHOLE_CREDIT,
    }


# --- Laws ----------------------------------------------------------------------------------------------------

MODELS = ("last_touch", "first_touch", "linear", "time_decay", "position_based")
WEIGHTS = ([0.4, 0.2, 0.4], [1, 0, 0], [0.1, 0.2, 0.7], [0.333333333, 0.333333333, 0.333333334])

rules = st.fixed_dictionaries({}, optional={
    "models": st.lists(st.sampled_from(MODELS), min_size=1, unique=True),
    "click_lookback": st.sampled_from(["1s", "1h", "2h", "1d", "7d", "30d", "90d"]),
    "view_lookback": st.sampled_from(["1s", "1h", "3h", "1d", "7d", "30d", "90d"]),
    "priority": st.sampled_from(["click_over_view", "none"]),
    "half_life": st.sampled_from(["1s", "50m", "1h", "7d", "365d"]),
    "position_weights": st.sampled_from(WEIGHTS),
})
terms = st.fixed_dictionaries({}, optional={
    "default": rules, "advertisers": st.dictionaries(st.sampled_from(["adv-1", "adv-2"]), rules),
})
policies = terms | st.tuples(terms, terms).map(lambda two: [two[0], {"from": "2024-02-29T00:00:00Z", **two[1]}])

logs = event_logs().flatmap(lambda files: st.tuples(st.just(len(files)), interleavings(files)))


@given(logs, policies)
@LOGS
def test_a_conversions_credits_sum_to_1_and_its_value_under_each_model(log, policy):
    files, arrivals = log
    oracle = count(arrivals, files)
    expected = {}
    for arrival in oracle.counted():
        event = arrival.event
        if event["event_type"] == "conversion":
            shown = ("test:" if event["test"] is True else "") + event["advertiser_id"]
            for model in rule_for(policy, event["advertiser_id"], event["event_time"])["models"]:
                key = (event["event_id"], event["event_time"], shown, model)
                assert key not in expected
                expected[key] = (WHOLE_CREDIT, event["value_micros"] or 0)
    rows = credits(oracle, policy)
    found = {}
    for key, (credit, micros) in rows.items():
        row = dict(zip(CREDIT_KEY, key))
        assert 0 <= credit <= WHOLE_CREDIT and 0 <= micros <= LARGEST
        assert (row["touch_id"] is None) == (row["campaign_id"] is None)
        assert row["touch_time"] is None or row["touch_time"] < row["conversion_time"]
        conversion_key = tuple(row[name] for name in ("conversion_id", "conversion_time", "advertiser_id", "model"))
        before = found.get(conversion_key, (0, 0))
        found[conversion_key] = (before[0] + credit, before[1] + micros)
    assert found == expected
    summed = attribution(rows)
    for place in (0, 1):
        assert sum(row[place] for row in summed.values()) == sum(row[place] for row in expected.values())
    assert all(key[0] == hour_of(key[0]) for key in summed)


@given(event_logs(long=False, wrong=False), policies, st.data())
@LOGS
def test_order_inside_the_horizons_changes_no_credit(files, policy, data):
    arrived = [received for content in files for received in content]
    shuffled = first_contents_first(arrived, data.draw(st.permutations(arrived)))
    oracles = [count([(0, received) for received in log], 1) for log in (arrived, shuffled)]
    assert credits(oracles[0], policy) == credits(oracles[1], policy)


@given(event_logs(long=False, wrong=False), policies)
@LOGS
def test_what_is_not_counted_is_neither_touch_nor_conversion(files, policy):
    # A log of what is counted alone, clicks with their impressions, gives the same credits.
    arrived = [received for content in files for received in content]
    oracle = count([(0, received) for received in arrived], 1)
    alone = [(0, arrival.received) for arrival in oracle.counted()]
    assert credits(count(alone, 1), policy) == credits(oracle, policy)
