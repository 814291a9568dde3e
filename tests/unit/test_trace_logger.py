"""The module by itself, on a directory, with a clock that can be set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modules.core.bus import DEAD_LETTERS, MessageBus
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, NotFound, StorageError, ValidationError
from modules.core.loader import ModuleLoader
from modules.core.storage import FlatFileStorage
from modules.core.tracing import SpanContext, go_on
from modules.trace_logger import TraceLoggerModule, otlp
from modules.trace_logger.otlp import OtlpExport
from modules.trace_logger.records import StoredSpan
from modules.trace_logger.trace_files import ROOT
from tests.manual_clock import ManualClock


class World:
    """A module and what is around it."""

    def __init__(self, base: Path, **settings: Any) -> None:
        self.base = base
        # Ahead of the machine's, so that what has just been measured lies in the past.
        self.clock = ManualClock(datetime.now(UTC) + timedelta(minutes=1))
        self.storage = FlatFileStorage(base)
        self.context = ModuleContext(
            bus=MessageBus(dead_letters=self.storage),
            storage=self.storage,
            settings={"trace_logger": settings},
            clock=self.clock,
        ).named("trace_logger")
        self.module = TraceLoggerModule(clock=self.clock)
        self.emitted: list[tuple[str, dict[str, Any]]] = []

    async def start(self) -> World:
        await self.module.initialize(self.context)
        self.context.bus.on("*", envelope=True)(self._note)
        return self

    async def _note(self, envelope: Any) -> None:
        self.emitted.append((envelope.event, dict(envelope.data)))

    def told(self, event: str) -> list[dict[str, Any]]:
        return [data for name, data in self.emitted if name == event]

    def written(self) -> bytes:
        files = self.storage.files
        keys = files.list("trace_logger/")
        return b"".join(files.read(key) for key in keys if "audit/people/" not in key)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    go_on(None)
    world = await World(tmp_path).start()
    yield world
    await world.module.close()


async def test_a_trace_that_is_started_and_ended_is_found_with_its_parts_events_and_logs(world: World) -> None:
    started = await world.module.start_trace("nightly job", {"user_id": "ann", "rows": 3})
    parent = SpanContext.parse(started.traceparent)
    with world.context.tracer.span("step", parent=parent):
        await world.context.emit("job.step.done", {"n": 1, "text": "what ann wrote"})
        await world.module.log_event("info", "half done", {"count": 5, "prompt": "what ann wrote", "api_key": "k"})
    await world.module.end_trace(started.trace_id)
    trace = await world.module.get_trace(started.trace_id)
    (root,) = trace.roots
    assert (root.span.name, root.span.attributes["rows"]) == ("nightly job", 3)
    assert [child.span.name for child in root.children] == ["step"]
    assert [(event.event, event.about) for event in trace.events] == [("job.step.done", {"n": 1})]
    (logged,) = trace.logs
    assert logged.data == {"count": 5, "prompt": "[14 characters]", "api_key": "[redacted]"}
    assert b"what ann wrote" not in world.written()
    assert [one["operation"] for one in world.told("trace.span.created")] == ["nightly job"]
    assert [one["error"] for one in world.told("trace.span.completed")] == [None]
    json.dumps(trace.to_dict())


async def test_a_trace_can_be_started_and_ended_by_events(world: World) -> None:
    delivery = await world.context.bus.emit("trace.start", {"operation": "outside"})
    trace_id = delivery.envelope.trace_id
    await world.context.bus.emit("trace.end", {"trace_id": trace_id, "error": "timeout"})
    (root,) = (await world.module.get_trace(trace_id)).roots
    assert (root.span.name, root.span.error) == ("outside", "timeout")


async def test_what_is_not_open_cannot_be_ended_and_what_is_open_at_the_end_is_unfinished(tmp_path: Path) -> None:
    world = await World(tmp_path).start()
    with pytest.raises(NotFound):
        await world.module.end_trace("a" * 32)
    started = await world.module.start_trace("never ends")
    await world.module.close()
    again = await World(tmp_path).start()
    (root,) = (await again.module.get_trace(started.trace_id)).roots
    assert root.span.error == "unfinished"
    await again.module.close()


@pytest.mark.parametrize("operation", ["", "x" * 201, None])
async def test_a_trace_needs_the_name_of_what_it_measures(world: World, operation: Any) -> None:
    with pytest.raises(ValidationError, match="operation"):
        await world.module.start_trace(operation)


async def test_a_trace_that_is_not_there_is_not_found_and_what_is_no_id_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await world.module.get_trace("0" * 31 + "1")
    for wrong in ("", "x" * 32, "../../etc/passwd", "A" * 32):
        with pytest.raises(ValidationError):
            await world.module.get_trace(wrong)


async def test_a_trace_of_another_system_is_found_although_its_id_says_nothing_of_time(world: World) -> None:
    remote = SpanContext("ffffffff" + "0" * 23 + "1", "b" * 16, True)
    early = SpanContext("6fffffff" + "0" * 23 + "1", "b" * 16, True)
    for context in (remote, early):
        with world.context.tracer.span("x", parent=context):
            pass
        assert (await world.module.get_trace(context.trace_id)).roots[0].is_orphan


async def test_a_user_finds_traces_of_their_own_alone(world: World) -> None:
    for user in ("ann", "bob"):
        with world.context.tracer.span("request", {"user.id": user}):
            pass
    (of_ann,) = (await world.module.list_traces(user_id="ann")).traces
    assert (await world.module.get_trace(of_ann.trace_id, user_id="ann")).spans
    with pytest.raises(NotFound):
        await world.module.get_trace(of_ann.trace_id, user_id="bob")
    assert len((await world.module.list_traces()).traces) == 2


async def test_a_trace_of_two_users_shows_each_only_what_is_not_the_others(world: World) -> None:
    with world.context.tracer.span("together") as root:
        for user in ("ann", "bob"):
            with world.context.tracer.span(f"for {user}", {"user.id": user}):
                pass
    trace_id = root.context.trace_id  # type: ignore[union-attr]
    seen = {span.name for span in (await world.module.get_trace(trace_id, user_id="ann")).spans}
    assert seen == {"together", "for ann"}
    exported = await world.module.export_user("ann")
    assert {record["name"] for record in exported["records"]} == {"together", "for ann"}


async def test_traces_are_listed_newest_first_and_can_be_chosen(world: World) -> None:
    tracer = world.context.tracer
    for name in ("a", "b", "a"):
        with tracer.span(name), tracer.span("below"):
            pass
    with pytest.raises(KeyError), tracer.span("b"):
        raise KeyError
    listed = (await world.module.list_traces("1h")).traces
    assert [one.operation for one in listed] == ["b", "a", "b", "a"]
    assert [one.error for one in (await world.module.list_traces(only_failed=True)).traces] == ["KeyError"]
    assert len((await world.module.list_traces(operation="a", limit=1)).traces) == 1
    world.clock.moment += timedelta(days=2)
    assert (await world.module.list_traces("24h")).traces == ()


async def test_performance_is_measured_by_operation_over_compressed_files_too(world: World) -> None:
    for _ in range(9):
        with world.context.tracer.span("quick"):
            pass
    with pytest.raises(KeyError), world.context.tracer.span("quick"):
        raise KeyError
    await world.module.list_traces()
    world.clock.moment += timedelta(days=3)
    assert await world.module.tidy() == (1, 0)
    report = await world.module.analyze_performance("7d", "quick")
    (times,) = report.operations
    assert (times.calls, times.failed, times.error_rate) == (10, 1, 0.1)
    assert 0 <= times.p50_ms <= times.p99_ms <= times.max_ms
    assert (await world.module.analyze_performance("1h")).operations == ()


async def test_a_damaged_file_is_named_in_what_lacks_its_records(world: World) -> None:
    world.storage.files.write(f"{ROOT}/2024-01-01/day-000.jsonl.zst", b"damaged")
    with world.context.tracer.span("x"):
        pass
    assert (await world.module.analyze_performance(("2023-01-01", "2999-01-01"))).unreadable == (
        f"{ROOT}/2024-01-01/day-000.jsonl",
    )
    with pytest.raises(StorageError):
        await world.module.erase_user("ann")


async def test_traces_beyond_the_retention_go_and_audit_entries_stay(world: World) -> None:
    with world.context.tracer.span("x") as span:
        pass
    await world.module.create_audit_entry("a.b", "ann", "r")
    await world.module.counts()
    await world.module.list_traces()
    world.clock.moment += timedelta(days=40)
    assert await world.module.tidy() == (0, 1)
    with pytest.raises(NotFound):
        await world.module.get_trace(span.context.trace_id)  # type: ignore[union-attr]
    assert (await world.module.verify_audit()).entries == 1


async def test_none_is_kept_where_no_share_is(tmp_path: Path) -> None:
    world = await World(tmp_path, sampling_rate=0.0).start()
    with world.context.tracer.span("x"):
        await world.context.emit("a.b", {})
    await world.module.create_audit_entry("a.b", "ann", "r")
    assert (await world.module.list_traces()).traces == ()
    assert (await world.module.counts()).recorded == 0
    assert (await world.module.verify_audit()).entries == 1, "sampling is not for the audit trail"
    await world.module.close()


async def test_a_full_queue_drops_traces_and_counts_them_and_never_an_audit_entry(tmp_path: Path) -> None:
    world = await World(tmp_path, max_queued=5).start()
    entries = [asyncio.create_task(world.module.create_audit_entry("a.b", "ann", f"r{n}")) for n in range(50)]
    for number in range(100):
        await world.module.log_event("info", f"message {number}")
    await asyncio.gather(*entries)
    counts = await world.module.counts()
    assert counts.dropped >= 90
    assert (await world.module.verify_audit()).entries == 50
    await world.module.close()


async def test_a_disk_that_refuses_costs_traces_which_are_counted_and_tells_who_wants_an_entry(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise StorageError("no room", retryable=True)

    with monkeypatch.context() as patch:
        patch.setattr(world.storage.files, "append", refuse)
        await world.module.log_event("info", "lost")
        await world.module.list_traces()
        with pytest.raises(StorageError, match="no room"):
            await world.module.create_audit_entry("a.b", "ann", "r", idempotency_key="k")
    assert (await world.module.counts()).lost == 1
    assert "are lost: no room" in caplog.text
    await world.module.create_audit_entry("a.b", "ann", "r", idempotency_key="k")
    report = await world.module.verify_audit()
    assert (report.is_intact, report.entries) == (True, 1)


async def test_an_error_that_is_logged_is_told(world: World) -> None:
    await world.module.log_event("error", "it broke: Bearer abcdefghijklmnop")
    await world.module.log_event("info", "it works")
    (told,) = world.told("error.logged")
    assert (told["level"], told["message"]) == ("error", "it broke: [redacted]")


async def test_an_operation_that_has_become_slow_raises_an_alert(tmp_path: Path) -> None:
    world = await World(tmp_path, alerts={"latency_ms": 0.000001, "min_calls": 3}).start()
    for _ in range(3):
        with world.context.tracer.span("slow"):
            pass
    await world.module.list_traces()
    await asyncio.sleep(0.01)
    (alert,) = world.told("performance.alert")
    assert (alert["operation"], alert["kind"], alert["calls"]) == ("slow", "latency_ms", 3)
    await world.module.close()


async def test_content_is_kept_where_it_is_wanted_and_secrets_are_not(tmp_path: Path) -> None:
    world = await World(tmp_path, record_content=True).start()
    await world.module.log_event("info", "m", {"content": "what ann wrote", "password": "hunter2"})
    await world.module.create_audit_entry("a.b", "ann", "r", {"content": "what ann sent", "token": "hunter2"})
    await world.module.close()
    assert b"what ann wrote" in world.written()
    assert b"what ann sent" in world.written()
    assert b"hunter2" not in world.written()


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "No Name"},
        {"action": ""},
        {"user_id": None},
        {"resource": 3},
        {"resource": "x" * 2000},
        {"details": []},
        {"idempotency_key": 7},
    ],
)
async def test_what_is_no_audit_entry_is_refused(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await world.module.create_audit_entry(**{"action": "a.b", "user_id": "ann", "resource": "r", **wrong})
    assert (await world.module.verify_audit()).entries == 0


async def test_an_audit_event_that_arrives_twice_is_one_entry(world: World) -> None:
    data = {"action": "a.b", "user_id": "ann", "resource": "r", "details": {"n": 1}}
    delivery = await world.context.bus.emit("audit.log", data)
    await world.context.bus.deliver(delivery.envelope)
    (entry,) = await world.module.list_audit_entries(user_id="ann")
    assert entry.details == {"n": 1}


async def test_an_audit_event_that_lacks_something_goes_to_the_dead_letters(world: World) -> None:
    delivery = await world.context.bus.emit("audit.log", {"action": "a.b"})
    assert delivery.failed
    assert b"audit.log lacks user_id, resource" in world.storage.files.read(DEAD_LETTERS)


async def test_erasing_a_user_leaves_nothing_of_them_and_everything_of_others(world: World) -> None:
    tracer = world.context.tracer
    for user in ("ann-the-first", "bob"):
        with tracer.span("request", {"user.id": user, "session.id": f"session-of-{user}"}):
            await world.context.emit("chat.session.created", {"session": {"id": f"session-of-{user}", "user_id": user}})
            await world.module.log_event("info", f"served {user}", {"user_id": user})
        await world.module.create_audit_entry("a.b", user, f"thing-of-{user}", {"of": user})
        await world.context.bus.emit("trace.end", {"trace_id": "f" * 32, "user_id": user})  # fails: a dead letter
    await world.module.list_traces()
    world.clock.moment += timedelta(days=3)
    await world.module.tidy()  # a part of it is compressed
    with tracer.span("later", {"user.id": "ann-the-first"}):
        pass
    exported = json.dumps(await world.module.export_user("ann-the-first"))
    assert "session-of-ann-the-first" in exported
    assert "bob" not in exported
    erased = await world.module.erase_user("ann-the-first")
    assert (erased.audit_entries, erased.dead_letters) == (1, 1)
    assert erased.records >= 4
    with tracer.span("straggler", {"user.id": "ann-the-first"}):
        pass
    await world.module.list_traces()
    left = json.dumps(await world.module.export_user("bob"))
    assert "session-of-bob" in left
    everything = (
        world.written() + json.dumps([one.to_dict() for one in (await world.module.list_traces("7d")).traces]).encode()
    )
    assert b"ann-the-first" not in everything
    assert exported.split('"user_hash": "')[1][:32].encode() not in everything
    assert not any("ann" in path.name for path in world.base.rglob("*"))
    report = await world.module.verify_audit()
    assert (report.is_intact, report.erased) == (True, 1)


async def test_a_user_that_comes_back_after_an_erasure_is_traced_again(world: World) -> None:
    await world.module.erase_user("ann")
    world.clock.moment += timedelta(minutes=11)
    with world.context.tracer.span("request", {"user.id": "ann"}):
        pass
    assert len((await world.module.list_traces(user_id="ann")).traces) == 1


@pytest.mark.slow
async def test_it_works_with_the_loader_and_measures_the_other_modules_in_the_process(tmp_path: Path) -> None:
    config = {
        "modules": {"trace_logger": {"enabled": True}, "text_chat": {"enabled": True}},
        "storage": {"base_path": str(tmp_path)},
    }
    loader = ModuleLoader.from_mapping(config)
    modules = await loader.load_all()
    session = await modules["text_chat"].create_session("ann")
    async for _ in modules["text_chat"].stream_response(session.id, "Hello?", user_id="ann"):
        pass
    names = {one.operation for one in (await modules["trace_logger"].list_traces()).traces}
    assert "turn" in names
    await loader.close()


async def test_two_processes_cannot_write_one_audit_trail(world: World, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        await World(tmp_path).start()


async def test_storage_that_is_no_flat_files_is_refused() -> None:
    class Elsewhere:
        pass

    with pytest.raises(ConfigurationError, match="flat files"):
        await TraceLoggerModule().initialize(ModuleContext(storage=Elsewhere()))  # type: ignore[arg-type]


# -- export to a collector ---------------------------------------------------------------------------------------------


class Collector:
    """Takes what it is told to take."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes = list(outcomes)
        self.spans: list[Any] = []

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        outcome = self.outcomes.pop(0) if self.outcomes else "SUCCESS"
        if outcome == "broken":
            raise OSError("connection refused")
        if outcome == "SUCCESS":
            self.spans += spans
        return SpanExportResult[outcome]

    def shutdown(self) -> None:
        """Nothing."""


