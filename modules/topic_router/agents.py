"""Agents of multi_agent as specialists: those whose metadata name ``topics``; and which agents are there at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from modules.core.context import Resolver
from modules.core.errors import ValidationError

from .specialists import Specialist

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_PAGE = 100
_MOST_PAGES = 10


async def agents_as_specialists(find: Resolver, user_id: str) -> list[Specialist] | None:
    """All agents that the user can speak with; None where multi_agent does not run or does not answer. What is no
    specialist (topics that are none) is left out. An agent's model is not taken over: who may register an agent may not
    choose what model the chat asks."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            module = await find("multi_agent")
            return None if module is None else await _listed(module, user_id)
    except Exception:  # another module's failure, whatever it is, must not keep a message from being routed
        log.warning("routing without the agents of multi_agent", exc_info=True)
        return None


def without_missing_agents(specialists: Iterable[Specialist], agents: Iterable[Specialist] | None) -> list[Specialist]:
    """Those that are no agent, or an agent that is there. Where nobody knows the agents, all."""
    if agents is None:
        return list(specialists)
    there = {one.id for one in agents}
    return [one for one in specialists if one.agent_id is None or one.agent_id in there]


async def _listed(module: Any, user_id: str) -> list[Specialist]:
    found: list[Specialist] = []
    after: str | None = None
    for _ in range(_MOST_PAGES):
        page = await module.list_agents(user_id, _PAGE, after=after)
        found += filter(None, map(_specialist_of, page))
        if len(page) < _PAGE:
            break
        after = page[-1].id
    return found


def _specialist_of(agent: Any) -> Specialist | None:
    metadata: Mapping[str, Any] = agent.metadata
    topics = metadata.get("topics")
    try:
        return Specialist.made(
            {
                "id": agent.id,
                "topics": topics if isinstance(topics, list | tuple) else (),
                "capabilities": agent.capabilities,
                "persona_id": agent.persona_id,
                "agent_id": agent.id,
            }
        )
    except ValidationError as error:
        log.warning("agent %r cannot be routed to: %s", agent.id, error)
        return None
