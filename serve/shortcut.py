"""A layer that takes the busiest routes past the framework, as long as a request is as its route wants it.

The framework finds out anew for each request what a route takes, and by what; for a short one that is most of the work.
Here it is found out once, and from the same declaration: the fields that check a value are the framework's own. What
they refuse, and what is no plain JSON, goes on to the framework, body and all, and gets its answer there: what is wrong
with a request is said in one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modules.core.errors import PlatformError

from .errors import HttpError
from .exchange import exchange_of
from .requests import on_error


class Way:
    """To one route, a coroutine that gives the answer itself. It takes the request, what stands in the path, headers
    that may be missing, at most one model of all the query, and at most one body in JSON.

    Raises ValueError for a route that takes more."""

    def __init__(self, route: APIRoute) -> None:
        takes = route.dependant
        more = takes.dependencies or takes.cookie_params or takes.query_params[1:] or takes.body_params[1:]
        if more or any(one.field_info.is_required() for one in takes.header_params):
            raise ValueError(f"{route.path} takes what only the framework gives")
        self.route = route
        self.has_body = bool(takes.body_params)
        self._takes = takes

    def arguments(self, request: Request, body: bytes) -> dict[str, Any] | None:
        """What the route is called with; None where the framework has to say what is wrong."""
        takes, headers = self._takes, exchange_of(request.scope).received
        given: list[tuple[Any, Any]] = [(field, request.path_params[field.alias]) for field in takes.path_params]
        given += [(field, headers[field.alias]) for field in takes.header_params if field.alias in headers]
        for field in takes.query_params:
            query = request.query_params
            if len(query) != len(query.multi_items()):
                return None
            given.append((field, dict(query)))
        for field in takes.body_params:
            try:
                # This decoder refuses some of what the framework's takes, and gives the same for the rest.
                given.append((field, msgspec.json.decode(body)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
        arguments = {takes.request_param_name: request} if takes.request_param_name else {}
        for field, value in given:
            arguments[field.name], errors = field.validate(value)
            if errors:
                return None
        return arguments


class Shortcut:
    """ASGI, right before the framework."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._ways = [Way(route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for way in self._ways:
                match, found = way.route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await self._along(way, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _along(self, way: Way, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            body = await request.body() if way.has_body else b""
            arguments = way.arguments(request, body)
            if arguments is None:
                await self._app(scope, _again(body, receive) if way.has_body else receive, send)
                return
            response: Response = await way.route.endpoint(**arguments)
        except (HttpError, PlatformError) as error:
            response = await on_error(request, error)
        await response(scope, receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    """What is received where *body* has been read already."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return first.pop() if first else await receive()

    return received
