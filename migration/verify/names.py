"""Path components and derived ids of the migrated tree (docs/target.md, section 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b, sha1
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

_LONGEST = 200
_KEPT = 160
_USUAL = re.compile(rb"[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,199}")
_USUAL_TEXT = re.compile(_USUAL.pattern.decode())
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Name:
    """A name of v2: the text that stands for it in JSON, and the bytes that its path component encodes."""

    text: str
    raw: bytes

    @classmethod
    def of_text(cls, text: str) -> Name:
        """A name that was read from JSON."""
        return cls(text, text.encode("utf-8", "surrogatepass"))

    @classmethod
    def of_path(cls, path: str) -> Name:
        """A name that was read from a directory; bytes that are not UTF-8 stand as ``%XX`` in its text."""
        raw = path.encode("utf-8", "surrogateescape")
        return cls(shown(path), raw)

    @property
    def component(self) -> str:
        """The path component of the name."""
        return component(self.raw)


def is_usual(name: str) -> bool:
    """Whether *name* stands for itself: as text, and as a path component."""
    return _USUAL_TEXT.fullmatch(name) is not None


def shown(path: str) -> str:
    """*path* as text that any file can hold: each undecodable byte becomes ``%XX``."""
    return _ESCAPED_BYTE.sub(lambda m: f"%{ord(m[0]) - 0xDC00:02X}", path)


def component(raw: bytes) -> str:
    """The path component that stands for the name *raw*."""
    if _USUAL.fullmatch(raw):
        return raw.decode("ascii")
    if not raw:
        return "%"
    # quote() leaves exactly one character more alone than the page does
    encoded = quote(raw, safe="@").replace("~", "%7E")
    if encoded[0] == ".":
        encoded = "%2E" + encoded[1:]
    if len(encoded) <= _LONGEST:
        return encoded
    return encoded[:_KEPT] + "~" + blake2b(encoded.encode("ascii"), digest_size=16).hexdigest()


def document_id(user: Name, session: Name, name: Name) -> str:
    """Directory and id of a migrated document."""
    return "doc_" + _digest(user, session, name)


def vector_index_id(user: Name, session: Name, *more: Name) -> str:
    """Directory of a migrated vector set; *more* is the source path where two sets claim one index."""
    return "v2_" + _digest(user, session, *more)


def _digest(*names: Name) -> str:
    return blake2b(b"\0".join(_utf8(name.text) for name in names), digest_size=16).hexdigest()


def derived_message_id(user: Name, session: Name, line: int) -> str:
    """Id of the message on *line* (from 1) that has none of its own: UUIDv5, RFC 9562 section 5.5."""
    namespace = uuid5(NAMESPACE_URL, "modchat:message")
    name = b"\0".join((_utf8(user.text), _utf8(session.text), b"%d" % line))
    return "msg_" + UUID(bytes=sha1(namespace.bytes + name).digest()[:16], version=5).hex


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
