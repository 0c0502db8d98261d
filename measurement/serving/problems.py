"""Errors as RFC 9457 problem documents, made without anything of the server's inside or of the request's text."""

import logging
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from measurement.serving.keys import KeysUnreadable
from measurement.serving.paging import BadCursor, TooMuch
from measurement.serving.reports import NotServed, Unavailable
from measurement.serving.sums import MOST_READ, TooManyToSum

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("measurement.serving")


class Problem(Exception):
    """``kind`` is the last part of the document's type; ``parameters``: what is wrong with each."""

    def __init__(self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None,
                 parameters: list[tuple[str, str]] | None = None):
        super().__init__(kind)
        self.status, self.kind, self.detail, self.headers, self.parameters = status, kind, detail, headers, parameters

    @property
    def body(self) -> bytes:
        document = {"type": f"urn:ad-measurement:problem:{self.kind}", "title": HTTPStatus(self.status).phrase, "status": self.status,
                    "detail": self.detail}
        if self.parameters:
            document["errors"] = [{"parameter": name, "detail": detail} for name, detail in self.parameters]
        return orjson.dumps(document)

    @property
    def response(self) -> Response:
        return Response(self.body, self.status, {"Cache-Control": "no-store", **(self.headers or {})}, MEDIA_TYPE)


def bad_parameter(name: str, detail: str) -> Problem:
    return Problem(400, "parameters", "A parameter is missing or wrong.", parameters=[(name, detail)])


def install(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def _known(_: Request, problem: Problem) -> Response:
        return problem.response

    @app.exception_handler(HTTPException)
    async def _routing(_: Request, error: HTTPException) -> Response:
        details = {404: "There is nothing under this path.", 405: "This path is read with GET."}
        kinds = {404: "no-such-path", 405: "method"}
        code = error.status_code
        detail = details.get(code, "The request cannot be answered.")
        return Problem(code, kinds.get(code, "request"), detail, dict(error.headers or {})).response

    @app.exception_handler(RequestValidationError)
    async def _parameters(_: Request, error: RequestValidationError) -> Response:
        wrong = [(str(e["loc"][1]) if len(e["loc"]) > 1 else "query", _said(e)) for e in error.errors()]
        return Problem(400, "parameters", "A parameter is missing or wrong.", parameters=wrong).response

    @app.exception_handler(BadCursor)
    async def _cursor(_: Request, error: BadCursor) -> Response:
        return bad_parameter("cursor", "is not one that was given for these parameters").response

    @app.exception_handler(TooMuch)
    async def _too_much(_: Request, error: TooMuch) -> Response:
        detail = "A day of this has too many hourly rows to be summed here; ask for a campaign, or by hour."
        return Problem(400, "too-many-rows", detail).response

    @app.exception_handler(TooManyToSum)
    async def _too_many_to_sum(_: Request, error: TooManyToSum) -> Response:
        detail = f"These are made of more than {MOST_READ:,} hourly rows; ask for fewer days, or for a campaign."
        return Problem(400, "too-many-rows", detail).response

    @app.exception_handler(NotServed)
    async def _not_served(_: Request, error: NotServed) -> Response:
        return Problem(501, "not-served", "This server has no access to this: it was started without --bigquery.").response

    @app.exception_handler(Unavailable)
    @app.exception_handler(KeysUnreadable)
    async def _unavailable(_: Request, error: Exception) -> Response:
        _LOG.error("unavailable: %s", error)
        return unavailable().response


def unavailable() -> Problem:
    return Problem(503, "unavailable", "The figures cannot be read just now.", {"Retry-After": "2"})


def unforeseen() -> Problem:
    return Problem(500, "unforeseen", "This is a fault of the server; it has been noted.")


def _said(error: dict) -> str:
    """A validation error in words, without what was given: that may be anything, a key among others."""
    kind = error["type"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    known = {"missing": "is needed", "extra_forbidden": "is not a parameter here"}
    return known.get(kind) or error["msg"][0].lower() + error["msg"][1:]
