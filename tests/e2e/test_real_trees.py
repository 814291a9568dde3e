"""Trees that the old writers left, where they are at hand: migrated, compared, and brought back byte for byte.

They are somebody's data and not part of this project: without them (in ``../shared/corpora`` or where
``MODCHAT_V2_CORPORA`` says) these tests are skipped, and the generated stores have to do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.reverse import reverse
from migration.v2.names import V2Names
from migration.validate import MigrationValidator

CORPORA = Path(os.environ.get("MODCHAT_V2_CORPORA", Path(__file__).resolve().parents[3] / "shared" / "corpora"))

# Tree, further users directories, extra roots, and figures that are known of it.
TREES: list[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, int]]] = [
    ("real/complex_data", (), (), {"users": 20, "sessions": 96, "messages": 302, "salvaged": 1, "personas": 14}),
    ("real/demo_data_automated", (), (), {"users": 4, "sessions": 5, "messages": 69, "documents": 3, "vector_sets": 3}),
    ("real/deployment_test", (), (), {"users": 12, "sessions": 22, "messages": 100}),
    ("real/feature_test", (), (), {"users": 3, "sessions": 3, "messages": 1}),
    ("real/mixed_my_chat_data", (), (), {"sessions": 4, "messages": 6, "documents": 9, "vector_sets": 1}),
    ("real/test_vector_fix", (), (), {"sessions": 0, "vector_sets": 1}),
    ("real/v1_chat_data", (), (), {"users": 3, "sessions": 3, "messages": 12}),
    ("real/v1_demo_chat_data", (), (), {"users": 1, "sessions": 3, "messages": 24}),
    ("real/v1_test_chat_data", (), (), {"users": 1, "sessions": 3, "messages": 12, "documents": 3}),
    ("golden/g1", (), (), {"sessions": 1, "messages": 1, "panels": 1, "personas": 2, "archived": 1}),
    ("golden/g3", (), (), {"sessions": 1, "messages": 1, "panels": 1, "personas": 2, "vector_sets": 1}),
    ("golden/g5", (), (), {"sessions": 2, "documents": 1}),
    ("golden/g6", (), ("golden/g6_misplaced_vectors",), {"sessions": 3, "documents": 3, "vector_sets": 1}),
    ("golden/g6_misplaced_vectors", (), ("golden/g6",), {"vector_sets": 1}),
    ("golden/g6_split_dirs", ("people",), (), {"sessions": 4, "messages": 8, "documents": 2, "vector_sets": 2}),
]


def files_of(tree: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and not (path.name.endswith(".lock") and path.stat().st_size == 0)
    }


@pytest.mark.parametrize(("tree", "users_dirs", "extra", "known"), TREES, ids=[row[0] for row in TREES])
def test_a_real_tree_is_migrated_whole_and_comes_back(
    tree: str, users_dirs: tuple[str, ...], extra: tuple[str, ...], known: dict[str, int], tmp_path: Path
) -> None:
    old, new, back = CORPORA / tree, tmp_path / "new", tmp_path / "back"
    if not old.is_dir():
        pytest.skip(f"{tree} is not at hand")
    names = V2Names().with_users_dirs(users_dirs)
    roots = tuple(str(CORPORA / root) for root in extra)
    report = Engine(RunSettings(str(old), str(new), names, roots), LocalBackend()).run()
    figures: dict[str, Any] = report.to_json()
    assert {key: figures[key] for key in known} == known
    assert report.exit_code == 0
    own = files_of(old)
    brought = sum(1 for root in roots for name in files_of(Path(root)) if "/vectors/" in name)
    assert figures["migrated_files"] + figures["attic"] + figures["ignored"] == len(own) + brought

    ok, errors, _ = MigrationValidator(old, new, names=names, extra_roots=roots).validate_all()
    assert (ok, errors) == (True, [])

    reverse(str(new), str(back))
    restored = files_of(back)
    assert {name: restored.get(name) for name in own} == own
    assert len(restored) == len(own) + brought
