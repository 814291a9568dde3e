"""Who reads, hears and draws, as the settings say; clients of servers are made when they are first needed."""

from __future__ import annotations

from modules.core.errors import ConfigurationError
from modules.models.choose import ProviderSettings
from modules.models.ocr import EMBEDDED_OCR, ocr_settings
from modules.models.served_media import ServedImages, ServedOcr, ServedSpeech
from modules.models.speech import EMBEDDED_SPEECH, speech_settings

from .settings import MultimodalSettings

NO_IMAGES = "none"


class Providers:
    """Raises ConfigurationError for settings that name no usable provider."""

    def __init__(self, settings: MultimodalSettings) -> None:
        self._ocr_settings = ocr_settings(settings.ocr)
        self._speech_settings = speech_settings(settings.speech)
        self._image_settings = ProviderSettings.read({"provider": NO_IMAGES, **settings.image_generation})
        if self._image_settings.provider != NO_IMAGES:
            self._image_settings.server()
        self._ocr: ServedOcr | None = None
        self._speech: ServedSpeech | None = None
        self._images: ServedImages | None = None

    @property
    def reads_here(self) -> bool:
        return self._ocr_settings.provider == EMBEDDED_OCR

    @property
    def hears_here(self) -> bool:
        return self._speech_settings.provider == EMBEDDED_SPEECH

    @property
    def reader_name(self) -> str:
        return _name(self._ocr_settings, EMBEDDED_OCR)

    @property
    def hearer_name(self) -> str:
        return _name(self._speech_settings, EMBEDDED_SPEECH)

    @property
    def ocr_timeout_s(self) -> float:
        return self._ocr_settings.timeout_s

    @property
    def speech_timeout_s(self) -> float:
        return self._speech_settings.timeout_s

    def ocr(self) -> ServedOcr:
        if self._ocr is None:
            self._ocr = ServedOcr(self._ocr_settings.server())
        return self._ocr

    def speech(self) -> ServedSpeech:
        if self._speech is None:
            self._speech = ServedSpeech(self._speech_settings.server())
        return self._speech

    def images(self) -> ServedImages:
        """Raises ConfigurationError where nobody makes images."""
        if self._image_settings.provider == NO_IMAGES:
            raise ConfigurationError(
                "nobody makes images here: name an OpenAI-compatible server in modules.multimodal.image_generation "
                "(provider, base_url, model, api_key)"
            )
        if self._images is None:
            self._images = ServedImages(self._image_settings.server())
        return self._images

    async def close(self) -> None:
        for client in (self._ocr, self._speech, self._images):
            if client is not None:
                await client.close()


def _name(settings: ProviderSettings, embedded: str) -> str:
    """What made a result: the embedded model, or a server's model and address, which may mean different things."""
    if settings.provider == embedded:
        return embedded
    server = settings.server()
    return f"{server.model} at {server.base_url}"
