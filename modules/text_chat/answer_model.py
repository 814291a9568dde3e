"""The chat model of a module: made when it is first needed, shared by all its sessions, closed with the module."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import RateLimited, Unavailable
from modules.models.choose import ProviderSettings, chat_provider
from modules.models.errors import ModelError
from modules.models.installed import is_installed
from modules.models.protocols import AUTO, ChatModel, Delta, PromptMessage, Tool

log = logging.getLogger(__name__)

MakeModel = Callable[[Mapping[str, Any]], ChatModel]
Sleep = Callable[[float], Awaitable[None]]

ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_MOST_MODELS = 32
_SERVED = "openai"  # any server that speaks so, by `chat_provider`
# Models on a server have tried again on their own; what still fails after so long is not tried any more.
_RETRY_WITHIN_S = 30.0


class AnswerModel:
    """*make* gets *settings*; it may raise ConfigurationError, and is then asked again by the next turn."""

    def __init__(
        self, settings: Mapping[str, Any], make: MakeModel, clock: Clock, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._settings = settings
        self._make = make
        self._clock = clock
        self._sleep = sleep
        self._models: dict[str | None, ChatModel] = {}  # None: that of the settings
        self._making = asyncio.Lock()
        self._is_closed = False

    async def get(self, of_specialist: str | None = None) -> ChatModel:
        """The model of the settings; of a server, the one that a specialist names instead. An embedded model is the
        only one of its kind, and answers for every specialist. Raises what making it raises, and Unavailable once
        closed."""
        name = of_specialist if of_specialist is not None and self._has_many() else None
        async with self._making:
            if self._is_closed:
                raise Unavailable("the chat is closing and answers no more")
            if name not in self._models and len(self._models) > _MOST_MODELS:
                log.warning("%d models are in use already: %r is not taken as well", len(self._models), name)
                name = None
            if name not in self._models:
                settings = self._settings if name is None else {**self._settings, "model": name}
                # Importing an engine takes a moment, in which others want to be served.
                self._models[name] = await asyncio.to_thread(self._make, settings)
            return self._models[name]

    def _has_many(self) -> bool:
        return chat_provider(ProviderSettings.read(self._settings), is_installed) == _SERVED

    async def stream(
        self,
        messages: Sequence[PromptMessage],
        *,
        max_tokens: int,
        temperature: float | None,
        stop: Sequence[str],
        seed: int | None,
        tools: Sequence[Tool] = (),
        tool_choice: str = AUTO,
        of_specialist: str | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """The model's deltas. A failure that may pass is tried again, but never once a piece has been given."""
        model = await self.get(of_specialist)
        # A model that knows of no tools need not take them.
        with_tools: dict[str, Any] = {"tools": tools, "tool_choice": tool_choice} if tools else {}
        began = self._clock.monotonic()
        for attempt in count(1):
            has_begun = False
            deltas = model.stream(
                messages, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed, **with_tools
            )
            try:
                async with aclosing(deltas):
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except ModelError as error:
                time_left_s = began + _RETRY_WITHIN_S - self._clock.monotonic()
                pause_s = None if has_begun else pause_before_retry_s(error, attempt, time_left_s)
                if pause_s is None:
                    raise
                log.warning("the model failed before its first word, attempt %d: %s", attempt, error)
                await self._sleep(pause_s)

    async def close(self) -> None:
        async with self._making:
            self._is_closed = True
            models, self._models = self._models, {}
            for model in models.values():
                await model.close()


def pause_before_retry_s(error: ModelError, attempt: int, time_left_s: float) -> float | None:
    """How long to wait after the failed *attempt* (the first is 1); None for giving up."""
    if not error.retryable or attempt >= ATTEMPTS:
        return None
    pause_s: float = _FIRST_PAUSE_S * 2 ** (attempt - 1)
    if isinstance(error, RateLimited):
        pause_s = max(pause_s, error.retry_after_s)
    return pause_s if pause_s < time_left_s else None
