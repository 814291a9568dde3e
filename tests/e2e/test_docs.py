"""What the documentation says can be typed, can be typed; what it links to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import modchat

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PLACEHOLDERS = {"OLD": "old", "NEW": "new", "OLD2": "old2", "DIR": "dir", "FILE": "file", "V2CONFIG": "v2.json"}


def commands() -> list[tuple[str, str]]:
    """(page, command) of every ``modchat ...`` in the pages: whole lines of code blocks, and inline code."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = re.findall(r"^(modchat (?:[a-z]+ )+--[^\n#]*)", text, re.MULTILINE)
        inline = re.findall(r"`(modchat [^`\n|]*--[^`\n|]*)`", text)
        found += [(page.name, " ".join(command.split())) for command in lines + inline]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_the_documentation_is_understood(page: str, command: str) -> None:
    words = [_PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
    words = ["4" if word == "N" else "10" if word == "MB/s" else word for word in words]
    assert modchat.parser().parse_args(words).handler


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_of_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_constraints_name_one_version_each_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line), line


def test_make_lists_its_targets() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"setup", "demo", "check", "test", "test-cluster", "bench", "docs", "clean"} <= set(targets)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for command in ("plan", "run", "validate", "status", "control", "reverse", "config"):
        assert f"modchat migrate {command}" in text
    assert "modchat index build" in text
    assert "modchat sample" in text
