from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.errors import ConfigurationError, Conflict, NotFound, RateLimited, Unavailable, ValidationError
from modules.core.tracing import Tracer
from modules.tool_use import (
    CircuitOpen,
    ParametersInvalid,
    ToolAnswerInvalid,
    ToolDefinition,
    ToolFailed,
    ToolTimedOut,
    ToolUnavailable,
)
from tests.tool_use_parts import SECRET, Heard, LoopbackServer, json_reply, reply, running

NUMBER = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}


def double(n: float) -> float:
    return n * 2


async def later(n: float) -> float:
    await asyncio.sleep(n)
    return n


# -- registering, finding ----------------------------------------------------------------------------------------------


async def test_a_tool_is_found_by_what_it_can_do_and_survives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as module:
        about = {"description": "Tells the weather", "capabilities": ["weather", "travel"]}
        await module.register_tool("weather", "https://weather.example.com/", NUMBER, metadata=about)
        await module.register_tool("clock", "https://clock.example.com/")
    async with running(tmp_path) as module:
        assert [tool.name for tool in await module.discover_tools()] == ["clock", "weather"]
        (found,) = await module.discover_tools("travel")
        assert (found.description, found.input_schema, found.version) == ("Tells the weather", NUMBER, 1)
        assert await module.discover_tools("cooking") == []


