"""Secrets in headers: written as ``${NAME}``, put in when a request is made, sent to one domain only.

Who registers a tool writes the name of a variable, never its value; and the operator says to which domain each variable
may go. So nobody can have a secret sent to a server of his own by registering a tool there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from modules.core.errors import ConfigurationError, ValidationError

_SHORTEST_SECRET = 6
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)@([A-Za-z0-9.:\[\]-]+)")


@dataclass(frozen=True, slots=True)
class HeaderVariables:
    """``domains``: variable -> where it may go. *environ* is looked into at every call and never shown."""

    domains: Mapping[str, frozenset[str]]
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, pairs: Iterable[str], environ: Mapping[str, str]) -> Self:
        """*pairs* are ``NAME@domain``. Raises ConfigurationError for what is none."""
        domains: dict[str, frozenset[str]] = {}
        for pair in pairs:
            match = _PAIR.fullmatch(pair)
            if match is None:
                raise ConfigurationError(f"tool_use.header_variables: {pair!r} is not NAME@domain")
            domains[match[1]] = domains.get(match[1], frozenset()) | {match[2].lower().strip("[]")}
        return cls(domains, environ)

    def check(self, headers: Mapping[str, str], host: str) -> None:
        """Raises ValidationError when a header wants a variable that may not go to *host*."""
        for text in headers.values():
            for name in _REFERENCE.findall(text):
                if not any(host == domain or host.endswith("." + domain) for domain in self.domains.get(name, ())):
                    raise ValidationError(
                        f"${{{name}}} may not go to {host}: tool_use.header_variables does not say {name}@{host}",
                        param="metadata",
                    )

    def filled(self, headers: Mapping[str, str], host: str) -> dict[str, str]:
        """The headers as *host* gets them. Raises as `check` does, and ConfigurationError for a variable not set."""
        self.check(headers, host)
        return {name: with_variables(text, self.environ) for name, text in headers.items()}

    def secrets(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """The values that stand for the variables of *headers*, for who must not repeat them; none that is so short
        that it would be found everywhere."""
        names = {name for text in headers.values() for name in _REFERENCE.findall(text)}
        return tuple(value for name in names if len(value := self.environ.get(name, "")) >= _SHORTEST_SECRET)


def with_variables(text: str, environ: Mapping[str, str]) -> str:
    """*text* with its ``${NAME}`` replaced. Raises ConfigurationError for one that is not set, or no line of text."""

    def value_of(match: re.Match[str]) -> str:
        value = environ.get(match[1])
        if value is None:
            raise ConfigurationError(f"${{{match[1]}}} is not set")
        if not value.isprintable():
            raise ConfigurationError(f"${{{match[1]}}} is not one line of text")
        return value

    return _REFERENCE.sub(value_of, text)
