"""One turn of one agent: its prompt, its model, its time limit. What goes wrong is an answer too, and says what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from modules.core.clock import Clock
from modules.core.context import Resolver
from modules.core.errors import NotFound, PlatformError
from modules.core.tracing import Tracer
from modules.core.types import estimate_tokens
from modules.models.errors import ContextTooLong
from modules.models.protocols import PromptMessage, Usage

from .agents import Agent
from .prompts import Task, prompt_for, tidied
from .settings import MultiAgentSettings
from .turns import VOTE
from .voices import Voice, Voices
from .votes import parse_vote

log = logging.getLogger(__name__)

TIMED_OUT, EMPTY = "timed_out", "empty_answer"
_VOTE_TOKENS = 12
_VOTE_ATTEMPTS = 2
_PERSONA_TIMEOUT_S = 5.0
_SHORTEST_ROOM = 64


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an agent did not answer: ``timed_out``, ``empty_answer``, ``cancelled``, or the code of an error."""

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """``status``: ``complete``; ``partial`` when the time was over, or the model broke off, after some words;
    ``failed``, with the ``failure``, when there are none. ``vote``: the option chosen, of a vote that could be read.
    """

    agent_id: str
    content: str = ""
    status: str = "complete"
    vote: str | None = None
    failure: Failure | None = None
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    duration_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "agent_id": self.agent_id,
            "content": self.content,
            "status": self.status,
            "vote": self.vote,
            "failure": None if self.failure is None else self.failure.to_dict(),
            "model": self.model,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "duration_s": self.duration_s,
        }


