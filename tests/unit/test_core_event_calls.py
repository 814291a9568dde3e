"""A table of events becomes calls of a module; what an event lacks is said."""

from __future__ import annotations

from typing import Any

import pytest

from modules.core.bus import MessageBus
from modules.core.errors import ValidationError
from modules.core.event_calls import EventCall, calling


class Module:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def add(self, **given: Any) -> None:
        self.calls.append(given)


CALLS = {"thing.add": EventCall("add", ("key",), ("size",))}


async def test_an_event_calls_the_function_with_the_fields_that_it_knows() -> None:
    module, bus = Module(), MessageBus()
    listener = calling("thing", module, CALLS, bus)
    listener.listen()
    await bus.emit("thing.add", {"key": "k", "size": 1, "other": 2})
    await bus.emit("thing.add", {"key": "k"})
    listener.stop()
    await bus.emit("thing.add", {"key": "late"})
    assert module.calls == [{"key": "k", "size": 1}, {"key": "k"}]


async def test_an_event_that_lacks_a_field_fails_under_the_name_of_its_handler() -> None:
    module, bus = Module(), MessageBus()
    calling("thing", module, CALLS, bus).listen()
    delivery = await bus.emit("thing.add", {"size": 1})
    assert delivery.failed == (f"{__name__}.thing:thing.add",)
    assert module.calls == []
    with pytest.raises(ValidationError, match=r"thing\.add lacks key"):
        CALLS["thing.add"].arguments("thing.add", {})
