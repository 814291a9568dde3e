"""Tools: registered, found, called; chains of them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Request
from fastapi import Query as InQuery
from pydantic import ConfigDict, Field

from actors.module_ref import ModuleRef
from modules.core.errors import NotFound
from modules.tool_use import ToolAnswerInvalid, ToolDefinition, ToolFailed
from serve.caller import Caller
from serve.disconnect import unless_gone
from serve.errors import SERVER, HttpError
from serve.json_response import Json
from serve.pages import Id, PageQuery, Query, listed
from serve.schemas import Answer, Body, Deleted, Page
from serve.serving import CallerNow, ServingNow, running

router = APIRouter(tags=["tools"])
T = TypeVar("T")

Tools = Annotated[ModuleRef, Depends(running("tool_use"))]
_NAME = "^[A-Za-z0-9_-]{1,64}$"
Name = Annotated[str, Field(pattern=_NAME)]
ToolName = Annotated[str, Path(pattern=_NAME, examples=["weather"])]
ChainId = Annotated[str, Path(pattern=_NAME, examples=["where_and_how"])]
Timeout = Annotated[float | None, Field(gt=0, le=3600)]
Metadata = dict[str, Any]
_EVERYBODY = ""


class ToolSaysNo(HttpError):
    """The tool was reached, and did not do what was asked, or answered what cannot be used."""

    status = 502
    type = SERVER


class ToolMetadata(Body):
    """What is not named here is kept as it is."""

    model_config = ConfigDict(extra="allow")

    description: Annotated[str, Field(max_length=16_000)] = ""
    capabilities: Annotated[list[Id], Field(max_length=100)] = Field(default_factory=list)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    """``${NAME}`` in a value is a variable that the operator lets go to that host."""

    idempotent: bool = False
    """Whether a call may be made again when nobody knows whether it was carried out; without it, what is usual for the
    method."""

    cost: Annotated[float, Field(ge=0)] = 0.0
    """Of one call, in the operator's unit."""

    timeout_seconds: Annotated[float | None, Field(gt=0)] = None
    """Where a caller names none."""

    offered: bool = True
    """Whether chat models are told of it."""


class NewTool(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "tool_name": "weather",
                    "endpoint": "https://api.example.com/weather/{city}",
                    "input_schema": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                    "metadata": {"description": "The weather of a city.", "method": "GET"},
                }
            ]
        }
    )

    user_id: Id | None = None
    """Whose tool it is; without one it is for everybody, which takes an administrator."""

    tool_name: Name
    endpoint: Annotated[str, Field(max_length=2048, pattern=r"^(https?:|python:|mcp:|mcp\+https?:)[\x21-\x7e]+$")]
    """``https://host/path``, ``python:package.module:function`` from the operator's list, ``mcp:server#tool`` of a
    server that the operator named, or ``mcp+https://host/path#tool``."""

    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    metadata: ToolMetadata | None = None


class NewImport(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ada", "endpoint": "mcp:files", "prefix": "files_"}]}
    )

    user_id: Id | None = None
    endpoint: Annotated[str, Field(max_length=2048, pattern=r"^(mcp:|mcp\+https?:)[\x21-\x7e]+$")]
    """``mcp:server`` or ``mcp+https://host/path``."""

    prefix: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{0,32}$")] = ""
    metadata: ToolMetadata | None = None
    """Of each of the tools."""


class Call(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "parameters": {"city": "Rome"}}]})

    user_id: Id | None = None
    parameters: dict[str, Any] | None = None
    timeout: Timeout = None
    """Seconds, for all attempts together."""

    session_id: Id | None = None


class Check(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada", "parameters": {"city": "Rome"}}]})

    user_id: Id | None = None
    parameters: dict[str, Any] | None = None


class Step(Body):
    """In ``input``, a text that begins with ``$`` is where a value is taken from: ``$input.city``,
    ``$previous.temperature``, ``$steps.locate.city``; ``$$`` begins a text that begins with ``$``."""

    tool: Name
    name: Name | None = None
    """After its tool where it is not given. No two steps of a chain have the same."""

    input: dict[str, Any] | None = None


class NewChain(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "ada",
                    "tools": ["locate", {"tool": "weather", "input": {"city": "$previous.city"}}],
                    "strategy": "sequential",
                }
            ]
        }
    )

    user_id: Id | None = None
    tools: Annotated[list[Name | Step], Field(min_length=1, max_length=32)]
    strategy: Literal["sequential", "parallel"] = "sequential"
    chain_id: Name | None = None
    """Made up where it is not given."""


