"""A layer that makes every request a span: the root of what it causes, or, with a ``traceparent``, a part of the trace
that its sender has begun.

The span carries the route and not the path, which holds people's ids. Where the platform keeps no traces, and for
routes that are asked all the time by machines, requests pass as they are.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.errors import PlatformError
from modules.core.tracing import SERVER, SpanContext, Tracer

from .errors import HttpError
from .exchange import exchange_of
from .problems import problem_of
from .requests import answer_of, route_of

_UNTRACED = frozenset({"/health", "/ready", "/metrics"})
_FAILED = 500


class RequestSpans:
    """ASGI. Answers of a trace carry its context in ``traceresponse``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracer = _tracer_of(scope)
        if tracer is None:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        exchange = exchange_of(scope)
        sender = SpanContext.parse(exchange.received.get("traceparent"))
        with tracer.span(method, {"http.request.method": method}, kind=SERVER, parent=sender) as span:
            has_begun = False

            async def send_and_note(message: Message) -> None:
                nonlocal has_begun
                if message["type"] == "http.response.start":
                    has_begun, status = True, message["status"]
                    span.set("http.response.status_code", status)
                    if status >= _FAILED:
                        span.fail(str(status))
                await send(message)

            if span.context is not None:
                exchange.headers.append((b"traceresponse", span.context.traceparent.encode()))
                span.set("modchat.request_id", exchange.request_id)
            try:
                await self._app(scope, receive, send_and_note)
            except (HttpError, PlatformError) as error:
                # A layer further in refuses. That is no failure of the server's, if the status does not say so.
                if has_begun:
                    raise
                await answer_of(problem_of(error), exchange, error)(scope, receive, send_and_note)
            finally:
                # Which route it is, is known once the application has looked.
                route = route_of(scope)
                span.rename(f"{method} {route}")
                span.set("http.route", route)


def _tracer_of(scope: Scope) -> Tracer | None:
    if scope["type"] != "http" or scope["path"] in _UNTRACED:
        return None
    serving = getattr(scope["app"].state, "serving", None)
    tracer: Tracer | None = None if serving is None else serving.platform.tracer
    return tracer if tracer is not None and tracer.is_on else None
