"""v2 configurations: every key has a fate, values are ours, secrets stay where they are."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import ConfigurationError, Settings, settings_of
from config.fields import field_at
from migration.config_migrator import ConfigMigration, migrate_config, migrate_config_data, migrate_config_file
from migration.v2.config_keys import KEYS, SECTIONS, Kind, Name, Nowhere, Special, To
from migration.v2.config_kinds import (
    BRIDGE_EXPORT_KEYS,
    BRIDGE_KEYS,
    PRESET_FLAT_KEYS,
    PRESET_SECTIONS,
    TEMPLATE_KEYS,
    V1_KEYS,
    VARIABLES,
)
from migration.v2.config_rows import ConfigKind
from migration.v2.names import V2Names

SECRET = "sk-never-to-be-shown"
PRESETS = Path(os.environ.get("MODCHAT_V2_CORPORA", "no corpora"), "real", "preset_configs")  # collected from v2
REASONS = ("dead in v2: ", "fixed: ", "no equivalent: ", "unknown key: ", "superseded: ", "outside the limits: ")
SOME_VALUE = {
    Kind.TEXT: "text",
    Kind.INTEGER: 700,
    Kind.NUMBER: 0.5,
    Kind.SWITCH: True,
    Kind.LIST: [".pdf"],
    Kind.OBJECT: {"nomic-ai": {"model_name": "m"}, "optimized_summary": {"chunk_size": 500}},
}


def check(migration: ConfigMigration, keys=()) -> ConfigMigration:
    """What holds for every migration: values fit our settings, every key has exactly one fate."""
    settings_of(migration.values, origin="migrated")
    assert not set(migration.mapped) & set(migration.unmapped)
    assert not set(migration.secrets) & (set(migration.mapped) | set(migration.unmapped))
    for key in keys:
        assert (key in migration.mapped) + (key in migration.unmapped) + (key in migration.secrets) == 1, key
    for ours in migration.mapped.values():
        assert field_at(tuple(ours.split("."))) is not None, ours
    for reason in migration.unmapped.values():
        assert reason.startswith(REASONS), reason
    V2Names.from_config(migration.names)
    json.loads(migration.to_json())
    return migration


def migrated(data, keys=()):
    return check(migrate_config_data(data, name="test"), keys)


# --- the tables ---


def test_the_tables_hold_every_key_of_v2():
    assert {section: len(rows) for section, rows in SECTIONS.items()} == {
        "storage": 24,
        "search": 24,
        "vector": 21,
        "document": 30,
        "locking": 26,
        "panel": 32,
        "runtime": 46,
    }
    assert len(V1_KEYS) == 65


@pytest.mark.parametrize(
    "table", [V1_KEYS, PRESET_FLAT_KEYS, PRESET_SECTIONS, BRIDGE_KEYS, BRIDGE_EXPORT_KEYS, VARIABLES]
)
def test_tables_of_the_other_kinds_refer_to_keys_that_exist(table):
    assert [fate for fate in table.values() if isinstance(fate, str) and fate not in KEYS] == []


def test_every_setting_that_a_table_names_exists():
    fates = [fate for _, fate in KEYS.values()] + list(PRESET_SECTIONS.values())
    targets = [fate.key for fate in fates if isinstance(fate, To)]
    targets += [fate.to.key for fate in fates if isinstance(fate, Name) and fate.to]
    assert len(targets) > 15
    assert [key for key in targets if field_at(tuple(key.split("."))) is None] == []


def test_every_reason_is_of_a_known_sort():
    tables = [{key: fate for key, (_, fate) in KEYS.items()}, V1_KEYS, PRESET_FLAT_KEYS, PRESET_SECTIONS, TEMPLATE_KEYS]
    reasons = [fate.reason for table in tables for fate in table.values() if isinstance(fate, Nowhere)]
    assert [reason for reason in reasons if not reason.startswith(REASONS)] == []


@pytest.mark.parametrize("key", list(KEYS))
def test_every_key_of_the_sections_ends_somewhere(key):
    kind, fate = KEYS[key]
    section, name = key.split(".")
    migration = migrated({section: {name: SOME_VALUE[kind]}}, [key])
    match fate:
        case Nowhere(reason):
            assert migration.unmapped[key] == reason
        case Name(name=v2_name):
            assert migration.names[v2_name] == "text"
        case Special():
            assert key in migration.mapped
        case To(key=ours) if key != "vector.default_chunking_strategy":
            assert migration.mapped[key] == ours


@pytest.mark.parametrize("key", list(V1_KEYS))
def test_every_key_of_the_first_version_ends_as_its_later_name_does(key):
    fate = V1_KEYS[key]
    kind, later = KEYS[fate] if isinstance(fate, str) else (Kind.TEXT, fate)
    migration = migrated({key: SOME_VALUE[kind]}, [key])
    assert migration.kind is ConfigKind.FLAT
    if isinstance(fate, str):
        section, name = fate.split(".")
        assert migration.values == migrated({section: {name: SOME_VALUE[kind]}}).values
    else:
        assert migration.unmapped[key] == later.reason


# --- the guide's function ---


def test_the_guide_s_function_gives_the_guide_s_shape():
    assert migrate_config(
        {
            "storage": {
                "max_message_size_bytes": 131072,
                "max_sessions_per_user": 7,
                "base_path": "/var/lib/chatdb/data",
            },
            "vector": {"default_embedding_provider": "openai"},
        }
    ) == {
        "modules": {
            "text_chat": {"enabled": True, "max_message_length": 131072, "session": {"max_sessions_per_user": 7}},
            "memory": {
                "enabled": True,
                "short_term": {"ttl_seconds": 3600},
                "long_term": {"max_items_per_user": 10000},
            },
            "rag": {"enabled": True, "embedding": {"provider": "openai"}},
        },
        "storage": {"backend": "flatfile", "base_path": "/var/lib/chatdb/data"},
    }


def test_the_guide_s_function_gives_defaults_for_an_empty_configuration():
    result = migrate_config({})
    assert result["modules"]["text_chat"]["max_message_length"] == 65536
    assert result["modules"]["text_chat"]["session"]["max_sessions_per_user"] == 100
    assert result["storage"] == {"backend": "flatfile", "base_path": "./data"}
    settings_of(result, origin="guide")


def test_vectors_stay_in_use_unless_they_were_switched_off():
    assert migrate_config({"vector": {}})["modules"]["rag"]["enabled"] is True
    assert migrate_config({"vector": {"enable_vector_storage": False}})["modules"]["rag"]["enabled"] is False
    bridge = migrate_config({"configuration": {"storage_path": "/x", "enable_vector_search": False}})
    assert bridge["modules"]["rag"]["enabled"] is False


def test_the_guide_s_function_carries_what_else_v2_had_set():
    result = migrate_config({"vector": {"search_top_k": 9}, "search": {"default_page_size": 20, "max_page_size": 100}})
    assert result["modules"]["rag"]["retrieval"] == {"top_k": 9}
    assert result["http"]["pages"] == {"default_limit": 20, "max_limit": 100}


def test_the_guide_s_function_does_not_touch_its_argument():
    old = {"storage": {"base_path": "/x"}, "document": {"allowed_extensions": [".pdf", ".odt"]}}
    before = json.dumps(old)
    result = migrate_config(old)
    result["modules"]["rag"]["parsing"]["extensions"].append(".exe")
    assert json.dumps(old) == before


# --- kinds ---


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"storage": {}}, ConfigKind.SECTIONS),
        ({}, ConfigKind.SECTIONS),
        ({"storage_base_path": "/x"}, ConfigKind.FLAT),
        ({"flatfile_config": {}, "environment": "test"}, ConfigKind.PRESET),
        ({"handler_strategies": {}}, ConfigKind.PRESET),
        ({"name": "n", "configuration": {"storage_path": "/x"}}, ConfigKind.BRIDGE),
        ({"storage_path": "/x", "features": {"vector_search": True}}, ConfigKind.BRIDGE),
        ({"CHATDB_ENV": "test"}, ConfigKind.ENVIRONMENT),
        ({"OPENAI_API_KEY": "k"}, ConfigKind.ENVIRONMENT),
    ],
)
def test_the_kind_is_recognised(data, kind):
    assert migrated(data).kind is kind


@pytest.mark.parametrize("data", [{"port": 80}, [], None, {1: 2}])
def test_what_is_no_configuration_of_v2_is_refused(data):
    with pytest.raises(ConfigurationError, match="none of the keys of a v2 configuration"):
        migrate_config_data(data, name="test")


def test_keys_that_v2_dropped_are_named():
    migration = migrated({"storage": {"base_pth": "/x"}, "colour": {"a": 1}, "search": 5})
    assert set(migration.unmapped) == {"storage.base_pth", "colour", "search"}
    assert migration.values == {}


def test_an_exported_template_says_the_same_as_the_template_it_came_from():
    plain = migrated(
        {
            "configuration": {
                "storage_path": "/x",
                "enable_vector_search": False,
                "history_page_size": 30,
                "cache_size_mb": 5,
            }
        }
    )
    nested = {
        "storage_path": "/x",
        "features": {"vector_search": False},
        "performance": {"cache_size_mb": 5},
        "chat_settings": {"history_page_size": 30},
    }
    keys = ["features.vector_search", "performance.cache_size_mb", "chat_settings.history_page_size"]
    assert migrated(nested, keys).values == plain.values
    assert migrated({"configuration": nested}, [f"configuration.{key}" for key in keys]).values == plain.values


def test_of_a_preset_every_leaf_ends_somewhere():
    leaves = {
        "flatfile_config.enable_compression": True,
        "document_processing.file_type_chains.application/pdf": ["a"],
        "document_processing.max_concurrent_documents": 5,
        "engine_selection.fallback_handlers.image/png": "x",
        "handler_strategies.strategy_parameters.nlp.spacy.model_name": "x",
        "handler_strategies.file_type_parameters.pdf.max_pages": None,
        "integration_settings.error_handling.retry_attempts": 3,
        "integration_settings.monitoring.trace_sampling_rate": 0.1,
        "integration_settings.monitoring.enable_metrics": True,
        "environment": "test",
        "integration_settings.surprise": 1,
    }
    migration = migrated(_nested(leaves), leaves)
    assert migration.values == {"modules": {"trace_logger": {"sampling_rate": 0.1}}}
    assert migration.unmapped["integration_settings.surprise"].startswith("unknown key: ")


def _nested(leaves):
    data = {}
    for key, value in leaves.items():
        *sections, last = key.split(".")
        node = data
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return data


def test_the_strategy_and_provider_in_use_bring_their_parameters():
    migration = migrated(
        {
            "vector": {
                "default_chunking_strategy": "sentence_based",
                "chunking_strategies": {
                    "sentence_based": {"sentence_per_chunk": 3, "max_chunk_size": 1000},
                    "fixed_size": {"chunk_size": 512, "chunk_overlap": 64},
                },
                "default_embedding_provider": "openai",
                "embedding_providers": {
                    "openai": {
                        "model_name": "m",
                        "embedding_dimension": 9,
                        "api_url": "https://h/v1/embeddings",
                        "max_tokens": 1,
                    },
                    "nomic-ai": {"model_name": "n"},
                },
            }
        },
        [
            "vector.chunking_strategies.sentence_based.sentence_per_chunk",
            "vector.chunking_strategies.fixed_size.chunk_size",
            "vector.embedding_providers.openai.max_tokens",
            "vector.embedding_providers.nomic-ai.model_name",
        ],
    )
    rag = migration.values["modules"]["rag"]
    assert rag["chunking"] == {"strategy": "sentence", "chunk_size": 1000}
    assert rag["embedding"] == {"provider": "openai", "model": "m", "dimension": 9, "base_url": "https://h/v1"}


def test_a_provider_that_v2_used_by_default_is_set_together_with_its_model():
    migration = migrated(
        {"vector": {"embedding_providers": {"nomic-ai": {"model_name": "n", "embedding_dimension": 768}}}}
    )
    assert migration.values["modules"]["rag"]["embedding"] == {"provider": "nomic-ai", "model": "n", "dimension": 768}


def test_the_first_of_two_keys_for_one_setting_decides():
    migration = migrated({"session_list_default_limit": 50, "message_pagination_default_limit": 40})
    assert migration.values == {"http": {"pages": {"default_limit": 40}}}
    assert migration.unmapped["session_list_default_limit"].startswith("superseded: message_pagination_default_limit")


# --- limits ---


def test_a_value_outside_our_limits_keeps_our_default_and_is_told():
    migration = migrated({"storage": {"max_sessions_per_user": 0, "max_messages_per_session": 5}})
    assert migration.values == {"modules": {"text_chat": {"max_messages_per_session": 5}}}
    assert "storage.max_sessions_per_user" in migration.unmapped
    (notice,) = [notice for notice in migration.notices if "is not carried over" in notice]
    assert "storage.max_sessions_per_user: 0" in notice
    assert "an integer at least 1" in notice


def test_values_that_contradict_our_other_values_are_left_out():
    migration = migrated({"search": {"default_page_size": 5000}})
    assert migration.values == {}
    assert any("must not exceed max_limit" in notice for notice in migration.notices)


def test_a_refused_text_is_shown_nowhere():
    migration = migrated(
        {"storage": {"max_sessions_per_user": SECRET}, "vector": {"default_chunking_strategy": SECRET}}
    )
    assert SECRET not in repr(migration) + migration.to_json()


def test_extensions_that_are_not_parsed_here_are_left_out_and_told():
    migration = migrated({"document": {"allowed_extensions": [".pdf", ".odt", ".png"]}})
    assert migration.values["modules"]["rag"]["parsing"]["extensions"] == [".pdf"]
    assert any("left out" in notice for notice in migration.notices)


# --- secrets ---


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"storage": {"api_key": SECRET}}, "storage.api_key"),
        ({"vector": {"embedding_providers": {"x": {"api_key": SECRET}}}}, "vector.embedding_providers.x.api_key"),
        ({"vector": {"embedding_providers": {"x": {"headers": [{"Authorization": SECRET}]}}}},
         "vector.embedding_providers.x.headers.0.Authorization"),
        ({"secrets": {"anything": SECRET}, "storage": {}}, "secrets"),
        ({"flatfile_config": {"jwtSecret": SECRET}}, "flatfile_config.jwtSecret"),
        ({"configuration": {"storage_path": "/x", "access_token": SECRET}}, "configuration.access_token"),
        ({"CHATDB_ENV": "x", "JWT_SECRET_KEY": SECRET}, "JWT_SECRET_KEY"),
        ({"CHATDB_VECTOR_EMBEDDING_PROVIDERS": json.dumps({"openai": {"api_key": SECRET}})},
         "CHATDB_VECTOR_EMBEDDING_PROVIDERS.openai.api_key"),
        ({"REDIS_PASSWORD": SECRET}, "REDIS_PASSWORD"),
    ],
)  # fmt: skip
def test_secrets_are_named_and_go_nowhere(data, name):
    migration = migrated(data, [name])
    assert migration.secrets == (name,)
    assert SECRET not in repr(migration) + migration.to_json() + repr(migrate_config(data))


def test_an_address_with_a_password_is_not_carried_over():
    data = {"vector": {"embedding_providers": {"nomic-ai": {"api_url": f"https://me:{SECRET}@host/v1"}}}}
    migration = migrated(data)
    assert SECRET not in repr(migration) + migration.to_json()
    assert "base_url" not in migration.values["modules"]["rag"]["embedding"]


# --- files ---


def test_names_that_v2_used_find_its_files(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "storage": {"base_path": "/srv/x", "user_data_directory": "people", "profile_filename": "who.json"},
                "document": {"storage_subdirectory": "files", "metadata_filename": "index.json"},
                "vector": {"storage_subdirectory": "vecs"},
                "panel": {"panel_sessions_directory": "rounds"},
            }
        )
    )
    migration = check(migrate_config_file(path))
    assert migration.name == str(path)
    assert migration.names["base_path"] == "/srv/x"
    names = V2Names.from_config(migration.names)
    assert names.users_dirs[0] == "people"
    assert (names.profile, names.documents, names.document_index, names.vectors) == (
        "who.json",
        "files",
        "index.json",
        "vecs",
    )
    assert names.panel_dirs[0] == "rounds"
    assert migration.values["migration"] == {"users_dirs": ["people"]}


def test_an_environment_file_is_read_as_v2_read_its_variables(tmp_path):
    path = tmp_path / ".env.production"
    path.write_text(
        "# written by deploy\n\nexport CHATDB_BASE_PATH='/srv/chat data'  # where\n"
        "CHATDB_STORAGE_MAX_SESSIONS_PER_USER=12\nCHATDB_DOCUMENT_ALLOWED_EXTENSIONS=.pdf, .md\n"
        "CHATDB_USER_DATA_DIRECTORY_NAME=people\nCHATDB_LOCKING_ENABLED=yes\nCHATDB_NONSENSE=1\n"
        f'FF_API_PORT=80\nFLATFILE_PM_A_B=1\nHOME=/root\nJWT_SECRET_KEY="{SECRET}"\n'
    )
    migration = check(migrate_config_file(path), ["CHATDB_LOCKING_ENABLED", "CHATDB_NONSENSE", "FF_API_PORT", "HOME"])
    assert migration.kind is ConfigKind.ENVIRONMENT
    assert migration.values == {
        "storage": {"base_path": "/srv/chat data"},
        "modules": {
            "text_chat": {"session": {"max_sessions_per_user": 12}},
            "rag": {"parsing": {"extensions": [".pdf", ".md"]}},
        },
        "migration": {"users_dirs": ["people"]},
    }
    assert migration.secrets == ("JWT_SECRET_KEY",)
    assert SECRET not in migration.to_json()
    assert migration.unmapped["FLATFILE_PM_A_B"].startswith("dead in v2")


def test_a_general_variable_is_stronger_than_that_of_the_field():
    migration = migrated({"CHATDB_STORAGE_BASE_PATH": "/field", "CHATDB_BASE_PATH": "/general"})
    assert migration.values["storage"]["base_path"] == "/general"
    assert migration.names["base_path"] == "/general"


def test_a_variable_that_is_no_number_keeps_our_default():
    migration = migrated({"CHATDB_VECTOR_SEARCH_TOP_K": "many"}, ["CHATDB_VECTOR_SEARCH_TOP_K"])
    assert migration.values == {}


def test_values_nested_beyond_reason_are_refused():
    deep = 1
    for _ in range(5000):
        deep = {"x": deep}
    with pytest.raises(ConfigurationError, match="nested too deep"):
        migrate_config_data({"document_processing": deep}, name="test")


def test_a_migration_is_frozen_and_pickles():
    migration = migrated({"storage": {"base_path": "/x"}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        migration.name = "other"
    assert pickle.loads(pickle.dumps(migration)) == migration


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["nomic-ai", "chunk_size", "x"]), inner)
    ),
    max_leaves=5,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(KEYS)), json_values, max_size=8))
def test_whatever_the_values_every_key_ends_somewhere_and_the_result_is_valid(values):
    data = {}
    for key, value in values.items():
        section, name = key.split(".")
        data.setdefault(section, {})[name] = value
    migration = migrate_config_data(data, name="any")
    settings_of(migration.values, origin="migrated")
    for key in values:
        assert (key in migration.mapped) + (key in migration.unmapped) == 1


@pytest.mark.skipif(not PRESETS.is_dir(), reason="needs MODCHAT_V2_CORPORA, the collected stores")
@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_collected_configurations_have_no_key_that_is_unknown(path):
    data = json.loads(path.read_text())
    migration = check(migrate_config_file(path))
    unknown = [key for key, reason in migration.unmapped.items() if reason.startswith("unknown key")]
    assert unknown == []
    tops = {key.split(".")[0] for key in [*migration.mapped, *migration.unmapped]}
    assert tops == set(data)
    assert migration.secrets == ()
    assert migration.values["storage"]["base_path"]
    assert settings_of(migrate_config(data), origin="guide") != Settings()
