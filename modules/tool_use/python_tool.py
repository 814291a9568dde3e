"""Calls of functions of this machine: those that the operator listed, and those that this program registered.

An asynchronous function is awaited. Any other runs in a thread, of which there are few: a thread cannot be ended, so
one whose call has timed out is occupied until its function returns, and when all are, calls are refused.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any

from modules.core.errors import ConfigurationError, NotFound, PlatformError, ValidationError

from .errors import ToolFailed, ToolUnavailable
from .output import Output, of_value

_THREADS = 8


class PythonTools:
    """*listed* are ``package.module:function``: nothing else is ever imported."""

    def __init__(self, listed: tuple[str, ...], max_output_bytes: int) -> None:
        self._listed = frozenset(listed)
        self._max_bytes = max_output_bytes
        self._known: dict[str, Callable[..., Any]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tool")
        self._busy: set[Future[Any]] = set()

    def add(self, path: str, function: Callable[..., Any]) -> None:
        """Make *function* callable under *path*, for programs that have one at hand."""
        self._known[path] = function

    def check(self, path: str) -> None:
        """Raises ValidationError for a function that is not listed."""
        if path not in self._known and path not in self._listed:
            raise ValidationError(
                f"python:{path} is not in tool_use.python_tools, so it is not imported", param="endpoint"
            )

    async def call(self, path: str, parameters: Mapping[str, Any]) -> Output:
        """Raises ToolFailed with what the function raised, ToolAnswerInvalid for what is no JSON."""
        self.check(path)
        function = self._known.get(path)
        if function is None:
            function = self._known[path] = await asyncio.to_thread(_found, path)
        try:
            if inspect.iscoroutinefunction(function):
                value = await function(**parameters)
            else:
                value = await asyncio.wrap_future(self._submitted(function, parameters))
        except (PlatformError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise ToolFailed(f"{path} failed: {type(error).__name__}: {error}") from error
        return of_value(value, self._max_bytes)

    def close(self) -> None:
        """Without waiting for functions that do not return."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submitted(self, function: Callable[..., Any], parameters: Mapping[str, Any]) -> Future[Any]:
        if len(self._busy) >= _THREADS:
            raise ToolUnavailable(f"all {_THREADS} threads for functions are occupied", was_sent=False)
        work = self._pool.submit(function, **parameters)
        self._busy.add(work)
        work.add_done_callback(self._busy.discard)
        return work


def _found(path: str) -> Callable[..., Any]:
    package, _, names = path.partition(":")
    try:
        found: Any = import_module(package)
    except ImportError as error:
        raise ConfigurationError(f"python:{path}, of tool_use.python_tools, cannot be imported: {error}") from error
    for name in names.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise NotFound(f"{package} has no {names}")
    if not callable(found):
        raise ConfigurationError(f"python:{path}, of tool_use.python_tools, is no function")
    function: Callable[..., Any] = found
    return function
