"""Tools of MCP servers: the connections that are held, and what their answers mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from modules.core.errors import NotFound

from .definition import MCP, Endpoint
from .errors import ToolFailed
from .header_variables import HeaderVariables, with_variables
from .installed import imported
from .mcp_servers import HttpServer, McpServer, StdioServer
from .network_rules import NetworkRules
from .output import Output, of_value

log = logging.getLogger(__name__)

_IDLE_S = 300.0
# A message carries its answer twice where it is structured, and escapes it.
_MESSAGE_SHARE = 4
_MESSAGE_FRAME = 64 * 1024
_SHOWN_OF_AN_ERROR = 2000


class McpTools:
    """*servers* are the operator's, by name; a URL is called under the network rules. *resolve*: see
    `guarded_transport`; None is the system's."""

    def __init__(
        self,
        servers: Mapping[str, McpServer],
        *,
        rules: NetworkRules,
        variables: HeaderVariables,
        environ: Mapping[str, str],
        connect_s: float,
        list_s: float,
        call_s: float,
        max_output_bytes: int,
        monotonic: Callable[[], float],
        resolve: Any = None,
    ) -> None:
        self.servers = dict(servers)
        self._rules = rules
        self._variables = variables
        self._environ = environ
        self._connect_s, self._list_s, self._call_s = connect_s, list_s, call_s
        self._max_bytes = max_output_bytes
        self._message_bytes = max_output_bytes * _MESSAGE_SHARE + _MESSAGE_FRAME
        self._monotonic = monotonic
        self._resolve = {} if resolve is None else {"resolve": resolve}
        self._connections: dict[tuple[str, str], Any] = {}
        self._given_up: set[Any] = set()
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}

    def check(self, place: Endpoint) -> None:
        """Raises NotFound for a server that nobody named."""
        if place.kind == MCP and place.address not in self.servers:
            raise NotFound(f"no MCP server {place.address!r}: name it in tool_use.mcp_servers_file")

    async def tools(self, place: Endpoint, headers: Mapping[str, str]) -> list[Any]:
        """What the server at *place* lists. Raises a ToolError and NotFound."""
        connection = await self._connected(place, headers, self._connect_s)
        listed: list[Any] = await connection.tools(self._list_s)
        return listed

    async def call(
        self, place: Endpoint, headers: Mapping[str, str], parameters: Mapping[str, Any], within_s: float
    ) -> Output:
        """*within_s* is for connecting and answering together. Raises a ToolError and NotFound."""
        began = self._monotonic()
        connection = await self._connected(place, headers, within_s)
        left_s = max(0.001, within_s - (self._monotonic() - began))
        return output_of(await connection.call(place.tool, parameters, left_s), self._max_bytes)

    async def close_idle(self) -> int:
        """Close connections that nobody has used for a while; how many."""
        before = self._monotonic() - _IDLE_S
        idle = [key for key, one in self._connections.items() if one.is_idle and one.used_at < before]
        for key in idle:
            self._retire(self._connections.pop(key))
        self._given_up = {one for one in self._given_up if not one.has_ended}
        return len(idle)

    async def close(self) -> None:
        connections = [*self._connections.values(), *self._given_up]
        self._connections.clear()
        self._given_up.clear()
        await asyncio.gather(*(one.closed() for one in connections))

    async def _connected(self, place: Endpoint, headers: Mapping[str, str], within_s: float) -> Any:
        self.check(place)
        server = self.servers[place.address] if place.kind == MCP else HttpServer(place.address, headers)
        # Headers are part of what a connection is: nobody calls with another one's.
        key = (str(place).partition("#")[0], repr(sorted(headers.items())))
        async with self._opening.setdefault(key, asyncio.Lock()):
            known = self._connections.get(key)
            if known is not None and known.is_usable:
                return known
            if known is not None:
                self._retire(self._connections.pop(key))
            connection = self._made(place, server, is_named=place.kind == MCP)
            try:
                await connection.opened(min(self._connect_s, within_s))
            except BaseException:
                self._retire(connection)
                raise
            self._connections[key] = connection
            return connection

    def _retire(self, connection: Any) -> None:
        connection.give_up()
        self._given_up.add(connection)

    def _made(self, place: Endpoint, server: McpServer, *, is_named: bool) -> Any:
        connections = imported("modules.tool_use.mcp_connection")
        name = place.address
        if isinstance(server, StdioServer):
            stdio = imported("modules.tool_use.mcp_stdio")
            env = {key: with_variables(text, self._environ) for key, text in server.env.items()}
            return connections.McpConnection(
                name,
                lambda tell_end: stdio.bounded_stdio(name, server, env, self._message_bytes, tell_end),
                self._monotonic,
            )
        http = imported("modules.tool_use.mcp_http")
        guarded = imported("modules.tool_use.guarded_transport")
        host = guarded.target_of(guarded.parsed_url(server.url)).host
        if is_named:
            filled = {key: with_variables(text, self._environ) for key, text in server.headers.items()}
        else:
            filled = self._variables.filled(server.headers, host)

        def transport(tell_end: Any) -> Any:
            bound = guarded.Bound(self._message_bytes, tell_end)
            client = guarded.guarded_client(
                self._rules,
                connect_s=self._connect_s,
                call_s=self._call_s,
                headers=filled,
                bound=bound,
                **self._resolve,
            )
            return http.bounded_http(server.url, client, self._message_bytes)

        return connections.McpConnection(name, transport, self._monotonic)


def output_of(answer: Any, max_bytes: int) -> Output:
    """What a server answered: its structured content where it has some, its text where that is all, else all parts.

    Raises ToolFailed with the server's words when it says that the tool failed.
    """
    texts = [part.text for part in answer.content if part.type == "text"]
    if answer.is_error:
        said = " ".join(" ".join(texts).split())[:_SHOWN_OF_AN_ERROR]
        raise ToolFailed(f"the tool failed: {said}" if said else "the tool failed and does not say why")
    if answer.structured_content is not None:
        return of_value(answer.structured_content, max_bytes)
    if len(texts) == len(answer.content):
        return of_value("\n".join(texts), max_bytes)
    parts = [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in answer.content]
    return of_value(parts, max_bytes)