def stored(span_id: str, parent_id: str | None = None, **attributes: Any) -> StoredSpan:
    return StoredSpan("a" * 32, span_id, parent_id, "n", "client", "chat-0", 10, 5, "KeyError", attributes)


async def test_spans_reach_the_collector_as_opentelemetry_has_them() -> None:
    collector = Collector()
    export = OtlpExport("http://127.0.0.1:1", max_waiting=10, make=lambda address: collector)
    export.offer([stored("b" * 16, "c" * 16, n=1, words=["x"], odd={"a": 1}, nothing=None)])
    await export.close()
    (span,) = collector.spans
    assert (span.context.trace_id, span.context.span_id, span.parent.span_id) == (
        int("a" * 32, 16),
        int("b" * 16, 16),
        int("c" * 16, 16),
    )
    assert (span.start_time, span.end_time, span.kind.name, span.status.status_code.name) == (10, 15, "CLIENT", "ERROR")
    assert dict(span.attributes) == {"n": 1, "words": ["x"], "odd": "{'a': 1}"}
    assert span.resource.attributes["service.name"] == "modchat"
    assert export.sent == 1


@pytest.mark.slow
async def test_what_a_collector_does_not_take_is_counted_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector("FAILURE", "broken")
    export = OtlpExport("http://127.0.0.1:1", max_waiting=2, make=lambda address: collector)
    for number in range(3):
        export.offer([stored(f"{number:016x}")] * 3)
        while export._waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    await export.close()
    assert (export.sent, export.failed, export.dropped) == (2, 4, 3)


