"""Reading text in images: what every reader gives, and which one the settings mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .choose import AUTO, ProviderSettings
from .errors import ModelMisconfigured

EMBEDDED_OCR = "rapidocr"


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text. ``score`` is from 0 to 1; ``box`` its four corners (x, y) in pixels, clockwise from the upper
    left. Both are None where the reader does not say."""

    text: str
    score: float | None = None
    box: tuple[tuple[float, float], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        box = None if self.box is None else [list(corner) for corner in self.box]
        return {"text": self.text, "score": self.score, "box": box}


def ocr_settings(settings: Mapping[str, Any]) -> ProviderSettings:
    """The section of the settings, checked; its provider is the embedded one or stands for a server."""
    return embedded_or_served(settings, EMBEDDED_OCR)


def embedded_or_served(settings: Mapping[str, Any], embedded: str) -> ProviderSettings:
    """Raises ModelMisconfigured for a server that is not named, and for the name of no server."""
    wanted = ProviderSettings.read({"provider": embedded, **settings})
    if wanted.provider == AUTO:
        raise ModelMisconfigured(f"provider must be {embedded!r} or a server's name, not {AUTO!r}")
    if wanted.timeout_s <= 0:
        raise ModelMisconfigured(f"timeout_seconds must be above 0, not {wanted.timeout_s!r}")
    if wanted.provider != embedded:
        wanted.server()
    return wanted


def text_of(lines: Sequence[TextLine]) -> str:
    return "\n".join(line.text for line in lines)
