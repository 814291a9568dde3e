"""Tools: registered, found, called, chained. What is promised of a call stands in `calls`, of an address in
`network_rules`, of a chain in `chains`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from modules.core.clock import Clock, IdMaker, SystemClock, new_hex
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, NotFound, PlatformError, StorageError, ValidationError
from modules.core.finishing import Finishing
from modules.core.storage import FlatFileStorage
from modules.core.types import ModuleInfo

from .budget import CallRates, DayCosts
from .call_record import CallTeller
from .calls import Means, ToolCalls
from .chain_runs import run_chain
from .chains import SEQUENTIAL, ChainResult, ToolChain, steps_of
from .definition import Endpoint, ToolDefinition, check_name, definition_of
from .header_variables import HeaderVariables
from .http_tool import HttpTool
from .imports import Listed, was_listed
from .installed import imported
from .mcp_servers import McpServer, read_servers
from .mcp_tools import McpTools
from .output import ToolResult
from .python_tool import PythonTools
from .registering import Registering, ToolErasure, ToolStatus
from .registry import Registry
from .schema_check import SchemaCheck
from .settings import ToolUseSettings
from .tool_events import ToolEvents

log = logging.getLogger(__name__)
T = TypeVar("T")

TOOLS, CHAINS = "tool_use/tools", "tool_use/chains"


class ToolUseModule:
    """*config* is the mapping under ``modules.tool_use``; *environ* is where ``${NAME}`` of headers is looked up.
    *resolve* looks up addresses in place of the system (see `guarded_transport`).

    The user ``""`` is everybody: who may register for everybody is decided where the call comes in.
    """

    info = ModuleInfo(
        name="tool_use",
        version="1.0",
        capabilities=("http_tools", "python_tools", "mcp_tools", "chains"),
        optional=("trace_logger",),
    )

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        new_id: IdMaker = new_hex,
        resolve: Any = None,
        schemas: SchemaCheck | None = None,
    ) -> None:
        self._settings = ToolUseSettings.read(config or {})
        self._rules = self._settings.network_rules()
        self._variables = HeaderVariables.read(self._settings.header_variables, environ or {})
        self._environ = environ or {}
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._resolve = {} if resolve is None else {"resolve": resolve}
        self._http: HttpTool | None = None
        self._client: Any = None
        self._schemas = schemas or SchemaCheck()
        self._python = PythonTools(self._settings.python_tools, self._settings.max_output_bytes)
        self._finishing = Finishing("a change to tools")

    async def initialize(self, context: ModuleContext) -> None:
        """Read what is registered; begin to list the operator's MCP servers, which nothing waits for.

        Raises ConfigurationError for a storage that is not flat files and for a file of servers that cannot be used.
        """
        storage = context.get_storage()
        if not isinstance(storage, FlatFileStorage):
            raise ConfigurationError("tool_use keeps its registry in flat files; set storage.backend to 'flatfile'")
        files, settings = storage.files, self._settings
        self._context = context
        self._files = files
        await asyncio.to_thread(files.empty_trash)
        self._tools = await asyncio.to_thread(Registry(files, TOOLS, ToolDefinition.of_dict).load)
        self._chains = await asyncio.to_thread(Registry(files, CHAINS, ToolChain.of_dict).load)
        servers: dict[str, McpServer] = {}
        if settings.mcp_servers_file is not None:
            servers = await asyncio.to_thread(read_servers, Path(settings.mcp_servers_file))
        self._mcp = McpTools(
            servers,
            rules=self._rules,
            variables=self._variables,
            environ=self._environ,
            connect_s=settings.connect_s,
            list_s=settings.list_s,
            call_s=settings.call_s,
            max_output_bytes=settings.max_output_bytes,
            monotonic=self._clock.monotonic,
            **self._resolve,
        )
        self._rates = CallRates(settings.calls_per_minute)
        self._costs = DayCosts(files, self._clock, settings.max_cost_per_day)
        teller = CallTeller(context)
        means = Means(self._http_tool, self._mcp, self._python, self._schemas, self._rates, self._costs, teller)
        self._calls = ToolCalls(means, settings, self._clock)
        self._registering = Registering(
            self._tools, self._chains, means, self._rules, self._variables, self._calls.forget, settings, self._clock
        )
        self._events = ToolEvents(self, context, self._execute)
        self._events.listen()
        if servers:
            self._finishing.begin(self.list_servers())

    async def health_check(self) -> bool:
        """Whether a tool could be registered now."""
        try:
            await asyncio.to_thread(self._files.probe)
        except StorageError:
            log.warning("tool_use cannot write to its storage", exc_info=True)
            return False
        return True

    async def close(self) -> None:
        """End all connections, and the programs that were started for them."""
        self._events.stop()
        self._finishing.cancel()
        await self._finishing.wait()
        await self._calls.close()
        await self._mcp.close()
        if self._client is not None:
            await self._client.aclose()
        self._python.close()
        await self._schemas.close()
        await self._rates.close()

    # -- for the program itself: not to be called from outside --------------------------------------------------

    def add_server(self, name: str, server: McpServer) -> None:
        """Name an MCP server, as ``tool_use.mcp_servers_file`` does."""
        check_name(name)
        self._mcp.servers[name] = server

    def add_function(self, path: str, function: Callable[..., Any]) -> None:
        """Make a function callable as ``python:<path>``, as ``tool_use.python_tools`` does."""
        self._python.add(path, function)

    # -- registering --------------------------------------------------------------------------------------------

    async def register_tool(
        self,
        tool_name: str,
        endpoint: str,
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str = "",
    ) -> ToolDefinition:
        """Register a tool for a user, or replace the user's tool of that name. See `definition` for endpoints and for
        what *metadata* may say (description, capabilities, method, headers, idempotent, cost, timeout_seconds,
        offered).

        Raises ValidationError for what cannot be called, AddressRefused among them, NotFound for an MCP server that
        nobody named, Conflict when the user has as many tools as allowed.
        """
        _check_user(user_id)
        tool = definition_of(tool_name, endpoint, input_schema, output_schema, metadata, user_id)
        await self._registering.check(tool)
        return await self._registered(tool)

    async def unregister_tool(self, tool_name: str, *, user_id: str = "") -> bool:
        """Remove the user's own tool of that name; False when there is none."""
        _check_user(user_id)
        check_name(tool_name)
        return await self._finishing.finish(self._registering.remove_tool(tool_name, user_id))

    async def import_tools(
        self, endpoint: str, *, prefix: str = "", metadata: Mapping[str, Any] | None = None, user_id: str = ""
    ) -> Listed:
        """Register all tools that an MCP server lists: ``mcp:server`` or ``mcp+https://host/path``. *prefix* goes
        before their names, *metadata* (headers, cost, ...) is each one's.

        Raises a ToolError when the server does not list them, and as `register_tool` does.
        """
        _check_user(user_id)
        found = await self._registering.listed(Endpoint.parse(endpoint), prefix, metadata or {}, user_id)
        tools, refused = [], dict(found.refused)
        for tool in found.tools:
            try:
                await self._registering.check(tool)
                tools.append(await self._registered(tool))
            except (ValidationError, Conflict) as error:
                refused[tool.name] = error.message
        if refused:
            log.warning("of the tools of %s, %d cannot be had: %s", endpoint, len(refused), refused)
        return Listed(tuple(tools), refused)

    async def list_servers(self) -> dict[str, str]:
        """Ask all of the operator's MCP servers for their tools and register them for everybody, as
        ``<server>_<tool>``; what they list no more, and what belongs to servers that are not named any more, goes.
        Server -> what came of it."""
        outcomes: dict[str, str] = {}

        async def list_one(name: str) -> None:
            try:
                found = await self.import_tools(f"mcp:{name}", prefix=f"{name}_")
                outcomes[name] = f"{len(found.tools)} tools"
                await self._drop_listed(name, keep={tool.name for tool in found.tools})
            except PlatformError as error:
                log.warning("MCP server %s does not list its tools: %s", name, error)
                outcomes[name] = error.message

        await asyncio.gather(*(list_one(name) for name in self._mcp.servers))
        for name in {tool.place.address for tool in self._tools.of_owner("") if was_listed(tool)} - set(outcomes):
            await self._drop_listed(name, keep=set())
        return outcomes

    # -- finding ------------------------------------------------------------------------------------------------

    async def discover_tools(self, capability: str | None = None, *, user_id: str = "") -> list[ToolDefinition]:
        """The tools that a user can call, by name: all, or those with that capability."""
        _check_user(user_id)
        tools = self._tools.visible_to(user_id)
        return [tool for tool in tools if capability is None or capability in tool.capabilities]

    async def get_tool(self, tool_name: str, *, user_id: str = "") -> ToolDefinition:
        """Raises NotFound."""
        return self._found(tool_name, user_id)

    async def validate_parameters(
        self, tool_name: str, parameters: Any = None, *, user_id: str = ""
    ) -> tuple[str, ...]:
        """What is wrong with *parameters*; nothing when the tool could be called with them. It is not called."""
        return await self._calls.problems(self._found(tool_name, user_id), parameters)

    async def tool_status(self, *, user_id: str = "") -> list[ToolStatus]:
        """How the tools do that the user can call."""
        tools = await self.discover_tools(user_id=user_id)
        return [ToolStatus(tool.name, tool.owner, self._calls.circuit(tool).state) for tool in tools]

    async def cost_today(self) -> float:
        """What the calls of this day (UTC) have cost."""
        return await self._costs.today()

    # -- calling ------------------------------------------------------------------------------------------------

    async def execute_tool(
        self,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
    ) -> ToolResult:
        """Call a tool: the user's own of that name, else everybody's. *timeout*, in seconds, is for all attempts.

        Raises NotFound for an unknown tool, ParametersInvalid, ToolBusy when a limit is used up, and any other
        ToolError.
        """
        return await self._execute(tool_name, parameters, timeout, user_id=user_id, session_id=session_id)

    async def create_tool_chain(
        self,
        tools: Sequence[Any],
        strategy: str = SEQUENTIAL,
        *,
        chain_id: str | None = None,
        user_id: str = "",
        keep: bool = True,
    ) -> ToolChain:
        """A chain of tools that the user can call; see `chains` for its steps. With *keep* it can be executed by its
        id, and replaces the user's chain of that id."""
        _check_user(user_id)
        steps = steps_of(tools)
        for step in steps:
            self._found(step.tool, user_id)
        now = self._clock.now().isoformat()
        chain = ToolChain(chain_id or f"chain_{self._new_id()}", steps, strategy, user_id, now)
        if keep:
            await self._finishing.finish(self._registering.put_chain(chain))
        return chain

    async def execute_chain(
        self,
        chain_id: str | ToolChain,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
    ) -> ChainResult:
        """Run a chain, by its id or itself. *timeout* is for each step. A step that fails is in the result, not raised.

        Raises NotFound for an unknown chain, ValidationError for parameters that are no object.
        """
        _check_user(user_id)
        if isinstance(chain_id, ToolChain):
            chain = chain_id
        else:
            found = self._chains.find(chain_id, user_id) if isinstance(chain_id, str) else None
            if found is None:
                raise NotFound(f"no chain {chain_id!r}")
            chain = found
        if parameters is not None and not isinstance(parameters, Mapping):
            raise ValidationError("parameters must be an object", param="parameters")

        async def execute(tool_name: str, given: Mapping[str, Any], timeout_s: float | None) -> ToolResult:
            return await self.execute_tool(tool_name, given, timeout_s, user_id=user_id, session_id=session_id)

        result = await run_chain(chain, parameters or {}, timeout, execute, self._clock.monotonic)
        await self._context.emit(
            "tool.chain.complete",
            {
                "chain_id": chain.id,
                "user_id": user_id,
                "session_id": session_id,
                "ok": result.ok,
                "steps": [{"name": step.name, "tool": step.tool, "ok": step.error is None} for step in result.steps],
                "duration_ms": result.duration_ms,
            },
        )
        return result

    async def list_chains(self, *, user_id: str = "") -> list[ToolChain]:
        _check_user(user_id)
        return self._chains.visible_to(user_id)

    async def delete_chain(self, chain_id: str, *, user_id: str = "") -> bool:
        """Remove the user's own chain of that id; False when there is none."""
        _check_user(user_id)
        check_name(chain_id)
        return await self._finishing.finish(self._registering.remove_chain(chain_id, user_id))

    # -- users, upkeep ------------------------------------------------------------------------------------------

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """The tools and chains that are the user's own."""
        _check_user(user_id)
        return {
            "user_id": user_id,
            "tools": [tool.to_dict() for tool in self._tools.of_owner(user_id)],
            "chains": [chain.to_dict() for chain in self._chains.of_owner(user_id)],
        }

    async def erase_user(self, user_id: str) -> ToolErasure:
        """Remove the tools and chains that are the user's own. Cannot be undone."""
        _check_user(user_id)
        if not user_id:
            raise ValidationError("what belongs to everybody is not erased with a user", param="user_id")
        return await self._finishing.finish(self._registering.erase(user_id))

    async def close_idle(self) -> int:
        """Close connections with MCP servers that nobody uses; how many."""
        return await self._mcp.close_idle()

    # -- below --------------------------------------------------------------------------------------------------

    async def _execute(
        self,
        tool_name: str,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        user_id: str = "",
        session_id: str | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> ToolResult:
        tool = self._found(tool_name, user_id)
        call_id = f"call_{self._new_id()}"
        return await self._calls.execute(
            tool, parameters, timeout, call_id=call_id, user_id=user_id, session_id=session_id, asked=asked
        )

    def _found(self, tool_name: str, user_id: str) -> ToolDefinition:
        _check_user(user_id)
        check_name(tool_name)
        tool = self._tools.find(tool_name, user_id)
        if tool is None:
            raise NotFound(f"no tool {tool_name!r}")
        return tool

    async def _drop_listed(self, server: str, keep: Set[str]) -> None:
        for tool in self._tools.of_owner(""):
            if was_listed(tool) and tool.place.address == server and tool.name not in keep:
                log.info("tool %s is not listed by MCP server %s any more", tool.name, server)
                await self._finishing.finish(self._registering.remove_tool(tool.name, ""))

    async def _registered(self, tool: ToolDefinition) -> ToolDefinition:
        kept, is_new = await self._finishing.finish(self._registering.put_tool(tool))
        if is_new:
            await self._context.emit(
                "tool.registered",
                {
                    "tool_name": kept.name,
                    "owner": kept.owner,
                    "kind": kept.place.kind,
                    "version": kept.version,
                    "capabilities": list(kept.capabilities),
                },
            )
        return kept

    def _http_tool(self) -> HttpTool:
        if self._http is None:
            guarded = imported("modules.tool_use.guarded_transport")
            self._client = guarded.guarded_client(
                self._rules, connect_s=self._settings.connect_s, call_s=self._settings.call_s, **self._resolve
            )
            self._http = HttpTool(self._client, self._variables, self._clock, self._settings.max_output_bytes)
        return self._http


def _check_user(user_id: object) -> None:
    if not isinstance(user_id, str):
        raise ValidationError("user_id must be text", param="user_id")
