"""Where tools may be called: the decision, for a URL before it is asked and for an address before it is connected to.

Both are asked at every connection. A URL that was fine when its tool was registered is looked at again, as is the
target of a redirect; and it is the address that the connection then goes to which is judged, so a name that answers
differently the second time gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from modules.core.errors import ConfigurationError

from .addresses import is_address, special
from .errors import AddressRefused

DEFAULT_PORTS = {"http": 80, "https": 443}
# What inet_aton takes for an address in disguise: a last label of digits, or of 0x and hexadecimal ones.
_LIKE_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:/@\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Target:
    """Host in lower case, as ASCII, IPv6 without brackets and without the dot that may end a name."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, scheme: str, host: str, port: int | None) -> Self:
        """Raises AddressRefused for a scheme other than http and https, and for no host."""
        if scheme not in DEFAULT_PORTS:
            raise AddressRefused(f"tools are called by http and https, not {scheme!r}")
        plain = host.lower().removesuffix(".")
        if not plain:
            raise AddressRefused("the address names no host")
        if not is_address(plain) and not _NAME.fullmatch(plain):
            raise AddressRefused(f"{plain!r} is no name that a host can have")
        return cls(scheme, plain, DEFAULT_PORTS[scheme] if port is None else port)


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """``internal_hosts``: hosts and ports that may be at private addresses, and on any port. A blocked domain is
    refused whatever else says so."""

    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    allowed_ports: frozenset[int] = frozenset({80, 443})
    internal_hosts: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def read(
        cls, allowed: Iterable[str], blocked: Iterable[str], ports: Iterable[int], internal_hosts: Iterable[str]
    ) -> Self:
        """Raises ConfigurationError for what is no domain, and for an internal host that is not ``host:port``."""
        return cls(
            tuple(_domain(one, "allowed_domains") for one in allowed),
            tuple(_domain(one, "blocked_domains") for one in blocked),
            frozenset(ports),
            frozenset(_host_and_port(one) for one in internal_hosts),
        )

    def check_target(self, target: Target) -> None:
        """Raises AddressRefused when *target* must not be called, whatever its address is."""
        host = target.host
        if any(_is_within(host, domain) for domain in self.blocked_domains):
            raise AddressRefused(f"{host} is blocked by tool_use.blocked_domains")
        if self.is_internal(host, target.port):
            return
        if target.port not in self.allowed_ports:
            allowed = ", ".join(map(str, sorted(self.allowed_ports)))
            raise AddressRefused(f"port {target.port} of {host} is none of tool_use.allowed_ports ({allowed})")
        if self.allowed_domains and not any(_is_within(host, domain) for domain in self.allowed_domains):
            raise AddressRefused(f"{host} is not within tool_use.allowed_domains")
        if is_address(host):
            self.check_address(host, target.port, host)
        elif _LIKE_A_NUMBER.fullmatch(host):
            raise AddressRefused(f"{host} is an address in an unusual spelling: write it as four decimal numbers")
        elif "." not in host:
            raise AddressRefused(f"{host} is a name of this network alone: name it in tool_use.internal_hosts")

    def check_addresses(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """Raises AddressRefused unless all *addresses* that *host* has may be connected to."""
        if not addresses:
            raise AddressRefused(f"{host} has no address")
        for address in addresses:
            self.check_address(host, port, address)

    def check_address(self, host: str, port: int, address: str) -> None:
        """Raises AddressRefused when no connection may be made to *address*, which *host* has."""
        found = special(address)
        if found is not None and not (found.may_be_internal and self.is_internal(host, port)):
            raise AddressRefused(f"{host} is at an address that is not public: {found.kind}")

    def is_internal(self, host: str, port: int) -> bool:
        return (host.lower().removesuffix("."), port) in self.internal_hosts


def _is_within(host: str, domain: str) -> bool:
    return host == domain or (host.endswith("." + domain) and not is_address(host))


def _domain(text: str, setting: str) -> str:
    domain = text.strip().lower().removeprefix("*.").strip(".")
    try:
        plain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConfigurationError(f"tool_use.{setting}: {text!r} is no domain") from error
    if not plain or (not is_address(plain) and any(char in plain for char in "/:@ []")):
        raise ConfigurationError(f"tool_use.{setting}: {text!r} is no domain")
    return plain


def _host_and_port(text: str) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(text.strip())
    if match is None or not 1 <= int(match["port"]) <= 65_535:
        raise ConfigurationError(f"tool_use.internal_hosts: {text!r} is not host:port")
    host: str = match["v6"] or match["name"]
    return host.lower().removesuffix("."), int(match["port"])
