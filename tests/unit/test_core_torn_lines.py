"""What a crash left at the end of a file of lines is kept elsewhere and taken off; anything whole stays."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import NotFound, StorageError
from modules.core.storage import FlatFiles
from modules.core.torn_lines import set_aside_torn_end


def is_whole(data: bytes) -> bool:
    return data.endswith(b"}")


def mend(base: Path, start: int = 0) -> None:
    set_aside_torn_end(FlatFiles(base), "log.jsonl", "quarantine.jsonl", is_whole=is_whole, start=start)


def rows(base: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (base / "quarantine.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"{}\n{}", b"{}\n\n"])
def test_what_is_whole_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    mend(tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == content
    assert not (tmp_path / "quarantine.jsonl").exists()


@pytest.mark.parametrize("start", [0, 3, 6])
def test_a_torn_end_is_kept_with_its_place(tmp_path: Path, start: int) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{}\n{}\n{"a\xff')
    mend(tmp_path, start)
    assert (tmp_path / "log.jsonl").read_bytes() == b"{}\n{}\n"
    (row,) = rows(tmp_path)
    assert (row["line"], row["offset"], row["raw_encoding"]) == (3, 6, "base64")
    assert base64.b64decode(row["raw"]) == b'{"a\xff'


def test_a_crash_between_the_two_steps_leaves_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{}\n{"a')

    def cut(*_: object) -> None:
        raise StorageError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", cut)
        with pytest.raises(StorageError):
            mend(tmp_path)
    mend(tmp_path)
    assert [row["raw"] for row in rows(tmp_path)] == ['{"a']


def test_a_line_that_somebody_is_just_writing_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{}\n{"half')
    with log.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        mending = threading.Thread(target=mend, args=(tmp_path,))
        mending.start()
        mending.join(0.1)
        assert mending.is_alive()
        file.write(b' and half"}\n')
    mending.join(10)
    assert log.read_bytes() == b'{}\n{"half and half"}\n'
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        mend(tmp_path)
