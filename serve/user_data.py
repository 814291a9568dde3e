"""All of a user, over all modules that run: out as one document, or gone.

Every running module that has ``export_user`` and ``erase_user`` is asked; then what no module owns is looked at
(`serve.leftovers`). trace_logger comes last: until the others are done, it hears of what they do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from actors.module_ref import ModuleRef
from actors.system import Platform
from modules.core.errors import Unavailable
from modules.core.storage import FlatFiles

from .audit import Audit
from .leftovers import Leftovers

log = logging.getLogger(__name__)

# A user's whole past may be long.
_TIMEOUT_S = 600.0
_LAST = "trace_logger"


class UserData:
    def __init__(self, platform: Platform, files: FlatFiles, audit: Audit) -> None:
        self._platform = platform
        self._files = files
        self._audit = audit

    async def export(self, user_id: str) -> dict[str, Any]:
        """Raises what a module raises: a document that lacks a part would be taken for the whole."""
        modules = {
            name: await ref.ask("export_user", user_id=user_id, timeout_s=_TIMEOUT_S)
            for name, ref in self._having("export_user").items()
        }
        leftovers = await asyncio.to_thread(lambda: Leftovers(self._files, user_id).export())
        return {"object": "user.export", "user_id": user_id, "modules": modules, "attic": leftovers}

    async def erase(self, user_id: str, by: str, request_id: str) -> dict[str, Any]:
        """Cannot be undone. Doing it again does what was left undone. The audit says when it began and how it ended.

        Every module is asked, also after one that fails; then Unavailable names those that did.
        """
        asked = self._having("erase_user")
        about = {"by": by, "request_id": request_id}
        await self._audit.record("user.erase.begun", user_id, f"user:{user_id}", {**about, "modules": list(asked)})
        removed = await asyncio.to_thread(lambda: Leftovers(self._files, user_id).erase())
        erased: dict[str, Any] = {}
        failed: list[str] = []
        for name, ref in asked.items():
            asking = ref.ask("erase_user", user_id=user_id, timeout_s=_TIMEOUT_S)
            answer: Any = (await asyncio.gather(asking, return_exceptions=True))[0]
            if isinstance(answer, BaseException):
                log.error("module %s could not erase a user", name, exc_info=answer)
                failed.append(name)
            else:
                erased[name] = shown(answer)
        summary = {**about, "erased": erased, "attic_files": removed.attic_files, "failed": failed}
        await self._audit.record("user.erase.ended", user_id, f"user:{user_id}", summary)
        if failed:
            raise Unavailable(f"not erased yet in {', '.join(failed)}: ask again; the rest is done")
        return {
            "object": "user.erasure",
            "user_id": user_id,
            "modules": erased,
            "attic_files": removed.attic_files,
            "mentions": list(removed.mentions),
            "not_asked": self._not_asked(),
        }

    def _having(self, function: str) -> Mapping[str, ModuleRef]:
        having = [(name, ref) for name, ref in self._platform.refs.items() if function in ref.placed.manifest.functions]
        return dict(sorted(having, key=lambda one: one[0] == _LAST))

    def _not_asked(self) -> list[str]:
        """Modules that have data on disk and do not run, or cannot erase: theirs is still there."""
        asked = self._having("erase_user")
        directories = set(self._files.directories(""))
        return sorted(directories & _OWNERS - asked.keys())


_OWNERS = frozenset(
    {
        "text_chat",
        "memory",
        "rag",
        "multi_agent",
        "tool_use",
        "persona",
        "multimodal",
        "topic_router",
        "trace_logger",
    }
)


def shown(counts: Any) -> Any:
    """What a module says of an erasure, as plain values."""
    if dataclasses.is_dataclass(counts) and not isinstance(counts, type):
        return dataclasses.asdict(counts)
    return counts
