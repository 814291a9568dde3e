"""Writing sound as a file that carries samples and nothing else, with libsndfile. Runs in the child alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from modules.models.installed import imported
from modules.models.speech import SAMPLE_RATE

from .errors import MediaTooLarge
from .sound import resampled
from .streams import Streams

EXTRA = "audio"
# Name -> libsndfile's format and coding.
FORMATS: Mapping[str, tuple[str, str]] = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_MOST_RATE = 48_000


def encode(streams: Streams, wanted: str, *, max_bytes: int, for_speech: bool) -> dict[str, Any]:
    """The first audio stream as a file of format *wanted*; *for_speech*: one channel at 16 kHz."""
    soundfile = imported("soundfile", extra=EXTRA)
    context = streams.first("audio").codec_context
    rate = SAMPLE_RATE if for_speech else min(context.sample_rate or _MOST_RATE, _MOST_RATE)
    layout, channels = ("mono", 1) if for_speech or context.channels == 1 else ("stereo", 2)
    container, coding = FORMATS[wanted]
    written = io.BytesIO()
    samples = 0
    with soundfile.SoundFile(
        written, "w", samplerate=rate, channels=channels, format=container, subtype=coding
    ) as target:
        for piece in resampled(streams, layout, rate):
            # As fractions: libsndfile's MP3 encoder gets 16-bit samples of two channels wrong.
            target.write(piece.T / np.float32(32_768))
            samples += piece.shape[1]
            if written.tell() > max_bytes:
                raise MediaTooLarge(f"the result has more than {max_bytes} bytes")
    if len(written.getvalue()) > max_bytes:
        raise MediaTooLarge(f"the result has more than {max_bytes} bytes")
    return {"format": wanted, "duration_s": round(samples / rate, 3), "data": written.getvalue()}
