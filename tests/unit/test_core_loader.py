"""Modules are found, put in order and brought to life; what does not fit together is said."""

import json
import sys
import types

import pytest

from modules.core import loader as loader_file
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, ModuleNotFound
from modules.core.loader import ModuleLoader
from modules.core.storage import FlatFileStorage
from modules.core.types import ModuleInfo
from modules.memory import MemoryModule
from modules.text_chat import TextChatModule


class Recorder:
    """A module that notes what is done with it."""

    def __init__(self, name, events, *, dependencies=(), optional=(), fails_to_close=False):
        self.info = ModuleInfo(name, "1", dependencies=dependencies, optional=optional)
        self.events = events
        self.fails_to_close = fails_to_close
        self.context = None

    async def initialize(self, context):
        self.context = context
        self.events.append(f"+{self.info.name}")

    async def close(self):
        self.events.append(f"-{self.info.name}")
        if self.fails_to_close:
            raise RuntimeError(self.info.name)


@pytest.fixture
def install(monkeypatch):
    def put(name, factory):
        package = types.ModuleType(f"modules.{name}")
        package.create = factory
        monkeypatch.setitem(sys.modules, f"modules.{name}", package)

    return put


def enabled(*names):
    return {"modules": {name: {"enabled": True} for name in names}}


async def test_the_guides_form_reads_modules_json_and_loads_by_name(tmp_path):
    config = {
        "modules": {"text_chat": {"enabled": True}, "memory": {"enabled": False}},
        "storage": {"base_path": str(tmp_path / "data")},
    }
    (tmp_path / "modules.json").write_text(json.dumps(config))
    loader = ModuleLoader(str(tmp_path))

    chat = await loader.load_module("text_chat")

    assert isinstance(chat, TextChatModule)
    assert await loader.load_module("text_chat") is chat
    assert await loader.load_module("memory") is None
    assert await loader.load_module("unheard_of") is None
    assert await loader.context.get_module("text_chat") is chat
    assert await loader.context.get_module("memory") is None
    await loader.close()


async def test_what_a_module_can_use_is_there_before_it(tmp_path):
    config = enabled("text_chat", "memory") | {"storage": {"base_path": str(tmp_path)}}
    loader = ModuleLoader.from_mapping(config)

    loaded = await loader.load_all()

    assert list(loaded) == ["memory", "text_chat"]
    assert isinstance(loaded["memory"], MemoryModule)
    await loader.close()
    assert loader.modules == {}


async def test_a_needed_module_that_is_not_enabled_is_named(install):
    install("one", lambda settings: Recorder("one", [], dependencies=("two",)))
    with pytest.raises(ConfigurationError, match="'one' needs module 'two'"):
        await ModuleLoader.from_mapping(enabled("one")).load_all()


async def test_an_optional_module_that_is_not_enabled_is_done_without(install):
    events = []
    install("one", lambda settings: Recorder("one", events, optional=("two",)))
    await ModuleLoader.from_mapping(enabled("one")).load_all()
    assert events == ["+one"]


async def test_a_circle_is_named(install):
    install("one", lambda settings: Recorder("one", [], dependencies=("two",)))
    install("two", lambda settings: Recorder("two", [], optional=("three",)))
    install("three", lambda settings: Recorder("three", [], dependencies=("one",)))
    with pytest.raises(ConfigurationError, match="one -> two -> three -> one"):
        await ModuleLoader.from_mapping(enabled("one", "two", "three")).load_module("one")


async def test_modules_close_in_reverse_and_a_failing_one_stops_nobody(install):
    events = []
    install("one", lambda settings: Recorder("one", events))
    install("two", lambda settings: Recorder("two", events, fails_to_close=True))
    install("three", lambda settings: Recorder("three", events))
    loader = ModuleLoader.from_mapping(enabled("one", "two", "three"))
    await loader.load_all()

    with pytest.raises(ExceptionGroup) as caught:
        await loader.close()

    assert events == ["+one", "+two", "+three", "-three", "-two", "-one"]
    assert [str(error) for error in caught.value.exceptions] == ["two"]


async def test_a_package_with_initialize_alone_is_itself_the_module(monkeypatch):
    package = types.ModuleType("modules.plain")
    seen = []

    async def initialize(context):
        seen.append(context.module_name)

    package.initialize = initialize
    monkeypatch.setitem(sys.modules, "modules.plain", package)

    assert await ModuleLoader.from_mapping(enabled("plain")).load_module("plain") is package
    assert seen == ["plain"]


async def test_a_package_that_is_no_module_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "modules.empty", types.ModuleType("modules.empty"))
    with pytest.raises(ConfigurationError, match="no initialize"):
        await ModuleLoader.from_mapping(enabled("empty")).load_module("empty")


async def test_modules_of_others_come_by_entry_point(monkeypatch):
    class Point:
        def load(self):
            return lambda settings: Recorder(settings["as"], [])

    def entry_points(*, group, name):
        return [Point()] if (group, name) == ("modchat.modules", "foreign") else []

    monkeypatch.setattr(loader_file, "entry_points", entry_points)
    config = {"modules": {"foreign": {"enabled": True, "as": "foreign"}}}

    module = await ModuleLoader.from_mapping(config).load_module("foreign")

    assert module.info.name == "foreign"


@pytest.mark.parametrize("name", ["nowhere", "core", "..core", "os"])
async def test_a_module_that_does_not_exist_is_not_found(name):
    with pytest.raises(ModuleNotFound, match=name.strip(".")):
        await ModuleLoader.from_mapping(enabled(name)).load_module(name)


async def test_a_module_whose_own_import_fails_says_what_is_missing(monkeypatch):
    def missing(package):
        raise ModuleNotFoundError("No module named 'left_pad'", name="left_pad")

    monkeypatch.setattr(loader_file.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="left_pad"):
        await ModuleLoader.from_mapping(enabled("text_chat")).load_module("text_chat")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist"),
        ("{", "not JSON"),
        ("[]", "an object"),
        ("{}", "'modules'"),
        ('{"modules": {"a": 1}}', "modules.a"),
        ('{"modules": {}, "storage": {"base_path": "x", "backend": "s3"}}', "backend"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        ModuleLoader(tmp_path)


async def test_a_context_gives_settings_by_path_storage_and_events_in_the_modules_name(tmp_path):
    context = ModuleContext(
        settings={"text_chat": {"session": {"limit": 3}, "rate": None}},
        storage=FlatFileStorage(tmp_path),
    ).named("text_chat")
    heard = []

    @context.bus.on("*", envelope=True)
    async def hear(envelope):
        heard.append(envelope.source_module)

    await context.emit("chat.session.created", {})

    assert heard == ["text_chat"]
    assert context.get_config("text_chat.session.limit", 100) == 3
    assert context.get_config("text_chat.session.limit.deeper", 5) == 5
    assert context.get_config("text_chat.rate", 60) is None
    assert context.get_config("memory.x", "default") == "default"
    assert isinstance(context.get_storage(), FlatFileStorage)


def test_a_context_without_storage_says_what_to_set():
    with pytest.raises(ConfigurationError, match=r"storage\.base_path"):
        ModuleContext().get_storage()
