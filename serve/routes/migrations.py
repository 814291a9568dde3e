"""Migrations into this platform's directory: which there were, and how the one under way is coming on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from starlette.responses import Response

from modules.core.errors import NotFound
from serve.event_stream import event
from serve.json_response import Json
from serve.migration_state import MigrationState
from serve.pages import PageQuery, listed
from serve.paths import PathId
from serve.schemas import Answer, Page
from serve.serving import CallerNow, ServingNow
from serve.streaming import streamed

router = APIRouter(tags=["migrations"])

_LOOK_EVERY_S = 0.5


class MigrationOut(Answer):
    """``progress`` is that of the newest run, ``report`` what one that has finished came to. Times are seconds since
    the epoch."""

    object: Literal["migration"]
    id: str
    state: str
    target: str
    source: str | None
    started_at: float | None
    updated_at: float | None
    paused: bool
    progress: dict[str, Any]
    report: dict[str, Any] | None


class MigrationPage(Page):
    data: list[MigrationOut]


@router.get("/v1/migrations", response_model=MigrationPage)
async def list_migrations(query: Annotated[PageQuery, InQuery()], caller: CallerNow, serving: ServingNow) -> Json:
    """All runs of the migration."""
    caller.check_admin()
    runs = await asyncio.to_thread(serving.migrations.runs)
    return Json(_page(runs if query.order == "asc" else runs[::-1], query, query.most(serving.http.pages)))


@router.get("/v1/migrations/{migration_id}", response_model=MigrationOut)
async def get_migration(migration_id: PathId, caller: CallerNow, serving: ServingNow) -> Json:
    """One run."""
    caller.check_admin()
    return Json(await asyncio.to_thread(serving.migrations.run, migration_id))


@router.get(
    "/v1/migrations/{migration_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Events: `progress` whenever something has changed, `ended` when the run is not under way.",
            "content": {"text/event-stream": {}},
        }
    },
)
async def follow_migration(migration_id: PathId, request: Request, caller: CallerNow, serving: ServingNow) -> Response:
    """A run as it goes on."""
    caller.check_admin()
    return streamed(serving, request, _events(serving.migrations, migration_id), name="error")


async def _events(migrations: MigrationState, migration_id: str) -> AsyncGenerator[bytes, None]:
    before: dict[str, Any] | None = None
    while True:
        now = await asyncio.to_thread(migrations.run, migration_id)
        if now["state"] != "running":
            yield event(now, "ended")
            return
        if now != before:
            yield event(now, "progress")
            before = now
        await asyncio.sleep(_LOOK_EVERY_S)


def _page(runs: list[dict[str, Any]], query: PageQuery, most: int) -> dict[str, Any]:
    places = {run["id"]: place for place, run in enumerate(runs)}
    for cursor in (query.after, query.before):
        if cursor is not None and cursor not in places:
            raise NotFound(f"there is no migration {cursor!r}")
    low = 0 if query.after is None else places[query.after] + 1
    high = len(runs) if query.before is None else places[query.before]
    if query.before is not None and query.after is None:
        return listed(runs[max(0, high - most) : high], has_more=high > most)
    return listed(runs[low : min(high, low + most)], has_more=low + most < high)
