"""Traces across hosts, events and streams, as a running platform keeps them; in one process, with values copied."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.context import ModuleContext
from modules.core.errors import NotFound
from modules.core.tracing import SERVER, SpanContext, go_on
from modules.core.types import ModuleInfo
from modules.trace_logger.trace_tree import SpanNode, Trace, walk
from tests.runtime_behaviour import until

CHAT = {"enabled": True, "model": {"provider": "extractive"}}


class Asker:
    """A third party's module that asks another one when it hears of something."""

    info = ModuleInfo(name="asker", version="1")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        pass

    async def initialize(self, context: ModuleContext) -> None:
        self._context = context
        context.bus.on("thing.was.said")(self._ask)

    async def _ask(self, data: Mapping[str, Any]) -> None:
        memory = await self._context.get_module("memory")
        await memory.recall_memory(data["key"], user_id="ann")


@pytest.fixture
def asker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "askers-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: askers\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[modchat.modules]\nasker = {__name__}:Asker\n")
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    go_on(None)
    running: list[Platform] = []

    async def start(
        runtime: LocalRuntime | None = None, more: Mapping[str, Any] | None = None, **tracing: Any
    ) -> Platform:
        modules = {
            "text_chat": {**CHAT, "shards": 2},
            "memory": {"enabled": True, "shards": 2},
            "trace_logger": {"enabled": True, **tracing},
            **(more or {}),
        }
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        running.append(
            await Platform.start({"modules": modules}, base=base, runtime=runtime or LocalRuntime(copies=True))
        )
        return running[-1]

    yield start
    for platform in running:
        await platform.stop()


async def trace_with(platform: Platform, trace_id: str, *names: str) -> Trace:
    """The trace, once spans of these names are there."""
    found: list[Trace] = []

    async def is_there() -> bool:
        try:
            found.append(await platform.ref("trace_logger").ask("get_trace", trace_id))
        except NotFound:
            return False
        return set(names) <= {span.name for span in found[-1].spans}

    await until(is_there, limit_s=10)
    return found[-1]


def shape(nodes: tuple[SpanNode, ...]) -> list[Any]:
    return [[node.span.name, shape(node.children)] if node.children else node.span.name for node in nodes]


async def answer(platform: Platform, question: str = "What is a platypus?") -> str:
    """One chat request of a client; the trace's id."""
    chat = platform.ref("text_chat")
    session = await chat.ask("create_session", "ann")
    with platform.tracer.span("POST /chat", {"http.request.method": "POST"}, kind=SERVER) as span:
        async with aclosing(chat.stream("stream_response", session.id, question, user_id="ann")) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                pass
    trace_id: str = span.context.trace_id  # type: ignore[union-attr]
    return trace_id


async def test_one_chat_request_is_one_tree_across_the_client_the_modules_and_the_model(start: Start) -> None:
    platform = await start()
    trace = await trace_with(platform, await answer(platform), "POST /chat", "memory.get_context_window")
    assert shape(trace.roots) == [
        [
            "POST /chat",
            [
                [
                    "text_chat.stream_response",
                    [
                        [
                            "turn",
                            [
                                "store message",
                                ["build prompt", [["ask memory", ["memory.get_context_window"]]]],
                                "chat extractive",
                                "store message",
                            ],
                        ]
                    ],
                ]
            ],
        ]
    ]
    model = next(node.span for _, node in walk(trace.roots) if node.span.name == "chat extractive")
    assert model.kind == "client"
    assert model.attributes["gen_ai.operation.name"] == "chat"
    assert model.attributes["gen_ai.request.model"] == model.attributes["gen_ai.provider.name"] == "extractive"
    assert model.attributes["gen_ai.usage.input_tokens"] > 0
    assert model.attributes["gen_ai.usage.output_tokens"] > 0
    assert model.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert {span.source.partition("-")[0] for span in trace.spans} == {"client", "text_chat", "memory"}
    assert {event.event for event in trace.events} >= {"chat.message.received", "chat.response.ready"}
    assert len(trace.as_text().splitlines()) == len(trace.spans)


async def test_nothing_that_was_said_and_nobodys_name_is_in_the_traces(start: Start) -> None:
    platform = await start()
    trace_id = await answer(platform, "What is my zebrafish called?")
    await trace_with(platform, trace_id, "POST /chat")
    kept = b"".join(path.read_bytes() for path in (platform.base / "trace_logger").rglob("*") if path.is_file())
    assert trace_id.encode() in kept
    assert b"zebrafish" not in kept
    assert b'"ann"' not in kept


@pytest.mark.usefixtures("asker")
async def test_what_is_done_because_of_an_event_belongs_to_the_trace_of_who_emitted_it(start: Start) -> None:
    platform = await start(more={"asker": {"enabled": True}})
    with platform.tracer.span("saying") as span:
        await platform.emit("thing.was.said", {"key": "k"})
    trace = await trace_with(platform, span.context.trace_id, "memory.recall_memory", "saying")
    assert shape(trace.roots) == [["saying", ["memory.recall_memory"]]]


async def test_calls_that_travel_together_stay_in_their_own_traces(start: Start) -> None:
    platform = await start()
    memory = platform.ref("memory")

    async def one(number: int) -> str:
        with platform.tracer.span(f"caller {number}") as span:
            await memory.ask("recall_memory", "k", user_id=f"user-{number}")
        trace_id: str = span.context.trace_id  # type: ignore[union-attr]
        return trace_id

    ids = await asyncio.gather(*(one(number) for number in range(40)))
    assert len(set(ids)) == 40
    for number, trace_id in enumerate(ids):
        trace = await trace_with(platform, trace_id, f"caller {number}", "memory.recall_memory")
        assert shape(trace.roots) == [[f"caller {number}", ["memory.recall_memory"]]]


