"""The HTTP application: a pure ASGI app over a running platform, the same under Ray Serve, uvicorn and in a test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from actors.system import Platform
from config.findings import is_loopback
from config.settings import Http, Settings
from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.errors import ConfigurationError, PlatformError

from .bodies import Bodies, BodyRules
from .errors import HttpError
from .gate import Gate
from .key_ring import KeyRing
from .keys import KeyFile
from .metrics import Metrics
from .openapi import shown_document
from .rates import Rates
from .request_spans import RequestSpans
from .requests import Requests, on_error
from .routes import ROUTES, busiest, methods_at
from .serving import Serving
from .shortcut import Shortcut

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[Platform]]


def create_app(
    platform: Platform | Connect,
    settings: Settings,
    *,
    instance: str = "",
    clock: Clock | None = None,
    new_id: IdMaker = new_hex,
) -> FastAPI:
    """The app. Made in the process that serves it (it does not pickle), and usable once its lifespan has begun.

    *platform* is one that runs, which is left running; or a function that connects to one when the app starts, which
    is let go of (`Platform.close`) when the app ends. *instance* names this replica in its figures; it must differ
    from replica to replica. ``app.state.drain()`` ends the streams under way and makes ``/ready`` say no, for a
    graceful stop: what there is of each answer is kept.

    Raises ConfigurationError, StorageError or NotFound for keys that cannot be read, and ConfigurationError for a
    server that would be open to others than this machine without keys.
    """
    clock, http = clock or SystemClock(), settings.http
    keys = _keys(http)
    metrics = Metrics(instance or new_id()[:12])
    draining = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            running = platform if isinstance(platform, Platform) else await platform()
            if not isinstance(platform, Platform):
                stack.push_async_callback(running.close)
            serving = Serving.of(running, settings, clock, metrics, draining)
            app.state.serving = serving
            stack.push_async_callback(asyncio.to_thread, serving.shared_metrics.withdraw)
            stack.push_async_callback(serving.embedder.close)
            stack.push_async_callback(asyncio.to_thread, serving.arrivals.close)
            with suppress(PlatformError):  # the next heartbeat will tell
                await serving.heartbeats.take()
            followers = [serving.heartbeats.follow(), serving.shared_metrics.keep_writing()]
            followers += [_follow(keys, metrics)] if keys is not None else []
            tasks = [asyncio.create_task(one) for one in followers]
            for task in tasks:
                task.add_done_callback(_log_end)
            stack.push_async_callback(_cancelled, tasks)
            yield
            draining.set()

    app = FastAPI(
        title="modchat",
        version=version("modchat"),
        description="A modular chat platform. Keys go into `Authorization: Bearer KEY`; where the server has none, it "
        "answers to its own machine alone. An `X-Request-Id` of 1 to 128 letters, digits, `.`, `_` and `-` comes back "
        "with the answer and stands in the log; without one, or with another, the answer names a new one.",
        lifespan=lifespan,
        # As they are and not by include_router, which would build each of them anew, and look for each request twice.
        routes=[route for routes in ROUTES for route in routes.router.routes],
        docs_url=None,  # they would load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            **dict.fromkeys((HttpError, PlatformError, RequestValidationError), on_error),
            HTTPException: _on_framework_error,
        },
    )
    app.state.drain = draining.set
    _add_layers(app, http, keys, metrics, clock, new_id)
    _describe(app, http, has_keys=keys is not None)
    return app


def _add_layers(
    app: FastAPI, http: Http, keys: KeyRing | None, metrics: Metrics, clock: Clock, new_id: IdMaker
) -> None:
    """Around the routes; the one that is added last is the outermost."""
    uploads = {path for routes in ROUTES for path in routes.uploads}
    rules = BodyRules(uploads, max_body_bytes=http.max_body_bytes, max_upload_bytes=http.max_upload_bytes)
    app.add_middleware(Shortcut, routes=busiest())
    app.add_middleware(Bodies, rules=rules)
    app.add_middleware(Gate, keys=keys, rates=Rates(http.requests_per_minute, clock), origins=http.cors_origins)
    if http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=http.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After", "X-RateLimit-Remaining"],
        )
    app.add_middleware(RequestSpans)
    app.add_middleware(Requests, metrics=metrics, clock=clock, new_id=new_id)


async def _on_framework_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        # The framework names the methods of the first route of this path alone.
        error.headers = {"Allow": ", ".join(methods_at(request.scope["path"]))}
    return await on_error(request, error)


def _describe(app: FastAPI, http: Http, *, has_keys: bool) -> None:
    framework = app.openapi
    document: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not document:
            document.update(shown_document(framework(), http, has_keys=has_keys))
        return document

    app.openapi = described  # type: ignore[method-assign]


def _keys(http: Http) -> KeyRing | None:
    if http.api_keys_file is not None:
        return KeyRing(KeyFile(http.api_keys_file))
    if not is_loopback(http.host):
        raise ConfigurationError(
            f"http.host is {http.host}, and without http.api_keys_file this server binds loopback only: make keys "
            "with 'modchat keys create', or bind 127.0.0.1"
        )
    return None


async def _follow(keys: KeyRing, metrics: Metrics) -> None:
    async for is_current in keys.follow():
        metrics.note_keys(is_current)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("what goes on beside requests has ended: restart this replica", exc_info=error)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
