"""Which persona answers where.

A session's persona stands in the session's own metadata, which text_chat keeps: ``persona_id`` and
``persona_strength``. So it survives restarts, goes with a fork, and goes when the session goes. A user's usual persona,
for sessions that name none, stands in ``persona/active/users/<user>.json``; everyone's in
``persona/active/everyone.json``. A session whose ``persona_id`` is null has none, whatever is usual.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import NotFound, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

SESSION_PERSONA, SESSION_STRENGTH = "persona_id", "persona_strength"


@dataclass(frozen=True, slots=True)
class Activation:
    """``persona_id`` None: none answers. ``session_id`` None: it is the usual one of ``user_id``, or everyone's."""

    persona_id: str | None
    strength: float = 1.0
    user_id: str | None = None
    session_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "persona_id": self.persona_id,
            "strength": self.strength,
            "user_id": self.user_id,
            "session_id": self.session_id,
        }

    @property
    def session_metadata(self) -> dict[str, Any]:
        return {SESSION_PERSONA: self.persona_id, SESSION_STRENGTH: self.strength}


def of_session(metadata: Mapping[str, Any], user_id: str, session_id: str) -> Activation | None:
    """What a session's metadata say; None when they say nothing."""
    if SESSION_PERSONA not in metadata:
        return None
    persona_id, strength = metadata[SESSION_PERSONA], metadata.get(SESSION_STRENGTH)
    is_strength = isinstance(strength, int | float) and not isinstance(strength, bool) and 0 <= strength <= 1
    return Activation(
        persona_id if isinstance(persona_id, str) and persona_id else None,
        float(strength) if is_strength and strength is not None else 1.0,
        user_id,
        session_id,
    )


class UsualPersonas:
    """Synchronous; called from threads. *user_id* None is everyone."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files

    def get(self, user_id: str | None) -> Activation | None:
        """Raises StorageError for a damaged file."""
        key = _key(user_id)
        try:
            stored = json.loads(self._files.read(key))
            return Activation(stored["persona_id"], float(stored["strength"]), user_id)
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{key} is damaged: {error}", key=key) from error

    def set(self, activation: Activation) -> None:
        data = {"persona_id": activation.persona_id, "strength": activation.strength}
        self._files.write(_key(activation.user_id), json.dumps(data, ensure_ascii=False).encode() + b"\n", fsync=True)

    def clear(self, user_id: str | None) -> bool:
        """False when there was none."""
        return self._files.delete(_key(user_id))


def _key(user_id: str | None) -> str:
    return "persona/active/everyone.json" if user_id is None else f"persona/active/users/{component(user_id)}.json"
