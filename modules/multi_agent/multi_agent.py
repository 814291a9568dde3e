"""Agents that converse, vote and work on tasks together: the module that others speak to.

A conversation runs in the background, turn by turn, and everything that it needs to go on stands on disk. The
functions here check what a caller gives, find whose it is, and start, stop or read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, NotFound, StorageError
from modules.core.event_calls import calling
from modules.core.storage import FlatFileStorage
from modules.core.types import ModuleInfo
from modules.models.choose import chat_model, embedding_model
from modules.models.protocols import EmbeddingModel

from .agent_events import CALLS
from .agent_registry import AgentRegistry
from .agents import Agent, check_new
from .answering import AgentAnswer, Answering, asked
from .company import Company, listed
from .conversations import Conversation, Conversations
from .conversing import Conversing
from .paging import page_of
from .plans import BY_VOTES, ROUND_ROBIN, plan_for
from .prompts import REPLY, Task
from .results import AgentAnswers, Erasure, TaskResult
from .settings import MultiAgentSettings
from .steps import RUNNING
from .termination import Condition
from .turns import Turn
from .voices import MakeModel, Voices

log = logging.getLogger(__name__)

MakeEmbedding = Callable[[Mapping[str, Any]], EmbeddingModel | None]

_LOOK_AGAIN_S = 2.0


class MultiAgentModule:
    """The user ``""`` is nobody in particular: its agents are for everybody, and the panels of v2, which had no owner,
    are its conversations. Where ``user_id`` may be None, None reaches a conversation whoever's it is; a name, only
    that user's.
    """

    info = ModuleInfo(
        name="multi_agent",
        version="1.0",
        capabilities=("agents", "conversations", "consensus", "tasks"),
        optional=("text_chat", "persona"),
    )

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        new_id: IdMaker = new_hex,
        make_model: MakeModel = chat_model,
        make_embedding: MakeEmbedding = embedding_model,
    ) -> None:
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._make_model = make_model
        self._make_embedding = make_embedding
        self._embedding: EmbeddingModel | None = None
        self._told: set[asyncio.Task[AgentAnswers]] = set()

    async def initialize(self, context: ModuleContext) -> None:
        """Take settings and storage from *context* and listen to the agents' events. Runs that an earlier process left
        are gone on with by `resume_interrupted`.

        Raises ConfigurationError for wrong settings and for a storage that is not flat files.
        """
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError(
                "multi_agent keeps its transcripts in flat files; set storage.backend to 'flatfile'"
            )
        self._context = context
        self._settings = MultiAgentSettings.read(context.get_config)
        self._files = storage.files
        self._registry = AgentRegistry(self._files, at_most=self._settings.max_agents_per_user)
        self._store = Conversations(self._files)
        self._voices = Voices(self._settings, context.get_module, self._make_model)
        self._answering = Answering(self._settings, self._voices, context.get_module, self._clock, context.tracer)
        self._embedding = self._make_embedding(self._settings.embedding)
        self._company = Company(self._settings, self._registry, self._store, context.get_module)
        self._conversing = Conversing(
            self._settings,
            self._store,
            self._answering,
            embedding=self._embedding,
            emit=context.emit,
            clock=self._clock,
            new_id=self._new_id,
        )
        self._events = calling("multi_agent", self, CALLS, context.bus)
        self._events.listen()

    async def health_check(self) -> bool:
        """Whether a turn could be kept now."""
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("multi_agent cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """Leave the conversations that run as they stand, and free the models."""
        self._events.stop()
        await self._conversing.close()
        for told in self._told:
            told.cancel()
        if self._told:
            await asyncio.wait(self._told)
        await self._voices.close()
        if self._embedding is not None:
            await self._embedding.close()

    # -- agents ----------------------------------------------------------------------------------------------

    async def register_agent(
        self,
        agent_id: str,
        agent_type: str = "persona",
        capabilities: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
    ) -> Agent:
        """Make an agent known, in place of the user's one of that id. See `Agent` for what *metadata* may say.

        Raises ValidationError, and Conflict when the user has as many as allowed.
        """
        names = listed("capabilities", capabilities)
        once = tuple(name for place, name in enumerate(names) if name not in names[:place])
        agent = Agent(agent_id, agent_type, once, {} if metadata is None else metadata, user_id, self._now())
        check_new(agent)
        await asyncio.to_thread(self._registry.put, agent)
        await self._context.emit("agent.registered", {"agent": agent.to_dict(), "user_id": user_id})
        return agent

    async def get_agent(self, agent_id: str, *, user_id: str = "") -> Agent:
        """The user's agent of that id, else the one for everybody. Raises NotFound."""
        agent = await asyncio.to_thread(self._registry.find, agent_id, user_id)
        if agent is None:
            raise NotFound(f"no agent {agent_id!r}")
        return agent

    async def list_agents(
        self,
        user_id: str = "",
        limit: int = 100,
        *,
        capability: str | None = None,
        after: str | None = None,
        before: str | None = None,
        order: str = "asc",
    ) -> list[Agent]:
        """A page of the agents that the user can speak with, by id: its own and those for everybody."""
        agents = await asyncio.to_thread(self._registry.of_user, user_id)
        able = [agent for agent in agents if capability is None or capability in agent.capabilities]
        return page_of(able, limit, after=after, before=before, order=order)

    async def unregister_agent(self, agent_id: str, *, user_id: str = "") -> None:
        """Forget the user's own agent. Conversations keep it as it was. Raises NotFound."""
        if not await asyncio.to_thread(self._registry.remove, agent_id, user_id):
            raise NotFound(f"no agent {agent_id!r}")

    async def send_to_agents(
        self, message: str, agent_ids: Sequence[str], wait_for_all: bool = True, *, user_id: str = ""
    ) -> AgentAnswers:
        """Ask agents the same, all at a time; nothing of it is stored. Each has the time that the settings give.

        The answers of those that failed say why. With *wait_for_all* false the first answer is enough: the others are
        called off. Raises ValidationError and NotFound before anybody is asked.
        """
        self._conversing.check_text("message", message)
        agents = await self._company.of_ids(agent_ids, user_id)

        async def ask(agent: Agent) -> AgentAnswer:
            answer = await self._answering.answer(agent, Task(agent.id, REPLY, message), user_id)
            data = {"conversation_id": None, "user_id": user_id, "agent_id": agent.id, "answer": answer.to_dict()}
            await self._context.emit("agent.response", data)
            return answer

        answers = await asked({agent.id: ask(agent) for agent in agents}, wait_for_all=wait_for_all)
        return AgentAnswers(
            tuple(answers[agent.id] for agent in agents if agent.id in answers),
            tuple(agent.id for agent in agents if agent.id not in answers),
        )

    async def tell_agents(self, message: str, agent_ids: Sequence[str], *, user_id: str = "") -> None:
        """`send_to_agents` without waiting: what they answer comes as events agent.response."""
        self._conversing.check_text("message", message)
        await self._company.of_ids(agent_ids, user_id)
        task = asyncio.create_task(self.send_to_agents(message, agent_ids, user_id=user_id))
        self._told.add(task)
        task.add_done_callback(self._note_told)

    # -- conversations ---------------------------------------------------------------------------------------

    async def start_conversation(
        self,
        topic: str,
        agent_ids: Sequence[str],
        max_turns: int | None = None,
        *,
        user_id: str = "",
        strategy: str = ROUND_ROBIN,
        termination: Mapping[str, Any] | Condition | None = None,
        options: Sequence[str] = (),
        agreement: str = BY_VOTES,
        leader: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """A conversation about *topic*, which has begun when this returns, and goes on by itself.

        *max_turns* bounds the turns of all agents together; *termination* (see `termination`) may end it earlier;
        *strategy*, *options*, *agreement* and *leader* are those of `Plan`. Agents are registered ones, or personas.
        With an *idempotency_key*, the same start again gives the first one's conversation. Raises ValidationError,
        NotFound for an unknown agent, Conflict when the user has as many under way as allowed.
        """
        agents = await self._company.of_ids(agent_ids, user_id)
        plan = plan_for(
            self._settings,
            topic,
            [agent.id for agent in agents],
            max_turns,
            started_at=self._now(),
            strategy=strategy,
            termination=termination,
            options=options,
            agreement=agreement,
            leader=leader,
        )
        conversation_id = await self._conversing.begin(plan, agents, user_id, title, metadata, idempotency_key)
        return await self.get_conversation(conversation_id)

    async def coordinate_task(
        self,
        task: str,
        required_capabilities: Sequence[str],
        strategy: str = ROUND_ROBIN,
        *,
        user_id: str = "",
        max_turns: int | None = None,
        termination: Mapping[str, Any] | Condition | None = None,
        options: Sequence[str] = (),
        agreement: str = BY_VOTES,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> TaskResult:
        """Have agents that can do what is required work on *task*, and give what they come to.

        ``round_robin``: one after the other goes on from what was said before (once round, where *max_turns* is not
        given), and the last answer is the result. ``consensus``: they answer and vote. ``leader_based``: the most able
        one says who does what, the others answer at a time, and the leader concludes.

        Waits until it is done, or for *wait_s* seconds; the work goes on by itself, also when the caller goes away,
        and the result can then be had with `get_task`. Raises as `start_conversation`, and NotFound for capabilities
        that nobody has.
        """
        agents = await self._company.able(required_capabilities, user_id)
        plan = plan_for(
            self._settings,
            task,
            [agent.id for agent in agents],
            len(agents) if max_turns is None and strategy == ROUND_ROBIN else max_turns,
            started_at=self._now(),
            strategy=strategy,
            termination=termination,
            options=options,
            agreement=agreement,
            is_task=True,
        )
        conversation_id = await self._conversing.begin(plan, agents, user_id, None, None, idempotency_key)
        await self._conversing.wait(conversation_id, wait_s)
        return await self.get_task(conversation_id, user_id=user_id)

    async def get_task(self, conversation_id: str, *, user_id: str | None = None) -> TaskResult:
        """How a task stands, by its conversation."""
        conversation = await self.get_conversation(conversation_id, user_id)
        turns = await asyncio.to_thread(self._store.transcript(conversation_id).turns)
        decision = conversation.decision
        answer = None if decision is None else str(decision.get("content", ""))
        return TaskResult(conversation, answer, tuple(turn for turn in turns if turn.is_of_agent))

    async def continue_conversation(
        self,
        conversation_id: str,
        message: str | None = None,
        max_turns: int | None = None,
        *,
        user_id: str | None = None,
        agent_ids: Sequence[str] | None = None,
        strategy: str = ROUND_ROBIN,
        termination: Mapping[str, Any] | Condition | None = None,
        options: Sequence[str] = (),
        agreement: str = BY_VOTES,
        leader: str | None = None,
    ) -> Conversation:
        """Go on with a conversation that has ended, or that a migration brought: another run, in the same transcript.

        *message* is said first; without one, the agents go on with the topic. They are those of before where
        *agent_ids* does not say. Raises as `start_conversation`, and Conflict while it is under way.
        """
        conversation = await self.get_conversation(conversation_id, user_id)
        agents = await self._company.of_conversation(conversation, agent_ids)
        plan = plan_for(
            self._settings,
            message if message is not None else conversation.title,
            [agent.id for agent in agents],
            max_turns,
            started_at=self._now(),
            strategy=strategy,
            termination=termination,
            options=options,
            agreement=agreement,
            leader=leader,
        )
        await self._conversing.go_on(conversation, plan, agents, message)
        return await self.get_conversation(conversation_id)

    async def add_turn(self, conversation_id: str, content: str, *, user_id: str | None = None) -> Turn:
        """Say something in a conversation. While it is under way, whoever is asked next hears it."""
        await self.get_conversation(conversation_id, user_id)
        return await self._conversing.say(conversation_id, content)

    async def get_conversation(self, conversation_id: str, user_id: str | None = None) -> Conversation:
        """Raises NotFound, also for one that is not the user's."""
        conversation = await asyncio.to_thread(self._store.get, conversation_id)
        if user_id is not None and conversation.user_id != user_id:
            raise NotFound(f"no conversation {conversation_id!r}")
        return conversation

    async def list_conversations(
        self,
        user_id: str = "",
        limit: int = 50,
        *,
        after: str | None = None,
        before: str | None = None,
        order: str = "desc",
    ) -> list[Conversation]:
        """A page of the user's conversations, newest first unless *order* says otherwise. Cursors are their ids."""

        def page() -> list[Conversation]:
            ascending = self._store.of_user(user_id)
            shown = page_of(ascending, limit, after=after, before=before, order=order)
            return [self._store.as_it_stands(conversation) for conversation in shown]

        return await asyncio.to_thread(page)

    async def get_turns(
        self,
        conversation_id: str,
        limit: int = 100,
        *,
        user_id: str | None = None,
        after: str | None = None,
        before: str | None = None,
        order: str = "asc",
    ) -> list[Turn]:
        """A page of what was said, oldest first unless *order* says otherwise. Cursors are ids of turns."""
        await self.get_conversation(conversation_id, user_id)
        turns = await asyncio.to_thread(self._store.transcript(conversation_id).turns)
        return page_of(turns, limit, after=after, before=before, order=order)

    async def get_decisions(self, conversation_id: str, *, user_id: str | None = None) -> list[Mapping[str, Any]]:
        """What the runs of a conversation came to, and the insights that a migrated panel had, oldest first."""
        await self.get_conversation(conversation_id, user_id)
        return await asyncio.to_thread(self._store.decisions, conversation_id)

    async def wait_for_conversation(
        self, conversation_id: str, timeout_s: float = 30.0, *, user_id: str | None = None
    ) -> Conversation:
        """The conversation once it is not under way any more, or as it stands after *timeout_s*."""
        await self.get_conversation(conversation_id, user_id)
        await self._conversing.wait(conversation_id, timeout_s)
        return await self.get_conversation(conversation_id)

    async def follow_conversation(
        self, conversation_id: str, *, user_id: str | None = None, after: str | None = None
    ) -> AsyncGenerator[Turn, None]:
        """What was said (after the turn *after*), and then each turn as it comes, until the conversation ends.

        Raises NotFound for an *after* that nobody took.
        """
        conversation = await self.get_conversation(conversation_id, user_id)
        transcript, offset, is_reached = self._store.transcript(conversation_id), 0, after is None
        while True:
            # Asked for before reading: what is said in between is not slept through.
            news = self._conversing.news_of(conversation_id)
            turns, offset = await asyncio.to_thread(transcript.since, offset)
            for turn in turns:
                if is_reached:
                    yield turn
                is_reached = is_reached or turn.id == after
            if not is_reached:
                raise NotFound(f"conversation {conversation_id!r} has no turn {after!r}")
            if conversation.status != RUNNING:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _LOOK_AGAIN_S)
            conversation = await self.get_conversation(conversation_id)

    async def cancel_conversation(self, conversation_id: str, *, user_id: str | None = None) -> Conversation:
        """End a conversation that is under way; what was said stays. One that has ended stays as it is."""
        await self.get_conversation(conversation_id, user_id)
        await self._conversing.cancel(conversation_id)
        return await self.get_conversation(conversation_id)

    async def delete_conversation(self, conversation_id: str, *, user_id: str | None = None) -> None:
        """Remove a conversation with all that was said and decided in it, for good. Not reached: a migration's attic,
        and what other modules were told by events."""
        await self.get_conversation(conversation_id, user_id)
        await self._conversing.delete([conversation_id])

    # -- going on --------------------------------------------------------------------------------------------

    async def resume_interrupted(self) -> int:
        """Go on with conversations that an earlier process left under way, or that could not be kept for a while;
        returns how many. To be called now and then by whoever runs the module.

        Each is gone on with by the shard of its user, which the module asks as its neighbours would.
        """
        itself = await self._context.get_module(self.info.name)
        return 0 if itself is None else await self._conversing.resume_due(itself.resume_conversation)

    async def resume_conversation(self, conversation_id: str, *, user_id: str | None = None) -> None:
        """Go on with a conversation by what stands on disk; nothing happens when it is over, or under way here."""
        conversation = await self.get_conversation(conversation_id, user_id)
        await self._conversing.resume(conversation)

    # -- users -----------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """Everything of a user: agents, and conversations with what was said, decided and kept beside it."""

        def export() -> dict[str, Any]:
            conversations = [self._store.export(one.id) for one in self._store.of_user(user_id)]
            agents = [agent.to_dict() for agent in self._registry.own(user_id)]
            return {"user_id": user_id, "agents": agents, "conversations": conversations}

        return await asyncio.to_thread(export)

    async def erase_user(self, user_id: str) -> Erasure:
        """Remove a user's agents and conversations; those under way are ended first. Cannot be undone."""
        conversations = await asyncio.to_thread(self._store.of_user, user_id)
        await self._conversing.delete([conversation.id for conversation in conversations])
        agents = await asyncio.to_thread(self._registry.erase, user_id)
        return Erasure(user_id, agents, len(conversations))

    def _now(self) -> str:
        return self._clock.now().isoformat()

    def _note_told(self, task: asyncio.Task[AgentAnswers]) -> None:
        self._told.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agents could not be told", exc_info=error)
