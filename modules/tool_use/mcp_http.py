"""The streamable HTTP transport of MCP over a client of ours, which decides what may be reached and how long an answer
may be. Imported only where `mcp` is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client


@asynccontextmanager
async def bounded_http(url: str, client: httpx2.AsyncClient, max_bytes: int) -> AsyncIterator[tuple[Any, Any]]:
    """Streams to and from the server at *url*; *client* is closed with them. *max_bytes* is for an event that nobody
    asked for; answers are bounded by the client."""
    async with (
        client,
        streamable_http_client(url, http_client=client, max_sse_event_size=max_bytes) as streams,
    ):
        yield streams
