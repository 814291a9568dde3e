"""How a turn is answered: store the question, gather what bears on it, ask the model, store what it says.

The user's message is stored before anything can fail; whatever happens afterwards, what there is of the answer is
stored too, as a message with status ``partial`` whose metadata say in ``finish_reason`` why. An answer of which
there is not a word is not stored: the same request, made again, is answered anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from modules.core.errors import Conflict, PlatformError
from modules.core.tracing import CLIENT, NoSpan, Span, Tracer
from modules.core.types import Message, Session, estimate_tokens
from modules.models.errors import ModelAnswerInvalid
from modules.models.protocols import AUTO, NO_CALL, Delta, PromptMessage, Tool, ToolCall, Usage

from .answer_chunks import TextDelta, ToolStep, TurnEnded, TurnStarted
from .answer_model import AnswerModel
from .answer_settings import AnswerSettings
from .answer_sources import AnswerSources, Wanted
from .answer_spans import request_attributes, response_attributes
from .answer_speaker import Speaker, is_routed
from .answer_tools import MOST_CALLS, TOOL_CALLS, AnswerTools
from .open_session import KEYS_REMEMBERED, Draft, Stored
from .prompt import Prompt, Spoken, before, budget_of, prompt_of
from .turn import Stopped, Turn, TurnRequest

_LOOKED_BACK = 50  # messages, of which the router takes those of the user that it wants
_SHARE_OF_A_SOURCE = 4  # each source may fill a fourth of the prompt


@dataclass(frozen=True, slots=True)
class ChatStore:
    """What answering needs of the chat. ``append`` stores a message and tells nobody; ``newest`` gives
    the messages from the last one back, and reads as it goes: to be gone through in a thread."""

    append: Callable[[str, str, Draft], Awaitable[Stored]]
    session: Callable[[str, str], Awaitable[Session]]
    newest: Callable[[str, str], Awaitable[Iterator[Message]]]
    max_messages: int


@dataclass(slots=True)
class _Answer:
    """An answer as far as it has come. ``calls`` are those that the model makes in place of ending it."""

    model: str = ""
    texts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Usage | None = None
    speaker: Speaker | None = None
    calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def tokens(self) -> int:
        return self.usage.completion_tokens if self.usage else estimate_tokens(self.text)

    def begin_anew(self) -> None:
        """What was said before calls of tools is kept with them, and is no part of what comes after."""
        self.texts, self.finish_reason, self.usage, self.calls = [], "", None, ()


class Answering:
    """Answers turns: call it with one."""

    def __init__(
        self,
        store: ChatStore,
        model: AnswerModel,
        sources: AnswerSources,
        settings: AnswerSettings,
        tracer: Tracer | None = None,
        tools: AnswerTools | None = None,
    ) -> None:
        self._store = store
        self._tools = tools
        self._model = model
        self._sources = sources
        self._settings = settings
        self._tracer = tracer or Tracer()
        self._spoken: Spoken | None = None

    async def __call__(self, turn: Turn) -> None:
        """Publish the turn's chunks. Raises what keeps it from its end, once what there is is stored."""
        with self._tracer.span("turn"):
            await self._take(turn)

    async def _take(self, turn: Turn) -> None:
        request = turn.request
        session = await self._store.session(*request.place)
        stored = await self._stored(turn, request.question)
        question = stored.message
        earlier = None if stored.is_new else await self._answer_to(request, question)
        turn.publish(TurnStarted(question, is_replay=earlier is not None))
        if earlier is not None:
            _replay(turn, earlier)
            return
        if session.message_count + stored.is_new >= self._store.max_messages:
            raise Conflict(f"session {session.id!r} is full: the message is its last, and has no room for an answer")
        await self._answer(turn, session, question)

    async def _answer(self, turn: Turn, session: Session, question: Message) -> None:
        answer, began_ns = _Answer(), self._tracer.elapsed_ns()
        try:
            await turn.unless_stopped(self._ask(turn, session, question, answer))
        except Stopped as stopped:
            answer.finish_reason = stopped.reason
            message = await self._keep(turn, question, answer, status="partial")
        except Exception as error:
            answer.finish_reason = "error"
            await self._keep(turn, question, answer, status="partial", error=error)
            await self._tell_outcome(session, answer, began_ns, succeeded=False)
            raise
        else:
            message = await self._keep(turn, question, answer, status="complete")
        if message is not None:
            turn.events.tell("chat.response.ready", {"message": message.to_dict()})
        turn.publish(TurnEnded(message, answer.finish_reason))
        await self._tell_outcome(session, answer, began_ns, succeeded=True)

    async def _tell_outcome(self, session: Session, answer: _Answer, began_ns: int, *, succeeded: bool) -> None:
        if answer.speaker is not None and answer.speaker.route_id is not None:
            latency_s = (self._tracer.elapsed_ns() - began_ns) / 1e9
            await self._sources.tell_outcome(session, answer.speaker.route_id, succeeded, latency_s)

    async def _ask(self, turn: Turn, session: Session, question: Message, answer: _Answer) -> None:
        request = turn.request
        with self._tracer.span("build prompt"):
            prompt = await self._prompt(request, session, question, answer)
        of_specialist = None if answer.speaker is None else answer.speaker.model
        model = await self._model.get(of_specialist)
        answer.model = model.name
        asked = request_attributes(model.name, self._settings.provider, prompt, request)
        messages, tools = prompt.messages, await self._offered(model.can_call_tools, session)
        # The question is stored; a round stores its calls, their results, and the answer needs room as well.
        room = self._store.max_messages - session.message_count - 1
        rounds = 0 if self._tools is None or not tools else self._tools.settings.max_rounds
        while True:
            may_call = rounds > 0 and room >= MOST_CALLS + 2
            deltas = self._model.stream(
                messages,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                stop=request.stop,
                seed=request.seed,
                tools=tools,
                tool_choice=AUTO if may_call else NO_CALL,
                of_specialist=of_specialist,
            )
            with self._tracer.span(f"chat {model.name}", asked, kind=CLIENT) as span:
                await self._listen(turn, deltas, answer, span)
            if not answer.calls:
                return
            if not may_call:
                raise ModelAnswerInvalid("the model calls tools although it was told to answer now")
            said = await self._called(turn, session, question, answer)
            messages = (*messages, *said)
            room -= len(said)
            rounds -= 1

    async def _offered(self, can_call_tools: bool, session: Session) -> tuple[Tool, ...]:
        return await self._tools.offered(session) if self._tools is not None and can_call_tools else ()

    async def _called(
        self, turn: Turn, session: Session, question: Message, answer: _Answer
    ) -> tuple[PromptMessage, ...]:
        """Make the calls of *answer*, which starts anew; what was said, for the model to go on from. All of it is
        stored: the calls as the assistant's message, each result as a tool's."""
        assert self._tools is not None
        calls, text = answer.calls[: 2 * MOST_CALLS], answer.text
        metadata = {
            **self._about(answer),
            TOOL_CALLS: [{"id": one.id, "name": one.name, "arguments": one.arguments} for one in calls],
        }
        step = await self._step(turn, Draft(text, "assistant", metadata, parent_id=question.id, tokens=answer.tokens))
        answer.begin_anew()
        said = [PromptMessage("assistant", text, tool_calls=calls)]
        for outcome in await self._tools.outcomes(session, calls):
            await self._step(turn, Draft(outcome.text, "tool", outcome.about, parent_id=step.id))
            said.append(PromptMessage("tool", outcome.text, tool_call_id=outcome.call.id))
        return tuple(said)

    async def _step(self, turn: Turn, draft: Draft) -> Message:
        message = (await self._stored(turn, draft)).message
        turn.publish(ToolStep(message))
        return message

    async def _listen(
        self, turn: Turn, deltas: AsyncGenerator[Delta, None], answer: _Answer, span: Span | NoSpan
    ) -> None:
        began_ns = self._tracer.elapsed_ns()
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.text and not answer.texts:
                    span.set("gen_ai.response.time_to_first_chunk", (self._tracer.elapsed_ns() - began_ns) / 1e9)
                if delta.text:
                    answer.texts.append(delta.text)
                    turn.publish(TextDelta(delta.text))
                    turn.events.tell_text(delta.text)
                if delta.finish_reason is not None:
                    answer.finish_reason, answer.usage = delta.finish_reason, delta.usage
                    answer.calls = delta.tool_calls
        for name, value in response_attributes(answer.finish_reason, answer.usage).items():
            span.set(name, value)

    async def _prompt(self, request: TurnRequest, session: Session, question: Message, answer: _Answer) -> Prompt:
        model = await self._model.get()
        budget = budget_of(model.context_window, request.max_tokens, self._settings.max_prompt_tokens)
        share = budget // _SHARE_OF_A_SOURCE
        routed = is_routed(question.metadata, session.metadata, self._settings.routing)
        said_before = await self._said_before(session, question) if routed else ()
        wanted = Wanted(session, question.content, self._settings.system_prompt, share, routed, said_before)
        gathered = await self._sources.gather(wanted)
        answer.speaker = gathered.speaker
        newest = await self._store.newest(session.user_id, session.id)
        if self._spoken is None:
            self._spoken = Spoken(model.count_tokens)
        spoken = self._spoken

        def built() -> Prompt:
            history = before(newest, question.id)
            return prompt_of(gathered.speaker.system, gathered.context, question.content, history, budget, spoken)

        return await asyncio.to_thread(built)

    async def _keep(
        self,
        turn: Turn,
        question: Message,
        answer: _Answer,
        *,
        status: str,
        error: Exception | None = None,
    ) -> Message | None:
        """Store what there is of the answer; None where that is nothing."""
        if not answer.text and status == "partial":
            return None
        metadata = self._about(answer)
        if error is not None:
            metadata["error"] = {"code": getattr(error, "code", PlatformError.code), "message": str(error)}
        draft = Draft(answer.text, "assistant", metadata, parent_id=question.id, tokens=answer.tokens, status=status)
        return (await self._stored(turn, draft)).message

    def _about(self, answer: _Answer) -> dict[str, Any]:
        metadata: dict[str, Any] = {"model": answer.model, "finish_reason": answer.finish_reason}
        if answer.speaker is not None:
            metadata |= answer.speaker.shown
        if answer.usage is not None:
            metadata["prompt_tokens"] = answer.usage.prompt_tokens
        return metadata

    async def _stored(self, turn: Turn, draft: Draft) -> Stored:
        with self._tracer.span("store message", {"modchat.message.role": draft.role}):
            stored = await self._store.append(*turn.request.place, draft)
        if stored.is_new:
            turn.events.tell("chat.message.received", {"message": stored.message.to_dict()})
        return stored

    async def _said_before(self, session: Session, question: Message) -> tuple[str, ...]:
        newest = await self._store.newest(session.user_id, session.id)

        def found() -> tuple[str, ...]:
            earlier = before(newest, question.id, at_most=_LOOKED_BACK)
            return tuple(one.content for one in earlier if one.role == "user" and one.content.strip())[::-1]

        return await asyncio.to_thread(found)

    async def _answer_to(self, request: TurnRequest, question: Message) -> Message | None:
        """Looked for as far back as keys are remembered."""
        newest = islice(await self._store.newest(*request.place), KEYS_REMEMBERED)

        def found() -> Message | None:
            return next((one for one in newest if _answers(one, question)), None)

        return await asyncio.to_thread(found)


def _answers(message: Message, question: Message) -> bool:
    is_step = bool(message.metadata.get(TOOL_CALLS))
    return message.role == "assistant" and message.parent_id == question.id and not is_step


def _replay(turn: Turn, answer: Message) -> None:
    if answer.content:
        turn.publish(TextDelta(answer.content))
    finish_reason = answer.metadata.get("finish_reason")
    turn.publish(TurnEnded(answer, finish_reason if isinstance(finish_reason, str) else "stop"))
