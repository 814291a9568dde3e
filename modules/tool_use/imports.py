"""From what an MCP server lists to definitions. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import ValidationError

from .definition import MCP, Endpoint, ToolDefinition, definition_of

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
LISTED = "mcp_tool"  # in the metadata of what was imported: its name on the server
_LONGEST_DESCRIPTION = 4000


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing comes to. ``refused``: tool of the server -> why it cannot be had."""

    tools: tuple[ToolDefinition, ...]
    refused: Mapping[str, str]


def definitions_of(
    server: Endpoint, listed: list[Any], *, prefix: str, metadata: Mapping[str, Any], owner: str
) -> Listed:
    """A definition for each tool, named ``<prefix><tool>`` in the characters that names may have.

    A hint that a tool may be called twice is the server's word, and is taken: it decides no more than a retry.
    """
    tools: dict[str, ToolDefinition] = {}
    refused: dict[str, str] = {}
    for one in listed:
        name = _NOT_IN_A_NAME.sub("_", prefix + one.name)[:_LONGEST_NAME]
        hints = one.annotations
        is_idempotent = hints is not None and bool(hints.idempotent_hint or hints.read_only_hint)
        given = {
            "idempotent": is_idempotent,
            **metadata,
            "description": (one.description or one.title or "")[:_LONGEST_DESCRIPTION],
            LISTED: one.name,
        }
        if name in tools:
            refused[one.name] = f"another tool of the server is named {name} too"
            continue
        try:
            endpoint = str(Endpoint(server.kind, server.address, one.name))
            tools[name] = definition_of(name, endpoint, one.input_schema, one.output_schema, given, owner)
        except ValidationError as error:
            refused[one.name] = error.message
    return Listed(tuple(tools.values()), refused)


def was_listed(tool: ToolDefinition) -> bool:
    """Whether *tool* is there because a server that the operator named has listed it."""
    return tool.place.kind == MCP and LISTED in tool.metadata
