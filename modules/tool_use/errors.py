"""What can go wrong with a tool. Each error also is the platform's error of the same kind.

    ToolError
    ├── ToolUnavailable     not reached, failed, or broke off (Unavailable, retryable)
    │   ├── ToolTimedOut    did not connect, list or answer in its time
    │   └── CircuitOpen     failed so often that it is left alone for a while; `retry_after_s`
    ├── ToolBusy            asks to come back later, or its limit is used up (RateLimited, retryable)
    ├── ToolFailed          it ran, and says that it could not do what was asked
    ├── ToolAnswerInvalid   its answer cannot be read, is too long to be, or is not what its schema promises
    ├── AddressRefused      where it is must not be called (ValidationError)
    └── ParametersInvalid   they are not what its schema asks for (ValidationError); `problems`

``was_sent`` says whether the tool may have got the call: one that never left may always be tried again.
"""

from __future__ import annotations

from modules.core.errors import PlatformError, RateLimited, Unavailable, ValidationError


class ToolError(PlatformError):
    """Base of the tree."""

    code = "tool_error"


class ToolUnavailable(ToolError, Unavailable):
    code = "tool_unavailable"

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class ToolTimedOut(ToolUnavailable):
    code = "tool_timed_out"


class CircuitOpen(ToolUnavailable):
    code = "tool_circuit_open"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, was_sent=False)
        self.retry_after_s = retry_after_s


class ToolBusy(ToolError, RateLimited):
    code = "tool_busy"

    def __init__(self, message: str, *, retry_after_s: float, was_sent: bool = False) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.was_sent = was_sent


class ToolFailed(ToolError):
    """``status`` is HTTP's, where that is how it was said."""

    code = "tool_failed"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ToolAnswerInvalid(ToolError):
    code = "tool_answer_invalid"


class AddressRefused(ToolError, ValidationError):
    """Says what was asked for, never what stands at that address."""

    code = "tool_address_refused"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="endpoint")


class ParametersInvalid(ToolError, ValidationError):
    code = "tool_parameters_invalid"

    def __init__(self, message: str, *, problems: tuple[str, ...]) -> None:
        super().__init__(message, param="parameters")
        self.problems = problems
