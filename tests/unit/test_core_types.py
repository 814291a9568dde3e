"""Values that exist are right ones."""

import dataclasses
import pickle
from datetime import UTC, datetime

import pytest

from modules.core.clock import SystemClock, moment_of
from modules.core.errors import ValidationError
from modules.core.types import Attachment, Message, ModuleInfo, Session, estimate_tokens

MESSAGE = Message("msg_1", "s", "user", "hi", attachments=(Attachment("a", "image", "a.png", 3),))
SESSION = Session("s", "ann", "Chat")


@pytest.mark.parametrize(
    ("whole", "change", "param"),
    [
        (MESSAGE, {"id": ""}, "message id"),
        (MESSAGE, {"role": "robot"}, "role"),
        (MESSAGE, {"role": ["user"]}, "role"),
        (MESSAGE, {"content": None}, "content"),
        (MESSAGE, {"metadata": []}, "metadata"),
        (MESSAGE, {"attachments": ["a.png"]}, "attachments"),
        (MESSAGE, {"attachments": ("a.png",)}, "attachments"),
        (MESSAGE, {"status": "lost"}, "status"),
        (MESSAGE, {"tokens": -1}, "tokens"),
        (MESSAGE, {"tokens": True}, "tokens"),
        (MESSAGE, {"parent_id": ""}, "parent_id"),
        (SESSION, {"id": ""}, "session id"),
        (SESSION, {"title": None}, "title"),
        (SESSION, {"active": "yes"}, "active"),
        (SESSION, {"message_count": 1.5}, "message_count"),
        (Attachment("a"), {"type": "hologram"}, "attachment type"),
        (Attachment("a"), {"size_bytes": -1}, "attachment size_bytes"),
        (ModuleInfo("m", "1"), {"dependencies": ["n"]}, "dependencies"),
        (ModuleInfo("m", "1"), {"optional": ("m",)}, "dependencies"),
    ],
)
def test_a_wrong_value_cannot_be_built(whole, change, param):
    with pytest.raises(ValidationError) as caught:
        dataclasses.replace(whole, **change)
    assert caught.value.param == param


@pytest.mark.parametrize("value", [MESSAGE, SESSION, MESSAGE.attachments[0], ModuleInfo("m", "1")])
def test_values_are_frozen_and_pickle(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_message_as_plain_values_names_everything_it_has():
    plain = MESSAGE.to_dict()

    assert set(plain) == {field.name for field in dataclasses.fields(Message)}
    assert plain["attachments"] == [{"id": "a", "type": "image", "url": "a.png", "size_bytes": 3, "metadata": {}}]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2), ("\ud800", 1)])
def test_tokens_are_estimated_by_bytes(text, tokens):
    assert estimate_tokens(text) == tokens


def test_a_moment_without_offset_is_utc_and_nonsense_is_none():
    noon = datetime(2024, 1, 15, 12, tzinfo=UTC)
    assert moment_of("2024-01-15T12:00:00") == noon
    assert moment_of("2024-01-15T14:00:00+02:00") == noon
    assert moment_of("yesterday") is None


def test_the_system_clock_knows_its_offset():
    assert SystemClock().now().utcoffset() is not None
