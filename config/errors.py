"""What can be wrong with a configuration.

ConfigurationError            the settings are not usable; says what, where and what would be
`-- NoSuchConfiguration       the directory or environment that was asked for is not there
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. Never holds the value of a secret."""

    origin: str
    """The file, variable or argument that it came from."""

    key: str
    """The setting, dotted; empty when the whole origin is wrong."""

    found: str
    """What stands there, as shown to a person."""

    allowed: str
    """What may stand there."""

    def __str__(self) -> str:
        subject = f"{self.origin}: {self.key}" if self.key else self.origin
        return f"{subject}: found {self.found}; allowed: {self.allowed}"


class ConfigurationError(ValueError):
    """The configuration cannot be used. Holds every problem found, not only the first; pickles."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class NoSuchConfiguration(ConfigurationError):
    """The directory or environment that was asked for is not there."""
