from __future__ import annotations

import pytest

from modules.core.errors import ConfigurationError
from modules.tool_use.addresses import special
from modules.tool_use.errors import AddressRefused
from modules.tool_use.network_rules import NetworkRules, Target

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert special(address) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:7f00:1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.64.0.1", "carrier"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("192.0.2.1", "documentation"),
        ("2001:db8::1", "documentation"),
        ("2001::1", "Teredo"),
        ("2002:7f00:1::", "6to4"),
        ("::7f00:1", "not given out"),
        ("64:ff9b:1::1", "not given out"),
        ("4000::1", "not given out"),
        ("198.18.0.1", "benchmarks"),
        ("192.0.0.192", "protocols"),
    ],
)
def test_addresses_that_are_not_for_the_public_say_why(address: str, kind: str) -> None:
    found = special(address)
    assert found is not None
    assert kind in found.kind


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5"])
def test_what_is_no_address_is_an_error_and_not_public(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        special(text)


def rules(**given: object) -> NetworkRules:
    values: dict[str, object] = {"allowed": (), "blocked": (), "ports": (80, 443), "internal_hosts": (), **given}
    return NetworkRules.read(**values)  # type: ignore[arg-type]


def check(checked: NetworkRules, host: str, port: int | None = None, scheme: str = "https") -> None:
    checked.check_target(Target.of(scheme, host, port))


def test_with_no_domains_named_every_public_one_is_allowed() -> None:
    check(rules(), "api.example.com")
    check(rules(), "8.8.8.8", 80, "http")


@pytest.mark.parametrize("host", ["example.com", "api.example.com", "API.Example.com.", "a.b.example.com"])
def test_an_allowed_domain_covers_what_lies_below_it(host: str) -> None:
    check(rules(allowed=["Example.com"]), host)


@pytest.mark.parametrize("host", ["notexample.com", "example.com.evil.net", "com", "example.org", "1.2.3.4"])
def test_only_allowed_domains_are_called_where_some_are_named(host: str) -> None:
    with pytest.raises(AddressRefused):
        check(rules(allowed=["example.com"]), host)


def test_blocked_is_stronger_than_allowed_and_than_internal() -> None:
    both = rules(allowed=["example.com"], blocked=["bad.example.com"], internal_hosts=["bad.example.com:8080"])
    check(both, "good.example.com")
    with pytest.raises(AddressRefused, match="blocked"):
        check(both, "very.bad.example.com")
    with pytest.raises(AddressRefused, match="blocked"):
        check(both, "bad.example.com", 8080)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "1.2.3.0x4", "127.0.1"])
def test_an_address_in_an_unusual_spelling_is_refused_before_it_is_looked_up(host: str) -> None:
    with pytest.raises(AddressRefused, match="unusual spelling"):
        check(rules(), host)


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "ws", "", "javascript", "unix"])
def test_other_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(AddressRefused, match="http and https"):
        Target.of(scheme, "example.com", 80)


def test_ports_that_are_not_named_are_refused() -> None:
    with pytest.raises(AddressRefused, match="port 22"):
        check(rules(), "example.com", 22)
    check(rules(ports=[8443]), "example.com", 8443)


def test_a_name_without_a_dot_is_of_this_network_alone() -> None:
    with pytest.raises(AddressRefused, match="internal_hosts"):
        check(rules(), "metadata")


def test_an_internal_host_may_be_private_but_never_metadata_or_link_local() -> None:
    opened = rules(internal_hosts=["tools.internal:9000", "[fd12::1]:9001"])
    check(opened, "tools.internal", 9000, "http")
    opened.check_addresses("tools.internal", 9000, ["10.0.0.5", "127.0.0.1", "fd12::1"])
    check(opened, "fd12::1", 9001)
    for forbidden in ("169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "100.100.100.200", "fd00:ec2::254"):
        with pytest.raises(AddressRefused, match="not public"):
            opened.check_addresses("tools.internal", 9000, [forbidden])
    with pytest.raises(AddressRefused, match="not public"):
        opened.check_addresses("tools.internal", 80, ["10.0.0.5"])


def test_one_bad_address_among_good_ones_is_enough_to_refuse() -> None:
    with pytest.raises(AddressRefused, match="loopback"):
        rules().check_addresses("two.example.com", 443, ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(AddressRefused, match="no address"):
        rules().check_addresses("none.example.com", 443, [])


@pytest.mark.parametrize(
    "given",
    [
        {"allowed": ["http://example.com"]},
        {"allowed": [" "]},
        {"blocked": ["a b"]},
        {"internal_hosts": ["localhost"]},
        {"internal_hosts": ["localhost:0"]},
        {"internal_hosts": ["localhost:99999"]},
        {"internal_hosts": ["http://localhost:80"]},
    ],
)
def test_rules_that_say_nothing_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"tool_use\."):
        rules(**given)
