"""The page for ad sales: its files, as they were when the server started. They hold no figures, so nobody needs a key for them."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from measurement.serving.answer import has, takes_gzip

FILES = Path(__file__).with_name("page")
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
          ".svg": "image/svg+xml", ".png": "image/png"}
_PLAIN = "text/plain; charset=utf-8"
# Its own scripts and styles and this server's figures; nothing from elsewhere, nothing written into the page itself.
_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
           "form-action 'none'; frame-ancestors 'none'")
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


@dataclass(frozen=True)
class _File:
    media_type: str
    plain: bytes
    packed: bytes | None  # where gzip makes it smaller
    tag: str


def install(app: FastAPI, files: Path = FILES) -> None:
    """``/`` is index.html. What is not among the files at this moment is not there, whatever its path says."""
    known = {path.name: _read(path) for path in files.iterdir() if path.is_file()}

    @app.get("/", include_in_schema=False)
    async def _index(request: Request) -> Response:
        return _answer(request, known.get("index.html"))

    @app.get("/page/{name}", include_in_schema=False)
    async def _one(request: Request, name: str) -> Response:
        return _answer(request, known.get(name))


def _read(path: Path) -> _File:
    plain = path.read_bytes()
    packed = gzip.compress(plain, mtime=0)
    tag = hashlib.sha256(plain).hexdigest()[:32]
    return _File(_TYPES.get(path.suffix, _PLAIN), plain, packed if len(packed) < len(plain) else None, tag)


def _answer(request: Request, file: _File | None) -> Response:
    if file is None:
        raise HTTPException(404)
    packs = file.packed is not None and takes_gzip(request.headers.get("accept-encoding", ""))
    headers = {**_HEADERS, "ETag": f'"{file.tag}-gzip"' if packs else f'"{file.tag}"'}
    if has(", ".join(request.headers.getlist("if-none-match")), file.tag):
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.plain, headers=headers, media_type=file.media_type)
