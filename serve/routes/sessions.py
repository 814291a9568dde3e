"""Sessions: made, listed, looked at, renamed, ended, forked, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as InQuery
from pydantic import ConfigDict, Field, model_validator

from serve.json_response import Json
from serve.pages import Id, PageQuery, Query, page_of
from serve.paths import PathId
from serve.schemas import Body, Deleted, No, SessionOut, SessionPage
from serve.serving import CallerNow, ServingNow, TextChat

router = APIRouter(tags=["sessions"])

Title = Annotated[str, Field(min_length=1, max_length=500)]


class NewSession(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "title": "Engines"}]})

    user_id: Id
    """Whose it is."""

    title: Title | None = None
    metadata: dict[str, Any] | None = None
    session_type: Annotated[str, Field(min_length=1, max_length=100)] = "chat"


class ChangedSession(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "ada", "title": "Analytical engines"}],
            "anyOf": [
                {"required": ["title"], "properties": {"title": {"type": "string"}}},
                {"required": ["active"], "properties": {"active": {"const": False}}},
                {"required": ["metadata"], "properties": {"metadata": {"type": "object"}}},
            ],
        }
    )

    user_id: Id | None = None
    title: Title | None = None
    active: No | None = None
    """``false`` ends the session: it takes no more messages."""

    metadata: dict[str, Any] | None = None
    """Members to set; those that are not named stay as they are."""

    @model_validator(mode="after")
    def _changes_something(self) -> ChangedSession:
        if self.title is None and self.active is None and self.metadata is None:
            raise ValueError("title, active or metadata must be given")
        return self


class Fork(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "title": "Another way"}]})

    user_id: Id | None = None
    at_message_id: Id | None = None
    """The last message that the new session has; all where none is named."""

    title: Title | None = None


class UserQuery(Query):
    user_id: Id | None = None
    """Whose session it is: looked for where it is not given. Ids of sessions are unique for their user only."""


class SessionsQuery(PageQuery):
    user_id: Id
    """Whose sessions."""


@router.post("/v1/sessions", status_code=201, response_model=SessionOut)
async def create_session(body: NewSession, chat: TextChat, caller: CallerNow) -> Json:
    """Begin a session."""
    user_id = caller.needing_user(body.user_id)
    session = await chat.ask("create_session", user_id, body.title, body.metadata, session_type=body.session_type)
    return Json(session.to_dict(), 201)


@router.get("/v1/sessions", response_model=SessionPage)
async def list_sessions(
    query: Annotated[SessionsQuery, InQuery()], chat: TextChat, caller: CallerNow, serving: ServingNow
) -> Json:
    """A user's sessions, by when they were last used."""
    user_id = caller.needing_user(query.user_id)

    async def ask(**window: Any) -> Any:
        return await chat.ask("list_sessions", user_id, **window)

    return Json(await page_of(query, serving.http.pages, ask))


@router.get("/v1/sessions/{session_id}", response_model=SessionOut)
async def get_session(
    session_id: PathId, query: Annotated[UserQuery, InQuery()], chat: TextChat, caller: CallerNow
) -> Json:
    """One session. 409 when several users have one of this id and none of them is named."""
    session = await chat.ask("get_session", session_id, user_id=caller.acting_for(query.user_id))
    return Json(session.to_dict())


@router.patch("/v1/sessions/{session_id}", response_model=SessionOut)
async def change_session(session_id: PathId, body: ChangedSession, chat: TextChat, caller: CallerNow) -> Json:
    """Rename a session, set metadata, or end it; in this order where several are asked for."""
    user_id = caller.acting_for(body.user_id)
    changes: list[tuple[str, tuple[Any, ...]]] = []
    if body.title is not None:
        changes.append(("rename_session", (body.title,)))
    if body.metadata is not None:
        changes.append(("update_session_metadata", (body.metadata,)))
    if body.active is not None:
        changes.append(("end_session", ()))
    for method, arguments in changes:
        session = await chat.ask(method, session_id, *arguments, user_id=user_id)
    return Json(session.to_dict())


@router.delete("/v1/sessions/{session_id}", response_model=Deleted)
async def delete_session(
    session_id: PathId, query: Annotated[UserQuery, InQuery()], chat: TextChat, caller: CallerNow
) -> Json:
    """Remove a session with its messages, for good."""
    await chat.ask("delete_session", session_id, user_id=caller.acting_for(query.user_id))
    return Json({"object": "deleted", "id": session_id, "deleted": True})


@router.post("/v1/sessions/{session_id}/fork", status_code=201, response_model=SessionOut)
async def fork_session(session_id: PathId, body: Fork, chat: TextChat, caller: CallerNow) -> Json:
    """A new session that begins with the messages of this one."""
    fork = await chat.ask(
        "fork_session",
        session_id,
        user_id=caller.acting_for(body.user_id),
        at_message_id=body.at_message_id,
        title=body.title,
    )
    return Json(fork.to_dict(), 201)
