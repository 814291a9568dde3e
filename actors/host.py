"""Hosts one module: calls to its public functions, streams from its generators, events in, counts.

Knows nothing of processes: `serve` takes an operation and its payload and gives the answer, whoever carries them.
What a module raises is part of an answer; `serve` itself raises only for an operation that does not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from modules.core.errors import Unavailable, ValidationError
from modules.core.tracing import SERVER, NoSpan, Span, Tracer, go_on

from .errors import TimedOut, Unreachable
from .hosted_bus import HostedBus
from .limits import RuntimeLimits
from .manifest import Function, manifest_of
from .sharding import shard_of
from .streams import OpenStream
from .turns import Turns
from .wire import Call, Codec, Flight, Lost, Reply, StreamPart

log = logging.getLogger(__name__)

# A flight goes back without the calls that are not done when none has ended for so long, and in any case after so long.
_FLIGHT_PATIENCE_S = 0.01
_FLIGHT_MOST_S = 0.05
# The same as the first, for replies that are fetched later, once there is one.
_OUTCOMES_PATIENCE_S = 0.002
# How long an answer is kept for a caller that does not fetch it.
_ANSWER_KEPT_S = 60.0
_CLOSED_REMEMBERED = 10_000
# Arguments that say whom a call is about, and what spans call them.
_ABOUT = (("user_id", "user.id"), ("session_id", "session.id"))


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
        tracer: Tracer | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.manifest = manifest_of(name, module, bus.listens)
        self.counts = CallCounts()
        self._bus = bus
        self._codec = codec
        self._shard, self._shards = shard, shards
        self._limits = limits or RuntimeLimits()
        self._tracer = tracer or Tracer()
        self._slots = asyncio.Semaphore(self._limits.max_running)
        self._turns = Turns()
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._unfetched: dict[str, asyncio.Task[Reply]] = {}
        self._streams: dict[str, OpenStream] = {}
        self._closed_early: OrderedDict[str, None] = OrderedDict()
        self._is_stopping = False
        self._operations: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "calls": self._calls,
            "outcomes": self._outcomes,
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
        if self._is_stopping and operation not in ("outcomes", "shut"):
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
        await _while_some_end(tasks)
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

    async def _outcomes(self, call_ids: Sequence[str]) -> list[Reply | Lost | None]:
        """What became of calls whose replies were not there in time; as soon as there is something to tell of any."""
        tasks = [self._unfetched.get(call_id) for call_id in call_ids]
        running = [task for task in tasks if task is not None]
        if len(running) == len(tasks):
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(running, timeout=_OUTCOMES_PATIENCE_S)
        replies: list[Reply | Lost | None] = []
        for call_id, task in zip(call_ids, tasks, strict=True):
            if task is None:
                replies.append(Lost())
            elif task.done():
                replies.append(task.result())
                self._unfetched.pop(call_id, None)
            else:
                replies.append(None)
        return replies

    async def _answer(self, packed: Any) -> Reply:
        self.counts.calls += 1
        try:
            call: Call = self._codec.unpack(packed)
            go_on(call.traceparent)
            function = self._check(call, streams=False)
            with self._span(call, function):
                value = self._codec.pack(await self._perform(call))
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            return Reply(False, self._codec.pack_error(Unavailable(f"{self.name} stopped before this was done")))
        except Exception as error:  # noqa: BLE001 - the module's own; it is the caller's answer
            self.counts.failed += 1
            return Reply(False, self._codec.pack_error(error))
        return Reply(True, value)

    async def _perform(self, call: Call) -> Any:
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

    def _span(self, call: Call, function: Function) -> Span | NoSpan:
        """The span of a call. Whose it is, is known by the arguments that say so."""
        if not self._tracer.is_on:
            return self._tracer.span(call.method)
        about: dict[str, Any] = {}
        args, kwargs = call.args, call.kwargs
        for name, attribute in _ABOUT:
            # Every call of the platform comes through here: the usual ways to say it come first.
            value = kwargs[name] if name in kwargs else None if not args else _placed(name, function.parameters, args)
            if type(value) is str:
                about[attribute] = value
        return self._tracer.span(f"{self.name}.{call.method}", about, kind=SERVER)

    # -- streams ---------------------------------------------------------------------------------------------

    async def _open(self, request: tuple[str, Any]) -> StreamPart:
        stream_id, packed = request
        self.counts.calls += 1
        try:
            call: Call = self._codec.unpack(packed)
            go_on(call.traceparent)
            function = self._check(call, streams=True)
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
            self._traced(items, call, function),
            self._codec,
            idle_s=self._limits.stream_idle_s,
            abandoned=lambda: self._forget(stream_id),
        )
        self.counts.streams = len(self._streams)
        return await self._pull(stream_id)

    async def _traced(
        self, items: AsyncGenerator[Any, None], call: Call, function: Function
    ) -> AsyncGenerator[Any, None]:
        with self._span(call, function):
            async with aclosing(items):
                async for item in items:
                    yield item

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
        self.counts.events += sum(map(len, chains))
        await self._bus.receive_chains([[self._codec.unpack(packed) for packed in chain] for chain in chains])


def _placed(name: str, parameters: Sequence[str], args: Sequence[Any]) -> Any | None:
    """The argument of that name among those given by place; None when it is not among them."""
    place = parameters.index(name) if name in parameters else len(args)
    return args[place] if place < len(args) else None


async def _while_some_end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Returns when all are done; of several also when those that are left keep the others waiting."""
    if len(tasks) == 1:
        await asyncio.wait(tasks)
        return
    loop = asyncio.get_running_loop()
    all_ended = loop.create_future()
    left, latest = len(tasks), loop.time()
    end = latest + _FLIGHT_MOST_S

    def note(_: asyncio.Task[Any]) -> None:
        nonlocal left, latest
        left, latest = left - 1, loop.time()
        if not left and not all_ended.done():
            all_ended.set_result(None)

    for task in tasks:
        task.add_done_callback(note)
    # One look for each stretch of patience, and none for each task that ends.
    while left and (rest_s := min(latest + _FLIGHT_PATIENCE_S, end) - loop.time()) > 0:
        await asyncio.wait((all_ended,), timeout=rest_s)
