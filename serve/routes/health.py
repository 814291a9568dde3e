"""Whether the process lives, whether the platform is ready, and its figures. No probe waits for a module."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from modules.core.errors import NotFound
from serve.heartbeats import HEALTHY, NOT_LOADED, shown
from serve.json_response import Json
from serve.metrics import CONTENT_TYPE
from serve.paths import PathId
from serve.schemas import Answer
from serve.serving import CallerNow, ServingNow

router = APIRouter(tags=["operation"])


class Health(Answer):
    status: Literal["ok"]


class Readiness(Answer):
    """``modules``: healthy, unhealthy, not_loaded or error, by name. ``missing``: needed, and not healthy."""

    status: Literal["ready", "not_ready"]
    modules: dict[str, str]
    missing: list[str]


class HostOut(Answer):
    shard: int
    state: str
    healthy: bool
    reason: str | None


class ModuleHealth(Answer):
    module: str
    status: str
    hosts: list[HostOut]


@router.get("/health", response_model=Health)
async def get_health() -> Json:
    """The process lives. Asks nobody."""
    return Json({"status": "ok"})


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness}})
async def get_readiness(serving: ServingNow) -> Json:
    """Whether all needed modules are healthy, as of the last heartbeat, which is seconds old at most."""
    heartbeat, needed = serving.heartbeats.latest, serving.http.needed_modules
    states = dict(heartbeat.states) if heartbeat else {}
    missing = heartbeat.missing(needed) if heartbeat else sorted(needed)
    is_ready = heartbeat is not None and not missing and not serving.stream_limits.draining.is_set()
    answer = {"status": "ready" if is_ready else "not_ready", "modules": states, "missing": missing}
    return Json(answer, 200 if is_ready else 503)


@router.get("/health/modules/{name}", response_model=ModuleHealth, responses={503: {"model": ModuleHealth}})
async def get_module_health(name: PathId, serving: ServingNow) -> Json:
    """One module and its hosts, as of the last heartbeat; 503 when it is not healthy."""
    heartbeat = serving.heartbeats.latest
    state = heartbeat.states.get(name) if heartbeat else None
    if heartbeat is not None and state is None:
        raise NotFound(f"there is no module {name!r}")
    parts = heartbeat.parts.get(name, ()) if heartbeat else ()
    answer = {"module": name, "status": state or "unknown", "hosts": [shown(part) for part in parts]}
    return Json(answer, 200 if state in (HEALTHY, NOT_LOADED) else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "In the text format of Prometheus.", "content": {"text/plain": {}}}},
)
async def get_metrics(caller: CallerNow, serving: ServingNow) -> Response:
    """The figures of all replicas."""
    caller.check_admin()
    exposition = await asyncio.to_thread(serving.shared_metrics.exposition)
    return Response(exposition, headers={"content-type": CONTENT_TYPE})
