"""Where a message went, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .classification import Classification
from .specialists import Specialist

MATCHED, FALLBACK, NO_MATCH = "matched", "fallback", "no_match"


@dataclass(frozen=True, slots=True)
class Route:
    """``outcome``: ``matched`` (somebody answers for the topic), ``fallback`` (nobody does: the one of the settings) or
    ``no_match`` (nobody at all: ``specialist`` is None). ``reason`` says why in words. ``id`` is what the outcome is
    told by."""

    id: str
    outcome: str
    reason: str
    classification: Classification
    specialist: Specialist | None = None
    passed_over: tuple[str, ...] = ()

    @property
    def specialist_id(self) -> str | None:
        return None if self.specialist is None else self.specialist.id

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "outcome": self.outcome,
            "reason": self.reason,
            "specialist_id": self.specialist_id,
            "specialist": None if self.specialist is None else self.specialist.to_dict(),
            "passed_over": list(self.passed_over),
            "classification": self.classification.to_dict(),
        }
