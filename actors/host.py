"""Hosts one module: calls to its public functions, streams from its generators, events in, counts.

Knows nothing of processes: `serve` takes an operation and its payload and gives the answer, whoever carries them.
What a module raises is part of an answer; `serve` itself raises only for an operation that does not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from modules.core.errors import Unavailable, ValidationError

from .errors import TimedOut, Unreachable
from .hosted_bus import HostedBus
from .limits import RuntimeLimits
from .manifest import Function, manifest_of
from .sharding import shard_of
from .streams import OpenStream
from .turns import Turns
from .wire import Call, Codec, Flight, Reply, StreamPart

log = logging.getLogger(__name__)

# How long a flight waits for its slowest call before the finished ones go back without it.
_FLIGHT_PATIENCE_S = 0.01
# How long an answer is kept for a caller that does not fetch it.
_ANSWER_KEPT_S = 60.0
_CLOSED_REMEMBERED = 10_000


@dataclass(slots=True)
class CallCounts:
    """Since the host started, except ``running``, ``waiting`` and ``streams``, which are of now."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    running: int = 0
    waiting: int = 0
    streams: int = 0
    events: int = 0


class ModuleHost:
    """*module* is initialized, with *bus* in its context. ``shard`` of ``shards``: a call whose key belongs to another
    is refused, so that a caller with an outdated number of shards cannot make a second writer."""

    def __init__(
        self,
        name: str,
        module: Any,
        bus: HostedBus,
        *,
        codec: Codec,
        shard: int = 0,
        shards: int = 1,
        limits: RuntimeLimits | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.manifest = manifest_of(name, module, bus.listens)
        self.counts = CallCounts()
        self._bus = bus
        self._codec = codec
        self._shard, self._shards = shard, shards
        self._limits = limits or RuntimeLimits()
        self._slots = asyncio.Semaphore(self._limits.max_running)
        self._turns = Turns()
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._unfetched: dict[str, asyncio.Task[Reply]] = {}
        self._streams: dict[str, OpenStream] = {}
        self._closed_early: OrderedDict[str, None] = OrderedDict()
        self._is_stopping = False
        self._operations: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "calls": self._calls,
            "outcome": self._outcome,
            "open": self._open,
            "pull": self._pull,
            "shut": self._shut,
            "events": self._events,
        }

    async def serve(self, operation: str, payload: Any) -> Any:
        """Raises ValidationError for an unknown operation, Unavailable once the host is stopping."""
        perform = self._operations.get(operation)
        if perform is None:
            raise ValidationError(f"no operation {operation!r}", param="operation")
        if self._is_stopping and operation not in ("outcome", "shut"):
            raise Unreachable(f"{self.name} is stopping", was_sent=False, is_final=True)
        return await perform(payload)

    async def is_healthy(self) -> bool:
        """What the module says; one that says nothing is healthy while it answers at all."""
        check = getattr(self.module, "health_check", None)
        return True if check is None else bool(await check())

    async def stop(self, *, grace_s: float) -> None:
        """Take no more, let calls finish for *grace_s*, cancel the rest and the streams, close the module.

        Raises what the module's ``close`` raises.
        """
        self._is_stopping = True
        for stream in list(self._streams.values()):
            await stream.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                log.warning("%s: a call did not end in %s s and is cancelled", self.name, grace_s)
                task.cancel()
            if late:
                await asyncio.wait(late)
        close = getattr(self.module, "close", None)
        if close is not None:
            await close()

    # -- calls -----------------------------------------------------------------------------------------------

    async def _calls(self, flight: Flight) -> list[Reply | None]:
        """A reply for each call; None for one that is still under way and whose reply is to be fetched."""
        await self._turns.await_turn(flight.caller, flight.place)
        tasks = [self._begin(packed) for _, packed in flight.calls]
        await asyncio.wait(tasks, timeout=_FLIGHT_PATIENCE_S if len(tasks) > 1 else None)
        replies: list[Reply | None] = []
        for (call_id, _), task in zip(flight.calls, tasks, strict=True):
            if task.done():
                replies.append(task.result())
            else:
                self._keep(call_id, task)
                replies.append(None)
        return replies

    def _begin(self, packed: Any) -> asyncio.Task[Reply]:
        task = asyncio.create_task(self._answer(packed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _keep(self, call_id: str, task: asyncio.Task[Reply]) -> None:
        self._unfetched[call_id] = task
        loop = asyncio.get_running_loop()
        task.add_done_callback(lambda _: loop.call_later(_ANSWER_KEPT_S, self._unfetched.pop, call_id, None))

    async def _outcome(self, call_id: str) -> Reply:
        task = self._unfetched.get(call_id)
        if task is None:
            raise Unreachable(f"{self.name} knows nothing of call {call_id}: it was restarted", was_sent=True)
        reply = await asyncio.shield(task)
        self._unfetched.pop(call_id, None)
        return reply

    async def _answer(self, packed: Any) -> Reply:
        self.counts.calls += 1
        try:
            value = self._codec.pack(await self._perform(self._codec.unpack(packed)))
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            return Reply(False, self._codec.pack_error(Unavailable(f"{self.name} stopped before this was done")))
        except Exception as error:  # noqa: BLE001 - the module's own; it is the caller's answer
            self.counts.failed += 1
            return Reply(False, self._codec.pack_error(error))
        return Reply(True, value)

    async def _perform(self, call: Call) -> Any:
        self._check(call, streams=False)
        if self.counts.waiting >= self._limits.max_waiting:
            self.counts.refused += 1
            raise Unavailable(f"{self.name} has {self.counts.waiting} calls waiting and takes no more")
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                self.counts.waiting += 1
                try:
                    await self._slots.acquire()
                finally:
                    self.counts.waiting -= 1
                self.counts.running += 1
                try:
                    return await self._bound(call)
                finally:
                    self.counts.running -= 1
                    self._slots.release()
        except TimeoutError:
            if not limit.expired():
                raise  # the module's own
            raise TimedOut(f"{self.name}.{call.method} took longer than {call.timeout_s:g} s") from None

    def _check(self, call: Call, *, streams: bool) -> Function:
        function = self.manifest.functions.get(call.method)
        if function is None:
            raise ValidationError(f"{self.name} has no public function {call.method!r}", param="method")
        if function.streams != streams:
            way = "stream" if function.streams else "ask"
            raise ValidationError(f"{self.name}.{call.method} is to be called by {way}()", param="method")
        if call.key is not None and shard_of(call.key, self._shards) != self._shard:
            raise Unavailable(f"key {call.key!r} is not this shard's of {self.name}: connect anew")
        return function

    def _bound(self, call: Call) -> Coroutine[Any, Any, Any]:
        try:
            # The body does not run yet: what is raised here is about the arguments.
            coroutine: Coroutine[Any, Any, Any] = getattr(self.module, call.method)(*call.args, **call.kwargs)
        except TypeError as error:
            raise ValidationError(f"{self.name}: {error}") from error
        return coroutine

    # -- streams ---------------------------------------------------------------------------------------------

    async def _open(self, request: tuple[str, Any]) -> StreamPart:
        stream_id, packed = request
        self.counts.calls += 1
        try:
            call: Call = self._codec.unpack(packed)
            self._check(call, streams=True)
            if len(self._streams) >= self._limits.max_streams:
                self.counts.refused += 1
                raise Unavailable(f"{self.name} has {len(self._streams)} streams open and opens no more")
            try:
                items = getattr(self.module, call.method)(*call.args, **call.kwargs)
            except TypeError as error:
                raise ValidationError(f"{self.name}: {error}") from error
        except Exception as error:  # noqa: BLE001 - as for calls
            self.counts.failed += 1
            return StreamPart((), True, self._codec.pack_error(error))
        if stream_id in self._closed_early:
            await items.aclose()
            return StreamPart((), True, self._codec.pack_error(Unavailable("closed before it was opened")))
        self._streams[stream_id] = OpenStream(
            items, self._codec, idle_s=self._limits.stream_idle_s, abandoned=lambda: self._forget(stream_id)
        )
        self.counts.streams = len(self._streams)
        return await self._pull(stream_id)

    async def _pull(self, stream_id: str) -> StreamPart:
        stream = self._streams.get(stream_id)
        if stream is None:
            gone = Unavailable(f"{self.name} knows nothing of this stream: it was closed, or the module was restarted")
            return StreamPart((), True, self._codec.pack_error(gone))
        part = await stream.part()
        if part.has_ended:
            self._forget(stream_id)
        return part

    async def _shut(self, stream_id: str) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            await stream.close()
            self._forget(stream_id)
            return
        # It may overtake the request that opens the stream.
        self._closed_early[stream_id] = None
        if len(self._closed_early) > _CLOSED_REMEMBERED:
            self._closed_early.popitem(last=False)

    def _forget(self, stream_id: str) -> None:
        self._streams.pop(stream_id, None)
        self.counts.streams = len(self._streams)

    # -- events ----------------------------------------------------------------------------------------------

    async def _events(self, chains: Sequence[Sequence[Any]]) -> None:
        """Deliver envelopes: those of one chain one after the other, chains side by side."""
        await asyncio.gather(*(self._chain(chain) for chain in chains))

    async def _chain(self, chain: Sequence[Any]) -> None:
        for packed in chain:
            self.counts.events += 1
            await self._bus.receive(self._codec.unpack(packed))
