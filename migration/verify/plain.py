"""The proof, by bytes, that a plain session or profile is equal: nearly all of a store, at a fraction of the cost.

A plain session holds a record and messages of generation 3 and later, nothing else. The messages of its target must
be the source's bytes with one key renamed in every line, and that can be shown without taking the lines apart:

- every line decodes, by itself, as an object with a non-empty ``message_id`` and no ``id`` at its top. The decoder
  checks the grammar, and decoding the whole as UTF-8 what it skips;
- no key can be spelled by escapes (there is no ``\\u00``), so every line holds the text ``"message_id"``;
- the source holds that text exactly as often as it has lines: once in each, where it is the key at the top;
- renaming it gives the bytes of the target.

What cannot be shown is not wrong: it is compared member by member (`sessions`, `profiles`).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Annotated

import msgspec
from msgspec import UNSET, Raw, UnsetType

from migration.verify.jsontext import DEEPEST

_UNPROVED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_OTHER_TYPES = ("panel_", "debate_", "problem_solving_")
# a text as short as this cannot be nested too deep: what is opened must be closed
_SHALLOW = 2 * DEEPEST

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Message(msgspec.Struct, gc=False):
    message_id: _Text
    id: UnsetType = UNSET


class _Record(msgspec.Struct, gc=False):
    """session.json, where every field of the target has its source in it."""

    title: _Text
    created_at: _Text
    updated_at: _Text
    metadata: Raw
    session_id: Raw
    user_id: str | None = None
    session_type: _Text | UnsetType = UNSET
    id: None = None


class _SessionLegacy(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    generation: str
    path: str
    record: Raw
    messages: int


class _Session(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    user_id: str
    title: str
    created_at: str
    updated_at: str
    metadata: Raw
    session_type: str
    message_count: int
    active: bool
    legacy: _SessionLegacy


class _OldProfile(msgspec.Struct, gc=False):
    username: Raw
    created_at: _Text
    updated_at: _Text
    preferences: Raw
    metadata: Raw
    user_id: str | None = None


class _ProfileLegacy(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    generation: str
    path: str
    record: Raw


class _Profile(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: str
    username: Raw
    created_at: str
    updated_at: str
    preferences: Raw
    metadata: Raw
    legacy: _ProfileLegacy


class PlainProver:
    """Decides whether plain sessions and profiles are equal. Keeps the decoders, and no other state."""

    def __init__(self) -> None:
        self._message = msgspec.json.Decoder(_Message).decode
        self._refuses_depth = _refuses_depth(self._message)
        self._record = msgspec.json.Decoder(_Record).decode
        self._session = msgspec.json.Decoder(_Session).decode
        self._old_profile = msgspec.json.Decoder(_OldProfile).decode
        self._profile = msgspec.json.Decoder(_Profile).decode

    def messages(self, source: bytes, target: bytes) -> int | None:
        """How many messages both hold, when they can be shown to be equal."""
        pieces = source.split(b'"message_id"')
        if b'"id"'.join(pieces) != target or source[-1:] != b"\n" or (b"\\" in source and b"\\u00" in source):
            return None
        lines = BytesIO(source).readlines()  # which knows no other line ends than line feeds
        if len(pieces) != len(lines) + 1:
            return None
        try:
            list(map(self._message, lines))
            if not source.isascii():
                source.decode()
        except _UNPROVED:
            return None
        if not self._refuses_depth and any(map(_may_be_too_deep, lines)):
            return None
        return len(lines)

    def session(self, user: str, id_: str, path: str, source: bytes, target: bytes, messages: int) -> bool:
        """Whether *target* can be shown to be what the record *source* of generation 3 and later demands.

        *path* is where the session is, *messages* how many it has; *user* is the one of its directory.
        """
        try:
            old, new = self._record(source), self._session(target)
            if not source.isascii():
                source.decode()
        except _UNPROVED:
            return False
        legacy, own = new.legacy, bytes(old.metadata)
        type_ = old.session_type
        return (
            bytes(legacy.record) == source
            and bytes(new.metadata) == own
            and own[:1] == b"{"
            and new.id == id_
            and new.user_id == user
            and (old.user_id or user) == user
            and new.title == old.title
            and new.created_at == old.created_at
            and new.updated_at == old.updated_at
            and new.message_count == messages
            and legacy.messages == messages
            and new.active
            and legacy.path == path
            and new.session_type == ("chat" if type_ is UNSET else type_)
            and legacy.generation == ("G3" if type_ is UNSET else "G6")
            and not (type_ is UNSET and id_.startswith(_OTHER_TYPES))
            and not id_.startswith(user + "_")
            and not _may_be_too_deep(source)
        )

    def profile(self, user: str, path: str, source: bytes, target: bytes) -> bool:
        """Whether *target* can be shown to be what the profile *source*, of the directory of *user*, demands."""
        try:
            old, new = self._old_profile(source), self._profile(target)
            if not source.isascii():
                source.decode()
        except _UNPROVED:
            return False
        legacy, preferences, metadata = new.legacy, bytes(old.preferences), bytes(old.metadata)
        return (
            bytes(legacy.record) == source
            and legacy.path == path
            and legacy.generation in ("G2", "G3", "G4", "G5", "G6")
            and new.user_id == user
            and (old.user_id or user) == user
            and bytes(new.username) == bytes(old.username)
            and new.created_at == old.created_at
            and new.updated_at == old.updated_at
            and bytes(new.preferences) == preferences
            and bytes(new.metadata) == metadata
            and preferences[:1] == b"{"
            and metadata[:1] == b"{"
            and not _may_be_too_deep(source)
        )


def _refuses_depth(decode: Callable[[bytes], _Message]) -> bool:
    """Whether the decoder by itself refuses what is nested deeper than the page allows: that is Python's to say."""
    try:
        decode(b'{"message_id":"m","deep":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}")
    except RecursionError:
        return True
    return False


def _may_be_too_deep(text: bytes) -> bool:
    """Whether *text* could be nested deeper than the page allows."""
    return len(text) > _SHALLOW and text.count(b"{") + text.count(b"[") > DEEPEST
