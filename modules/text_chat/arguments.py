"""What every function of the module asks of its arguments. Raises ValidationError, naming the argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.core.errors import ValidationError


def check_name(param: str, value: object) -> None:
    """A user's or a session's id."""
    if not isinstance(value, str) or not value:
        raise ValidationError(f"{param} must be text and not empty", param=param)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValidationError(f"{param} is not Unicode text", param=param) from error


def checked_metadata(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ValidationError(f"metadata must be a mapping, not {type(metadata).__name__}", param="metadata")
    return metadata
