"""What a tool is: its name, where it is, what goes in and comes out. Frozen, and checked when built.

An endpoint is one of four:

=====================================  =================================================================
``https://host/path/{city}``           an HTTP endpoint; parameters in braces fill the path, percent-encoded
``python:package.module:function``     a function of this machine, from the operator's list or registered in the program
``mcp:server#tool``                    a tool of an MCP server that the operator named
``mcp+https://host/mcp#tool``          a tool of an MCP server that speaks streamable HTTP
=====================================  =================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from modules.core.errors import ValidationError

HTTP, PYTHON, MCP, REMOTE_MCP = "http", "python", "mcp", "remote_mcp"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What may be done twice without doing more than once: RFC 9110, 9.2.2.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

MAX_SCHEMA_BYTES = 65_536
MAX_METADATA_BYTES = 65_536
_MAX_ENDPOINT = 2048
# Names as models know them: the OpenAI API's rule for functions.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PYTHON = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_NOT_IN_A_HEADER = re.compile(r"[^\t\x20-\x7e]")
# The connection's own, which the client sets.
_HEADERS_REFUSED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "accept-encoding"}
)
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``address``: a URL, ``package.module:function``, or the name of a server. ``tool``: its name on an MCP server."""

    kind: str
    address: str
    tool: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValidationError, naming the four forms."""
        if not isinstance(text, str) or len(text) > _MAX_ENDPOINT or not text.isprintable():
            raise ValidationError(f"endpoint must be text of at most {_MAX_ENDPOINT} characters", param="endpoint")
        scheme, _, rest = text.partition(":")
        match scheme.lower():
            case "http" | "https":
                if "#" in text:
                    raise ValidationError("a tool's address has no fragment", param="endpoint")
                if any(place in text.partition("://")[2].split("/", 1)[0] for place in "{}"):
                    raise ValidationError("parameters fill the path of an endpoint, not its host", param="endpoint")
                return cls(HTTP, text)
            case "python" if _PYTHON.fullmatch(rest):
                return cls(PYTHON, rest)
            case "mcp":
                server, _, tool = rest.partition("#")
                if NAME.fullmatch(server):
                    return cls(MCP, server, tool)
            case "mcp+http" | "mcp+https":
                url, _, tool = text[len("mcp+") :].partition("#")
                return cls(REMOTE_MCP, url, tool)
        raise ValidationError(
            f"endpoint {text!r} is none of https://host/path, python:package.module:function, mcp:server#tool, "
            "mcp+https://host/path#tool",
            param="endpoint",
        )

    @property
    def is_http(self) -> bool:
        """Whether ``address`` is a URL."""
        return self.kind in (HTTP, REMOTE_MCP)

    @property
    def places(self) -> tuple[str, ...]:
        """Parameters that fill the address."""
        return tuple(_PLACE.findall(self.address)) if self.kind == HTTP else ()

    def without_query(self) -> str:
        """For logs and other people: without what may be secret in an address."""
        if not self.is_http:
            return str(self)
        parts = urlsplit(self.address)
        prefix, suffix = ("mcp+", f"#{self.tool}") if self.kind == REMOTE_MCP else ("", "")
        return f"{prefix}{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{suffix}"

    def __str__(self) -> str:
        match self.kind:
            case "http":
                return self.address
            case "python":
                return f"python:{self.address}"
            case "mcp":
                return f"mcp:{self.address}" + (f"#{self.tool}" if self.tool else "")
            case _:
                return f"mcp+{self.address}" + (f"#{self.tool}" if self.tool else "")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a tool's metadata say of calling it.

    ``headers`` may hold ``${NAME}`` for a variable that the operator lets go to that host; the value is never kept.
    ``is_idempotent``: a call may be made again when nobody knows whether it was carried out. ``cost`` of one call, in
    the operator's unit. ``timeout_s`` where the caller names none. ``is_offered``: chat models are told of it.
    """

    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_idempotent: bool = False
    cost: float = 0.0
    timeout_s: float | None = None
    is_offered: bool = True


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A registered tool. ``owner`` is the user whose it is; ``""`` is everybody. ``metadata`` as it was given."""

    name: str
    endpoint: str
    description: str = ""
    capabilities: tuple[str, ...] = ()
    input_schema: Mapping[str, Any] = field(default_factory=lambda: dict(ANY_OBJECT))
    output_schema: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    version: int = 1
    registered_at: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        place = Endpoint.parse(self.endpoint)
        if place.kind in (MCP, REMOTE_MCP) and not place.tool:
            raise ValidationError("the endpoint must name the server's tool, after a #", param="endpoint")
        _check_schema_shape("input_schema", self.input_schema)
        if self.output_schema is not None:
            _check_schema_shape("output_schema", self.output_schema)
        if not isinstance(self.description, str) or len(self.description) > MAX_METADATA_BYTES:
            raise ValidationError("description must be text, and not a book", param="metadata")
        if not all(isinstance(one, str) and one for one in self.capabilities):
            raise ValidationError("capabilities must be names", param="metadata")
        _check_json("metadata", self.metadata, MAX_METADATA_BYTES)
        options_of(place, self.metadata)  # says what is wrong with them now, and not at the first call

    @property
    def place(self) -> Endpoint:
        return Endpoint.parse(self.endpoint)

    @property
    def options(self) -> CallOptions:
        return options_of(self.place, self.metadata)

    def shown(self) -> dict[str, Any]:
        """The definition for who may call the tool and does not own it: where it is without a query, and its headers by
        name alone. Somebody may have written a secret down there."""
        metadata = dict(self.metadata)
        if "headers" in metadata:
            metadata["headers"] = dict.fromkeys(metadata["headers"], "***")
        return {**self.to_dict(), "endpoint": self.place.without_query(), "metadata": metadata}

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["capabilities"] = list(self.capabilities)
        return plain

    @classmethod
    def of_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValidationError for what `to_dict` did not write."""
        return cls(**{**plain, "capabilities": tuple(plain["capabilities"])})


