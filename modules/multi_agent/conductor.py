"""Carries one run of a conversation out: asks `steps.next_step` what is next, does it, keeps it, and asks again.

A turn is on the disk before anybody hears of it and before the next one is begun. What is decided is kept before the
state says that the run is over. So whatever ends this process, the next one reads the record and goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from modules.core.clock import Clock, IdMaker, moment_of
from modules.core.errors import PlatformError
from modules.models.protocols import EmbeddingModel

from .agents import Agent
from .answering import AgentAnswer, Answering
from .conversations import Conversations, State, decision_of
from .likeness import largest_group, vectors_alike, words_alike
from .plans import Plan
from .prompts import Task
from .steps import COMPLETED, Ask, Record, Stop, compared, heard, next_step, note_on
from .turns import ANSWER, HUMAN, VOTE, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")

Emit = Callable[[str, dict[str, Any]], Awaitable[object]]


class Conductor:
    """Of one run. ``said`` is set at every turn, and at the end. ``concluded``: how it ended is kept; what is left to
    do is to tell."""

    def __init__(
        self,
        conversation_id: str,
        state: State,
        *,
        store: Conversations,
        answering: Answering,
        embedding: EmbeddingModel | None,
        emit: Emit,
        clock: Clock,
        new_id: IdMaker,
    ) -> None:
        self.conversation_id = conversation_id
        self.user_id = state.user_id
        self.said = asyncio.Event()
        self.concluded = asyncio.Event()
        self._state = state
        self._plan: Plan = state.plan
        self._agents = {agent.id: agent for agent in state.agents}
        self._store = store
        self._transcript = store.transcript(conversation_id)
        self._answering = answering
        self._embedding = embedding
        self._emit = emit
        self._clock = clock
        self._new_id = new_id
        self._writing = asyncio.Lock()
        self._before: tuple[Turn, ...] = ()
        self._turns: list[Turn] = []

    async def run(self) -> None:
        """To the end. Raises StorageError when something cannot be kept: the run can then be taken up again."""
        async with self._writing:
            await asyncio.to_thread(self._transcript.mend)
            turns = await asyncio.to_thread(self._transcript.turns)
            first = self._plan.first_turn
            self._before, self._turns = tuple(turns[:first]), turns[first:]
        while True:
            step = next_step(self._plan, await self._record())
            if isinstance(step, Stop):
                await self.stop(step)
                return
            await self._ask(step)

    async def add(self, turn: Turn) -> None:
        """Let a turn that is no agent's stand next; who is asked after it hears it."""
        await self._keep(lambda: turn)

    async def stop(self, stop: Stop) -> None:
        """End the run; to its end, even when the caller goes away."""
        await finished(self._stop(stop))

    # -- steps -----------------------------------------------------------------------------------------------

    async def _ask(self, step: Ask) -> None:
        """Ask all of them at a time. Each turn is kept as it comes, so who is fast is not lost with who is slow."""
        said = heard(self._plan, step, self._before, self._turns)
        task = {
            "kind": step.kind,
            "topic": self._plan.topic,
            "heard": said,
            "options": step.options or (self._plan.options if step.kind == ANSWER else ()),
            "names": {agent.id: agent.name for agent in self._agents.values()},
            "note": note_on(step, self._turns),
        }
        last = next((turn.id for turn in reversed((*self._before, *self._turns)) if turn.is_said), None)
        try:
            async with asyncio.TaskGroup() as asked:
                for agent_id in step.agents:
                    asked.create_task(self._turn_of(agent_id, step, task, last))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # the rest was cancelled for it

    async def _turn_of(self, agent_id: str, step: Ask, task: Mapping[str, Any], last: str | None) -> None:
        agent = self._agents.get(agent_id) or Agent(agent_id)
        answer = await self._answering.answer(agent, Task(agent_id, **task), self.user_id)
        await self._keep(lambda: self._turn(answer, step, last))

    def _turn(self, answer: AgentAnswer, step: Ask, last: str | None) -> Turn:
        silent = answer.failure is not None and not answer.content
        metadata: dict[str, Any] = {"model": answer.model, "duration_s": answer.duration_s}
        if answer.failure is not None and not silent:
            metadata["cut_off"] = answer.failure.to_dict()
        name = self._agents[answer.agent_id].name if answer.agent_id in self._agents else answer.agent_id
        return Turn(
            id=f"msg_{self._new_id()}",
            conversation_id=self.conversation_id,
            role="system" if silent else "assistant",
            content=f"{name} did not answer: {answer.failure.message}" if silent and answer.failure else answer.content,
            timestamp=self._clock.now().isoformat(),
            agent_id=answer.agent_id,
            response_to=last,
            consensus_level=self._level_with(answer, step),
            status="partial" if answer.status == "partial" else "complete",
            tokens=answer.completion_tokens or None,
            run=self._plan.number,
            kind=step.kind,
            round=step.round,
            vote=answer.vote,
            failure=answer.failure.to_dict() if silent and answer.failure else None,
            total_tokens=answer.prompt_tokens + answer.completion_tokens,
            metadata=metadata,
        )

    def _level_with(self, answer: AgentAnswer, step: Ask) -> float | None:
        """Of a vote: the share of the agents that have voted the same in this round so far, this one among them."""
        if step.kind != VOTE or answer.vote is None:
            return None
        same = sum(turn.vote == answer.vote and turn.round == step.round and turn.kind == VOTE for turn in self._turns)
        return (same + 1) / len(self._plan.agents)

    async def _keep(self, made: Callable[[], Turn]) -> None:
        turn = await finished(self._append(made))
        self._tell()
        if turn.kind != HUMAN:
            data = {"conversation_id": self.conversation_id, "user_id": self.user_id, "agent_id": turn.agent_id}
            await self._emit("agent.response", {**data, "turn": turn.to_dict()})

    async def _append(self, made: Callable[[], Turn]) -> Turn:
        async with self._writing:
            turn = made()  # here, where it knows of all that stand before it
            await asyncio.to_thread(self._transcript.append, turn)
            self._turns.append(turn)
            return turn

    async def _stop(self, stop: Stop) -> None:
        """Kept first, then told."""
        now = self._clock.now().isoformat()
        verdict = stop.verdict
        decision = None if verdict is None else decision_of(self.conversation_id, self._plan, verdict, now)
        state = replace(
            self._state,
            status=stop.status,
            reason=stop.reason,
            decision_id=None if decision is None else decision["id"],
            updated_at=now,
        )
        await asyncio.to_thread(self._store.conclude, self.conversation_id, state, decision)
        self.concluded.set()
        self._tell()
        data = {
            "conversation_id": self.conversation_id,
            "user_id": self.user_id,
            "status": stop.status,
            "reason": stop.reason,
            "decision": None if decision is None else dict(decision),
        }
        if stop.status == COMPLETED and decision is not None and is_consensus(stop):
            await self._emit("consensus.reached", data)
        await self._emit("conversation.complete", data)

    def _tell(self) -> None:
        self.said.set()
        self.said = asyncio.Event()

    # -- what a step is decided on ---------------------------------------------------------------------------

    async def _record(self) -> Record:
        turns = tuple(self._turns)
        started, now = moment_of(self._plan.started_at), self._clock.now()
        elapsed_s = (now - started).total_seconds() if started is not None else 0.0
        if not self._plan.needs_agreement:
            return Record(turns, elapsed_s)
        alike = compared(self._plan, turns)
        texts = [turn.content for turn in alike]
        matrix = await self._alike(texts)
        group = largest_group(alike, matrix, threshold=self._plan.likeness, agents=len(self._plan.agents))
        return Record(turns, elapsed_s, group)

    async def _alike(self, texts: Sequence[str]) -> Any:
        if self._embedding is not None and texts:
            try:
                return vectors_alike(await self._embedding.embed(texts))
            except PlatformError:
                log.warning("answers are compared by their words: nothing embeds them", exc_info=True)
        return words_alike(texts)


def is_consensus(stop: Stop) -> bool:
    """Whether the run ended because the agents agree, and not because it had to end."""
    return "consensus" in stop.reason.split("+") or "agreement" in stop.reason.split("+")


async def finished(work: Awaitable[T]) -> T:
    """*work* done to its end, also when the caller is cancelled meanwhile; then that is passed on after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what could not be stopped half-way failed: %r", error)
        raise
