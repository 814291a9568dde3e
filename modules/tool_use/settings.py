"""What tool_use reads of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from modules.core.errors import ConfigurationError

from .network_rules import NetworkRules


@dataclass(frozen=True, slots=True)
class ToolUseSettings:
    """``calls_per_minute`` is of each tool; ``max_cost_per_day`` of all together, None for no limit.

    ``header_variables`` are pairs ``NAME@domain``: the environment variable may be sent to that domain.
    """

    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    internal_hosts: tuple[str, ...] = ()
    python_tools: tuple[str, ...] = ()
    mcp_servers_file: str | None = None
    header_variables: tuple[str, ...] = ()
    connect_s: float = 10.0
    list_s: float = 10.0
    call_s: float = 30.0
    max_attempts: int = 3
    backoff_s: float = 0.5
    failures: int = 5
    reset_s: float = 30.0
    calls_per_minute: int = 60
    max_cost_per_day: float | None = None
    max_output_bytes: int = 1_048_576
    max_input_bytes: int = 262_144
    max_tools_per_user: int = 100

    def __post_init__(self) -> None:
        for name, (path, check) in _PATHS.items():
            value = getattr(self, name)
            if not check(value):
                raise ConfigurationError(f"tool_use.{path} cannot be {value!r}")
        self.network_rules()  # says what is wrong with them

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """*settings* are the module's own, as they stand under ``modules.tool_use``."""
        if settings.get("shards", 1) != 1:
            raise ConfigurationError("tool_use.shards must be 1: limits, circuit breakers and costs are the tool's")
        given: dict[str, Any] = {}
        for name, (path, _) in _PATHS.items():
            value: Any = settings
            for part in path.split("."):
                value = value.get(part, _UNSET) if isinstance(value, Mapping) else _UNSET
            if value is not _UNSET:
                given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)

    def network_rules(self) -> NetworkRules:
        return NetworkRules.read(self.allowed_domains, self.blocked_domains, self.allowed_ports, self.internal_hosts)


_UNSET = object()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)


def _are_ports(value: object) -> bool:
    return isinstance(value, tuple) and all(_is_count(one) and one <= 65_535 for one in value)


_PATHS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "allowed_domains": ("allowed_domains", _are_texts),
    "blocked_domains": ("blocked_domains", _are_texts),
    "allowed_ports": ("allowed_ports", _are_ports),
    "internal_hosts": ("internal_hosts", _are_texts),
    "python_tools": ("python_tools", _are_texts),
    "mcp_servers_file": ("mcp_servers_file", lambda value: value is None or (isinstance(value, str) and bool(value))),
    "header_variables": ("header_variables", _are_texts),
    "connect_s": ("timeouts.connect_seconds", _is_number),
    "list_s": ("timeouts.list_seconds", _is_number),
    "call_s": ("timeouts.call_seconds", _is_number),
    "max_attempts": ("retries.max_attempts", _is_count),
    "backoff_s": ("retries.backoff_seconds", _is_number),
    "failures": ("circuit_breaker.failures", _is_count),
    "reset_s": ("circuit_breaker.reset_seconds", _is_number),
    "calls_per_minute": ("limits.calls_per_minute", _is_count),
    "max_cost_per_day": ("limits.max_cost_per_day", lambda value: value is None or value == 0 or _is_number(value)),
    "max_output_bytes": ("limits.max_output_bytes", _is_count),
    "max_input_bytes": ("limits.max_input_bytes", _is_count),
    "max_tools_per_user": ("limits.max_tools_per_user", _is_count),
}
