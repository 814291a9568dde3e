"""Video: what a file holds, its key frames, where scenes change, how much moves. Runs in the child alone.

One pass over the frames, each looked at small. A long video is looked at by its key frames alone, and the result says
so, since decoding is what takes the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modules.models.installed import imported

from .image_file import encode
from .sound import facts
from .streams import EXTRA, Streams

_LOOKED_AT_WIDTH = 160
# Mean change of hue, saturation and value, of 255, from frame to frame above which a scene has changed.
# Source: PySceneDetect's ContentDetector and its default.
_CUT = 27.0
_SHORTEST_SCENE_S = 0.4
_MOVED = 15  # change of a pixel's brightness, of 255, that is no noise
_ALL_FRAMES_UP_TO = 9_000
_MOST_LISTED = 1_000
_PICTURE_WIDTH = 640
_PICTURE_BYTES = 4 << 20


@dataclass
class _Seen:
    frames: int = 0
    last_s: float = 0.0
    key_frames: list[float] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    motion: list[tuple[float, float, float]] = field(default_factory=list)
    pictures: list[tuple[float, bytes]] = field(default_factory=list)


def analyse(streams: Streams, types: Sequence[str], *, pictures: int) -> dict[str, Any]:
    """``metadata``, ``key_frames``, ``scenes``, ``motion``, as far as *types* ask; *pictures* of key frames at most."""
    stream = streams.first("video")
    found: dict[str, Any] = {}
    metadata = _metadata(streams, stream)
    expected = _expected_frames(stream, streams.claimed_s)
    looks = {"scenes", "motion"} & set(types)
    sampled = "all_frames" if looks and expected <= _ALL_FRAMES_UP_TO else "key_frames"
    if set(types) - {"metadata"}:
        if sampled == "key_frames":
            stream.codec_context.skip_frame = "NONKEY"
        seen = _look(streams, stream, bool(looks), pictures if "key_frames" in types else 0)
        if "key_frames" in types:
            found["key_frames"] = {
                "count": len(seen.key_frames),
                "times_s": seen.key_frames[:_MOST_LISTED],
                "pictures": [{"time_s": time_s, "data": data} for time_s, data in seen.pictures],
            }
        if "scenes" in types:
            found["scenes"] = _scenes(seen, sampled)
        if "motion" in types:
            found["motion"] = _motion(seen, sampled)
        metadata |= {"decoded_frames": seen.frames, "decoded_s": round(seen.last_s, 3)}
    metadata |= {"damaged_packets": streams.damaged, "is_cut_off": _is_cut_off(streams, metadata)}
    if "metadata" in types:
        found["metadata"] = metadata
    return found


def _metadata(streams: Streams, stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate
    sounds = [one for one in streams.container.streams.audio if one.codec_context is not None]
    return {
        "container": streams.container.format.name,
        "claimed_s": streams.claimed_s,
        "width": context.width,
        "height": context.height,
        "codec": context.name,
        "pixel_format": context.pix_fmt,
        "frames_per_second": round(float(rate), 3) if rate else None,
        "claimed_frames": stream.frames or None,
        "bit_rate": streams.container.bit_rate or None,
        "audio": [facts(one) for one in sounds[:8]],
        "tags": streams.tags(),
    }


def _look(streams: Streams, stream: Any, looks: bool, pictures: int) -> _Seen:
    cv2 = imported("cv2", extra=EXTRA)
    seen = _Seen()
    before: npt.NDArray[np.int16] | None = None
    for frame in streams.frames(stream):
        time_s = round(float(frame.time), 3) if frame.time is not None else seen.last_s
        seen.frames += 1
        seen.last_s = max(seen.last_s, time_s)
        if frame.key_frame:
            seen.key_frames.append(time_s)
            if len(seen.pictures) < pictures:
                seen.pictures.append((time_s, _picture(frame)))
        if not looks:
            continue
        small = _small(cv2, frame)
        if before is not None:
            change = np.abs(small - before)
            # Hue goes round: 179 lies beside 0.
            change[:, :, 0] = np.minimum(change[:, :, 0], 180 - change[:, :, 0])
            score = float(change.mean())
            last_cut_s = seen.cuts[-1][0] if seen.cuts else 0.0
            if score > _CUT and time_s - last_cut_s >= _SHORTEST_SCENE_S:
                seen.cuts.append((time_s, round(score, 1)))
            else:
                value = change[:, :, 2]
                seen.motion.append((time_s, float(value.mean()) / 255, float((value > _MOVED).mean())))
        before = small
    return seen


def _small(cv2: Any, frame: Any) -> npt.NDArray[np.int16]:
    """Hue (0 to 179), saturation and value (0 to 255): int16, (height, width, 3)."""
    height = max(1, round(frame.height * _LOOKED_AT_WIDTH / max(1, frame.width)))
    pixels = frame.reformat(width=_LOOKED_AT_WIDTH, height=min(height, 4 * _LOOKED_AT_WIDTH), format="bgr24")
    hsv: npt.NDArray[np.uint8] = cv2.cvtColor(pixels.to_ndarray(), cv2.COLOR_BGR2HSV)
    return hsv.astype(np.int16)


def _picture(frame: Any) -> bytes:
    image = frame.to_image()
    image.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    return encode(image, encoder="JPEG", quality=80, max_bytes=_PICTURE_BYTES)


def _scenes(seen: _Seen, sampled: str) -> dict[str, Any]:
    starts = [0.0, *(time_s for time_s, _ in seen.cuts)]
    ends = [*starts[1:], seen.last_s]
    spans = [{"start_s": start, "end_s": end} for start, end in zip(starts, ends, strict=True)]
    cuts = [{"time_s": time_s, "change": change} for time_s, change in seen.cuts]
    return {"count": len(spans), "spans": spans[:_MOST_LISTED], "cuts": cuts[:_MOST_LISTED], "sampled": sampled}


def _motion(seen: _Seen, sampled: str) -> dict[str, Any]:
    """``mean`` and ``peak``: change of brightness from frame to frame, 0 to 1; ``moving_share``: of the pixels.
    ``by_second`` lists (second, mean change)."""
    if not seen.motion:
        return {"mean": 0.0, "peak": 0.0, "moving_share": 0.0, "by_second": [], "sampled": sampled}
    times, changes, shares = (np.array(column) for column in zip(*seen.motion, strict=True))
    seconds = times.astype(int)
    by_second = [
        [int(second), round(float(changes[seconds == second].mean()), 4)]
        for second in np.unique(seconds)[:_MOST_LISTED]
    ]
    return {
        "mean": round(float(changes.mean()), 4),
        "peak": round(float(changes.max()), 4),
        "moving_share": round(float(shares.mean()), 4),
        "by_second": by_second,
        "sampled": sampled,
    }


def _expected_frames(stream: Any, claimed_s: float | None) -> float:
    if stream.frames:
        return float(stream.frames)
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) * claimed_s if rate and claimed_s else 0.0


def _is_cut_off(streams: Streams, metadata: dict[str, Any]) -> bool:
    """Whether what could be decoded ends well before what the file claims."""
    claimed, decoded = streams.claimed_s, metadata.get("decoded_s")
    ends_early = claimed is not None and decoded is not None and decoded < 0.8 * claimed and claimed - decoded > 2
    return bool(streams.stopped) or ends_early
