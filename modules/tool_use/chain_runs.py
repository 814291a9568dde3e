"""Runs chains: one step after the other, or all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from modules.core.errors import PlatformError

from .chains import SEQUENTIAL, ChainResult, ChainStep, StepResult, ToolChain, parameters_of
from .output import ToolResult

Execute = Callable[[str, Mapping[str, Any], float | None], Awaitable[ToolResult]]


async def run_chain(
    chain: ToolChain,
    parameters: Mapping[str, Any],
    timeout_s: float | None,
    execute: Execute,
    monotonic: Callable[[], float],
) -> ChainResult:
    """A step that fails ends a sequential chain; of a parallel one, the others go on. What was done is in the result
    either way. *timeout_s* is for each step."""
    began = monotonic()
    run = _Run(parameters, timeout_s, execute, monotonic)
    steps = await (run.in_order(chain) if chain.strategy == SEQUENTIAL else run.at_once(chain))
    ok = len(steps) == len(chain.steps) and all(step.error is None for step in steps)
    done = {step.name: step.output for step in steps if step.error is None}
    output = (steps[-1].output if ok else None) if chain.strategy == SEQUENTIAL else done
    return ChainResult(chain.id, ok, output, tuple(steps), (monotonic() - began) * 1000)


class _Run:
    def __init__(
        self,
        parameters: Mapping[str, Any],
        timeout_s: float | None,
        execute: Execute,
        monotonic: Callable[[], float],
    ) -> None:
        self._parameters = parameters
        self._timeout_s = timeout_s
        self._execute = execute
        self._monotonic = monotonic

    async def in_order(self, chain: ToolChain) -> list[StepResult]:
        done: list[StepResult] = []
        outputs: dict[str, Any] = {}
        previous: Any = None
        for place, step in enumerate(chain.steps):
            result = await self._step(step, outputs, previous, is_first=place == 0)
            done.append(result)
            if result.error is not None:
                break
            outputs[step.name] = previous = result.output
        return done

    async def at_once(self, chain: ToolChain) -> list[StepResult]:
        return list(await asyncio.gather(*(self._step(step, {}, None, is_first=True) for step in chain.steps)))

    async def _step(self, step: ChainStep, outputs: Mapping[str, Any], previous: Any, *, is_first: bool) -> StepResult:
        began = self._monotonic()
        try:
            given = parameters_of(step, self._parameters, outputs, previous, is_first=is_first)
            result = await self._execute(step.tool, given, self._timeout_s)
        except PlatformError as error:
            told = {"code": error.code, "message": error.message}
            return StepResult(step.name, step.tool, error=told, duration_ms=(self._monotonic() - began) * 1000)
        return StepResult(step.name, step.tool, result.output, result.is_cut, None, result.duration_ms)
