"""Figures of an image. Runs in the child alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from modules.models.installed import imported

from .image_file import EXTRA, Pixels

_HASH_SIDE = 8


def histogram(image: Any, bins: int) -> dict[str, list[int]]:
    """Pixels by value, for each channel, in *bins* equal parts of 0 to 255."""
    channels = np.asarray(image)
    if channels.ndim == 2:
        channels = channels[:, :, None]
    names = ("gray",) if channels.shape[2] == 1 else ("red", "green", "blue", "alpha")[: channels.shape[2]]
    place = (np.arange(256) * bins) // 256
    found = {}
    for index, name in enumerate(names):
        counts = np.bincount(channels[:, :, index].ravel(), minlength=256)
        found[name] = np.bincount(place, weights=counts, minlength=bins).astype(np.int64).tolist()
    return found


def blur_score(pixels: Pixels) -> float:
    """Variance of the Laplacian: small where nothing is sharp; below 100 is usually blurred.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    cv2 = imported("cv2", extra=EXTRA)
    laplacian = cv2.Laplacian(pixels, cv2.CV_16S)  # of eight bits it is within -1020 to 1020
    return round(float(laplacian.var(dtype=np.float64)), 3)


def perceptual_hash(pixels: Pixels) -> str:
    """64 bits as 16 hex digits. Alike images differ in few bits: 10 of 64 is a usual bound.

    The signs, about their median, of the 8 x 8 lowest frequencies of the cosine transform of the image at 32 x 32.
    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (pHash).
    """
    cv2 = imported("cv2", extra=EXTRA)
    small = cv2.resize(pixels, (4 * _HASH_SIDE, 4 * _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # The first is the mean brightness, far above all others.
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
