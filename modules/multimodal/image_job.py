"""What is done with one image: a list of operations, in order. Runs in the child alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from modules.models.installed import imported
from modules.models.ocr import TextLine

from . import exif, faces, measures
from .errors import MediaRefused, MediaTooLarge
from .image_file import EXTRA, Opened, encode, encoder_of, gray, open_image, rgb
from .operations import ENCODERS, OPERATIONS, Operation

Reader = Callable[[Any], list[TextLine]]
_QUALITY = 85


def process(
    file: BinaryIO,
    *,
    decoder: str,
    operations: Sequence[Operation],
    max_pixels: int,
    max_bytes: int,
    read_text: Reader | None,
) -> dict[str, Any]:
    """``image``: what the file holds. ``measures``: by operation. ``output``: the changed image as a file, or None.

    Without *read_text*, the measure ``ocr`` is the image as PNG, for a reader elsewhere.
    """
    opened = open_image(file, decoder=decoder, max_pixels=max_pixels)
    image = opened.image
    found: dict[str, Any] = {}
    encoder, quality, has_changed = encoder_of(decoder), _QUALITY, False
    for operation in operations:
        name = operation["type"]
        if name == "convert":
            encoder, quality, has_changed = ENCODERS[operation["format"]], operation["quality"], True
        elif OPERATIONS[name].changes:
            image, has_changed = _CHANGES[name](image, operation, max_pixels), True
        elif name == "exif":
            found[name] = exif.tags(opened.exif)
        elif name == "ocr":
            found[name] = (
                encode(image, encoder="PNG", quality=_QUALITY, max_bytes=max_bytes)
                if read_text is None
                else [line.to_dict() for line in read_text(rgb(image))]
            )
        else:
            found[name] = _MEASURES[name](image, operation)
    output = _output(image, encoder, quality, max_bytes) if has_changed else None
    return {"image": _facts(opened), "measures": found, "output": output}


def _facts(opened: Opened) -> dict[str, Any]:
    return {"width": opened.width, "height": opened.height, "mode": opened.mode, "frames": opened.frames}


def _output(image: Any, encoder: str, quality: int, max_bytes: int) -> dict[str, Any]:
    data = encode(image, encoder=encoder, quality=quality, max_bytes=max_bytes)
    name = next(name for name, one in ENCODERS.items() if one == encoder)
    return {"format": name, "width": image.width, "height": image.height, "data": data}


def _resize(image: Any, wanted: Operation, max_pixels: int) -> Any:
    resampling = imported("PIL.Image", extra=EXTRA).Resampling.LANCZOS
    width, height, fit = wanted["width"], wanted["height"], wanted["fit"]
    if width is None or height is None:
        scale = height / image.height if width is None else width / image.width
        size = width or max(1, round(image.width * scale)), height or max(1, round(image.height * scale))
    elif fit == "contain":
        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    else:
        size = width, height
    _check_size(*size, max_pixels)
    if fit == "cover":
        return imported("PIL.ImageOps", extra=EXTRA).fit(image, size, resampling)
    return image.resize(size, resampling)


def _crop(image: Any, wanted: Operation, max_pixels: int) -> Any:
    right, bottom = wanted["left"] + wanted["width"], wanted["top"] + wanted["height"]
    if right > image.width or bottom > image.height:
        raise MediaRefused(
            f"crop reaches to ({right}, {bottom}), beyond the image of {image.width} x {image.height}",
            param="operations",
        )
    return image.crop((wanted["left"], wanted["top"], right, bottom))


def _rotate(image: Any, wanted: Operation, max_pixels: int) -> Any:
    if wanted["expand"]:
        side = int(np.hypot(image.width, image.height)) + 1
        turned = abs(wanted["degrees"]) % 90
        width, height = (image.width, image.height) if turned == 0 else (side, side)
        _check_size(width, height, max_pixels)
    resampling = imported("PIL.Image", extra=EXTRA).Resampling.BICUBIC
    return image.rotate(wanted["degrees"], resample=resampling, expand=wanted["expand"])


def _thumbnail(image: Any, wanted: Operation, max_pixels: int) -> Any:
    small = image.copy()
    small.thumbnail((wanted["size"], wanted["size"]))
    return small


def _grayscale(image: Any, wanted: Operation, max_pixels: int) -> Any:
    return imported("PIL.Image", extra=EXTRA).fromarray(gray(image))


def _blur(image: Any, wanted: Operation, max_pixels: int) -> Any:
    return image.filter(imported("PIL.ImageFilter", extra=EXTRA).GaussianBlur(wanted["radius"]))


def _edges(image: Any, wanted: Operation, max_pixels: int) -> Any:
    found = imported("cv2", extra=EXTRA).Canny(gray(image), wanted["low"], wanted["high"])
    return imported("PIL.Image", extra=EXTRA).fromarray(found)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise MediaTooLarge(f"the result would be {width} x {height}, over {max_pixels} pixels", param="operations")


_CHANGES: Mapping[str, Callable[[Any, Operation, int], Any]] = {
    "resize": _resize,
    "crop": _crop,
    "rotate": _rotate,
    "thumbnail": _thumbnail,
    "grayscale": _grayscale,
    "blur": _blur,
    "edges": _edges,
}
_MEASURES: Mapping[str, Callable[[Any, Operation], Any]] = {
    "histogram": lambda image, wanted: measures.histogram(image, wanted["bins"]),
    "blur_score": lambda image, wanted: measures.blur_score(gray(image)),
    "perceptual_hash": lambda image, wanted: measures.perceptual_hash(gray(image)),
    "faces": lambda image, wanted: faces.find(rgb(image), wanted["min_score"]),
}