async def test_registering_the_same_again_changes_nothing_and_another_one_replaces_it(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    async with running(tmp_path, heard=heard) as module:
        first = await module.register_tool("tool", "https://a.example.com/")
        assert await module.register_tool("tool", "https://a.example.com/") == first
        second = await module.register_tool("tool", "https://b.example.com/")
        assert (second.version, second.endpoint) == (2, "https://b.example.com/")
    assert [data["version"] for data in heard.of("tool.registered")] == [1, 2]


async def test_a_users_tool_is_nobody_elses_and_hides_everybodys_of_its_name(tmp_path: Path) -> None:
    async with running(tmp_path) as module:
        await module.register_tool("search", "https://all.example.com/")
        await module.register_tool("search", "https://ann.example.com/", user_id="ann")
        await module.register_tool("notes", "https://ann.example.com/notes", user_id="ann")
        assert (await module.get_tool("search", user_id="ann")).endpoint == "https://ann.example.com/"
        assert (await module.get_tool("search", user_id="bob")).endpoint == "https://all.example.com/"
        assert [tool.name for tool in await module.discover_tools(user_id="bob")] == ["search"]
        for call in (module.get_tool, module.execute_tool, module.validate_parameters):
            with pytest.raises(NotFound):
                await call("notes", user_id="bob")
        assert not await module.unregister_tool("notes", user_id="bob")
        assert await module.unregister_tool("notes", user_id="ann")
        assert await module.unregister_tool("search", user_id="ann")
        assert (await module.get_tool("search", user_id="ann")).endpoint == "https://all.example.com/"


async def test_a_user_has_so_many_tools_and_no_more(tmp_path: Path) -> None:
    async with running(tmp_path, {"limits": {"max_tools_per_user": 2}}) as module:
        for name in ("a", "b", "a"):
            await module.register_tool(name, "https://a.example.com/", user_id="ann")
        with pytest.raises(Conflict, match="as many as allowed"):
            await module.register_tool("c", "https://a.example.com/", user_id="ann")
        await module.register_tool("c", "https://a.example.com/", user_id="bob")


async def test_what_belongs_to_a_user_is_exported_and_erased_to_the_last_byte(tmp_path: Path) -> None:
    async with running(tmp_path) as module:
        for user in ("ann", "../bob", ""):
            about = {"description": f"of {user or 'all'} {SECRET}"}
            await module.register_tool("tool", "https://a.example.com/", metadata=about, user_id=user)
            await module.create_tool_chain(["tool"], chain_id="chain", user_id=user)
        (broken,) = (tmp_path / "tool_use/tools/ann").glob("*.json")
        broken.with_name("torn.json").write_text(f'{{"{SECRET}')
        exported = await module.export_user("ann")
        assert [tool["description"] for tool in exported["tools"]] == [f"of ann {SECRET}"]
        assert [chain["name"] for chain in exported["chains"]] == ["chain"]
        for user in ("ann", "../bob"):
            erased = await module.erase_user(user)
            assert (erased.tools, erased.chains) == (2 if user == "ann" else 1, 1)
        assert await module.export_user("ann") == {"user_id": "ann", "tools": [], "chains": []}
        with pytest.raises(ValidationError):
            await module.erase_user("")
        assert [tool.owner for tool in await module.discover_tools(user_id="ann")] == [""]
    left = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("of ann" in text or "bob" in text or f'{{"{SECRET}' in text for text in left)


async def test_a_definition_that_cannot_be_read_is_left_out_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as module:
        await module.register_tool("good", "https://a.example.com/")
    torn = tmp_path / "tool_use/tools/%/torn.json"
    torn.write_text("{")
    async with running(tmp_path) as module:
        assert [tool.name for tool in await module.discover_tools()] == ["good"]
    assert "torn.json is left out" in caplog.text
    assert torn.read_text() == "{"


# -- functions ---------------------------------------------------------------------------------------------------------


async def test_only_listed_functions_are_imported(tmp_path: Path) -> None:
    async with running(tmp_path, {"python_tools": ["math:hypot"]}) as module:
        for endpoint in ("python:os:system", "python:math:sqrt", "python:math:hypot.x", "python:subprocess:run"):
            with pytest.raises(ValidationError, match=r"not in tool_use\.python_tools"):
                await module.register_tool("tool", endpoint)
        await module.register_tool("hypot", "python:math:hypot")


async def test_a_tool_whose_function_was_taken_off_the_list_is_not_called(tmp_path: Path) -> None:
    async with running(tmp_path, {"python_tools": ["textwrap:shorten"]}) as module:
        await module.register_tool("shorten", "python:textwrap:shorten")
        assert (await module.execute_tool("shorten", {"text": "a  b", "width": 5})).output == "a b"
    async with running(tmp_path) as module:
        with pytest.raises(ValidationError, match=r"not in tool_use\.python_tools"):
            await module.execute_tool("shorten", {"text": "a", "width": 5})


async def test_listed_functions_that_are_not_there_are_the_operators_mistake(tmp_path: Path) -> None:
    async with running(tmp_path, {"python_tools": ["no_such_package:f", "math:no_such", "math:pi"]}) as module:
        for name, endpoint in (("a", "no_such_package:f"), ("b", "math:no_such"), ("c", "math:pi")):
            await module.register_tool(name, f"python:{endpoint}")
            with pytest.raises((ConfigurationError, NotFound)):
                await module.execute_tool(name)


async def test_functions_run_beside_the_loop_and_give_json(tmp_path: Path) -> None:
    here = threading.get_ident()

    def where() -> dict[str, Any]:
        return {"same": threading.get_ident() == here, "pair": (1, 2)}

    async with running(tmp_path) as module:
        module.add_function("test:where", where)
        module.add_function("test:later", later)
        module.add_function("test:object", lambda: object())
        module.add_function("test:nan", lambda: float("nan"))
        module.add_function("test:broken", lambda: 1 / 0)
        for name in ("where", "later", "object", "nan", "broken"):
            await module.register_tool(name, f"python:test:{name}")
        assert (await module.execute_tool("where")).output == {"same": False, "pair": [1, 2]}
        assert (await module.execute_tool("later", {"n": 0.01})).output == 0.01
        with pytest.raises(ToolAnswerInvalid):
            await module.execute_tool("object")
        with pytest.raises(ToolAnswerInvalid):
            await module.execute_tool("nan")
        with pytest.raises(ToolFailed, match="ZeroDivisionError"):
            await module.execute_tool("broken")
        with pytest.raises(ToolFailed, match="unexpected keyword"):
            await module.execute_tool("where", {"x": 1})


async def test_functions_that_do_not_return_use_up_their_threads_and_no_more(tmp_path: Path) -> None:
    go_on = threading.Event()
    async with running(tmp_path, {"circuit_breaker": {"failures": 100}, "retries": {"max_attempts": 1}}) as module:
        module.add_function("test:stuck", go_on.wait)
        await module.register_tool("stuck", "python:test:stuck")
        calls = [module.execute_tool("stuck", timeout=0.2) for _ in range(8)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, ToolTimedOut) for one in outcomes)
        with pytest.raises(ToolUnavailable, match="all 8 threads"):
            await module.execute_tool("stuck", timeout=0.2)
        go_on.set()
        await asyncio.sleep(0.1)
        assert (await module.execute_tool("stuck")).output is True


