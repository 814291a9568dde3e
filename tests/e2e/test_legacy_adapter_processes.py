"""Several processes write to one session by the old API: nothing is lost, nothing is there twice, nothing is torn."""

import asyncio
import json
import multiprocessing
from collections import Counter
from types import SimpleNamespace

from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, FFPanelInsightDTO
from modules.core.loader import ModuleLoader

PROCESSES, EACH = 4, 60


def adapter_on(base):
    return LegacyStorageAdapter(SimpleNamespace(storage=SimpleNamespace(base_path=base)))


def write(base, number, begin):
    asyncio.run(_write(base, number, begin))


async def _write(base, number, begin):
    adapter = adapter_on(base)
    begin.wait()
    for count in range(EACH):
        content = f"{number}/{count} " + "x" * (count * 97 % 9000)  # across pages of the file
        await asyncio.gather(
            adapter.add_message("ann", "one", FFMessageDTO("user", content)),
            adapter.update_session_metadata("ann", "made", {f"{number}/{count}": True}),
            adapter.update_user_profile("ann", {"preferences": {f"{number}/{count}": True}}),
        )
        if count % 10 == 0:
            await adapter.save_document("ann", "made", f"{number}-{count}.txt", b"x")
            await adapter.save_panel_insight("panel", FFPanelInsightDTO(content=f"{number}/{count}"))
            await adapter.create_session("ann")


async def test_nothing_is_lost_or_doubled_between_processes(tmp_path):
    adapter = adapter_on(str(tmp_path))
    await adapter.create_user("ann")
    adapter.sessions.create("ann", "Made", "chat", "made")
    context = multiprocessing.get_context("spawn")
    begin = context.Event()
    processes = [context.Process(target=write, args=(str(tmp_path), n, begin)) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    begin.set()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES

    wanted = {f"{number}/{count}" for number in range(PROCESSES) for count in range(EACH)}
    found = [one.content.split(" ")[0] for one in await adapter.get_all_messages("ann", "one")]
    assert Counter(found) == Counter(wanted)
    for number in range(PROCESSES):  # each writer's own order stands
        own = [int(one.split("/")[1]) for one in found if one.startswith(f"{number}/")]
        assert own == sorted(own)
    log = (tmp_path / "text_chat/sessions/ann/one/messages.jsonl").read_bytes()
    assert all(json.loads(line) for line in log.splitlines())
    assert set((await adapter.get_session("ann", "made")).metadata) == wanted
    assert set((await adapter.get_user_profile("ann"))["preferences"]) == wanted
    assert len(await adapter.list_documents("ann", "made")) == PROCESSES * EACH // 10
    decisions = json.loads((tmp_path / "multi_agent/conversations/panel/decisions.json").read_text())
    assert len(decisions) == PROCESSES * EACH // 10
    assert len(await adapter.list_sessions("ann")) == PROCESSES * EACH // 10 + 1


def add(base, number, begin):
    asyncio.run(_add(base, number, begin))


async def _add(base, number, begin):
    adapter = adapter_on(base)
    begin.wait()
    for count in range(EACH):
        content = f"{number}/{count} " + "x" * (count * 977 % 60_000)
        assert await adapter.add_message("ann", "one", FFMessageDTO("user", content))


async def test_nothing_is_lost_or_doubled_beside_text_chat(tmp_path):
    adapter = adapter_on(str(tmp_path))
    adapter.sessions.create("ann", "Made", "chat", "one")
    context = multiprocessing.get_context("spawn")
    begin = context.Event()
    processes = [context.Process(target=add, args=(str(tmp_path), n, begin)) for n in range(2)]
    loader = ModuleLoader.from_mapping(
        {
            "modules": {
                "text_chat": {"enabled": True, "rate_limit": {"messages_per_minute": None, "tokens_per_minute": None}}
            },
            "storage": {"base_path": str(tmp_path)},
        }
    )
    await loader.load_all()
    chat = await loader.context.get_module("text_chat")
    for process in processes:
        process.start()
    begin.set()
    sent = 0
    while any(process.is_alive() for process in processes):
        await chat.send_message("one", f"platform/{sent} x", user_id="ann")
        sent += 1
    await loader.close()
    assert [process.exitcode for process in processes] == [0, 0]

    wanted = {f"{number}/{count}" for number in range(2) for count in range(EACH)}
    wanted |= {f"platform/{count}" for count in range(sent)}
    found = [one.content.split(" ")[0] for one in await adapter.get_all_messages("ann", "one")]
    assert Counter(found) == Counter(wanted)
    assert not list(tmp_path.rglob("quarantine.jsonl"))
