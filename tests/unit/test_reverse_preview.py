"""What a v2 store cannot hold is listed before anything is written."""

import json
import os
from pathlib import Path

import pytest

from migration.reverse import preview, reverse
from migration.sample import write_sample
from tests.hostile_case import SESSION, Tree, profile_record
from tests.unit.test_reverse import files, migrate

STORED = f"text_chat/sessions/ada/{SESSION}"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A migrated tree of one user with one session of two messages."""
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/profile.json", profile_record())
    tree.session(messages=2)
    migrate(tmp_path / "v2", tmp_path / "new")
    return tmp_path / "new"


def put(new: Path, path: str, data: str = "{}") -> None:
    (new / path).parent.mkdir(parents=True, exist_ok=True)
    (new / path).write_text(data)


LOST = {
    f"{STORED}/state.json": "states",
    "text_chat/sessions/ada/half/messages.jsonl": "unfinished_sessions",
    f"{STORED}/.tmp-metadata": "temporary",
    "memory/long_term/ada/memory_bank.jsonl": "long_term_memory",
    "memory/short_term/ada/.items.jsonl": "short_term_memory",
    "memory/short_term/ada/gone/context.json": "contexts_without_session",
    "rag/documents/doc_x/metadata.json": "new_documents",
    "rag/documents/doc_x/chunks.jsonl": "derived",
    "rag/embeddings/own/vectors.npy": "new_vectors",
    "indices/master_index.json": "derived",
    "persona/definitions/p/profile.json": "new_personas",
    "persona/users/ada/p/profile.json": "new_personas",
    "multi_agent/conversations/c/metadata.json": "new_conversations",
    "multi_agent/agents/a.json": "agents",
    "tool_use/tools.json": "tools",
    "trace_logger/2026/01.jsonl": "traces",
    "multimodal/cache/x": "media",
    "topic_router/topics/t.json": "routing",
    ".platform/incoming/rag/0": "platform",
    "note.txt": "other",
}


@pytest.mark.parametrize("path", LOST)
def test_what_v2_cannot_hold_is_listed_by_kind(path: str, new: Path) -> None:
    put(new, path)
    (loss,) = preview(str(new))
    assert (loss.kind, loss.count, loss.bytes, loss.examples) == (LOST[path], 1, 2, (path,))
    assert f"e.g. {path}" in str(loss)


def test_nothing_is_lost_of_a_migrated_tree_but_what_is_derived_and_said_of_lines(tmp_path: Path) -> None:
    made = write_sample(tmp_path / "v2")
    migrate(tmp_path / "v2", tmp_path / "new")
    losses = {loss.kind: loss.count for loss in preview(str(tmp_path / "new"))}
    assert losses.keys() <= {"derived", "quarantine"}
    assert losses["quarantine"] == made.quarantined + made.salvaged


def test_the_losses_are_known_before_anything_is_written_and_are_in_the_report(new: Path) -> None:
    put(new, "tool_use/tools.json")
    expected = preview(str(new))
    report = reverse(str(new), str(new.parent / "back"))
    assert list(report.losses) == expected
    assert report.exit_code == 0
    told = json.loads(json.dumps(report.to_json()))
    assert told["losses"] == [{"kind": "tools", "count": 1, "bytes": 2, "examples": ["tool_use/tools.json"]}]
    assert (told["sessions"], told["messages"], told["exit_code"]) == (1, 2, 0)


def test_a_preview_writes_nothing(new: Path) -> None:
    before = files(new)
    preview(str(new))
    assert files(new) == before
    assert sorted(os.listdir(new.parent)) == ["new", "v2"]
