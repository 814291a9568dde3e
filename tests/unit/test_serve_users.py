"""All of a user: out as one document, or gone from the directory."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration.index_builder import build_indices
from migration.sample import write_sample
from migration.storage_mapper import StorageMapper
from modules.core.storage import FlatFiles
from serve.leftovers import Leftovers
from tests.served import served

ERASED, OTHER = "nora", "mira"


@pytest.fixture(scope="module")
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("erasure")
    write_sample(place / "v2")
    StorageMapper(str(place / "v2"), str(place / "new")).migrate_sessions()
    asyncio.run(build_indices(place / "new"))
    return place / "v2", place / "new"


@pytest.fixture
def migrated(migrated_once: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(migrated_once[1], tmp_path / "new")
    return migrated_once[0], tmp_path / "new"


def said_by(v2: Path, user: str) -> list[bytes]:
    """Contents of the messages of a user's v2 directory, as they stand in JSON."""
    found = []
    for file in v2.rglob("*messages.jsonl*"):
        if user in file.parts:
            for line in file.read_bytes().splitlines():
                try:
                    content = json.loads(line)["content"]
                except (ValueError, KeyError, TypeError):
                    continue
                if isinstance(content, str) and len(content) > 12:
                    found.append(json.dumps(content, ensure_ascii=False)[1:-1].encode())
    return found


def only_by(v2: Path, user: str) -> list[bytes]:
    """Those that no other file of v2 holds."""
    others = b"".join(file.read_bytes() for file in v2.rglob("*") if file.is_file() and user not in file.parts)
    return [text for text in said_by(v2, user) if text not in others]


def files_with(base: Path, texts: list[bytes]) -> Iterator[str]:
    for file in base.rglob("*"):
        if file.is_file() and any(text in file.read_bytes() for text in texts):
            yield str(file.relative_to(base))


async def test_no_word_of_an_erased_user_is_left_in_the_directory(migrated: tuple[Path, Path]) -> None:
    v2, base = migrated
    words = only_by(v2, ERASED)
    assert words
    assert list(files_with(base, words))
    async with served(base) as here:
        session = await here.session(ERASED)
        await here.store(session, "said on the new platform", user_id=ERASED)
        words.append(b"said on the new platform")
        await here.client.post("/v1/memories", json={"user_id": ERASED, "key": "k", "content": "kept in memory"})
        words.append(b"kept in memory")
        answer = await here.client.delete(f"/v1/users/{ERASED}")
        assert answer.status_code == 200, answer.text
        erasure = answer.json()
        assert erasure["attic_files"] == 3
        assert erasure["modules"]["text_chat"]["sessions"] >= 2
        assert erasure["modules"]["text_chat"]["index_removed"] is True
        assert (await here.client.get("/v1/sessions", params={"user_id": ERASED})).json()["data"] == []
        assert list(files_with(base, words)) == []
    assert list(files_with(base, words)) == []


async def test_the_others_keep_all_they_have(migrated: tuple[Path, Path]) -> None:
    _, base = migrated
    others = {
        file: file.read_bytes()
        for file in base.rglob("*")
        if file.is_file() and ERASED not in file.parts and "indices" not in file.parts and ".platform" not in file.parts
    }
    async with served(base) as here:
        await here.client.delete(f"/v1/users/{ERASED}")
    assert {file for file, data in others.items() if not file.exists() or file.read_bytes() != data} == set()
    index = json.loads((base / "indices/master_index.json").read_bytes())
    assert ERASED not in index["user_sessions"]
    assert OTHER in index["user_sessions"]
    assert all(one["user_id"] != ERASED for one in index["document_registry"]["documents"].values())
    assert ERASED not in json.loads((base / "text_chat/indices/user_sessions.json").read_bytes())


async def test_an_erasure_says_what_it_could_not_reach(migrated: tuple[Path, Path]) -> None:
    _, base = migrated
    (base / "attic/logs/mentions.log").write_text(f"user {ERASED} did something")
    async with served(base) as here:
        erasure = (await here.client.delete(f"/v1/users/{ERASED}")).json()
    assert "attic/logs/mentions.log" in erasure["mentions"]
    assert {"rag", "persona", "multi_agent"} & set(erasure["not_asked"])


