"""The health check says of every module what is the matter, whatever a module does."""

import sys
import types

import pytest

from migration.health_check import MODULES, health_check_all_modules, is_well, main
from modules.core.errors import ConfigurationError


class Context:
    def __init__(self, **modules):
        self.modules = modules

    async def get_module(self, name):
        module = self.modules.get(name)
        if isinstance(module, Exception):
            raise module
        return module


class Module:
    def __init__(self, answer):
        self.answer = answer

    async def health_check(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_every_module_gets_its_word():
    context = Context(
        text_chat=Module(True),
        memory=Module(False),
        rag=Module(RuntimeError("index lost")),
        persona=ConfigurationError("no place"),
        multimodal=object(),
    )
    results = await health_check_all_modules(context)

    assert list(results) == list(MODULES)
    assert {name: health for name, health in results.items() if health != "not_loaded"} == {
        "text_chat": "healthy",
        "memory": "unhealthy",
        "rag": "error: index lost",
        "persona": "error: no place",
    }


@pytest.mark.parametrize(
    ("change", "well"),
    [({}, True), ({"rag": "not_loaded"}, True), ({"text_chat": "not_loaded"}, False), ({"rag": "unhealthy"}, False)],
)
def test_only_a_needed_module_must_be_loaded(change, well):
    assert is_well(dict.fromkeys(MODULES, "healthy") | change) is well


def test_the_command_checks_a_tree_and_leaves_it_alone(tmp_path, capsys):
    assert main(["--base", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MODULES)
    assert lines[0].split() == ["text_chat", "healthy"]
    assert {path.name for path in tmp_path.iterdir()} <= {"trace_logger"}  # which claims its audit trail


def test_the_command_takes_the_tree_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAT_MIGRATION__TARGET", str(tmp_path))
    assert main([]) == 0


def test_a_module_that_does_not_load_makes_the_command_fail(tmp_path, monkeypatch, capsys):
    package = types.ModuleType("modules.rag")

    def create(settings):
        raise ConfigurationError("rag.embedding.provider is unknown")

    package.create = create
    monkeypatch.setitem(sys.modules, "modules.rag", package)

    assert main(["--base", str(tmp_path)]) == 1
    assert "error: rag.embedding.provider is unknown" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--base", "/nowhere/at/all"]])
def test_wrong_use_says_what_to_do(arguments, monkeypatch, capsys):
    monkeypatch.delenv("CHAT_MIGRATION__TARGET", raising=False)
    assert main(arguments) == 2
    assert "--base" in capsys.readouterr().err
