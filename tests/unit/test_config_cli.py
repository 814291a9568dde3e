"""``modchat config show`` and ``check`` as an operator meets them."""

import argparse
import json
import os

import pytest

from config.cli import register

SECRET = "sk-never-to-be-shown"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line; returns exit code, standard output, standard error."""
    for name in [name for name in os.environ if name.startswith("CHAT_")]:
        monkeypatch.delenv(name)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))

    def run(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        args = parser.parse_args(["config", *arguments])
        code = args.handler(args)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_show_lists_every_setting_with_its_value(run):
    code, out, _ = run("show", CHAT_HTTP__PORT="81")
    assert code == 0
    assert "http.port = 81\n" in out
    assert "modules.memory.short_term.ttl_seconds = 3600.0\n" in out


def test_show_masks_secrets(run):
    for arguments in (("show",), ("show", "--json"), ("show", "--origins", "--json")):
        code, out, _ = run(*arguments, CHAT_MODULES__RAG__EMBEDDING__API_KEY=SECRET)
        assert code == 0
        assert SECRET not in out
        assert "**********" in out


def test_show_says_where_values_came_from(run):
    _, out, _ = run("show", "--origins", CHAT_HTTP__PORT="81")
    assert "http.port = 81    # environment variable CHAT_HTTP__PORT\n" in out
    _, out, _ = run("show", "--origins", "--json")
    report = json.loads(out)
    assert report["settings"]["http"]["port"] == 81
    assert report["origins"]["http.port"] == "environment variable CHAT_HTTP__PORT"


def test_check_of_usable_settings_is_clean(run):
    code, out, _ = run("check", "--environment", "production")
    assert (code, out) == (0, "the settings of production are usable\n")


def test_check_reports_what_a_person_should_look_at(run):
    code, out, _ = run("check", "--json", CHAT_HTTP__HOST="0.0.0.0")
    assert code == 1
    assert "api_keys_file" in json.loads(out)["findings"][0]


@pytest.mark.parametrize("command", ["show", "check"])
def test_settings_that_cannot_be_used_end_with_one(run, command):
    code, out, err = run(command, CHAT_HTTP__PORT=SECRET[:2])
    assert (code, out) == (1, "")
    assert "CHAT_HTTP__PORT" in err
    code, out, _ = run(command, "--json")
    assert code == 1
    assert json.loads(out)["problems"][0]["key"] == "http.port"


@pytest.mark.parametrize("arguments", [("--environment", "nowhere"), ("--config-dir", "/nonexistent")])
def test_asking_for_what_is_not_there_is_wrong_use(run, arguments):
    code, _, err = run("check", *arguments)
    assert code == 2
    assert arguments[1] in err
