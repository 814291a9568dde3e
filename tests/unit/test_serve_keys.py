"""Keys: made, shown once, verified, revoked, followed; and the command that does it."""

from __future__ import annotations

import argparse
import json
import os
import stat
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from modules.core.errors import ConfigurationError, NotFound, ValidationError
from serve import keys_cli
from serve.key_ring import KeyRing
from serve.keys import Key, KeyFile, Keys

NOW = datetime(2024, 1, 15, 12, tzinfo=UTC)
SECRET = "s" * 43


def made(
    path: Path, name: str = "ops", scopes: tuple[str, ...] = ("user",), user: str | None = None
) -> tuple[Key, str]:
    numbers = count(len(KeyFile(path).read().by_id) if path.exists() else 0)
    return KeyFile(path).create(
        name, scopes, user, now=NOW, new_id=lambda: f"{next(numbers):016x}", new_secret=lambda: SECRET
    )


def test_a_key_is_kept_as_its_hash_alone_and_for_its_owner_alone(tmp_path: Path) -> None:
    key, shown = made(tmp_path / "keys.json")
    assert shown == f"mc_{key.id}_{SECRET}"
    for file in tmp_path.iterdir():
        assert SECRET not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.umask(0o022) == 0o022


def test_a_key_proves_who_shows_it(tmp_path: Path) -> None:
    _, shown = made(tmp_path / "keys.json", "ada's phone", ("user", "admin"), "ada")
    caller = KeyFile(tmp_path / "keys.json").read().verify(shown)
    assert caller is not None
    assert (caller.name, caller.scopes, caller.user_id) == (
        "ada's phone (0000000000000000)",
        frozenset({"user", "admin"}),
        "ada",
    )


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "mc_0000000000000000_" + "t" * 43,
        "mc_0000000000000000_" + "s" * 42,
        "mc_0000000000000001_" + "s" * 43,
        "0000000000000000",
        "mc_0000000000000000_" + "s" * 43 + "\n",
        "Ω" * 60,
    ],
)
def test_anything_else_proves_nothing(tmp_path: Path, shown: str) -> None:
    made(tmp_path / "keys.json")
    assert KeyFile(tmp_path / "keys.json").read().verify(shown) is None


def test_a_revoked_key_is_out_of_force_and_stays_listed(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, shown = made(file.path)
    assert file.revoke(key.id, now=NOW).revoked_at == NOW.isoformat()
    assert file.read().verify(shown) is None
    assert list(file.read().by_id) == [key.id]
    with pytest.raises(NotFound):
        file.revoke("none", now=NOW)


def test_changes_are_noted_and_a_second_revocation_is_none(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, _ = made(file.path, user="ada")
    file.revoke(key.id, now=NOW)
    file.revoke(key.id, now=NOW)
    notes = [json.loads(line) for line in file.audit_path.read_text().splitlines()]
    assert [note["action"] for note in notes] == ["key.created", "key.revoked"]
    assert notes[0]["details"]["user_id"] == "ada"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{}]}',
        '{"version": 1, "keys": [{"id": "a", "name": "n", "hash": "short", "scopes": ["user"], "user_id": null, '
        '"created_at": "x"}]}',
        json.dumps(
            {
                "version": 1,
                "keys": [
                    {
                        "id": "a",
                        "name": "n",
                        "hash": "0" * 64,
                        "scopes": ["root"],
                        "user_id": None,
                        "created_at": "x",
                        "revoked_at": None,
                    }
                ],
            }
        ),
    ],
)
def test_a_file_that_is_none_of_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ConfigurationError, match="no file of keys"):
        KeyFile(tmp_path / "keys.json").read()


def test_a_link_to_the_file_is_followed_as_clusters_mount_it(tmp_path: Path) -> None:
    _, shown = made(tmp_path / "real.json")
    (tmp_path / "keys.json").symlink_to(tmp_path / "real.json")
    assert KeyFile(tmp_path / "keys.json").read().verify(shown) is not None


def test_a_key_without_a_name_or_with_a_strange_scope_cannot_be() -> None:
    with pytest.raises(ValidationError):
        Key("a", "", "0" * 64, ("user",), None, "now")
    with pytest.raises(ValidationError):
        Key("a", "n", "0" * 64, ("root",), None, "now")
    assert Keys({}).verify("mc_0000000000000000_" + SECRET) is None


def test_a_ring_follows_its_file(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, shown = made(file.path)
    ring = KeyRing(file)
    file.revoke(key.id, now=NOW)
    assert ring.verify(shown) is not None
    ring.refresh()
    assert ring.verify(shown) is None


def test_a_ring_keeps_what_it_knew_while_its_file_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, shown = made(file.path)
    ring, good = KeyRing(file), file.path.read_bytes()
    file.path.write_text("{")
    for _ in range(2):
        ring.refresh()
    assert (ring.is_current, ring.verify(shown) is not None) == (False, True)
    assert caplog.text.count("the keys are as they were") == 1
    file.path.write_bytes(good)
    ring.refresh()
    assert ring.is_current


def test_a_ring_of_no_file_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        KeyRing(KeyFile(tmp_path / "none.json"))


def run(*words: str) -> int:
    root = argparse.ArgumentParser()
    keys_cli.register(root.add_subparsers(required=True))
    args = root.parse_args(words)
    code: int = args.handler(args)
    return code


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.json")
    assert run("keys", "create", "--name", "ops", "--scope", "admin", "--file", file) == 0
    shown = capsys.readouterr().out.strip()
    assert KeyFile(Path(file)).read().verify(shown) is not None
    assert run("keys", "create", "--name", "ada", "--user", "ada", "--file", file, "--json") == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["scopes"], second["user_id"]) == (["user"], "ada")
    assert run("keys", "list", "--file", file) == 0
    listed = capsys.readouterr().out
    assert "ops" in listed
    assert shown not in listed
    assert run("keys", "revoke", second["id"], "--file", file) == 0
    capsys.readouterr()
    assert run("keys", "list", "--file", file, "--json") == 0
    assert [bool(one["revoked_at"]) for one in json.loads(capsys.readouterr().out)] == [False, True]


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.json")
    assert run("keys", "list", "--file", file) == 2
    assert run("keys", "revoke", "none", "--file", file) == 2
    assert run("keys", "create", "--name", "", "--file", file) == 2
    assert run("keys", "create", "--name", "x", "--file", str(tmp_path / "none" / "keys.json")) == 3
    assert len(capsys.readouterr().err.splitlines()) == 4
