"""Finds modules, puts them in order and brings them to life.

A module is looked for as the package ``modules.<name>``, then as an entry point of the group ``modchat.modules``.
What is found is one of three things:

* a package or class with ``create(settings)``: the module is what that returns;
* a class: the module is an instance, built with its settings;
* a package with ``initialize``: the package itself is the module.

A module is ready after ``await module.initialize(context)``. Modules that its ``info`` names come first.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

from .bus import MessageBus
from .clock import Clock
from .context import ModuleContext
from .errors import ConfigurationError, ModuleNotFound
from .storage import FlatFileStorage, StorageBackend
from .types import ModuleInfo

ENTRY_POINTS = "modchat.modules"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NOT_MODULES = frozenset({"core", "models"})


class ModuleLoader:
    """Reads ``<config_path>/modules.json``: ``{"modules": {name: {"enabled": true, ...}}, "storage": {...}}``.

    Raises ConfigurationError, naming the file, when it is absent or has another shape.
    """

    def __init__(
        self,
        config_path: Path | str,
        *,
        bus: MessageBus | None = None,
        storage: StorageBackend | None = None,
        clock: Clock | None = None,
    ) -> None:
        file = Path(config_path) / "modules.json"
        self._set_up(_read_config(file), str(file), bus, storage, clock)

    @classmethod
    def from_mapping(
        cls,
        config: Mapping[str, Any],
        *,
        bus: MessageBus | None = None,
        storage: StorageBackend | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """A loader for a configuration that is in memory already."""
        loader = cls.__new__(cls)
        loader._set_up(config, "the configuration", bus, storage, clock)
        return loader

    def _set_up(
        self,
        config: Mapping[str, Any],
        origin: str,
        bus: MessageBus | None,
        storage: StorageBackend | None,
        clock: Clock | None,
    ) -> None:
        self.config = config
        self.modules: dict[str, Any] = {}
        self._settings = _module_settings(config, origin)
        storage = storage or _storage_of(config)
        self.bus = bus or MessageBus(dead_letters=storage, clock=clock)
        self._one_at_a_time = asyncio.Lock()
        self.context = ModuleContext(
            bus=self.bus, settings=self._settings, storage=storage, resolve=self._loaded, clock=clock
        )

    async def load_module(self, module_name: str) -> Any | None:
        """The module, ready for use; None when the configuration does not name it or does not enable it.

        What it depends on is loaded first. Raises ModuleNotFound when there is no such package or entry point,
        ConfigurationError for a cycle or for a dependency that is not enabled.
        """
        async with self._one_at_a_time:
            return await self._load(module_name, ())

    async def load_all(self) -> dict[str, Any]:
        """All enabled modules, loaded; in the order in which they became ready."""
        async with self._one_at_a_time:
            for name in self._settings:
                await self._load(name, ())
        return dict(self.modules)

    async def close(self) -> None:
        """Close the loaded modules, last loaded first. Every one is asked, also after one that fails.

        Raises ExceptionGroup with what they raised.
        """
        failures: list[Exception] = []
        while self.modules:
            name, module = self.modules.popitem()
            try:
                if hasattr(module, "close"):
                    await module.close()
            except Exception as error:  # noqa: BLE001 - collected and raised below; the others must be closed too
                error.add_note(f"while closing module {name}")
                failures.append(error)
        if failures:
            raise ExceptionGroup("modules failed to close", failures)

    async def _loaded(self, name: str) -> Any | None:
        return self.modules.get(name)

    def _is_enabled(self, name: str) -> bool:
        return name in self._settings and bool(self._settings[name].get("enabled", False))

    async def _load(self, name: str, needed_by: tuple[str, ...]) -> Any | None:
        if name in self.modules:
            return self.modules[name]
        if not self._is_enabled(name):
            return None
        if name in needed_by:
            circle = " -> ".join([*needed_by[needed_by.index(name) :], name])
            raise ConfigurationError(f"modules depend on each other in a circle: {circle}")
        settings = self._settings[name]
        module = build(name, settings)
        for dependency in _load_before(module):
            loaded = await self._load(dependency, (*needed_by, name))
            if loaded is None and dependency in _required_by(module):
                raise ConfigurationError(f"module {name!r} needs module {dependency!r}, which is not enabled")
        await module.initialize(self.context.named(name))
        self.modules[name] = module
        return module


def find(name: str) -> Any:
    """The package, class or factory that makes the module *name*. Raises ModuleNotFound."""
    if not _NAME.fullmatch(name) or name in _NOT_MODULES:
        raise ModuleNotFound(f"not a module name: {name!r}")
    package = f"modules.{name}"
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # the module is there; something that it imports is not
    for point in entry_points(group=ENTRY_POINTS, name=name):
        return point.load()
    raise ModuleNotFound(f"no module {name!r}: neither a package {package} nor an entry point {ENTRY_POINTS}:{name}")


def build(name: str, settings: Mapping[str, Any]) -> Any:
    """The module *name*, made and not yet initialized. Raises ModuleNotFound, ConfigurationError for what is found and
    is no module, and what its settings make it raise."""
    found = find(name)
    create: Callable[[Mapping[str, Any]], Any] | None = getattr(found, "create", None)
    if create is None and (inspect.isclass(found) or inspect.isfunction(found)):
        create = found
    module = create(settings) if create is not None else found
    if not hasattr(module, "initialize"):
        raise ConfigurationError(f"module {name!r} has no initialize(context)")
    return module


def _info(module: Any) -> ModuleInfo | None:
    info = getattr(module, "info", None)
    return info if isinstance(info, ModuleInfo) else None


def _required_by(module: Any) -> tuple[str, ...]:
    info = _info(module)
    return info.dependencies if info else ()


def _load_before(module: Any) -> tuple[str, ...]:
    info = _info(module)
    return info.dependencies + info.optional if info else ()


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"{file} does not exist") from None
    except ValueError as error:
        raise ConfigurationError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{file} must hold an object, not {type(config).__name__}")
    return config


def _module_settings(config: Mapping[str, Any], origin: str) -> dict[str, Mapping[str, Any]]:
    modules = config.get("modules")
    if not isinstance(modules, Mapping):
        raise ConfigurationError(f"{origin}: 'modules' must be an object of module names")
    for name, settings in modules.items():
        if not isinstance(settings, Mapping):
            raise ConfigurationError(f"{origin}: modules.{name} must be an object, not {settings!r}")
    return dict(modules)


def _storage_of(config: Mapping[str, Any]) -> StorageBackend | None:
    storage = config.get("storage")
    if not isinstance(storage, Mapping) or "base_path" not in storage:
        return None
    if storage.get("backend", "flatfile") != "flatfile":
        raise ConfigurationError(f"storage.backend must be 'flatfile', not {storage['backend']!r}")
    return FlatFileStorage(storage["base_path"])
