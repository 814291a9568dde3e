"""What callers give, checked and in one form. Raises ValidationError, naming the argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modules.core.errors import NotFound, ValidationError
from modules.core.types import Message

from .classification import Classification
from .specialists import Specialist

MAX_CONTENT = 65_536


def check_content(content: object) -> None:
    if not isinstance(content, str) or not content.strip() or len(content) > MAX_CONTENT:
        raise ValidationError(f"content must be text of 1 to {MAX_CONTENT} characters, not blank", param="content")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(f"content is not Unicode text: {error.reason}", param="content") from error


def given_classification(given: Classification | Mapping[str, Any] | None) -> Classification | None:
    if given is None or isinstance(given, Classification):
        return given
    try:
        return Classification.of_dict(given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValidationError(f"not a classification: {error}", param="classification") from error


def meant(given: object, known: Mapping[str, Specialist]) -> Specialist:
    if isinstance(given, Specialist):
        return given
    if isinstance(given, Mapping):
        return Specialist.made(given)
    if isinstance(given, str) and given in known:
        return known[given]
    raise NotFound(f"no specialist {given!r}")


def content_and_topics(example: object) -> tuple[object, object]:
    if isinstance(example, Mapping):
        return example.get("content"), example.get("topics")
    if isinstance(example, list | tuple) and len(example) == 2:
        return example[0], example[1]
    raise ValidationError('an example is {"content": ..., "topics": [...]}', param="examples")


def texts_of(param: str, messages: object) -> list[str]:
    texts = []
    for message in listed(param, messages):
        content = message.content if isinstance(message, Message) else message
        if isinstance(message, Mapping):
            content = message.get("content")
        if not isinstance(content, str):
            raise ValidationError(f"each of {param} must be text, or have a content that is", param=param)
        # What was said before may come from anywhere.
        texts.append(content[:MAX_CONTENT].encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return texts


def listed(param: str, values: object) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValidationError(f"{param} must be a list", param=param)
    return list(values)


def check_user(user_id: object) -> None:
    if not isinstance(user_id, str):
        raise ValidationError("user_id must be text", param="user_id")


def check_named(user_id: object) -> None:
    check_user(user_id)
    if not user_id:
        raise ValidationError("user_id must not be empty", param="user_id")
