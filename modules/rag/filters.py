"""Which of a user's documents a search is about. Pure.

The user is no part of this: a search only ever sees the index of its user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from modules.core.errors import ValidationError

from .passages import Card

_KNOWN = ("user_id", "session_id", "document_id", "document_ids", "metadata")


@dataclass(frozen=True, slots=True)
class Filter:
    """``within_session``: documents of that session and of none. ``session_id``: documents of exactly that session.

    ``metadata``: every member must be equal to the document's; a list asks for any of its values; a list in the
    document is asked whether it holds the value.
    """

    document_ids: frozenset[str] | None = None
    session_id: str | None = None
    within_session: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, filters: Mapping[str, Any] | None, *, user_id: str, session_id: str | None) -> Self:
        """Raises ValidationError for what is no filter, and for one that names another user than *user_id*."""
        given = filters or {}
        if not isinstance(given, Mapping):
            raise ValidationError("filters must be an object", param="filters")
        if unknown := sorted(set(given) - set(_KNOWN)):
            raise ValidationError(f"no filter {unknown[0]!r}; filters are {', '.join(_KNOWN)}", param="filters")
        if given.get("user_id", user_id) != user_id:
            raise ValidationError("filters.user_id is another user than the one who asks", param="filters")
        metadata = given.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise ValidationError("filters.metadata must be an object", param="filters")
        return cls(_ids(given), _text(given, "session_id"), session_id, metadata)

    @property
    def is_open(self) -> bool:
        """Whether every document passes."""
        return self == Filter()

    def passes(self, card: Card) -> bool:
        return (
            (self.document_ids is None or card.document_id in self.document_ids)
            and (self.session_id is None or card.session_id == self.session_id)
            and (self.within_session is None or card.session_id in (None, self.within_session))
            and all(_agrees(wanted, card.metadata.get(name)) for name, wanted in self.metadata.items())
        )


def _agrees(wanted: Any, found: Any) -> bool:
    accepted = wanted if isinstance(wanted, list | tuple) else [wanted]
    held = found if isinstance(found, list | tuple) else [found]
    return any(one == other and isinstance(one, bool) == isinstance(other, bool) for one in accepted for other in held)


def _ids(given: Mapping[str, Any]) -> frozenset[str] | None:
    one, several = _text(given, "document_id"), given.get("document_ids")
    if several is not None and (
        isinstance(several, str)
        or not isinstance(several, list | tuple | set | frozenset)
        or not all(isinstance(id_, str) for id_ in several)
    ):
        raise ValidationError("filters.document_ids must be a list of ids", param="filters")
    if one is None:
        return None if several is None else frozenset(several)
    return frozenset([one]) if several is None or one in several else frozenset()


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise ValidationError(f"filters.{name} must be text", param="filters")
    return value
