"""The references that callers hold: a module as one thing, however many hosts it has."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from modules.core.errors import NotFound, Unavailable

from .channel import Channel
from .limits import RuntimeLimits
from .ref import Connector
from .sharding import Rule, argument, given_key, may_repeat, no_key, rule_of, rules_of, shard_of
from .topology import Placed, Topology
from .wire import Codec

log = logging.getLogger(__name__)

_KEYS_REMEMBERED = 10_000
_MOST_TOLD = 10_000


class ModuleRef:
    """A `Ref`. ``told_failed`` counts, by method, what was told in vain."""

    def __init__(self, placed: Placed, connector: Connector, codec: Codec, limits: RuntimeLimits) -> None:
        self.placed = placed
        self.channels = tuple(
            Channel(f"{placed.name}[{shard}]", connector.transport(placed.name, shard), codec, limits)
            for shard in range(placed.shards)
        )
        self.told_failed: Counter[str] = Counter()
        self._connector = connector
        self._rules = rules_of(placed.name)
        self._found: OrderedDict[str, str] = OrderedDict()
        self._told: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self.placed.name

    async def ask(
        self, method: str, /, *args: Any, shard_key: str | None = None, timeout_s: float | None = None, **kwargs: Any
    ) -> Any:
        channel, key, args, kwargs = await self._place(method, shard_key, args, kwargs)
        again = may_repeat(rule_of(self._rules, method), kwargs)
        return await channel.call(method, args, kwargs, key=key, timeout_s=timeout_s, may_repeat=again)

    def tell(self, method: str, /, *args: Any, shard_key: str | None = None, **kwargs: Any) -> None:
        if len(self._told) >= _MOST_TOLD:
            self.told_failed[method] += 1
            log.error("%s.%s was not told: %d others wait already", self.name, method, len(self._told))
            return
        task = asyncio.create_task(self._tell(method, args, shard_key, kwargs))
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    async def stream(
        self, method: str, /, *args: Any, shard_key: str | None = None, timeout_s: float | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        channel, key, args, kwargs = await self._place(method, shard_key, args, kwargs)
        items = channel.stream(method, args, kwargs, key=key, timeout_s=timeout_s)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def stop(self) -> None:
        if self._told:
            await asyncio.wait(self._told)
        for shard, channel in enumerate(self.channels):
            try:
                await channel.request("stop")
            except Unavailable as error:
                log.warning("%s did not close in order: %s", channel.name, error)
            finally:
                await self._connector.end(self.name, shard)

    async def shard_for(self, rule: Rule, arguments: Mapping[str, Any]) -> int:
        """The shard whose these named arguments are. Raises what looking up the key raises."""
        key = given_key(rule, (), (), arguments)
        if key is None:
            key = await self._looked_up((), (), arguments)
        return 0 if key is None else shard_of(key, len(self.channels))

    async def _tell(self, method: str, args: tuple[Any, ...], shard_key: str | None, kwargs: dict[str, Any]) -> None:
        try:
            await self.ask(method, *args, shard_key=shard_key, **kwargs)
        except Exception as error:  # noqa: BLE001 - nobody else hears of it
            self.told_failed[method] += 1
            log.error("%s.%s failed, and nobody waited for it: %r", self.name, method, error)

    async def _place(
        self, method: str, shard_key: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Channel, str | None, tuple[Any, ...], dict[str, Any]]:
        """Where a call goes, its key, and its arguments: with the key among them where that had to be looked up."""
        if len(self.channels) == 1:
            return self.channels[0], None, args, kwargs
        function = self.placed.manifest.functions.get(method)
        if function is None:
            return self.channels[0], None, args, kwargs  # which refuses it
        rule = rule_of(self._rules, method)
        key = shard_key if shard_key is not None else given_key(rule, function.parameters, args, kwargs)
        if key is None and rule.key is not None:
            key = await self._looked_up(function.parameters, args, kwargs)
            if key is not None:
                args, kwargs = _with_argument(rule.key, key, function.parameters, args, kwargs)
        if key is None:
            raise no_key(self.name, method, rule, len(self.channels))
        return self.channels[shard_of(key, len(self.channels))], key, args, kwargs

    async def _looked_up(self, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        lookup = self._rules.lookup
        by = argument(lookup.by, parameters, args, kwargs) if lookup is not None else None
        if lookup is None or not isinstance(by, str):
            return None
        known = self._found.get(by)
        if known is not None:
            return known
        channel = self.channels[shard_of(by, len(self.channels))]
        found = await channel.call(lookup.method, (by,), may_repeat=True)
        key: str = getattr(found, lookup.attribute)
        self._found[by] = key
        if len(self._found) > _KEYS_REMEMBERED:
            self._found.popitem(last=False)
        return key


class Refs:
    """All modules of a platform, by name."""

    def __init__(self, topology: Topology, connector: Connector, codec: Codec, limits: RuntimeLimits) -> None:
        self.topology = topology
        self._connector = connector
        self._codec = codec
        self._limits = limits
        self._refs: dict[str, ModuleRef] = {}

    def know(self, topology: Topology) -> None:
        """Take *topology* for what is true from now on."""
        self.topology = topology
        placed = {one.name: one for one in topology.modules}
        self._refs = {name: ref for name, ref in self._refs.items() if placed.get(name) == ref.placed}

    def find(self, name: str) -> ModuleRef | None:
        """None for a module that is not running."""
        ref = self._refs.get(name)
        placed = self.topology.find(name)
        if ref is None and placed is not None:
            ref = self._refs[name] = ModuleRef(placed, self._connector, self._codec, self._limits)
        return ref

    def get(self, name: str) -> ModuleRef:
        """Raises NotFound for a module that is not running."""
        ref = self.find(name)
        if ref is None:
            raise NotFound(f"module {name!r} is not running")
        return ref


class Neighbour:
    """A module as another one uses it: its functions are methods, called at a distance."""

    def __init__(self, ref: ModuleRef) -> None:
        self._ref = ref

    def __getattr__(self, name: str) -> Any:
        function = self._ref.placed.manifest.functions.get(name)
        if function is None:
            raise AttributeError(f"{self._ref.name} has no public function {name!r}")
        return functools.partial(self._ref.stream if function.streams else self._ref.ask, name)

    def __repr__(self) -> str:
        return f"Neighbour({self._ref.name!r})"


def _with_argument(
    name: str, value: Any, parameters: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if name not in kwargs and name in parameters and (place := parameters.index(name)) < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}
