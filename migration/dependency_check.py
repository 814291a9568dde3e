"""Are the distributions that modchat needs installed, and new enough?

The answer comes from the metadata of the installed distributions alone. Nothing is imported: a distribution and its
module may differ in name (``faiss-cpu`` holds ``faiss``), a module may hide its version, and importing takes seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_DISTRIBUTION = "modchat"
# Vector sets are part of every v2 store that used search, so a migration needs these too.
_MIGRATION_EXTRAS = ("rag",)
_LOWER_BOUNDS = frozenset({">=", ">", "~=", "=="})


class Problem(Enum):
    MISSING = "missing"
    TOO_OLD = "too old"
    UNSUITABLE = "unsuitable"
    """Not below what is required, but excluded all the same: too new, or a version known to be broken."""
    UNREADABLE = "version unreadable"


@dataclass(frozen=True, slots=True)
class Finding:
    """A requirement that the environment does not meet."""

    name: str
    required: str
    """The versions allowed, as in ``>=1.26``; empty when any will do."""
    found: str | None
    problem: Problem

    def __str__(self) -> str:
        wanted = f"{self.name}{self.required}"
        if self.problem is Problem.MISSING:
            return f"{wanted} is missing"
        return f"{wanted} is required, {self.found} is installed: {self.problem.value}"


def check_dependencies() -> list[str]:
    """What is missing (``faiss-cpu``) or too old (``numpy>=1.26``) for a migration; empty when all is well."""
    findings = check(_MIGRATION_EXTRAS)
    return [f.name if f.problem is Problem.MISSING else f"{f.name}{f.required}" for f in findings]


def check(
    extras: Iterable[str] = (), *, distribution: str = _DISTRIBUTION, path: Sequence[str] | None = None
) -> list[Finding]:
    """Every requirement of *distribution* with *extras* that is not met, by name.

    Extras that a requirement names (``ray[default]``) are looked into as well. *path* are the directories to search
    for installed distributions, ``sys.path`` if not given. Where *distribution* itself is not installed, that is the
    one finding.

    Raises ValueError naming the extras there are when one of *extras* is not among them.
    """
    search_path = list(sys.path) if path is None else list(path)
    wanted = sorted(canonicalize_name(extra) for extra in extras)
    root = _find(distribution, search_path)
    if root is None:
        return [Finding(distribution, "", None, Problem.MISSING)]
    known = _extras_of(root)
    if unknown := [extra for extra in wanted if extra not in known]:
        raise ValueError(f"{distribution} has no extra {', '.join(unknown)}; it has: {', '.join(sorted(known))}")

    findings: set[Finding] = set()
    seen: set[tuple[str, str]] = set()
    # Pairs of a distribution and one of its extras; "" stands for what it needs with no extra at all.
    pending = [(root, extra) for extra in ("", *wanted)]
    while pending:
        dependent, extra = pending.pop()
        key = (canonicalize_name(dependent.metadata["Name"]), extra)
        if key in seen:
            continue
        seen.add(key)
        for requirement in applicable(dependent.requires or (), extra):
            installed = _find(requirement.name, search_path)
            finding = judge(requirement, None if installed is None else installed.version)
            if finding is not None:
                findings.add(finding)
            if installed is not None:
                pending.extend((installed, canonicalize_name(name)) for name in requirement.extras)
    return sorted(findings, key=lambda f: (canonicalize_name(f.name), f.required))


def applicable(requires: Iterable[str], extra: str, environment: Mapping[str, str] | None = None) -> list[Requirement]:
    """The requirements that *extra* adds to those without any extra; all of the latter when *extra* is ``""``.

    *environment* overrides values of the markers' environment, as in ``{"python_version": "3.11"}``.
    """
    plain = {**(environment or {}), "extra": ""}
    with_extra = {**plain, "extra": extra}

    def holds(requirement: Requirement) -> bool:
        marker = requirement.marker
        if marker is None:
            return extra == ""
        return marker.evaluate(with_extra) and (extra == "" or not marker.evaluate(plain))

    return [requirement for requirement in map(Requirement, requires) if holds(requirement)]


def judge(requirement: Requirement, found: str | None) -> Finding | None:
    """What is wrong with having version *found* (None: not installed) where *requirement* is made."""
    required = str(requirement.specifier)
    if found is None:
        return Finding(requirement.name, required, None, Problem.MISSING)
    try:
        version = Version(found)
    except InvalidVersion:
        return Finding(requirement.name, required, found, Problem.UNREADABLE)
    # A pre-release that somebody has installed is there on purpose.
    if requirement.specifier.contains(version, prereleases=True):
        return None
    problem = Problem.TOO_OLD if _is_below(version, requirement.specifier) else Problem.UNSUITABLE
    return Finding(requirement.name, required, found, problem)


def _is_below(version: Version, specifiers: SpecifierSet) -> bool:
    bounds = (s.version.removesuffix(".*") for s in specifiers if s.operator in _LOWER_BOUNDS)
    return any(version <= Version(bound) for bound in bounds)


def _extras_of(distribution: Distribution) -> frozenset[str]:
    return frozenset(canonicalize_name(name) for name in distribution.metadata.get_all("Provides-Extra") or ())


def _find(name: str, path: list[str]) -> Distribution | None:
    """The distribution that an import would meet first on *path*."""
    return next(iter(Distribution.discover(name=name, path=[os.fspath(entry) for entry in path])), None)
