"""Files on their way in: found by their name and their user alone, and gone when they are not kept."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modules.core.clock import new_hex
from modules.core.errors import NotFound, StorageError, Unavailable, ValidationError
from modules.core.spool import HOME, STALE_S, Spool, Spooled, pieces_of
from modules.core.storage import FlatFiles

NAME = "0123456789abcdef" * 2


@pytest.fixture
def files(tmp_path: Path) -> FlatFiles:
    return FlatFiles(tmp_path / "base")


@pytest.fixture
def spool(files: FlatFiles) -> Spool:
    return Spool(files, "rag")


def arrived(spool: Spool, user: str = "ada", content: bytes = b"content") -> Spooled:
    arriving = spool.arriving(user, new_hex())
    arriving.end([content])
    return arriving.spooled


def test_pieces_arrive_and_are_kept_as_one_file(spool: Spool, files: FlatFiles) -> None:
    arriving = spool.arriving("ada", NAME)
    assert files.list(HOME) == []
    arriving.write([b"one, ", b"two, "])
    arriving.end([b"three"])
    with spool.opened("ada", pickle.loads(pickle.dumps(arriving.spooled))) as fd:
        assert b"".join(pieces_of(fd)) == b"one, two, three"
    spool.move("ada", arriving.spooled, "rag/documents/d/original.txt")
    assert files.list("") == ["rag/documents/d/original.txt"]
    assert not arriving.remove()
    assert files.read("rag/documents/d/original.txt") == b"one, two, three"


def test_a_file_without_a_byte_is_one(spool: Spool) -> None:
    with spool.opened("ada", arrived(spool, content=b"")) as fd:
        assert list(pieces_of(fd)) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../" + NAME,
        "/etc/passwd",
        NAME.upper(),
        NAME + "\n",
        NAME[:-1],
        NAME + "0",
        "0" * 31 + "\0",
        "٣" * 32,
        7,
    ],
)
def test_what_is_no_name_is_refused_also_where_it_was_not_built_here(spool: Spool, name: Any) -> None:
    with pytest.raises(ValidationError):
        Spooled(name)
    smuggled = object.__new__(Spooled)
    object.__setattr__(smuggled, "name", name)
    with pytest.raises(ValidationError), spool.opened("ada", smuggled):
        pass
    with pytest.raises(ValidationError):
        spool.move("ada", smuggled, "rag/x")


def test_a_name_is_worth_nothing_to_another_user_or_module(spool: Spool, files: FlatFiles) -> None:
    file = arrived(spool)
    for other, user in ((spool, "eve"), (spool, ""), (Spool(files, "multimodal"), "ada")):
        with pytest.raises(Unavailable, match="send it again"):
            other.move(user, file, "rag/x")
    spool.move("ada", file, "rag/x")
    with pytest.raises(Unavailable):
        spool.move("ada", file, "rag/y")


def test_links_and_what_is_no_file_are_not_taken(spool: Spool, files: FlatFiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    file = arrived(spool)
    (place,) = (tmp_path / "base" / HOME / "rag").iterdir()
    for make in (lambda: place.symlink_to(tmp_path / "secret"), lambda: os.mkfifo(place), place.mkdir):
        place.unlink()
        make()
        with pytest.raises(StorageError):
            spool.move("ada", file, "rag/x")
        assert not files.exists("rag/x")
    place.rmdir()
    place.parent.rmdir()
    place.parent.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="link"):
        arrived(spool)


def test_what_somebody_else_has_raised_stays_what_it_is(spool: Spool) -> None:
    with pytest.raises(NotFound, match="another"), spool.opened("ada", arrived(spool)):
        raise NotFound("another thing")


def test_a_name_that_is_taken_is_not_written_over(spool: Spool) -> None:
    spool.arriving("ada", NAME).end([b"first"])
    with pytest.raises(StorageError, match="exists"):
        spool.arriving("ada", NAME).end([b"second"])
    with spool.opened("ada", Spooled(NAME)) as fd:
        assert os.pread(fd, 100, 0) == b"first"


def test_what_is_given_up_while_it_is_written_is_gone_and_stays_gone(spool: Spool, files: FlatFiles) -> None:
    arriving = spool.arriving("ada", NAME)
    entered, go_on = threading.Event(), threading.Event()

    def pieces() -> Any:
        yield b"one"
        entered.set()
        assert go_on.wait(10)
        yield b"two"

    writer = threading.Thread(target=arriving.write, args=(pieces(),))
    writer.start()
    assert entered.wait(10)
    remover = threading.Thread(target=arriving.remove)
    remover.start()
    go_on.set()
    for thread in (writer, remover):
        thread.join(10)
    assert files.list(HOME) == []
    with pytest.raises(StorageError, match="given up"):
        arriving.write([b"three"])
    assert files.list(HOME) == []


def test_a_full_disk_is_an_error_that_may_pass(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = spool.arriving("ada", NAME)
    arriving.write([b"one"])

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modules.core.storage.os.write", full)
    with pytest.raises(StorageError, match="No space") as refused:
        arriving.write([b"two"])
    assert refused.value.retryable
    assert arriving.remove()


def test_erasing_a_user_takes_what_is_on_its_way_and_nobody_elses(spool: Spool, files: FlatFiles) -> None:
    arriving = spool.arriving("ada", NAME)
    arriving.write([b"half of it"])
    done, other = arrived(spool), arrived(spool, "eve")
    assert spool.erase("ada") == 2
    arriving.end([b"the rest"])
    for file in (arriving.spooled, done):
        with pytest.raises(Unavailable):
            spool.move("ada", file, "rag/x")
    spool.move("eve", other, "rag/x")
    assert files.list("") == ["rag/x"]


def test_what_a_crash_left_goes_when_it_is_old(spool: Spool, files: FlatFiles, tmp_path: Path) -> None:
    old, young = arrived(spool), arrived(spool)
    now = datetime.now(UTC)
    left = next(path for path in (tmp_path / "base").rglob("*") if path.name.endswith(old.name))
    os.utime(left, (now.timestamp() - STALE_S - 1,) * 2)
    assert spool.remove_stale(now) == 1
    assert [key[-32:] for key in files.list(HOME)] == [young.name]
    assert spool.remove_stale(now + timedelta(seconds=STALE_S + 10)) == 1
    assert Spool(files, "never used").remove_stale(now) == 0


@pytest.mark.parametrize("links", [True, False])
def test_a_module_keeps_what_it_owns_whatever_the_sender_does(
    spool: Spool, files: FlatFiles, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    arriving = spool.arriving("ada", NAME)
    arriving.end([b"content"])
    with spool.owned("ada", arriving.spooled, new_hex()) as own:
        assert arriving.remove() is links
        spool.move("ada", own, "rag/documents/d/original.txt")
    assert files.read("rag/documents/d/original.txt") == b"content"
    assert files.list(HOME) == []


def test_what_a_module_owns_and_does_not_keep_is_gone_and_its_senders_is_not(spool: Spool, files: FlatFiles) -> None:
    spooled = arrived(spool)
    with pytest.raises(ZeroDivisionError), spool.owned("ada", spooled, new_hex()):
        raise ZeroDivisionError
    assert [key[-32:] for key in files.list(HOME)] == [spooled.name]


@pytest.mark.parametrize("user", ["eve", "ada"])
def test_nobody_owns_what_is_not_there_for_him(spool: Spool, user: str) -> None:
    spooled = arrived(spool) if user == "eve" else Spooled(NAME)
    with pytest.raises(Unavailable), spool.owned(user, spooled, new_hex()):
        pass
