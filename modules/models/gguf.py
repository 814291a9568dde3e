"""Reads the metadata of a GGUF file: what a model says of itself, without loading it.

Format: "GGUF", specification in the ggml repository, docs/gguf.md; versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ModelMisconfigured

_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_HEADER = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata entries
_SCALARS = {
    kind: struct.Struct("<" + code)
    for kind, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_STRING, _ARRAY = 8, 9


def gguf_metadata(path: Path) -> dict[str, Any]:
    """All entries, strings as text. Raises ModelMisconfigured for a file that is missing, torn or none of the kind."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            magic, version, _, entries = _HEADER.unpack_from(data)
            if magic != _MAGIC or version not in _VERSIONS:
                raise ModelMisconfigured(f"{path} is no GGUF file of version 2 or 3")
            cursor = _Cursor(data, _HEADER.size)
            return {cursor.string(): cursor.value(cursor.number(4)) for _ in range(entries)}
    except (OSError, ValueError, KeyError, struct.error, MemoryError) as error:
        raise ModelMisconfigured(f"cannot read {path} as a model: {error!r}") from error


class _Cursor:
    """Reads forward through *data*."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self._at = at

    def number(self, kind: int) -> Any:
        scalar = _SCALARS[kind]
        (value,) = scalar.unpack_from(self._data, self._at)
        self._at += scalar.size
        return value

    def string(self) -> str:
        length = self.number(10)
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError("a string reaches beyond the end")
        return self._data[start : self._at].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(kind)
        item, length = self.number(4), self.number(10)
        read: Callable[[], Any] = self.string if item == _STRING else lambda: self.value(item)
        return [read() for _ in range(length)]
