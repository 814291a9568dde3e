"""Who is meant by an agent's id: a registered agent, a persona, or a participant of a conversation that there is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from modules.core.context import Resolver
from modules.core.errors import NotFound, ValidationError

from .agent_registry import AgentRegistry
from .agents import Agent
from .conversations import Conversation, Conversations
from .plans import check_agent_ids
from .settings import MultiAgentSettings
from .team import team_for


class Company:
    """*find* gives a loaded module by name, or None."""

    def __init__(
        self, settings: MultiAgentSettings, registry: AgentRegistry, store: Conversations, find: Resolver
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._find = find

    async def of_ids(self, agent_ids: Sequence[str], user_id: str) -> list[Agent]:
        """The user's agents, those for everybody, and personas. Raises NotFound for an id that names none of these."""
        agents = [await self._agent(agent_id, user_id) for agent_id in _checked(agent_ids)]
        self._check_number(agents)
        return agents

    async def able(self, capabilities: Sequence[str], user_id: str) -> tuple[Agent, ...]:
        """A team of agents that can do it. Raises NotFound."""
        required = listed("required_capabilities", capabilities)
        agents = await asyncio.to_thread(self._registry.of_user, user_id)
        return team_for(agents, required, self._settings.max_agents_per_conversation)

    async def of_conversation(self, conversation: Conversation, agent_ids: Sequence[str] | None) -> list[Agent]:
        """The agents for another run of a conversation; those of before, where no ids are given.

        A participant of before is one, whatever has become of it; others must be known. Raises NotFound.
        """
        ids = _checked(conversation.agents if agent_ids is None else agent_ids)
        before = set(conversation.agents)
        agents = [
            await self.participant(conversation, agent_id)
            if agent_id in before
            else await self._agent(agent_id, conversation.user_id)
            for agent_id in ids
        ]
        self._check_number(agents)
        return agents

    async def participant(self, conversation: Conversation, agent_id: str) -> Agent:
        """A participant as the conversation knows it. In a panel of v2, an agent that was registered since goes before
        the persona that v2 kept."""
        if conversation.is_migrated:
            registered = await asyncio.to_thread(self._registry.find, agent_id, conversation.user_id)
            if registered is not None:
                return registered
        return await asyncio.to_thread(self._store.participant, conversation.id, agent_id)

    async def _agent(self, agent_id: str, user_id: str) -> Agent:
        registered = await asyncio.to_thread(self._registry.find, agent_id, user_id)
        if registered is not None:
            return registered
        personas = await self._find("persona")
        if personas is None:
            raise NotFound(f"no agent {agent_id!r} is registered")
        try:
            persona = await personas.get_persona(agent_id, user_id=user_id)
        except NotFound:
            raise NotFound(f"no agent {agent_id!r} is registered, and no persona has this id") from None
        return Agent(agent_id, metadata={"name": persona.name, "persona_id": agent_id}, user_id=user_id)

    def _check_number(self, agents: Sequence[Agent]) -> None:
        number, most = len(agents), self._settings.max_agents_per_conversation
        if number > most:
            raise ValidationError(f"{number} agents of at most {most}: name those that shall speak", param="agent_ids")


def _checked(agent_ids: object) -> tuple[str, ...]:
    ids = listed("agent_ids", agent_ids)
    check_agent_ids(ids)
    return ids


def listed(param: str, given: object) -> tuple[str, ...]:
    """Raises ValidationError for what is no list; above all for a text, which would be taken letter by letter."""
    if not isinstance(given, list | tuple):
        raise ValidationError(f"{param} must be a list", param=param)
    return tuple(given)
