"""The nine modules, all together, on the store of a migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from config import load_settings
from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.sample import write_sample
from migration.validate import MigrationValidator

MODULES = {
    *("text_chat", "memory", "rag", "multi_agent", "tool_use"),
    *("persona", "multimodal", "topic_router", "trace_logger"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A v2 store that holds every kind of thing, and what the migration made of it."""
    root = tmp_path_factory.mktemp("store")
    write_sample(root / "v2", users=2, sessions=2, messages=3)
    report = Engine(RunSettings(str(root / "v2"), str(root / "new")), LocalBackend()).run()
    assert report.counts["documents"] > 0
    return root / "v2", root / "new"


async def test_all_nine_run_on_a_migrated_store_and_leave_it_valid(store: tuple[Path, Path]) -> None:
    source, base = store
    settings = load_settings(None, environ={}).model_dump(mode="json")
    settings["modules"]["text_chat"]["model"]["provider"] = "extractive"
    platform = await Platform.start(settings, base=base, runtime=LocalRuntime(copies=True))
    try:
        assert set(platform.refs) == MODULES
        health = await platform.health()
        assert [part for part in health.parts if not part.is_healthy] == []
        assert not health.absent
        session = await platform.ref("text_chat").ask("create_session", "ann")
        await platform.ref("text_chat").ask("send_message", session.id, "hello", user_id="ann")
    finally:
        await platform.stop()
    report = MigrationValidator(str(source), str(base)).report()
    assert report.equal, report.to_text()


async def test_they_start_again_on_what_they_left(store: tuple[Path, Path]) -> None:
    _, base = store
    settings = load_settings(None, environ={}).model_dump(mode="json")
    settings["modules"]["text_chat"]["model"]["provider"] = "extractive"
    for _ in range(2):
        platform = await Platform.start(settings, base=base, runtime=LocalRuntime(copies=True))
        try:
            assert (await platform.health()).is_healthy
        finally:
            await platform.stop()
