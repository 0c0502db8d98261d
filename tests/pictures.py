"""The pictures in docs/pictures, taken of the page over what `make run` left: `make pictures`."""

import re
import subprocess
import sys
from pathlib import Path

from tests.browser import DESK, PHONE, Visit, chromium, visiting

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
ADVERTISER = "#/a/adv-6?from=2026-03-02T00:00:00Z&to=2026-03-03T06:00:00Z"


def main(out: str) -> None:
    demo = subprocess.Popen([sys.executable, "-m", "measurement.cli", "demo", "--out", out, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)/(#key=\S+)", line) for line in demo.stdout)), None)
        if address is None:
            raise SystemExit(demo.wait())
        port, key = int(address[1]), address[2]
        PICTURES.mkdir(exist_ok=True)
        with chromium() as browser:
            with visiting(browser, port, DESK) as visit:
                visit.page.goto(f"/{key}")
                visit.page.locator("tbody tr").first.wait_for()
                visit.page.screenshot(path=PICTURES / "advertisers.png")
                _advertiser(visit)
                part(visit, "advertiser.png", "adv-6", "Delivery by hour")
                part(visit, "attribution.png", "Attribution", "Export")
            with visiting(browser, port, PHONE) as visit:
                visit.page.goto(f"/{key}")
                visit.page.locator("tbody tr").first.wait_for()
                _advertiser(visit)
                visit.page.get_by_role("heading", name="Delivery by hour").scroll_into_view_if_needed()
                visit.page.evaluate("scrollTo(0, document.querySelector('#delivery').getBoundingClientRect().top + scrollY - 12)")
                visit.page.screenshot(path=PICTURES / "phone.png")
    finally:
        demo.terminate()
        demo.wait(60)


def _advertiser(visit: Visit) -> None:
    visit.page.evaluate("to => { location.hash = to }", ADVERTISER)
    visit.page.locator(".u-over").wait_for()
    width = visit.page.locator(".u-over").bounding_box()["width"]
    visit.page.locator(".u-over").hover(position={"x": width * 19.4 / 30, "y": 20})


def part(visit: Visit, name: str, first: str, last: str) -> None:
    """From the top of one section (or of the page, by its title) to the end of another."""
    top, end = (visit.page.get_by_role("heading", name=title, exact=True).evaluate(
        "(e, edge) => (e.closest('section') ?? document.body).getBoundingClientRect()[edge] + scrollY", edge) for title, edge in ((first, "top"), (last, "bottom")))
    visit.page.screenshot(path=PICTURES / name, full_page=True, clip={"x": 0, "y": max(0, top - 12), "width": DESK["width"], "height": end + 24 - top})


if __name__ == "__main__":
    main(*sys.argv[1:])
