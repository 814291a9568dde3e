"""What can go wrong with a model. Each error also is the platform's error of the same kind, so that a caller who
knows only those still decides rightly.

    ModelError
    ├── ModelUnavailable     cannot be reached, failed, or kept silent too long (Unavailable, retryable)
    │   └── ModelInterrupted its answer broke off; what had been given stays given
    ├── ModelBusy            asks to come back later (RateLimited, retryable)
    ├── ModelRefused         the request is not one that it answers (ValidationError)
    │   └── ContextTooLong   the prompt is longer than its context window
    ├── ModelMisconfigured   key, name or address are wrong (ConfigurationError)
    │   └── ModelNotInstalled  a package is missing; `extra` names what brings it
    ├── ModelAnswerInvalid   it answered, but not in a form that can be used
    └── ModelCancelled       the model was closed while this was under way
"""

from __future__ import annotations

from modules.core.errors import ConfigurationError, PlatformError, RateLimited, Unavailable, ValidationError


class ModelError(PlatformError):
    """Base of the tree."""


class ModelUnavailable(ModelError, Unavailable):
    code = "model_unavailable"


class ModelInterrupted(ModelUnavailable):
    code = "model_interrupted"


class ModelBusy(ModelError, RateLimited):
    code = "model_busy"


class ModelRefused(ModelError, ValidationError):
    code = "model_refused"


class ContextTooLong(ModelRefused):
    """``tokens`` is the prompt's length and ``limit`` the window's; None where the model did not say."""

    code = "context_length_exceeded"

    def __init__(self, message: str, *, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message, param="messages")
        self.tokens = tokens
        self.limit = limit


class ModelMisconfigured(ModelError, ConfigurationError):
    code = "model_misconfigured"


class ModelNotInstalled(ModelMisconfigured):
    code = "model_not_installed"

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class ModelAnswerInvalid(ModelError):
    code = "model_answer_invalid"


class ModelCancelled(ModelError):
    code = "model_cancelled"