async def test_an_erasure_is_noted_before_and_after(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.session("ada")
        answer = await here.client.delete("/v1/users/ada", headers={"X-Request-Id": "erase-1"})
        assert answer.status_code == 200
    lines = [json.loads(line) for line in (tmp_path / "serve/audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["user.erase.begun", "user.erase.ended"]
    assert {line["user_id"] for line in lines} == {"ada"}
    assert lines[1]["details"]["by"] == "anybody"
    assert lines[1]["details"]["request_id"] == "erase-1"
    assert lines[1]["details"]["erased"]["text_chat"]["sessions"] == 1


async def test_a_module_that_fails_does_not_keep_the_others_from_it_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.core.errors import StorageError
    from modules.memory import MemoryModule

    async with served(tmp_path) as here:
        session = await here.session("ada")
        await here.store(session, "words of ada")

        async def failing(self: object, user_id: str) -> None:
            raise StorageError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryModule, "erase_user", failing)
            answer = await here.client.delete("/v1/users/ada")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "true")
        assert "memory" in answer.json()["error"]["message"]
        assert list(files_with(tmp_path, [b"words of ada"])) == []
        assert (await here.client.delete("/v1/users/ada")).status_code == 200


async def test_a_user_who_goes_on_after_an_erasure_begins_anew(tmp_path: Path) -> None:
    async with served(tmp_path) as here:
        await here.store(await here.session("ada"), "before")
        await here.client.delete("/v1/users/ada")
        await here.store(await here.session("ada"), "after")
        page = (await here.client.get("/v1/sessions", params={"user_id": "ada"})).json()
        assert [one["message_count"] for one in page["data"]] == [1]


async def test_an_export_holds_all_of_a_user_and_nothing_of_another(migrated: tuple[Path, Path]) -> None:
    v2, base = migrated
    async with served(base) as here:
        await here.client.post("/v1/memories", json={"user_id": ERASED, "key": "k", "content": "kept in memory"})
        answer = await here.client.get(f"/v1/users/{ERASED}/export")
        assert answer.status_code == 200
        export = answer.json()
    chat, memory = export["modules"]["text_chat"], export["modules"]["memory"]
    contents = {message["content"] for session in chat["sessions"] for message in session["messages"]}
    in_sessions = [
        json.loads(line)["content"]
        for file in v2.glob(f"users/{ERASED}/*/messages.jsonl")
        if ".backup_" not in str(file)
        for line in file.read_bytes().splitlines()
    ]
    assert in_sessions
    assert set(in_sessions) <= contents
    assert any(key.endswith("profile.json") for key in chat["files"])
    assert len(export["attic"]) == 3
    assert [one["content"] for one in memory["short_term"]] == ["kept in memory"]
    assert OTHER.encode() not in json.dumps(chat["sessions"]).encode()


@pytest.mark.parametrize("user_id", ["..", "users", "logs", "", "../x", "a/b"])
def test_no_name_of_a_user_reaches_beyond_that_users_directories(tmp_path: Path, user_id: str) -> None:
    for place in ("attic/users/ada", "attic/logs"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "kept.txt").write_text("kept")
    assert Leftovers(FlatFiles(tmp_path), user_id).erase().attic_files == 0
    assert (tmp_path / "attic/users/ada/kept.txt").exists()
    assert (tmp_path / "attic/logs/kept.txt").exists()


@pytest.mark.parametrize("path", ["../text_chat", "users/../..", "/etc", "a//b", "", 7, None])
def test_a_legacy_path_that_no_migration_writes_is_not_followed(tmp_path: Path, path: object) -> None:
    home = tmp_path / "text_chat/users/ada"
    home.mkdir(parents=True)
    (home / "profile.json").write_text(json.dumps({"legacy": {"path": path}}))
    assert Leftovers(FlatFiles(tmp_path), "ada").erase().attic_files == 0
    assert (home / "profile.json").exists()
