"""Chains: several tools as one, each step's parameters taken from what came before. Types and decisions; no calls.

A step is ``{"tool": name, "name": step, "input": {...}}`` or just the tool's name. In ``input``, a text that begins
with ``$`` is a place to take a value from, anything else is the value itself, also within objects and lists:

=====================  =======================================================
``$input``             the chain's parameters; ``$input.city``, ``$input.days.0``
``$previous``          the output of the step before; ``$previous.temperature``
``$steps.name``        the output of the step of that name
``$$5``                the text ``$5``
=====================  =======================================================

Without ``input``, a step gets the chain's parameters (the first step, and every step of a parallel chain) or the output
of the step before, which must then be an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from modules.core.errors import ValidationError

from .definition import check_name

SEQUENTIAL, PARALLEL = "sequential", "parallel"
STRATEGIES = (SEQUENTIAL, PARALLEL)
MOST_STEPS = 32


@dataclass(frozen=True, slots=True)
class ChainStep:
    """``input`` is None where the step gets what is usual."""

    tool: str
    name: str
    input: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name(self.tool)
        check_name(self.name)
        if self.input is not None and not isinstance(self.input, Mapping):
            raise ValidationError(f"the input of step {self.name!r} must be an object", param="tools")


@dataclass(frozen=True, slots=True)
class ToolChain:
    """A chain that can be executed. ``name`` is its id. References lead backwards only; checked when built."""

    name: str
    steps: tuple[ChainStep, ...]
    strategy: str = SEQUENTIAL
    owner: str = ""
    created_at: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.strategy not in STRATEGIES:
            raise ValidationError(f"strategy must be one of {', '.join(STRATEGIES)}", param="strategy")
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise ValidationError(f"a chain has 1 to {MOST_STEPS} steps", param="tools")
        before: set[str] = set()
        for place, step in enumerate(self.steps):
            if step.name in before:
                raise ValidationError(f"two steps are named {step.name!r}", param="tools")
            can_look_back = self.strategy == SEQUENTIAL and place > 0
            for reference in _references(step.input or {}):
                _check_reference(reference, step.name, before if can_look_back else set())
            before.add(step.name)

    @property
    def id(self) -> str:
        return self.name

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "steps": [asdict(step) for step in self.steps]}

    @classmethod
    def of_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValidationError for what `to_dict` did not write."""
        return cls(**{**plain, "steps": tuple(ChainStep(**step) for step in plain["steps"])})


@dataclass(frozen=True, slots=True)
class StepResult:
    """``error`` is ``{"code", "message"}`` of a step that failed; one that was not reached is not listed."""

    name: str
    tool: str
    output: Any = None
    is_cut: bool = False
    error: Mapping[str, str] | None = None
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ChainResult:
    """``output`` is the last step's, None where the chain failed; of a parallel chain an object by step, of those that
    did not fail."""

    chain_id: str
    ok: bool
    output: Any
    steps: tuple[StepResult, ...]
    duration_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "steps": [asdict(step) for step in self.steps]}


def steps_of(tools: Sequence[Any]) -> tuple[ChainStep, ...]:
    """The steps that *tools* ask for: names, objects, or steps. Raises ValidationError."""
    if isinstance(tools, str) or not isinstance(tools, Sequence):
        raise ValidationError("tools must be a list of steps", param="tools")
    steps = []
    for place, one in enumerate(tools):
        if isinstance(one, ChainStep):
            steps.append(one)
        elif isinstance(one, str):
            steps.append(ChainStep(one, _free_name(one, place, steps)))
        elif isinstance(one, Mapping) and set(one) <= {"tool", "name", "input"} and "tool" in one:
            name = one.get("name")
            step_name = _free_name(str(one["tool"]), place, steps) if name is None else name
            steps.append(ChainStep(one["tool"], step_name, one.get("input")))
        else:
            raise ValidationError('a step is a tool\'s name or {"tool", "name", "input"}', param="tools")
    return tuple(steps)


def parameters_of(
    step: ChainStep, given: Mapping[str, Any], outputs: Mapping[str, Any], previous: Any, *, is_first: bool
) -> Mapping[str, Any]:
    """What *step* is called with. Raises ValidationError, naming the step, when a place holds nothing."""
    if step.input is None:
        if is_first:
            return given
        if not isinstance(previous, Mapping):
            raise ValidationError(
                f"step {step.name!r} has no input of its own, and the step before it gave no object", param="tools"
            )
        return previous
    sources = {"input": given, "previous": previous, "steps": outputs}
    return {name: _filled(value, sources, step.name) for name, value in step.input.items()}


def _filled(value: Any, sources: Mapping[str, Any], step: str) -> Any:
    if isinstance(value, str) and value.startswith("$"):
        return value[1:] if value.startswith("$$") else _taken(value, sources, step)
    if isinstance(value, Mapping):
        return {name: _filled(one, sources, step) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, sources, step) for one in value]
    return value


def _taken(reference: str, sources: Mapping[str, Any], step: str) -> Any:
    found: Any = sources
    for part in reference[1:].split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise ValidationError(f"step {step!r}: {reference} leads to nothing", param="tools")
    return found


def _references(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("$") and not value.startswith("$$") else []
    if isinstance(value, Mapping):
        return [one for inner in value.values() for one in _references(inner)]
    if isinstance(value, list | tuple):
        return [one for inner in value for one in _references(inner)]
    return []


def _check_reference(reference: str, step: str, before: set[str]) -> None:
    root, *rest = reference[1:].split(".")
    if root == "input" or (root == "previous" and before) or (root == "steps" and rest and rest[0] in before):
        return
    raise ValidationError(f"step {step!r}: {reference} leads to nothing that is there before it", param="tools")


def _free_name(tool: str, place: int, steps: Sequence[ChainStep]) -> str:
    return tool if all(step.name != tool for step in steps) else f"{tool[:60]}_{place + 1}"
