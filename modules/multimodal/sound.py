"""Sound: what a file holds, its shape over time, and its samples as speech recognisers take them. Child alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from modules.models.installed import imported
from modules.models.speech import SAMPLE_RATE

from .streams import EXTRA, Streams

_BLOCK_S = 0.02
_QUIET = 33.0  # of 32768: 60 dB below full scale


class Speech:
    """The first audio stream as 16-bit samples, one channel, 16 kHz; to be gone through once."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._samples = 0

    @property
    def seconds(self) -> float:
        """Heard so far."""
        return round(self._samples / SAMPLE_RATE, 3)

    def __iter__(self) -> Iterator[bytes]:
        for samples in resampled(self._streams, "mono", SAMPLE_RATE):
            self._samples += samples.shape[1]
            yield samples.tobytes()


def resampled(streams: Streams, layout: str, rate: int) -> Iterator[npt.NDArray[np.int16]]:
    """The first audio stream, piece by piece: int16, (channels of *layout*, samples) at *rate*.

    Raises as `Streams.frames` does; MediaTooLarge also where the samples are more than the allowed time holds, whatever
    the file's own times say.
    """
    av = imported("av", extra=EXTRA)
    resampler = av.AudioResampler(format="s16p", layout=layout, rate=rate)
    stream = streams.first("audio")
    given = 0
    for frame in streams.frames(stream):
        frame.pts = None  # times that jump would be filled with silence, without bound
        for piece in resampler.resample(frame):
            given += piece.samples
            streams.check_length(given / rate)
            yield piece.to_ndarray()
    for piece in resampler.resample(None):
        yield piece.to_ndarray()


def analyse(streams: Streams, types: Sequence[str], *, points: int) -> dict[str, Any]:
    """``metadata`` and ``waveform``, as far as *types* ask for them."""
    found: dict[str, Any] = {}
    stream = streams.first("audio")
    if "waveform" in types:
        found["waveform"] = _waveform(streams, points)
    if "metadata" in types:
        found["metadata"] = {
            **facts(stream),
            "container": streams.container.format.name,
            "claimed_s": streams.claimed_s,
            "duration_s": found["waveform"]["duration_s"] if "waveform" in found else _measured(streams),
            "damaged_packets": streams.damaged,
            "is_cut_off": bool(streams.stopped),
            "tags": streams.tags(),
        }
    return found


def facts(stream: Any) -> dict[str, Any]:
    """What the stream claims to be."""
    context = stream.codec_context
    return {
        "codec": context.name,
        "sample_rate": context.sample_rate,
        "channels": context.channels,
        "layout": context.layout.name if context.channels else None,
        "bit_rate": context.bit_rate or None,
    }


def _measured(streams: Streams) -> float:
    """The length by its samples; headers lie."""
    samples: int = sum(piece.shape[1] for piece in resampled(streams, "mono", SAMPLE_RATE))
    return round(samples / SAMPLE_RATE, 3)


def _waveform(streams: Streams, points: int) -> dict[str, Any]:
    """``points`` equal parts of the whole: lowest, highest and root mean square value in each, from -1 to 1."""
    block = int(SAMPLE_RATE * _BLOCK_S)
    lows, highs, squares = _Growing(), _Growing(), _Growing()
    rest = np.zeros(0, np.int16)
    total = 0
    for piece in resampled(streams, "mono", SAMPLE_RATE):
        total += piece.shape[1]
        samples = np.concatenate([rest, piece[0]])
        whole = len(samples) - len(samples) % block
        if whole:
            blocks = samples[:whole].reshape(-1, block).astype(np.float32)
            lows.add(blocks.min(axis=1))
            highs.add(blocks.max(axis=1))
            squares.add((blocks**2).mean(axis=1))
        rest = samples[whole:]
    if len(rest):
        last = rest.astype(np.float32)
        lows.add(np.array([last.min()]))
        highs.add(np.array([last.max()]))
        squares.add(np.array([(last**2).mean()]))
    low, high, square = lows.all(), highs.all(), squares.all()
    edges = np.linspace(0, len(low), min(points, len(low)) + 1).astype(int)
    spans = [slice(begin, end) for begin, end in pairwise(edges)]
    return {
        "duration_s": round(total / SAMPLE_RATE, 3),
        "points": len(spans),
        "low": [_unit(low[span].min()) for span in spans],
        "high": [_unit(high[span].max()) for span in spans],
        "rms": [_unit(np.sqrt(square[span].mean())) for span in spans],
        "peak": _unit(max(float(high.max(initial=0.0)), -float(low.min(initial=0.0)))),
        "is_silent": bool(high.max(initial=0.0) < _QUIET and low.min(initial=0.0) > -_QUIET),
    }


class _Growing:
    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.float32]] = []

    def add(self, values: npt.NDArray[np.float32]) -> None:
        self._parts.append(values)

    def all(self) -> npt.NDArray[np.float32]:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)


def _unit(value: Any) -> float:
    return round(float(value) / 32768.0, 4)
