"""What a camera wrote into an image, without where it was. Runs in the child alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from modules.models.installed import imported

from .image_file import EXTRA, decoding

_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD = 0x8769, 0x8825, 0xA005
# Where a camera or a program puts positions, serial numbers, owners, whole other images: never given out.
_WITHHELD = frozenset(
    {
        "GPSInfo",
        "MakerNote",
        "XMLPacket",
        "PhotoshopSettings",
        "ImageResources",
        "IPTCNAA",
        "BodySerialNumber",
        "LensSerialNumber",
        "CameraOwnerName",
        "CameraSerialNumber",
        "JpegInterchangeFormat",
        "InterColorProfile",
    }
)
_POINTERS = frozenset({_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD})
_LONGEST_TEXT = 500
_MOST_VALUES = 64


def tags(exif: Any) -> dict[str, Any]:
    """Tags by their names of the standard (CIPA DC-008), and ``had_location``: whether a position was left out."""
    names: Mapping[int, str] = imported("PIL.ExifTags", extra=EXTRA).TAGS
    with decoding("EXIF"):
        had_location = _GPS_IFD in exif
        found = {**dict(exif), **exif.get_ifd(_EXIF_IFD)}
    given = {}
    for number, value in found.items():
        name = names.get(number)
        if name is None or name in _WITHHELD or number in _POINTERS:
            continue
        plain = _plain(value)
        if plain is not None:
            given[name] = plain
    return {"tags": given, "had_location": had_location}


def _plain(value: Any) -> Any:
    """A JSON value; None for what has none."""
    match value:
        case bool() | int():
            return int(value) if -(2**63) <= int(value) < 2**63 else None
        case str():
            return value.strip("\0 ")[:_LONGEST_TEXT].encode("utf-8", "replace").decode()
        case bytes():
            return _text(value)
        case tuple() | list():
            return [_plain(one) for one in value[:_MOST_VALUES]]
    try:
        number = float(value)  # Pillow's rationals
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return round(number, 6) if isfinite(number) else None


def _text(value: bytes) -> str | None:
    # User comments begin with eight bytes that name their character code.
    text = value.removeprefix(b"ASCII\0\0\0").strip(b"\0 ")
    try:
        decoded = text.decode("ascii")
    except UnicodeDecodeError:
        return None
    return decoded[:_LONGEST_TEXT] if decoded.isprintable() else None
