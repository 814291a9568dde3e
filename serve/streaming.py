"""From a generator of events to the answer of a route."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from fastapi import Request

from .event_stream import EventStream, event
from .exchange import exchange_of
from .problems import problem_of
from .requests import route_of
from .serving import Serving

log = logging.getLogger(__name__)


def streamed(
    serving: Serving, request: Request, events: AsyncGenerator[bytes, None], *, name: str | None
) -> EventStream:
    """*name* is that of an event that tells of an error; OpenAI's clients know one by its content, and want none."""
    exchange, metrics = exchange_of(request.scope), serving.metrics
    began = serving.clock.monotonic()

    def error_event(error: Exception) -> bytes:
        problem = problem_of(error)
        exchange.error_code = problem.code
        log.log(
            logging.ERROR if problem.is_defect else logging.WARNING,
            "a stream ended in an error: %s",
            problem.code,
            exc_info=error if problem.is_defect else None,
        )
        return event(problem.body(exchange.request_id), name)

    def first() -> None:
        metrics.first_event(route_of(request.scope), serving.clock.monotonic() - began)

    async def counted() -> AsyncGenerator[bytes, None]:
        metrics.streams.inc()
        try:
            async for data in events:
                yield data
        finally:
            metrics.streams.dec()
            await events.aclose()

    return EventStream(counted(), serving.stream_limits, error_event, first)
