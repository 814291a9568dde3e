"""What goes wrong between a caller and a module.

PlatformError (modules.core.errors)
├── Unavailable               retryable
│   ├── TimedOut              no answer in time; what was asked may still have been done
│   └── Unreachable           the process that hosts the module did not answer; `was_sent` says what is known
└── ModuleFailed              the module raised what cannot cross processes; its text is kept
"""

from __future__ import annotations

from modules.core.errors import PlatformError, Unavailable


class TimedOut(Unavailable):
    code = "timeout"


class Unreachable(Unavailable):
    """``was_sent``: the request left, so whether it was carried out is unknown. ``is_final``: waiting cannot help."""

    def __init__(self, message: str, *, was_sent: bool, is_final: bool = False) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        self.is_final = is_final


class ModuleFailed(PlatformError):
    pass
