"""What is made of HAProxy's configuration as Ray Serve writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modules.core.errors import Unavailable
from serve.haproxy_config import MARK, Door, NotUnderstood, closed
from serve.problems import DEFECT, problem_of

WRITTEN = (Path(__file__).parents[1] / "cases" / "haproxy" / "ray-2.60.cfg").read_text(encoding="utf-8")


def lines_of(text: str, section: str) -> list[str]:
    """The lines of a section, without comments."""
    body = text.partition(f"\n{section}\n")[2]
    lines = []
    for line in body.splitlines():
        if line and not line[0].isspace():
            break
        if line.strip() and not line.strip().startswith("#"):
            lines.append(line.strip())
    return lines


def test_ray_writes_three_doors_and_one_is_left() -> None:
    assert re.findall(r"^ *(bind .*)", WRITTEN, re.MULTILINE) == [
        "bind :9101",
        "bind 127.0.0.1:@PORT@",
        "bind *:8404",
    ]
    assert re.findall(r"^ *(bind .*)", closed(WRITTEN, Door()), re.MULTILINE) == ["bind 127.0.0.1:@PORT@"]


@pytest.mark.parametrize(
    ("host", "bound"),
    [("0.0.0.0", "0.0.0.0:@PORT@"), ("::1", "::1:@PORT@"), ("[::]", ":::@PORT@"), ("localhost", "localhost:@PORT@")],
)
def test_the_door_stands_where_it_is_wanted(host: str, bound: str) -> None:
    assert f"bind {bound}" in lines_of(closed(WRITTEN, Door(host)), "frontend http_frontend")


def test_only_its_owner_commands_haproxy() -> None:
    sockets = [line for line in lines_of(closed(WRITTEN, Door()), "global") if line.startswith("stats socket")]
    assert sockets == ["stats socket @DIR@/admin.sock mode 600 level admin expose-fd listeners"]


def test_what_is_asked_for_is_not_logged() -> None:
    text = closed(WRITTEN, Door())
    assert "127.0.0.1:514" not in text
    assert "log stderr format raw local0 notice" in lines_of(text, "global")


def test_a_client_names_no_address_unless_a_trusted_proxy_speaks_for_it() -> None:
    def forwarded(door: Door) -> list[str]:
        lines = lines_of(closed(WRITTEN, door), "frontend http_frontend")
        return [line for line in lines if "x-forwarded-for" in line]

    assert forwarded(Door()) == ["http-request set-header x-forwarded-for %[src]"]
    trusting, otherwise = forwarded(Door(trusted_proxies=("10.0.0.0/8", "fd00::/8")))
    assert trusting.endswith("if { src 10.0.0.0/8 fd00::/8 } { req.hdr(x-forwarded-for) -m found }")
    assert otherwise.startswith("http-request set-header x-forwarded-for %[src] unless")


def answers_of(text: str, section: str, start: str) -> dict[int, dict[str, object]]:
    """Status -> the error that is said with it."""
    found = {}
    for line in lines_of(text, section):
        if match := re.match(rf'{start} (\d+) content-type application/json lf-string "(.*?)(?<!\\)"', line):
            found[int(match[1])] = json.loads(match[2].replace('\\"', '"'))["error"]
    return found


def test_every_answer_of_haproxys_own_has_the_shape_of_the_applications() -> None:
    text = closed(WRITTEN, Door())
    own = answers_of(text, "defaults", "http-error status")
    assert set(own) == {500, 502, 503, 504}
    assert set(answers_of(text, "frontend http_frontend", "http-response return status")) == {408, 500, 503}
    application = problem_of(Unavailable("away"))
    shape = application.body("an id")["error"]
    for error in own.values():
        assert error.keys() == shape.keys()
    assert (own[503]["type"], own[503]["code"]) == (application.type, application.code)
    assert (own[500]["type"], own[500]["code"]) == (DEFECT.type, DEFECT.code)


def test_no_application_is_no_unknown_path() -> None:
    [line] = lines_of(closed(WRITTEN, Door()), "backend default_backend")
    assert line.startswith("http-request return status 503 ")
    assert " hdr retry-after 1" in line


def test_what_was_closed_already_stays_as_it_is() -> None:
    once = closed(WRITTEN, Door())
    assert once.startswith(MARK)
    assert closed(once, Door("0.0.0.0")) == once


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("frontend http_frontend", "frontend web"),
        ("\nbackend default_backend\n", "\nbackend nowhere\n"),
        ("    bind 127.0.0.1:@PORT@\n", ""),
        ("    bind 127.0.0.1:@PORT@\n", "    bind 127.0.0.1:@PORT@\n    bind *:80\n"),
        ("backend http-modchat\n", "frontend another\n    bind *:9999\nbackend http-modchat\n"),
        ("mode 666 level admin", "level admin"),
        ("    log 127.0.0.1:514 local0 info\n", ""),
        ("    retry-on conn-failure\n", ""),
        ("    http-request return status 404", "    http-request deny deny_status 404"),
        ("global\n", "    stray\nglobal\n"),
    ],
)
def test_a_configuration_that_is_not_as_expected_is_refused(old: str, new: str) -> None:
    changed = WRITTEN.replace(old, new, 1)
    assert changed != WRITTEN
    with pytest.raises(NotUnderstood):
        closed(changed, Door())
