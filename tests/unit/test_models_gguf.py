from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from modules.models.errors import ModelMisconfigured
from modules.models.gguf import gguf_metadata


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(*entries: tuple[str, int, bytes], version: int = 3, magic: bytes = b"GGUF") -> bytes:
    body = b"".join(string(key) + struct.pack("<I", kind) + value for key, kind, value in entries)
    return magic + struct.pack("<IQQ", version, 0, len(entries)) + body


STRINGS = struct.pack("<IQ", 8, 2) + string("a") + string("été")
NESTED = struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 2) + struct.pack("<ii", -1, 7)


def read(tmp_path: Path, data: bytes) -> dict[str, Any]:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return gguf_metadata(path)


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    data = gguf(
        ("window", 4, struct.pack("<I", 8192)),
        ("big", 10, struct.pack("<Q", 2**40)),
        ("scale", 6, struct.pack("<f", 0.5)),
        ("flag", 7, b"\x01"),
        ("name", 8, string("tiny")),
        ("tokens", 9, STRINGS),
        ("nested", 9, NESTED),
    )
    assert read(tmp_path, data) == {
        "window": 8192,
        "big": 2**40,
        "scale": 0.5,
        "flag": True,
        "name": "tiny",
        "tokens": ["a", "été"],
        "nested": [[-1, 7]],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        gguf(magic=b"GGML"),
        gguf(version=1),
        gguf(("name", 8, string("tiny")))[:-1],
        gguf(("name", 8, struct.pack("<Q", 2**62))),
        gguf(("odd", 77, b"")),
        gguf(("tokens", 9, struct.pack("<IQ", 4, 2**60))),
        gguf(("name", 8, struct.pack("<Q", 1) + b"\xff")),
    ],
    ids=["empty", "torn header", "other magic", "old", "torn", "long string", "unknown kind", "long array", "no UTF-8"],
)
def test_what_is_no_model_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelMisconfigured, match=r"model\.gguf"):
        read(tmp_path, data)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelMisconfigured, match="nowhere"):
        gguf_metadata(tmp_path / "nowhere.gguf")
