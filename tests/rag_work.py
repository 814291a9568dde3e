"""Work for confined processes that goes wrong in every way."""

from __future__ import annotations

import ctypes
import os
import time


def echo(data: bytes) -> str:
    return data.decode()


def sleep(data: bytes, seconds: float) -> None:
    time.sleep(seconds)


def eat(data: bytes, megabytes: int) -> int:
    return len(bytearray(megabytes << 20))


def crash(data: bytes) -> None:
    ctypes.string_at(0)


def fail(data: bytes) -> None:
    raise ValueError("no good")


def talk(data: bytes, megabytes: int) -> str:
    return "x" * (megabytes << 20)


def environment(data: bytes) -> dict[str, str]:
    return dict(os.environ)


def parent(data: bytes) -> int:
    return os.getppid()
