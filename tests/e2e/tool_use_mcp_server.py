"""An MCP server with good tools and bad ones, as a program: ``stdio``, ``http PORT`` or ``http-json PORT``.

``silent`` in place of those reads and never says a word; ``half`` answers the first call with half a message and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("workshop")


class Weather(BaseModel):
    city: str
    degrees: float


@server.tool(description="Adds two numbers.", annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def weather(city: str) -> Weather:
    return Weather(city=city, degrees=21.5)


@server.tool(structured_output=False)
def echo(text: str) -> str:
    return text


@server.tool(structured_output=False)
def environment(name: str) -> str:
    value = os.environ.get(name, "")
    sys.stderr.write(f"somebody asks for {name}, which is {value}\n")
    sys.stderr.flush()
    return value


@server.tool(structured_output=False)
def process_id() -> str:
    return str(os.getpid())


@server.tool(structured_output=False)
def long_text(size: int) -> str:
    return "x" * size


@server.tool()
def refuse() -> str:
    raise ValueError("the shop is shut")


@server.tool(structured_output=False)
async def never() -> str:
    await asyncio.sleep(3600)
    return "at last"


@server.tool(structured_output=False)
def die() -> str:
    os._exit(7)


@server.tool(structured_output=False)
def die_once(marker: str) -> str:
    """Ends the process the first time; the second time the marker is there."""
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(7)
    return "alive"


def silent() -> None:
    for _ in sys.stdin:
        pass


def half() -> None:
    def say(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    for line in sys.stdin:
        asked = json.loads(line)
        match asked.get("method"):
            case "initialize":
                version = asked["params"]["protocolVersion"]
                about = {"protocolVersion": version, "capabilities": {"tools": {}}}
                say({"id": asked["id"], "result": {**about, "serverInfo": {"name": "half", "version": "1"}}})
            case "tools/call":
                answer = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": []}})
                sys.stdout.write(answer[: len(answer) // 2])
                sys.stdout.flush()
                return
            case method if "id" in asked:
                say({"id": asked["id"], "error": {"code": -32601, "message": f"no {method}"}})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stdio"]:
            server.run("stdio")
        case ["http", port]:
            server.run("streamable-http", port=int(port))
        case ["http-json", port]:
            server.run("streamable-http", port=int(port), json_response=True, stateless_http=True)
        case ["silent"]:
            silent()
        case ["half"]:
            half()
        case other:
            sys.exit(f"what is {other}?")
