"""Takes what a process has noted, spans and events, to the module trace_logger: in batches, beside everything else.

One batch is under way at a time, so while trace_logger is slow or away, records wait in the tracer's bounded queue, and
are dropped and counted there. Nobody's call waits for any of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from modules.core.bus import Envelope
from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.errors import PlatformError
from modules.core.tracing import RECORDS_NOTED, Record, Tracer

from .module_ref import Refs
from .topology import Topology
from .wire import Codec

log = logging.getLogger(__name__)

TRACE_LOGGER = "trace_logger"
_PAUSE_S = 0.25
_MOST_AT_ONCE = 1024


class SpanSender:
    """*source* names the process in the traces. Needs a running loop. ``lost`` counts records that left and did not
    arrive, as far as is known."""

    def __init__(self, source: str, tracer: Tracer, refs: Refs, codec: Codec, *, clock: Clock | None = None) -> None:
        self.lost = 0
        self._source = source
        self._tracer = tracer
        self._refs = refs
        self._codec = codec
        self._clock = clock or SystemClock()
        self._new_id: IdMaker = new_hex
        self._told_dropped = 0
        self._is_closing = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self.know(refs.topology)

    def know(self, topology: Topology) -> None:
        """Take *topology* for what is true from now on: spans are kept while somebody collects them."""
        if topology.find(TRACE_LOGGER) is None or self._is_closing.is_set():
            self._tracer.turn_off()
            return
        tracing = topology.tracing
        self._tracer.turn_on(sampling_rate=tracing["sampling_rate"], max_waiting=tracing["max_queued"])
        if self._sending is None:
            self._sending = asyncio.create_task(self._run())

    async def close(self, *, grace_s: float) -> None:
        """Send what there is, and keep no more."""
        self._tracer.turn_off()
        self._is_closing.set()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=grace_s)
            self._sending.cancel()

    async def _run(self) -> None:
        while not self._is_closing.is_set():
            try:
                async with asyncio.timeout(_PAUSE_S):
                    await self._is_closing.wait()
            except TimeoutError:
                pass  # the usual: time to send
            while records := self._tracer.drain(_MOST_AT_ONCE):
                await self._send(self._envelope(records), len(records))

    async def _send(self, envelope: Envelope, count: int) -> None:
        try:
            packed = self._codec.pack(envelope)
            await self._refs.get(TRACE_LOGGER).channels[0].request_when_back("events", [[packed]])
        except PlatformError as error:
            self.lost += count
            log.warning("%d records of %s did not reach %s: %s", count, self._source, TRACE_LOGGER, error)

    def _envelope(self, records: list[Record]) -> Envelope:
        gone = self._tracer.dropped + self.lost
        data: Mapping[str, Any] = {"source": self._source, "records": records, "dropped": gone - self._told_dropped}
        self._told_dropped = gone
        return Envelope(
            event=RECORDS_NOTED,
            event_id=f"evt_{self._new_id()}",
            timestamp=self._clock.now().isoformat(),
            source_module=self._source,
            trace_id="",
            data=data,
        )
