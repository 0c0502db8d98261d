"""The page for ad sales in a real browser, over a small warehouse: what a person sees, by mouse, keyboard and reader, at a desk and on a phone."""

import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from urllib.parse import quote

import pytest
from browser import DESK, PHONE, Visit, chromium, visiting
from playwright.sync_api import Browser, expect
from serving import DAY, OPEN, Asking, Keys, attribution, books, delivery, serving, write

from measurement.local.loaded import append
from measurement.local.warehouse import Warehouse
from measurement.model.bookings import BOOKINGS
from measurement.reporting.loading import load
from measurement.serving.warehouses import DuckDbReports

STRANGE = "<img src=x onerror=alert(1)>"
DAYS = {"from_": "2026-03-02T00:00:00Z", "to": "2026-03-05T00:00:00Z"}  # all that there is
# What sticks out of the screen, but for tables that scroll in their own frame.
WIDER = """width => document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll("main *, header *")]
  .filter(e => e.getBoundingClientRect().right > width).map(e => e.outerHTML.slice(0, 200))"""
BYTES = 200_000  # of the first view, as the browser unpacks it


def _books() -> dict[str, list[dict]]:
    """Those of the API's tests, a second model, and an advertiser whose names are markup."""
    made = books()
    made["delivery"].append(delivery(4, 3, advertiser=STRANGE, campaign="<b>bold</b>", currency="</td>"))
    made["attribution"].append(attribution(2, "0.666666667") | {"model": "last_touch"})
    return made


def _booked(**other) -> dict:
    return {"booking_id": "o-1", "advertiser_id": "a", "campaign_id": "c1", "line_item_id": None, "metric": "impressions", "goal": 10_000,
            "starts_at": DAY, "ends_at": DAY + timedelta(days=4), "currency": None, "cancelled": False, **other}


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def server(tmp_path_factory, keys) -> Iterator[Asking]:
    out = write(tmp_path_factory.mktemp("paged") / "out", _books())
    later = {"starts_at": DAY + timedelta(days=9), "ends_at": DAY + timedelta(days=10)}
    load(BOOKINGS, [_booked(), _booked(booking_id="o-2", campaign_id="c2", goal=5), _booked(booking_id="o-3", **later)], 1, partial(append, Warehouse(out)))
    with serving(DuckDbReports(out), keys.ring()) as asking:
        yield asking


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    with visiting(browser, server.port) as one:
        yield one


def at(advertiser: str, **asked: str) -> str:
    """The fragment of a view."""
    told = "&".join(f"{name.rstrip('_')}={quote(value, safe='')}" for name, value in asked.items())
    return f"#/a/{quote(advertiser, safe='')}" + (f"?{told}" if told else "")


def open_(visit: Visit, keys: Keys, fragment: str = "#/") -> None:
    """A view, signed in as by the address that `measurement demo` prints."""
    visit.page.goto(f"/#key={keys.sales}")
    expect(visit.page.locator("h1")).to_have_text("Advertisers")
    if fragment != "#/":
        visit.page.evaluate("to => { location.hash = to }", fragment)
    expect(visit.page.locator("main[aria-busy]")).to_have_count(0)


def read(visit: Visit, title: str) -> None:
    """Waits until a view of this title is there."""
    expect(visit.page.locator("h1")).to_have_text(title)
    expect(visit.page.locator("main[aria-busy]")).to_have_count(0)


# -- who is in


def test_without_a_key_nothing_is_shown_and_a_wrong_one_is_told(visit, keys):
    visit.page.goto("/")
    visit.page.get_by_label("Key of sales").fill("adm_0000000000000000_wrong")
    visit.page.get_by_role("button", name="Open").click()
    expect(visit.page.get_by_role("alert")).to_have_text("This key is not, or no longer, valid.")
    visit.page.get_by_label("Key of sales").fill(keys.a)
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_contain_text("This key is not for these figures.")


