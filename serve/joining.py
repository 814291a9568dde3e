"""How a process comes by the platform of a base: it joins the one that runs there, or starts it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors import topology as notes
from actors.locks import is_running
from actors.system import Platform, Runtime
from modules.core.errors import Conflict, NotFound, Unavailable

_PAUSE_S = 0.1
# How long somebody else's start may take: the last module may have a model to load.
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Joined:
    """``is_ours``: this call started it."""

    platform: Platform
    is_ours: bool


async def join_or_start(
    settings: Mapping[str, Any], *, base: Path, runtime: Runtime, patience_s: float = _PATIENCE_S
) -> Joined:
    """The platform on *base*, complete. Of several callers at once one starts it and the others wait for it.

    Raises what `Platform.start` raises; Unavailable when another one's start does not come to its end.
    """
    end = time.monotonic() + patience_s
    while True:
        if not is_running(base):
            try:
                return Joined(await Platform.start(settings, base=base, runtime=runtime), is_ours=True)
            except Conflict:
                pass  # somebody was faster
        try:
            if notes.load(base).is_complete:
                return Joined(await Platform.connect(base, runtime=runtime), is_ours=False)
        except NotFound:
            pass  # begun, and nothing noted yet; or just ended
        if time.monotonic() > end:
            raise Unavailable(f"the platform on {base} has not come up within {patience_s:g} s")
        await asyncio.sleep(_PAUSE_S)


def was_replaced(base: Path, incarnation: str) -> bool:
    """Whether the base has another platform now. One that is merely gone may come back, and says so itself."""
    try:
        found = notes.load(base)
    except NotFound:
        return False
    return found.is_complete and found.incarnation != incarnation
