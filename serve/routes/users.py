"""All of a user: out, or erased."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter

from serve.json_response import Json, encoded
from serve.paths import PathId
from serve.schemas import Answer
from serve.serving import CallerNow, RequestId, ServingNow

router = APIRouter(tags=["users"])


class Export(Answer):
    """``modules``: each running module's own account. ``attic``: what a migration kept that no rule claimed."""

    object: Literal["user.export"]
    user_id: str
    modules: dict[str, Any]
    attic: dict[str, Any]


class ErasureOut(Answer):
    """``mentions``: files of a migration's attic that are nobody's and name the user; ``not_asked``: modules that have
    data and do not run. Both are for a person to look at."""

    object: Literal["user.erasure"]
    user_id: str
    modules: dict[str, Any]
    attic_files: int
    mentions: list[str]
    not_asked: list[str]


@router.get("/v1/users/{user_id}/export", response_model=Export)
async def export_user(user_id: PathId, caller: CallerNow, serving: ServingNow) -> Json:
    """Everything of a user, as one document."""
    caller.check_owner(user_id)
    whole = await serving.users.export(user_id)
    return Json(await asyncio.to_thread(encoded, whole))


@router.delete("/v1/users/{user_id}", response_model=ErasureOut)
async def erase_user(user_id: PathId, caller: CallerNow, serving: ServingNow, request_id: RequestId) -> Json:
    """Remove everything of a user, for good. Goes on to its end also when the caller goes away."""
    caller.check_owner(user_id)
    erasing = asyncio.create_task(serving.users.erase(user_id, caller.name, request_id))
    return Json(await asyncio.shield(erasing))
