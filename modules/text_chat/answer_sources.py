"""What other modules add to a prompt: memory, documents, who speaks. Each may be absent, slow or broken: the answer is
the poorer for it, and is given all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from modules.core.context import Resolver
from modules.core.tracing import CLIENT, Tracer
from modules.core.types import Session

from .answer_speaker import Routed, Shaped, Speaker, WantedPersona, persona_wanted, speaker_of

log = logging.getLogger(__name__)
T = TypeVar("T")

_TIMEOUT_S = 5.0
_TELLING_S = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """``max_tokens`` is for each source; ``is_routed``: a specialist is looked for."""

    session: Session
    question: str
    system: str
    max_tokens: int
    is_routed: bool = False
    said_before: tuple[str, ...] = ()  # by the user, oldest first; only looked at where it is routed


@dataclass(frozen=True, slots=True)
class Gathered:
    """``speaker`` has the system text, with the persona's part where there is one; ``context`` in the order in which it
    is shown."""

    speaker: Speaker
    context: tuple[str, ...]


# Module -> how it is asked. Whatever it answers is text, or has the text as its attribute ``text``.
_CONTEXT: dict[str, Callable[[Any, Wanted], Awaitable[Any]]] = {
    "memory": lambda memory, wanted: memory.get_context_window(
        wanted.session.id, wanted.max_tokens, user_id=wanted.session.user_id
    ),
    "rag": lambda rag, wanted: rag.get_relevant_context(
        wanted.question, wanted.max_tokens, user_id=wanted.session.user_id
    ),
}


class AnswerSources:
    """*find* gives a loaded module by name, or None."""

    def __init__(self, find: Resolver, *, timeout_s: float = _TIMEOUT_S, tracer: Tracer | None = None) -> None:
        self._find = find
        self._tracer = tracer or Tracer()
        self._timeout_s = timeout_s

    async def gather(self, wanted: Wanted) -> Gathered:
        """All sources at once. Never fails: what goes wrong is logged, and that source adds nothing."""
        context = asyncio.gather(*(self._asked(name, wanted, ask, _text_of) for name, ask in _CONTEXT.items()))
        speaker, texts = await asyncio.gather(self._speaker(wanted), context)
        return Gathered(speaker, tuple(text for text in texts if text))

    async def tell_outcome(self, session: Session, route_id: str, succeeded: bool, latency_s: float) -> None:
        """Tell the router how the specialist did. Never fails, and takes a moment at most."""
        try:
            async with asyncio.timeout(_TELLING_S):
                router = await self._find("topic_router")
                if router is not None:
                    await router.report_outcome(route_id, succeeded, latency_s=latency_s, user_id=session.user_id)
        except Exception:  # as below: the turn is over, and nothing of it depends on this
            log.warning("the outcome of route %r was not told", route_id, exc_info=True)

    async def _speaker(self, wanted: Wanted) -> Speaker:
        routed = await self._asked("topic_router", wanted, _ask_router, Routed.of) if wanted.is_routed else None
        persona = persona_wanted(wanted.session.metadata, routed)
        shaped = None
        if persona is not None:
            shaped = await self._asked("persona", wanted, partial(_ask_persona, persona), Shaped.of)
        return speaker_of(wanted.system, routed, shaped)

    async def _asked(
        self, name: str, wanted: Wanted, ask: Callable[[Any, Wanted], Awaitable[Any]], read: Callable[[Any], T]
    ) -> T | None:
        """What *read* makes of a module's answer; None where the module is not there or fails."""
        try:
            async with asyncio.timeout(self._timeout_s):
                module = await self._find(name)
                if module is None:
                    return None
                with self._tracer.span(f"ask {name}", kind=CLIENT):
                    return read(await ask(module, wanted))
        except Exception:  # another module's failure, whatever it is, must not become this turn's
            log.warning("session %r is answered without %s", wanted.session.id, name, exc_info=True)
            return None


def _ask_persona(persona: WantedPersona, module: Any, wanted: Wanted) -> Awaitable[Any]:
    asked: Awaitable[Any] = module.shape_prompt(
        wanted.system,
        persona.persona_id,
        persona.strength,
        user_id=wanted.session.user_id,
        max_tokens=max(1, wanted.max_tokens),
    )
    return asked


def _ask_router(router: Any, wanted: Wanted) -> Awaitable[Any]:
    asked: Awaitable[Any] = router.route_to_specialist(
        wanted.question,
        user_id=wanted.session.user_id,
        session_id=wanted.session.id,
        context_history=list(wanted.said_before),
    )
    return asked


def _text_of(found: object) -> str:
    text = found if isinstance(found, str) else getattr(found, "text", None)
    if not isinstance(text, str):
        raise TypeError(f"neither text nor something with a text: {type(found).__name__}")
    return text.strip()
