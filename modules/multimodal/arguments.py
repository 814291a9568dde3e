"""What callers may ask for, beside operations on images: checked before a file is opened. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modules.core.errors import ValidationError

AUDIO_TYPES = ("metadata", "waveform")
VIDEO_TYPES = ("metadata", "key_frames", "scenes", "motion")
SOUND_TARGETS = ("wav", "flac", "ogg", "mp3")
TEXT = "text"
MOST_POINTS = 2_000
MOST_PICTURES = 16

_LONGEST_PROMPT = 32_000
_LONGEST_STYLE = 500
_SIZE = re.compile(r"auto|[1-9]\d{1,3}x[1-9]\d{1,3}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


def types_of(given: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """The types in the order of *allowed*, each once. Raises ValidationError."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValidationError(f"analysis_types must be a list of {', '.join(allowed)}", param="analysis_types")
    unknown = [one for one in given if one not in allowed]
    if unknown:
        raise ValidationError(f"no analysis {unknown[0]!r}; there are {', '.join(allowed)}", param="analysis_types")
    return [one for one in allowed if one in given]


def check_whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValidationError(f"{name} must be {least} to {most}, not {value!r}", param=name)


def _check_text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise ValidationError(f"{name} must be text of 1 to {longest} characters", param=name)


def check_picture(prompt: object, style: object, size: object) -> None:
    _check_text("prompt", prompt, _LONGEST_PROMPT)
    if style is not None:
        _check_text("style", style, _LONGEST_STYLE)
    if not isinstance(size, str) or not _SIZE.fullmatch(size):
        raise ValidationError(f"size must be width x height, such as 1024x1024, not {size!r}", param="size")


def check_language(language: object) -> None:
    if language is not None and (not isinstance(language, str) or not _LANGUAGE.fullmatch(language)):
        raise ValidationError(f"language must be a code such as en, not {language!r}", param="language")
