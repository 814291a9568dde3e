"""Writing the target: whole files or none, and every failure is a TargetError that names the file."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from migration.target import Target, TargetError, temporary_name


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    (tmp_path / "new").mkdir()
    made = Target(os.fspath(tmp_path / "new"))
    yield made
    made.close()


def files(target: Target) -> dict[str, bytes]:
    base = Path(target.base)
    return {os.fspath(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def test_a_file_is_written_with_its_parents_and_nothing_else(target: Target) -> None:
    target.write("a/b/c.json", b"1")
    target.write("top", b"2")
    assert files(target) == {"a/b/c.json": b"1", "top": b"2"}


def test_a_file_that_is_there_is_replaced(target: Target) -> None:
    target.write("a", b"long content")
    target.write("a", b"short")
    assert files(target) == {"a": b"short"}


@pytest.mark.parametrize("name", ["x" * 255, "\udcff", "a\nb"])
def test_any_name_that_the_file_system_allows_can_be_written(target: Target, name: str) -> None:
    target.write(f"attic/{name}", b"x")
    assert files(target) == {f"attic/{name}": b"x"}


def test_writes_that_are_cut_short_are_carried_on(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 2)]))
    data = os.urandom(1000)
    target.write("a", data)
    assert files(target) == {"a": data}


def test_a_copy_knows_size_and_digests(target: Target, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "source").write_bytes(data)
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    try:
        found = target.copy(fd, "a/copy")
    finally:
        os.close(fd)
    assert found == (len(data), hashlib.sha256(data).hexdigest(), xxhash.xxh3_128_digest(data))
    assert files(target) == {"a/copy": data}


def test_an_error_of_reading_is_the_sources_and_leaves_nothing_behind(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"x" * (3 << 20))
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    read, reads = os.read, iter((True, True, False))

    def failing(fd: int, count: int) -> bytes:
        if next(reads):
            return read(fd, count)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(OSError, match="Input/output error") as error:
        target.copy(fd, "copy")
    os.close(fd)
    assert not isinstance(error.value, TargetError)
    monkeypatch.undo()
    assert files(target) == {}


@pytest.mark.parametrize("call", ["open", "write", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failure_of_the_system_names_the_file_and_says_what_to_do(
    target: Target, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(TargetError) as error:
        target.write("a/b", b"x")
    assert error.value.path.startswith(f"{target.base}/a")
    assert os.strerror(code) in str(error.value)
    hints = {errno.ENOSPC: "free some space", errno.EROFS: "remount"}
    assert hints.get(code, "") in str(error.value)


def test_a_write_that_fails_leaves_the_old_file(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.write("a", b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(TargetError):
        target.write("a", b"new")
    assert (Path(target.base) / "a").read_bytes() == b"old"


def test_the_next_attempt_uses_the_same_temporary_name(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "x")))
        with pytest.raises(TargetError):
            target.write("d/a", b"1")
    assert list(files(target)) == [f"d/{temporary_name('a')}"]
    target.write("d/a", b"1")
    assert files(target) == {"d/a": b"1"}


def test_a_file_where_a_directory_must_be_is_in_the_way(target: Target) -> None:
    target.write("a", b"x")
    with pytest.raises(TargetError, match="in the way"):
        target.write("a/b", b"y")


def test_no_link_in_the_target_is_written_through(target: Target, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    os.symlink(outside, f"{target.base}/a")
    os.symlink(tmp_path, f"{target.base}/{temporary_name('b')}")
    target.write("a", b"new")
    assert outside.read_bytes() == b"mine"
    with pytest.raises(TargetError):
        target.write("b", b"new")


def test_things_are_removed_whatever_they_are(target: Target) -> None:
    target.write("d/e/f", b"x")
    target.write("g", b"x")
    for path in ("d", "g", "absent", "absent/below"):
        target.remove(path)
    assert os.listdir(target.base) == []


def test_sizes_and_names_of_what_is_there_and_of_what_is_not(target: Target) -> None:
    target.write("d/f", b"123")
    assert (target.size("d/f"), target.size("d/g")) == (3, None)
    assert (target.names("d"), target.names("e")) == (["f"], [])


@pytest.mark.parametrize(
    "act", [lambda t: t.size("a/b"), lambda t: t.names("a"), lambda t: t.remove("a/b"), lambda t: t.user_sessions("u")]
)
def test_an_error_of_looking_is_not_an_absence(
    target: Target, monkeypatch: pytest.MonkeyPatch, act: Callable[[Target], object]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for call in ("stat", "listdir", "open"):
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(TargetError, match="Input/output error"):
        act(target)


def test_the_directory_of_a_user_stays_open_until_the_next(target: Target) -> None:
    first = target.user_sessions("a")
    assert target.user_sessions("a") == first
    second = target.user_sessions("b")
    assert os.path.samestat(os.fstat(second), os.stat(f"{target.base}/text_chat/sessions/b"))


def test_a_target_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="No such file"):
        Target(os.fspath(tmp_path / "absent"))


def test_everything_can_be_made_durable(target: Target) -> None:
    target.write("a", b"x")
    target.sync()


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(TargetError("/new/a", "No space left on device")))
    assert (error.path, error.reason, str(error)) == (
        "/new/a",
        "No space left on device",
        "/new/a: No space left on device",
    )
