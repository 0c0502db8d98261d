"""What routes have in common: how they are documented, and an answer that says as of when it is."""

from typing import Any

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.responses import Response

from measurement.serving.answer import answer
from measurement.serving.problems import MEDIA_TYPE
from measurement.serving.times import text

BEARER = HTTPBearer(auto_error=False, scheme_name="key", bearerFormat="adm_ID_SECRET", description="A key of one advertiser, or of sales.")
ADVERTISER = "/v1/advertisers/{advertiser_id:path}"
_PROBLEMS = {400: "A parameter is missing, wrong, unknown or given twice, or a key is where none belongs.", 401: "No valid key.",
             403: "The key is not for these figures.", 429: "Too many requests; Retry-After says when to come back.",
             503: "The figures cannot be read just now."}
NOBODY = {404: "With a key of sales: nothing has been counted for this advertiser."}
ELSEWHERE = {501: "This server does not have the table."}
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": "Of these very bytes."}}
_LINK = {"Link": {"schema": {"type": "string"}, "description": "rel=next: the address of the next page."}}


def stated(request: Request, content: dict, as_of: int | None, until: int | None, more: dict | None = None,
           link: str | None = None) -> Response:
    """``content``, ``as_of``, ``complete_until`` (µs) and ``more``, as the request takes them."""
    content |= {"as_of": None if as_of is None else text(as_of), "complete_until": None if until is None else text(until), **(more or {})}
    return answer(content, request.headers.get("accept-encoding", ""), ", ".join(request.headers.getlist("if-none-match")), link)


def problem(status: int) -> dict:
    return _problem(_PROBLEMS[status])


def problems_of(more: dict[int, str]) -> dict[int | str, dict]:
    """Those that every route with a key may answer with, and ``more``."""
    return {code: _problem(description) for code, description in sorted((_PROBLEMS | more).items())}


def responses(model: Any, more: dict[int, str], paged: bool = True) -> dict[int | str, dict]:
    found = {200: {"model": model, "description": "The rows.", "headers": _ETAG | (_LINK if paged else {})},
             304: {"description": "If-None-Match has the ETag: nothing is new."}}
    return found | problems_of(more)


def _problem(description: str) -> dict:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}}
