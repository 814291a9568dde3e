"""Who did what to whose data, kept whether trace_logger runs or not.

Where trace_logger runs, entries are its own (`create_audit_entry`, a hash chain). Where it does not, or is away, they
are appended to ``serve/audit.jsonl`` below the base. Changes of keys are noted beside the file of keys
(`serve.keys.KeyFile.audit_path`): they are made by a command, which needs no platform.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from actors.system import Platform
from modules.core.clock import Clock
from modules.core.errors import PlatformError
from modules.core.storage import FlatFiles

from .json_response import encoded

log = logging.getLogger(__name__)

AUDIT_KEY = "serve/audit.jsonl"
_MODULE = "trace_logger"


class Audit:
    def __init__(self, platform: Platform, files: FlatFiles, clock: Clock) -> None:
        self._platform = platform
        self._files = files
        self._clock = clock

    async def record(self, action: str, user_id: str, resource: str, details: Mapping[str, Any]) -> None:
        """Returns when the entry is durable. Raises StorageError when it can be kept nowhere."""
        if _MODULE in self._platform.refs:
            try:
                await self._platform.ref(_MODULE).ask("create_audit_entry", action, user_id, resource, dict(details))
                return
            except PlatformError as error:
                log.warning("trace_logger took no audit entry, so it goes to %s: %s", AUDIT_KEY, error)
        entry = {
            "timestamp": self._clock.now().isoformat(),
            "action": action,
            "user_id": user_id,
            "resource": resource,
            "details": dict(details),
        }
        await asyncio.to_thread(self._files.append, AUDIT_KEY, encoded(entry) + b"\n", fsync=True)
