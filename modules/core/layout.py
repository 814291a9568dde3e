"""Where things are in the platform's tree, and the names they get: pure functions, no I/O.

The rules are those of docs/target.md, section 1. Every name that comes from outside (a user id, a session id, a
file name) becomes exactly one path component here, so no id can leave the base directory.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from uuid import NAMESPACE_URL, uuid5

_PLAIN = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,199}")
_SAFE_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-@")
_MAX_COMPONENT = 200
_KEPT_OF_LONG = 160
_MESSAGE_NAMESPACE = uuid5(NAMESPACE_URL, "modchat:message")


def component(name: str | bytes) -> str:
    """The path component that stands for *name*: reversible, and safe on every POSIX file system.

    ``str`` names are encoded as UTF-8, lone surrogates included; a file name that is not UTF-8 comes as ``bytes``.
    Components longer than 200 bytes are cut and carry a digest, so they can only be reversed through the id stored
    in the files.
    """
    if isinstance(name, str):
        if _PLAIN.fullmatch(name):
            return name
        name = name.encode("utf-8", "surrogatepass")
    if not name:
        return "%"
    encoded = "".join(chr(b) if b in _SAFE_BYTES else f"%{b:02X}" for b in name)
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) > _MAX_COMPONENT:
        digest = blake2b(encoded.encode(), digest_size=16).hexdigest()
        encoded = f"{encoded[:_KEPT_OF_LONG]}~{digest}"
    return encoded


def name_of(component_: str) -> str | None:
    """The name that a component stands for, or None when it was cut and only the files inside know it.

    Bytes that are not UTF-8 come out as U+FFFD; the true id stands in the files.
    """
    if component_ == "%":
        return ""
    if len(component_) == _KEPT_OF_LONG + 33 and component_[_KEPT_OF_LONG] == "~":
        return None
    raw = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), component_.encode())
    return raw.decode("utf-8", "replace")


def document_id(user_id: str, session_id: str, v2_document_id: str) -> str:
    """Id of a migrated document: ``doc_`` and 32 hex digits."""
    return "doc_" + _digest(user_id, session_id, v2_document_id)


def vector_index_id(user_id: str, session_id: str, *more: str) -> str:
    """Id of a migrated vector set: ``v2_`` and 32 hex digits."""
    return "v2_" + _digest(user_id, session_id, *more)


def derived_message_id(user_id: str, session_id: str, line: int) -> str:
    """Id of a message that had none; *line* counts from 1."""
    name = f"{user_id}\0{session_id}\0{line}".encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    return "msg_" + uuid5(_MESSAGE_NAMESPACE, name).hex


def _digest(*parts: str) -> str:
    joined = b"\0".join(part.encode("utf-8", "surrogatepass") for part in parts)
    return blake2b(joined, digest_size=16).hexdigest()


def session_dir(user_id: str, session_id: str) -> str:
    """Directory of a live session, relative to the base."""
    return f"text_chat/sessions/{component(user_id)}/{component(session_id)}"
