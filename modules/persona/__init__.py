"""persona: who answers. Personas in versions, what they add to a prompt, and how well answers fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .activations import Activation
from .consistency import Consistency
from .injection import Injection
from .manner import Finding
from .persona import PersonaErasure, PersonaModule
from .profile import Example, Persona
from .settings import PersonaSettings

__all__ = [
    "Activation",
    "Consistency",
    "Example",
    "Finding",
    "Injection",
    "Persona",
    "PersonaErasure",
    "PersonaModule",
    "PersonaSettings",
    "create",
]


def create(settings: Mapping[str, Any]) -> PersonaModule:
    """The module for a loader."""
    return PersonaModule(settings)
