"""How the platform's parts are spoken to, wherever they live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol


class Ref(Protocol):
    """A module. Arguments and results are values that pickle; what the module raises arrives as itself.

    *shard_key* names the shard where the module's table does not say which argument does. *timeout_s* bounds the
    whole call (of a stream: the wait for each item); after it TimedOut is raised and the module's function is
    cancelled.
    """

    async def ask(
        self, method: str, /, *args: Any, shard_key: str | None = None, timeout_s: float | None = None, **kwargs: Any
    ) -> Any:
        """The method's result.

        Raises Unavailable when the module's process was away too long, or went away while it had this call and the
        call is not one that may be done twice.
        """
        ...

    def tell(self, method: str, /, *args: Any, shard_key: str | None = None, **kwargs: Any) -> None:
        """The same without an answer. What goes wrong is logged and counted in ``told_failed``."""
        ...

    def stream(
        self, method: str, /, *args: Any, shard_key: str | None = None, timeout_s: float | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """The items of an asynchronous generator. Closing this one cancels that one."""
        ...

    async def stop(self) -> None:
        """End the module: it finishes what it has begun, then its processes go. No call reaches it any more."""
        ...


class Transport(Protocol):
    """The way to one host."""

    async def request(self, operation: str, payload: Any = None) -> Any:
        """What the host answers. Raises Unreachable."""
        ...


class Connector(Protocol):
    """Finds hosts by name, from inside the platform as from outside."""

    def transport(self, module: str, shard: int) -> Transport: ...

    async def end(self, module: str, shard: int) -> None:
        """Make sure that the host is gone and stays gone. Nothing happens when it is gone already."""
        ...
