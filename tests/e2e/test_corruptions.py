"""Each planted corruption of a migrated store is found by the validator."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.sample import write_sample
from migration.validate import MigrationValidator
from tests.corruptions import CORRUPTIONS, NothingSuitable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("corruptions")
    old, new = place / "old", place / "new"
    write_sample(old, users=4, sessions=2, messages=5)
    Engine(RunSettings(str(old), str(new)), LocalBackend()).run()
    return old, new


def test_an_undamaged_store_is_found_equal(migrated: tuple[Path, Path]) -> None:
    ok, errors, _ = MigrationValidator(*migrated).validate_all()
    assert (ok, errors) == (True, [])


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_the_corruption_is_found(name: str, migrated: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = migrated
    damaged = tmp_path / "damaged"
    shutil.copytree(new, damaged)
    try:
        CORRUPTIONS[name](damaged)
    except NothingSuitable as nothing:
        pytest.skip(f"the sample store has nothing that this could damage: {nothing}")
    ok, errors, _ = MigrationValidator(old, damaged).validate_all()
    assert not ok
    assert errors


def test_at_least_sixty_kinds_of_corruption_were_planted(migrated: tuple[Path, Path], tmp_path: Path) -> None:
    """The skips above are few: most corruptions find something to damage in the sample store."""
    _, new = migrated
    planted = 0
    for name, corrupt in CORRUPTIONS.items():
        damaged = tmp_path / name
        shutil.copytree(new, damaged)
        try:
            corrupt(damaged)
            planted += 1
        except NothingSuitable:
            pass
        shutil.rmtree(damaged)
    assert planted >= 60
