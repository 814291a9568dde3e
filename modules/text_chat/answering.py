"""How a turn is answered: store the question, gather what bears on it, ask the model, store what it says.

The user's message is stored before anything can fail; whatever happens afterwards, what there is of the answer is
stored too, as a message with status ``partial`` whose metadata say in ``finish_reason`` why. An answer of which
there is not a word is not stored: the same request, made again, is answered anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from modules.core.errors import Conflict, PlatformError
from modules.core.types import Message, Session, estimate_tokens
from modules.models.protocols import Usage

from .answer_chunks import TextDelta, TurnEnded, TurnStarted
from .answer_model import AnswerModel
from .answer_settings import AnswerSettings
from .answer_sources import AnswerSources, Wanted
from .open_session import KEYS_REMEMBERED, Draft, Stored
from .prompt import Prompt, before, budget_of, prompt_of
from .turn import Stopped, Turn, TurnRequest

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
    """An answer as far as it has come."""

    model: str = ""
    texts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Answering:
    """Answers turns: call it with one."""

    def __init__(self, store: ChatStore, model: AnswerModel, sources: AnswerSources, settings: AnswerSettings) -> None:
        self._store = store
        self._model = model
        self._sources = sources
        self._settings = settings

    async def __call__(self, turn: Turn) -> None:
        """Publish the turn's chunks. Raises what keeps it from its end, once what there is is stored."""
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
        answer = _Answer()
        try:
            await turn.unless_stopped(self._ask(turn, session, question, answer))
        except Stopped as stopped:
            answer.finish_reason = stopped.reason
            message = await self._keep(turn, question, answer, status="partial")
        except Exception as error:
            answer.finish_reason = "error"
            await self._keep(turn, question, answer, status="partial", error=error)
            raise
        else:
            message = await self._keep(turn, question, answer, status="complete")
        if message is not None:
            turn.events.tell("chat.response.ready", {"message": message.to_dict()})
        turn.publish(TurnEnded(message, answer.finish_reason))

    async def _ask(self, turn: Turn, session: Session, question: Message, answer: _Answer) -> None:
        request = turn.request
        prompt = await self._prompt(request, session, question)
        model = await self._model.get()
        answer.model = model.name
        deltas = self._model.stream(
            prompt.messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            stop=request.stop,
            seed=request.seed,
        )
        async with aclosing(deltas):
            async for delta in deltas:
                if delta.text:
                    answer.texts.append(delta.text)
                    turn.publish(TextDelta(delta.text))
                    turn.events.tell_text(delta.text)
                if delta.finish_reason is not None:
                    answer.finish_reason, answer.usage = delta.finish_reason, delta.usage

    async def _prompt(self, request: TurnRequest, session: Session, question: Message) -> Prompt:
        model = await self._model.get()
        budget = budget_of(model.context_window, request.max_tokens, self._settings.max_prompt_tokens)
        share = budget // _SHARE_OF_A_SOURCE
        wanted = Wanted(session, question.content, self._settings.system_prompt, share)
        gathered = await self._sources.gather(wanted)
        newest = await self._store.newest(session.user_id, session.id)

        def built() -> Prompt:
            history = before(newest, question.id)
            return prompt_of(gathered.system, gathered.context, question.content, history, budget, model.count_tokens)

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
        metadata: dict[str, Any] = {"model": answer.model, "finish_reason": answer.finish_reason}
        if answer.usage is not None:
            metadata["prompt_tokens"] = answer.usage.prompt_tokens
        if error is not None:
            metadata["error"] = {"code": getattr(error, "code", PlatformError.code), "message": str(error)}
        tokens = answer.usage.completion_tokens if answer.usage else estimate_tokens(answer.text)
        draft = Draft(answer.text, "assistant", metadata, parent_id=question.id, tokens=tokens, status=status)
        return (await self._stored(turn, draft)).message

    async def _stored(self, turn: Turn, draft: Draft) -> Stored:
        stored = await self._store.append(*turn.request.place, draft)
        if stored.is_new:
            turn.events.tell("chat.message.received", {"message": stored.message.to_dict()})
        return stored

    async def _answer_to(self, request: TurnRequest, question: Message) -> Message | None:
        """Looked for as far back as keys are remembered."""
        newest = islice(await self._store.newest(*request.place), KEYS_REMEMBERED)

        def found() -> Message | None:
            return next((one for one in newest if one.role == "assistant" and one.parent_id == question.id), None)

        return await asyncio.to_thread(found)


def _replay(turn: Turn, answer: Message) -> None:
    if answer.content:
        turn.publish(TextDelta(answer.content))
    finish_reason = answer.metadata.get("finish_reason")
    turn.publish(TurnEnded(answer, finish_reason if isinstance(finish_reason, str) else "stop"))
