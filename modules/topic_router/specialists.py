"""Who can be routed to: specialists, checked when built, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles

from .topics import check_topics, depth_of, lies_within

KEY = "topic_router/specialists.json"
_LONGEST_NAME = 1_000
_MOST = 1_000
_LONGEST_METADATA = 16_384


@dataclass(frozen=True, slots=True)
class Specialist:
    """Answers for ``topics`` and all that lies within them. What it answers with may be a persona, a chat model of the
    server that is set up, an agent of multi_agent, or something that the caller knows. ``capacity``: how much work it
    takes beside the others."""

    id: str
    topics: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    persona_id: str | None = None
    model: str | None = None
    agent_id: str | None = None
    capacity: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("specialist_id", self.id)
        for name in ("persona_id", "model", "agent_id"):
            if getattr(self, name) is not None:
                _check_name(name, getattr(self, name))
        if not isinstance(self.capabilities, tuple):
            raise ValidationError("capabilities must be a list of names", param="capabilities")
        for capability in self.capabilities:
            _check_name("capabilities", capability)
        is_number = isinstance(self.capacity, int | float) and not isinstance(self.capacity, bool)
        if not is_number or not 0 < self.capacity <= 1_000:
            raise ValidationError(f"capacity must be above 0, and 1000 at most: {self.capacity!r}", param="capacity")

    @classmethod
    def made(cls, values: Mapping[str, Any]) -> Self:
        """From plain values, as `to_dict` gives them; what is not there has its default. Raises ValidationError."""
        unknown = [name for name in values if name not in _FIELDS]
        if unknown:
            raise ValidationError(f"a specialist has no field {unknown[0]!r}", param=str(unknown[0]))
        if "id" not in values:
            raise ValidationError("a specialist needs an id", param="id")
        capabilities = values.get("capabilities", ())
        if isinstance(capabilities, str) or not isinstance(capabilities, list | tuple):
            raise ValidationError("capabilities must be a list of names", param="capabilities")
        metadata = values.get("metadata", {})
        _check_metadata(metadata)
        return cls(
            **{
                **values,
                "topics": check_topics(values.get("topics", ())),
                "capabilities": tuple(capabilities),
                "metadata": dict(metadata),
            }
        )

    def cover(self, topic: str) -> int:
        """How closely it answers for *topic*: the depth of its own topic that this lies within; 0 where none does."""
        return max((depth_of(own) for own in self.topics if lies_within(topic, own)), default=0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "topics": list(self.topics),
            "capabilities": list(self.capabilities),
            "persona_id": self.persona_id,
            "model": self.model,
            "agent_id": self.agent_id,
            "capacity": self.capacity,
            "metadata": dict(self.metadata),
        }


_FIELDS = frozenset(Specialist.__dataclass_fields__)


class SpecialistFile:
    """Synchronous; called from threads. One writer; any number may read."""

    def __init__(self, files: FlatFiles) -> None:
        self._files = files

    def read(self) -> dict[str, Specialist]:
        """By id. Raises StorageError for a damaged file, which is left as it is."""
        try:
            stored = json.loads(self._files.read(KEY))
            found = [Specialist.made(one) for one in stored["specialists"]]
        except NotFound:
            return {}
        except (ValueError, TypeError, KeyError, ValidationError) as error:
            raise StorageError(f"{KEY} is damaged and is left as it is: {error}", key=KEY) from error
        return {one.id: one for one in found}

    def put(self, specialist: Specialist) -> None:
        """In place of the one of its id. Raises ValidationError where there are too many."""
        known = self.read() | {specialist.id: specialist}
        if len(known) > _MOST:
            raise ValidationError(f"there can be {_MOST} specialists at most", param="specialist_id")
        self._write(known.values())

    def remove(self, specialist_id: str) -> bool:
        """False when there was none."""
        known = self.read()
        if known.pop(specialist_id, None) is None:
            return False
        self._write(known.values())
        return True

    def _write(self, specialists: Iterable[Specialist]) -> None:
        document = {"specialists": [one.to_dict() for one in specialists]}
        self._files.write(KEY, json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n", fsync=True)


def _check_name(param: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_NAME:
        raise ValidationError(f"{param} must be text of 1 to {_LONGEST_NAME} characters", param=param)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(f"{param} is not Unicode text: {error.reason}", param=param) from error


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise ValidationError("metadata must be a mapping", param="metadata")
    try:
        size = len(json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"metadata must be JSON: {error}", param="metadata") from error
    if size > _LONGEST_METADATA:
        raise ValidationError(f"metadata has {size} bytes of at most {_LONGEST_METADATA}", param="metadata")
