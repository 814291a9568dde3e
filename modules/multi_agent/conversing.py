"""Conversations set going, added to, ended and gone on with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from modules.core.clock import Clock, IdMaker
from modules.core.errors import Conflict, PlatformError, ValidationError
from modules.models.protocols import EmbeddingModel

from .agents import Agent
from .answering import Answering
from .conductor import Conductor, Emit
from .conversations import Conversation, Conversations, State
from .plans import Plan
from .runs import Runs
from .settings import MultiAgentSettings
from .steps import CANCELLED, RUNNING
from .turns import HUMAN, Turn

log = logging.getLogger(__name__)

_LONGEST_TITLE = 200


class Conversing:
    """Changes are made one at a time; runs that are under way are not held up by it."""

    def __init__(
        self,
        settings: MultiAgentSettings,
        store: Conversations,
        answering: Answering,
        *,
        embedding: EmbeddingModel | None,
        emit: Emit,
        clock: Clock,
        new_id: IdMaker,
    ) -> None:
        self._settings = settings
        self._store = store
        self._answering = answering
        self._embedding = embedding
        self._emit = emit
        self._clock = clock
        self._new_id = new_id
        self._runs = Runs(clock)
        self._has_looked = False
        self._changing = asyncio.Lock()

    async def begin(
        self,
        plan: Plan,
        agents: Sequence[Agent],
        user_id: str,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        idempotency_key: str | None,
    ) -> str:
        """The id of a new conversation, which is under way; of the one that the same key has made before, if any."""
        self.check_text("topic", plan.topic)
        conversation_id = self._id_for(user_id, idempotency_key)
        conversation = Conversation(
            conversation_id,
            _title(title, plan.topic),
            user_id,
            agents=plan.agents,
            created_at=plan.started_at,
            updated_at=plan.started_at,
            message_count=1,
            metadata=_checked_metadata(metadata),
        )
        state = State(RUNNING, plan, tuple(agents), user_id, updated_at=plan.started_at)
        opening = self._said_by_somebody(conversation_id, plan.topic, plan.number)
        async with self._changing:
            if idempotency_key is not None and await asyncio.to_thread(self._store.exists, conversation_id):
                return conversation_id
            self._check_running(user_id)
            await asyncio.to_thread(self._store.create, conversation, state, opening)
            self._runs.begin(self._conductor(conversation_id, state))
        return conversation_id

    async def go_on(self, conversation: Conversation, plan: Plan, agents: Sequence[Agent], message: str | None) -> None:
        """Begin another run. Raises Conflict while one is under way."""
        if message is not None:
            self.check_text("message", message)
        async with self._changing:
            before = await asyncio.to_thread(self._store.state, conversation.id)
            if before is not None and before.status != RUNNING:
                await self._runs.settle(conversation.id)
            if self._runs.of(conversation.id) is not None or (before is not None and before.status == RUNNING):
                raise Conflict(f"conversation {conversation.id!r} is under way")
            self._check_running(conversation.user_id)
            transcript = self._store.transcript(conversation.id)
            await asyncio.to_thread(transcript.mend)
            there = await asyncio.to_thread(transcript.turns)
            topic = plan.topic if message is not None or before is None else before.plan.topic
            number = 1 if before is None else before.plan.number + 1
            plan = replace(plan, topic=topic, number=number, first_turn=len(there))
            decisions = before.decisions if before is not None else ()
            state = State(
                RUNNING, plan, tuple(agents), conversation.user_id, decisions=decisions, updated_at=plan.started_at
            )
            # The state first: a crash in between leaves a run that has not heard the message, and nothing undone.
            await asyncio.to_thread(self._store.save_state, conversation.id, state)
            if message is not None:
                turn = self._said_by_somebody(conversation.id, message, number)
                await asyncio.to_thread(transcript.append, turn)
            self._runs.begin(self._conductor(conversation.id, state))

    async def say(self, conversation_id: str, content: str) -> Turn:
        self.check_text("content", content)
        async with self._changing:
            state = await asyncio.to_thread(self._store.state, conversation_id)
            turn = self._said_by_somebody(conversation_id, content, state.plan.number if state is not None else 0)
            conductor = self._runs.of(conversation_id)
            if conductor is not None:
                await conductor.add(turn)
            else:
                transcript = self._store.transcript(conversation_id)
                await asyncio.to_thread(transcript.mend)
                await asyncio.to_thread(transcript.append, turn)
        return turn

    async def cancel(self, conversation_id: str) -> None:
        """End it, whether it is under way here or was left by an earlier process."""
        async with self._changing:
            if await self._runs.cancel(conversation_id):
                return
            state = await asyncio.to_thread(self._store.state, conversation_id)
            if state is not None and state.status == RUNNING:
                now = self._clock.now().isoformat()
                ended = replace(state, status=CANCELLED, reason="cancelled", updated_at=now)
                await asyncio.to_thread(self._store.conclude, conversation_id, ended)

    async def delete(self, conversation_ids: Sequence[str]) -> None:
        async with self._changing:
            for conversation_id in conversation_ids:
                await self._runs.cancel(conversation_id)
                await asyncio.to_thread(self._store.delete, conversation_id)

    async def wait(self, conversation_id: str, timeout_s: float | None) -> None:
        await self._runs.wait(conversation_id, timeout_s)

    def news_of(self, conversation_id: str) -> asyncio.Event:
        """Set at the next turn, or the end; never, where it is not under way here."""
        conductor = self._runs.of(conversation_id)
        return conductor.said if conductor is not None else asyncio.Event()

    async def resume(self, conversation: Conversation) -> None:
        async with self._changing:
            state = await asyncio.to_thread(self._store.state, conversation.id)
            if state is not None and state.status == RUNNING and self._runs.of(conversation.id) is None:
                log.info("conversation %r goes on after an interruption", conversation.id)
                self._runs.begin(self._conductor(conversation.id, state))

    async def resume_due(self, resume: Callable[..., Awaitable[None]]) -> int:
        """Have *resume* called for all that wait; the first time, for all that are under way by what stands on disk.
        What fails is tried again later."""
        if not self._has_looked:
            for user_id, conversation_id in await asyncio.to_thread(lambda: list(self._store.interrupted())):
                if self._runs.of(conversation_id) is None and conversation_id not in self._runs.waiting:
                    self._runs.put_off(conversation_id, user_id, pause_s=0.0)
            self._has_looked = True
        count = 0
        for user_id, conversation_id in self._runs.due():
            try:
                await resume(conversation_id, user_id=user_id)
            except PlatformError:
                log.exception("conversation %r could not be gone on with", conversation_id)
                self._runs.put_off(conversation_id, user_id)
            else:
                self._runs.waiting.pop(conversation_id, None)
                count += 1
        return count

    async def close(self) -> None:
        """Leave what is under way as it stands."""
        await self._runs.close()

    def check_text(self, param: str, text: object) -> None:
        most = self._settings.max_message_length
        if not isinstance(text, str) or not text.strip() or len(text) > most:
            raise ValidationError(f"{param} must be text of 1 to {most} characters", param=param)

    # -- below -----------------------------------------------------------------------------------------------

    def _check_running(self, user_id: str) -> None:
        running, most = self._runs.of_user(user_id), self._settings.max_running_per_user
        if running >= most:
            raise Conflict(f"{running} conversations are under way, of at most {most}; end one first")

    def _conductor(self, conversation_id: str, state: State) -> Conductor:
        return Conductor(
            conversation_id,
            state,
            store=self._store,
            answering=self._answering,
            embedding=self._embedding,
            emit=self._emit,
            clock=self._clock,
            new_id=self._new_id,
        )

    def _said_by_somebody(self, conversation_id: str, content: str, run: int) -> Turn:
        now = self._clock.now().isoformat()
        return Turn(f"msg_{self._new_id()}", conversation_id, "user", content, now, run=run, kind=HUMAN)

    def _id_for(self, user_id: str, idempotency_key: str | None) -> str:
        if idempotency_key is None:
            return f"conv_{self._new_id()}"
        if not isinstance(idempotency_key, str) or not idempotency_key:
            raise ValidationError("idempotency_key must be text and not empty", param="idempotency_key")
        both = f"{user_id}\0{idempotency_key}".encode("utf-8", "surrogatepass")
        return f"conv_{blake2b(both, digest_size=16).hexdigest()}"


def _title(title: str | None, topic: str) -> str:
    if title is None:
        first = topic.strip().splitlines()[0]
        return first if len(first) <= _LONGEST_TITLE else first[: _LONGEST_TITLE - 1] + "…"
    if not isinstance(title, str) or not title.strip() or len(title) > _LONGEST_TITLE:
        raise ValidationError(f"title must be text of 1 to {_LONGEST_TITLE} characters", param="title")
    return title


def _checked_metadata(metadata: object) -> Mapping[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ValidationError("metadata must be a mapping", param="metadata")
    return dict(metadata)
