"""Speech to text: what every recogniser gives, and which one the settings mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .choose import ProviderSettings
from .errors import ModelRefused
from .ocr import embedded_or_served

EMBEDDED_SPEECH = "pocketsphinx"
SAMPLE_RATE = 16_000
_ENGLISH = frozenset({"en", "en-us", "english"})


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was said between two pauses; times in seconds from the start of the sound."""

    text: str
    start_s: float
    end_s: float

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "start_s": self.start_s, "end_s": self.end_s}


def speech_settings(settings: Mapping[str, Any]) -> ProviderSettings:
    """The section of the settings, checked; its provider is the embedded one or stands for a server."""
    return embedded_or_served(settings, EMBEDDED_SPEECH)


def check_embedded_language(language: str | None) -> None:
    """Raises ModelRefused for a language that the embedded recogniser has no model of."""
    if language is not None and language.replace("_", "-").lower() not in _ENGLISH:
        raise ModelRefused(
            f"the embedded recogniser knows American English alone, not {language!r}; for other languages set "
            "modules.multimodal.speech to a server",
            param="language",
        )
