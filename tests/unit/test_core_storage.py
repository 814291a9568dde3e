"""Flat files: nothing leaves the base, nothing is half written, lines stay whole."""

import errno
import os
import threading

import pytest

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles, FlatFileStorage, write_all


@pytest.fixture
def files(tmp_path):
    return FlatFiles(tmp_path / "base")


def names_below(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "./a", "a/", "a\0b", "x" * 256, "a/" + "é" * 128]
)
def test_a_key_that_could_escape_or_mean_two_things_is_refused(files, key):
    for act in (
        files.read,
        files.delete,
        files.exists,
        lambda k: files.write(k, b""),
        lambda k: files.append(k, b"\n"),
    ):
        with pytest.raises(ValidationError):
            act(key)


def test_what_is_written_is_read_and_listed_and_deleted(files):
    files.write("a/b/c.json", b"1")
    files.write("a/d.json", b"2")
    files.append("z.jsonl", b"3\n")

    assert files.read("a/b/c.json") == b"1"
    assert files.list() == ["a/b/c.json", "a/d.json", "z.jsonl"]
    assert files.list("a/") == ["a/b/c.json", "a/d.json"]
    assert files.list("a/b") == ["a/b/c.json"]
    assert files.list("nowhere/") == []
    assert files.directories("a") == ["b"]
    assert files.delete("a/d.json")
    assert not files.delete("a/d.json")
    assert not files.exists("a/d.json")
    assert not files.exists("a/b")


def test_reading_what_is_absent_is_not_found_and_makes_nothing(files):
    with pytest.raises(NotFound):
        files.read("users/ann/profile.json")
    assert not files.exists("users/ann/profile.json")
    assert files.stamp("users/ann/profile.json") is None
    assert not files.base.exists()


def test_a_failed_write_keeps_the_old_content_and_leaves_no_temporary_file(files, monkeypatch):
    files.write("a.json", b"old")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageError) as caught:
        files.write("a.json", b"new")

    assert caught.value.retryable
    assert files.read("a.json") == b"old"
    assert names_below(files.base) == ["a.json"]


def test_readers_never_meet_a_mixture_of_two_writes(files):
    contents = {b"a" * 100_000, b"b" * 100_000}
    files.write("x", b"a" * 100_000)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in contents:
                files.write("x", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {files.read("x") for _ in range(200)} <= contents
    finally:
        stop.set()
        writer.join()


def test_a_file_is_still_the_same_until_it_grows_is_replaced_or_goes(files):
    stamp = files.append("a/log", b"one\n")
    assert files.is_still("a/log", stamp)

    longer = files.append("a/log", b"two\n")
    assert not files.is_still("a/log", stamp)
    assert files.is_still("a/log", longer)

    files.write("a/log", b"one\ntwo\n")
    assert not files.is_still("a/log", longer)
    files.delete("a/log")
    assert not files.is_still("a/log", longer)


def test_only_whole_lines_are_appended_and_earlier_bytes_stay(files):
    files.append("log", b"one\n")
    stamp = files.append("log", b"two\nthree\n", fsync=True)

    assert files.read("log") == b"one\ntwo\nthree\n"
    assert stamp == files.stamp("log")
    assert stamp.size == 14
    with pytest.raises(ValidationError):
        files.append("log", b"no end")


def test_a_torn_line_is_ended_before_the_next_one(files):
    files.write("log", b'{"a": 1}\n{"b"')
    files.append("log", b'{"c": 3}\n')
    assert files.read("log") == b'{"a": 1}\n{"b"\n{"c": 3}\n'


def test_an_append_that_the_disk_takes_in_part_is_taken_back(files, monkeypatch):
    files.append("log", b"one\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
    with pytest.raises(StorageError) as caught:
        files.append("log", b"two\n")
    monkeypatch.undo()

    assert caught.value.retryable
    assert files.read("log") == b"one\n"


def test_an_append_without_making_directories_needs_them_there(files):
    with pytest.raises(NotFound):
        files.append("gone/log", b"x\n", create_parents=False)
    assert names_below(files.base.parent) in ([], ["base"])


@pytest.mark.parametrize("link", ["file", "directory"])
def test_a_symbolic_link_is_never_followed(files, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    files.write("d/x", b"1")
    if link == "file":
        (files.base / "d" / "secret").symlink_to(outside / "secret")
        key = "d/secret"
    else:
        (files.base / "e").symlink_to(outside)
        key = "e/secret"

    for act in (files.read, files.sync, lambda k: files.append(k, b"x\n")):
        with pytest.raises(StorageError, match="symbolic link"):
            act(key)
    if link == "directory":
        with pytest.raises(StorageError, match="symbolic link"):
            files.write("e/new", b"x")
    assert files.list() == ["d/x"]
    assert names_below(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_writing_over_a_link_replaces_the_link_and_not_its_target(files, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    files.write("a", b"1")
    (files.base / "b").symlink_to(target)

    files.write("b", b"2")

    assert target.read_bytes() == b"kept"
    assert files.read("b") == b"2"


def test_a_pipe_in_the_way_is_refused_and_not_waited_for(files):
    files.write("a", b"1")
    os.mkfifo(files.base / "pipe")
    with pytest.raises(StorageError):
        files.read("pipe")
    assert files.list() == ["a"]


def test_a_deleted_tree_is_gone_and_links_in_it_are_not_followed(files, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"1")
    files.write("t/a/b", b"1")
    (files.base / "t" / "link").symlink_to(outside)

    assert files.delete_tree("t")
    assert not files.delete_tree("t")
    assert files.list() == []
    assert (outside / "kept").exists()


def test_a_deletion_that_a_crash_interrupted_is_finished_later(files, monkeypatch):
    files.write("t/a/b", b"secret")

    def crash(*_, **__):
        raise OSError(errno.EIO, "power cut")

    monkeypatch.setattr(os, "unlink", crash)
    with pytest.raises(StorageError):
        files.delete_tree("t")
    monkeypatch.undo()

    assert files.list() == []
    assert files.empty_trash() == 1
    assert not [path for path in files.base.rglob("*") if path.is_file()]


def test_the_probe_leaves_nothing_and_tells_when_nothing_can_be_written(files):
    with pytest.raises(StorageError):
        files.probe()
    files.write("a", b"1")
    files.probe()
    assert names_below(files.base) == ["a"]


async def test_the_asynchronous_form_does_the_same(tmp_path):
    storage = FlatFileStorage(tmp_path)
    await storage.write("a/b", b"1", fsync=True)
    await storage.append("a/c", b"2\n")

    assert await storage.read("a/b") == b"1"
    assert await storage.list("a/") == ["a/b", "a/c"]
    assert await storage.exists("a/c")
    assert await storage.delete("a/c")
    assert not await storage.exists("a/c")


def test_a_new_file_is_made_once_and_gets_another_key(files):
    fd = files.create("a/new")
    write_all(fd, b"content")
    os.close(fd)
    with pytest.raises(StorageError, match="exists"):
        files.create("a/new")
    assert files.rename("a/new", "b/c/kept", fsync=True)
    assert not files.rename("a/new", "b/c/kept", fsync=True)
    assert files.list() == ["b/c/kept"]
    assert files.read("b/c/kept") == b"content"
