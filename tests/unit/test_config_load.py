"""Reading: files, their order, references, variables, and what is said when something is wrong."""

import json
import pickle

import pytest

from config import ConfigurationError, NoSuchConfiguration, load_settings, load_with_origins
from config.fields import dotted, leaves

SECRET = "sk-never-to-be-shown"


@pytest.fixture
def operator(tmp_path):
    """Writes files of an operator's directory; returns the directory."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def refused(*args, **kwargs):
    kwargs.setdefault("environ", {})
    with pytest.raises(ConfigurationError) as caught:
        load_settings(*args, **kwargs)
    return caught.value


def test_without_anything_the_packaged_files_give_development():
    loaded = load_with_origins(environ={})
    assert loaded.environment == "development"
    assert loaded.settings.http.high_throughput is True
    assert loaded.origin_of("http.high_throughput").endswith("default.json")


def test_an_environment_is_laid_over_the_defaults():
    loaded = load_with_origins(environment="test", environ={})
    assert loaded.settings.http.high_throughput is False
    assert loaded.origin_of("http.high_throughput").endswith("environments/test.json")


@pytest.mark.parametrize("environment", ["development", "production", "test"])
def test_every_setting_of_every_packaged_environment_has_an_origin(environment):
    loaded = load_with_origins(environment=environment, environ={})
    assert set(loaded.origins) == {dotted(field.key) for field in leaves()}


def test_each_stronger_source_wins_over_the_weaker_ones(operator):
    directory = operator({"default.json": {"modules": {"memory": {"short_term": {"ttl_seconds": 1}}}}})
    environ = {}
    overrides = {}

    def ttl():
        return load_settings(
            directory, environment="test", environ=environ, overrides=overrides
        ).modules.memory.short_term.ttl_seconds

    assert ttl() == 1
    operator({"modules.json": {"modules": {"memory": {"short_term": {"ttl_seconds": 2}}}}})
    assert ttl() == 2
    operator({"modules/memory.json": {"short_term": {"ttl_seconds": 3}}})
    assert ttl() == 3
    operator({"environments/test.json": {"modules": {"memory": {"short_term": {"ttl_seconds": 4}}}}})
    assert ttl() == 4
    overrides["modules.memory.short_term.ttl_seconds"] = 5
    assert ttl() == 5
    environ["CHAT_MODULES__MEMORY__SHORT_TERM__TTL_SECONDS"] = "60"
    assert ttl() == 60


def test_a_layer_leaves_alone_what_it_does_not_name(operator):
    directory = operator({"modules/memory.json": {"short_term": {"ttl_seconds": 3}}})
    memory = load_settings(directory, environ={}).modules.memory
    assert (memory.short_term.ttl_seconds, memory.short_term.max_items) == (3, 1000)


def test_an_operator_may_add_an_environment(operator):
    directory = operator({"environments/staging.json": {"http": {"port": 81}}})
    assert load_settings(directory, environment="staging", environ={}).http.port == 81


def test_variables_choose_directory_and_environment(operator):
    directory = operator({"environments/staging.json": {"http": {"port": 81}}})
    environ = {"CHAT_CONFIG_DIR": str(directory), "CHAT_ENVIRONMENT": "staging"}
    assert load_settings(environ=environ).http.port == 81
    assert load_settings(environ=environ, environment="test").http.port == 8000


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("CHAT_HTTP__PORT", "99", "http.port", 99),
        ("CHAT_MODULES__RAG__ENABLED", "off", "modules.rag.enabled", False),
        ("CHAT_MODULES__RAG__ENABLED", "Yes", "modules.rag.enabled", True),
        ("CHAT_MIGRATION__USERS_DIRS", "people, folk", "migration.users_dirs", ["people", "folk"]),
        ("CHAT_MIGRATION__USERS_DIRS", '["a,b"]', "migration.users_dirs", ["a,b"]),
        ("CHAT_MIGRATION__WORKERS", "", "migration.workers", None),
        ("CHAT_MIGRATION__SOURCE", "/old", "migration.source", "/old"),
        ("CHAT_MODULES__MEMORY__SHORT_TERM__TTL_SECONDS", "0.5", "modules.memory.short_term.ttl_seconds", 0.5),
        ("CHAT_RUNTIME__NAMESPACE", "123", "runtime.namespace", "123"),
        ("CHAT_MODULES__RAG", '{"retrieval": {"top_k": 9}}', "modules.rag.retrieval.top_k", 9),
        ("CHAT_RUNTIME__NAMESPACE", "${HOME}", "runtime.namespace", "${HOME}"),
    ],
)
def test_the_text_of_a_variable_becomes_a_value_of_its_setting(variable, text, key, value):
    loaded = load_with_origins(environ={variable: text})
    found = loaded.settings.model_dump(mode="json")
    for name in key.split("."):
        found = found[name]
    assert found == value
    assert loaded.origin_of(key) == f"environment variable {variable}"


def test_a_variable_that_names_no_setting_is_refused_with_the_nearest_name():
    error = refused(environ={"CHAT_HTTP__PROT": "1"})
    assert "CHAT_HTTP__PROT" in str(error)
    assert "did you mean port?" in str(error)


def test_variables_of_other_programs_are_left_alone():
    assert load_settings(environ={"CHATDB_BASE_PATH": "/x", "HTTP__PORT": "1"}).http.port == 8000


def test_a_whole_reference_becomes_a_value_of_its_setting(operator):
    directory = operator(
        {
            "default.json": {
                "http": {"port": "${PORT:-81}"},
                "migration": {"workers": "${N:-}", "users_dirs": "${D:-a,b}"},
            }
        }
    )
    settings = load_settings(directory, environ={"PORT": "82"})
    assert settings.http.port == 82
    assert load_settings(directory, environ={"PORT": ""}).http.port == 81
    assert settings.migration.workers is None
    assert settings.migration.users_dirs == ("a", "b")


def test_references_stand_inside_longer_strings_and_lists(operator):
    directory = operator(
        {
            "default.json": {
                "storage": {"base_path": "/srv/${NAME}/${PART:-data}"},
                "runtime": {"namespace": "$${NAME} $$5 5$"},
                "migration": {"users_dirs": ["${NAME}", "users"]},
            }
        }
    )
    loaded = load_with_origins(directory, environ={"NAME": "chat"})
    assert str(loaded.settings.storage.base_path) == "/srv/chat/data"
    assert loaded.settings.runtime.namespace == "${NAME} $5 5$"
    assert loaded.settings.migration.users_dirs == ("chat", "users")
    assert loaded.origin_of("storage.base_path") == f"{directory / 'default.json'} with ${{NAME}}, ${{PART}}"


def test_a_required_variable_that_is_not_set_is_named(operator):
    directory = operator({"default.json": {"storage": {"base_path": "${DATA_DIR}"}}})
    (problem,) = refused(directory).problems
    assert problem.origin == str(directory / "default.json")
    assert problem.key == "storage.base_path"
    assert "${DATA_DIR}" in problem.found


def test_a_required_variable_is_not_asked_for_where_a_stronger_source_decides(operator):
    directory = operator({"default.json": {"storage": {"base_path": "${DATA_DIR}"}}})
    assert str(load_settings(directory, environ={"CHAT_STORAGE__BASE_PATH": "/x"}).storage.base_path) == "/x"


def test_a_broken_reference_is_refused(operator):
    directory = operator({"default.json": {"storage": {"base_path": "${DATA-DIR}"}}})
    assert "a broken reference" in str(refused(directory))


def test_a_wrong_value_is_reported_with_file_key_value_and_what_is_allowed(operator):
    directory = operator({"modules/rag.json": {"chunking": {"strategy": "magic"}}})
    (problem,) = refused(directory).problems
    assert problem.origin == str(directory / "modules/rag.json")
    assert problem.key == "modules.rag.chunking.strategy"
    assert problem.found == '"magic"'
    assert problem.allowed == 'one of "semantic", "fixed", "recursive", "sentence"'


def test_all_problems_are_reported_at_once(operator):
    directory = operator(
        {
            "default.json": {"http": {"port": 0, "hots": "x"}, "storage": "here"},
            "modules/memory.json": {"enabled": "no"},
        }
    )
    problems = {problem.key: problem for problem in refused(directory).problems}
    assert set(problems) == {"http.port", "http.hots", "storage", "modules.memory.enabled"}
    assert problems["http.port"].allowed == "an integer at least 1 and at most 65535"
    assert "did you mean host?" in problems["http.hots"].allowed
    assert problems["storage"].found == "a string"
    assert problems["modules.memory.enabled"].allowed == "true or false"


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"modules": {"rag": {"chunking": {"chunk_size": 50}}}}, "modules.rag.chunking", "chunk_overlap must be less"),
        ({"http": {"pages": {"default_limit": 5000}}}, "http.pages", "must not exceed max_limit"),
        ({"migration": {"source": "/a", "target": "/a"}}, "migration", "must be two directories"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(operator, values, key, said):
    (problem,) = refused(operator({"default.json": values})).problems
    assert problem.key == key
    assert said in problem.allowed
    assert problem.origin.endswith("default.json")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"modules": {"rag": {"embedding": {"api_key": [SECRET]}}}}, "modules.rag.embedding.api_key"),
        ({"modules": {"rag": {"embedding": {"api_kye": SECRET}}}}, "modules.rag.embedding.api_kye"),
        ({"modules": {"rag": {"embedding": SECRET}}}, "modules.rag.embedding"),
        (
            {"modules": {"rag": {"embedding": {"base_url": f"https://u:{SECRET}@host/v1"}}}},
            "modules.rag.embedding.base_url",
        ),
        (
            {"modules": {"rag": {"embedding": {"base_url": f"https://host/v1?key={SECRET}"}}}},
            "modules.rag.embedding.base_url",
        ),
        ({"modules": {"rag": {"embedding": {"api_key": SECRET, "batch_size": 0}}}}, "modules.rag.embedding.batch_size"),
    ],
)
def test_no_error_shows_a_secret(operator, value, key):
    error = refused(operator({"default.json": value}))
    assert [problem.key for problem in error.problems] == [key]
    assert SECRET not in str(error) + repr(error) + repr(error.problems)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{\n "http": {,\n}', "line 2, column 11"),
        ('{"http": {}, "http": {}}', "the key 'http' twice"),
        ('{"http": {"max_stream_seconds": NaN}}', "the number NaN"),
        ("[]", "a JSON object"),
        ('{"runtime": {"namespace": "\\ud800"}}', "no valid Unicode text"),
        ("[" * 100_000, "JSON"),
        ('{"x":' * 200 + "1" + "}" * 200, "nested too deep"),
        ('{"migration": {"users_dirs":' + "[" * 200 + "]" * 200 + "}}", "nested too deep"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_name(operator, content, said):
    directory = operator({"default.json": content})
    error = refused(directory)
    assert str(directory / "default.json") in str(error)
    assert said in str(error)


def test_a_file_that_is_not_utf8_is_refused_with_its_name(operator):
    directory = operator({"default.json": {}})
    (directory / "default.json").write_bytes(b'{"runtime": {"namespace": "caf\xe9"}}')
    assert "not UTF-8" in str(refused(directory))


def test_a_file_of_an_unknown_module_is_refused(operator):
    assert "no module of this name" in str(refused(operator({"modules/memry.json": {}})))


def test_a_schema_reference_for_editors_is_no_setting(operator):
    directory = operator({"default.json": {"$schema": "schemas/settings.json", "http": {"port": 81}}})
    assert load_settings(directory, environ={}).http.port == 81


@pytest.mark.parametrize("where", ["missing", "empty"])
def test_a_directory_without_configuration_is_refused(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoSuchConfiguration) as caught:
        load_settings(tmp_path / where, environ={})
    assert str(tmp_path / where) in str(caught.value)


@pytest.mark.parametrize("environment", ["prod", "../environments/test", ""])
def test_an_unknown_environment_is_refused_with_the_known_ones(environment):
    if environment == "":
        assert load_with_origins(environ={"CHAT_ENVIRONMENT": ""}).environment == "development"
        return
    with pytest.raises(NoSuchConfiguration, match="one of development, production, test"):
        load_settings(environment=environment, environ={})


def test_overrides_are_nested_or_dotted_and_take_values_of_python(tmp_path):
    settings = load_settings(
        environ={}, overrides={"migration": {"source": tmp_path}, "migration.users_dirs": ("a",), "http.port": 81}
    )
    assert settings.migration.source == tmp_path
    assert settings.migration.users_dirs == ("a",)
    assert settings.http.port == 81


def test_an_override_that_is_no_value_is_refused():
    assert "run-time override" in str(refused(overrides={"http.port": object()}))


def test_errors_survive_pickling(operator):
    error = refused(operator({"default.json": {"http": {"port": 0}}}))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConfigurationError
    assert again.problems == error.problems
    assert str(again) == str(error)
