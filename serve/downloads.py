"""Files that are given out as they stand, piece by piece, with ranges; without passing through their module.

The file is opened before the answer begins, through `FlatFiles`, which follows no links and leaves no base. From then
on it is read by its descriptor, so what is deleted meanwhile is sent whole all the same.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from modules.core.errors import ValidationError
from modules.core.storage import FlatFiles
from modules.core.stored_file import StoredFile

from .errors import NoSuchRange
from .exchange import exchange_of

_TOLD_BY_ITSELF = "application/octet-stream"
# What a browser shows without running any of it.
_SHOWN = ("image/", "audio/", "video/")

# For the routes' descriptions.
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {_TOLD_BY_ITSELF: {}}, "description": "The file, byte for byte"},
    206: {"content": {_TOLD_BY_ITSELF: {}}, "description": "The parts that `Range` asked for"},
}


async def download(files: FlatFiles, stored: StoredFile, *, content_type: str = _TOLD_BY_ITSELF) -> FileResponse:
    """The file, to be saved. *content_type* is told where it runs nothing. Raises NotFound, StorageError."""
    opened = await asyncio.to_thread(_opened, files, stored.key)
    told = content_type if content_type.startswith(_SHOWN) else _TOLD_BY_ITSELF
    name = quote(stored.name.encode("utf-8", "replace") or stored.key.rpartition("/")[2], safe="")
    return _OpenedFile(opened, media_type=told, headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"})


class _OpenedFile(FileResponse):
    chunk_size = 256 << 10

    def __init__(self, opened: BinaryIO, **options: Any) -> None:
        self._opened = opened
        # Opened again by its descriptor: the same file, whatever has become of its name.
        super().__init__(f"/proc/self/fd/{opened.fileno()}", stat_result=os.fstat(opened.fileno()), **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def checked(message: Message) -> None:
            # What is wrong with a range is said in this server's own shape; nothing was sent so far.
            if message["type"] == "http.response.start":
                if message["status"] == NoSuchRange.status:
                    told = dict(message["headers"])[b"content-range"]
                    exchange_of(scope).headers.append((b"content-range", told))
                    raise NoSuchRange("the file ends before this range begins", param="Range")
                if message["status"] == 400:
                    raise ValidationError("not a range of bytes", param="Range")
            await send(message)

        try:
            await super().__call__(scope, receive, checked)
        finally:
            self._opened.close()


def _opened(files: FlatFiles, key: str) -> BinaryIO:
    with files.opened(key, os.O_RDONLY) as fd:
        return os.fdopen(os.dup(fd), "rb", buffering=0)
