"""Around every request: no body is taken, safe headers are set, one line is logged, in which no address and no key stands."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measurement.serving.problems import Problem, unforeseen

_LOG = logging.getLogger("measurement.serving")
_HEADERS = {
    b"x-content-type-options": b"nosniff", b"x-frame-options": b"DENY", b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'", b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """A route may set any of the headers itself, as a page does that has scripts."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((n, v) for n, v in _HEADERS.items() if n not in there)]
            await send(message)

        try:
            if _has_body(scope):
                problem = Problem(413, "no-body", "Requests here have no body.", {"Connection": "close"})
                await problem.response(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        except Exception:
            _LOG.exception("unforeseen")
            if status:
                raise  # the answer has begun; the connection is closed in its middle
            await unforeseen().response(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            key = scope.get("state", {}).get("key_id", "-")
            _LOG.info("%s %s %s %.1f ms key %s", scope["method"] if scope["method"].isalpha() else "-", route, status,
                      1000 * (time.perf_counter() - began), key)


def _has_body(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in scope["headers"])
