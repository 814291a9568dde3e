"""Which MCP servers there are: the operator's file, in the form that MCP clients share.

``{"mcpServers": {"files": {"command": "...", "args": [...], "env": {...}, "cwd": "..."},
"search": {"url": "https://...", "headers": {...}}}}``

Commands come from this file or from the program itself, never from a registration. ``${NAME}`` in ``env`` and
``headers`` stands for a variable of the environment; it is put in when a connection is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.core.errors import ConfigurationError

from .definition import NAME


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A program that is started and spoken to by its standard input and output."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server that speaks streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


McpServer = StdioServer | HttpServer


def read_servers(path: Path) -> dict[str, McpServer]:
    """Raises ConfigurationError, naming the file, the server and what is wrong."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"tool_use.mcp_servers_file: {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"tool_use.mcp_servers_file: {path} is not JSON: {error}") from error
    servers = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(servers, dict):
        raise ConfigurationError(f'tool_use.mcp_servers_file: {path} must hold {{"mcpServers": {{name: ...}}}}')
    return {name: _server(f"{path}: mcpServers.{name}", name, said) for name, said in servers.items()}


def _server(where: str, name: str, said: Any) -> McpServer:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: a server's name is 1 to 64 of A-Z a-z 0-9 _ -")
    if not isinstance(said, dict) or ("command" in said) == ("url" in said):
        raise ConfigurationError(f"{where} must be an object with either command or url")
    allowed = {"command", "args", "env", "cwd"} if "command" in said else {"url", "headers"}
    unknown = sorted(set(said) - allowed - {"type"})
    if unknown:
        raise ConfigurationError(f"{where}: no such key: {unknown[0]}; allowed: {', '.join(sorted(allowed))}")
    if "url" in said:
        return HttpServer(_text(where, "url", said["url"]), _texts_by_name(where, "headers", said.get("headers", {})))
    args, cwd = said.get("args", []), said.get("cwd")
    if not isinstance(args, list) or not all(isinstance(one, str) for one in args):
        raise ConfigurationError(f"{where}.args must be a list of texts")
    return StdioServer(
        _text(where, "command", said["command"]),
        tuple(args),
        _texts_by_name(where, "env", said.get("env", {})),
        None if cwd is None else _text(where, "cwd", cwd),
    )


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(f"{where}.{key} must be text and not empty")
    return value


def _texts_by_name(where: str, key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ConfigurationError(f"{where}.{key} must be an object of texts")
    return value
