"""Who takes part: agents, checked when built. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ValidationError

PERSONA = "persona"
LONGEST_NAME = 200
NAME = r"[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*"
_LONGEST_METADATA = 65_536
_MOST_CAPABILITIES = 50
# An agent may choose among the models that the operator has set up, and no other server: who registers one is a user.
_NOT_FOR_AGENTS = ("api_key", "base_url", "provider")


@dataclass(frozen=True, slots=True)
class Agent:
    """``user_id`` ``""``: an agent for everybody. What *metadata* may say of how the agent answers: ``name``,
    ``system_prompt``, ``persona_id``, ``model``, ``temperature``, ``max_tokens``; the rest is kept and not read.

    An agent of type ``persona`` is the persona of its own id where no ``persona_id`` is given.
    """

    id: str
    type: str = PERSONA
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str = ""
    registered_at: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValidationError("agent_id must be text and not empty", param="agent_id")
        for param, value in (("agent_type", self.type), ("user_id", self.user_id)):
            if not isinstance(value, str):
                raise ValidationError(f"{param} must be text", param=param)
        if not isinstance(self.capabilities, tuple) or not all(isinstance(one, str) for one in self.capabilities):
            raise ValidationError("capabilities must be a list of names", param="capabilities")
        if not isinstance(self.metadata, Mapping):
            raise ValidationError("metadata must be a mapping", param="metadata")

    @property
    def name(self) -> str:
        name = self.metadata.get("name")
        return name if isinstance(name, str) and name.strip() else self.id

    @property
    def persona_id(self) -> str | None:
        given = self.metadata.get("persona_id")
        return given if isinstance(given, str) and given else (self.id if self.type == PERSONA else None)

    @property
    def system_prompt(self) -> str:
        prompt = self.metadata.get("system_prompt")
        return prompt if isinstance(prompt, str) else ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "capabilities": list(self.capabilities),
            "metadata": dict(self.metadata),
            "user_id": self.user_id,
            "registered_at": self.registered_at,
        }

    @classmethod
    def of_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValidationError for what `to_dict` did not give."""
        capabilities = tuple(stored["capabilities"])
        return cls(**{**stored, "capabilities": capabilities})


def check_new(agent: Agent) -> None:
    """Raises ValidationError for an agent that nobody may register. Participants of v2's panels need not pass."""
    _check_name("agent_id", agent.id)
    _check_name("agent_type", agent.type)
    if len(agent.capabilities) > _MOST_CAPABILITIES:
        raise ValidationError(f"capabilities must be at most {_MOST_CAPABILITIES} names", param="capabilities")
    for capability in agent.capabilities:
        _check_name("capabilities", capability)
    _check_metadata(agent.metadata)


def _check_name(param: str, value: str) -> None:
    if len(value) > LONGEST_NAME or not re.fullmatch(NAME, value):
        raise ValidationError(
            f"{param} must be text of 1 to {LONGEST_NAME} characters that begins with no blank and has no control "
            "characters",
            param=param,
        )


def agent_of_snapshot(agent_id: str, snapshot: Mapping[str, Any]) -> Agent:
    """The agent that a file of ``participants/`` speaks of: one that was kept here, or a persona of v2 in either of
    its two schemas. Never fails: what has another type than expected is left out."""
    try:
        return Agent.of_dict(snapshot)
    except (KeyError, TypeError, ValidationError):
        pass  # a persona of v2
    described = _description_of(snapshot)
    metadata = {"system_prompt": described} if described else {}
    if isinstance(name := snapshot.get("name"), str) and name.strip():
        metadata["name"] = name
    return Agent(agent_id, metadata=metadata)


def _description_of(persona: Mapping[str, Any]) -> str:
    prompt = persona.get("system_prompt")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    behaviour = persona.get("behavioral_traits")
    behaviour = behaviour if isinstance(behaviour, Mapping) else {}
    named = (
        ("Traits", persona.get("traits") or behaviour.get("personality")),
        ("You speak", persona.get("communication_style") or behaviour.get("communication_style")),
        ("You know", persona.get("expertise") or persona.get("expertise_areas")),
    )
    parts = [persona.get("description")]
    parts += [f"{label}: {_listed(value)}." for label, value in named if _listed(value)]
    return "\n".join(part for part in parts if isinstance(part, str) and part.strip())


def _listed(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ", ".join(one for one in value if isinstance(one, str))
    return ""


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    for name in _NOT_FOR_AGENTS:
        if name in metadata:
            raise ValidationError(
                f"metadata must not hold {name}: servers of models are the settings' matter", param="metadata"
            )
    for name in ("name", "system_prompt", "persona_id", "model"):
        if not isinstance(metadata.get(name, ""), str | None):
            raise ValidationError(f"metadata.{name} must be text", param="metadata")
    temperature, tokens = metadata.get("temperature"), metadata.get("max_tokens")
    if temperature is not None and (not _is_number(temperature) or not 0 <= temperature <= 2):
        raise ValidationError(f"metadata.temperature must be from 0 to 2, not {temperature!r}", param="metadata")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise ValidationError(f"metadata.max_tokens must be a whole number above 0, not {tokens!r}", param="metadata")
    try:
        size = len(json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"metadata must be JSON: {error}", param="metadata") from error
    if size > _LONGEST_METADATA:
        raise ValidationError(f"metadata is {size} bytes of at most {_LONGEST_METADATA}", param="metadata")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
