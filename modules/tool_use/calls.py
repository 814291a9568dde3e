"""A call, from the parameters to the result: checked, counted, bounded, tried again where that is safe, and told of.

    parameters -> size, schema -> rate, cost -> [circuit -> the tool, in what is left of the time]* -> schema -> result

What is tried again: a failure that may pass, of a tool that may be called twice without harm, or of a call that never
left. The time of a call is one for all its attempts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modules.core.clock import Clock
from modules.core.errors import ConfigurationError, NotFound, PlatformError, ValidationError

from .budget import CallRates, DayCosts
from .call_record import CallRecord, CallTeller
from .circuit import Circuit
from .definition import HTTP, PYTHON, ToolDefinition
from .errors import (
    CircuitOpen,
    ParametersInvalid,
    ToolAnswerInvalid,
    ToolBusy,
    ToolError,
    ToolTimedOut,
    ToolUnavailable,
)
from .http_tool import HttpTool
from .installed import imported
from .mcp_tools import McpTools
from .output import Output, ToolResult
from .python_tool import PythonTools
from .schema_check import SchemaCheck
from .settings import ToolUseSettings

LONGEST_S = 3600.0
_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Means:
    """What calls are made with. ``http`` makes the HTTP tool when it is first needed."""

    http: Callable[[], HttpTool]
    mcp: McpTools
    python: PythonTools
    schemas: SchemaCheck
    rates: CallRates
    costs: DayCosts
    teller: CallTeller


class ToolCalls:
    def __init__(self, means: Means, settings: ToolUseSettings, clock: Clock) -> None:
        self._means = means
        self._settings = settings
        self._clock = clock
        self._circuits: dict[tuple[str, str], Circuit] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def circuit(self, tool: ToolDefinition) -> Circuit:
        key = (tool.owner, tool.name)
        if key not in self._circuits:
            settings = self._settings
            self._circuits[key] = Circuit(tool.name, settings.failures, settings.reset_s, self._clock.monotonic)
        return self._circuits[key]

    def forget(self, tool: ToolDefinition) -> None:
        """What is known of its failures: it is another tool now, or none."""
        self._circuits.pop((tool.owner, tool.name), None)

    async def problems(self, tool: ToolDefinition, parameters: Any) -> tuple[str, ...]:
        """What is wrong with *parameters*; the tool is not called."""
        try:
            given = checked_parameters(parameters, self._settings.max_input_bytes)
        except ParametersInvalid as error:
            return error.problems
        return await self._means.schemas.problems(tool.input_schema, given)

    async def execute(
        self,
        tool: ToolDefinition,
        parameters: Any,
        timeout_s: float | None,
        *,
        call_id: str,
        user_id: str,
        session_id: str | None,
        asked: Mapping[str, Any] | None = None,
    ) -> ToolResult:
        """*asked*: see `CallTeller.ended`.

        Raises a ToolError; ValidationError for parameters that are none; ConfigurationError, NotFound.
        """
        within_s = _time_of(timeout_s, tool, self._settings.call_s)
        record = CallRecord(call_id, tool, user_id, session_id)
        began = self._clock.monotonic()
        attempts = _Attempts()
        output = Output(None, 0)
        try:
            with self._means.teller.span(record) as span:
                try:
                    output = await self._carried_out(tool, parameters, within_s, attempts)
                finally:
                    span.set("modchat.tool.attempts", attempts.made)
        except BaseException as error:
            record = replace(
                record,
                error=_code_of(error),
                message=str(error),
                retryable=getattr(error, "retryable", False),
                cost=tool.options.cost if attempts.left else 0.0,
            )
            raise
        else:
            record = replace(
                record,
                ok=True,
                size_bytes=output.size_bytes,
                is_cut=output.is_cut,
                cost=tool.options.cost,
            )
        finally:
            duration_ms = (self._clock.monotonic() - began) * 1000
            record = replace(record, attempts=attempts.made, duration_ms=duration_ms)
            await self._told(record, asked, output.value)
        return ToolResult(
            call_id,
            tool.name,
            output.value,
            is_cut=output.is_cut,
            size_bytes=output.size_bytes,
            attempts=attempts.made,
            duration_ms=record.duration_ms,
            cost=record.cost,
        )

    async def close(self) -> None:
        if self._telling:
            await asyncio.wait(self._telling)

    async def _carried_out(self, tool: ToolDefinition, parameters: Any, within_s: float, attempts: _Attempts) -> Output:
        means, cost = self._means, tool.options.cost
        given = checked_parameters(parameters, self._settings.max_input_bytes)
        problems = await means.schemas.problems(tool.input_schema, given)
        if problems:
            raise ParametersInvalid(
                f"the parameters are not what {tool.name} asks for: {'; '.join(problems)}", problems=problems
            )
        await means.rates.admit(f"{tool.owner}/{tool.name}")
        await means.costs.spend(cost)
        try:
            output = await self._attempted(tool, given, within_s, attempts)
        finally:
            if not attempts.left:
                await means.costs.give_back(cost)
        if tool.output_schema is not None:
            if output.is_cut:
                raise ToolAnswerInvalid(
                    f"{tool.name} answered more than {self._settings.max_output_bytes} bytes, and what was cut off "
                    "cannot be checked"
                )
            wrong = await means.schemas.problems(tool.output_schema, output.value)
            if wrong:
                raise ToolAnswerInvalid(f"{tool.name} answered what its schema does not allow: {'; '.join(wrong)}")
        return output

    async def _attempted(
        self, tool: ToolDefinition, parameters: Mapping[str, Any], within_s: float, attempts: _Attempts
    ) -> Output:
        stamina = imported("stamina")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        backoff_s = self._settings.backoff_s
        jitter_s = backoff_s / 2
        current: Any = None

        def again(error: Exception) -> bool | float:
            pause_s = pause_before_retry_s(error, tool.options.is_idempotent, current.next_wait + jitter_s)
            return False if pause_s is None or loop.time() + pause_s >= deadline else pause_s

        contexts = stamina.retry_context(
            on=again,
            attempts=self._settings.max_attempts,
            timeout=None,
            wait_initial=backoff_s,
            wait_max=backoff_s * 2**_DOUBLINGS,
            wait_jitter=jitter_s,
            wait_exp_base=2,
        )
        async for current in contexts:
            with current:
                return await self._once(tool, parameters, deadline, attempts)
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self, tool: ToolDefinition, parameters: Mapping[str, Any], deadline: float, attempts: _Attempts
    ) -> Output:
        circuit = self.circuit(tool)
        circuit.admit()
        attempts.made += 1
        outcome = circuit.abandoned
        try:
            output = await self._sent(tool, parameters, deadline)
            attempts.left = True
            outcome = circuit.succeeded
        except PlatformError as error:
            attempts.left = attempts.left or may_have_left(error)
            outcome = {True: circuit.failed, False: circuit.succeeded, None: circuit.abandoned}[blames_tool(error)]
            raise
        except BaseException:
            attempts.left = True
            raise
        finally:
            outcome()
        return output

    async def _sent(self, tool: ToolDefinition, parameters: Mapping[str, Any], deadline: float) -> Output:
        place, options, means = tool.place, tool.options, self._means
        left_s = deadline - asyncio.get_running_loop().time()
        if place.kind not in (HTTP, PYTHON):
            # It keeps the time itself, to know which connection was too slow.
            return await means.mcp.call(place, options.headers, parameters, left_s)
        try:
            async with asyncio.timeout_at(deadline) as limit:
                if place.kind == HTTP:
                    return await means.http().call(place, options, parameters)
                return await means.python.call(place.address, parameters)
        except TimeoutError as error:
            if not limit.expired():
                raise ToolUnavailable(f"{tool.name} broke off: {error}") from error
            raise ToolTimedOut(f"{tool.name} did not answer in time") from None

    async def _told(self, record: CallRecord, asked: Mapping[str, Any] | None, output: Any) -> None:
        """Also when the caller goes away meanwhile."""
        task = asyncio.create_task(self._means.teller.ended(record, asked, output))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        await asyncio.shield(task)


@dataclass(slots=True)
class _Attempts:
    """``left``: at least one of them may have reached the tool."""

    made: int = 0
    left: bool = False


def checked_parameters(parameters: Any, max_bytes: int) -> Mapping[str, Any]:
    """Raises ParametersInvalid for what is no JSON object, or too long."""
    if parameters is None:
        return {}
    problem = ""
    if not isinstance(parameters, Mapping):
        problem = "parameters must be an object"
    else:
        try:
            size = len(json.dumps(parameters, allow_nan=False, default=dict))
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"parameters must be JSON: {error}"
        else:
            if size > max_bytes:
                problem = f"parameters have {size} bytes of at most {max_bytes}"
    if problem:
        raise ParametersInvalid(problem, problems=(problem,))
    checked: Mapping[str, Any] = parameters
    return checked


def pause_before_retry_s(error: Exception, is_idempotent: bool, backoff_s: float) -> float | None:
    """How long to wait before the same call is made again; None when it must not, or need not, be."""
    if not isinstance(error, ToolError) or not error.retryable or isinstance(error, CircuitOpen):
        return None
    if isinstance(error, ToolBusy):  # it was refused, so it was not carried out
        return max(error.retry_after_s, backoff_s)
    return backoff_s if is_idempotent or not may_have_left(error) else None


def may_have_left(error: PlatformError) -> bool:
    """Whether the tool may have got the call that *error* ended."""
    if isinstance(error, ToolUnavailable | ToolBusy):
        return error.was_sent
    return not isinstance(error, ValidationError | ConfigurationError | NotFound)


def blames_tool(error: PlatformError) -> bool | None:
    """Whether *error* counts against the tool: True against, False for it (it works, and says no), None neither."""
    if isinstance(error, ToolBusy | CircuitOpen | ValidationError | ConfigurationError | NotFound):
        return None
    return isinstance(error, ToolUnavailable | ToolAnswerInvalid)


def _time_of(asked_s: float | None, tool: ToolDefinition, usual_s: float) -> float:
    if asked_s is None:
        return tool.options.timeout_s or usual_s
    if not isinstance(asked_s, int | float) or isinstance(asked_s, bool) or not 0 < asked_s <= LONGEST_S:
        raise ValidationError(f"timeout must be above 0 and at most {LONGEST_S:g} seconds", param="timeout")
    return asked_s


def _code_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.code if isinstance(error, PlatformError) else PlatformError.code
