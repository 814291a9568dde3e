"""What is kept: uploads by their content, the paths that may be read, and the cache of results."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modules.core.clock import new_hex
from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles
from modules.multimodal.errors import MediaTooLarge
from modules.multimodal.kinds import FORMATS
from modules.multimodal.result_cache import ResultCache, cache_key
from modules.multimodal.sources import Source, Sources
from modules.multimodal.uploads import Upload, Uploads

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + b"picture"


@pytest.fixture
def files(tmp_path: Path) -> FlatFiles:
    return FlatFiles(tmp_path / "base")


@pytest.fixture
def uploads(files: FlatFiles) -> Uploads:
    return Uploads(files, max_bytes=1000, max_user_bytes=1000)


def add(uploads: Uploads, user: str = "ada", content: bytes = PNG, name: str = "a.png") -> Upload:
    arriving = uploads.spool.arriving(user, new_hex())
    arriving.end([content])
    try:
        arrived = uploads.examined(user, arriving.spooled, found=FORMATS["png"])
        return uploads.add(user, arrived, name=name, now=NOW)
    finally:
        arriving.remove()


def test_an_upload_comes_back_as_it_was(uploads: Uploads) -> None:
    upload = add(uploads)
    assert uploads.get("ada", upload.id) == upload
    assert uploads.read("ada", upload.id) == PNG
    assert pickle.loads(pickle.dumps(upload)) == upload
    assert upload.created_at == "2026-01-02T03:04:05+00:00"


def test_the_same_content_and_name_is_the_same_upload(uploads: Uploads, files: FlatFiles) -> None:
    assert add(uploads) == add(uploads)
    assert len(files.list("multimodal/")) == 2


def test_content_goes_with_its_last_name(uploads: Uploads, files: FlatFiles) -> None:
    first, second = add(uploads, name="a.png"), add(uploads, name="b.png")
    assert len([key for key in files.list("multimodal/") if key.endswith("/content")]) == 1
    assert not uploads.delete("ada", first.id)
    assert uploads.read("ada", second.id) == PNG
    assert uploads.delete("ada", second.id)
    assert files.list("multimodal/") == []
    with pytest.raises(NotFound):
        uploads.delete("ada", second.id)


def test_nobody_has_what_another_user_uploaded(uploads: Uploads) -> None:
    upload = add(uploads)
    for call in (uploads.get, uploads.read, uploads.delete):
        with pytest.raises(NotFound):
            call("eve", upload.id)
    assert uploads.of_user("eve") == []
    add(uploads, "eve")
    assert uploads.erase("eve") == 1
    assert uploads.read("ada", upload.id) == PNG


@pytest.mark.parametrize("user", ["", "..", "../ada", "a/b", "ünï", "x" * 500, ".hidden"])
def test_any_user_id_has_a_place_of_its_own(user: str, uploads: Uploads, tmp_path: Path) -> None:
    upload = add(uploads, user)
    assert uploads.of_user(user) == [upload]
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "base/multimodal/uploads" not in str(path)]
    assert outside == []
    assert uploads.erase(user) == 1


@pytest.mark.parametrize("media_id", ["", "media_", "../x", "media_" + "0" * 32, "media_" + "g" * 32 + "_00000000"])
def test_what_is_no_id_is_refused_before_the_disk_is_asked(media_id: str, uploads: Uploads) -> None:
    with pytest.raises(ValidationError, match="not a media id"):
        uploads.get("ada", media_id)


def test_a_user_keeps_no_more_than_is_allowed_and_deleting_makes_room(files: FlatFiles) -> None:
    uploads = Uploads(files, max_bytes=40, max_user_bytes=40)
    first = add(uploads, content=b"1" * 30, name="1")
    with pytest.raises(MediaTooLarge, match="delete some"):
        add(uploads, content=b"2" * 20, name="2")
    # What was there before a restart counts too.
    with pytest.raises(MediaTooLarge):
        add(Uploads(files, max_bytes=40, max_user_bytes=40), content=b"2" * 20, name="2")
    add(uploads, content=b"1" * 30, name="another name takes no room")
    uploads.delete("ada", first.id)
    add(uploads, "eve", content=b"3" * 20)
    assert len(uploads.of_user("ada")) == 1


def test_content_without_a_name_is_no_upload_and_is_erased_all_the_same(uploads: Uploads, files: FlatFiles) -> None:
    upload = add(uploads)
    place = f"multimodal/uploads/ada/{upload.content_hash}"
    files.delete(f"{place}/refs/{upload.id}.json")  # as a crash between the two writes leaves it
    assert uploads.of_user("ada") == []
    assert uploads.erase("ada") == 0
    assert files.list("multimodal/") == []


def test_a_damaged_record_is_an_error_and_not_an_absent_upload(uploads: Uploads, files: FlatFiles) -> None:
    upload = add(uploads)
    files.write(f"multimodal/uploads/ada/{upload.content_hash}/refs/{upload.id}.json", b"{")
    with pytest.raises(StorageError, match="cannot be read"):
        uploads.get("ada", upload.id)


@pytest.mark.parametrize("name", ["x" * 256, "nul\0", 7])
def test_a_name_that_cannot_be_one_is_refused(name: str, uploads: Uploads) -> None:
    with pytest.raises(ValidationError, match="name"):
        add(uploads, name=name)


# -- paths -------------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Path:
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "sub" / "p.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG + b"secret")
    return local


@pytest.fixture
def sources(files: FlatFiles, uploads: Uploads, local: Path) -> Sources:
    return Sources(files, uploads, local_directories=[local], max_bytes=1000)


@contextmanager
def read(sources: Sources, path: str, user: str = "ada") -> Iterator[tuple[Source, bytes]]:
    with sources.opened(user, path) as source:
        yield source, os.pread(source.fd, 10_000, 0)


def test_an_upload_is_read_by_its_id(sources: Sources, uploads: Uploads) -> None:
    upload = add(uploads)
    with read(sources, upload.id) as (source, content):
        assert (content, source.format.name, source.name) == (PNG, "png", "a.png")
        assert source.content_hash == upload.content_hash
    with pytest.raises(NotFound), read(sources, upload.id, "eve"):
        pass


def test_a_document_is_read_by_its_owner_alone(sources: Sources, files: FlatFiles) -> None:
    files.write("rag/documents/doc_1/original.png", PNG)
    files.write("rag/documents/doc_1/metadata.json", json.dumps({"user_id": "ada"}).encode())
    with read(sources, "rag/documents/doc_1/original.png") as (source, content):
        assert (content, source.name) == (PNG, "original.png")
    for user, path in (
        ("eve", "rag/documents/doc_1/original.png"),
        ("ada", "rag/documents/doc_1/metadata.json"),
        ("ada", "rag/documents/doc_2/original.png"),
    ):
        with pytest.raises(NotFound, match="nothing of this user"), read(sources, path, user):
            pass


def test_an_archived_document_is_read_by_its_owner_alone(sources: Sources, files: FlatFiles) -> None:
    path = "text_chat/archive/ada/session/20240101_000000/documents/doc_1/original.png"
    files.write(path, PNG)
    with read(sources, path) as (_, content):
        assert content == PNG
    with pytest.raises(NotFound), read(sources, path, "eve"):
        pass


def test_local_files_are_read_where_the_operator_allows_it(sources: Sources, local: Path) -> None:
    with read(sources, f"{local}/sub/p.png") as (source, content):
        assert (content, source.name) == (PNG, "p.png")


def test_a_local_file_that_changes_while_it_is_read_is_read_in_one_state(sources: Sources, local: Path) -> None:
    with sources.opened("ada", f"{local}/sub/p.png") as source:
        (local / "sub" / "p.png").write_bytes(b"another")
        assert os.pread(source.fd, 1000, 0) == PNG


def test_no_path_leads_out_of_what_may_be_read(sources: Sources, files: FlatFiles, local: Path, tmp_path: Path) -> None:
    files.write("text_chat/sessions/ada/s/messages.jsonl", b"{}\n")
    (local / "link.png").symlink_to(tmp_path / "secret.png")
    (local / "linked").symlink_to(tmp_path)
    os.mkfifo(local / "pipe.png")
    for path in (
        "",
        "/etc/passwd",
        f"{tmp_path}/secret.png",
        f"{local}/../secret.png",
        f"{local}/link.png",
        f"{local}/linked/secret.png",
        f"{local}/pipe.png",
        f"{local}/sub",
        f"{local}",
        f"{local}-beside/p.png",
        "../local/sub/p.png",
        "rag/documents/../../../local/sub/original.png",
        "text_chat/sessions/ada/s/messages.jsonl",
        "a\0b",
        "multimodal/uploads/ada",
        "file:///etc/passwd",
        "http://localhost/x.png",
    ):
        with pytest.raises((ValidationError, NotFound, StorageError)), read(sources, path):
            pass


def test_a_file_of_too_many_bytes_is_not_copied(files: FlatFiles, uploads: Uploads, local: Path) -> None:
    (local / "large.png").write_bytes(PNG + bytes(2000))
    sources = Sources(files, uploads, local_directories=[local], max_bytes=1000)
    with pytest.raises(MediaTooLarge, match="2015 bytes"), read(sources, f"{local}/large.png"):
        pass


# -- results -----------------------------------------------------------------------------------------------------


def test_a_result_is_found_by_user_content_and_request(files: FlatFiles) -> None:
    cache = ResultCache(files, max_bytes=10_000)
    key = cache_key("c" * 32, {"b": 1, "a": [1, {"y": 2, "x": 1}]})
    assert key == cache_key("c" * 32, {"a": [1, {"x": 1, "y": 2}], "b": 1})
    assert key != cache_key("c" * 32, {"a": [1, {"x": 1, "y": 3}], "b": 1})
    cache.put("ada", key, {"data": b"\0\xff", "n": [1.5, None]})
    assert cache.get("ada", key) == {"data": b"\0\xff", "n": [1.5, None]}
    assert ResultCache(files, max_bytes=10_000).get("ada", key) is not None
    assert cache.get("eve", key) is None


def test_the_least_recently_used_results_make_room(files: FlatFiles, tmp_path: Path) -> None:
    cache = ResultCache(files, max_bytes=1000)
    for number in range(4):
        cache.put("ada", f"{number}", {"data": bytes(200)})
        os.utime(tmp_path / f"base/multimodal/cache/ada/{number}", ns=(number, number))
    assert cache.get("ada", "0") is not None  # now it is the latest
    cache.put("eve", "5", {"data": bytes(300)})
    assert [key for key in "01234" if cache.get("ada", key) is not None] == ["0", "3"]
    assert cache.get("eve", "5") is not None
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1000


def test_the_cache_never_holds_more_than_it_may(files: FlatFiles, tmp_path: Path) -> None:
    caches = [ResultCache(files, max_bytes=5000), ResultCache(files, max_bytes=5000)]
    for number in range(60):
        caches[0].put(f"user{number % 7}", f"{number}", {"data": bytes(number * 13)})
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 5000
    # Two shards see each other's results at the latest after a tenth of the room.
    for number in range(60):
        caches[number % 2].put("both", f"{number}", {"data": bytes(400)})
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 5500


def test_what_is_larger_than_the_cache_is_not_kept_and_none_are_kept_at_all(files: FlatFiles) -> None:
    for size in (0, 100):
        cache = ResultCache(files, max_bytes=size)
        cache.put("ada", "k", {"data": bytes(200)})
        assert cache.get("ada", "k") is None
    assert files.list("multimodal/") == []


def test_a_result_that_cannot_be_read_is_as_good_as_none_and_goes(files: FlatFiles) -> None:
    cache = ResultCache(files, max_bytes=1000)
    files.write("multimodal/cache/ada/k", b"\xc1 no msgpack")
    assert cache.get("ada", "k") is None
    assert not files.exists("multimodal/cache/ada/k")


def test_results_go_with_their_content_and_their_user(files: FlatFiles) -> None:
    cache = ResultCache(files, max_bytes=10_000)
    for user in ("ada", "eve"):
        for content in ("a" * 32, "b" * 32):
            cache.put(user, cache_key(content, {"does": 1}), {"n": 1})
    cache.forget_content("ada", "a" * 32)
    assert [key.rpartition("/")[2][:1] for key in files.list("multimodal/cache/ada/")] == ["b"]
    assert cache.erase("ada") == 1
    assert len(files.list("multimodal/cache/")) == 2
