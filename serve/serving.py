"""What routes work with: the parts of one app, put together once, and the dependencies that hand them out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from actors.module_ref import ModuleRef
from actors.system import Platform
from config.settings import Http, Settings
from modules.core.clock import Clock
from modules.core.errors import ModuleNotFound, NotFound
from modules.core.storage import FlatFiles
from modules.text_chat.completion import ModelDescription

from .arrivals import Arrivals
from .audit import Audit
from .caller import Caller
from .embedder import Embedder
from .event_stream import StreamLimits
from .exchange import exchange_of
from .heartbeats import Heartbeats
from .metrics import Metrics, SharedMetrics
from .migration_state import MigrationState
from .user_data import UserData


@dataclass(slots=True)
class Serving:
    """The parts that need a running platform. Made when the app starts."""

    platform: Platform
    settings: Settings
    clock: Clock
    metrics: Metrics
    shared_metrics: SharedMetrics
    heartbeats: Heartbeats
    audit: Audit
    users: UserData
    embedder: Embedder
    migrations: MigrationState
    stream_limits: StreamLimits
    started_at: int
    files: FlatFiles
    arrivals: Arrivals
    _model: ModelDescription | None = None

    @classmethod
    def of(
        cls, platform: Platform, settings: Settings, clock: Clock, metrics: Metrics, draining: asyncio.Event
    ) -> Serving:
        files = FlatFiles(platform.base)
        audit = Audit(platform, files, clock)
        http = settings.http
        return cls(
            platform=platform,
            settings=settings,
            clock=clock,
            metrics=metrics,
            shared_metrics=SharedMetrics(metrics, files, clock),
            heartbeats=Heartbeats(platform, metrics, clock, list(type(settings.modules).model_fields)),
            audit=audit,
            users=UserData(platform, files, audit),
            embedder=Embedder(settings.modules.rag.embedding.model_dump()),
            migrations=MigrationState(settings.migration.target or platform.base),
            stream_limits=StreamLimits(http.heartbeat_seconds, http.max_stream_seconds, draining),
            started_at=int(clock.now().timestamp()),
            files=files,
            arrivals=Arrivals(files),
        )

    @property
    def http(self) -> Http:
        return self.settings.http

    def module(self, name: str) -> ModuleRef:
        """Raises ModuleNotFound for a module that does not run: waiting for it cannot help."""
        try:
            return self.platform.ref(name)
        except NotFound:
            raise ModuleNotFound(f"module {name!r} is not loaded here") from None

    async def model(self) -> ModelDescription:
        """The model that answers: asked for once, since it changes only with the platform."""
        if self._model is None:
            self._model = await self.module("text_chat").ask("describe_model")
        return self._model


def serving_of(request: Request) -> Serving:
    return cast(Serving, request.app.state.serving)


def caller_of(request: Request) -> Caller:
    # Routes that are open never ask; every other has passed the gate.
    return cast(Caller, exchange_of(request.scope).caller)


async def _serving(request: Request) -> Serving:
    return serving_of(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _request_id(request: Request) -> str:
    return exchange_of(request.scope).request_id


def running(module: str) -> Callable[[Request], Any]:
    """A dependency: the reference to a module, or the error that says that it is not loaded."""

    async def ref(request: Request) -> ModuleRef:
        return serving_of(request).module(module)

    return ref


ServingNow = Annotated[Serving, Depends(_serving)]
CallerNow = Annotated[Caller, Depends(_caller)]
RequestId = Annotated[str, Depends(_request_id)]
TextChat = Annotated[ModuleRef, Depends(running("text_chat"))]
