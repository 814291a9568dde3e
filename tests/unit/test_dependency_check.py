"""Requirements are judged from the metadata of installed distributions, never from imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from migration import dependency_check
from migration.dependency_check import Finding, Problem, applicable, check, check_dependencies, judge


class Site:
    """A directory of installed distributions, as an installer leaves it."""

    def __init__(self, directory: Path) -> None:
        self.path = [str(directory)]
        self._directory = directory

    def install(self, name: str, version: str, requires: tuple[str, ...] = (), extras: tuple[str, ...] = ()) -> None:
        info = self._directory / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_an_environment_that_has_everything_has_no_findings(site: Site) -> None:
    site.install("modchat", "1", requires=("numpy>=1.26",))
    site.install("numpy", "2.0.1")

    assert check(path=site.path) == []


def test_a_missing_distribution_is_found_with_what_was_required(site: Site) -> None:
    site.install("modchat", "1", requires=("numpy>=1.26",))

    assert check(path=site.path) == [Finding("numpy", ">=1.26", None, Problem.MISSING)]


def test_an_old_distribution_is_found_with_its_version(site: Site) -> None:
    site.install("modchat", "1", requires=("numpy>=1.26",))
    site.install("numpy", "1.9")

    (finding,) = check(path=site.path)

    assert finding == Finding("numpy", ">=1.26", "1.9", Problem.TOO_OLD)
    assert str(finding) == "numpy>=1.26 is required, 1.9 is installed: too old"


def test_versions_are_compared_as_versions_not_as_text(site: Site) -> None:
    site.install("modchat", "1", requires=("numpy>=1.9",))
    site.install("numpy", "1.10")

    assert check(path=site.path) == []


@pytest.mark.parametrize(
    ("requirement", "found", "problem"),
    [
        ("x>=1,<2", "2.5", Problem.UNSUITABLE),
        ("x>=1,!=1.5", "1.5", Problem.UNSUITABLE),
        ("x~=1.4", "1.3", Problem.TOO_OLD),
        ("x==2.*", "1.9", Problem.TOO_OLD),
        ("x==2.*", "3.0", Problem.UNSUITABLE),
        ("x>1.0", "1.0", Problem.TOO_OLD),
        ("x>=1", "banana", Problem.UNREADABLE),
    ],
)
def test_each_way_of_not_fitting_has_its_own_problem(requirement: str, found: str, problem: Problem) -> None:
    finding = judge(Requirement(requirement), found)

    assert finding is not None
    assert finding.problem is problem


@pytest.mark.parametrize("found", ["1.4", "2.0rc1", "1.4+local.1"])
def test_an_installed_pre_release_or_local_build_counts(found: str) -> None:
    assert judge(Requirement("x>=1.4"), found) is None


def test_requirements_of_an_extra_are_checked_only_when_it_is_asked_for(site: Site) -> None:
    site.install("modchat", "1", requires=('faiss-cpu>=1.9; extra == "rag"',), extras=("rag",))

    assert check(path=site.path) == []
    assert [f.name for f in check(["rag"], path=site.path)] == ["faiss-cpu"]


def test_an_extra_made_of_other_extras_is_followed(site: Site) -> None:
    requires = ('modchat[rag]; extra == "all"', 'faiss-cpu; extra == "rag"')
    site.install("modchat", "1", requires=requires, extras=("rag", "all"))

    assert [f.name for f in check(["all"], path=site.path)] == ["faiss-cpu"]


def test_extras_of_a_requirement_are_looked_into(site: Site) -> None:
    site.install("modchat", "1", requires=("ray[default]>=2",))
    site.install("ray", "2.5", requires=('aiohttp>=3; extra == "default"', "unrelated"), extras=("default",))

    assert [f.name for f in check(path=site.path)] == ["aiohttp"]


def test_extras_that_name_each_other_come_to_an_end(site: Site) -> None:
    requires = ('modchat[b]; extra == "a"', 'modchat[a]; extra == "b"', 'gone; extra == "b"')
    site.install("modchat", "1", requires=requires, extras=("a", "b"))

    assert [f.name for f in check(["a"], path=site.path)] == ["gone"]


def test_an_unknown_extra_is_refused_with_the_names_there_are(site: Site) -> None:
    site.install("modchat", "1", extras=("rag", "audio"))

    with pytest.raises(ValueError, match=r"no extra rug; it has: audio, rag"):
        check(["rug"], path=site.path)


def test_requirements_for_other_platforms_are_left_out() -> None:
    requires = ['x; sys_platform == "win32"', 'y; sys_platform == "linux"', 'z; python_version < "3"']

    assert [r.name for r in applicable(requires, "", {"sys_platform": "linux"})] == ["y"]


def test_an_extra_adds_only_what_is_not_required_anyway() -> None:
    requires = ["x", 'y; python_version >= "3"', 'z; extra == "rag"', 'w; extra == "audio"']

    assert [r.name for r in applicable(requires, "")] == ["x", "y"]
    assert [r.name for r in applicable(requires, "rag")] == ["z"]


def test_a_program_that_is_not_installed_is_itself_the_finding(site: Site) -> None:
    assert check(path=site.path) == [Finding("modchat", "", None, Problem.MISSING)]


def test_names_are_compared_in_their_normal_form(site: Site) -> None:
    site.install("modchat", "1", requires=("Faiss_CPU>=1",))
    site.install("faiss-cpu", "1.9")

    assert check(path=site.path) == []


def test_the_list_gives_bare_names_for_missing_and_bounds_for_old(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ("numpy>=1.26", 'faiss-cpu>=1.9; extra == "rag"')
    site.install("modchat", "1", requires=requires, extras=("rag",))
    site.install("numpy", "1.20")
    monkeypatch.setattr(sys, "path", site.path)

    assert check_dependencies() == ["faiss-cpu", "numpy>=1.26"]


def test_checking_imports_none_of_what_it_checks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("modchat", "1", requires=("booby-trap>=1",))
    site.install("booby-trap", "1.0")
    (Path(site.path[0]) / "booby_trap.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setattr(sys, "path", [*site.path, *sys.path])

    assert dependency_check.check(path=site.path) == []
    assert "booby_trap" not in sys.modules
