"""Opening sound and video with libav: one demuxer, named by the file's first bytes, and no other file. Child alone.

libav's demuxers include playlists that name other files and addresses; with the demuxer given, the list of formats
closed, and every further opening refused, a file is read as what it begins as or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from modules.models.installed import imported

from .errors import MediaDamaged, MediaRefused, MediaTooLarge

EXTRA = "multimodal"
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,ogg,wav,flac,mp3,aac,aiff,asf"
_DAMAGED_IN_A_ROW = 200
# Where cameras put positions; the rest of the tags is given out.
_PLACES = ("location", "gps", "xyz")
_MOST_TAGS, _LONGEST_TAG = 64, 500


@dataclass
class Streams:
    """An open file. ``damaged`` counts packets that could not be decoded; ``stopped``: why reading ended early."""

    container: Any
    max_pixels: int
    max_media_s: float
    damaged: int = 0
    stopped: str = ""

    @property
    def claimed_s(self) -> float | None:
        """The length that the file claims."""
        duration = self.container.duration
        return None if duration is None or duration < 0 else round(duration / 1_000_000, 3)

    def first(self, kind: str) -> Any:
        """The first stream of *kind* (``audio``, ``video``), ready to decode. Raises MediaRefused, MediaTooLarge."""
        found = getattr(self.container.streams, kind)
        # A cover in a sound file is a stream of one picture.
        found = [one for one in found if "attached_pic" not in str(one.disposition).lower()]
        if not found:
            raise MediaRefused(f"the file has no {kind}")
        stream = found[0]
        context = stream.codec_context
        if context is None:
            raise MediaRefused(f"the {kind} is of a codec that is not known here")
        if kind == "video":
            if context.width * context.height > self.max_pixels:
                raise MediaTooLarge(f"the video is {context.width} x {context.height}, over {self.max_pixels} pixels")
            # libav holds to it too when the size changes in the middle.
            context.options = {"max_pixels": str(self.max_pixels)}
        context.thread_count = 1
        return stream

    def frames(self, stream: Any) -> Iterator[Any]:
        """Frames in order. What cannot be decoded is counted and left out; a file that breaks off ends with
        ``stopped`` set. Raises MediaTooLarge where it is longer than allowed, MediaDamaged where there is no frame."""
        errors = imported("av.error", extra=EXTRA)
        given = in_a_row = 0
        packets = self.container.demux(stream)
        while True:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                decoded = packet.decode()
                in_a_row = 0
            except errors.EOFError:
                break
            except errors.ArgumentError as error:
                raise MediaDamaged(f"the file cannot be decoded: {_why(error)}") from error
            except errors.FFmpegError as error:
                self.damaged += 1
                in_a_row += 1
                if in_a_row > _DAMAGED_IN_A_ROW or packet is None:
                    self.stopped = _why(error)
                    break
                continue
            for frame in decoded:
                if frame.time is not None:
                    self.check_length(frame.time)
                given += 1
                yield frame
        if not given:
            raise MediaDamaged("nothing in the file can be decoded")

    def check_length(self, seconds: float) -> None:
        if seconds > self.max_media_s:
            raise MediaTooLarge(f"it is longer than {self.max_media_s:g} s")

    def tags(self) -> dict[str, str]:
        """What the file says of itself, without where it was recorded."""
        found = {}
        for name, value in list(self.container.metadata.items())[:_MOST_TAGS]:
            if not any(place in name.lower() for place in _PLACES):
                found[name[:_LONGEST_TAG]] = str(value)[:_LONGEST_TAG]
        return found


@contextmanager
def opened(file: BinaryIO, decoder: str, max_pixels: int, max_media_s: float) -> Iterator[Streams]:
    """Raises MediaDamaged where it is no such file, MediaTooLarge where it claims to be longer than allowed."""
    av = imported("av", extra=EXTRA)
    errors = imported("av.error", extra=EXTRA)
    imported("av.logging", extra=EXTRA).set_level(None)
    try:
        container = av.open(
            file,
            mode="r",
            format=decoder,
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
            metadata_errors="replace",
            io_open=_refuse,
        )
    except (errors.FFmpegError, ValueError, OSError, AttributeError) as error:
        raise MediaDamaged(f"the file cannot be opened as {decoder}: {_why(error)}") from error
    with container:
        streams = Streams(container, max_pixels, max_media_s)
        if streams.claimed_s is not None and streams.claimed_s > max_media_s:
            raise MediaTooLarge(f"it is {streams.claimed_s:g} s long, more than {max_media_s:g} s")
        yield streams


def _why(error: BaseException) -> str:
    """libav's words, without its numbers and our call."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _refuse(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError(f"the file names another one: {url[:200]!r}")
