"""The sessions of a user whom the target does not have become visible together, and a crash leaves nothing of them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.target import STAGING, Target, UserTakenError
from tests.hostile_case import Tree, good, profile_record, session_record

SESSIONS = [f"chat_session_2025080{number}_100000" for number in range(1, 6)]


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/profile.json", profile_record())
    for number, name in enumerate(SESSIONS, 1):
        tree.put(f"users/ada/{name}/session.json", session_record(session=name))
        tree.put(f"users/ada/{name}/messages.jsonl", b"".join(good(n) + b"\n" for n in range(number)))
    tree.put("users/ada/personas/ada.json", b'{"name": "Ada", "role": "user"}')
    for directory, _, files in os.walk(tmp_path / "v2"):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(10**18, 10**18))
    return RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new"))


def migrated(settings: RunSettings) -> dict[str, bytes]:
    """The target's files outside .migration after a run, which leaves no staging behind."""
    Engine(settings, LocalBackend()).run()
    assert not os.path.lexists(f"{settings.target}/{STAGING}")
    return files(settings.target)


def files(root: str) -> dict[str, bytes]:
    return {
        os.path.relpath(os.path.join(directory, name), root): Path(directory, name).read_bytes()
        for directory, _, names in os.walk(root)
        for name in names
        if ".migration" not in directory
    }


def test_nobody_sees_a_new_user_before_all_sessions_are_there(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    publish = Target.publish_user

    def watched(target: Target) -> None:
        home = f"{settings.target}/text_chat/sessions/ada"
        assert not os.path.lexists(home)
        publish(target)
        seen.append(sorted(os.listdir(home)))

    monkeypatch.setattr(Target, "publish_user", watched)
    migrated(settings)
    assert seen == [SESSIONS]


def test_a_run_that_dies_before_it_publishes_is_made_good_by_the_next(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = migrated(replace(settings, target=os.fspath(tmp_path / "whole")))

    def dies(target: Target) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Target, "publish_user", dies)
        with pytest.raises(KeyboardInterrupt):
            Engine(settings, LocalBackend()).run()
    (staged,) = Path(settings.target, STAGING).iterdir()
    assert sorted(os.listdir(staged)) == SESSIONS
    assert not os.path.lexists(f"{settings.target}/text_chat/sessions/ada")
    assert migrated(settings) == expected


def test_two_attempts_at_one_user_do_not_mix(tmp_path: Path) -> None:
    lost, next_one = Target(os.fspath(tmp_path)), Target(os.fspath(tmp_path))
    for target, name in ((lost, "first"), (next_one, "second")):
        fd = target.stage_user("ada")
        assert fd is not None
        os.mkdir(name, dir_fd=fd)
    lost.publish_user()
    with pytest.raises(UserTakenError):
        next_one.publish_user()
    lost.close()
    next_one.close()
    assert os.listdir(tmp_path / "text_chat/sessions/ada") == ["first"]


@pytest.mark.parametrize("has_renameat2", [True, False])
def test_an_empty_directory_that_somebody_has_made_is_not_replaced_where_that_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_renameat2: bool
) -> None:
    if not has_renameat2:
        monkeypatch.setattr("migration.target._renameat2", lambda *_: errno.ENOSYS)
    target = Target(os.fspath(tmp_path))
    fd = target.stage_user("ada")
    assert fd is not None
    os.mkdir("chat", dir_fd=fd)
    home = tmp_path / "text_chat/sessions/ada"
    home.mkdir(parents=True)
    if has_renameat2:
        with pytest.raises(UserTakenError):
            target.publish_user()
    else:
        target.publish_user()
    target.close()
    assert os.listdir(home) == ([] if has_renameat2 else ["chat"])


def test_a_user_whom_the_platform_makes_meanwhile_keeps_what_it_wrote(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = migrated(replace(settings, target=os.fspath(tmp_path / "whole")))
    of_the_platform = "text_chat/sessions/ada/0198/metadata.json"
    stage = Target.stage_user

    def beaten(target: Target, user: str) -> int | None:
        fd = stage(target, user)
        path = Path(settings.target, of_the_platform)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}")
        return fd

    monkeypatch.setattr(Target, "stage_user", beaten)
    assert migrated(settings) == {**expected, of_the_platform: b"{}"}


def test_a_user_who_has_a_directory_is_not_staged(tmp_path: Path) -> None:
    (tmp_path / "text_chat/sessions/ada").mkdir(parents=True)
    target = Target(os.fspath(tmp_path))
    assert target.stage_user("ada") is None
    target.publish_user()  # of nothing
    target.close()
    assert not os.path.lexists(tmp_path / STAGING)


def test_what_is_not_published_is_taken_away(tmp_path: Path) -> None:
    target = Target(os.fspath(tmp_path))
    target.stage_user("ada")
    (tmp_path / "text_chat/sessions/ada/mine").mkdir(parents=True)
    with pytest.raises(UserTakenError):
        target.publish_user()
    target.close()
    assert os.listdir(tmp_path / STAGING) == []
    assert os.listdir(tmp_path / "text_chat/sessions/ada") == ["mine"]
