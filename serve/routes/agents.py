"""Agents: registered, asked, set to tasks; and their conversations: begun, followed, gone on with, ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi import Query as InQuery
from pydantic import BaseModel
from starlette.responses import Response

from actors.module_ref import ModuleRef
from serve.agent_shapes import (
    AgentAnswersOut,
    AgentOut,
    AgentPage,
    AgentsQuery,
    Continued,
    ConversationOut,
    ConversationPage,
    ConversationsQuery,
    DecisionPage,
    FollowQuery,
    Message,
    NewAgent,
    NewConversation,
    NewTask,
    Said,
    Talk,
    TaskOut,
    TurnOut,
    TurnPage,
    TurnsQuery,
    UserQuery,
    Whose,
)
from serve.caller import Caller
from serve.disconnect import unless_gone
from serve.event_stream import event
from serve.json_response import Json
from serve.pages import listed, page_of
from serve.paths import PathId
from serve.schemas import Deleted
from serve.serving import CallerNow, ServingNow, running
from serve.streaming import streamed

router = APIRouter(tags=["agents"])

Agents = Annotated[ModuleRef, Depends(running("multi_agent"))]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]

# What an answer takes beside the time that the caller is willing to wait.
_BESIDE_S = 60.0
_EVERYBODY = ""


# -- agents ------------------------------------------------------------------------------------------------------------


@router.post("/v1/agents", status_code=201, response_model=AgentOut)
async def register_agent(body: NewAgent, agents: Agents, caller: CallerNow) -> Json:
    """Make an agent known, in place of the user's one of that id."""
    agent = await agents.ask(
        "register_agent",
        body.agent_id,
        body.agent_type,
        body.capabilities,
        body.metadata,
        user_id=_owner(caller, body.user_id),
    )
    return Json(_shown(agent.to_dict()), 201)


@router.get("/v1/agents", response_model=AgentPage)
async def list_agents(
    query: Annotated[AgentsQuery, InQuery()], agents: Agents, caller: CallerNow, serving: ServingNow
) -> Json:
    """The agents that a user can speak with, by id."""
    user_id = caller.acting_for(query.user_id) or _EVERYBODY

    async def ask(**window: Any) -> Any:
        return await agents.ask("list_agents", user_id, capability=query.capability, **window)

    return Json(_page(await page_of(query, serving.http.pages, ask)))


@router.post("/v1/agent-messages", response_model=AgentAnswersOut)
async def send_to_agents(
    body: Message, request: Request, agents: Agents, caller: CallerNow, serving: ServingNow
) -> Json:
    """Ask agents the same, all at a time. Nothing of it is stored; who fails says why."""
    answers = agents.ask(
        "send_to_agents",
        body.message,
        body.agent_ids,
        body.wait_for_all,
        user_id=caller.acting_for(body.user_id) or _EVERYBODY,
        timeout_s=serving.http.max_stream_seconds,
    )
    return Json((await unless_gone(request, answers)).to_dict())


@router.post("/v1/agent-tasks", status_code=201, response_model=TaskOut)
async def coordinate_task(
    body: NewTask, agents: Agents, caller: CallerNow, idempotency_key: IdempotencyKey = None
) -> Json:
    """Have agents that can do what is required work on a task. `answer` is null until they have come to one."""
    result = await agents.ask(
        "coordinate_task",
        body.task,
        body.required_capabilities,
        body.strategy,
        user_id=_owner(caller, body.user_id),
        max_turns=body.max_turns,
        termination=_plain(body.termination),
        options=body.options or [],
        agreement=body.agreement,
        wait_s=body.wait_seconds,
        idempotency_key=idempotency_key,
        timeout_s=body.wait_seconds + _BESIDE_S,
    )
    shown = result.to_dict()
    return Json({**shown, "conversation": _shown(shown["conversation"])}, 201)


@router.get("/v1/agents/{agent_id}", response_model=AgentOut)
async def get_agent(
    agent_id: PathId, query: Annotated[UserQuery, InQuery()], agents: Agents, caller: CallerNow
) -> Json:
    """The user's agent of that id, else the one for everybody."""
    agent = await agents.ask("get_agent", agent_id, user_id=caller.acting_for(query.user_id) or _EVERYBODY)
    return Json(_shown(agent.to_dict()))


@router.delete("/v1/agents/{agent_id}", response_model=Deleted)
async def unregister_agent(
    agent_id: PathId, query: Annotated[UserQuery, InQuery()], agents: Agents, caller: CallerNow
) -> Json:
    """Forget a user's own agent. Conversations keep it as it was."""
    await agents.ask("unregister_agent", agent_id, user_id=_owner(caller, query.user_id))
    return Json({"object": "deleted", "id": agent_id, "deleted": True})


# -- conversations -----------------------------------------------------------------------------------------------------


@router.post("/v1/conversations", status_code=201, response_model=ConversationOut)
async def start_conversation(
    body: NewConversation, agents: Agents, caller: CallerNow, idempotency_key: IdempotencyKey = None
) -> Json:
    """Begin a conversation, which then goes on by itself."""
    conversation = await agents.ask(
        "start_conversation",
        body.topic,
        body.agent_ids,
        body.max_turns,
        user_id=_owner(caller, body.user_id),
        title=body.title,
        metadata=body.metadata,
        idempotency_key=idempotency_key,
        **_wishes(body),
    )
    return Json(_shown(conversation.to_dict()), 201)


@router.get("/v1/conversations", response_model=ConversationPage)
async def list_conversations(
    query: Annotated[ConversationsQuery, InQuery()], agents: Agents, caller: CallerNow, serving: ServingNow
) -> Json:
    """A user's conversations, by when they began."""
    user_id = _owner(caller, query.user_id)

    async def ask(**window: Any) -> Any:
        return await agents.ask("list_conversations", user_id, **window)

    return Json(_page(await page_of(query, serving.http.pages, ask)))


