"""Bytes as an open file that has no name: for a child process, which is given descriptors alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .storage import write_all


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("content", os.MFD_CLOEXEC)
    try:
        write_all(fd, content)
        yield fd
    finally:
        os.close(fd)
