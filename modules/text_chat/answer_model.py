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
from modules.models.errors import ModelError
from modules.models.protocols import ChatModel, Delta, PromptMessage

log = logging.getLogger(__name__)

MakeModel = Callable[[Mapping[str, Any]], ChatModel]
Sleep = Callable[[float], Awaitable[None]]

ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
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
        self._model: ChatModel | None = None
        self._making = asyncio.Lock()
        self._is_closed = False

    async def get(self) -> ChatModel:
        """Raises what making it raises, and Unavailable once closed."""
        async with self._making:
            if self._is_closed:
                raise Unavailable("the chat is closing and answers no more")
            if self._model is None:
                # Importing an engine takes a moment, in which others want to be served.
                self._model = await asyncio.to_thread(self._make, self._settings)
            return self._model

    async def stream(
        self,
        messages: Sequence[PromptMessage],
        *,
        max_tokens: int,
        temperature: float | None,
        stop: Sequence[str],
        seed: int | None,
    ) -> AsyncGenerator[Delta, None]:
        """The model's deltas. A failure that may pass is tried again, but never once a piece has been given."""
        model = await self.get()
        began = self._clock.monotonic()
        for attempt in count(1):
            has_begun = False
            deltas = model.stream(messages, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed)
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
            model, self._model = self._model, None
            if model is not None:
                await model.close()


def pause_before_retry_s(error: ModelError, attempt: int, time_left_s: float) -> float | None:
    """How long to wait after the failed *attempt* (the first is 1); None for giving up."""
    if not error.retryable or attempt >= ATTEMPTS:
        return None
    pause_s: float = _FIRST_PAUSE_S * 2 ** (attempt - 1)
    if isinstance(error, RateLimited):
        pause_s = max(pause_s, error.retry_after_s)
    return pause_s if pause_s < time_left_s else None