async def test_a_long_result_of_a_function_is_cut_and_marked(tmp_path: Path) -> None:
    async with running(tmp_path, {"limits": {"max_output_bytes": 10}}) as module:
        module.add_function("test:long", lambda: "é" * 20)
        await module.register_tool("long", "python:test:long")
        result = await module.execute_tool("long")
    assert (result.output, result.is_cut) == ("é" * 5, True)


# -- calling -----------------------------------------------------------------------------------------------------------


async def test_parameters_are_checked_before_anything_else(tmp_path: Path) -> None:
    async with running(tmp_path, {"limits": {"max_input_bytes": 100, "calls_per_minute": 1}}) as module:
        module.add_function("test:double", double)
        await module.register_tool("double", "python:test:double", NUMBER, {"type": "number"})
        for wrong in ({}, {"n": "1"}, [], "x", {"n": float("nan")}, {"n": 1, "pad": "x" * 200}, {"n": {1}}):
            with pytest.raises(ParametersInvalid) as caught:
                await module.execute_tool("double", wrong)  # type: ignore[arg-type]
            assert caught.value.problems == await module.validate_parameters("double", wrong)
        assert await module.validate_parameters("double", {"n": 2}) == ()
        assert (await module.execute_tool("double", {"n": 2})).output == 4
        with pytest.raises(RateLimited, match="in a minute"):
            await module.execute_tool("double", {"n": 2})


@pytest.mark.parametrize("timeout", [0, -1, True, "3", 4000, float("nan")])
async def test_a_time_that_is_none_is_refused(tmp_path: Path, timeout: Any) -> None:
    async with running(tmp_path) as module:
        await module.register_tool("tool", "https://a.example.com/")
        with pytest.raises(ValidationError, match="timeout"):
            await module.execute_tool("tool", timeout=timeout)


@pytest.mark.slow
async def test_a_tool_has_a_time_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path, {"timeouts": {"call_seconds": 0.1}}) as module:
        module.add_function("test:later", later)
        await module.register_tool("usual", "python:test:later")
        await module.register_tool("patient", "python:test:later", metadata={"timeout_seconds": 5})
        with pytest.raises(ToolTimedOut):
            await module.execute_tool("usual", {"n": 0.4})
        assert (await module.execute_tool("patient", {"n": 0.4})).output == 0.4
        with pytest.raises(ToolTimedOut):
            await module.execute_tool("patient", {"n": 0.4}, timeout=0.1)


async def test_a_tool_that_keeps_failing_is_left_alone_and_tried_again_after_a_while(tmp_path: Path) -> None:
    answers = [reply(503), reply(503), json_reply("well")]
    config = {"circuit_breaker": {"failures": 2, "reset_seconds": 0.3}, "retries": {"max_attempts": 1}}
    async with (
        LoopbackServer(lambda request: answers.pop(0)) as server,
        running(tmp_path, {**config, "internal_hosts": [server.where]}) as module,
    ):
        await module.register_tool("tool", f"http://{server.where}/")
        for _ in range(2):
            with pytest.raises(ToolUnavailable, match="503"):
                await module.execute_tool("tool")
        for _ in range(3):
            with pytest.raises(CircuitOpen):
                await module.execute_tool("tool")
        assert server.connections == 2
        (status,) = await module.tool_status()
        assert status.circuit == "open"
        await asyncio.sleep(0.35)
        assert (await module.execute_tool("tool")).output == "well"
        (status,) = await module.tool_status()
        assert status.circuit == "closed"


async def test_a_tool_that_says_no_is_not_taken_for_one_that_fails(tmp_path: Path) -> None:
    async with LoopbackServer(lambda request: reply(404)) as server:
        config = {"circuit_breaker": {"failures": 1}, "internal_hosts": [server.where]}
        async with running(tmp_path, config) as module:
            await module.register_tool("tool", f"http://{server.where}/")
            for _ in range(3):
                with pytest.raises(ToolFailed):
                    await module.execute_tool("tool")


