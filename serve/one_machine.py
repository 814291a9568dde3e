"""Everything that serves, on one machine: brought up, kept up until told to stop, brought down in order."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from actors import topology as notes
from actors.locks import is_running
from config.errors import ConfigurationError
from config.settings import Settings
from modules.core.errors import NotFound, Unavailable

from .addresses import free_port
from .high_throughput import Places, environment, installed_program
from .signals import Signals

if TYPE_CHECKING:
    from actors.ray_runtime import RayRuntime

    from .deployment import Server
    from .joining import Joined

log = logging.getLogger(__name__)

Read = Callable[[], Settings]
Announce = Callable[["Joined"], None]


def run(settings: Settings, base: Path, *, reread: Read, announce: Announce) -> None:
    """Serve *base* until a signal, or until the platform is stopped from outside. *announce* is called once requests
    are answered. At SIGHUP *reread* gives new settings (or raises ConfigurationError), and new replicas with them take
    the place of the old ones; where it listens and what the modules do stays as it was.

    Sets variables of this process's environment, from which Ray Serve reads its mode when it is imported. Raises
    PlatformError when something does not come up, ExceptionGroup with what modules raise that fail to close.
    """
    # A short path, for the sockets in it; its owner's alone, since who can open one of them commands HAProxy.
    directory = Path(tempfile.mkdtemp(prefix="modchat-", dir="/tmp"))
    try:
        program = installed_program() if settings.http.high_throughput else Path(sys.executable)
        cores = len(os.sched_getaffinity(0))
        environ = environment(settings.http, Places(directory, program, free_port()), cores=cores)
        os.environ.update(environ)

        # Ray takes half a second to import: other commands need not pay for it.
        from actors.ray_runtime import RayRuntime

        address = _address_for(settings, base)
        runtime = RayRuntime(address=address)
        try:
            asyncio.run(_serve(settings, base, runtime, environ, reread, announce, ray_is_ours=address is None))
        finally:
            runtime.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _address_for(settings: Settings, base: Path) -> str | None:
    """The Ray on which the base's platform runs, else that of the settings, else none: one of this process."""
    if is_running(base):
        try:
            return notes.load(base).address or None
        except NotFound:
            pass  # it has just begun, or is all but gone
    return settings.runtime.address


async def _serve(
    settings: Settings,
    base: Path,
    runtime: RayRuntime,
    environ: Mapping[str, str],
    reread: Read,
    announce: Announce,
    *,
    ray_is_ours: bool,
) -> None:
    from .deployment import Server
    from .joining import join_or_start

    signals = Signals()
    joined = await join_or_start(settings.model_dump(), base=base, runtime=runtime)
    server = Server(base, settings, environ)
    starting = asyncio.create_task(server.start())
    try:
        await signals.until_first(starting)
        if not signals.is_asked:
            announce(joined)
            await _keep_up(server, joined, signals, reread)
    finally:
        limit_s = settings.http.shutdown_seconds
        await _bring_down(server, joined, signals, limit_s=limit_s, ray_is_ours=ray_is_ours)


async def _keep_up(server: Server, joined: Joined, signals: Signals, reread: Read) -> None:
    """Returns when an end was asked for, or somebody else has stopped the platform."""
    while not signals.is_asked and await asyncio.to_thread(_still_runs, server.base, joined):
        if signals.take_hang_up():
            await _redeploy(server, reread)
        await signals.pause()


async def _redeploy(server: Server, reread: Read) -> None:
    try:
        await server.redeploy(replaced(server.settings, await asyncio.to_thread(reread)))
        log.warning("the settings were read again, and new replicas have them")
    except (ConfigurationError, Unavailable) as error:
        log.error("the settings stay as they were: %s", error)


def replaced(running: Settings, read: Settings) -> Settings:
    """The settings *read*, but for what a replica cannot change: where the server listens, and what belongs to the
    modules, which run on."""
    fixed = {"host": running.http.host, "port": running.http.port, "high_throughput": running.http.high_throughput}
    http = read.http.model_copy(update=fixed)
    return running.model_copy(update={"http": http})


async def _bring_down(server: Server, joined: Joined, signals: Signals, *, limit_s: float, ray_is_ours: bool) -> None:
    """First what clients wait for, then what keeps their messages, then the servers. A Ray of this process takes its
    Serve with it."""
    try:
        await signals.until_second(asyncio.create_task(server.drain(limit_s=limit_s)))
    finally:
        try:
            # A stream that still runs is ended by its module, which keeps what there is of the answer, and its reader
            # is told so.
            await (joined.platform.stop() if joined.is_ours else joined.platform.close())
        finally:
            if not ray_is_ours:
                await server.stop()


def _still_runs(base: Path, joined: Joined) -> bool:
    """Whether nobody has stopped the platform from outside."""
    try:
        return notes.load(base).incarnation == joined.platform.topology.incarnation
    except NotFound:
        return False
