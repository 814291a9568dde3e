"""Frozen, slotted dataclasses on their way between processes."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest

from actors.wire import Call, Flight, Lost, Reply, StreamPart
from modules.core.quick_pickle import quickly_pickled
from modules.core.types import Attachment, Message, Session


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Empty:
    pass


@quickly_pickled
@dataclass(frozen=True, slots=True)
class One:
    only: Any


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Checked:
    number: int
    names: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("below 0")


MESSAGE = Message("m1", "s1", "user", "Hello", "2026-01-01", {"a": [1]}, (Attachment("a1"),), tokens=3)


@pytest.mark.parametrize(
    "value",
    [
        Empty(),
        One(None),
        One((1, 2)),
        Checked(1, ("a",), {"b": 2}),
        MESSAGE,
        Session("s1", "ann", "A chat"),
        Call("send", (1,), {"k": MESSAGE}, 5.0, "ann"),
        Reply(True, b"x"),
        Flight("caller", 3, (("id", b"x"),)),
        StreamPart((1, 2), False),
        Lost(),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_comes_back_is_equal_and_of_the_same_class(value: Any, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(value, protocol))
    assert back == value
    assert type(back) is type(value)
    assert copy.deepcopy(value) == value


def test_what_comes_back_is_frozen() -> None:
    back = pickle.loads(pickle.dumps(Checked(1)))
    with pytest.raises(FrozenInstanceError):
        back.number = 2
    assert back.more is not Checked(1).more


def test_a_class_whose_fields_have_changed_meanwhile_is_not_filled_half(monkeypatch: pytest.MonkeyPatch) -> None:
    text = pickle.dumps(One("x")).replace(b"One", b"Two")
    monkeypatch.setitem(globals(), "Two", Checked)
    with pytest.raises(ValueError, match="shorter"):
        pickle.loads(text)
