"""Row keys of the served tables: they come back, sort as they should, and a scan's range holds what was asked for."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from measurement.io import bigtable_keys as keys
from measurement.model.events import MAX_TIME_MICROS, MICROS_PER_HOUR, MIN_TIME_MICROS

# Any text, and often those that a careless separator would mix up.
TRICKY = st.text(alphabet="\0\x01\x02\x03ahc\xff", max_size=4)
IDS = st.one_of(TRICKY, st.text(max_size=8), st.just("test:a"), st.text(alphabet="x\0é", min_size=90, max_size=300))
TEXTS = st.one_of(st.none(), IDS)
FIRST, LAST = MIN_TIME_MICROS // MICROS_PER_HOUR, MAX_TIME_MICROS // MICROS_PER_HOUR
HOURS = st.one_of(st.integers(-3, 3), st.sampled_from([FIRST, LAST]), st.integers(FIRST, LAST)).map(lambda h: h * MICROS_PER_HOUR)
ROWS = st.tuples(IDS, HOURS, TEXTS, st.lists(TEXTS, min_size=7, max_size=7))


def both(advertiser, hour, campaign, rest) -> list[bytes]:
    parts = keys.text(advertiser), keys.hour(hour), keys.text(campaign), b"".join(map(keys.text, rest))
    return [keys.by_hour(*parts), keys.by_campaign(*parts)]


def kept(text):
    return keys.CUT if text is not None and len(text.encode()) > keys.LONGEST else text


@given(ROWS)
def test_a_key_comes_back(row):
    advertiser, hour, campaign, rest = row
    for order, key in zip((keys.BY_HOUR, keys.BY_CAMPAIGN), both(*row), strict=True):
        assert keys.parse(key) == (order, hour, [kept(text) for text in (advertiser, campaign, *rest)])
        assert keys.advertiser_of(key) == keys.text(advertiser)


@given(st.lists(st.text(alphabet="\0\x01\U0010ffff", min_size=0, max_size=2000), min_size=9, max_size=9))
def test_a_key_is_never_too_long(texts):
    assert all(len(key) <= 4096 for key in both(texts[0], 0, texts[1], texts[2:]))


def test_the_longest_key():
    widest = "\0" * keys.LONGEST
    assert {len(key) for key in both(widest, 0, widest, [widest] * 7)} == {9 * (2 * keys.LONGEST + 1) + 5}


@given(ROWS, ROWS)
def test_different_rows_have_different_keys(one, other):
    assume(one != other)
    assert len({*both(*one), *both(*other)}) == 4


@given(IDS, IDS, TEXTS, HOURS, HOURS)
def test_order_is_advertiser_then_latest_hour_first(one, other, campaign, hour, earlier):
    first, second = both(one, hour, campaign, [None] * 7), both(other, earlier, campaign, [None] * 7)
    for a, b in zip(first, second, strict=True):
        if one != other:
            if kept(one) is not keys.CUT and kept(other) is not keys.CUT:
                assert (a < b) == (one.encode() < other.encode())
        elif hour != earlier:
            assert (a < b) == (hour > earlier)


@given(st.text(max_size=30), st.text(max_size=30))
def test_texts_sort_as_their_bytes(one, other):
    assert (keys.text(one) < keys.text(other)) == (one.encode() < other.encode())


@given(st.lists(ROWS, max_size=8), IDS, st.one_of(st.none(), IDS), st.integers(-4, 4), st.integers(-4, 4), st.integers(-1, 1))
def test_a_range_of_hours_holds_exactly_its_rows(rows, advertiser, campaign, start, stop, off):
    """Rows of the asked advertiser and campaign among others; bounds on the hour and a microsecond beside it."""
    rows = rows + [(advertiser, h * MICROS_PER_HOUR, campaign, [None] * 7) for h in range(-4, 5)]
    start, stop = start * MICROS_PER_HOUR + off, stop * MICROS_PER_HOUR + off
    first, end = keys.hours_of(keys.text(advertiser), start, stop, None if campaign is None else keys.text(campaign))
    found = [row for row in rows for key in both(*row) if first <= key < end]
    assert found == [row for row in rows if row[0] == advertiser and start <= row[1] < stop and campaign in (None, row[2])]


@given(st.lists(ROWS, max_size=8), IDS)
def test_all_of_an_advertisers_keys_lie_together(rows, advertiser):
    prefix = keys.text(advertiser)
    first, end = keys.campaigns_of(prefix)
    for row in [*rows, (advertiser, 0, None, [None] * 7)]:
        by_hour, by_campaign = both(*row)
        assert (prefix <= by_hour < keys.behind(prefix)) == (row[0] == advertiser)
        assert (first <= by_campaign < end) == (row[0] == advertiser)
        assert not first <= by_hour < end


@pytest.mark.parametrize(("start", "stop"), [(MIN_TIME_MICROS - 1, MAX_TIME_MICROS + 1), (-(2**63), 2**63)])
def test_a_range_beyond_the_years_is_all_there_is(start, stop):
    first, end = keys.hours_of(keys.text("a"), start, stop)
    for hour in (FIRST, 0, LAST):
        assert first <= both("a", hour * MICROS_PER_HOUR, None, [])[0] < end


@pytest.mark.parametrize("micros", [1, MICROS_PER_HOUR - 1, (FIRST - 1) * MICROS_PER_HOUR, (LAST + 1) * MICROS_PER_HOUR])
def test_what_is_no_whole_hour_is_refused(micros):
    with pytest.raises(ValueError, match="whole hour"):
        keys.hour(micros)
