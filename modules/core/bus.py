"""Events between modules: ``module.entity.action`` names, handlers that run concurrently, failures that show.

A handler gets the event's data, as the guide's handlers do; one registered with ``envelope=True`` gets the whole
`Envelope`, which ``*`` handlers need to know what they hear. What a handler raises, and a handler that exceeds its
time, never reaches the emitter: it is logged, counted in ``failures``, and written to the dead-letter file together
with the event and the handler's name, so that it can be replayed by hand.

Whoever hears everything can have it in batches (`hear_all`): events that come from elsewhere then cost one call for
many.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from .clock import Clock, IdMaker, SystemClock, new_hex
from .errors import ConfigurationError, PlatformError, ValidationError
from .storage import StorageBackend
from .tracing import current_traceparent, go_on

log = logging.getLogger(__name__)

ALL_EVENTS = "*"
DEAD_LETTERS = "trace_logger/dead_letters.jsonl"

Handler = Callable[[Any], Awaitable[object]]
Middleware = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
BatchHandler = Callable[[Sequence["Envelope"]], Awaitable[object]]
H = TypeVar("H", bound=Handler)

_EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
# Events that a handler emits belong to the trace of the event that it handles.
_trace: ContextVar[str | None] = ContextVar("modchat_trace_id", default=None)


@dataclass(frozen=True, slots=True)
class Envelope:
    """``traceparent`` names the span in which the event was emitted; empty where there was none."""

    event: str
    event_id: str
    timestamp: str
    source_module: str
    trace_id: str
    data: Mapping[str, Any]
    traceparent: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Half the time of the way that dataclasses have; every event that crosses processes pays for it twice.
        own = (self.event, self.event_id, self.timestamp, self.source_module, self.trace_id, self.data)
        return Envelope, (*own, self.traceparent)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one event. ``failed`` names the handlers (or the middleware) that did not do their work."""

    envelope: Envelope
    handled: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Subscription:
    name: str
    handler: Handler
    wants_envelope: bool


