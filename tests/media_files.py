"""Images, sound and video for tests: real files, made when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image, ImageDraw, ImageFont

SPEECH = Path(__file__).parent / "cases" / "speech" / "front_door.flac"
SPOKEN = "please open the front door and bring me two cups of coffee"


def picture(width: int = 120, height: int = 80, mode: str = "RGB") -> Image.Image:
    """Two gradients and a dark frame: no two corners are alike."""
    across = np.linspace(0, 255, width, dtype=np.uint8)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height, dtype=np.uint8)[:, None].repeat(width, 1)
    pixels = np.stack([across, down, np.full_like(across, 90)], axis=2)
    pixels[:3, :3] = 0
    return Image.fromarray(pixels).convert(mode)


def image_file(image: Image.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    (image or picture()).save(written, kind, **options)
    return written.getvalue()


def written_text(lines: Sequence[str], *, size: int = 28) -> bytes:
    """Black on white, as PNG."""
    height = 40 + len(lines) * (size + 14)
    image = Image.new("RGB", (900, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * (size + 14)), line, fill="black", font=font)
    return image_file(image)


def drawn_face() -> Image.Image:
    """Enough of a face for a detector: skin, hair, brows, eyes, nose, mouth, with soft shadows."""
    image = Image.new("RGB", (400, 400), (96, 120, 140))
    draw = ImageDraw.Draw(image)
    draw.ellipse((120, 60, 280, 260), fill=(60, 40, 30))
    draw.ellipse((130, 80, 270, 300), fill=(224, 180, 152))
    draw.ellipse((170, 270, 230, 380), fill=(214, 168, 140))
    for left in (152, 212):
        draw.arc((left, 140, left + 38, 166), 200, 340, fill=(60, 40, 30), width=6)
        draw.ellipse((left, 158, left + 36, 178), fill=(250, 250, 250))
        draw.ellipse((left + 10, 158, left + 28, 178), fill=(50, 40, 40))
    draw.polygon([(200, 178), (186, 218), (214, 218)], fill=(204, 150, 124))
    draw.ellipse((188, 210, 198, 220), fill=(150, 100, 84))
    draw.ellipse((204, 210, 214, 220), fill=(150, 100, 84))
    draw.ellipse((170, 236, 230, 260), fill=(176, 72, 72))
    draw.line((170, 248, 230, 248), fill=(120, 40, 40), width=4)
    return image


def tone(seconds: float = 1.0, *, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    """A sine at half of full scale: (samples, channels)."""
    times = np.arange(int(seconds * rate)) / rate
    wave = (np.sin(2 * np.pi * hertz * times) * 16_384).astype(np.int16)
    return np.repeat(wave[:, None], channels, axis=1)


def sound_file(
    samples: npt.NDArray[np.int16] | None = None, *, rate: int = 16_000, kind: str = "WAV", coding: str | None = None
) -> bytes:
    written = io.BytesIO()
    levels = (tone() if samples is None else samples) / np.float32(32_768)
    soundfile.write(written, levels, rate, format=kind, subtype=coding)
    return written.getvalue()


def video_file(
    colours: Sequence[tuple[int, int, int]] = ((200, 30, 30), (30, 30, 200)),
    *,
    seconds: float = 1.0,
    rate: int = 25,
    size: tuple[int, int] = (160, 120),
    moves: bool = True,
    has_sound: bool = False,
    container: str = "mp4",
    codec: str = "mpeg4",
    tags: dict[str, str] | None = None,
) -> bytes:
    """A scene of *seconds* for each of *colours*, with a white square that moves."""
    written = io.BytesIO()
    with av.open(written, "w", format=container) as target:
        target.metadata.update(tags or {})
        video: Any = target.add_stream(codec, rate=rate)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        sound: Any = target.add_stream("aac" if container == "mp4" else "libopus", rate=48_000) if has_sound else None
        for frame in _frames(colours, seconds, rate, size, moves):
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if sound is not None:
            samples = tone(seconds * len(colours), rate=48_000)
            block = 960
            for start in range(0, len(samples) - block, block):
                piece = av.AudioFrame.from_ndarray(samples[start : start + block].T, format="s16", layout="mono")
                piece.sample_rate, piece.pts = 48_000, start
                target.mux(sound.encode(piece))
            target.mux(sound.encode(None))
    return written.getvalue()


def _frames(
    colours: Sequence[tuple[int, int, int]], seconds: float, rate: int, size: tuple[int, int], moves: bool
) -> Iterator[av.VideoFrame]:
    width, height = size
    number = 0
    for colour in colours:
        for step in range(int(seconds * rate)):
            pixels = np.full((height, width, 3), colour, np.uint8)
            left = (step * 4) % (width - 30) if moves else 10
            pixels[20:50, left : left + 30] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            number += 1
            yield frame
