"""The file and directory names of a v2 store: fixed by default, configurable in v2, so configurable here.

Source: V2's configuration sections `storage`, `document`, `vector` and `panel`; the names that v2 hard-codes whatever
its configuration says (``situational_context.json``, ``context_history``, ``.lock``) are constants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

CONTEXT = "situational_context.json"
HISTORY = "context_history"
SHARD_SUFFIX = "_messages.jsonl"
LOCK_SUFFIX = ".lock"
SYSTEM_DIR = "system"

BACKUP = re.compile(r"(?P<name>.+)\.backup_(?P<stamp>\d{8}_\d{6})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class V2Names:
    """What one v2 installation called its files. Built from defaults or from a v2 configuration."""

    users_dirs: tuple[str, ...] = ("users",)
    profile: str = "profile.json"
    session: str = "session.json"
    messages: str = "messages.jsonl"
    documents: str = "documents"
    document_index: str = "metadata.json"
    sessions_dir: str = "sessions"
    vectors: str = "vectors"
    vector_index: str = "vector_index.jsonl"
    embeddings: str = "embeddings.npy"
    personas_dir: str = "personas"
    panel_dirs: tuple[str, ...] = ("panel_sessions", "panels")
    global_persona_dirs: tuple[str, ...] = ("personas_global", "personas")
    panel: str = "panel.json"
    insights: str = "insights"
    panel_personas: str = "personas"
    temp_suffix: str = ".tmp"

    def __post_init__(self) -> None:
        for name in self.all_names():
            if not name or name in {".", ".."} or "/" in name or "\0" in name:
                raise ValueError(f"{name!r} cannot be a file or directory name of a v2 store")

    def all_names(self) -> tuple[str, ...]:
        """Every configured name, for checking."""
        return (
            *self.users_dirs,
            self.profile,
            self.session,
            self.messages,
            self.documents,
            self.document_index,
            self.sessions_dir,
            self.vectors,
            self.vector_index,
            self.embeddings,
            self.personas_dir,
            *self.panel_dirs,
            *self.global_persona_dirs,
            self.panel,
            self.insights,
            self.panel_personas,
            self.temp_suffix,
        )

    def reserved_top_level(self) -> frozenset[str]:
        """Top-level directories that are never users of a G1 tree."""
        return frozenset((*self.users_dirs, *self.panel_dirs, *self.global_persona_dirs, SYSTEM_DIR))

    def with_users_dirs(self, extra: tuple[str, ...]) -> V2Names:
        """These names with further user directories; the first known one stays first."""
        return replace(self, users_dirs=tuple(dict.fromkeys((*self.users_dirs, *extra))))

    def is_temporary(self, name: str) -> bool:
        """Whether *name* is a left-over of an atomic write: ``x.tmp`` or ``x.tmp.<hex>``."""
        head, found, tail = name.rpartition(self.temp_suffix)
        return bool(found and head) and (not tail or re.fullmatch(r"\.[0-9a-fA-F]+", tail) is not None)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> V2Names:
        """Names by v2's own configuration keys (as `ConfigMigration.names` holds them).

        Raises `ValueError` for a value that cannot be a name.
        """
        names = cls()
        changes: dict[str, Any] = {}
        for v2_key, field in _FIELD_OF.items():
            value = values.get(v2_key)
            if value is None:
                continue
            if not isinstance(value, str):
                raise ValueError(f"{v2_key} must be a name, found {value!r}")
            if field in {"users_dirs", "panel_dirs", "global_persona_dirs"}:
                changes[field] = tuple(dict.fromkeys((value, *getattr(names, field))))
            else:
                changes[field] = value
        return replace(names, **changes)


_FIELD_OF = {
    "user_data_directory": "users_dirs",
    "session_data_directory": "sessions_dir",
    "profile_filename": "profile",
    "session_metadata_filename": "session",
    "messages_filename": "messages",
    "storage_subdirectory": "documents",
    "document_storage_subdirectory": "documents",
    "document_metadata_filename": "document_index",
    "vector_storage_subdirectory": "vectors",
    "vector_index_filename": "vector_index",
    "embeddings_filename": "embeddings",
    "panel_sessions_directory": "panel_dirs",
    "global_personas_directory": "global_persona_dirs",
    "panel_metadata_filename": "panel",
    "insights_subdirectory": "insights",
    "personas_subdirectory": "panel_personas",
    "atomic_write_temp_suffix": "temp_suffix",
}
