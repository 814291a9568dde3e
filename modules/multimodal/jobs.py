"""What a child process can be asked: name -> function. Runs in the child alone.

A job gets the file's descriptor, plain arguments, what stays loaded between jobs, and a way to say that it is alive;
it returns plain values. Arguments were checked by the parent, the file by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from modules.models.ocr_rapid import RapidOcr
from modules.models.speech import Utterance
from modules.models.speech_pocketsphinx import PocketSphinx

from . import image_job, sound, sound_file, video
from .streams import opened

SayAlive = Callable[[], None]
Job = Callable[[int | None, Mapping[str, Any], "Tools", SayAlive], dict[str, Any]]


class Tools:
    """What is loaded once and used by many jobs: models, each when it is first needed."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._ocr: RapidOcr | None = None
        self._speech: PocketSphinx | None = None

    @property
    def ocr(self) -> RapidOcr:
        if self._ocr is None:
            self._ocr = RapidOcr(threads=self._threads)
        return self._ocr

    @property
    def speech(self) -> PocketSphinx:
        if self._speech is None:
            self._speech = PocketSphinx()
        return self._speech


def _image(fd: int | None, arguments: Mapping[str, Any], tools: Tools, say_alive: SayAlive) -> dict[str, Any]:
    with _file(fd) as file:
        return image_job.process(
            file,
            decoder=arguments["decoder"],
            operations=arguments["operations"],
            max_pixels=arguments["max_pixels"],
            max_bytes=arguments["max_bytes"],
            read_text=(lambda image: tools.ocr.read(image)) if arguments["reads_text"] else None,
        )


def _video(fd: int | None, arguments: Mapping[str, Any], tools: Tools, say_alive: SayAlive) -> dict[str, Any]:
    with (
        _file(fd) as file,
        opened(file, arguments["decoder"], arguments["max_pixels"], arguments["max_media_s"]) as streams,
    ):
        return video.analyse(streams, arguments["types"], pictures=arguments["pictures"])


def _sound(fd: int | None, arguments: Mapping[str, Any], tools: Tools, say_alive: SayAlive) -> dict[str, Any]:
    with (
        _file(fd) as file,
        opened(file, arguments["decoder"], arguments["max_pixels"], arguments["max_media_s"]) as streams,
    ):
        return sound.analyse(streams, arguments["types"], points=arguments["points"])


def _speech(fd: int | None, arguments: Mapping[str, Any], tools: Tools, say_alive: SayAlive) -> dict[str, Any]:
    utterances: list[Utterance] = []
    with (
        _file(fd) as file,
        opened(file, arguments["decoder"], arguments["max_pixels"], arguments["max_media_s"]) as streams,
    ):
        heard = sound.Speech(streams)
        for utterance in tools.speech.transcribe(heard):
            utterances.append(utterance)
            say_alive()
    # The recogniser hears silence behind the end.
    ends = [min(one.end_s, heard.seconds) for one in utterances]
    said = [{**one.to_dict(), "end_s": end_s} for one, end_s in zip(utterances, ends, strict=True)]
    return {"utterances": said, "duration_s": heard.seconds}


def _convert(fd: int | None, arguments: Mapping[str, Any], tools: Tools, say_alive: SayAlive) -> dict[str, Any]:
    with (
        _file(fd) as file,
        opened(file, arguments["decoder"], arguments["max_pixels"], arguments["max_media_s"]) as streams,
    ):
        return sound_file.encode(
            streams, arguments["format"], max_bytes=arguments["max_bytes"], for_speech=arguments["for_speech"]
        )


def _file(fd: int | None) -> BinaryIO:
    if fd is None:
        raise ValueError("this job needs a file")
    os.lseek(fd, 0, os.SEEK_SET)
    return os.fdopen(fd, "rb", closefd=False)


JOBS: Mapping[str, Job] = {
    "image": _image,
    "video": _video,
    "sound": _sound,
    "speech": _speech,
    "convert_sound": _convert,
}
