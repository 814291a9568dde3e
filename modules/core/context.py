"""What a module is given of the platform: events, its neighbours, its settings, storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .bus import Delivery, MessageBus
from .clock import Clock, SystemClock
from .errors import ConfigurationError
from .storage import StorageBackend
from .tracing import Tracer
from .workers import Workers

Resolver = Callable[[str], Awaitable[Any | None]]


async def _nobody(name: str) -> None:
    return None


def _everyone(user_id: str) -> bool:
    return True


class ModuleContext:
    """*settings* maps module names to their settings; *resolve* finds a loaded module by name, or None.

    ``owns(key)`` says whether the key (a user, as the module's rules of sharding have it) is this host's: what a module
    does by itself, it does for these alone. ``workers`` are other processes for work that is long and has no state;
    None where there are none.
    """

    def __init__(
        self,
        *,
        bus: MessageBus | None = None,
        settings: Mapping[str, Any] | None = None,
        storage: StorageBackend | None = None,
        resolve: Resolver = _nobody,
        clock: Clock | None = None,
        module_name: str = "",
        tracer: Tracer | None = None,
        owns: Callable[[str], bool] = _everyone,
        workers: Workers | None = None,
    ) -> None:
        self.bus = bus or MessageBus()
        self.tracer = tracer or Tracer()
        self.clock = clock or SystemClock()
        self.module_name = module_name
        self.owns = owns
        self.workers = workers
        self._settings = settings or {}
        self._storage = storage
        self._resolve = resolve

    def named(self, module_name: str) -> ModuleContext:
        """The same context as *module_name* sees it: its events carry that name."""
        return ModuleContext(
            bus=self.bus,
            settings=self._settings,
            storage=self._storage,
            resolve=self._resolve,
            clock=self.clock,
            module_name=module_name,
            tracer=self.tracer,
            owns=self.owns,
            workers=self.workers,
        )

    async def emit(self, event: str, data: dict[str, Any]) -> Delivery:
        return await self.bus.emit(event, data, source_module=self.module_name or None)

    async def get_module(self, name: str) -> Any | None:
        """The loaded module of that name, or None: every neighbour is optional at run time."""
        return await self._resolve(name)

    def get_config(self, path: str, default: Any = None) -> Any:
        """The setting under a dotted path such as ``text_chat.max_message_length``, or *default* where unset.

        A setting that is given as null is given: None is returned, not *default*.
        """
        value: Any = self._settings
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def get_storage(self) -> StorageBackend:
        """Raises ConfigurationError when the platform was set up without a place for data."""
        if self._storage is None:
            raise ConfigurationError("no storage: set storage.base_path to the platform's data directory")
        return self._storage
