"""The HTTP application on a real server in this process, on a loopback port of its own, for clients that block."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from actors.local import LocalRuntime
from actors.system import Platform
from config.settings import Settings
from serve.app import create_app

_UP_S = 60.0


@contextmanager
def live_server(base: Path, settings: Settings, names: tuple[str, ...]) -> Iterator[str]:
    """Its address, such as ``http://127.0.0.1:34567``."""
    values = settings.model_dump()
    values["modules"] = {name: values["modules"][name] for name in names}
    # With the protocol named, else asyncio does not turn Nagle's algorithm off, and each answer takes 40 ms more.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    failures: list[BaseException] = []
    servers: list[uvicorn.Server] = []
    is_up = threading.Event()

    async def run() -> None:
        platform = await Platform.start(values, base=base, runtime=LocalRuntime(copies=True))
        try:
            app = create_app(platform, settings)
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
            servers.append(server)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            is_up.set()
            await serving
        finally:
            await platform.stop()

    def in_thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            failures.append(error)
        finally:
            is_up.set()

    thread = threading.Thread(target=in_thread, name="live-server")
    thread.start()
    try:
        assert is_up.wait(_UP_S)
        if failures:
            raise failures[0]
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(_UP_S)
        listening.close()
    if failures:
        raise failures[0]