@pytest.mark.parametrize("endpoint", ["http://h:4318", "http://h:4318/", "http://h:4318/v1/traces"])
async def test_the_path_for_traces_is_added_to_the_collectors_address(endpoint: str) -> None:
    addresses: list[str] = []

    def make(address: str) -> Collector:
        addresses.append(address)
        return Collector()

    await OtlpExport(endpoint, max_waiting=1, make=make).close()
    assert addresses == ["http://h:4318/v1/traces"]


async def test_spans_arrive_at_a_real_collector_over_http(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        received.append((head.split(" ")[1], await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    world = await World(tmp_path, otlp_endpoint=f"http://127.0.0.1:{port}").start()
    with world.context.tracer.span("exported"):
        pass
    await world.module.list_traces()
    await world.module.close()
    server.close()
    assert (await world.module.counts()).exported == 1
    ((path, body),) = received
    request = ExportTraceServiceRequest.FromString(body)
    assert path == "/v1/traces"
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "exported"


async def test_exporting_without_its_packages_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    with monkeypatch.context() as patch:
        patch.setattr(otlp.importlib, "import_module", missing)
        with pytest.raises(ConfigurationError, match="extra 'otlp'"):
            await World(tmp_path, otlp_endpoint="http://127.0.0.1:1").start()
    again = await World(tmp_path).start()  # nothing is held by the one that did not start
    await again.module.close()
