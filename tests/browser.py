"""A real Chromium, headless, for tests of the page: what went wrong in it fails the test, and it talks to nobody but the server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from measurement.local.doctor import find_chromium

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, or Chrome. Without one a test is skipped at a desk and fails in CI, where a skip would pass unseen."""
    found = find_chromium()
    if found is None:
        lack = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        lack("Chromium is not there: apt-get install chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in a tab of its own. ``errors``: what the console and uncaught exceptions said; ``elsewhere``: requests to others;
    ``got``: bytes of each answer's body as the page had them, by path."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    got: dict[str, int] = field(default_factory=dict)

    def text(self, selector: str = "main") -> str:
        return self.page.locator(selector).inner_text()

    def wrong(self) -> list[str]:
        """What axe finds against WCAG 2.2 A and AA and its best practices, in lines."""
        found = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {v['help']}: {node['html']}" for v in found for node in v["nodes"]]


@contextmanager
def visiting(browser: Browser, port: int, viewport: dict[str, int] = DESK) -> Iterator[Visit]:
    """At the end nothing may have gone wrong in the page; what the server refuses is the page's to show and no error of it."""
    context: BrowserContext = browser.new_context(
        viewport=viewport, base_url=f"http://127.0.0.1:{port}", locale="de-DE", timezone_id="America/New_York", reduced_motion="reduce")
    visit = Visit(context.new_page())
    visit.page.set_default_timeout(15_000)
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", lambda said: visit.errors.append(said.text) if said.type == "error" and "Failed to load resource" not in said.text else None)
    visit.page.on("request", lambda asked: visit.elsewhere.append(asked.url) if not _ours(asked.url, port) else None)
    visit.page.on("requestfinished", lambda asked: visit.got.__setitem__(urlsplit(asked.url).path, asked.sizes()["responseBodySize"]))
    try:
        yield visit
        assert visit.errors == [] and visit.elsewhere == []
    finally:
        context.close()


def _ours(url: str, port: int) -> bool:
    at = urlsplit(url)
    return at.scheme in ("data", "blob") or at.netloc == f"127.0.0.1:{port}"
