"""How well messages fit a persona: by rules, and by how near they are to what is said of it. Pure.

A message's score is 0.6 of what the rules leave of it and 0.4 of its nearness; without vectors, the rules alone. The
whole is half the mean of all messages and half the worst one, so that one broken role in a long talk still shows.

Nearness is measured on the persona's own scale: 1 is how near the persona's own texts are to each other, 0 how near
texts are to it that speak of anything (`ANYTHING`). So a persona of a few broad words and one of many narrow ones are
judged alike, and another embedding model needs no other thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modules.core.errors import ValidationError
from modules.core.types import Message

from .manner import Finding, faults_of
from .profile import Persona

Vectors = npt.NDArray[np.float32]

_OF_RULES = 0.6
_FAR = 0.15  # nearness below which it is a reason
_ENOUGH_TEXTS = 2
MAX_MESSAGES = 200

ANYTHING = (
    "The train was late again this morning.",
    "She put the keys on the kitchen table.",
    "It will rain in the north and stay dry in the south.",
    "The match ended in a draw after extra time.",
    "Please close the window when you leave.",
    "They painted the fence green last summer.",
    "Our neighbours have two dogs and a cat.",
    "The parcel arrived on Tuesday.",
    "He forgot to charge his phone.",
    "The shop on the corner sells fresh bread.",
    "We watched a film about a lighthouse.",
    "The meeting has been moved to Thursday.",
    "My sister plays the violin in an orchestra.",
    "The bridge is closed for repairs.",
    "I could not find a parking space anywhere.",
    "The children built a castle out of sand.",
)


@dataclass(frozen=True, slots=True)
class Consistency:
    """``rules`` and ``nearness`` are means over the messages; ``nearness`` None: there was no embedding model, or too
    little is said of the persona. ``scores`` are the messages' own."""

    persona_id: str
    version: int
    score: float
    threshold: float
    rules: float
    nearness: float | None
    scores: tuple[float, ...]
    findings: tuple[Finding, ...]

    @property
    def is_consistent(self) -> bool:
        return self.score >= self.threshold

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(f"message {one.message + 1} {one.reason}" for one in self.findings)

    def to_dict(self) -> dict[str, object]:
        return {
            "persona_id": self.persona_id,
            "version": self.version,
            "score": self.score,
            "threshold": self.threshold,
            "is_consistent": self.is_consistent,
            "rules": self.rules,
            "nearness": self.nearness,
            "scores": list(self.scores),
            "reasons": list(self.reasons),
            "findings": [
                {"rule": one.rule, "message": one.message, "reason": one.reason, "weight": one.weight}
                for one in self.findings
            ],
        }


def judged(
    persona: Persona, messages: Sequence[str], nearness: Sequence[float] | None, threshold: float
) -> Consistency:
    """*nearness*: of each message, as `nearness_of` gives it; None where it cannot be had."""
    findings: list[Finding] = []
    left: list[float] = []
    for place, text in enumerate(messages):
        kept = 1.0
        for rule, fault in faults_of(persona, text):
            findings.append(Finding(rule, place, fault.reason, fault.weight))
            kept *= 1 - fault.weight
        left.append(kept)
        if nearness is not None and nearness[place] < _FAR:
            reason = f"speaks of something else than {persona.name} does"
            findings.append(Finding("nearness", place, reason, (1 - _OF_RULES) * (1 - nearness[place])))
    if nearness is None:
        scores = left
    else:
        scores = [_OF_RULES * kept + (1 - _OF_RULES) * near for kept, near in zip(left, nearness, strict=True)]
    return Consistency(
        persona_id=persona.id,
        version=persona.version,
        score=round(0.5 * _mean(scores) + 0.5 * min(scores), 4),
        threshold=threshold,
        rules=round(_mean(left), 4),
        nearness=None if nearness is None else round(_mean(nearness), 4),
        scores=tuple(round(score, 4) for score in scores),
        findings=tuple(findings),
    )


def answers_in(messages: object) -> list[str]:
    """Texts of the persona's messages. Raises ValidationError where there is nothing to judge."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise ValidationError("messages must be a list", param="messages")
    texts = []
    for message in messages:
        role, content = "assistant", message
        if isinstance(message, Message):
            role, content = message.role, message.content
        elif isinstance(message, Mapping):
            role, content = message.get("role", "assistant"), message.get("content")
        if not isinstance(content, str):
            raise ValidationError("each message must be text, or have a content that is", param="messages")
        if role == "assistant" and content.strip():
            texts.append(content)
    if not 1 <= len(texts) <= MAX_MESSAGES:
        raise ValidationError(
            f"there must be 1 to {MAX_MESSAGES} messages of the assistant to judge, not {len(texts)}", param="messages"
        )
    return texts


def nearness_of(own: Vectors, anything: Vectors, messages: Vectors) -> list[float] | None:
    """From 0 to 1 for each message. All are unit rows: the persona's texts, `ANYTHING`, the messages.

    None when the persona's texts are too few, or no nearer to each other than to anything.
    """
    own = own[np.any(own != 0, axis=1)]
    if len(own) < _ENOUGH_TEXTS:
        return None
    centre = _unit(own.mean(axis=0))
    among_own = [float(row @ _unit(own.sum(axis=0) - row)) for row in own]
    top, floor = float(np.median(among_own)), float(np.mean(anything @ centre))
    if top <= floor:
        return None
    return [min(1.0, max(0.0, (float(row @ centre) - floor) / (top - floor))) for row in messages]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _unit(vector: Vectors) -> Vectors:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm else vector
