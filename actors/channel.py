"""One host as its callers see it: calls joined, restarts waited for, time limits kept.

What is known when a host cannot be reached decides: a request that never left is made again once the host is back; one
that left is made again only when it may be done twice, else its caller is told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from modules.core.clock import IdMaker, new_hex
from modules.core.coalesce import Coalescer, NoAnswer
from modules.core.errors import Unavailable
from modules.core.tracing import current_traceparent

from .errors import TimedOut, Unreachable
from .limits import RuntimeLimits
from .ref import Transport
from .wire import Call, Codec, Flight, Lost, Reply, StreamPart

_PAUSE_S = 0.05
# The host keeps the time limit; this much later it is kept here too, for a host that cannot.
_GRACE_S = 1.0


class Channel:
    """*name* is for messages to people. Safe for any number of concurrent callers in one event loop."""

    def __init__(
        self, name: str, transport: Transport, codec: Codec, limits: RuntimeLimits, *, new_id: IdMaker = new_hex
    ) -> None:
        self.name = name
        self.is_away = False
        self._transport = transport
        self._codec = codec
        self._limits = limits
        self._new_id = new_id
        self._count = itertools.count()
        self._prefix = new_id()
        self._new_caller()
        self._returning: asyncio.Task[None] | None = None
        self._joined: Coalescer[tuple[str, Any], Reply | None] = Coalescer(
            self._fly, at_most=limits.max_calls_per_batch
        )
        self._late: Coalescer[str, Reply | Lost | None] = Coalescer(self._fetch, at_most=limits.max_calls_per_batch)

    async def call(
        self,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
        may_repeat: bool = False,
    ) -> Any:
        """What the function returns. Raises what it raises; ValidationError, TimedOut, Unavailable."""
        limit_s = self._limits.call_timeout_s if timeout_s is None else timeout_s
        packed = self._codec.pack(Call(method, tuple(args), kwargs or {}, limit_s, key, current_traceparent()))
        try:
            reply = await self._ask(method, packed, may_repeat, asyncio.get_running_loop().time() + limit_s + _GRACE_S)
        except NoAnswer:
            raise TimedOut(f"no answer from {self.name} to {method} in {limit_s:g} s") from None
        value = self._codec.unpack(reply.packed)
        if reply.ok:
            return value
        raise value

    async def stream(
        self,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The generator's items; *timeout_s* bounds the wait for each. Raises as `call` does."""
        limit_s = self._limits.call_timeout_s if timeout_s is None else timeout_s
        packed = self._codec.pack(Call(method, tuple(args), kwargs or {}, limit_s, key, current_traceparent()))
        stream_id = self._new_call_id()
        has_ended = False
        operation, payload = "open", (stream_id, packed)
        try:
            while not has_ended:
                part = await self._part(method, operation, payload, limit_s)
                has_ended = part.has_ended
                for item in part.items:
                    yield self._codec.unpack(item)
                if part.error is not None:
                    raise self._codec.unpack(part.error)
                operation, payload = "pull", stream_id  # type: ignore[assignment]
        finally:
            if not has_ended:
                await self._shut(stream_id)

    async def request(self, operation: str, payload: Any = None) -> Any:
        """One request, made once and at once. Raises Unreachable and what the host raises."""
        try:
            answer = await self._transport.request(operation, payload)
        except Unreachable as error:
            self._note(error)
            raise
        self.is_away = False
        return answer

    async def request_when_back(self, operation: str, payload: Any = None) -> Any:
        """The same, after a restart that is known of. Still made once: an outcome that is unknown is Unreachable."""
        while True:
            await self._until_back()
            try:
                return await self.request(operation, payload)
            except Unreachable as error:
                if error.was_sent or error.is_final:
                    raise

    # -- below -----------------------------------------------------------------------------------------------

    async def _ask(self, method: str, packed: Any, may_repeat: bool, by: float) -> Reply:
        while True:
            call_id = self._new_call_id()
            try:
                reply: Reply | Lost | None = await self._joined.submit((call_id, packed), by=by)
                while reply is None:  # it takes longer than the others of its flight, which are back
                    reply = await self._late.submit(call_id, by=by)
                if isinstance(reply, Lost):
                    raise Unreachable(f"{self.name} knows nothing of a call: it was restarted", was_sent=True)
                return reply
            except Unreachable as error:
                self._check_again(method, error, may_repeat)

    def _check_again(self, method: str, error: Unreachable, may_repeat: bool) -> None:
        """Returns when the call may be made again."""
        if error.is_final:
            raise Unavailable(f"{self.name} is not there: {error}") from error
        if error.was_sent and not may_repeat:
            raise Unavailable(
                f"{self.name} went away while it had {method}, which may or may not have been done: {error}"
            ) from error

    async def _fly(self, calls: Sequence[tuple[str, Any]]) -> Sequence[Reply | None]:
        await self._until_back()
        flight = Flight(self._caller, self._place, tuple(calls))
        self._place += 1
        replies: Sequence[Reply | None] = await self.request("calls", flight)
        return replies

    async def _fetch(self, call_ids: Sequence[str]) -> Sequence[Reply | Lost | None]:
        replies: Sequence[Reply | Lost | None] = await self.request("outcomes", tuple(call_ids))
        return replies

    async def _part(self, method: str, operation: str, payload: Any, limit_s: float) -> StreamPart:
        try:
            async with asyncio.timeout(limit_s) as limit:
                if operation != "open":
                    part: StreamPart = await self.request(operation, payload)
                else:
                    part = await self.request_when_back(operation, payload)
                return part
        except Unreachable as error:
            raise Unavailable(f"{self.name} went away during {method}: {error}") from error
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimedOut(f"nothing from {self.name}.{method} for {limit_s:g} s") from None

    async def _shut(self, stream_id: str) -> None:
        try:
            async with asyncio.timeout(self._limits.call_timeout_s):
                await self.request("shut", stream_id)
        except (Unreachable, TimeoutError):
            return  # with its host the generator is gone too; one that hangs is given up when idle

    def _note(self, error: Unreachable) -> None:
        self.is_away = not error.is_final
        # A restarted host counts flights from 0; an old one must not wait for the flight that was lost.
        self._new_caller()

    async def _until_back(self) -> None:
        if not self.is_away:
            return
        if self._returning is None:
            self._returning = asyncio.create_task(self._await_return())
            self._returning.add_done_callback(self._returned)
        await asyncio.shield(self._returning)

    async def _await_return(self) -> None:
        wait_s = self._limits.restart_wait_s
        try:
            async with asyncio.timeout(wait_s):
                while self.is_away:
                    try:
                        await self._transport.request("ping")
                        self.is_away = False
                    except Unreachable as error:
                        if error.is_final:
                            raise
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise Unreachable(f"it did not come back within {wait_s:g} s", was_sent=False, is_final=True) from None

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returning = None
        if not task.cancelled():
            task.exception()  # its waiters got it; when they have all gone away, nobody needs it

    def _new_caller(self) -> None:
        self._caller, self._place = self._new_id(), 0

    def _new_call_id(self) -> str:
        return f"{self._prefix}-{next(self._count)}"
