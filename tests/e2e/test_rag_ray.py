"""Rag on Ray: its workers are tasks, and a killed actor comes back with all that it had acknowledged."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.ray_runtime import RayRuntime, RayWorkers
from actors.system import Platform
from modules.core.errors import Unavailable, ValidationError

pytestmark = pytest.mark.cluster

SETTINGS: dict[str, Any] = {
    "modules": {"rag": {"enabled": True, "embedding": {"provider": "wordllama"}}},
    "runtime": {"restart_wait_seconds": 60.0},
}


def process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def refuse(number: int) -> None:
    raise ValidationError(f"not {number}", param="number")


def go_away() -> None:
    os._exit(1)


async def test_documents_live_through_a_killed_actor_and_are_embedded_anew(tmp_path: Path) -> None:
    runtime = RayRuntime(num_cpus=1)
    try:
        workers = RayWorkers()
        number, pid = await workers.run(process_of, 7)
        assert (number, pid != os.getpid()) == (7, True)
        with pytest.raises(ValidationError, match="not 3"):
            await workers.run(refuse, 3)
        with pytest.raises(Unavailable):
            await workers.run(go_away)
        platform = await Platform.start(SETTINGS, base=tmp_path, runtime=runtime)
        try:
            rag = platform.ref("rag")
            added = await rag.ask("add_document", b"figs and dates", name="fruit.txt", user_id="ann", timeout_s=120)
            (part,) = (await platform.health()).parts
            assert part.report is not None
            os.kill(part.report.pid, signal.SIGKILL)
            (passage,) = await rag.ask("search_knowledge", "dates", user_id="ann", timeout_s=120)
            assert (passage.document_id, passage.similarity is not None) == (added.id, True)
            report = await rag.ask("update_embeddings", None, True, user_id="ann", timeout_s=120)
            assert report.indexed == 1
        finally:
            await platform.stop()
    finally:
        runtime.close()
