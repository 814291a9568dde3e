"""Opening and writing images with Pillow: bounded before anything is decoded. Runs in the child alone."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from modules.models.installed import imported

from .errors import MediaDamaged, MediaTooLarge
from .operations import ENCODERS

EXTRA = "multimodal"
Pixels = npt.NDArray[np.uint8]

# What Pillow's decoders raise for broken files. Whatever else is raised is a fault of ours and is reported as one.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_MOST_FRAMES_COUNTED = 10_000
_KEEPS_QUALITY = frozenset({"JPEG", "WEBP", "AVIF"})
_WITHOUT_ALPHA = frozenset({"JPEG", "BMP"})


@dataclass(frozen=True, slots=True)
class Opened:
    """``image`` is the first frame, upright, in mode L, RGB or RGBA. ``frames`` counts to `_MOST_FRAMES_COUNTED`;
    the file's own width and height are those before it was turned upright."""

    image: Any
    exif: Any
    frames: int
    mode: str
    width: int
    height: int


@contextmanager
def decoding(what: str = "image") -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        # Pillow's own words name the file, which here is a number.
        why = "it is not of the format that it begins as" if "cannot identify" in str(error) else str(error)
        raise MediaDamaged(f"the {what} cannot be read: {why or type(error).__name__}") from error


def open_image(file: BinaryIO, *, decoder: str, max_pixels: int) -> Opened:
    """Decode by the one *decoder* that is named. Raises MediaTooLarge before decoding, MediaDamaged."""
    pillow = imported("PIL.Image", extra=EXTRA)
    turning = imported("PIL.ImageOps", extra=EXTRA)
    pillow.MAX_IMAGE_PIXELS = None  # our own bound is checked below, and is an error and no warning
    with decoding():
        image = pillow.open(file, formats=[decoder])
        width, height = image.size
    if width * height > max_pixels:
        raise MediaTooLarge(f"the image is {width} x {height}, more than {max_pixels} pixels")
    with decoding():
        image.load()
        exif = image.getexif()
        mode = image.mode
        upright = _plain(_in_srgb(turning.exif_transpose(image)))
        frames = _frames(image)
    return Opened(upright, exif, frames, mode, width, height)


def encode(image: Any, *, encoder: str, quality: int, max_bytes: int) -> bytes:
    """The image as a file that carries pixels and nothing else: no EXIF, no comments, no thumbnails of before."""
    if encoder in _WITHOUT_ALPHA and image.mode == "RGBA":
        pillow = imported("PIL.Image", extra=EXTRA)
        white = pillow.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    bare = image.copy()
    bare.info = {}
    written = io.BytesIO()
    options = {"quality": quality} if encoder in _KEEPS_QUALITY else {}
    try:
        bare.save(written, format=encoder, **options)
    except (OSError, ValueError) as error:
        raise MediaTooLarge(f"the result cannot be written as {encoder}: {error}", param="operations") from error
    if written.tell() > max_bytes:
        raise MediaTooLarge(f"the result has {written.tell()} bytes, {max_bytes} at most are kept", param="operations")
    return written.getvalue()


def encoder_of(decoder: str) -> str:
    """The format in which a changed image is written where nobody asks for one: its own, or PNG."""
    return decoder if decoder in ENCODERS.values() and decoder != "GIF" else "PNG"


def rgb(image: Any) -> Pixels:
    """uint8, (height, width, 3); transparent parts on white."""
    if image.mode == "RGBA":
        pillow = imported("PIL.Image", extra=EXTRA)
        white = pillow.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.convert("RGB"))


def gray(image: Any) -> Pixels:
    """uint8, (height, width): ITU-R 601-2 luma; transparent parts on white."""
    return np.asarray(image if image.mode == "L" else _on_white(image).convert("L"))


def _on_white(image: Any) -> Any:
    return imported("PIL.Image", extra=EXTRA).fromarray(rgb(image)) if image.mode == "RGBA" else image


def _in_srgb(image: Any) -> Any:
    """Colours as they are meant, since results carry no profile. A profile that cannot be used counts as none."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    cms = imported("PIL.ImageCms", extra=EXTRA)
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        meant = cms.ImageCmsProfile(io.BytesIO(profile))
        return cms.profileToProfile(image, meant, cms.createProfile("sRGB"), outputMode=mode)
    except (cms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _plain(image: Any) -> Any:
    """In mode L, RGB or RGBA. Grey of more than eight bits is brought to eight by its range, not cut off."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(values.min()), float(values.max()))
        scaled = (values - low) * (255.0 / ((high - low) or 1.0))
        return imported("PIL.Image", extra=EXTRA).fromarray(scaled.clip(0, 255).astype(np.uint8))
    has_alpha = image.mode in ("LA", "PA", "RGBa", "La") or "transparency" in image.info
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if has_alpha else "RGB")


def _frames(image: Any) -> int:
    """How many pictures the file holds, as far as it says or can be stepped through without decoding them."""
    if not getattr(image, "is_animated", False):
        return 1
    return min(int(image.n_frames), _MOST_FRAMES_COUNTED)
