"""What a file is, by its first bytes: pure. Names and declared types are never asked.

Each format names the one decoder that may read it (Pillow's format or libav's demuxer), so that no file can choose a
decoder for itself: playlists, scripts and formats that name other files have no entry.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import MediaRefused

HEAD_BYTES = 4096

IMAGE, AUDIO, VIDEO, DOCUMENT = "image", "audio", "video", "document"


@dataclass(frozen=True, slots=True)
class Format:
    """``decoder``: Pillow's format of an image, libav's demuxer of audio and video, empty for a document."""

    name: str
    kind: str
    content_type: str
    decoder: str = ""


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format("png", IMAGE, "image/png", "PNG"),
        Format("jpeg", IMAGE, "image/jpeg", "JPEG"),
        Format("gif", IMAGE, "image/gif", "GIF"),
        Format("webp", IMAGE, "image/webp", "WEBP"),
        Format("bmp", IMAGE, "image/bmp", "BMP"),
        Format("tiff", IMAGE, "image/tiff", "TIFF"),
        Format("avif", IMAGE, "image/avif", "AVIF"),
        Format("wav", AUDIO, "audio/wav", "wav"),
        Format("flac", AUDIO, "audio/flac", "flac"),
        Format("mp3", AUDIO, "audio/mpeg", "mp3"),
        Format("aac", AUDIO, "audio/aac", "aac"),
        Format("ogg", AUDIO, "audio/ogg", "ogg"),
        Format("aiff", AUDIO, "audio/aiff", "aiff"),
        Format("m4a", AUDIO, "audio/mp4", "mov"),
        Format("mp4", VIDEO, "video/mp4", "mov"),
        Format("mov", VIDEO, "video/quicktime", "mov"),
        Format("webm", VIDEO, "video/webm", "matroska"),
        Format("mkv", VIDEO, "video/x-matroska", "matroska"),
        Format("avi", VIDEO, "video/x-msvideo", "avi"),
        Format("flv", VIDEO, "video/x-flv", "flv"),
        Format("mpegts", VIDEO, "video/mp2t", "mpegts"),
        Format("mpeg", VIDEO, "video/mpeg", "mpeg"),
        Format("asf", VIDEO, "video/x-ms-asf", "asf"),
        Format("ogv", VIDEO, "video/ogg", "ogg"),
        Format("pdf", DOCUMENT, "application/pdf"),
        Format("zip", DOCUMENT, "application/zip"),
        Format("docx", DOCUMENT, "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        Format("xlsx", DOCUMENT, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        Format("pptx", DOCUMENT, "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        Format("html", DOCUMENT, "text/html"),
        Format("text", DOCUMENT, "text/plain"),
    )
}

# Offset, bytes, format; the first that fits decides.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"fLaC", "flac"),
    (0, b"ID3", "mp3"),
    (0, b"\x1aE\xdf\xa3", "mkv"),
    (0, b"FLV\x01", "flv"),
    (0, b"\0\0\x01\xba", "mpeg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"%PDF-", "pdf"),
    (0, b"PK\x03\x04", "zip"),
)
# After "RIFF" and "FORM", and after "ftyp": the four bytes that say what is inside.
_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}
_FORM = {b"AIFF": "aiff", b"AIFC": "aiff"}
_BRANDS = {b"avif": "avif", b"avis": "avif", b"M4A ": "m4a", b"M4B ": "m4a", b"qt  ": "mov"}
_NOT_TAKEN = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
# The first names in an Office file's archive say which it is.
_OFFICE = ((b"word/", "docx"), (b"xl/", "xlsx"), (b"ppt/", "pptx"))

_FIRST_TAG = re.compile(rb"<(?:!doctype\s+)?([a-z][a-z0-9._:-]*)", re.IGNORECASE)
_HTML_TAGS = frozenset({b"html", b"head", b"body", b"title", b"meta", b"div", b"p", b"h1", b"table"})
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]")


def format_of(head: bytes, *, is_whole: bool = False) -> Format:
    """The format of a file that begins with *head* (`HEAD_BYTES` are enough; *is_whole*: there is no more).

    Raises MediaRefused, which says why, for everything else.
    """
    if not head:
        raise MediaRefused("the file is empty")
    name = _by_magic(head) or _by_container(head) or _by_frames(head)
    if name is None:
        name = _by_text(head, is_whole=is_whole)
    return FORMATS[name]


def _by_magic(head: bytes) -> str | None:
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            if name == "mkv":
                return "webm" if b"webm" in head[:128] else "mkv"
            if name == "zip":
                return next((office for inside, office in _OFFICE if inside in head), "zip")
            return name
    return None


def _by_container(head: bytes) -> str | None:
    inside = head[8:12]
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(inside)
    if head[:4] == b"FORM":
        return _FORM.get(inside)
    if head[:4] == b"OggS":
        return "ogv" if b"\x80theora" in head[:256] else "ogg"
    if head[4:8] == b"ftyp":
        if inside in _NOT_TAKEN and b"avif" not in head[:64]:
            raise MediaRefused(f"{_NOT_TAKEN[inside]} images cannot be decoded here: convert them to JPEG or PNG first")
        return "avif" if b"avif" in head[8:64] else _BRANDS.get(inside, "mp4")
    # Old QuickTime files begin with their first atom.
    return "mov" if head[4:8] in (b"moov", b"mdat", b"wide") else None


def _by_frames(head: bytes) -> str | None:
    if head[0] == 0x47 and len(head) > 376 and head[188] == head[376] == 0x47:
        return "mpegts"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # ISO 11172-3: sync, version, layer (0 is ADTS AAC), bit rate and sampling rate that are not reserved.
        if head[1] & 0xF6 == 0xF0:
            return "aac"
        if head[1] & 0x06 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
            return "mp3"
    return None


def _by_text(head: bytes, *, is_whole: bool) -> str:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    first_tag = _FIRST_TAG.search(start) if start.startswith(b"<") else None
    tag = first_tag[1].lower() if first_tag else b""
    if tag.rpartition(b":")[2] == b"svg":
        raise MediaRefused("SVG is not taken: it is a program and can name other files; render it to PNG first")
    if start.startswith(_PLAYLISTS):
        raise MediaRefused("playlists are not taken: they name other files")
    text = codecs.getincrementaldecoder("utf-8")()
    try:
        text.decode(head, final=is_whole)
    except UnicodeDecodeError:
        raise MediaRefused("the file is of no kind that is known here") from None
    if b"\0" in head:
        raise MediaRefused("the file is of no kind that is known here")
    return "html" if tag in _HTML_TAGS else "text"
