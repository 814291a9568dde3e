from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import ConfigurationError, ValidationError
from modules.tool_use import errors
from modules.tool_use.definition import Endpoint, ToolDefinition, definition_of
from modules.tool_use.header_variables import HeaderVariables, with_variables
from modules.tool_use.imports import definitions_of
from modules.tool_use.mcp_servers import HttpServer, StdioServer, read_servers
from modules.tool_use.settings import ToolUseSettings


@pytest.mark.parametrize(
    ("text", "kind", "address", "tool"),
    [
        ("https://api.example.com/v1/{city}?x=1", "http", "https://api.example.com/v1/{city}?x=1", ""),
        ("HTTP://example.com", "http", "HTTP://example.com", ""),
        ("python:shop.prices:quote", "python", "shop.prices:quote", ""),
        ("mcp:files#read", "mcp", "files", "read"),
        ("mcp:files", "mcp", "files", ""),
        ("mcp+https://h/mcp#a/b", "remote_mcp", "https://h/mcp", "a/b"),
    ],
)
def test_an_endpoint_is_one_of_four(text: str, kind: str, address: str, tool: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.kind, endpoint.address, endpoint.tool) == (kind, address, tool)
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://x",
        "https://{host}/",
        "https://x{y}.com/",
        "https://h/#part",
        "python:os",
        "python:os:system()",
        "python:../x:y",
        "mcp:",
        "mcp:a b#c",
        "mcp+ftp://h#t",
        "https://h/\n",
        "x" * 3000,
        "stdio:rm -rf /",
    ],
)
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        definition_of("tool", text, None, None, None, "")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_name": "a b"}, "tool_name"),
        ({"tool_name": ""}, "tool_name"),
        ({"tool_name": "x" * 65}, "tool_name"),
        ({"tool_name": "../../etc"}, "tool_name"),
        ({"tool_name": 7}, "tool_name"),
        ({"endpoint": "mcp:server"}, "endpoint"),
        ({"input_schema": []}, "input_schema"),
        ({"input_schema": {"x": "y" * 70_000}}, "input_schema"),
        ({"input_schema": {"x": float("nan")}}, "input_schema"),
        ({"input_schema": {"x": object()}}, "input_schema"),
        ({"output_schema": "string"}, "output_schema"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"description": 7}}, "metadata"),
        ({"metadata": {"capabilities": "weather"}}, "metadata"),
        ({"metadata": {"capabilities": [1]}}, "metadata"),
        ({"metadata": {"method": "TRACE"}}, "metadata"),
        ({"metadata": {"headers": ["X"]}}, "metadata"),
        ({"metadata": {"headers": {"X": "a\r\nEvil: 1"}}}, "metadata"),
        ({"metadata": {"headers": {"X": 1}}}, "metadata"),
        ({"metadata": {"headers": {"Host": "other.example.com"}}}, "metadata"),
        ({"metadata": {"headers": {"bad name": "x"}}}, "metadata"),
        ({"metadata": {"idempotent": "yes"}}, "metadata"),
        ({"metadata": {"offered": 1}}, "metadata"),
        ({"metadata": {"cost": -1}}, "metadata"),
        ({"metadata": {"cost": True}}, "metadata"),
        ({"metadata": {"timeout_seconds": 0}}, "metadata"),
        ({"endpoint": "python:a:b", "metadata": {"headers": {"X": "y"}}}, "metadata"),
    ],
)
def test_a_definition_that_cannot_be_meant_cannot_be_built(change: dict[str, Any], param: str) -> None:
    given: dict[str, Any] = {"tool_name": "tool", "endpoint": "https://example.com/", "input_schema": None}
    given |= {"output_schema": None, "metadata": None, "owner": "", **change}
    with pytest.raises(ValidationError) as caught:
        definition_of(**given)
    assert caught.value.param == param


def test_a_definition_comes_back_as_it_was() -> None:
    about = {"description": "d", "capabilities": ["weather"], "method": "GET", "cost": 0.5, "own": {"note": [1]}}
    tool = definition_of("tool", "https://example.com/", {"type": "object"}, {"type": "array"}, about, "ann")
    assert ToolDefinition.of_dict(json.loads(json.dumps(tool.to_dict()))) == tool
    assert tool.metadata == {"method": "GET", "cost": 0.5, "own": {"note": [1]}}
    assert (tool.options.cost, tool.options.is_idempotent, tool.options.is_offered) == (0.5, True, True)


def test_a_header_that_was_written_down_in_full_is_not_repeated_by_an_error() -> None:
    with pytest.raises(ValidationError) as caught:
        definition_of("t", "https://x.com/", None, None, {"headers": {"Authorization": "Bearer s3cret\n"}}, "")
    assert "s3cret" not in str(caught.value)


