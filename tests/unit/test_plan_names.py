"""A plan finds what the target's rules make of names: look-alikes, cut names, long paths, users that v2 renamed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.lookalikes import Lookalikes, fold, folded_hash, groups_among, is_cut
from migration.plan import make_plan
from modules.core.layout import component
from tests.hostile import CASES
from tests.hostile_case import SESSION, Tree, good, profile_record, session_record
from tests.plan_trees import PicklingFanOut, found, plan_of, settings_of

# ---- users


def test_users_that_differ_in_case_or_normal_form_are_told_together(tmp_path: Path) -> None:
    CASES["names_that_differ_in_case_or_normal_form"](tmp_path / "v2")
    plan = plan_of(tmp_path)
    groups = [detail for _, detail in found(plan, "user_collision")]
    assert groups == ["ADA / Ada / ada", "e\u0301va / \u00e9va"]
    assert plan.exit_code == 1


def test_users_are_compared_by_their_ids_not_by_their_directories(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("users/Jose/profile.json", profile_record("José"))
    tree.put("users/jose_1/profile.json", profile_record("JOSÉ"))
    tree.put("users/x/profile.json", profile_record("X/y"))
    tree.put("users/x_y/profile.json", profile_record("x y"))
    assert [detail for _, detail in found(plan_of(tmp_path), "user_collision")] == ["JOSÉ / José"]


def test_a_user_whose_sessions_stand_in_several_directories_is_no_collision(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.session("users/eve/other", "ada")
    plan = plan_of(tmp_path)
    assert "user_collision" not in plan.survey.findings
    assert found(plan, "deferred_user") == [("users/eve/other", "ada")]
    assert plan.survey.counts["sessions"] == 2


def test_a_user_who_is_only_named_by_records_is_compared_too(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.session("users/eve/other", "ADA")
    assert [detail for _, detail in found(plan_of(tmp_path), "user_collision")] == ["ADA / ada"]


def test_collisions_are_found_across_batches_on_a_cluster(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for number in range(300):
        tree.put(f"users/u{number}/s/messages.jsonl", b"")
        tree.put(f"users/U{number}x/s/messages.jsonl", b"")
    tree.put("users/U7/s/messages.jsonl", b"")
    plan = plan_of(tmp_path, fan_out=PicklingFanOut())
    assert [detail for _, detail in found(plan, "user_collision")] == ["U7 / u7"]


def test_users_that_v2_renamed_and_users_in_one_directory_are_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("users/zoe_x/profile.json", profile_record("zoë/x"))
    tree.put("users/a_b/profile.json", profile_record("a b"))
    tree.put("users/a_b/one/session.json", session_record("a/b", "one"))
    plan = plan_of(tmp_path)
    assert found(plan, "sanitised") == [("users/zoe_x", "of user zoë/x")]
    assert found(plan, "shared_directory") == [("users/a_b", "a b, a/b")]


# ---- sessions


def test_sessions_of_one_user_that_look_alike_are_told_together(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for name in ("Plan", "plan", "other", "a/Plan", "nested/\u00e9", "Nested/e\u0301"):
        tree.put(f"users/ada/{name}/messages.jsonl", good(1) + b"\n")
    tree.put("users/eve/PLAN/messages.jsonl", good(1) + b"\n")
    plan = plan_of(tmp_path)
    groups = [("ada", "Nested/e\u0301 / nested/\u00e9"), ("ada", "Plan / plan")]
    assert found(plan, "session_collision") == [(f"users/{user}", group) for user, group in groups]
    assert (plan.exit_code, plan.survey.counts["sessions"]) == (1, 7)


def test_sessions_that_look_alike_once_their_user_is_put_together_are_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.session(f"users/eve/{SESSION.upper()}", "ada")
    assert found(plan_of(tmp_path), "session_collision") == [("ada", f"{SESSION.upper()} / {SESSION}")]


def test_sessions_that_look_alike_at_home_are_not_told_again_when_their_user_is_put_together(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for name in ("Plan", "plan"):
        tree.session(f"users/ada/{name}")
    tree.session("users/eve/other", "ada")
    assert found(plan_of(tmp_path), "session_collision") == [("users/ada", "Plan / plan")]


def test_archived_sessions_do_not_collide_with_the_live_one(tmp_path: Path) -> None:
    CASES["backups_of_sessions"](tmp_path / "v2")
    assert "session_collision" not in plan_of(tmp_path).survey.findings


# ---- lengths


def test_names_that_will_be_cut_are_told(tmp_path: Path) -> None:
    CASES["long_names_everywhere"](tmp_path / "v2")
    CASES["session_name_of_255_bytes_not_ascii"](tmp_path / "more")
    os.rename(tmp_path / "more/users/ada", tmp_path / "v2/users/ada")
    cut = found(plan_of(tmp_path), "cut_name")
    assert [detail for _, detail in cut] == ["session id", "user id", "session id"]
    assert plan_of(tmp_path).exit_code == 0


def test_paths_that_would_be_too_long_in_the_attic_are_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    deep = "logs/" + "/".join(["d" * 200] * 6)
    tree.put(f"{deep}/stray.txt", b"text")
    far = os.fspath(tmp_path / "/".join(["t" * 200] * 14))
    assert "long_path" not in plan_of(tmp_path).survey.findings
    plan = make_plan(replace(settings_of(tmp_path), target=far))
    ((path, detail),) = found(plan, "long_path")
    assert path == f"{deep}/stray.txt"
    assert detail == f"{len(f'{far}/attic/{path}')} bytes in the target's attic"
    assert plan.exit_code == 1


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_a_name_is_cut_when_its_component_is(name: str | bytes) -> None:
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-@"
    length = sum(1 if byte in plain else 3 for byte in raw) + 2 * raw.startswith(b".")
    assert is_cut(name) is (length > 200)
    assert is_cut(name) is (len(component(name)) == 193 and component(name)[160] == "~")


# ---- folding


@pytest.mark.parametrize(
    ("one", "other"), [("ada", "ADA"), ("é", "e\u0301"), ("É", "e\u0301"), ("straße", "STRASSE"), ("\u212b", "å")]
)
def test_names_equal_but_for_case_and_form_fold_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert folded_hash(one) == folded_hash(other)
    assert groups_among([one, other, "else"]) == [tuple(sorted((one, other)))]


@given(st.text())
def test_folding_folds_no_further(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_what_is_equal_within_different_scopes_is_not_repeated() -> None:
    ids = Lookalikes()
    ids.add("s", within="ada")
    ids.add("S", within="eve")
    assert ids.repeated == set()
    ids.add("S", within="ada")
    assert len(ids.repeated) == 1


def test_one_name_alone_is_no_group() -> None:
    assert groups_among(["a", "a", "b"]) == []