class ToolsQuery(PageQuery):
    user_id: Id | None = None
    """The user's own tools are listed with those for everybody; without a user, the latter."""

    capability: Id | None = None


class ChainsQuery(PageQuery):
    user_id: Id | None = None


class UserQuery(Query):
    user_id: Id | None = None


class ToolOut(Answer):
    """``user_id`` null: it is everybody's. Of a tool of another owner, ``endpoint`` lacks its query and headers show
    their names alone."""

    name: str
    endpoint: str
    description: str
    capabilities: list[str]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    metadata: Metadata
    user_id: str | None
    version: int
    registered_at: str


class ToolPage(Page):
    data: list[ToolOut]


class ImportOut(Answer):
    tools: list[ToolOut]
    refused: dict[str, str]


class ResultOut(Answer):
    """``is_cut``: the tool said more than is kept, and ``output`` is the text of its beginning."""

    call_id: str
    tool_name: str
    output: Any
    is_cut: bool
    size_bytes: int
    attempts: int
    duration_ms: float
    cost: float


class CheckOut(Answer):
    is_valid: bool
    problems: list[str]


class ChainOut(Answer):
    name: str
    steps: list[dict[str, Any]]
    strategy: str
    user_id: str | None
    created_at: str


class ChainPage(Page):
    data: list[ChainOut]


class ChainResultOut(Answer):
    """Without ``ok``, a step failed: ``steps`` say which, and hold what was done before."""

    chain_id: str
    ok: bool
    output: Any
    steps: list[dict[str, Any]]
    duration_ms: float


@router.post("/v1/tools", status_code=201, response_model=ToolOut)
async def register_tool(body: NewTool, tools: Tools, caller: CallerNow) -> Json:
    """Register a tool, in place of the user's one of that name."""
    owner = _owner(caller, body.user_id)
    tool: ToolDefinition = await tools.ask(
        "register_tool",
        body.tool_name,
        body.endpoint,
        body.input_schema,
        body.output_schema,
        _plain(body.metadata),
        user_id=owner,
    )
    return Json(_whose(tool.to_dict()), 201)


@router.get("/v1/tools", response_model=ToolPage)
async def discover_tools(
    query: Annotated[ToolsQuery, InQuery()], tools: Tools, caller: CallerNow, serving: ServingNow
) -> Json:
    """The tools that a user can call, by name."""
    user = _user(caller, query.user_id)
    found = await tools.ask("discover_tools", query.capability, user_id=user)
    return Json(_page([_shown(tool, user) for tool in found], query, query.most(serving.http.pages)))


@router.get("/v1/tools/{tool_name}", response_model=ToolOut)
async def get_tool(
    tool_name: ToolName, query: Annotated[UserQuery, InQuery()], tools: Tools, caller: CallerNow
) -> Json:
    """The user's tool of that name, else the one for everybody."""
    user = _user(caller, query.user_id)
    return Json(_shown(await tools.ask("get_tool", tool_name, user_id=user), user))


@router.delete("/v1/tools/{tool_name}", response_model=Deleted)
async def unregister_tool(
    tool_name: ToolName, query: Annotated[UserQuery, InQuery()], tools: Tools, caller: CallerNow
) -> Json:
    """Remove a user's own tool; without a user, everybody's."""
    if not await tools.ask("unregister_tool", tool_name, user_id=_owner(caller, query.user_id)):
        raise NotFound(f"no tool {tool_name!r}")
    return Json({"object": "deleted", "id": tool_name, "deleted": True})


@router.post("/v1/tools/{tool_name}/execute", response_model=ResultOut)
async def execute_tool(
    tool_name: ToolName, body: Call, tools: Tools, caller: CallerNow, serving: ServingNow, request: Request
) -> Json:
    """Call a tool and wait for its answer."""
    calling = tools.ask(
        "execute_tool",
        tool_name,
        body.parameters,
        body.timeout,
        user_id=_user(caller, body.user_id),
        session_id=body.session_id,
        timeout_s=serving.http.max_stream_seconds,
    )
    return Json((await unless_gone(request, _told(calling))).to_dict())


@router.post("/v1/tools/{tool_name}/validate", response_model=CheckOut)
async def validate_parameters(tool_name: ToolName, body: Check, tools: Tools, caller: CallerNow) -> Json:
    """Whether a tool could be called so; it is not called."""
    user = _user(caller, body.user_id)
    problems = await tools.ask("validate_parameters", tool_name, body.parameters, user_id=user)
    return Json({"is_valid": not problems, "problems": list(problems)})


