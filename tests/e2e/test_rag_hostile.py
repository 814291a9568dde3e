"""Documents that were made to hurt: each ends in an error that says what it is, or in its text; the module goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modules.rag import RagModule, UnreadableDocument, UnsupportedDocument
from tests.rag_documents import opened
from tests.rag_hostile import HOSTILE, Hostile

_TIME_S, _MEMORY_MB = 6.0, 384
_GRACE_S = 6.0  # a busy machine takes its time to start a process, and to free what a killed one held


@pytest.fixture
async def rag(tmp_path: Path) -> AsyncIterator[RagModule]:
    parsing = {"timeout_seconds": _TIME_S, "max_memory_mb": _MEMORY_MB, "max_text_characters": 8_000_000}
    module = await opened(tmp_path, parsing={**parsing, "processes": 1}, chunking={"strategy": "fixed"})
    yield module
    await module.close()


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.name.replace("\0", "NUL"))
async def test_a_hostile_document_does_no_harm(rag: RagModule, tmp_path: Path, hostile: Hostile) -> None:
    data = hostile.data()
    began = time.monotonic()
    error = None
    try:
        document = await rag.add_document(data, name=hostile.name)
    except (UnreadableDocument, UnsupportedDocument) as caught:
        error = caught
    assert time.monotonic() - began < _TIME_S + 2 * _GRACE_S
    if hostile.readable is not None:
        assert (error is None) == hostile.readable, error
    if error is None:
        assert (await rag.delete_document(document.id)).chunks == document.chunks
    else:
        assert error.message
    assert not list((tmp_path / "rag/documents").glob("*/*")), "nothing of it is kept"
    assert not [path for path in tmp_path.parent.rglob("*") if path.name in ("etc", "escape.txt")]
    assert (await rag.extract_text(b"still here", name="a.txt")).text == "still here"


async def test_an_external_entity_reads_no_file(rag: RagModule) -> None:
    (hostile,) = (one for one in HOSTILE if one.name == "external-entity.docx")
    try:
        text = (await rag.extract_text(hostile.data(), name=hostile.name)).text
    except UnreadableDocument as error:
        text = error.message
    assert "root:" not in text
