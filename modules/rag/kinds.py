"""Which kind of document some bytes are: what their name says, checked against how they begin. Pure.

A name is not trusted: bytes that are plainly something else are refused, with both kinds in the error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from .errors import UnsupportedDocument

# Content type by kind; a kind is the extension that stands for it.
CONTENT_TYPES = {
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".html": "text/html",
    ".csv": "text/csv",
    ".json": "application/json",
}
_ALIASES = {".htm": ".html", ".xhtml": ".html", ".markdown": ".md", ".text": ".txt", ".log": ".txt"}
_KINDS_OF_TYPES = {content_type: kind for kind, content_type in CONTENT_TYPES.items()}

# So much of a file's beginning is looked at.
HEAD_BYTES = 1024
# How files begin that are no text: (bytes, where, what to call them).
_MAGIC = (
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\0", "a SQLite database"),
)
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_MARKUP = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


def kind_of(head: bytes, *, name: str = "", content_type: str = "", allowed: Collection[str]) -> str:
    """The kind, such as ``.pdf``, of a file that begins with *head*. Raises UnsupportedDocument."""
    head = head[:HEAD_BYTES]
    named = _named(name, content_type)
    looks = _looks_like(head)
    kind = named or _KIND_OF_LOOKS.get(looks or "") or (None if looks else _text_kind(head))
    if kind is None or kind not in CONTENT_TYPES:
        shown = kind or looks or "of no known kind"
        raise UnsupportedDocument(f"documents are {', '.join(sorted(allowed))}; this one is {shown}", param="source")
    if kind not in allowed:
        raise UnsupportedDocument(f"{kind} is not among the kinds that are taken ({', '.join(sorted(allowed))})")
    if looks != _LOOKS_OF_KIND.get(kind):
        holds = looks or "something else"
        raise UnsupportedDocument(f"it is called {kind} and holds {holds}", param="source")
    return kind


def extension_of(name: str) -> str:
    """The extension as it stands in the name, in lower case; empty when there is none."""
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def _named(name: str, content_type: str) -> str | None:
    extension = extension_of(name)
    if extension:
        return _ALIASES.get(extension, extension)
    return _KINDS_OF_TYPES.get(content_type.partition(";")[0].strip().lower())


def _looks_like(head: bytes) -> str | None:
    """What the first bytes say, for a person; None for what may be text."""
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if b"%PDF-" in head:
        return "PDF"  # readers accept it anywhere in the first kilobyte
    if head.startswith(_WIDE_MARKS):
        return None
    # A text may hold a stray NUL; what is mostly NULs and control bytes is none.
    strange = sum(byte < 9 or 13 < byte < 32 for byte in head)
    return "binary data" if strange * 10 > len(head) else None


def _text_kind(head: bytes) -> str:
    return ".html" if _MARKUP.match(head) else ".txt"


_LOOKS_OF_KIND = {".pdf": "PDF", ".docx": "a zip archive"}
_KIND_OF_LOOKS = {"PDF": ".pdf", "a zip archive": ".docx"}
