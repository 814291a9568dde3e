"""The outermost layer: every request gets an id, every answer its headers, every end a record and a figure.

Whatever is raised further in, by a layer or by a defect, becomes an answer here, as long as none has begun.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.clock import Clock, IdMaker

from .exchange import Exchange, begin, exchange_of, received_in, request_id_of_now
from .json_response import Json
from .metrics import Metrics
from .paths import routed_path
from .problems import Problem, problem_of

log = logging.getLogger(__name__)
access = logging.getLogger("serve.access")

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
_CLOSED_BY_CLIENT = 499

_USUAL_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}


class Requests:
    """ASGI."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Clock, new_id: IdMaker) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = received_in(scope)
        exchange = Exchange(self._id_of(received), received)
        begin(scope, exchange)
        token = request_id_of_now.set(exchange.request_id)
        began = self._clock.monotonic()
        status = _CLOSED_BY_CLIENT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_usual(message.get("headers", ()), exchange)}
            await send(message)

        self._metrics.in_flight.inc()
        try:
            path = routed_path(scope.get("raw_path") or b"")
            if path is not None:
                scope["path"] = path
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.debug("nobody waits for the answer any more")
        except Exception as error:
            if status != _CLOSED_BY_CLIENT:
                log.error("an answer broke off", exc_info=error)
                raise
            await answer_of(problem_of(error), exchange, error)(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            self._note(scope, exchange, status, self._clock.monotonic() - began)
            request_id_of_now.reset(token)

    def _id_of(self, received: Mapping[str, str]) -> str:
        sent = received.get("x-request-id", "")
        return sent if _ID.fullmatch(sent) else f"req_{self._new_id()}"

    def _note(self, scope: Scope, exchange: Exchange, status: int, seconds: float) -> None:
        route = route_of(scope)
        method = _method_of(scope)
        self._metrics.answered(method, route, status, seconds)
        if access.isEnabledFor(logging.INFO):
            told = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 2),
                "caller": exchange.caller.name if exchange.caller else None,
                "error_code": exchange.error_code,
            }
            # Made here, so that nobody goes through the stack to find this line.
            arguments = (method, route, status)
            record = logging.LogRecord(access.name, logging.INFO, __file__, 0, "%s %s %d", arguments, None)
            vars(record).update(told)
            access.handle(record)


def _method_of(scope: Scope) -> str:
    """One of few: the text is the caller's."""
    return scope["method"] if scope["method"] in _METHODS else "OTHER"


def route_of(scope: Scope) -> str:
    """The path of the route, without anybody's ids."""
    route = scope.get("route")
    return str(getattr(route, "path", _UNMATCHED))


def answer_of(problem: Problem, exchange: Exchange, error: BaseException) -> Response:
    """The answer that *error* became; a defect is logged in full."""
    exchange.error_code = problem.code
    if problem.is_defect:
        log.error("a request failed: %s", type(error).__name__, exc_info=error)
    elif problem.status >= 500:
        log.warning("a request could not be served: %s", error)
    return Json(problem.body(exchange.request_id), problem.status, headers=problem.all_headers())


async def on_error(request: Request, error: Exception) -> Response:
    """For the framework: what a route raises."""
    return answer_of(problem_of(error), exchange_of(request.scope), error)


def _with_usual(headers: Iterable[tuple[bytes, bytes]], exchange: Exchange) -> list[tuple[bytes, bytes]]:
    own = [(name.lower(), value) for name, value in headers]
    given = {name for name, _ in own}
    usual = [(name, value) for name, value in _USUAL_HEADERS.items() if name not in given]
    return [*own, *usual, *exchange.headers, (b"x-request-id", exchange.request_id.encode())]