class MessageBus:
    """*dead_letters* is where undelivered events go (key `DEAD_LETTERS`); without it they are logged in full."""

    def __init__(
        self,
        *,
        dead_letters: StorageBackend | None = None,
        handler_timeout_s: float = 30.0,
        max_handlers_per_event: int = 100,
        clock: Clock | None = None,
        new_id: IdMaker = new_hex,
    ) -> None:
        self.middleware: list[Middleware] = []
        self.failures: Counter[str] = Counter()
        self._subscriptions: defaultdict[str, list[_Subscription]] = defaultdict(list)
        self._hearing_all: list[BatchHandler] = []
        self._dead_letters = dead_letters
        self._handler_timeout_s = handler_timeout_s
        self._max_handlers = max_handlers_per_event
        self._clock = clock or SystemClock()
        self._new_id = new_id

    def on(self, event_type: str, *, envelope: bool = False) -> Callable[[H], H]:
        """Register the decorated coroutine function for *event_type*; ``*`` hears every event.

        Raises ValidationError for what is no event name, and ConfigurationError for a handler that is not
        asynchronous or is one too many.
        """
        if event_type != ALL_EVENTS:
            _check_event(event_type)

        def register(handler: H) -> H:
            name = _name_of(handler)
            if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(type(handler).__call__):
                raise ConfigurationError(f"handler {name} of {event_type} must be an async function")
            subscriptions = self._subscriptions[event_type]
            if len(subscriptions) >= self._max_handlers:
                raise ConfigurationError(
                    f"{event_type} already has {self._max_handlers} handlers; {name} is one too many"
                )
            subscriptions.append(_Subscription(name, handler, envelope))
            return handler

        return register

    def off(self, event_type: str, handler: Handler) -> None:
        """Take *handler* off *event_type*; nothing happens when it is not on it."""
        kept = [one for one in self._subscriptions[event_type] if one.handler != handler]
        self._subscriptions[event_type] = kept
        if event_type == ALL_EVENTS:
            self._hearing_all = [one for one in self._hearing_all if one != handler]

    def hear_all(self, handler: BatchHandler) -> None:
        """Register *handler* for every event, several at a time as they come. ``off(ALL_EVENTS, handler)`` ends it."""
        self._hearing_all.append(handler)

    async def emit(
        self,
        event_type: str,
        data: dict[str, Any],
        *,
        source_module: str | None = None,
        trace_id: str | None = None,
    ) -> Delivery:
        """Hand *data* to all handlers and wait until each is done, has failed or has run out of time.

        Raises only ValidationError, for what is no event name. Middleware that raises, or gives no dict, stops the
        event: it is reported like a failed handler and nothing is delivered.
        """
        _check_event(event_type)
        envelope = self._envelope(event_type, data, source_module, trace_id)
        for middleware in self.middleware:
            try:
                data = _checked(await middleware(event_type, data))
            except Exception as error:  # noqa: BLE001 - foreign code; reported, and the event stops here
                await self.report(envelope, f"middleware {_name_of(middleware)}", error)
                return Delivery(envelope, 0, (f"middleware {_name_of(middleware)}",))
            envelope = replace(envelope, data=data)
        return await self.hand_out(envelope)

    async def hand_out(self, envelope: Envelope) -> Delivery:
        """Hand an event that was emitted here to all that hear it."""
        if self._hearing_all:
            delivery, _ = await asyncio.gather(self.deliver(envelope), self.deliver_together((envelope,)))
            return delivery
        return await self.deliver(envelope)

    async def deliver(self, envelope: Envelope) -> Delivery:
        """Hand an event, as it is, to its handlers; those of `hear_all` are not among them."""
        hearing = self._handlers_of(envelope.event)
        if not hearing:
            return Delivery(envelope, 0)
        outcomes = await asyncio.gather(*(self._deliver(one, envelope) for one in hearing))
        failed = tuple(one.name for one, done in zip(hearing, outcomes, strict=True) if not done)
        return Delivery(envelope, len(hearing) - len(failed), failed)

    async def deliver_together(self, envelopes: Sequence[Envelope]) -> None:
        """Hand events to those that hear all of them in batches."""
        for handler in self._hearing_all:
            try:
                async with asyncio.timeout(self._handler_timeout_s):
                    await handler(envelopes)
            except Exception as error:  # noqa: BLE001 - as for any handler
                for envelope in envelopes:
                    await self.report(envelope, _name_of(handler), error)

    def hears(self, event: str) -> bool:
        """Whether any handler is there for an event, those of `hear_all` left aside."""
        return bool(self._handlers_of(event))

    async def report(self, envelope: Envelope, name: str, error: Exception) -> None:
        """Log, count and put into the dead-letter file what *name* could not do with an event."""
        self.failures[envelope.event] += 1
        log.error("%s failed on %s: %r", name, envelope.event, error, exc_info=error)
        letter = {"handler": name, "error": f"{type(error).__name__}: {error}", **asdict(envelope)}
        line = json.dumps(letter, ensure_ascii=True, default=repr).encode() + b"\n"
        if self._dead_letters is None:
            log.error("dead letter: %s", line.decode())
            return
        try:
            await self._dead_letters.append(DEAD_LETTERS, line)
        except PlatformError:
            log.exception("the dead-letter file could not be written; the letter was: %s", line.decode())

    def _handlers_of(self, event: str) -> tuple[_Subscription, ...]:
        return (*self._subscriptions.get(event, ()), *self._subscriptions.get(ALL_EVENTS, ()))

    def _envelope(self, event: str, data: Mapping[str, Any], source: str | None, trace_id: str | None) -> Envelope:
        traceparent = current_traceparent() or ""
        if traceparent and trace_id in (None, traceparent[3:35]):
            trace_id = traceparent[3:35]
        else:
            traceparent = ""
        return Envelope(
            event=event,
            event_id=f"evt_{self._new_id()}",
            timestamp=self._clock.now().isoformat(),
            source_module=source if source is not None else event.partition(".")[0],
            trace_id=trace_id or _trace.get() or self._new_id(),
            data=data,
            traceparent=traceparent,
        )

    async def _deliver(self, subscription: _Subscription, envelope: Envelope) -> bool:
        # gather() runs each delivery in its own task, so this is seen by this handler alone.
        _trace.set(envelope.trace_id)
        go_on(envelope.traceparent)
        try:
            async with asyncio.timeout(self._handler_timeout_s):
                await subscription.handler(envelope if subscription.wants_envelope else envelope.data)
        except Exception as error:  # noqa: BLE001 - the loop that must report any handler's failure
            await self.report(envelope, subscription.name, error)
            return False
        return True


def _checked(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError(f"middleware gives the event's data, a dict, and not {type(data).__name__}")
    return data


def _check_event(event: str) -> None:
    if not _EVENT.fullmatch(event):
        raise ValidationError(f"not an event name: {event!r}; the form is module.entity.action", param="event")


def _name_of(handler: object) -> str:
    module = getattr(handler, "__module__", type(handler).__module__)
    return f"{module}.{getattr(handler, '__qualname__', type(handler).__qualname__)}"
