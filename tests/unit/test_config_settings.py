"""The models: defaults, limits, and the files that are written from them."""

import pickle

import jsonschema
import pytest
from pydantic import ValidationError

from config import Settings, findings, is_loopback, settings_of
from config.fields import dotted, leaves
from config.load import PACKAGED
from config.schema import generated_files, write


def test_files_written_from_the_models_are_current():
    stale = [
        name
        for name, content in generated_files().items()
        if not (PACKAGED / name).exists() or (PACKAGED / name).read_text(encoding="utf-8") != content
    ]
    assert stale == [], "run: python -m config.schema"


def test_no_generated_file_is_left_over_from_an_older_model():
    present = {
        path.relative_to(PACKAGED).as_posix()
        for folder in ("schemas", "modules")
        for path in PACKAGED.glob(f"{folder}/*")
    }
    assert present <= set(generated_files())


def test_writing_a_second_time_changes_nothing(tmp_path):
    assert write(tmp_path)
    assert write(tmp_path) == []


def test_the_schema_accepts_the_defaults_and_refuses_a_typing_error():
    schema = Settings.model_json_schema()
    defaults = Settings().model_dump(mode="json")
    jsonschema.validate(defaults, schema)
    defaults["modules"]["memory"]["short_term"]["tttl_seconds"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(defaults, schema)


def test_defaults_are_those_of_the_platform():
    modules = Settings().modules
    assert modules.memory.short_term.ttl_seconds == 3600
    assert modules.memory.short_term.max_items == 1000
    assert modules.memory.long_term.max_items_per_user == 10_000
    assert (modules.multi_agent.consensus.quorum, modules.multi_agent.consensus.max_rounds) == (0.7, 5)
    assert modules.multi_agent.max_turns == 50
    assert modules.topic_router.threshold == 0.7
    assert modules.text_chat.max_message_length == 65_536
    assert list(type(modules).model_fields) == [
        "text_chat",
        "memory",
        "rag",
        "multi_agent",
        "tool_use",
        "persona",
        "multimodal",
        "topic_router",
        "trace_logger",
    ]
    assert all(section["enabled"] for section in modules.model_dump().values())


def test_every_setting_explains_itself():
    undocumented = [dotted(field.key) for field in leaves() if not _description(field.key)]
    assert undocumented == []


def _description(key):
    model = Settings
    for name in key[:-1]:
        model = model.model_fields[name].annotation
    return model.model_fields[key[-1]].description


def test_settings_are_frozen_and_pickle():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.http.port = 1
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_secrets_show_in_no_form():
    settings = settings_of({"modules": {"rag": {"embedding": {"api_key": "sk-very-secret"}}}}, origin="test")
    assert settings.modules.rag.embedding.api_key.get_secret_value() == "sk-very-secret"
    assert "sk-very" not in repr(settings) + str(settings.model_dump(mode="json")) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({"http": {"host": "0.0.0.0"}}, "http.api_keys_file"),
        ({"storage": {"base_path": "/old"}, "migration": {"source": "/old"}}, "would write into the v2 store"),
        ({"modules": {"rag": {"embedding": {"provider": "nomic-ai"}}}}, "modules.rag.embedding.base_url"),
        ({"modules": {"text_chat": {"model": {"provider": "openai"}}}}, "modules.text_chat.model.api_key"),
    ],
)
def test_what_is_allowed_but_doubtful_is_a_finding(values, finding):
    (found,) = findings(settings_of(values, origin="test"))
    assert finding in found


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"http": {"host": "0.0.0.0", "api_keys_file": "/keys"}},
        {"modules": {"rag": {"enabled": False, "embedding": {"provider": "nomic-ai"}}}},
        {"modules": {"rag": {"embedding": {"provider": "x", "base_url": "http://127.0.0.1:1/v1"}}}},
        {"modules": {"text_chat": {"model": {"provider": "openai", "api_key": "k"}}}},
    ],
)
def test_usable_settings_have_no_findings(values):
    assert findings(settings_of(values, origin="test")) == ()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_addresses_are_told_from_others(host, expected):
    assert is_loopback(host) is expected
