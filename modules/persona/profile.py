"""What a persona is: the value, how it is read from what is stored, and what callers may put into one. Pure.

Reading never refuses a persona that v2 held: a member of another kind is taken for what it comes nearest to. What
callers give is checked against `LIMITS`. The stored record may hold more members than are read here; changing a
persona keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import ValidationError
from modules.core.plain_json import plain

Record = dict[str, Any]

MAX_ITEMS = 50
LIMITS = {  # characters
    "name": 100,
    "description": 4_000,
    "backstory": 16_000,
    "voice": 4_000,
    "system_prompt": 32_000,
    "template": 8_192,
    "item": 2_000,
    "metadata": 65_536,
}


@dataclass(frozen=True, slots=True)
class Example:
    """How the persona answered once."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class Persona:
    """``owner_id`` None: it is everyone's. ``template`` is a Jinja2 template that takes the place of the usual way in
    which a persona is put into a prompt. ``is_migrated``: it came from v2."""

    id: str
    name: str
    description: str = ""
    traits: tuple[str, ...] = ()
    backstory: str = ""
    voice: str = ""
    knowledge_areas: tuple[str, ...] = ()
    behavioral_rules: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    system_prompt: str = ""
    template: str | None = None
    owner_id: str | None = None
    version: int = 1
    created_at: str = ""
    updated_at: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_migrated: bool = False

    def __post_init__(self) -> None:
        for name in ("id", "name"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValidationError(f"{name} of a persona must be text and not empty", param=name)
        if not isinstance(self.version, int) or isinstance(self.version, bool) or self.version < 1:
            raise ValidationError(f"version must be a whole number from 1 up, not {self.version!r}", param="version")

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is said of the persona, piece by piece."""
        pieces = (self.description, self.backstory, self.voice, self.system_prompt)
        lists = (*self.traits, *self.knowledge_areas, *self.behavioral_rules)
        return tuple(text for text in (*pieces, *lists, *(one.assistant for one in self.examples)) if text.strip())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as interfaces show a persona."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "traits": list(self.traits),
            "backstory": self.backstory,
            "voice": self.voice,
            "knowledge_areas": list(self.knowledge_areas),
            "behavioral_rules": list(self.behavioral_rules),
            "examples": [{"user": one.user, "assistant": one.assistant} for one in self.examples],
            "system_prompt": self.system_prompt,
            "template": self.template,
            "owner_id": self.owner_id,
            "version": self.version,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "metadata": dict(self.metadata),
            "is_migrated": self.is_migrated,
        }


# -- from what is stored -------------------------------------------------------------------------------------


def persona_of(record: Mapping[str, Any], persona_id: str, owner_id: str | None) -> Persona:
    """The persona that a stored record means; its place says whose it is. Never fails."""
    known: Mapping[str, Any] = plain(dict(record))
    version = known.get("version")
    metadata, template = known.get("metadata"), known.get("template")
    name = known.get("name")
    return Persona(
        id=persona_id,
        name=name if isinstance(name, str) and name else persona_id,
        description=_read_text(known.get("description")),
        traits=_read_texts(known.get("traits")),
        backstory=_read_text(known.get("backstory")),
        voice=_read_text(known.get("voice")),
        knowledge_areas=_read_texts(known.get("knowledge_areas")),
        behavioral_rules=_read_texts(known.get("behavioral_rules")),
        examples=_read_examples(known.get("example_interactions")),
        system_prompt=_read_text(known.get("system_prompt")),
        template=template if isinstance(template, str) and template else None,
        owner_id=owner_id,
        version=version if isinstance(version, int) and not isinstance(version, bool) and version > 0 else 1,
        created_at=_read_text(known.get("created_at")),
        updated_at=_read_text(known.get("updated_at")),
        metadata=metadata if isinstance(metadata, dict) else {},
        is_migrated=isinstance(known.get("legacy"), dict),
    )


def _read_text(value: object) -> str:
    """v2's own class kept a voice as an object: {"tone": "playful", "formality": "low"}."""
    match value:
        case str():
            return value
        case None | True | False:
            return ""
        case Mapping():
            return "; ".join(f"{key}: {_read_text(item)}" for key, item in value.items())
        case list():
            return "; ".join(filter(None, map(_read_text, value)))
        case _:
            return str(value)


def _read_texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(text for text in map(_read_text, items) if text.strip())


_EXAMPLE_KEYS = (("user", "assistant"), ("input", "output"), ("question", "answer"))


def _read_examples(value: object) -> tuple[Example, ...]:
    found = [_read_example(item) for item in (value if isinstance(value, list) else [])]
    return tuple(one for one in found if one is not None)


def _read_example(item: object) -> Example | None:
    if isinstance(item, str):
        return Example("", item) if item.strip() else None
    if isinstance(item, list) and len(item) == 2:
        return Example(_read_text(item[0]), _read_text(item[1]))
    for asked, answered in _EXAMPLE_KEYS:
        if isinstance(item, Mapping) and answered in item:
            return Example(_read_text(item.get(asked)), _read_text(item[answered]))
    return None


# -- from what a caller gives --------------------------------------------------------------------------------


def checked(fields: Mapping[str, Any]) -> Record:
    """Members of a record, from fields as callers name them. None leaves a field out.

    Raises ValidationError for an unknown field, and for a value that a persona cannot have.
    """
    unknown = [name for name in fields if name not in _CHECKS]
    if unknown:
        raise ValidationError(
            f"a persona has no field {unknown[0]!r}; it has {', '.join(_CHECKS)}", param=str(unknown[0])
        )
    members: Record = {}
    for name, value in fields.items():
        if value is not None:
            member, check = _CHECKS[name]
            members[member] = check(name, value)
    return members


def _check_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValidationError(f"{name} must be text, not {type(value).__name__}", param=name)
    limit = LIMITS.get(name, LIMITS["item"])
    if len(value) > limit:
        raise ValidationError(f"{name} has {len(value)} characters of at most {limit}", param=name)
    _check_unicode(name, value)
    return value


def _check_name(name: str, value: object) -> str:
    text = _check_text(name, value).strip()
    if not text:
        raise ValidationError(f"{name} must not be empty", param=name)
    return text


def _check_texts(name: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValidationError(f"{name} must be a list of texts", param=name)
    if len(value) > MAX_ITEMS:
        raise ValidationError(f"{name} has {len(value)} items of at most {MAX_ITEMS}", param=name)
    texts = []
    for item in value:
        if not isinstance(item, str) or not item.strip() or len(item) > LIMITS["item"]:
            raise ValidationError(
                f"each of {name} must be text of 1 to {LIMITS['item']} characters, and not blank", param=name
            )
        _check_unicode(name, item)
        texts.append(item)
    return texts


def _check_examples(name: str, value: object) -> list[dict[str, str]]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
        raise ValidationError(f"{name} must be a list of at most {MAX_ITEMS} exchanges", param=name)
    found = []
    for item in value:
        one = item if isinstance(item, Example) else _read_example(list(item) if isinstance(item, tuple) else item)
        if one is None or not one.assistant.strip() or max(len(one.user), len(one.assistant)) > LIMITS["item"]:
            raise ValidationError(
                f'each of {name} must be {{"user": ..., "assistant": ...}} with an answer, '
                f"and texts of at most {LIMITS['item']} characters",
                param=name,
            )
        _check_unicode(name, one.user + one.assistant)
        found.append({"user": one.user, "assistant": one.assistant})
    return found


def _check_metadata(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValidationError(f"{name} must be a mapping", param=name)
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"{name} must be JSON: {error}", param=name) from error
    if len(text) > LIMITS["metadata"]:
        raise ValidationError(f"{name} has {len(text)} characters of at most {LIMITS['metadata']}", param=name)
    _check_unicode(name, text)
    plain: dict[str, Any] = json.loads(text)
    return plain


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(f"{name} is not Unicode text: {error.reason}", param=name) from error


# Field as callers name it -> member of the record, and what checks it.
_CHECKS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "name": ("name", _check_name),
    "description": ("description", _check_text),
    "traits": ("traits", _check_texts),
    "backstory": ("backstory", _check_text),
    "voice": ("voice", _check_text),
    "knowledge_areas": ("knowledge_areas", _check_texts),
    "behavioral_rules": ("behavioral_rules", _check_texts),
    "examples": ("example_interactions", _check_examples),
    "system_prompt": ("system_prompt", _check_text),
    "template": ("template", _check_text),
    "metadata": ("metadata", _check_metadata),
}