@router.post("/v1/tool_imports", status_code=201, response_model=ImportOut)
async def import_tools(body: NewImport, tools: Tools, caller: CallerNow) -> Json:
    """Register all tools that an MCP server lists."""
    owner = _owner(caller, body.user_id)
    metadata = _plain(body.metadata)
    importing = tools.ask("import_tools", body.endpoint, prefix=body.prefix, metadata=metadata, user_id=owner)
    found = await _told(importing)
    return Json({"tools": [_whose(tool.to_dict()) for tool in found.tools], "refused": dict(found.refused)}, 201)


@router.post("/v1/tool_chains", status_code=201, response_model=ChainOut)
async def create_chain(body: NewChain, tools: Tools, caller: CallerNow) -> Json:
    """Keep a chain of tools, in place of the user's one of that id."""
    chain = await tools.ask(
        "create_tool_chain",
        [one if isinstance(one, str) else one.model_dump() for one in body.tools],
        body.strategy,
        chain_id=body.chain_id,
        user_id=_owner(caller, body.user_id),
    )
    return Json(_whose(chain.to_dict()), 201)


@router.get("/v1/tool_chains", response_model=ChainPage)
async def list_chains(
    query: Annotated[ChainsQuery, InQuery()], tools: Tools, caller: CallerNow, serving: ServingNow
) -> Json:
    """The chains that a user can run, by id."""
    chains = await tools.ask("list_chains", user_id=_user(caller, query.user_id))
    return Json(_page([_whose(chain.to_dict()) for chain in chains], query, query.most(serving.http.pages)))


@router.delete("/v1/tool_chains/{chain_id}", response_model=Deleted)
async def delete_chain(
    chain_id: ChainId, query: Annotated[UserQuery, InQuery()], tools: Tools, caller: CallerNow
) -> Json:
    """Remove a user's own chain; without a user, everybody's. Its tools stay."""
    if not await tools.ask("delete_chain", chain_id, user_id=_owner(caller, query.user_id)):
        raise NotFound(f"no chain {chain_id!r}")
    return Json({"object": "deleted", "id": chain_id, "deleted": True})


@router.post("/v1/tool_chains/{chain_id}/execute", response_model=ChainResultOut)
async def execute_chain(
    chain_id: ChainId, body: Call, tools: Tools, caller: CallerNow, serving: ServingNow, request: Request
) -> Json:
    """Run a chain and wait for its last step. A step that fails is told in the result."""
    running_it = tools.ask(
        "execute_chain",
        chain_id,
        body.parameters,
        body.timeout,
        user_id=_user(caller, body.user_id),
        session_id=body.session_id,
        timeout_s=serving.http.max_stream_seconds,
    )
    return Json((await unless_gone(request, running_it)).to_dict())


async def _told(work: Awaitable[T]) -> T:
    """What a tool says no to is no failure of the server."""
    try:
        return await work
    except (ToolFailed, ToolAnswerInvalid) as error:
        raise ToolSaysNo(error.message, code=error.code) from error


def _user(caller: Caller, user_id: str | None) -> str:
    return caller.acting_for(user_id) or _EVERYBODY


def _owner(caller: Caller, user_id: str | None) -> str:
    """Whose a thing is to be. Nobody's, which is everybody's, takes an administrator. Raises NotAllowed."""
    user = _user(caller, user_id)
    if not user:
        caller.check_admin()
    return user


def _plain(metadata: ToolMetadata | None) -> Metadata | None:
    return None if metadata is None else metadata.model_dump(exclude_unset=True)


def _shown(tool: ToolDefinition, user: str) -> dict[str, Any]:
    return _whose(tool.to_dict() if user and tool.owner == user else tool.shown())


def _whose(shown: dict[str, Any]) -> dict[str, Any]:
    """Whose it is has one name in requests and answers."""
    shown["user_id"] = shown.pop("owner") or None
    return shown


def _page(items: Sequence[dict[str, Any]], query: PageQuery, most: int) -> dict[str, Any]:
    """The page of *items*, which are in the order of their names. A cursor need not be there any more."""
    found = [
        one
        for one in items
        if (query.after is None or _is_after(one["name"], query.after, query.order))
        and (query.before is None or _is_after(query.before, one["name"], query.order))
    ]
    if query.order == "desc":
        found.reverse()
    ends_there = query.before is not None and query.after is None
    page = found[-most:] if ends_there else found[:most]
    return listed(page, has_more=len(found) > most, id_member="name")


def _is_after(one: str, other: str, order: str) -> bool:
    return one > other if order == "asc" else one < other
