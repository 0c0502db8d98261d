"""The page's files: what they are, who may run scripts in them, and that no path leads elsewhere."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from serving import Asking, Keys, books, serving, write

from measurement.serving import route_page
from measurement.serving.warehouses import DuckDbReports

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
          "frame-ancestors 'none'")
FILES = sorted(path for path in route_page.FILES.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[Asking]:
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys.json")
    with serving(DuckDbReports(write(tmp_path_factory.mktemp("served") / "out", books())), keys.ring()) as asking:
        yield asking


def test_the_page_is_at_the_root_without_a_key(api):
    got = api.get("/")
    assert got.status == 200 and got.body == (route_page.FILES / "index.html").read_bytes()
    assert got.headers["Content-Type"] == "text/html; charset=utf-8" and got.headers["Content-Security-Policy"] == POLICY
    assert got.headers["Cache-Control"] == "no-cache" and got.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_there_with_its_type(api, path):
    got = api.get(f"/page/{path.name}")
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    assert got.status == 200 and got.body == path.read_bytes() and got.headers["Content-Type"].split(";")[0] == types.get(path.suffix, "text/plain")
    assert got.headers["Content-Security-Policy"] == POLICY and got.headers["Cache-Control"] == "no-cache"
    packed = api.get(f"/page/{path.name}", None, {"Accept-Encoding": "gzip"})
    if packed.headers["Content-Encoding"]:
        assert gzip.decompress(packed.body) == got.body and len(packed.body) < len(got.body)
    for one in (got, packed):
        again = api.get(f"/page/{path.name}", None, {"If-None-Match": one.headers["ETag"]})
        assert (again.status, again.body) == (304, b"") and again.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("path", [
    "/page", "/page/", "/page/.", "/page/..", "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/..%5capp.py", "/page/../../cli.py",
    "/page/%2e%2e%2f%2e%2e%2fcli.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/index.html/", "/page/index.html%00", "/page/INDEX.HTML", "/page/x/index.html",
    "/page/index.html%00.js", "/page/__init__.py", "/page/.index.html.swp", "/index.html", "//", "/favicon.ico", "/page/%ff"])
def test_no_path_leads_to_another_file(api, path):
    got = api.get(path)
    assert got.status == 404 and got.headers["Content-Type"] == "application/problem+json"


def test_only_what_was_there_at_the_start_is_served(tmp_path):
    for name in ("index.html", "a.js", "b.css", "c.LICENSE", "d.exe"):
        (tmp_path / name).write_text(name)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "e.js").write_text("e")
    app = FastAPI()
    route_page.install(app, tmp_path)
    (tmp_path / "later.js").write_text("later")
    (tmp_path / "a.js").write_text("changed")
    get = next(r for r in app.routes if r.path == "/page/{name}").endpoint
    assert not [r for r in app.routes if r.path in ("/", "/page/{name}") and r.include_in_schema]
    assert type_of(get, "a.js") == ("text/javascript; charset=utf-8", b"a.js")
    assert type_of(get, "c.LICENSE") == type_of(get, "d.exe")[:1] + (b"c.LICENSE",) == ("text/plain; charset=utf-8", b"c.LICENSE")
    for name in ("later.js", "inside", "e.js"):
        with pytest.raises(Exception, match="404"):
            type_of(get, name)


def type_of(get, name: str) -> tuple[str, bytes]:
    import asyncio

    from starlette.requests import Request

    got = asyncio.run(get(Request({"type": "http", "headers": []}), name))
    return got.headers["content-type"], got.body


def test_a_package_carries_the_page(tmp_path):
    """A build from the tree's own setup.py has the files beside the module that serves them."""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")], cwd=root, check=True, capture_output=True, timeout=300)
    assert {path.name for path in (tmp_path / "lib" / "measurement" / "serving" / "page").iterdir()} >= {path.name for path in FILES}
