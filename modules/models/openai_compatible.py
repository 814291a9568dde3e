"""Any server that speaks the OpenAI API, by the `openai` package: chat and embeddings.

A call may be silent for ``timeout_s``: so long it may take to its first chunk, retries included, and so long
between two. Only what has given nothing yet is tried again; the package's own retries are off, so there is one place
that decides. Its environment variables (key, address, organisation) are not consulted: a key goes only where the
settings send it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from modules.core.clock import Clock, SystemClock
from modules.core.errors import ConfigurationError

from .answer_reader import AnswerReader, estimate_prompt, request_of
from .errors import ModelAnswerInvalid, ModelCancelled, ModelError, ModelInterrupted, ModelUnavailable
from .installed import imported
from .protocols import (
    AUTO,
    Delta,
    PromptMessage,
    Tool,
    Vectors,
    check_messages,
    check_request,
    check_texts,
    check_tools,
)
from .server_errors import error_for_status, pause_before_retry_s
from .vectors import unit_rows

log = logging.getLogger(__name__)
T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

OPENAI_ADDRESS = "https://api.openai.com/v1"
_CONNECT_S = 10.0
_PACKAGE = "openai"
_TRANSPORT = "httpx2"  # what the package talks through; errors in mid-stream come out of it unwrapped


@dataclass(frozen=True, slots=True)
class Server:
    """Where a model is served. The key never shows: not in a repr, a log or an error."""

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.base_url or not self.model:
            raise ConfigurationError("a model server needs base_url and model")
        if self.timeout_s <= 0:
            raise ConfigurationError(f"timeout_seconds must be above 0, not {self.timeout_s!r}")


class ServedChat:
    """A chat model on a server."""

    context_window = None
    can_call_tools = True

    def __init__(self, server: Server, *, clock: Clock | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self.name = server.model
        self._server = server
        self._calls = _Calls(server, clock or SystemClock(), sleep)

    def __repr__(self) -> str:
        return f"ServedChat({self._server!r})"

    async def load(self) -> None:
        """Nothing: the server has the model."""

    async def stream(
        self,
        messages: Sequence[PromptMessage],
        *,
        max_tokens: int,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: str = AUTO,
    ) -> AsyncGenerator[Delta, None]:
        """See `ChatModel.stream`. Text that a server marks as reasoning is not part of the answer."""
        check_messages(messages)
        check_request(max_tokens, temperature, stop)
        check_tools(tools, tool_choice)
        request = request_of(
            messages, temperature=temperature, stop=stop, seed=seed, tools=tools, tool_choice=tool_choice
        )
        request |= {"model": self._server.model, _name_of_max_tokens(self._server.base_url): max_tokens}
        deadline = self._calls.deadline()
        for attempt in count(1):
            has_begun = False
            try:
                async with aclosing(self._once(messages, request, deadline)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except ModelError as error:
                if not has_begun:
                    await self._calls.pause(error, attempt, deadline)
                elif isinstance(error, ModelUnavailable):
                    raise ModelInterrupted(f"the answer broke off: {error.message}") from error
                else:
                    raise

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        """An estimate: the server's tokenizer is not here."""
        return estimate_prompt(prompt)

    async def close(self) -> None:
        await self._calls.close()

    async def _once(
        self, messages: Sequence[PromptMessage], request: dict[str, Any], deadline: float
    ) -> AsyncGenerator[Delta, None]:
        reader = AnswerReader(messages)
        async with self._calls.answering(request, deadline) as chunks:
            while (chunk := await self._calls.within(deadline, _next_or_none(chunks))) is not None:
                deadline = self._calls.deadline()
                if text := reader.take(chunk.to_dict()):
                    yield Delta(text)
        yield reader.end()