def test_a_key_is_kept_in_the_tab_alone_and_in_no_address(visit, keys):
    open_(visit, keys)
    assert keys.sales not in visit.page.url and keys.sales not in visit.page.content()
    visit.page.reload()
    read(visit, "Advertisers")
    visit.page.go_back()
    assert keys.sales not in visit.page.url
    visit.page.goto("/")
    visit.page.get_by_role("button", name="Sign out").click()
    read(visit, "Sign in")
    assert visit.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]


# -- what is seen


def test_advertisers_are_listed_with_their_bookings_and_found_by_a_part_of_their_id(visit, keys):
    open_(visit, keys)
    rows = visit.page.locator("tbody tr")
    assert rows.count() == 5 and "test:" not in visit.text()
    first = visit.page.get_by_role("row", name="a ▼")
    assert "▼ 1 behind" in first.inner_text() and "◌ 1 not begun" in first.inner_text()
    visit.page.get_by_label("Filter by id").fill("A/")
    expect(rows).to_have_count(1)
    visit.page.get_by_label("Filter by id").fill("nobody")
    assert "No advertiser's id has “nobody” in it." in visit.text()


def test_every_view_says_until_when_hours_are_complete(visit, keys):
    open_(visit, keys)
    for fragment in ("#/", at("a"), at("a", from_="2026-03-02T10:30:00Z")):
        visit.page.evaluate("to => { location.hash = to }", fragment)
        expect(visit.page.locator("#freshness")).to_contain_text(f"▲ Hours complete until {OPEN:%Y-%m-%d %H:%M} UTC")


def test_provisional_final_and_restated_hours_are_told_apart(visit, keys, server):
    open_(visit, keys, at("a", from_="2026-03-02T00:00:00Z", to="2026-03-04T06:00:00Z"))
    read(visit, "a")
    part = visit.page.locator("section", has=visit.page.get_by_role("heading", name="Delivery by hour"))
    assert "54 hours: 30 final, 16 restated, 1 provisional, 4 complete with nothing delivered, 3 not complete, nothing counted so far." in part.inner_text()
    part.locator("summary").click()
    line = {row.locator("th").inner_text(): row.inner_text() for row in part.locator("tbody tr").all()}
    assert "◌ provisional" in line[f"{OPEN:%Y-%m-%d %H:%M}"] and "● final" in line["2026-03-02 01:00"]
    assert "↻ restated late events" in line["2026-03-02 03:00"] and "↻ restated another policy" in line["2026-03-02 00:00"]
    assert "\tnot complete, nothing counted so far" in line["2026-03-04 05:00"] and "\tcomplete, nothing delivered" in line["2026-03-03 06:00"]
    told = server.get("/v1/advertisers/a/delivery", keys.sales, from_="2026-03-02T03:00:00Z", to="2026-03-02T04:00:00Z").json["rows"]
    assert line["2026-03-02 03:00"].split("\t")[3] == f"{sum(row['impressions'] for row in told):,}"


def test_the_chart_has_a_bar_an_hour_and_tells_the_one_that_is_pointed_at(visit, keys):
    open_(visit, keys, at("a", from_="2026-03-02T00:00:00Z", to="2026-03-02T12:00:00Z"))
    read(visit, "a")
    over = visit.page.locator(".u-over")
    box = over.bounding_box()
    for hour, told in ((0, "02 00:00 UTC: 3 ↻ restated another policy"), (1, "02 01:00 UTC: 6 ● final"), (11, "02 11:00 UTC: 36 ● final")):
        visit.page.mouse.move(box["x"] + box["width"] * (hour + 0.4) / 12, box["y"] + 20)
        expect(visit.page.locator(".readout")).to_contain_text(told)
    visit.page.get_by_label("Figure", exact=True).select_option("clicks")
    assert visit.page.locator(".u-over").count() == 1


def test_pacing_is_by_the_bookings_and_says_how_they_stand(visit, keys):
    open_(visit, keys, at("a"))
    read(visit, "a")
    part = visit.page.locator("section", has=visit.page.get_by_role("heading", name="Pacing")).inner_text()
    assert "▼ behind" in part and "▲ ahead" in part and "◌ not begun" in part and "10,000" in part