@dataclass(slots=True)
class _Heard:
    """What a model has said so far; also of an answer that is cut off."""

    texts: list[str] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    prompt_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Answering:
    def __init__(
        self, settings: MultiAgentSettings, voices: Voices, find: Resolver, clock: Clock, tracer: Tracer
    ) -> None:
        self._tracer = tracer
        self._settings = settings
        self._voices = voices
        self._find = find
        self._clock = clock

    async def answer(self, agent: Agent, task: Task, user_id: str) -> AgentAnswer:
        """The agent's answer. Raises nothing but what is no answer's fault: CancelledError, and a bug's exception."""
        try:
            voice = await self._voices.voice_of(agent)
        except PlatformError as error:
            return _failed(agent, error.code, str(error))
        async with voice.slots:
            with self._tracer.span(f"invoke_agent {agent.id}", _asked_of(agent, voice, task)) as span:
                began = self._clock.monotonic()
                answer = await self._spoken(agent, voice, task, user_id)
                span.set("gen_ai.usage.input_tokens", answer.prompt_tokens)
                span.set("gen_ai.usage.output_tokens", answer.completion_tokens)
                if answer.failure is not None:
                    span.fail(answer.failure.code)
            return replace(answer, model=voice.name, duration_s=round(self._clock.monotonic() - began, 3))

    async def _spoken(self, agent: Agent, voice: Voice, task: Task, user_id: str) -> AgentAnswer:
        heard, failure = _Heard(), None
        try:
            async with asyncio.timeout(self._settings.agent_timeout_s) as limit:
                system = await self._system_of(agent, user_id)
                if task.kind == VOTE:
                    return await self._voted(agent, voice, task, system, heard)
                await self._say(agent, voice, task, system, heard)
        except TimeoutError:
            if not limit.expired():
                raise
            failure = Failure(TIMED_OUT, f"no answer in {self._settings.agent_timeout_s:g} s")
        except PlatformError as error:
            failure = Failure(error.code, str(error))
        content = tidied(heard.text, agent.name)
        if failure is None and not content:
            failure = Failure(EMPTY, "the model said nothing")
        if failure is None:
            return _counted(AgentAnswer(agent.id, content), heard)
        if content and task.kind != VOTE:
            return _counted(AgentAnswer(agent.id, content, "partial", failure=failure), heard)
        return _counted(_failed(agent, failure.code, failure.message), heard)

    async def _voted(self, agent: Agent, voice: Voice, task: Task, system: str, heard: _Heard) -> AgentAnswer:
        """A vote; one that cannot be read is asked for once more, and then is none."""
        for attempt in range(_VOTE_ATTEMPTS):
            heard.texts.clear()
            again = replace(task, is_again=attempt > 0)
            await self._say(agent, voice, again, system, heard)
            text = tidied(heard.text, agent.name)
            vote = parse_vote(text, task.options)
            if vote is not None:
                break
        if not text:
            return _counted(_failed(agent, EMPTY, "the model said nothing"), heard)
        return _counted(AgentAnswer(agent.id, text, vote=vote), heard)

    async def _say(self, agent: Agent, voice: Voice, task: Task, system: str, heard: _Heard) -> None:
        room = self._settings.max_prompt_tokens
        while True:
            prompt = prompt_for(task, agent.name, system, room=room, cost=estimate_tokens)
            try:
                return await self._listen(agent, voice, task, prompt, heard)
            except ContextTooLong:
                # Lengths are estimated: the model's own count may be far above, in other scripts for one.
                room //= 2
                if room < _SHORTEST_ROOM:
                    raise

    async def _listen(
        self, agent: Agent, voice: Voice, task: Task, prompt: Sequence[PromptMessage], heard: _Heard
    ) -> None:
        is_vote = task.kind == VOTE
        most = min(self._settings.max_tokens, agent.metadata.get("max_tokens") or self._settings.max_tokens)
        heard.prompt_tokens += sum(estimate_tokens(message.content) for message in prompt)
        deltas = voice.speak(
            prompt,
            max_tokens=_VOTE_TOKENS if is_vote else most,
            temperature=0.0 if is_vote else agent.metadata.get("temperature"),
        )
        async with aclosing(deltas):
            async for delta in deltas:
                heard.texts.append(delta.text)
                if delta.usage is not None:
                    heard.usages.append(delta.usage)

    async def _system_of(self, agent: Agent, user_id: str) -> str:
        """The agent's own system prompt, as its persona would have it where the persona module runs and knows it."""
        if agent.persona_id is None:
            return agent.system_prompt
        try:
            async with asyncio.timeout(_PERSONA_TIMEOUT_S):
                personas = await self._find("persona")
                if personas is None:
                    return agent.system_prompt
                found = await personas.inject_personality(agent.system_prompt, agent.persona_id, user_id=user_id)
        except NotFound as error:
            log.warning("agent %r speaks without its persona: %s", agent.id, error)
            return agent.system_prompt
        except Exception:  # another module's failure, whatever it is, must not become this turn's
            log.warning("agent %r speaks without its persona", agent.id, exc_info=True)
            return agent.system_prompt
        text = found if isinstance(found, str) else getattr(found, "text", "")
        return text if isinstance(text, str) and text.strip() else agent.system_prompt


async def asked(
    answers: Mapping[str, Coroutine[Any, Any, AgentAnswer]], *, wait_for_all: bool
) -> dict[str, AgentAnswer]:
    """The answers by agent: of all, or of those that there are once one agent has answered without failing; the others
    are then called off."""
    tasks = {agent_id: asyncio.create_task(answer) for agent_id, answer in answers.items()}
    pending = set(tasks.values())
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if not wait_for_all and any(one.result().status != "failed" for one in done):
                break
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
    return {agent_id: task.result() for agent_id, task in tasks.items() if not task.cancelled()}


def _asked_of(agent: Agent, voice: Voice, task: Task) -> dict[str, Any]:
    """Attributes by the names of OpenTelemetry's conventions for generative AI."""
    return {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": agent.id,
        "gen_ai.request.model": voice.name,
        "modchat.turn.kind": task.kind,
    }


def _failed(agent: Agent, code: str, message: str) -> AgentAnswer:
    return AgentAnswer(agent.id, status="failed", failure=Failure(code, message))


def _counted(answer: AgentAnswer, heard: _Heard) -> AgentAnswer:
    """With the tokens that the models counted, or, of what was cut off, about as many as there were."""
    if heard.usages:
        prompt = sum(usage.prompt_tokens for usage in heard.usages)
        completion = sum(usage.completion_tokens for usage in heard.usages)
    else:
        prompt, completion = heard.prompt_tokens, estimate_tokens(heard.text) if heard.text else 0
    return replace(answer, prompt_tokens=prompt, completion_tokens=completion)
