"""Cases of the old storage API, by the call that each is about, and what they have in common."""

from __future__ import annotations

import inspect
import logging
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, FFSituationalContextDTO

STILL = datetime.fromisoformat("2025-01-02T03:04:05.000006")

# Calls whose cases are in test_legacy_contract_rest.py.
THE_REST = frozenset(
    (
        "add_panel_message",
        "create_panel",
        "delete_document_vectors",
        "get_context",
        "get_context_history",
        "get_document",
        "get_panel_messages",
        "get_persona",
        "get_prismmind_config",
        "get_vector_stats",
        "hybrid_search",
        "is_prismmind_available",
        "list_documents",
        "list_personas",
        "process_document_with_prismmind",
        "save_context_snapshot",
        "save_document",
        "save_panel_insight",
        "save_persona",
        "store_document_with_vectors",
        "update_context",
        "update_document_analysis",
        "vector_search",
    )
)


class Cases(dict):
    """Functions of any of adapter, tmp_path, caplog."""

    def case(self, name):
        def register(function):
            assert name not in self
            self[name] = function
            return function

        return register

    async def run(self, name, tmp_path, caplog):
        caplog.set_level(logging.WARNING)
        adapter = LegacyStorageAdapter(config_of(tmp_path / "new"), embedding=Letters())
        offered = {"adapter": adapter, "tmp_path": tmp_path, "caplog": caplog}
        await self[name](**{one: offered[one] for one in inspect.signature(self[name]).parameters})


class Letters:
    """An embedding model for tests: how often each letter stands in a text."""

    name = "letters"
    dimension = 26

    async def embed(self, texts):
        rows = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths == 0, 1, lengths)

    async def close(self):
        pass


def config_of(base, **sections):
    return SimpleNamespace(storage=SimpleNamespace(base_path=str(base), **sections.pop("storage", {})), **sections)


def context(**changes):
    values = {"summary": "on rivers", "key_points": ["the Danube"], "entities": {"topics": ["water"]}}
    return FFSituationalContextDTO(**{**values, "confidence": 0.5, **changes})


def files_in(base):
    return sorted(str(path.relative_to(base)) for path in Path(base).rglob("*") if path.is_file())


async def filled(adapter, count=45, user="ann"):
    session = await adapter.create_session(user, "Many")
    for number in range(count):
        adapter.sessions.add(user, session, FFMessageDTO("user", f"message {number}").to_dict())
    return session
