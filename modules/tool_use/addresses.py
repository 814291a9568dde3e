"""Which IP addresses a tool may be at. Pure.

A table of what is not for the public, after the IANA registries of special-purpose addresses (RFC 6890 and its
updates) and the addresses at which clouds tell a machine its credentials. What is not in the table is public when it is
IPv4, or IPv6 in 2000::/3, the only block that is given out. Addresses that carry another one (mapped, NAT64) are what
they carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


@dataclass(frozen=True, slots=True)
class Special:
    """Why an address is refused. ``may_be_internal``: an operator may open it by naming the host."""

    kind: str
    may_be_internal: bool = False


# The first row that holds the address counts.
_V4: tuple[tuple[str, Special], ...] = (
    ("100.100.100.200/32", Special("a cloud's metadata")),
    ("168.63.129.16/32", Special("a cloud's metadata")),
    ("169.254.0.0/16", Special("link-local, where clouds keep metadata")),
    ("0.0.0.0/8", Special("this machine, unspecified")),
    ("127.0.0.0/8", Special("loopback", may_be_internal=True)),
    ("10.0.0.0/8", Special("private", may_be_internal=True)),
    ("172.16.0.0/12", Special("private", may_be_internal=True)),
    ("192.168.0.0/16", Special("private", may_be_internal=True)),
    ("100.64.0.0/10", Special("a carrier's own", may_be_internal=True)),
    ("192.0.0.0/24", Special("kept for protocols")),
    ("192.0.2.0/24", Special("for documentation")),
    ("192.88.99.0/24", Special("a relay of 6to4")),
    ("198.18.0.0/15", Special("for benchmarks")),
    ("198.51.100.0/24", Special("for documentation")),
    ("203.0.113.0/24", Special("for documentation")),
    ("224.0.0.0/4", Special("multicast")),
    ("240.0.0.0/4", Special("reserved")),
)
_V6: tuple[tuple[str, Special], ...] = (
    ("::/128", Special("this machine, unspecified")),
    ("::1/128", Special("loopback", may_be_internal=True)),
    ("fd00:ec2::/32", Special("a cloud's metadata")),
    ("fc00::/7", Special("private", may_be_internal=True)),
    ("fe80::/10", Special("link-local")),
    ("fec0::/10", Special("site-local")),
    ("ff00::/8", Special("multicast")),
    ("2001::/23", Special("kept for protocols, Teredo among them")),
    ("2001:db8::/32", Special("for documentation")),
    ("2002::/16", Special("6to4, which carries another address")),
    ("3fff::/20", Special("for documentation")),
)
_V4_NETWORKS = tuple((IPv4Network(text), special) for text, special in _V4)
_V6_NETWORKS = tuple((IPv6Network(text), special) for text, special in _V6)
_CARRIES_V4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_GIVEN_OUT = ip_network("2000::/3")
_NOT_GIVEN_OUT = Special("not given out to anybody")


def special(address: str) -> Special | None:
    """Why *address* is not for the public; None when it is public. Raises ValueError for what is no IP address."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        if any(parsed in network for network in _CARRIES_V4):
            return _special_v4(IPv4Address(int(parsed) & 0xFFFF_FFFF))
        return _special_v6(parsed)
    return _special_v4(parsed)


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _special_v4(address: IPv4Address) -> Special | None:
    return next((special for network, special in _V4_NETWORKS if address in network), None)


def _special_v6(address: IPv6Address) -> Special | None:
    known = next((special for network, special in _V6_NETWORKS if address in network), None)
    return known or (None if address in _GIVEN_OUT else _NOT_GIVEN_OUT)
