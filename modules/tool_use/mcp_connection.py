"""One connection to one MCP server: opened when first needed, shared by all calls, given up when it is of no more
use.

A task of its own opens it, holds it and closes it, as the library's scopes demand; callers only send requests. What
ends a connection (the server's process ended, it said too much, an address was refused) is kept as the reason that its
callers are given. Imported only where `mcp` is installed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2
import mcp_types
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from modules.core.errors import PlatformError

from .errors import ToolAnswerInvalid, ToolError, ToolFailed, ToolTimedOut, ToolUnavailable

log = logging.getLogger(__name__)

TellEnd = Callable[[ToolError], None]
OpenTransport = Callable[[TellEnd], AbstractAsyncContextManager[Any]]

_MOST_PAGES = 20
_MOST_TOOLS = 1000
_EXPLAINED_S = 1.0
_GONE = (mcp_types.CONNECTION_CLOSED, mcp_types.INVALID_REQUEST)
_ANSWER: TypeAdapter[Any] = TypeAdapter(mcp_types.CallToolResult | mcp_types.InputRequiredResult)


class McpConnection:
    """*open_transport* gives the library's transport, and is told how to say why it ended."""

    def __init__(self, name: str, open_transport: OpenTransport, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._open_transport = open_transport
        self._monotonic = monotonic
        self._client: Client | None = None
        self._why: ToolError | None = None
        self._is_wanted = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own())
        self._in_flight = 0
        self._is_broken_off = False
        self.used_at = monotonic()

    @property
    def is_usable(self) -> bool:
        return not self._owner.done() and self._why is None and not self._is_wanted.is_set()

    @property
    def has_ended(self) -> bool:
        return self._owner.done()

    @property
    def is_idle(self) -> bool:
        return self._in_flight == 0

    async def opened(self, within_s: float) -> None:
        """Raises ToolTimedOut, ToolUnavailable, AddressRefused; what was begun is then ended in the background."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(self._opened)
        except TimeoutError:
            self._break_off()
            raise ToolTimedOut(f"MCP server {self._name} did not connect in {within_s:g} s", was_sent=False) from None

    async def tools(self, within_s: float) -> list[mcp_types.Tool]:
        """All tools that the server lists. Raises ToolTimedOut and what ended the connection."""
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        async with _Request(self, f"did not list its tools in {within_s:g} s", within_s) as session:
            for _ in range(_MOST_PAGES):
                params = None if cursor is None else mcp_types.PaginatedRequestParams(cursor=cursor)
                page = await session.list_tools(params=params)
                found += page.tools
                cursor = page.next_cursor
                if not cursor:
                    return found
                if len(found) > _MOST_TOOLS:
                    break
        raise ToolAnswerInvalid(f"MCP server {self._name} lists its tools without end")

    async def call(self, tool: str, arguments: Mapping[str, Any], within_s: float) -> mcp_types.CallToolResult:
        """The server's answer, its own report of failure included. Raises as `tools` does, ToolFailed when the server
        refuses the request, ToolAnswerInvalid when it asks something in place of answering.

        The library's own `call_tool` would apply the schema that the server gave, here and without bounds.
        """
        async with _Request(self, f"did not answer {tool} in time", within_s) as session:
            request = mcp_types.CallToolRequest(
                params=mcp_types.CallToolRequestParams(name=tool, arguments=dict(arguments))
            )
            try:
                answer = await session.send_request(request, _ANSWER)
            except MCPError as error:
                if error.code != mcp_types.HEADER_MISMATCH:
                    raise
                # Parameters that go into headers are known from the listing, which has changed since.
                await session.list_tools()
                answer = await session.send_request(request, _ANSWER)
        if not isinstance(answer, mcp_types.CallToolResult):
            raise ToolAnswerInvalid(
                f"{tool} of MCP server {self._name} asks for more input, which nobody can give here"
            )
        return answer

    def give_up(self) -> None:
        """Take no more; close when the last request is done."""
        self._is_wanted.set()

    async def closed(self) -> None:
        """Close now; return when that is done."""
        self._is_wanted.set()
        if not self._opened.done():
            self._break_off()
        await asyncio.wait([self._owner])

    def _break_off(self) -> None:
        # Once: a second time would reach it while it puts an end to the server's process.
        if not self._is_broken_off:
            self._is_broken_off = True
            self._owner.cancel()

    async def explained(self) -> None:
        """Return when it is known why the connection ended, or nobody will tell."""
        if self._why is None:
            await asyncio.wait([self._owner], timeout=_EXPLAINED_S)

    async def _own(self) -> None:
        try:
            async with Client(self._open_transport(self._tell_end), mode="auto", cache=None) as client:
                self._client = client
                self._opened.set_result(None)
                await self._is_wanted.wait()
                while self._in_flight:
                    await asyncio.sleep(0.05)
        except BaseException as error:
            self._why = self._why or reason_of(error, self._name)
            if not self._opened.done():
                self._opened.set_exception(self._why)
                self._opened.exception()  # nobody may be waiting any more
            if isinstance(error, asyncio.CancelledError):
                raise
            log.info("the connection with MCP server %s ended: %s", self._name, self._why)
        finally:
            self._client = None

    def _tell_end(self, why: ToolError) -> None:
        self._why = self._why or why


class _Request:
    """The time and the errors of a request."""

    def __init__(self, connection: McpConnection, too_late: str, within_s: float) -> None:
        self._connection = connection
        self._too_late = too_late
        self._limit = asyncio.timeout(within_s)

    async def __aenter__(self) -> Any:
        connection = self._connection
        client = connection._client
        if client is None or not connection.is_usable:
            raise connection._why or ToolUnavailable(
                f"the connection with MCP server {connection._name} is closed", was_sent=False
            )
        connection._in_flight += 1
        connection.used_at = connection._monotonic()
        await self._limit.__aenter__()
        return client.session

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        connection = self._connection
        connection._in_flight -= 1
        connection.used_at = connection._monotonic()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            # It may be stuck for good; the next call gets a new one.
            connection.give_up()
            raise ToolTimedOut(f"MCP server {connection._name} {self._too_late}") from None
        if isinstance(error, asyncio.CancelledError) and connection._why is None:
            return
        if isinstance(error, Exception) and not isinstance(error, PlatformError):
            if isinstance(error, MCPError) and error.code in _GONE:
                connection.give_up()
                await connection.explained()
            raise connection._why or reason_of(error, connection._name) from error


def reason_of(error: BaseException, name: str) -> ToolError:
    """What *error*, of the library or of a connection, means for who calls the server *name*."""
    found = _first(error, (ToolError,))
    if isinstance(found, ToolError):
        return found
    found = _first(error, (PlatformError, MCPError, ValidationError, httpx2.HTTPError, OSError))
    match found:
        case PlatformError():
            return ToolUnavailable(f"MCP server {name}: {found.message}", was_sent=False)
        case MCPError() if found.code in _GONE:
            return ToolUnavailable(f"MCP server {name} broke off: {found.message}")
        case MCPError():
            return ToolFailed(f"MCP server {name} says: {found.message}")
        case ValidationError():
            return ToolAnswerInvalid(f"MCP server {name} answers with what MCP does not have")
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return ToolUnavailable(f"no connection with MCP server {name}: {found}", was_sent=False)
        case httpx2.HTTPError() | OSError():
            return ToolUnavailable(f"MCP server {name} broke off: {found or type(found).__name__}")
        case _:
            return ToolUnavailable(f"the connection with MCP server {name} ended: {error or type(error).__name__}")


def _first(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """The first of *kinds* in *error*, in the groups that it is made of, and in what caused it."""
    if isinstance(error, kinds):
        return error
    within = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    causes = (error.__cause__,) if error.__cause__ is not None else ()
    return next((found for one in (*within, *causes) if (found := _first(one, kinds)) is not None), None)
