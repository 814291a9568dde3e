"""Bytes as an open file that has no name: for a child process, which is given descriptors alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MediaTooLarge


@contextmanager
def memory_file(content: bytes, *, max_bytes: int) -> Iterator[int]:
    """Raises MediaTooLarge."""
    if len(content) > max_bytes:
        raise MediaTooLarge(f"the file has {len(content)} bytes, {max_bytes} at most are taken")
    fd = os.memfd_create("multimodal", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield fd
    finally:
        os.close(fd)