@router.get("/v1/conversations/{conversation_id}", response_model=ConversationOut)
async def get_conversation(
    conversation_id: PathId, query: Annotated[UserQuery, InQuery()], agents: Agents, caller: CallerNow
) -> Json:
    """How a conversation stands."""
    conversation = await agents.ask("get_conversation", conversation_id, user_id=caller.acting_for(query.user_id))
    return Json(_shown(conversation.to_dict()))


@router.delete("/v1/conversations/{conversation_id}", response_model=Deleted)
async def delete_conversation(
    conversation_id: PathId, query: Annotated[UserQuery, InQuery()], agents: Agents, caller: CallerNow
) -> Json:
    """Remove a conversation with all that was said and decided in it, for good."""
    await agents.ask("delete_conversation", conversation_id, user_id=caller.acting_for(query.user_id))
    return Json({"object": "deleted", "id": conversation_id, "deleted": True})


@router.post("/v1/conversations/{conversation_id}/cancel", response_model=ConversationOut)
async def cancel_conversation(conversation_id: PathId, body: Whose, agents: Agents, caller: CallerNow) -> Json:
    """End a conversation that is under way; what was said stays."""
    conversation = await agents.ask("cancel_conversation", conversation_id, user_id=caller.acting_for(body.user_id))
    return Json(_shown(conversation.to_dict()))


@router.post("/v1/conversations/{conversation_id}/continue", response_model=ConversationOut)
async def continue_conversation(conversation_id: PathId, body: Continued, agents: Agents, caller: CallerNow) -> Json:
    """Go on with a conversation that has ended, or that a migration brought. 409 while it is under way."""
    conversation = await agents.ask(
        "continue_conversation",
        conversation_id,
        body.message,
        body.max_turns,
        user_id=caller.acting_for(body.user_id),
        agent_ids=body.agent_ids,
        **_wishes(body),
    )
    return Json(_shown(conversation.to_dict()))


@router.get("/v1/conversations/{conversation_id}/turns", response_model=TurnPage)
async def list_turns(
    conversation_id: PathId,
    query: Annotated[TurnsQuery, InQuery()],
    agents: Agents,
    caller: CallerNow,
    serving: ServingNow,
) -> Json:
    """What was said, oldest or newest first."""
    user_id = caller.acting_for(query.user_id)

    async def ask(**window: Any) -> Any:
        return await agents.ask("get_turns", conversation_id, user_id=user_id, **window)

    return Json(await page_of(query, serving.http.pages, ask))


@router.post("/v1/conversations/{conversation_id}/turns", status_code=201, response_model=TurnOut)
async def add_turn(conversation_id: PathId, body: Said, agents: Agents, caller: CallerNow) -> Json:
    """Say something in a conversation; while it is under way, whoever is asked next hears it."""
    turn = await agents.ask("add_turn", conversation_id, body.content, user_id=caller.acting_for(body.user_id))
    return Json(turn.to_dict(), 201)


@router.get("/v1/conversations/{conversation_id}/decisions", response_model=DecisionPage)
async def list_decisions(
    conversation_id: PathId, query: Annotated[UserQuery, InQuery()], agents: Agents, caller: CallerNow
) -> Json:
    """What the runs of a conversation came to, oldest first. All of them: a run has one at most."""
    found = await agents.ask("get_decisions", conversation_id, user_id=caller.acting_for(query.user_id))
    data = [{"id": "", **one} for one in found]
    return Json(listed(data, has_more=False))


@router.get(
    "/v1/conversations/{conversation_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Events: `turn` for each turn, those of the past first; `ended` when it is not under way.",
            "content": {"text/event-stream": {}},
        }
    },
)
async def follow_conversation(
    conversation_id: PathId,
    query: Annotated[FollowQuery, InQuery()],
    request: Request,
    agents: Agents,
    caller: CallerNow,
    serving: ServingNow,
) -> Response:
    """A conversation as it goes on."""
    user_id = caller.acting_for(query.user_id)
    turns = agents.stream(
        "follow_conversation",
        conversation_id,
        user_id=user_id,
        after=query.after,
        timeout_s=serving.http.max_stream_seconds,
    )
    return streamed(serving, request, _events(agents, conversation_id, turns), name="error")


async def _events(
    agents: ModuleRef, conversation_id: str, turns: AsyncGenerator[Any, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(turns):
        async for turn in turns:
            yield event(turn.to_dict(), "turn")
    yield event(_shown((await agents.ask("get_conversation", conversation_id)).to_dict()), "ended")


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Nobody in particular is null here, as it is in requests."""
    return {**values, "user_id": values["user_id"] or None}


def _page(page: dict[str, Any]) -> dict[str, Any]:
    return {**page, "data": [_shown(one) for one in page["data"]]}


def _wishes(body: Talk) -> dict[str, Any]:
    return {
        "strategy": body.strategy,
        "termination": _plain(body.termination),
        "options": body.options or [],
        "agreement": body.agreement,
        "leader": body.leader,
    }


def _plain(condition: BaseModel | None) -> dict[str, Any] | None:
    return None if condition is None else condition.model_dump(exclude_unset=True)


def _owner(caller: Caller, user_id: str | None) -> str:
    """Whose a thing is to be. Nobody's, which is everybody's, takes an administrator. Raises NotAllowed."""
    user = caller.acting_for(user_id)
    if user is None:
        caller.check_admin()
        return _EVERYBODY
    return user