@pytest.mark.slow
async def test_costs_are_counted_for_what_left_and_not_for_what_did_not(tmp_path: Path) -> None:
    async with LoopbackServer(lambda request: json_reply(1)) as server:
        where = server.where
        config = {"internal_hosts": [where], "limits": {"max_cost_per_day": 1.0}, "retries": {"max_attempts": 1}}
        async with running(tmp_path, config) as module:
            await module.register_tool("tool", f"http://{where}/", NUMBER, metadata={"cost": 0.4})
            with pytest.raises(ParametersInvalid):
                await module.execute_tool("tool")
            assert await module.cost_today() == 0
            assert (await module.execute_tool("tool", {"n": 1})).cost == 0.4
            await module.execute_tool("tool", {"n": 1})
            with pytest.raises(RateLimited, match="cost"):
                await module.execute_tool("tool", {"n": 1})
            assert await module.cost_today() == pytest.approx(0.8)
    async with running(tmp_path, {**config, "limits": {}}) as module:
        with pytest.raises(ToolUnavailable, match="no connection"):
            await module.execute_tool("tool", {"n": 1})
        assert await module.cost_today() == pytest.approx(0.8)


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_every_call_is_audited_by_the_trace_logger_or_told_as_an_event(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = []

    async def create_audit_entry(**entry: Any) -> None:
        entries.append(entry)

    for neighbours in ({}, {"trace_logger": SimpleNamespace(create_audit_entry=create_audit_entry)}):
        heard = Heard(tmp_path, **neighbours)
        async with running(tmp_path, heard=heard) as module:
            module.add_function("test:echo", lambda text: text)
            await module.register_tool("echo", "python:test:echo", {"properties": {"text": {"type": "string"}}})
            assert (
                await module.execute_tool("echo", {"text": SECRET}, user_id="ann", session_id="s1")
            ).output == SECRET
            with pytest.raises(ParametersInvalid):
                await module.execute_tool("echo", {"text": [SECRET]}, user_id="ann")
        told = entries or heard.of("audit.log")
        assert [(one["action"], one["user_id"], one["resource"]) for one in told] == [
            ("tool.execute", "ann", "tool:echo")
        ] * 2
        assert [one["details"]["ok"] for one in told] == [True, False]
        assert told[1]["details"]["error"] == "tool_parameters_invalid"
        assert told[0]["details"]["session_id"] == "s1"
        assert told[0]["idempotency_key"] != told[1]["idempotency_key"]
        assert SECRET not in repr(told) + repr(heard.events)


async def test_an_audit_trail_that_is_away_does_not_undo_a_call(tmp_path: Path) -> None:
    async def create_audit_entry(**entry: Any) -> None:
        raise Unavailable("restarting")

    heard = Heard(tmp_path, trace_logger=SimpleNamespace(create_audit_entry=create_audit_entry))
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:double", double)
        await module.register_tool("double", "python:test:double")
        assert (await module.execute_tool("double", {"n": 1})).output == 2
    assert len(heard.of("audit.log")) == 1


async def test_a_call_is_a_span_with_the_names_of_generative_ai(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    tracer = heard.context.tracer
    assert isinstance(tracer, Tracer)
    tracer.turn_on()
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:double", double)
        await module.register_tool("double", "python:test:double", NUMBER)
        await module.execute_tool("double", {"n": 1})
        with pytest.raises(ParametersInvalid):
            await module.execute_tool("double", {})
    done, refused = [span for span in tracer.drain(100) if span.name == "execute_tool double"]
    assert done.attributes["gen_ai.tool.name"] == "double"
    assert done.attributes["modchat.tool.attempts"] == 1
    assert refused.attributes["error.type"] == "tool_parameters_invalid"


async def test_tools_work_by_events_too(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:double", double)
        emit = heard.context.emit
        await emit("tool.register", {"tool_name": "double", "endpoint": "python:test:double", "input_schema": NUMBER})
        await emit("tool.execute", {"tool_name": "double", "parameters": {"n": 4}, "request_id": "r1"})
        await emit("tool.execute", {"tool_name": "double", "parameters": {}, "request_id": "r2"})
        await emit("tool.validate", {"tool_name": "double", "parameters": {"n": "x"}, "request_id": "r3"})
        await emit("tool.chain", {"tools": ["double", {"tool": "double", "input": {"n": "$previous"}}],
                                  "parameters": {"n": 1}})  # fmt: skip
        await emit("tool.execute", {"parameters": {}})
    result = heard.of("tool.result")[0]
    assert (result["request_id"], result["output"], result["tool_name"]) == ("r1", 8, "double")
    refused, invalid = heard.of("tool.error")
    assert (refused["request_id"], refused["error"]) == ("r2", "tool_parameters_invalid")
    assert invalid["problems"] == ['$.n: must satisfy type "number"']
    (complete,) = heard.of("tool.chain.complete")
    assert complete["ok"]
    assert heard.context.bus.failures == {"tool.execute": 1}, "the one that names no tool"


async def test_a_cancelled_call_is_told_too(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:later", later)
        await module.register_tool("later", "python:test:later")
        call = asyncio.create_task(module.execute_tool("later", {"n": 30}))
        await asyncio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    (told,) = heard.of("tool.error")
    assert told["error"] == "cancelled"


# -- chains, hosting ---------------------------------------------------------------------------------------------------


async def test_a_chain_is_kept_and_runs_by_its_id(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:double", double)
        await module.register_tool("double", "python:test:double", NUMBER)
        again = {"tool": "double", "input": {"n": "$previous"}}
        with pytest.raises(NotFound, match="no tool 'nope'"):
            await module.create_tool_chain(["double", "nope"])
        chain = await module.create_tool_chain(["double", again, again], user_id="ann")
    async with running(tmp_path, heard=heard) as module:
        module.add_function("test:double", double)
        result = await module.execute_chain(chain.id, {"n": 1}, user_id="ann")
        assert (result.ok, result.output) == (True, 8)
        assert [one.id for one in await module.list_chains(user_id="ann")] == [chain.id]
        with pytest.raises(NotFound):
            await module.execute_chain(chain.id, {"n": 1}, user_id="bob")
        assert not await module.delete_chain(chain.id, user_id="bob")
        assert await module.delete_chain(chain.id, user_id="ann")
        with pytest.raises(NotFound):
            await module.execute_chain(chain.id, {"n": 1}, user_id="ann")


async def test_parallel_steps_run_at_the_same_time(tmp_path: Path) -> None:
    async with running(tmp_path) as module:
        module.add_function("test:later", later)
        await module.register_tool("later", "python:test:later")
        await module.execute_tool("later", {"n": 0})
        chain = await module.create_tool_chain(["later"] * 5, "parallel", keep=False)
        began = time.monotonic()
        result = await module.execute_chain(chain, {"n": 0.4})
    assert result.ok
    assert time.monotonic() - began < 1.6


async def test_hosted_everything_crosses_between_processes(tmp_path: Path) -> None:
    settings = {"modules": {"tool_use": {"enabled": True, "python_tools": ["textwrap:shorten"]}}}
    platform = await Platform.start(settings, base=tmp_path, runtime=LocalRuntime(copies=True))
    try:
        tools = platform.ref("tool_use")
        tool = await tools.ask("register_tool", "shorten", "python:textwrap:shorten", user_id="ann")
        assert isinstance(tool, ToolDefinition)
        assert await tools.ask("discover_tools", user_id="ann") == [tool]
        parameters = {"text": "x  y", "width": 9}
        result = await tools.ask("execute_tool", "shorten", parameters, user_id="ann")
        assert result.output == "x y"
        chain = await tools.ask("create_tool_chain", ["shorten"], user_id="ann")
        assert (await tools.ask("execute_chain", chain.id, parameters, user_id="ann")).output == "x y"
        with pytest.raises(ParametersInvalid) as caught:
            await tools.ask("execute_tool", "shorten", [], user_id="ann")
        assert caught.value.problems
        for private in ("add_server", "add_function"):
            with pytest.raises(ValidationError, match="no public function"):
                await tools.ask(private, "x", None)
        assert (await tools.ask("erase_user", "ann")).tools == 1
        assert (await platform.health()).is_healthy
    finally:
        await platform.stop()


async def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package in ("httpx2", "modules.tool_use.guarded_transport"):
        monkeypatch.setitem(sys.modules, package, None)
    async with running(tmp_path) as module:
        with pytest.raises(ConfigurationError, match=r"modchat\[tools\]"):
            await module.register_tool("tool", "https://a.example.com/")
        assert await module.discover_tools() == []
