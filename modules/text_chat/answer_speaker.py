"""Who answers: the specialist that a routed message goes to, and the persona that shapes the prompt. Pure.

A message is routed when its own metadata say so (``route``: true or false), else when its session's do, else as the
settings have it. The persona is that of the specialist, where it has one; else the session's own (``persona_id`` and
``persona_strength`` in its metadata); else, where the session says nothing of it, the user's usual one. A session whose
``persona_id`` is null has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROUTE, PERSONA, STRENGTH = "route", "persona_id", "persona_strength"


@dataclass(frozen=True, slots=True)
class WantedPersona:
    """``persona_id`` None: the usual one, whatever that is."""

    persona_id: str | None = None
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Routed:
    """Where the router sent a message. ``shown`` is what the answer's metadata say of it; ``persona_id`` and ``model``
    are the specialist's, where it names them."""

    id: str
    shown: Mapping[str, Any]
    has_specialist: bool
    persona_id: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, route: Any) -> Routed:
        """From what topic_router gives. Raises AttributeError for anything else."""
        shown = {
            "id": route.id,
            "outcome": route.outcome,
            "specialist_id": route.specialist_id,
            "topic": route.classification.topic,
            "score": route.classification.score,
        }
        specialist = route.specialist
        if specialist is None:
            return cls(route.id, shown, has_specialist=False)
        return cls(route.id, shown, True, specialist.persona_id, specialist.model)


@dataclass(frozen=True, slots=True)
class Shaped:
    """The system text with a persona in it, and what the answer's metadata say of it; nothing where there was none."""

    text: str
    shown: Mapping[str, Any]

    @classmethod
    def of(cls, injection: Any) -> Shaped:
        """From what persona gives. Raises AttributeError for anything else."""
        if injection.persona_id is None:
            return cls(injection.text, {})
        shown = {"id": injection.persona_id, "version": injection.version, "strength": injection.strength}
        return cls(injection.text, {"persona": shown})


@dataclass(frozen=True, slots=True)
class Speaker:
    """``shown`` is what the answer's metadata say of it. ``route_id`` and ``model``: of the specialist, where one was
    chosen and where it names a model."""

    system: str
    shown: Mapping[str, Any]
    route_id: str | None = None
    model: str | None = None


def is_routed(message: Mapping[str, Any], session: Mapping[str, Any], usually: bool) -> bool:
    """By the metadata of the message and of its session. What is neither true nor false says nothing."""
    said = (metadata.get(ROUTE) for metadata in (message, session))
    return next((one for one in said if isinstance(one, bool)), usually)


def persona_wanted(session: Mapping[str, Any], routed: Routed | None) -> WantedPersona | None:
    """None for none at all."""
    if routed is not None and routed.persona_id is not None:
        return WantedPersona(routed.persona_id)
    if PERSONA not in session:
        return WantedPersona()
    own, strength = session[PERSONA], session.get(STRENGTH)
    if not isinstance(own, str) or not own:
        return None
    is_strength = isinstance(strength, int | float) and not isinstance(strength, bool) and 0 <= strength <= 1
    return WantedPersona(own, float(strength) if is_strength and strength is not None else 1.0)


def speaker_of(system: str, routed: Routed | None, shaped: Shaped | None) -> Speaker:
    """None where there is no router, no persona, or where they fail."""
    text = shaped.text if shaped is not None else system
    shown = dict(shaped.shown) if shaped is not None else {}
    if routed is None:
        return Speaker(text, shown)
    shown["route"] = routed.shown
    return Speaker(text, shown, routed.id if routed.has_specialist else None, routed.model)
