"""The page over Bigtable in a real browser: the same figures as over a local warehouse, and what a server without BigQuery does not have."""

from contextlib import closing
from zlib import crc32

import pytest
from browser import Visit, chromium, visiting
from playwright.sync_api import expect
from serving import Keys, arrow, books, serving, write

from measurement.io import bigtable_admin
from measurement.io.bigtable import BigtableWriter
from measurement.serving.bigtable import BigtableReports
from measurement.serving.warehouses import DuckDbReports

LACKING = "This server has no access to this: it was started without --bigquery."


@pytest.fixture(scope="module")
def instance(bigtable) -> str:
    name = f"projects/demo/instances/i{crc32(b'page')}"
    bigtable_admin.provision(bigtable, name)
    with closing(BigtableWriter(bigtable, name)) as writer:
        for table in ("delivery", "attribution"):
            writer.write(table, arrow(table, books()[table]))
    return name


def part(visit: Visit, title: str) -> str:
    return visit.page.locator("section", has=visit.page.get_by_role("heading", name=title, exact=True)).inner_text()


def test_the_page_over_bigtable_has_the_same_figures_and_says_what_it_lacks(bigtable, instance, tmp_path):
    keys = Keys(tmp_path / "keys.json")
    seen = []
    for reports in (DuckDbReports(write(tmp_path / "out", books())), BigtableReports(bigtable, instance)):
        with serving(reports, keys.ring()) as api, chromium() as browser, visiting(browser, api.port) as visit:
            visit.page.goto(f"/#key={keys.sales}")
            expect(visit.page.locator("h1")).to_have_text("Advertisers")
            listed = visit.page.locator("tbody th").all_inner_texts()
            visit.page.evaluate("to => { location.hash = to }", "#/a/a?from=2026-03-02T00:00:00Z&to=2026-03-05T00:00:00Z")
            expect(visit.page.locator("h1")).to_have_text("a")
            visit.page.locator("summary").click()
            seen.append([listed, visit.text("#freshness"), *(part(visit, title) for title in ("Delivery by hour", "Campaigns", "Attribution"))])
            lacking = [part(visit, title) for title in ("Pacing", "Invalid traffic")]
    assert seen[0] == seen[1] and "↻ restated" in seen[1][2]
    assert lacking == [f"{title}\n\n{LACKING}" for title in ("Pacing", "Invalid traffic")]