def definition_of(
    tool_name: str,
    endpoint: str,
    input_schema: Mapping[str, Any] | None,
    output_schema: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    owner: str,
) -> ToolDefinition:
    """The definition that a registration asks for; ``description`` and ``capabilities`` stand in the metadata.

    Raises ValidationError.
    """
    given = {} if metadata is None else metadata
    if not isinstance(given, Mapping):
        raise ValidationError("metadata must be an object", param="metadata")
    capabilities = given.get("capabilities", ())
    if isinstance(capabilities, str) or not isinstance(capabilities, list | tuple):
        raise ValidationError("capabilities must be a list of names", param="metadata")
    return ToolDefinition(
        tool_name,
        endpoint,
        description=given.get("description", ""),
        capabilities=tuple(capabilities),
        input_schema=ANY_OBJECT if input_schema is None else input_schema,
        output_schema=output_schema,
        metadata={name: value for name, value in given.items() if name not in ("description", "capabilities")},
        owner=owner,
    )


def options_of(place: Endpoint, metadata: Mapping[str, Any]) -> CallOptions:
    """What *metadata* say of calling a tool at *place*. Raises ValidationError for what cannot be meant."""
    method = metadata.get("method", "POST")
    if method not in METHODS:
        raise ValidationError(f"metadata.method must be one of {', '.join(METHODS)}", param="metadata")
    headers = metadata.get("headers", {})
    if not isinstance(headers, Mapping):
        raise ValidationError("metadata.headers must be an object", param="metadata")
    if headers and not place.is_http:
        raise ValidationError("metadata.headers are for tools that are called by HTTP", param="metadata")
    for name, value in headers.items():
        _check_header(name, value)
    is_idempotent = metadata.get("idempotent", place.kind == HTTP and method in IDEMPOTENT_METHODS)
    is_offered = metadata.get("offered", True)
    for name, flag in (("idempotent", is_idempotent), ("offered", is_offered)):
        if not isinstance(flag, bool):
            raise ValidationError(f"metadata.{name} must be true or false", param="metadata")
    cost, timeout_s = metadata.get("cost", 0.0), metadata.get("timeout_seconds")
    if not _is_number(cost) or cost < 0:
        raise ValidationError("metadata.cost must be a number from 0 up", param="metadata")
    if timeout_s is not None and (not _is_number(timeout_s) or timeout_s <= 0):
        raise ValidationError("metadata.timeout_seconds must be a number above 0", param="metadata")
    return CallOptions(method, dict(headers), is_idempotent, float(cost), timeout_s, is_offered)


def check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValidationError("a tool's name is 1 to 64 of A-Z a-z 0-9 _ -", param="tool_name")


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _HEADERS_REFUSED:
        raise ValidationError(f"not a header that a tool can have: {name!r}", param="metadata")
    if not isinstance(value, str) or _NOT_IN_A_HEADER.search(value):
        # The value is not repeated: it may be a secret that somebody wrote down in full.
        raise ValidationError(f"the value of header {name} must be one line of ASCII", param="metadata")


def _check_schema_shape(name: str, schema: object) -> None:
    if not isinstance(schema, Mapping):
        raise ValidationError(f"{name} must be a JSON Schema object", param=name)
    _check_json(name, schema, MAX_SCHEMA_BYTES)


def _check_json(name: str, value: Any, max_bytes: int) -> None:
    try:
        size = len(json.dumps(value, allow_nan=False, default=_plain_mapping))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"{name} must be JSON: {error}", param=name) from error
    if size > max_bytes:
        raise ValidationError(f"{name} has {size} bytes of at most {max_bytes}", param=name)


def _plain_mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and value != float("inf")