def test_models_stand_side_by_side_and_what_no_touch_earned_is_said(visit, keys):
    open_(visit, keys, at("a", **DAYS))
    read(visit, "a")
    part = visit.page.locator("section", has=visit.page.get_by_role("heading", name="Attribution"))
    assert [h.inner_text() for h in part.locator("table").first.locator("thead th").all()] == ["Campaign", "Last touch", "Linear"]
    lines = [row.inner_text().split("\t") for row in part.locator("table").first.locator("tbody tr").all()]
    assert lines[0] == ["c1", "0.67", "1,234,567,890.67"] and lines[1][0].startswith("No touch")


def test_invalid_traffic_is_explained(visit, keys):
    open_(visit, keys, at("a", **DAYS))
    read(visit, "a")
    part = visit.page.locator("section", has=visit.page.get_by_role("heading", name="Invalid traffic")).inner_text()
    assert "Declared robots" in part and "known bot, spider or crawler" in part and "GIVT" in part


def test_a_campaign_is_shown_alone(visit, keys):
    open_(visit, keys, at("a", campaign="c2", **DAYS))
    read(visit, "a")
    assert "Only campaign c2." in visit.text() and "1 final, 0 restated" in visit.text()
    visit.page.get_by_role("link", name="All campaigns").click()
    expect(visit.page.get_by_text("Only campaign")).to_have_count(0)