def test_errors_cross_processes_with_all_they_carry() -> None:
    carried = [
        errors.ToolTimedOut("late", was_sent=False),
        errors.CircuitOpen("open", retry_after_s=3.0),
        errors.ToolBusy("busy", retry_after_s=2.0, was_sent=True),
        errors.ToolFailed("no", status=404),
        errors.ParametersInvalid("bad", problems=("a", "b")),
        errors.AddressRefused("no"),
    ]
    for error in carried:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


# -- secrets in headers ------------------------------------------------------------------------------------------------


def test_a_variable_goes_to_its_domain_and_below() -> None:
    variables = HeaderVariables.read(["KEY@example.com", "KEY@other.org"], {"KEY": "value"})
    headers = {"Authorization": "Bearer ${KEY}"}
    for host in ("example.com", "api.example.com", "other.org"):
        assert variables.filled(headers, host) == {"Authorization": "Bearer value"}
    for host in ("evil.com", "notexample.com", "example.com.evil.com"):
        with pytest.raises(ValidationError, match="may not go to"):
            variables.filled(headers, host)


@pytest.mark.parametrize("text", ["${}", "${A B}", "${KEY:-default}", "${PATH}"])
def test_a_reference_to_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        HeaderVariables.read(["KEY@example.com"], dict(os.environ)).check({"X": text}, "example.com")


def test_a_value_that_would_make_two_headers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\$\{KEY\}") as caught:
        with_variables("${KEY}", {"KEY": "a\r\nEvil: 1"})
    assert "Evil" not in str(caught.value)


def test_variables_never_show() -> None:
    assert "value" not in repr(HeaderVariables.read(["KEY@example.com"], {"KEY": "value"}))


@pytest.mark.parametrize("pair", ["KEY", "KEY@", "@example.com", "K EY@example.com", "KEY@http://example.com"])
def test_what_is_no_pair_of_variable_and_domain_is_refused(pair: str) -> None:
    with pytest.raises(ConfigurationError, match="NAME@domain"):
        HeaderVariables.read([pair], {})


# -- settings, servers -------------------------------------------------------------------------------------------------


def test_settings_are_read_from_where_they_stand() -> None:
    settings = ToolUseSettings.read(
        {"timeouts": {"call_seconds": 3}, "limits": {"max_cost_per_day": 0}, "allowed_domains": ["a.com"]}
    )
    assert (settings.call_s, settings.max_cost_per_day, settings.allowed_domains) == (3, 0, ("a.com",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": 2},
        {"timeouts": {"call_seconds": 0}},
        {"retries": {"max_attempts": "3"}},
        {"limits": {"max_cost_per_day": -1}},
        {"allowed_ports": [0]},
        {"allowed_ports": [True]},
        {"python_tools": [""]},
        {"internal_hosts": ["nowhere"]},
        {"mcp_servers_file": ""},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="tool_use"):
        ToolUseSettings.read(wrong)


def test_servers_are_read_from_the_file_that_clients_share(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    stdio = {"type": "stdio", "command": "serve", "args": ["-x"], "env": {"KEY": "${KEY}"}, "cwd": "/srv"}
    file.write_text(json.dumps({"mcpServers": {"a": stdio, "b": {"url": "https://h/mcp", "headers": {"X": "y"}}}}))
    assert read_servers(file) == {
        "a": StdioServer("serve", ("-x",), {"KEY": "${KEY}"}, "/srv"),
        "b": HttpServer("https://h/mcp", {"X": "y"}),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "mcpServers"),
        ('{"mcpServers": {"a b": {"command": "x"}}}', "name"),
        ('{"mcpServers": {"a": {}}}', "either command or url"),
        ('{"mcpServers": {"a": {"command": "x", "url": "y"}}}', "either command or url"),
        ('{"mcpServers": {"a": {"command": ""}}}', "command must be text"),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "list of texts"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"K": 1}}}}', "object of texts"),
        ('{"mcpServers": {"a": {"command": "x", "shell": true}}}', "no such key: shell"),
    ],
)
def test_a_file_of_servers_that_is_wrong_says_where(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        read_servers(file)


def test_a_file_of_servers_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_servers(tmp_path / "none.json")
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


class Listed:
    def __init__(self, name: str, schema: Any = None, description: str = "") -> None:
        self.name = name
        self.description = description
        self.title = None
        self.input_schema = schema or {"type": "object"}
        self.output_schema = None
        self.annotations = None


def test_names_of_a_server_become_names_that_models_know() -> None:
    listed = [Listed("read.file"), Listed("read file"), Listed("x" * 90), Listed("bad", {"x": "y" * 70_000})]
    found = definitions_of(Endpoint.parse("mcp:fs"), listed, prefix="fs_", metadata={"cost": 2}, owner="")
    assert [tool.name for tool in found.tools] == ["fs_read_file", "fs_" + "x" * 61]
    assert found.tools[0].endpoint == "mcp:fs#read.file"
    assert found.tools[0].options.cost == 2
    assert set(found.refused) == {"read file", "bad"}
