"""Reading a store that may be in use: whole files, no links, no devices, and an error is never an end."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migration.v2 import read
from migration.v2.names import V2Names
from migration.v2.read import (
    SourceError,
    is_g1_user,
    list_below,
    open_directory,
    open_file,
    read_file,
    read_regular,
    scan,
    special_kind,
)

LATER = time.time_ns() + 3_600_000_000_000  # every file is old by then
CHUNK = read._CHUNK


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("now_ns", [LATER, 0], ids=["old", "young"])
def test_a_file_of_any_size_is_read_whole(tmp_path: Path, size: int, now_ns: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    found, status = read_file(os.fspath(tmp_path / "f"), None, now_ns)
    assert found == data
    assert status.st_size == size


def test_files_and_directories_are_opened_relative_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x")
    fd = open_directory("d", (base := open_directory(os.fspath(tmp_path))))
    try:
        assert read_file("f", fd, LATER)[0] == b"x"
    finally:
        os.close(fd)
        os.close(base)


class Writer:
    """Lets something happen to a file between the reads of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[int], None]) -> None:
        self.reads = 0
        self._happens = happens
        self._read = os.read
        monkeypatch.setattr(os, "read", self)

    def __call__(self, fd: int, count: int) -> bytes:
        data = self._read(fd, count)
        self.reads += 1
        self._happens(self.reads)
        return data


def test_a_file_that_grows_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\n")

    def grow(reads: int) -> None:
        if reads <= 2:
            with path.open("ab") as file:
                file.write(b"more\n")

    Writer(monkeypatch, grow)
    data, status = read_file(os.fspath(path), None, time.time_ns())
    assert data == b"one\nmore\nmore\n"
    assert status.st_size == len(data)


def test_a_file_rewritten_with_the_same_size_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")

    def rewrite(reads: int) -> None:
        if reads == 1:
            path.write_bytes(b"two")

    Writer(monkeypatch, rewrite)
    assert read_file(os.fspath(path), None, time.time_ns())[0] == b"two"


def test_a_file_that_never_stands_still_is_given_up_after_some_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")

    def grow(_: int) -> None:
        with path.open("ab") as file:
            file.write(b"x")

    writer = Writer(monkeypatch, grow)
    data, _ = read_file(os.fspath(path), None, time.time_ns())
    assert set(data) == {ord("x")}
    assert writer.reads < 30


@pytest.mark.parametrize("opens", [open_file, lambda path: read_file(path, None, LATER), read_regular])
def test_a_link_is_not_followed(tmp_path: Path, opens: Callable[[str], object]) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(OSError, match="link"):
        opens(os.fspath(tmp_path / "link"))


@pytest.mark.parametrize("opens", [open_file, read_regular])
def test_a_pipe_is_refused_at_once(tmp_path: Path, opens: Callable[[str], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        opens(os.fspath(tmp_path / "pipe"))


def test_a_device_is_never_read() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_regular("/dev/zero")


def test_a_directory_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    with pytest.raises(OSError, match=r"link|Not a directory"):
        open_directory(os.fspath(tmp_path / "link"))


def test_a_listing_holds_everything_below_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/b/f").write_bytes(b"12")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "a/pipe")
    os.utime(tmp_path / "a/b/f", ns=(5, 7))
    found = list_below(os.fspath(tmp_path))
    assert {name: (facts.size, facts.mtime_ns) for name, facts in found.files.items()} == {"a/b/f": (2, 7)}
    assert (found.empty_dirs, found.links, found.special) == (["empty"], {"link": "a"}, {"a/pipe": "fifo"})
    assert found.errors == []


def failing_scandir(monkeypatch: pytest.MonkeyPatch, where: str, after: int) -> None:
    """Makes the listing of every directory called *where* fail once it has given *after* entries."""
    scandir = os.scandir

    class Failing:
        def __init__(self, path: str) -> None:
            self._entries = scandir(path)
            self._left = after if os.path.basename(path) == where else -1

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            self._entries.close()

        def __iter__(self) -> Failing:
            return self

        def __next__(self) -> os.DirEntry[str]:
            if self._left == 0:
                raise OSError(5, "Input/output error")
            self._left -= 1
            return next(self._entries)

    monkeypatch.setattr(os, "scandir", Failing)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_in_the_middle_of_a_listing_is_not_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    (tmp_path / "d").mkdir()
    for name in "ab":
        (tmp_path / "d" / name).write_bytes(b"")
    failing_scandir(monkeypatch, "d", after)
    with pytest.raises(OSError, match="Input/output error"):
        list(scan(os.fspath(tmp_path / "d")))
    found = list_below(os.fspath(tmp_path))
    assert [(error.path, error.reason) for error in found.errors] == [(f"{tmp_path}/d", "Input/output error")]
    assert "d" not in found.empty_dirs


def test_a_directory_that_is_gone_is_told_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    (error,) = list_below(os.fspath(tmp_path / "gone")).errors
    assert error.is_gone
    assert not SourceError.of("x", PermissionError(13, "Permission denied")).is_gone
    assert str(SourceError("x", "why")) == "x: why"


@pytest.mark.parametrize(
    ("files", "is_user"),
    [
        (["profile.json"], True),
        (["s/session.json"], True),
        (["s/messages.jsonl"], True),
        (["s/other.json", "readme"], False),
        (["s/t/session.json"], False),
        ([], False),
    ],
)
def test_users_of_the_first_generation(tmp_path: Path, files: list[str], is_user: bool) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"{}")
    assert is_g1_user(os.fspath(tmp_path), V2Names()) is is_user


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (stat.S_IFIFO, "fifo"),
        (stat.S_IFSOCK, "socket"),
        (stat.S_IFCHR, "character device"),
        (stat.S_IFBLK, "block device"),
        (0, "unknown"),
    ],
)
def test_what_special_things_are_called(mode: int, kind: str) -> None:
    assert special_kind(mode) == kind
