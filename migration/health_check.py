"""Are the platform's modules well? For the cut-over's last step, and for whoever wants to know.

``python migration/health_check.py [--base DIR]`` asks the platform that runs on a migrated tree, or opens the modules
there itself when none does; prints one line for each module and exits with 0 when nothing is wrong, 1 when a module is
unhealthy, fails or a needed one is missing, 2 on wrong use.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from actors import topology
from actors.locks import is_running
from actors.system import PartHealth, Platform
from modules.core.errors import ModuleNotFound, PlatformError
from modules.core.loader import ModuleLoader

log = logging.getLogger(__name__)

MODULES = (
    "text_chat",
    "memory",
    "rag",
    "multi_agent",
    "tool_use",
    "persona",
    "multimodal",
    "topic_router",
    "trace_logger",
)
# Without these there is no chat; the others only make it richer.
NEEDED = frozenset({"text_chat"})
BASE_VARIABLE = "CHAT_MIGRATION__TARGET"


class ModuleSource(Protocol):
    async def get_module(self, name: str) -> Any | None: ...


async def health_check_all_modules(context: ModuleSource) -> dict[str, str]:
    """Per module: ``healthy``, ``unhealthy``, ``not_loaded`` or ``error: ...``. Never raises for a module's sake."""
    return {name: await _health_of(context, name) for name in MODULES}


def is_well(results: Mapping[str, str]) -> bool:
    """Whether nothing is wrong. A module that is not loaded is wrong only when it is needed."""
    return all(
        health == "healthy" or (health == "not_loaded" and name not in NEEDED) for name, health in results.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="health_check", description="Check the modules on a migrated tree.")
    parser.add_argument("--base", help=f"the migrated tree (default: the environment's {BASE_VARIABLE})")
    arguments = parser.parse_args(argv)
    base = arguments.base or os.environ.get(BASE_VARIABLE)
    if not base or not Path(base).is_dir():
        told = f"{base!r} is no directory" if base else "no migrated tree given"
        sys.stderr.write(f"health_check: {told}: use --base DIR or set {BASE_VARIABLE}\n")
        return 2
    results = _of_running(Path(base)) if is_running(base) else asyncio.run(_check(base))
    width = max(map(len, results))
    for name, health in results.items():
        sys.stdout.write(f"{name:<{width}}  {health}\n")
    return 0 if is_well(results) else 1


def _of_running(base: Path) -> dict[str, str]:
    """Of the platform that runs on *base*, asked from outside."""
    from actors.ray_runtime import RayRuntime  # takes a while to import, and is seldom needed

    async def asked(runtime: RayRuntime) -> dict[str, str]:
        platform = await Platform.connect(base, runtime=runtime)
        try:
            health = await platform.health()
        finally:
            await platform.close()
        return {name: _word_for([part for part in health.parts if part.module == name]) for name in MODULES}

    try:
        runtime = RayRuntime(address=topology.load(base).address or None)
        try:
            return asyncio.run(asked(runtime))
        finally:
            runtime.close()
    except PlatformError as error:
        return dict.fromkeys(MODULES, f"error: {error}")


def _word_for(parts: Sequence[PartHealth]) -> str:
    """Of a module's actors: the first that is not well speaks for all."""
    if not parts:
        return "not_loaded"
    for part in parts:
        if part.report is None:
            return f"error: {part.state}: {part.reason}"
        if not part.is_healthy:
            return "unhealthy"
    return "healthy"


async def _check(base: str) -> dict[str, str]:
    # A module that is not there is not asked for by the others either.
    enabled = {name: {"enabled": _is_there(f"modules.{name}")} for name in MODULES}
    config = {"modules": enabled, "storage": {"base_path": base}}
    loader = ModuleLoader.from_mapping(config)
    unloadable = {name: error for name in MODULES if (error := await _failure_to_load(loader, name))}
    try:
        return await health_check_all_modules(loader.context) | unloadable
    finally:
        await loader.close()


def _is_there(package: str) -> bool:
    return package in sys.modules or find_spec(package) is not None


async def _failure_to_load(loader: ModuleLoader, name: str) -> str | None:
    """What is wrong with a module that is installed; one that is not there at all is simply not loaded."""
    try:
        await loader.load_module(name)
    except ModuleNotFound:
        return None
    except Exception as error:
        log.warning("module %s does not load", name, exc_info=True)
        return f"error: {error}"
    return None


async def _health_of(context: ModuleSource, name: str) -> str:
    try:
        module = await context.get_module(name)
        if module is None or not hasattr(module, "health_check"):
            return "not_loaded"
        return "healthy" if await module.health_check() else "unhealthy"
    except Exception as error:
        log.warning("module %s fails its health check", name, exc_info=True)
        return f"error: {error}"


if __name__ == "__main__":
    sys.exit(main())
