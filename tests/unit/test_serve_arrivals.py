"""Files over HTTP, in and out as streams: nothing of them is held, and nothing is left of what is not kept."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tracemalloc
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modules.core.spool import HOME
from tests.served import Open, Served, served, settings_of

OCTETS = {"content-type": "application/octet-stream"}
MOST = 2_000_000
WAYS = {
    "media": ("multimodal", "/v1/media", "a.txt", "add_upload"),
    "documents": ("rag", "/v1/documents", "a.txt", "add_document"),
}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    modules = {
        "rag": {"embedding": {"provider": "none"}, "parsing": {"max_document_bytes": MOST}},
        "multimodal": {"limits": {"max_bytes": MOST}},
    }
    settings = settings_of({"max_upload_bytes": 2 * MOST}, modules)
    async with served(tmp_path, settings, ("text_chat", "rag", "multimodal")) as running:
        yield running


def left(base: Path) -> list[Path]:
    """All files in the spool."""
    return [path for path in (base / HOME).rglob("*") if path.is_file()]


def contents(base: Path) -> list[Path]:
    """Files that documents and uploads consist of."""
    return [path for path in base.rglob("*") if path.name == "content" or path.name.startswith("original")]


def sending(here: Served, path: str, *pieces: bytes, announced: int | None = None) -> Open:
    """An upload of which more is to come."""
    length = {"content-length": str(announced)} if announced is not None else {"transfer-encoding": "chunked"}
    begun = here.begin("POST", path, None, {**OCTETS, **length})
    begun._in.get_nowait()
    if announced is None:
        begun._scope["headers"] = [one for one in begun._scope["headers"] if one[0] != b"content-length"]
    for piece in pieces:
        begun._in.put_nowait({"type": "http.request", "body": piece, "more_body": True})
    return begun


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_is_kept_and_nothing_stays_in_the_spool(way: str, here: Served, tmp_path: Path) -> None:
    _, path, name, _ = WAYS[way]
    text = b"The rent is due on the first. " * 30_000
    made = await here.client.post(path, params={"user_id": "ada", "name": name}, content=text, headers=OCTETS)
    assert (made.status_code, made.json()["size_bytes"]) == (201, len(text))
    assert left(tmp_path) == []
    back = await here.client.get(f"{path}/{made.json()['id']}/content", params={"user_id": "ada"})
    assert back.content == text
    assert back.headers["content-length"] == str(len(text))


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_file_twice_at_once_is_kept_once(way: str, here: Served, tmp_path: Path) -> None:
    _, path, name, _ = WAYS[way]

    async def sent(content: bytes = b"the same " * 60_000) -> Any:
        return await here.client.post(path, params={"user_id": "ada", "name": name}, content=content, headers=OCTETS)

    answers = await asyncio.gather(*(sent() for _ in range(3)))
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(contents(tmp_path)) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_refused_leaves_nothing(way: str, here: Served, tmp_path: Path) -> None:
    _, path, _, _ = WAYS[way]
    for name, content in (("a.pdf", b"\x00\x01no such thing" * 40_000), ("a.pdf", b"")):
        answer = await here.client.post(path, params={"user_id": "ada", "name": name}, content=content, headers=OCTETS)
        assert answer.status_code == 400, answer.text
    assert (left(tmp_path), contents(tmp_path)) == ([], [])


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_over_the_modules_limit_is_refused_before_it_is_sent(
    way: str, here: Served, tmp_path: Path
) -> None:
    _, path, _, _ = WAYS[way]
    begun = sending(here, f"{path}?user_id=ada&name=a.txt", announced=MOST + 1)
    assert await begun.status() == 413
    assert not (tmp_path / HOME).exists()


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_that_does_not_say_its_length_is_refused_while_it_is_sent(
    way: str, here: Served, tmp_path: Path
) -> None:
    _, path, _, _ = WAYS[way]
    begun = sending(here, f"{path}?user_id=ada&name=a.txt", *[b"x" * 100_000] * 21)
    assert await begun.status() == 413
    assert b"body_too_large" in await begun.part()
    await begun.ended()
    assert left(tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_sent_is_removed_when_its_sender_goes_away(way: str, here: Served, tmp_path: Path) -> None:
    _, path, _, _ = WAYS[way]
    begun = sending(here, f"{path}?user_id=ada&name=a.txt", b"x" * 400_000)
    await until(lambda: left(tmp_path))
    begun.leave()
    await begun.ended()
    assert (left(tmp_path), contents(tmp_path)) == ([], [])


async def test_what_was_sent_is_removed_when_the_request_is_given_up(here: Served, tmp_path: Path) -> None:
    begun = sending(here, "/v1/media?user_id=ada", b"x" * 400_000)
    await until(lambda: left(tmp_path))
    begun.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun.ended()
    await until(lambda: not left(tmp_path))


@pytest.mark.parametrize("way", WAYS)
async def test_a_user_who_is_erased_leaves_nothing_on_its_way(way: str, here: Served, tmp_path: Path) -> None:
    _, path, _, _ = WAYS[way]
    begun = sending(here, f"{path}?user_id=ada&name=a.txt", b"x" * 400_000)
    await until(lambda: left(tmp_path))
    assert (await here.client.delete("/v1/users/ada")).status_code == 200
    assert left(tmp_path) == []
    begun._in.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    assert await begun.status() == 503
    await begun.ended()
    assert (left(tmp_path), contents(tmp_path)) == ([], [])


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_for_which_there_is_no_room_is_refused_before_it_is_sent(
    way: str, here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, _, _ = WAYS[way]
    found = os.statvfs("/")
    full = os.statvfs_result((*found[:4], 1, *found[5:]))
    monkeypatch.setattr("serve.arrivals.os.statvfs", lambda place: full)
    begun = sending(here, f"{path}?user_id=ada&name=a.txt", announced=MOST)
    assert await begun.status() == 507
    assert b"insufficient_storage" in await begun.part()


async def test_a_disk_that_fills_up_meanwhile_is_no_defect(
    here: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modules.core.spool.write_all", full)
    answer = await here.client.post("/v1/media", params={"user_id": "ada"}, content=b"text", headers=OCTETS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
    assert answer.headers["x-should-retry"] == "true"
    assert left(tmp_path) == []


async def test_parts_are_given_where_they_are_asked_for(here: Served) -> None:
    made = await here.client.post("/v1/media", params={"user_id": "ada"}, content=b"0123456789", headers=OCTETS)
    at = f"/v1/media/{made.json()['id']}/content"

    async def part(asked: str) -> Any:
        return await here.client.get(at, params={"user_id": "ada"}, headers={"Range": asked})

    answer = await part("bytes=2-4")
    assert (answer.status_code, answer.content) == (206, b"234")
    assert answer.headers["content-range"] == "bytes 2-4/10"
    assert (await part("bytes=-3")).content == b"789"
    assert (await part("bytes=0-1,4-5")).headers["content-type"].startswith("multipart/byteranges")
    beyond = await part("bytes=10-")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */10"
    nonsense = await part("bytes=x")
    assert (nonsense.status_code, nonsense.json()["error"]["param"]) == (400, "Range")


async def test_a_file_that_is_deleted_while_it_is_sent_is_sent_whole(here: Served) -> None:
    text = b"0123456789" * 100_000
    made = await here.client.post("/v1/media", params={"user_id": "ada"}, content=text, headers=OCTETS)
    media_id = made.json()["id"]
    begun = here.begin("GET", f"/v1/media/{media_id}/content?user_id=ada")
    assert await begun.status() == 200
    first = await begun.part()
    gone = await here.client.delete(f"/v1/media/{media_id}", params={"user_id": "ada"})
    assert gone.json()["content_removed"]
    assert first + await begun.rest() == text


async def test_nothing_is_sent_of_a_link_in_the_place_of_a_file(here: Served, tmp_path: Path) -> None:
    made = await here.client.post("/v1/media", params={"user_id": "ada"}, content=b"text", headers=OCTETS)
    (content,) = contents(tmp_path)
    content.unlink()
    content.symlink_to("/etc/passwd")
    answer = await here.client.get(f"/v1/media/{made.json()['id']}/content", params={"user_id": "ada"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_error")


@pytest.mark.slow
async def test_300_mb_pass_through_in_little_memory(tmp_path: Path) -> None:
    size = 300 << 20
    settings = settings_of({"max_upload_bytes": size + 100}, {"multimodal": {"limits": {"max_bytes": size + 100}}})
    header = io.BytesIO()
    with wave.open(header, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"")

    async def pieces() -> AsyncIterator[bytes]:
        yield header.getvalue()
        for number in range(size >> 16):
            yield bytes([number & 0xFF]) * (1 << 16)

    async with served(tmp_path, settings, ("text_chat", "multimodal")) as here:
        tracemalloc.start()
        try:
            made = await here.client.post("/v1/media", params={"user_id": "ada"}, content=pieces(), headers=OCTETS)
            assert made.status_code == 201, made.text
            begun = here.begin("GET", f"/v1/media/{made.json()['id']}/content?user_id=ada")
            assert await begun.status() == 200
            received = 0
            while received < made.json()["size_bytes"]:
                received += len(await begun.part())
            await begun.ended()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (await here.client.delete("/v1/users/ada")).status_code == 200  # the test's directory is kept a while
    assert received == made.json()["size_bytes"] == size + len(header.getvalue())
    assert peak < 16 << 20
