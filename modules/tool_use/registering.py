"""Registering: what is checked before a tool is kept, and the one place that changes what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import Conflict, ValidationError

from .calls import Means
from .chains import ToolChain
from .definition import MCP, PYTHON, REMOTE_MCP, Endpoint, ToolDefinition, options_of
from .header_variables import HeaderVariables
from .imports import Listed, definitions_of
from .installed import imported
from .network_rules import NetworkRules
from .registry import Registry
from .settings import ToolUseSettings


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """How a tool does. ``circuit`` is closed, open or half_open."""

    tool_name: str
    owner: str
    circuit: str


@dataclass(frozen=True, slots=True)
class ToolErasure:
    """What was removed of a user."""

    user_id: str
    tools: int
    chains: int


class Registering:
    """*forget* is told of a tool that is another one now, or none. Changes happen one at a time."""

    def __init__(
        self,
        tools: Registry[ToolDefinition],
        chains: Registry[ToolChain],
        means: Means,
        rules: NetworkRules,
        variables: HeaderVariables,
        forget: Callable[[ToolDefinition], None],
        settings: ToolUseSettings,
        clock: Clock,
    ) -> None:
        self._tools = tools
        self._chains = chains
        self._means = means
        self._rules = rules
        self._variables = variables
        self._forget = forget
        self._settings = settings
        self._clock = clock
        self._changing = asyncio.Lock()

    async def check(self, tool: ToolDefinition) -> None:
        """Raises what calling it would: for its address, function or server; and for schemas of no use."""
        self._check_place(tool.place, tool.options.headers)
        await self._means.schemas.check_schema("input_schema", tool.input_schema)
        if tool.output_schema is not None:
            await self._means.schemas.check_schema("output_schema", tool.output_schema)

    async def listed(self, server: Endpoint, prefix: str, metadata: Mapping[str, Any], owner: str) -> Listed:
        """What an MCP server lists, as definitions that are not kept yet. Raises a ToolError, ValidationError."""
        if server.kind not in (MCP, REMOTE_MCP) or server.tool:
            raise ValidationError("tools are imported from mcp:server or mcp+https://host/path", param="endpoint")
        headers = options_of(server, metadata).headers
        self._check_place(server, headers)
        found = await self._means.mcp.tools(server, headers)
        return definitions_of(server, found, prefix=prefix, metadata=metadata, owner=owner)

    async def put_tool(self, tool: ToolDefinition) -> tuple[ToolDefinition, bool]:
        """The tool as it is kept, and whether that is new: the same again changes nothing. Raises Conflict."""
        async with self._changing:
            known = self._tools.own(tool.name, tool.owner)
            if known is None:
                self._check_room(len(self._tools.of_owner(tool.owner)), "tools", tool.owner)
            elif replace(known, version=1, registered_at="") == tool:
                return known, False
            version = 1 if known is None else known.version + 1
            kept = replace(tool, version=version, registered_at=self._clock.now().isoformat())
            await asyncio.to_thread(self._tools.put, kept)
            self._forget(kept)
            return kept, True

    async def remove_tool(self, tool_name: str, owner: str) -> bool:
        async with self._changing:
            known = self._tools.own(tool_name, owner)
            was_there = await asyncio.to_thread(self._tools.remove, tool_name, owner)
            if known is not None:
                self._forget(known)
            return was_there

    async def put_chain(self, chain: ToolChain) -> None:
        """Raises Conflict."""
        async with self._changing:
            if self._chains.own(chain.name, chain.owner) is None:
                self._check_room(len(self._chains.of_owner(chain.owner)), "chains", chain.owner)
            await asyncio.to_thread(self._chains.put, chain)

    async def remove_chain(self, chain_id: str, owner: str) -> bool:
        async with self._changing:
            return await asyncio.to_thread(self._chains.remove, chain_id, owner)

    async def erase(self, owner: str) -> ToolErasure:
        async with self._changing:
            for tool in self._tools.of_owner(owner):
                self._forget(tool)
            tools = await asyncio.to_thread(self._tools.erase, owner)
            chains = await asyncio.to_thread(self._chains.erase, owner)
            return ToolErasure(owner, tools, chains)

    def _check_place(self, place: Endpoint, headers: Mapping[str, str]) -> None:
        if place.is_http:
            guarded = imported("modules.tool_use.guarded_transport")
            target = guarded.target_of(guarded.parsed_url(place.address.replace("{", "").replace("}", "")))
            self._rules.check_target(target)
            self._variables.check(headers, target.host)
        elif place.kind == PYTHON:
            self._means.python.check(place.address)
        else:
            self._means.mcp.check(place)

    def _check_room(self, has: int, what: str, owner: str) -> None:
        if owner and has >= self._settings.max_tools_per_user:
            raise Conflict(f"user {owner!r} has {has} {what}, which is as many as allowed")
