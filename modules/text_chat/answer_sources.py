"""What other modules add to a prompt: memory, documents, a persona. Each may be absent, slow or broken: the answer is
the poorer for it, and is given all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from modules.core.context import Resolver
from modules.core.types import Session

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """``max_tokens`` is for each source."""

    session: Session
    question: str
    system: str
    max_tokens: int

    @property
    def persona_id(self) -> str | None:
        """The persona that the session was given, in its metadata."""
        persona_id = self.session.metadata.get("persona_id")
        return persona_id if isinstance(persona_id, str) and persona_id else None


@dataclass(frozen=True, slots=True)
class Gathered:
    """``system`` with the persona's part, where there is one; ``context`` in the order in which it is shown."""

    system: str
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

    def __init__(self, find: Resolver, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._find = find
        self._timeout_s = timeout_s

    async def gather(self, wanted: Wanted) -> Gathered:
        """All sources at once. Never fails: what goes wrong is logged, and that source adds nothing."""
        system, *context = await asyncio.gather(
            self._persona(wanted), *(self._text(name, wanted, ask) for name, ask in _CONTEXT.items())
        )
        return Gathered(system or wanted.system, tuple(text for text in context if text))

    async def _persona(self, wanted: Wanted) -> str:
        persona_id = wanted.persona_id
        if persona_id is None:
            return ""
        return await self._text(
            "persona", wanted, lambda persona, wanted: persona.inject_personality(wanted.system, persona_id)
        )

    async def _text(self, name: str, wanted: Wanted, ask: Callable[[Any, Wanted], Awaitable[Any]]) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                module = await self._find(name)
                return "" if module is None else _text_of(await ask(module, wanted))
        except Exception:  # another module's failure, whatever it is, must not become this turn's
            log.warning("session %r is answered without %s", wanted.session.id, name, exc_info=True)
            return ""


def _text_of(found: object) -> str:
    text = found if isinstance(found, str) else getattr(found, "text", None)
    if not isinstance(text, str):
        raise TypeError(f"neither text nor something with a text: {type(found).__name__}")
    return text.strip()
