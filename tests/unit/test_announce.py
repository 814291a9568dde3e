"""Mails say what is so."""

from __future__ import annotations

import email
import os
from email import policy
from pathlib import Path

import pytest

import modchat
from migration.announce import Announcements, Kind, user_figures, users_of
from migration.state import RefusedError
from migration.target import Target
from migration.templating import TemplateBroken
from migration.v2.read import SourceError
from tests.cutover_world import World
from tests.hostile_case import profile_record


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "sync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.tree.put(
        "users/dora/profile.json", profile_record("dora", username="Dora", metadata={"email": "d@example.org"})
    )
    made.begin()
    return made


def announce(world: World, kind: str, out: Path, *more: str) -> int:
    command = ["migrate", "announce", "--to", str(world.new), "--kind", kind, "--out", str(out)]
    return modchat.main([*command, *more])


@pytest.mark.parametrize("kind", ["before", "during", "after"])
def test_everybody_gets_a_mail_with_the_real_figures(world: World, tmp_path: Path, kind: str) -> None:
    assert announce(world, kind, tmp_path / "out", "--contact", "help@example.org") == 0
    users = sorted(path.stem for path in (tmp_path / "out" / kind / "users").glob("*.txt"))
    assert users == ["ada", "bob", "cyd", "dora"]
    text = (tmp_path / "out" / kind / "users/ada.txt").read_text()
    assert text.startswith("Subject: ")
    assert "4 messages" in text
    assert "2 conversations" in text
    assert "help@example.org" in text
    operator = (tmp_path / "out" / kind / "operator.txt").read_text()
    assert str(world.v2) in operator
    assert "{{" not in operator + text


def test_after_a_rollback_users_hear_of_that(world: World, tmp_path: Path) -> None:
    world.say_new("new_1")
    world.cut_over().roll_back()
    assert announce(world, "rolled-back", tmp_path / "out") == 0
    assert "now in v2: 1" in (tmp_path / "out/rolled-back/operator.txt").read_text()
    assert "5 messages" in (tmp_path / "out/rolled-back/users/ada.txt").read_text()


def test_nothing_is_announced_that_is_not_so(world: World) -> None:
    with pytest.raises(RefusedError, match="must be rolled back"):
        Announcements(str(world.new), Kind.ROLLED_BACK)
    with pytest.raises(SourceError, match="no migration"):
        Announcements(str(world.root / "none"), Kind.BEFORE)
    with pytest.raises(RefusedError, match="no user 'eve'"):
        list(Announcements(str(world.new), Kind.AFTER).users(["eve"]))


def test_a_mail_is_a_message_for_mail_programs(world: World, tmp_path: Path) -> None:
    announce(
        world, "after", tmp_path, "--user", "dora", "--sender", "chat@example.org", "--operator", "ops@example.org"
    )
    message = email.message_from_bytes((tmp_path / "after/users/dora.eml").read_bytes(), policy=policy.default)
    assert (message["From"], message["To"]) == ("chat@example.org", "d@example.org")
    assert message["Subject"] == "Your conversations have moved"
    assert "Hello Dora" in message.get_content()
    operator = email.message_from_bytes((tmp_path / "after/operator.eml").read_bytes(), policy=policy.default)
    assert operator["To"] == "ops@example.org"
    assert not (tmp_path / "after/users/ada.eml").exists()


def test_own_templates_come_first_and_must_be_whole(world: World, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "announce-after-user.txt").write_text("Subject: Ahoi {{ user.name }}\n\n{{ user.messages }}\n")
    assert announce(world, "after", tmp_path / "out", "--templates", str(own)) == 0
    assert (tmp_path / "out/after/users/ada.txt").read_text().startswith("Subject: Ahoi ")
    (own / "announce-after-user.txt").write_text("Subject: x\n\n{{ user.shoe_size }}\n")
    with pytest.raises(TemplateBroken, match="shoe_size"):
        list(Announcements(str(world.new), Kind.AFTER, templates=own).users())
    (own / "announce-after-user.txt").write_text("Hello\n")
    assert announce(world, "after", tmp_path / "out", "--templates", str(own)) == 2


@pytest.mark.parametrize("address", ["x@y\nBcc: all@example.org", "nobody", "a@b, c@d"])
def test_an_address_cannot_make_a_header(tmp_path: Path, address: str) -> None:
    world = World(tmp_path, users=("ada",))
    world.tree.put("users/eve/profile.json", profile_record("eve", metadata={"email": address}))
    world.begin()
    announce(world, "after", tmp_path / "out", "--user", "eve")
    message = email.message_from_bytes((tmp_path / "out/after/users/eve.eml").read_bytes(), policy=policy.default)
    assert message["To"] is None
    assert message["Bcc"] is None


def test_a_users_figures_are_counted_on_the_new_side(world: World) -> None:
    world.say_new("new_1")
    figures = user_figures(str(world.new), "ada")
    assert figures is not None
    assert (figures["sessions"], figures["messages"]) == (2, 5)
    assert user_figures(str(world.new), "../ada") is None
    assert users_of(str(world.new)) == ["ada", "bob", "cyd", "dora"]