class ServedEmbedding:
    """An embedding model on a server. With *dimension*, vectors of that length are asked for."""

    def __init__(
        self,
        server: Server,
        *,
        dimension: int | None = None,
        batch_size: int = 32,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.name = server.model
        self.dimension = dimension
        self._server = server
        self._batch_size = batch_size
        self._extra = {} if dimension is None else {"dimensions": dimension}
        self._calls = _Calls(server, clock or SystemClock(), sleep)

    def __repr__(self) -> str:
        return f"ServedEmbedding({self._server!r})"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `EmbeddingModel.embed`. ``timeout_s`` is for each batch, retries included."""
        checked = check_texts(texts)
        # Servers refuse texts that are empty, and the whole batch with them.
        spoken = [place for place, text in enumerate(checked) if text.strip()]
        found: list[Vectors] = []
        for start in range(0, len(spoken), self._batch_size):
            found.append(await self._batch([checked[place] for place in spoken[start : start + self._batch_size]]))
        rows = np.zeros((len(checked), self.dimension or 0), np.float32)
        if found:
            rows[spoken] = np.concatenate(found)
        return rows

    async def close(self) -> None:
        await self._calls.close()

    async def _batch(self, texts: list[str]) -> Vectors:
        request = {"model": self._server.model, "input": texts, "encoding_format": "float", **self._extra}
        deadline = self._calls.deadline()
        for attempt in count(1):
            try:
                return self._read(await self._calls.embeddings(request, deadline), len(texts))
            except ModelError as error:
                await self._calls.pause(error, attempt, deadline)
        raise AssertionError("count() does not end")

    def _read(self, answer: dict[str, Any], asked: int) -> Vectors:
        try:
            items = sorted(answer["data"], key=lambda item: item["index"])
            rows = unit_rows(np.array([item["embedding"] for item in items], np.float64))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelAnswerInvalid(f"the model server sent what are no vectors: {error!r}") from error
        if [item["index"] for item in items] != list(range(asked)):
            raise ModelAnswerInvalid(f"the model server sent {len(items)} vectors for {asked} texts, or twice the same")
        if self.dimension is not None and rows.shape[1] != self.dimension:
            raise ModelAnswerInvalid(f"the model's vectors have length {rows.shape[1]}, not {self.dimension}")
        self.dimension = rows.shape[1]
        return rows


class _Calls:
    """Calls to one server, with their time limits; all that goes wrong is raised as a ModelError."""

    def __init__(self, server: Server, clock: Clock, sleep: Sleep) -> None:
        self._sdk = imported(_PACKAGE)
        self._transport = imported(_TRANSPORT)
        self._server = server
        self._clock = clock
        self._sleep = sleep
        self._closed = False
        unwanted = ["OpenAI-Organization", "OpenAI-Project"] + ["Authorization"] * (server.api_key is None)
        self._headers = {name: self._sdk.Omit() for name in unwanted}
        self._client = self._sdk.AsyncOpenAI(
            api_key=server.api_key or "none",  # the package insists on one; where there is none, the header goes
            base_url=server.base_url,
            timeout=self._sdk.Timeout(server.timeout_s, connect=min(_CONNECT_S, server.timeout_s)),
            max_retries=0,
        )

    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._server.timeout_s

    async def within(self, deadline: float, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(deadline):
                return await work
        except (TimeoutError, ValueError, self._sdk.OpenAIError, self._transport.HTTPError) as error:
            meaning = ModelCancelled("the model was closed") if self._closed else self._meaning(error)
        # Without the cause: the package's exceptions repeat what the server said, which may be the key.
        raise meaning

    async def pause(self, error: ModelError, attempt: int, deadline: float) -> None:
        """Wait before the next attempt, or raise *error* when there shall be none."""
        left_s = deadline - asyncio.get_running_loop().time()
        pause_s = pause_before_retry_s(error, attempt, left_s)
        if pause_s is None or self._closed:
            raise error
        log.warning("attempt %d at %s failed, next in %.1f s: %s", attempt, self._server.model, pause_s, error)
        await self._sleep(pause_s)

    @asynccontextmanager
    async def answering(self, request: dict[str, Any], deadline: float) -> AsyncIterator[AsyncIterator[Any]]:
        """The chunks of a streamed answer; leaving closes the connection, by which the server knows to stop."""
        chunks = await self.within(deadline, self._created(self._client.chat.completions, request))
        try:
            yield chunks
        finally:
            await chunks.close()

    async def embeddings(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        answer = await self.within(deadline, self._created(self._client.embeddings, request))
        plain: dict[str, Any] = answer.to_dict()
        return plain

    async def close(self) -> None:
        self._closed = True
        await self._client.close()

    async def _created(self, kind: Any, request: dict[str, Any]) -> Any:
        if self._closed:
            raise ModelCancelled("the model was closed")
        return await kind.create(**request, extra_headers=self._headers)

    def _meaning(self, error: Exception) -> ModelError:
        sdk, timeout_s = self._sdk, self._server.timeout_s
        message = str(error) or type(error).__name__
        if self._server.api_key is not None:
            message = message.replace(self._server.api_key, "***")
        match error:
            case sdk.APIStatusError():
                return error_for_status(
                    error.status_code, message, error.body, error.response.headers, self._clock.now()
                )
            case TimeoutError() | sdk.APITimeoutError() | self._transport.TimeoutException():
                return ModelUnavailable(f"the model server was silent for {timeout_s:g} s")
            case sdk.APIConnectionError() | self._transport.HTTPError():
                return ModelUnavailable(f"no connection with the model server: {message}")
            case sdk.APIError() if not isinstance(error, sdk.APIResponseValidationError):
                # An error in mid-stream; it has no status of its own, and says in words what is wrong.
                return ModelUnavailable(f"the model server failed: {message}")
            case _:
                return ModelAnswerInvalid(f"the model server sent what cannot be read: {message}")


async def _next_or_none(chunks: AsyncIterator[T]) -> T | None:
    return await anext(chunks, None)


def _name_of_max_tokens(base_url: str) -> str:
    # OpenAI's newer models refuse the old name; other servers know no other.
    host = urlsplit(base_url).hostname or ""
    return "max_completion_tokens" if host == "openai.com" or host.endswith(".openai.com") else "max_tokens"
