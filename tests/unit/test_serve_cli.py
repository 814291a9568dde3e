"""``modchat serve`` as far as it goes before anything is started."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest

import serve.cli as cli
from config.load import load_settings


def command(*words: str) -> argparse.Namespace:
    root = argparse.ArgumentParser()
    cli.register(root.add_subparsers())
    return root.parse_args(["serve", *words])


def test_the_command_line_wins_over_the_settings(tmp_path: Path) -> None:
    args = command(
        *("--base", str(tmp_path), "--host", "::1", "--port", "9000", "--keys", "k.json"),
        *("--replicas", "3", "--shards", "2"),
    )
    settings = cli.chosen(load_settings(environ={"CHAT_HTTP__PORT": "7000"}), args)
    http = settings.http
    assert (http.host, http.port, http.api_keys_file, http.replicas) == ("::1", 9000, Path("k.json"), 3)
    assert settings.storage.base_path == tmp_path
    assert (settings.modules.text_chat.shards, settings.modules.memory.shards) == (2, 2)


def test_what_the_command_line_does_not_name_is_as_set() -> None:
    settings = load_settings(environ={"CHAT_HTTP__PORT": "7000"})
    assert cli.chosen(settings, command()) == settings


@pytest.mark.parametrize("wrong", [("--port", "0"), ("--port", "65536"), ("--port", "http"), ("--replicas", "0")])
def test_what_is_no_port_and_no_count_is_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(*wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--base", "nowhere"), cli.WRONG_USE, "nowhere: no such directory"),
        (("--base", ".", "--host", "0.0.0.0"), cli.REFUSED, "without keys only this machine"),
        (("--base", ".", "--keys", "none.json"), cli.WRONG_USE, "none.json: no such file"),
        (("--base", ".", "--host", "203.0.113.9", "--keys", "keys.json"), cli.WRONG_USE, "cannot listen"),
        (("--base", ".", "--environment", "none"), cli.WRONG_USE, "environment"),
        (("--base", ".", "--config-dir", "none"), cli.WRONG_USE, "none"),
    ],
)
def test_what_cannot_be_served_ends_with_a_reason_and_a_code(
    words: tuple[str, ...],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.json").write_text("{}")
    assert cli.serve(command(*words)) == code
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.serve(command("--base", str(tmp_path), "--port", port)) == cli.TRY_AGAIN
    assert f"port {port} of 127.0.0.1 is taken" in capsys.readouterr().err


def test_the_help_says_what_is_started_and_how_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("--help")
    text = capsys.readouterr().out
    assert "stays on loopback" in text
    assert "4 refused: others could reach it without keys" in text
