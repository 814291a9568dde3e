"""``modchat up``, ``modchat status`` and ``modchat down``: a platform from the command line.

``up`` stays in the foreground, and the platform lives as long as it does: until Ctrl-C, SIGTERM or ``down``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.errors import ConfigurationError as WrongSettings
from config.load import load_settings
from modules.core.errors import ConfigurationError, Conflict, NotFound, PlatformError, ValidationError

from . import topology as notes
from .locks import is_running
from .sharding import can_split
from .system import PartHealth, Platform, PlatformHealth

if TYPE_CHECKING:
    from .ray_runtime import RayRuntime

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CLEAN, LOOK, WRONG_USE, TRY_AGAIN, REFUSED = 0, 1, 2, 3, 4

_POLL_S = 0.5


def register(subparsers: SubParsers) -> None:
    """Adds ``up``, ``status`` and ``down``."""
    up_parser = subparsers.add_parser("up", help="run the platform on a directory, until Ctrl-C or 'modchat down'")
    up_parser.add_argument("--shards", type=_count, metavar="N", help="actors of each module that can be split")
    up_parser.add_argument("--address", metavar="ADDR", help="Ray cluster to run on; without it, this machine alone")
    up_parser.add_argument("--config-dir", metavar="DIR", help="directory laid over the packaged settings")
    up_parser.add_argument("--environment", metavar="E", help="development, production, test or one of the directory")
    up_parser.set_defaults(handler=up)
    status_parser = subparsers.add_parser("status", help="what runs on a directory, and how it is")
    status_parser.add_argument("--json", action="store_true", help="print JSON")
    status_parser.set_defaults(handler=status)
    down_parser = subparsers.add_parser("down", help="stop the platform that runs on a directory")
    down_parser.set_defaults(handler=down)
    for parser in (up_parser, status_parser, down_parser):
        parser.add_argument("--base", required=True, metavar="DIR", type=Path, help="the platform's tree")


def up(args: argparse.Namespace) -> int:
    """Runs the platform. 0 when it was stopped; 2 for settings or a directory that cannot be used; 3 when Ray or a
    part was not there; 4 when a platform runs on the directory already."""
    if not args.base.is_dir():
        return _say(WRONG_USE, f"{args.base}: no such directory; make it, or name the tree that a migration made")
    try:
        settings = load_settings(args.config_dir, environment=args.environment, environ=os.environ).model_dump()
    except WrongSettings as error:
        return _say(WRONG_USE, str(error))
    if args.shards is not None:
        for name in filter(can_split, settings["modules"]):
            settings["modules"][name]["shards"] = args.shards
    if is_running(args.base):  # looked at before Ray is started, which takes seconds
        return _say(REFUSED, f"a platform runs on {args.base} already; see 'modchat status --base {args.base}'")
    return _on_ray(args.address or settings["runtime"]["address"], lambda ray: _run(settings, args.base, ray))


def status(args: argparse.Namespace) -> int:
    """Prints how every actor is. 0 when all are well; 1 when one is not; 3 when nothing runs."""
    topology = _running(args.base)
    if topology is None:
        if args.json:
            print(json.dumps({"state": "stopped", "base": str(args.base)}))
            return TRY_AGAIN
        return _say(TRY_AGAIN, f"no platform runs on {args.base}")

    async def ask(runtime: RayRuntime) -> int:
        platform = await Platform.connect(args.base, runtime=runtime)
        health = await platform.health()
        await platform.close()
        if args.json:
            print(json.dumps({"state": "running", "base": str(args.base), **_as_json(health, platform)}, indent=2))
        else:
            print(_as_text(health, platform))
        return CLEAN if health.is_healthy else LOOK

    return _on_ray(topology.address, ask)


def down(args: argparse.Namespace) -> int:
    """Stops the platform. 0 when none runs afterwards; 1 when a module did not close as it should."""
    topology = _running(args.base)
    if topology is None:
        return _say(CLEAN, f"no platform runs on {args.base}")

    async def stop(runtime: RayRuntime) -> int:
        platform = await Platform.connect(args.base, runtime=runtime)
        await platform.stop()
        print(f"stopped: {', '.join(platform.refs)}")
        return CLEAN

    return _on_ray(topology.address, stop)


async def _run(settings: dict[str, Any], base: Path, runtime: RayRuntime) -> int:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    platform = await Platform.start(settings, base=base, runtime=runtime)
    print(f"running on {base}: {', '.join(platform.refs)}", flush=True)
    print(f"reached by 'modchat status --base {base}'; Ray at {runtime.address}", flush=True)
    while not asked_to_stop.is_set() and _is_ours(base, platform):
        try:
            async with asyncio.timeout(_POLL_S):
                await asked_to_stop.wait()
        except TimeoutError:
            continue
    if asked_to_stop.is_set():
        await platform.stop()
    else:
        await platform.close()
    print("stopped", flush=True)
    return CLEAN


def _is_ours(base: Path, platform: Platform) -> bool:
    """Whether nobody has stopped the platform from outside."""
    try:
        return notes.load(base).incarnation == platform.topology.incarnation
    except NotFound:
        return False


def _running(base: Path) -> notes.Topology | None:
    if not is_running(base):
        return None
    try:
        return notes.load(base)
    except NotFound:
        return None  # it is just starting, or all but gone


def _on_ray(address: str | None, work: Callable[[RayRuntime], Awaitable[int]]) -> int:
    # Ray takes half a second to import: other commands need not pay for it.
    from .ray_runtime import RayRuntime

    async def whole(runtime: RayRuntime) -> int:
        return await work(runtime)

    try:
        runtime = RayRuntime(address=address or None)
        try:
            return asyncio.run(whole(runtime))
        finally:
            runtime.close()
    except PlatformError as error:
        return _say(_code_of(error), str(error))
    except ExceptionGroup as failures:
        return _say(LOOK, "; ".join(str(error) for error in failures.exceptions))


def _code_of(error: PlatformError) -> int:
    if isinstance(error, Conflict):
        return REFUSED
    if isinstance(error, ConfigurationError | ValidationError):
        return WRONG_USE
    return TRY_AGAIN if error.retryable else LOOK


def _as_json(health: PlatformHealth, platform: Platform) -> dict[str, Any]:
    return {
        "healthy": health.is_healthy,
        "address": platform.topology.address,
        "namespace": platform.topology.namespace,
        "not_loaded": list(health.absent),
        "parts": [{**asdict(part), "is_healthy": part.is_healthy} for part in health.parts],
    }


def _as_text(health: PlatformHealth, platform: Platform) -> str:
    lines = [f"running on {platform.base}; Ray at {platform.topology.address}"]
    lines += [_line(part) for part in health.parts]
    lines += [f"{name:<16} not installed" for name in health.absent]
    return "\n".join(lines)


def _line(part: PartHealth) -> str:
    name = f"{part.module}[{part.shard}]"
    if part.report is None:
        return f"{name:<16} {part.state}: {part.reason}"
    calls, dropped = part.report.calls, sum(part.report.events.dropped.values())
    health = "healthy" if part.is_healthy else "unhealthy"
    return (
        f"{name:<16} {part.state}, {health}; process {part.report.pid}; {calls.calls} calls, {calls.failed} failed, "
        f"{calls.running} running; {calls.streams} streams; {calls.events} events, {dropped} dropped"
    )


def _say(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