@pytest.mark.parametrize("asked, told", [
    ({"from_": "2026-03-03T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "The range ends before it begins"),
    ({"from_": "2026-03-02T10:30:00Z", "to": "2026-03-02T12:00:00Z"}, "2026-03-02T10:30:00Z is not a whole hour."),
    ({"from_": "yesterday", "to": "2026-03-02T00:00:00Z"}, "“yesterday” is no time"),
    ({"from_": "2025-01-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "longer than 92 days"),
])
def test_a_range_that_is_none_is_told_and_nothing_is_drawn(visit, keys, asked, told):
    open_(visit, keys, at("a", **asked))
    expect(visit.page.get_by_role("alert")).to_contain_text(told)
    assert visit.page.locator(".chart").count() == 0


def test_a_range_is_chosen_in_utc_wherever_the_browser_is(visit, keys):
    open_(visit, keys, at("a"))
    read(visit, "a")
    visit.page.get_by_label("From", exact=True).fill("2026-03-02")
    visit.page.get_by_label("From: hour").select_option("05:00")
    visit.page.get_by_label("to, not included", exact=True).fill("2026-03-02")
    visit.page.get_by_label("to, not included: hour").select_option("07:00")
    visit.page.get_by_role("button", name="Show").click()
    expect(visit.page.get_by_text("2 hours: ")).to_be_visible()
    assert "from=2026-03-02T05%3A00%3A00Z&to=2026-03-02T07%3A00%3A00Z" in visit.page.url


def test_an_empty_day_that_is_complete_is_told_from_one_that_is_not(visit, keys):
    open_(visit, keys, at("a", from_="2026-02-01T00:00:00Z", to="2026-02-02T00:00:00Z"))
    read(visit, "a")
    assert "Nothing was delivered in this range; its hours are complete." in visit.text()
    assert "No conversion in this range." in visit.text() and "No invalid traffic was found" in visit.text()
    visit.page.evaluate("to => { location.hash = to }", at("a", from_="2026-04-01T00:00:00Z", to="2026-04-02T00:00:00Z"))
    expect(visit.page.get_by_text("Nothing has been counted in this range so far; not all of its hours are complete.")).to_be_visible()


def test_an_unknown_advertiser_is_told(visit, keys):
    open_(visit, keys, at("nobody"))
    expect(visit.page.get_by_role("alert")).to_have_text("Nothing has been counted for an advertiser of this id.")


def test_names_are_text_whatever_they_are(visit, keys):
    open_(visit, keys)
    visit.page.get_by_role("link", name=STRANGE).click()
    read(visit, STRANGE)
    assert "<b>bold</b>" in visit.text() and visit.page.locator("main img, main b").count() == 0


def test_a_server_that_is_gone_is_told(browser, keys, tmp_path):
    with serving(DuckDbReports(write(tmp_path / "out", books())), keys.ring()) as asking:
        with visiting(browser, asking.port) as visit:
            open_(visit, keys)
            visit.page.route("**/v1/**", lambda route: route.abort())
            visit.page.get_by_role("button", name="Read again").click()
            expect(visit.page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_a_part_that_cannot_be_read_leaves_the_others(visit, keys):
    problem = {"status": 501, "content_type": "application/problem+json",
               "body": '{"type": "urn:x", "title": "x", "status": 501, "detail": "This server has no access to this table."}'}
    visit.page.route("**/invalid_traffic/sums*", lambda route: route.fulfill(**problem))
    visit.page.route("**/pacing", lambda route: route.fulfill(**problem))
    open_(visit, keys, at("a"))
    read(visit, "a")
    assert visit.text().count("This server has no access to this table.") == 2 and visit.page.locator(".chart canvas").count() == 1


@pytest.mark.parametrize("what, kind", [("Excel", "xlsx"), ("CSV", "csv"), ("Parquet", "parquet")])
def test_a_button_saves_the_rows_and_their_manifest(visit, keys, what, kind):
    open_(visit, keys, at("a", from_="2026-03-02T00:00:00Z", to="2026-03-04T00:00:00Z"))
    read(visit, "a")
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name=what).click()
    with zipfile.ZipFile(io.BytesIO(saved.value.path().read_bytes())) as packed:
        names = packed.namelist()
    assert any(name.endswith(f".{kind}") for name in names) and any(name.endswith(".manifest.json") for name in names)
    expect(visit.page.get_by_text("was saved")).to_be_visible()


def test_an_export_that_is_refused_is_told(visit, keys):
    open_(visit, keys, at("a", from_="2026-03-02T05:00:00Z", to="2026-03-04T00:00:00Z"))
    read(visit, "a")
    visit.page.get_by_label("Rows").select_option("day")
    visit.page.get_by_role("button", name="CSV").click()
    expect(visit.page.locator("#export ~ [role=status].wrong")).to_contain_text("whole UTC days")


# -- by whom, and on what


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("fragment, title", [(None, "Sign in"), ("#/", "Advertisers"), (at("a"), "a"), (at("a", from_="x"), "a"), (at("nobody"), "nobody"),
                                            (at("a", from_="2026-02-01T00:00:00Z", to="2026-02-02T00:00:00Z"), "a")])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(browser, server, keys, viewport, fragment, title):
    with visiting(browser, server.port, viewport) as visit:
        if fragment is None:
            visit.page.goto("/")
        else:
            open_(visit, keys, fragment)
        read(visit, title)
        for more in visit.page.locator("summary").all():
            more.click()
        assert visit.wrong() == []
        assert visit.page.evaluate(WIDER, viewport["width"]) == []


def test_all_is_done_by_keyboard(visit, keys):
    def focus() -> str:
        return visit.page.evaluate("document.activeElement.innerText || document.activeElement.id")

    def until(text: str, key: str = "Tab") -> None:
        for _ in range(40):
            if focus() == text:
                return
            visit.page.keyboard.press(key)
        raise AssertionError(f"{text} is not reached, but {focus()}")

    visit.page.goto("/")
    read(visit, "Sign in")
    visit.page.keyboard.press("Tab")
    assert focus() == "To the figures"
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "main"
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.type(keys.sales)
    visit.page.keyboard.press("Enter")
    read(visit, "Advertisers")
    until("a/b")
    visit.page.keyboard.press("Enter")
    read(visit, "a/b")
    assert visit.page.evaluate("document.activeElement.id") == "main"
    until("Table of the hours")
    visit.page.keyboard.press("Enter")
    assert "2026-03-02 03:00" in visit.text()
    with visit.page.expect_download():
        until("CSV")
        visit.page.keyboard.press("Enter")


def test_the_first_view_is_light(visit, keys):
    open_(visit, keys)
    packed = sum(visit.got.values())
    whole = visit.page.evaluate("performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
                                ".reduce((sum, of) => sum + of.decodedBodySize, 0)")
    assert 0 < packed < whole < BYTES
