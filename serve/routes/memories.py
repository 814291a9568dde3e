"""What is remembered of users: stored, recalled, searched, consolidated.

The pattern of a module's routes; `docs/architecture.md` says how it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as InQuery
from pydantic import ConfigDict, Field

from actors.module_ref import ModuleRef
from modules.core.errors import NotFound
from serve.json_response import Json
from serve.pages import Id, Query, listed, most_items
from serve.paths import PathId
from serve.schemas import Answer, Body, Deleted, Page, Words
from serve.serving import CallerNow, ServingNow, running

router = APIRouter(tags=["memories"])

Memory = Annotated[ModuleRef, Depends(running("memory"))]
MemoryType = Literal["short_term", "long_term"]


class NewMemory(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "key": "tea", "content": "Takes it without milk."}]}
    )

    user_id: Id
    key: Id
    content: Any
    """Any JSON value."""

    memory_type: MemoryType = "short_term"
    ttl: Annotated[float | None, Field(gt=0, le=1e9)] = None
    """Seconds; short-term memories have one from the settings, long-term ones none."""

    metadata: dict[str, Any] | None = None
    session_id: Id | None = None
    agent_id: Id | None = None


class Consolidate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "strategy": "importance"}]})

    user_id: Id
    strategy: Literal["importance", "frequency", "recency"] | None = None


class ScopeQuery(Query):
    user_id: Id
    memory_type: MemoryType = "short_term"
    session_id: Id | None = None
    agent_id: Id | None = None


class SearchQuery(Query):
    query: Words
    """What the memories are to speak of."""

    user_id: Id
    memory_type: Literal["short_term", "long_term", "all"] = "all"
    session_id: Id | None = None
    agent_id: Id | None = None
    limit: Annotated[int | None, Field(ge=1)] = None


class WindowQuery(Query):
    user_id: Id
    max_tokens: Annotated[int | None, Field(ge=0)] = None


class MemoryOut(Answer):
    """Times are seconds since the epoch."""

    key: str
    content: Any
    memory_type: str
    user_id: str
    session_id: str | None
    agent_id: str | None
    metadata: dict[str, Any]
    importance: float
    created_at: float
    expires_at: float | None
    access_count: int
    accessed_at: float


class MemoryPage(Page):
    data: list[MemoryOut]


class ConsolidationOut(Answer):
    user_id: str
    strategy: str
    moved: list[str]
    merged: list[str]
    kept: int


class WindowOut(Answer):
    session_id: str
    user_id: str
    summary: str
    key_points: list[str]
    memories: list[MemoryOut]
    tokens: int


@router.post("/v1/memories", status_code=201, response_model=MemoryOut)
async def store_memory(body: NewMemory, memory: Memory, caller: CallerNow) -> Json:
    """Remember something under a key, in place of what stood under it."""
    item = await memory.ask(
        "store_memory",
        body.key,
        body.content,
        body.memory_type,
        body.ttl,
        body.metadata,
        user_id=caller.needing_user(body.user_id),
        session_id=body.session_id,
        agent_id=body.agent_id,
    )
    return Json(item.to_dict(), 201)


@router.get("/v1/memories", response_model=MemoryPage)
async def search_memories(
    query: Annotated[SearchQuery, InQuery()], memory: Memory, caller: CallerNow, serving: ServingNow
) -> Json:
    """Memories that speak of something, best first."""
    most = most_items(query.limit, serving.http.pages)
    items = await memory.ask(
        "search_memories",
        query.query,
        query.memory_type,
        most + 1,
        user_id=caller.needing_user(query.user_id),
        session_id=query.session_id,
        agent_id=query.agent_id,
    )
    found = [item.to_dict() for item in items[:most]]
    return Json(listed(found, has_more=len(items) > most, id_member="key"))


@router.get("/v1/memories/{key}", response_model=MemoryOut)
async def recall_memory(
    key: PathId, query: Annotated[ScopeQuery, InQuery()], memory: Memory, caller: CallerNow
) -> Json:
    """What is remembered under a key, in the session and by the agent that are named, else by the user."""
    user_id = caller.needing_user(query.user_id)
    item = await memory.ask(
        "recall_memory",
        key,
        query.memory_type,
        user_id=user_id,
        session_id=query.session_id,
        agent_id=query.agent_id,
    )
    if item is None:
        raise NotFound(f"user {user_id!r} has no {query.memory_type} memory {key!r}")
    return Json(item.to_dict())


@router.delete("/v1/memories/{key}", response_model=Deleted)
async def delete_memory(
    key: PathId, query: Annotated[ScopeQuery, InQuery()], memory: Memory, caller: CallerNow
) -> Json:
    """Forget what is under a key in just the session and agent that are named, or in none; from the disk too."""
    user_id = caller.needing_user(query.user_id)
    was_there = await memory.ask(
        "delete_memory",
        key,
        query.memory_type,
        user_id=user_id,
        session_id=query.session_id,
        agent_id=query.agent_id,
    )
    if not was_there:
        raise NotFound(f"user {user_id!r} has no {query.memory_type} memory {key!r}")
    return Json({"object": "deleted", "id": key, "deleted": True})


@router.post("/v1/consolidations", response_model=ConsolidationOut)
async def consolidate_memories(body: Consolidate, memory: Memory, caller: CallerNow) -> Json:
    """Make long-term what is worth keeping."""
    result = await memory.ask("consolidate_memories", caller.needing_user(body.user_id), body.strategy)
    return Json(
        {
            "user_id": result.user_id,
            "strategy": result.strategy,
            "moved": list(result.moved),
            "merged": list(result.merged),
            "kept": result.kept,
        }
    )


@router.get("/v1/sessions/{session_id}/context", response_model=WindowOut)
async def get_context_window(
    session_id: PathId, query: Annotated[WindowQuery, InQuery()], memory: Memory, caller: CallerNow
) -> Json:
    """What is known that bears on a session, within a number of tokens."""
    window = await memory.ask(
        "get_context_window", session_id, query.max_tokens, user_id=caller.needing_user(query.user_id)
    )
    return Json(
        {
            "session_id": window.session_id,
            "user_id": window.user_id,
            "summary": window.summary,
            "key_points": list(window.key_points),
            "memories": [item.to_dict() for item in window.memories],
            "tokens": window.tokens,
        }
    )
