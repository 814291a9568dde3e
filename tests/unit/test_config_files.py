"""Reading v2's configuration files: JSON and environment files, and what is said of files that are neither."""

import pytest

from config import ConfigurationError
from migration.v2.config_files import read_configuration

SECRET = "sk-never-to-be-shown"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'{"storage": {\n"base_path": "/x",,\n}}', "a.json, line 2"),
        ("a.json", b"[1]", "a JSON object"),
        ("a.json", b'{"storage": "caf\xe9"}', "not UTF-8"),
        ("a.json", b"[" * 100_000, "a.json"),
        ("a.yaml", b"storage:\n  base_path: /x\n", "v2 read no settings from YAML"),
        ("a.YML", b"", "v2 read no settings from YAML"),
        (".env", f"CHATDB_ENV=test\n{SECRET}\n".encode(), ".env, line 2"),
        ("a.json", f'{{"storage": {{"api_key": "{SECRET}"}}'.encode(), "a.json, line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(tmp_path / name)
    assert said in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        read_configuration(tmp_path / "config.json")


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_configuration(tmp_path / "config.json") == {}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("export A = spaced ", "spaced"),
        ("A='single # kept'", "single # kept"),
        ('A="double"  # comment', "double"),
        ("A=a#b # comment", "a#b"),
        ("A=", ""),
        ("A=x=y", "x=y"),
    ],
)
def test_lines_of_an_environment_file_are_read_as_shells_read_them(tmp_path, line, value):
    (tmp_path / ".env").write_text(f"\n# comment\n{line}\n")
    assert read_configuration(tmp_path / ".env") == {"A": value}


@pytest.mark.parametrize("name", [".env", ".env.production", "production.env", "environment"])
def test_environment_files_are_told_by_name_or_content(tmp_path, name):
    (tmp_path / name).write_text("CHATDB_ENV=test\n")
    assert read_configuration(tmp_path / name) == {"CHATDB_ENV": "test"}


def test_json_needs_no_particular_name(tmp_path):
    (tmp_path / "settings").write_text('{"storage": {"base_path": "a=b"}}')
    assert read_configuration(tmp_path / "settings") == {"storage": {"base_path": "a=b"}}
