"""The module as one of a platform: called through references, on several shards, by events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from actors.local import LocalRuntime
from actors.sharding import RULES, shard_of
from actors.system import Platform
from modules.core.errors import NotFound, ValidationError
from modules.multi_agent import Agent, MultiAgentModule

pytest.importorskip("openai", reason="models on a server need the extra local-llm")


class ModelServer(BaseHTTPRequestHandler):
    """Answers every completion with one word; who is told to wait is held until ``gate`` opens."""

    gate = threading.Event()

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "wait" in request["messages"][-1]["content"]:
            self.gate.wait(20)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        chunk = {"choices": [{"index": 0, "delta": {"content": "fine"}, "finish_reason": "stop"}]}
        try:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        except OSError:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Nothing: the test's output is not the place."""


@pytest.fixture
def model_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ModelServer)
    ModelServer.gate.clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    ModelServer.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@asynccontextmanager
async def platform(base: Path, server: str, *, shards: int = 2) -> AsyncIterator[Platform]:
    model = {"provider": "openai", "model": "m", "base_url": server}
    settings = {
        "modules": {
            "multi_agent": {"enabled": True, "shards": shards},
            "text_chat": {"enabled": True, "model": model},
        }
    }
    running = await Platform.start(settings, base=base, runtime=LocalRuntime(copies=True))
    try:
        yield running
    finally:
        await running.stop()


async def test_a_platform_converses_for_several_users_on_several_shards(tmp_path: Path, model_server: str) -> None:
    users = ["u0", "u1", "u2", "u3"]
    assert {shard_of(user, 2) for user in users} == {0, 1}
    async with platform(tmp_path, model_server) as running:
        agents = running.ref("multi_agent")
        await agents.ask("register_agent", "ada", "assistant", ["talk"])
        assert isinstance(await agents.ask("get_agent", "ada"), Agent)
        made = await asyncio.gather(
            *(agents.ask("start_conversation", "t", ["ada"], 3, user_id=user) for user in users)
        )
        for user, conversation in zip(users, made, strict=True):
            by_id_alone = await agents.ask("wait_for_conversation", conversation.id, 10.0)
            assert (by_id_alone.user_id, by_id_alone.status, by_id_alone.turns) == (user, "completed", 3)
            turns = await agents.ask("get_turns", conversation.id)
            assert [turn.content for turn in turns] == ["t", "fine", "fine", "fine"]
            assert turns[1].metadata["model"] == "m"
            followed = [turn async for turn in agents.stream("follow_conversation", conversation.id)]
            assert followed == turns
            with pytest.raises(NotFound):
                await agents.ask("get_conversation", conversation.id, "somebody else")
        result = await agents.ask("coordinate_task", "do it", ["talk"], user_id="u1")
        assert result.answer == "fine"
        answers = await agents.ask("send_to_agents", "hello", ["ada"], user_id="u2")
        assert answers.answers[0].content == "fine"
        assert (await agents.ask("erase_user", "u0")).conversations == 1


async def test_what_was_left_under_way_goes_on_on_the_shard_of_its_user(tmp_path: Path, model_server: str) -> None:
    async with platform(tmp_path, model_server, shards=1) as running:
        agents = running.ref("multi_agent")
        await agents.ask("register_agent", "ada", "assistant")
        made = [await agents.ask("start_conversation", "wait", ["ada"], 2, user_id=f"u{n}") for n in range(4)]
    ModelServer.gate.set()
    async with platform(tmp_path, model_server, shards=3) as running:
        agents = running.ref("multi_agent")
        # As the host of each shard does by itself now and then.
        counts = [await channel.call("resume_interrupted", ()) for channel in agents.channels]
        assert counts[0] == 4
        for conversation in made:
            ended = await agents.ask("wait_for_conversation", conversation.id, 10.0)
            assert (ended.status, ended.turns, ended.message_count) == ("completed", 2, 3)


async def test_events_ask_for_the_same_as_calls_and_tell_what_became_of_it(tmp_path: Path, model_server: str) -> None:
    async with platform(tmp_path, model_server) as running:
        agents = running.ref("multi_agent")
        await running.emit("agent.register", {"agent_id": "ada", "agent_type": "assistant", "user_id": "u"})
        await until(lambda: agents.ask("list_agents", "u"), 1)
        start = {"topic": "t", "agent_ids": ["ada"], "max_turns": 1, "user_id": "u", "idempotency_key": "k"}
        await running.emit("conversation.start", start)
        (conversation,) = await until(lambda: agents.ask("list_conversations", "u"), 1)
        await agents.ask("wait_for_conversation", conversation.id, 10.0)
        await running.emit("conversation.turn", {"conversation_id": conversation.id, "content": "by event"})
        turns = await until(lambda: agents.ask("get_turns", conversation.id), 3)
        assert turns[-1].content == "by event"


async def until(ask: Any, count: int) -> Any:
    async with asyncio.timeout(10):
        while len(found := await ask()) < count:
            await asyncio.sleep(0.02)
    return found


async def test_an_event_that_lacks_something_is_reported(tmp_path: Path, model_server: str) -> None:
    async with platform(tmp_path, model_server, shards=1) as running:
        await running.emit("agent.message", {"message": "hello"})
        letters = tmp_path / "trace_logger/dead_letters.jsonl"
        async with asyncio.timeout(10):
            while not letters.exists():
                await asyncio.sleep(0.02)
        assert "agent.message lacks agent_ids" in json.loads(letters.read_text())["error"]


async def test_wrong_arguments_arrive_as_the_callers_mistake(tmp_path: Path, model_server: str) -> None:
    async with platform(tmp_path, model_server) as running:
        agents = running.ref("multi_agent")
        await agents.ask("register_agent", "ada", user_id="u")
        with pytest.raises(ValidationError, match="termination"):
            await agents.ask("start_conversation", "t", ["ada"], user_id="u", termination={"moon": 1})


def test_every_function_has_a_rule_and_every_rule_a_function() -> None:
    public = {name for name in vars(MultiAgentModule) if not name.startswith("_")}
    functions = public - {"info", "initialize", "close", "health_check"}
    assert set(RULES["multi_agent"].methods) == functions
