"""Names of topics: ``finance/tax`` is a topic within ``finance``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modules.core.errors import ValidationError

_LONGEST = 200
_DEEPEST = 5
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_topic(topic: object) -> str:
    """The name, as it is kept. Raises ValidationError."""
    if not isinstance(topic, str) or not topic.strip() or len(topic) > _LONGEST:
        raise ValidationError(f"a topic must be text of 1 to {_LONGEST} characters, not {topic!r}", param="topics")
    parts = [part.strip() for part in topic.split("/")]
    if not all(parts) or len(parts) > _DEEPEST or _UNFIT.search(topic):
        raise ValidationError(
            f"a topic has 1 to {_DEEPEST} parts between slashes, none empty, and no control characters: {topic!r}",
            param="topics",
        )
    return "/".join(parts)


def check_topics(topics: object) -> tuple[str, ...]:
    """Each once, in their order."""
    if isinstance(topics, str) or not isinstance(topics, list | tuple):
        raise ValidationError("topics must be a list of names", param="topics")
    return tuple(dict.fromkeys(check_topic(topic) for topic in topics))


def with_ancestors(topics: Iterable[str]) -> set[str]:
    """These topics and all that they lie within."""
    return {above for topic in topics for above in lineage(topic)}


def lineage(topic: str) -> list[str]:
    """From the widest topic that this one lies within down to itself."""
    parts = topic.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def lies_within(topic: str, other: str) -> bool:
    """Whether *topic* is *other* or lies within it."""
    return topic == other or topic.startswith(other + "/")


def are_related(one: str, other: str) -> bool:
    """Whether one lies within the other."""
    return lies_within(one, other) or lies_within(other, one)


def depth_of(topic: str) -> int:
    return topic.count("/") + 1
