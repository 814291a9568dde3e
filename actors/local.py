"""The runtime within one process: the same hosts, references and promises, without Ray."""

from __future__ import annotations

import asyncio
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import Conflict

from .errors import Unreachable
from .hosting import Hosting, HostSpec, host_name
from .wire import Codec, Pickled, Shared


class LocalRuntime:
    """With *copies*, arguments and results are pickled as they are between processes, so that a caller or a module
    that changes what it has handed over is found out."""

    address = ""

    def __init__(self, *, copies: bool = False, clock: Clock | None = None) -> None:
        self.codec: Codec = Pickled() if copies else Shared()
        self._clock = clock
        self._hosts: dict[str, Hosting] = {}

    async def start(self, namespace: str, spec: HostSpec) -> None:
        if spec.name in self._hosts:
            raise Conflict(f"{spec.name} runs already in this process")
        self._hosts[spec.name] = await Hosting.start(spec, self, self.codec, self._clock)

    def connector(self, namespace: str) -> LocalRuntime:
        return self

    def transport(self, module: str, shard: int) -> LocalTransport:
        return LocalTransport(self._hosts, host_name(module, shard))

    async def end(self, module: str, shard: int) -> None:
        hosting = self._hosts.pop(host_name(module, shard), None)
        if hosting is not None:
            await hosting.stop(grace_s=0)


class LocalTransport:
    def __init__(self, hosts: dict[str, Hosting], name: str) -> None:
        self._hosts = hosts
        self._name = name
        self._requests: set[asyncio.Task[Any]] = set()

    async def request(self, operation: str, payload: Any = None) -> Any:
        hosting = self._hosts.get(self._name)
        if hosting is None:
            raise Unreachable(f"no host {self._name} runs in this process", was_sent=False, is_final=True)
        # A request that has left is not called back when its caller goes away, here as between processes.
        request = asyncio.create_task(hosting.serve(operation, payload))
        self._requests.add(request)
        request.add_done_callback(self._forget)
        return await asyncio.shield(request)

    def _forget(self, request: asyncio.Task[Any]) -> None:
        self._requests.discard(request)
        if not request.cancelled():
            request.exception()  # retrieved for a caller that went away; one that waits gets it as well
