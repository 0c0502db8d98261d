"""An answer's bytes: JSON, its ETag, gzip where it pays, and 304 where the client has it."""

import hashlib
import re
import zlib

import orjson
from starlette.responses import Response

from measurement.model.tables import NUMERIC, TIMESTAMP, Table
from measurement.model.views.view import View
from measurement.serving.reports import Row
from measurement.serving.times import text

_LEAST_GZIP = 1400  # bytes: what fits a packet gains nothing
# Figures are one customer's, and may be restated at any time: kept by nobody else, and asked about each time.
_CACHE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Accept-Encoding"}
_GZIP = re.compile(r"(?:^|,)\s*(?:gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?(?=,|$)", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def rows_of(table: Table | View, rows: list[Row]) -> list[dict]:
    """As JSON has them: times in RFC 3339, a NUMERIC as its decimal digits, of which a JSON number might lose some."""
    names = [c.name for c in table.columns]
    made = [dict(zip(names, row)) for row in rows]
    for column in table.columns:
        if (say := _SAID.get(column.type)) is not None:
            name = column.name
            for row in made:
                if (value := row[name]) is not None:
                    row[name] = say(value)
    return made


def _decimal(units: int) -> str:
    return f"{'-' if units < 0 else ''}{abs(units) // 10**9}.{abs(units) % 10**9:09d}"


_SAID = {TIMESTAMP: text, NUMERIC: _decimal}


def answer(content: dict, accept_encoding: str, if_none_match: str, link: str | None = None) -> Response:
    """The tag is of the content itself, so that it is another exactly where a byte is."""
    body = orjson.dumps(content)
    tag = hashlib.sha256(body).hexdigest()[:32]
    packed = len(body) >= _LEAST_GZIP and takes_gzip(accept_encoding)
    headers = {**_CACHE, "ETag": f'"{tag}-gzip"' if packed else f'"{tag}"', **({"Link": link} if link else {})}
    if has(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    if packed:
        deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
        body = deflate.compress(body) + deflate.flush()
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type="application/json")


def takes_gzip(accept_encoding: str) -> bool:
    qualities = {match[0].split(";")[0].strip(", ").lower(): _quality(match[1]) for match in _GZIP.finditer(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _quality(given: str | None) -> float:
    try:
        return 1.0 if given is None else float(given)
    except ValueError:
        return 0.0


def has(if_none_match: str, tag: str) -> bool:
    """RFC 9110: a weak comparison; in either encoding it is the same content."""
    return if_none_match.strip() == "*" or tag in {found.removesuffix("-gzip") for found in _TAG.findall(if_none_match)}
