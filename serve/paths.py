"""Ids in paths: any text is an id, also one with a slash, and stays one segment.

Servers decode a path before it is matched, so an encoded slash would end a segment. Here the decoded path gets a NUL
in its place, which no path may hold otherwise, and which `PathId` turns back. Pure.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator

from modules.core.errors import ValidationError

_STAND_IN = "\0"


def routed_path(raw_path: bytes) -> str | None:
    """The path to match, when it is another than the usual decoding gives. Raises ValidationError for a NUL in it."""
    if b"%2" not in raw_path and b"%00" not in raw_path:
        return None
    segments = [unquote(segment) for segment in raw_path.decode("ascii", "replace").split("/")]
    if any(_STAND_IN in segment for segment in segments):
        raise ValidationError("a path holds no NUL")
    return "/".join(segment.replace("/", _STAND_IN) for segment in segments)


def restored(value: str) -> str:
    """What a path parameter stands for, as `PathId` has it."""
    return value.replace(_STAND_IN, "/")


PathId = Annotated[str, Path(min_length=1, max_length=1000), AfterValidator(restored)]
