"""What a persona adds to a prompt, and how much of it. Pure, but for the template, which is bounded.

The strength, from 0 to 1, does three things:

===========  ==========================================================================================
0            nothing is added
up to 1/3    a hint: the persona colours the answer
up to 2/3    a manner: the answer is given in the persona's way
above        a role: the model is the persona, and stays it
===========  ==========================================================================================

Of each list (traits, rules, subjects, examples) the first ``ceil(strength * length)`` items are taken, so that more
strength never takes fewer. What tells a life (backstory, the persona's own system prompt) comes in from 1/3 on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from modules.core.clock import Clock
from modules.core.errors import ValidationError
from modules.core.types import estimate_tokens

from .profile import Persona
from .template import rendered

T = TypeVar("T")

_HINT, _MANNER = 1 / 3, 2 / 3
_LEADS = {
    "hint": "Let a hint of {name} colour your answer.",
    "manner": "Answer in the manner of {name}.",
    "role": "You are {name}. Stay in this role in every answer.",
}


@dataclass(frozen=True, slots=True)
class Injection:
    """A prompt's system text with a persona in it. ``persona_id`` None: there was none to put in, and ``text`` is the
    message as it was."""

    text: str
    persona_id: str | None = None
    version: int | None = None
    owner_id: str | None = None
    strength: float = 0.0

    def to_dict(self) -> dict[str, object]:
        return {
            "text": self.text,
            "persona_id": self.persona_id,
            "version": self.version,
            "owner_id": self.owner_id,
            "strength": self.strength,
        }


def check_strength(strength: object) -> float:
    if not isinstance(strength, int | float) or isinstance(strength, bool) or not 0 <= strength <= 1:
        raise ValidationError(f"strength must be from 0 to 1, not {strength!r}", param="strength")
    return float(strength)


def injected(
    message: str,
    persona: Persona,
    strength: float,
    *,
    clock: Clock,
    template_timeout_s: float,
    max_tokens: int | None = None,
) -> Injection:
    """*message* with the persona before it; *max_tokens* bounds the persona's part, which loses its last pieces first.

    A persona's template decides the whole text; where it does not show the message, that follows it. Raises
    ValidationError for a template that cannot be used.
    """
    if strength == 0:
        return Injection(message, persona.id, persona.version, persona.owner_id, 0.0)
    shown = scaled(persona, strength)
    if persona.template is None:
        own = _within("\n\n".join(parts_of(shown, strength)), max_tokens)
        text = f"{own}\n\n{message}" if message else own
    else:
        text = rendered(persona.template, shown, message, strength, clock=clock, timeout_s=template_timeout_s)
        shows_message = bool(message) and message.strip() in text
        text = _within(text, None if max_tokens is None else max_tokens + estimate_tokens(message))
        if message and not shows_message:
            text = f"{text}\n\n{message}"
    return Injection(text, persona.id, persona.version, persona.owner_id, strength)


def scaled(persona: Persona, strength: float) -> Persona:
    """The persona with as much of each list as the strength takes."""
    has_life = strength > _HINT
    return replace(
        persona,
        traits=_share(persona.traits, strength),
        behavioral_rules=_share(persona.behavioral_rules, strength),
        knowledge_areas=_share(persona.knowledge_areas, strength),
        examples=_share(persona.examples, strength),
        backstory=persona.backstory if has_life else "",
        system_prompt=persona.system_prompt if has_life else "",
    )


def parts_of(persona: Persona, strength: float) -> Iterator[str]:
    """The pieces of a persona's text, what matters most first."""
    lead = "hint" if strength <= _HINT else "manner" if strength <= _MANNER else "role"
    yield _LEADS[lead].format(name=persona.name)
    if persona.system_prompt:
        yield persona.system_prompt
    if persona.description:
        yield f"About {persona.name}: {persona.description}"
    if persona.traits:
        yield f"Traits: {', '.join(persona.traits)}."
    if persona.voice:
        yield f"Voice: {persona.voice}"
    if persona.behavioral_rules:
        yield "Rules:\n" + "\n".join(f"- {rule}" for rule in persona.behavioral_rules)
    if persona.knowledge_areas:
        yield f"Knows about: {', '.join(persona.knowledge_areas)}."
    if persona.backstory:
        yield f"Background: {persona.backstory}"
    if persona.examples:
        yield "Examples:\n" + "\n".join(
            f"User: {one.user}\n{persona.name}: {one.assistant}" if one.user else f"{persona.name}: {one.assistant}"
            for one in persona.examples
        )


def _share(items: Sequence[T], strength: float) -> tuple[T, ...]:
    return tuple(items[: math.ceil(strength * len(items))])


def _within(text: str, max_tokens: int | None) -> str:
    if max_tokens is None or estimate_tokens(text) <= max_tokens:
        return text
    return text.encode()[: max_tokens * 4].decode("utf-8", "ignore").rstrip()
