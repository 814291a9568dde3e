"""When a conversation ends: conditions that combine with ``|`` and ``&``, and their JSON. Pure.

=====================================  ==================================================================
JSON                                   met once
=====================================  ==================================================================
``{"turns": 12}``                      so many turns of agents were taken, failed ones included
``{"time_s": 90}``                     so long has passed since the start, whatever happened meanwhile
``{"tokens": 4000}``                   prompts and answers together came to so many tokens
``{"text": "DONE"}``                   somebody has said this, in any case; ``"by": ["ada"]``: one of these
``{"agreement": 0.7}``                 such a share of the agents say the same in their latest answers
``{"any": [...]}``                     one of the conditions is met (``|``)
``{"all": [...]}``                     all of them are (``&``), be it at different turns
=====================================  ==================================================================

They are looked at between turns: a turn that has begun is finished, within the agents' time limit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modules.core.errors import ValidationError

from .turns import Turn

_DEEPEST = 8
_MOST = 64
LONGEST_S = 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class SoFar:
    """A run as conditions see it. ``agreement`` is the share of agents that say the same; None: nobody looked."""

    turns: Sequence[Turn]
    elapsed_s: float = 0.0
    agreement: float | None = None


class Condition(ABC):
    __slots__ = ()

    @property
    def needs_agreement(self) -> bool:
        """Whether `SoFar.agreement` has to be worked out for it."""
        return False

    @abstractmethod
    def met(self, so_far: SoFar) -> str | None:
        """Why the conversation ends, in a word; None while it goes on."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its JSON: `condition_of` gives the same condition back."""

    def __or__(self, other: Condition) -> AnyOf:
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))

    def __and__(self, other: Condition) -> AllOf:
        return AllOf((*_parts(self, AllOf), *_parts(other, AllOf)))


@dataclass(frozen=True, slots=True)
class TurnLimit(Condition):
    turns: int

    def __post_init__(self) -> None:
        if not isinstance(self.turns, int) or isinstance(self.turns, bool) or self.turns < 1:
            raise _wrong(f"turns must be a whole number above 0, not {self.turns!r}")

    def met(self, so_far: SoFar) -> str | None:
        return "turns" if sum(one.is_of_agent for one in so_far.turns) >= self.turns else None

    def to_dict(self) -> dict[str, Any]:
        return {"turns": self.turns}


@dataclass(frozen=True, slots=True)
class TimeLimit(Condition):
    time_s: float

    def __post_init__(self) -> None:
        _check_number("time_s", self.time_s, LONGEST_S)

    def met(self, so_far: SoFar) -> str | None:
        return "time" if so_far.elapsed_s >= self.time_s else None

    def to_dict(self) -> dict[str, Any]:
        return {"time_s": self.time_s}


@dataclass(frozen=True, slots=True)
class TokenLimit(Condition):
    tokens: int

    def __post_init__(self) -> None:
        if not isinstance(self.tokens, int) or isinstance(self.tokens, bool) or self.tokens < 1:
            raise _wrong(f"tokens must be a whole number above 0, not {self.tokens!r}")

    def met(self, so_far: SoFar) -> str | None:
        return "tokens" if sum(one.total_tokens for one in so_far.turns) >= self.tokens else None

    def to_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class TextSaid(Condition):
    """``by`` names agents; nobody named means any of them."""

    text: str
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise _wrong("text must not be empty")
        if not all(isinstance(one, str) and one for one in self.by):
            raise _wrong("by must be a list of agents")

    def met(self, so_far: SoFar) -> str | None:
        wanted = self.text.casefold()
        said = any(
            wanted in turn.content.casefold() and (not self.by or turn.agent_id in self.by)
            for turn in so_far.turns
            if turn.is_of_agent and turn.failure is None
        )
        return "text" if said else None

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "by": list(self.by)} if self.by else {"text": self.text}


@dataclass(frozen=True, slots=True)
class Agreement(Condition):
    agreement: float

    @property
    def needs_agreement(self) -> bool:
        return True

    def __post_init__(self) -> None:
        _check_number("agreement", self.agreement, 1)

    def met(self, so_far: SoFar) -> str | None:
        reached = so_far.agreement is not None and so_far.agreement >= self.agreement - 1e-9
        return "agreement" if reached else None

    def to_dict(self) -> dict[str, Any]:
        return {"agreement": self.agreement}


@dataclass(frozen=True, slots=True)
class AnyOf(Condition):
    conditions: tuple[Condition, ...]

    @property
    def needs_agreement(self) -> bool:
        return any(one.needs_agreement for one in self.conditions)

    def met(self, so_far: SoFar) -> str | None:
        return next((reason for one in self.conditions if (reason := one.met(so_far)) is not None), None)

    def to_dict(self) -> dict[str, Any]:
        return {"any": [one.to_dict() for one in self.conditions]}


@dataclass(frozen=True, slots=True)
class AllOf(Condition):
    conditions: tuple[Condition, ...]

    @property
    def needs_agreement(self) -> bool:
        return any(one.needs_agreement for one in self.conditions)

    def met(self, so_far: SoFar) -> str | None:
        reasons = [one.met(so_far) for one in self.conditions]
        return "+".join(reason for reason in reasons if reason) if all(reasons) else None

    def to_dict(self) -> dict[str, Any]:
        return {"all": [one.to_dict() for one in self.conditions]}


def condition_of(given: object) -> Condition:
    """The condition that a JSON value means. Raises ValidationError for what is none, is too deep or too large."""
    counted = [0]
    return _read(given, 1, counted)


def _read(given: object, depth: int, counted: list[int]) -> Condition:
    counted[0] += 1
    if depth > _DEEPEST or counted[0] > _MOST:
        raise _wrong(f"at most {_MOST} conditions, {_DEEPEST} deep")
    if not isinstance(given, Mapping):
        raise _wrong(f"a condition is an object with one of {', '.join(_KINDS)}, any, all; not {given!r}")
    kinds = [key for key in given if key != "by"]
    if len(kinds) != 1 or ("by" in given and kinds != ["text"]):
        raise _wrong(f"a condition has one of {', '.join(_KINDS)}, any, all; this one has {sorted(map(str, given))}")
    (kind,) = kinds
    if kind in _SEVERAL:
        parts = given[kind]
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise _wrong(f"{kind} takes a list of conditions")
        return _SEVERAL[kind](tuple(_read(one, depth + 1, counted) for one in parts))
    if kind == "text":
        by = given.get("by", ())
        if isinstance(by, str) or not isinstance(by, Sequence):
            raise _wrong("by must be a list of agents")
        return TextSaid(given["text"], tuple(by))
    if kind not in _KINDS:
        raise _wrong(f"no condition {kind!r}; there are {', '.join(_KINDS)}, any, all")
    return _KINDS[kind](given[kind])


_KINDS: dict[str, Callable[[Any], Condition]] = {
    "turns": TurnLimit,
    "time_s": TimeLimit,
    "tokens": TokenLimit,
    "text": TextSaid,
    "agreement": Agreement,
}
_SEVERAL: dict[str, type[AnyOf] | type[AllOf]] = {"any": AnyOf, "all": AllOf}


def _parts(condition: Condition, kind: type[AnyOf] | type[AllOf]) -> tuple[Condition, ...]:
    return condition.conditions if isinstance(condition, kind) else (condition,)


def _check_number(name: str, value: object, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        raise _wrong(f"{name} must be a number above 0 and at most {most:g}, not {value!r}")


def _wrong(message: str) -> ValidationError:
    return ValidationError(f"termination: {message}", param="termination")