async def test_a_call_without_a_trace_begins_one_of_its_own(start: Start) -> None:
    platform = await start()
    with platform.tracer.span("somebody else"):
        await platform.ref("memory").ask("recall_memory", "k", user_id="ann")
    go_on(None)
    await platform.ref("memory").ask("recall_memory", "alone", user_id="ann")

    async def is_listed() -> bool:
        listed = await platform.ref("trace_logger").ask("list_traces", operation="memory.recall_memory")
        return len(listed.traces) == 1

    await until(is_listed, limit_s=10)


async def test_a_stream_that_its_reader_leaves_is_measured_until_then_and_has_not_failed(start: Start) -> None:
    platform = await start()
    chat = platform.ref("text_chat")
    session = await chat.ask("create_session", "ann")
    with platform.tracer.span("reading") as span:
        stream = chat.stream("stream_response", session.id, "Tell me", user_id="ann")
        await anext(stream)
        await stream.aclose()
    trace = await trace_with(platform, span.context.trace_id, "reading", "text_chat.stream_response")
    assert [one.error for one in trace.spans] == [None] * len(trace.spans)


async def test_what_a_module_raises_shows_in_its_span(start: Start) -> None:
    platform = await start()
    with pytest.raises(NotFound), platform.tracer.span("asking") as span:
        await platform.ref("text_chat").ask("get_session", "no-such-session", "ann")
    trace = await trace_with(platform, span.context.trace_id, "asking", "text_chat.get_session")
    assert [one.attributes["error.type"] for one in trace.spans] == ["not_found", "not_found"]
    assert [one.error for one in trace.spans] == [None, None], "the caller's mistake is no failure"


async def test_where_no_trace_is_kept_no_host_keeps_any(start: Start) -> None:
    platform = await start(sampling_rate=0.0)
    await answer(platform)
    await asyncio.sleep(0.5)
    assert (await platform.ref("trace_logger").ask("counts")).recorded == 0


async def test_a_decision_that_came_with_a_request_is_followed_by_all(start: Start) -> None:
    platform = await start(sampling_rate=0.0)
    with platform.tracer.span("asked for", parent=SpanContext("a" * 32, "b" * 16, True)):
        await platform.ref("memory").ask("recall_memory", "k", user_id="ann")
    trace = await trace_with(platform, "a" * 32, "asked for", "memory.recall_memory")
    assert trace.roots[0].is_orphan


async def test_without_trace_logger_nothing_is_noted_anywhere(tmp_path: Path) -> None:
    platform = await Platform.start({"modules": {"memory": {"enabled": True}}}, base=tmp_path, runtime=LocalRuntime())
    assert not platform.tracer.is_on
    with platform.tracer.span("x"):
        await platform.ref("memory").ask("recall_memory", "k")
    assert (await platform.health()).parts[0].report.records_dropped == 0  # type: ignore[union-attr]
    await platform.stop()


async def test_records_for_a_trace_logger_that_is_gone_are_counted_and_nobody_waits(start: Start) -> None:
    runtime = LocalRuntime(copies=True)
    platform = await start(runtime)
    await runtime.end("trace_logger", 0)
    await platform.ref("memory").ask("recall_memory", "k", user_id="ann")

    async def is_counted() -> bool:
        parts = (await platform.health()).parts
        return sum(part.report.records_dropped for part in parts if part.report is not None) == 2

    await until(is_counted, limit_s=10)


async def test_what_was_noted_right_before_the_end_is_kept(start: Start, tmp_path: Path) -> None:
    platform = await start()
    await platform.ref("memory").ask("recall_memory", "k", user_id="ann")
    with platform.tracer.span("the last thing"):
        pass
    await platform.stop()
    kept = b"".join(path.read_bytes() for path in (platform.base / "trace_logger/traces").rglob("*.jsonl"))
    assert b'"memory.recall_memory"' in kept
    assert b'"the last thing"' in kept


async def test_another_client_goes_on_with_traces_as_the_platform_keeps_them(start: Start) -> None:
    runtime = LocalRuntime(copies=True)
    platform = await start(runtime)
    other = await Platform.connect(platform.base, runtime=runtime)
    with other.tracer.span("from elsewhere") as span:
        await other.ref("memory").ask("recall_memory", "k", user_id="ann")
    await other.close()
    trace = await trace_with(platform, span.context.trace_id, "from elsewhere", "memory.recall_memory")
    assert len(trace.spans) == 2


async def test_an_audit_event_of_any_module_becomes_an_entry(start: Start) -> None:
    platform = await start()
    await platform.emit("audit.log", {"action": "a.b", "user_id": "ann", "resource": "r", "details": {"n": 1}})

    async def is_recorded() -> bool:
        return len(await platform.ref("trace_logger").ask("list_audit_entries", user_id="ann")) == 1

    await until(is_recorded, limit_s=10)


async def test_a_users_traces_are_erased_over_the_whole_platform(start: Start) -> None:
    platform = await start()
    logger = platform.ref("trace_logger")
    trace_id = await answer(platform)
    await trace_with(platform, trace_id, "POST /chat", "memory.get_context_window")
    exported = await logger.ask("export_user", "ann")
    json.dumps(exported)
    assert {record["trace_id"] for record in exported["records"]} >= {trace_id}
    erased = await logger.ask("erase_user", "ann")
    assert erased.records > 5
    with pytest.raises(NotFound):
        await logger.ask("get_trace", trace_id)
    assert (await logger.ask("export_user", "ann"))["records"] == []


async def test_the_audit_trail_refuses_a_second_shard(start: Start) -> None:
    with pytest.raises(Exception, match=r"trace_logger\.shards must be 1"):
        await start(shards=2)
