"""What files are by their content, and what may be asked of an image: decisions without I/O."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ConfigurationError, ValidationError
from modules.multimodal.errors import MediaRefused
from modules.multimodal.kinds import FORMATS, HEAD_BYTES, format_of
from modules.multimodal.operations import OPERATIONS, changes_image, checked
from modules.multimodal.settings import MultimodalSettings


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "png"),
        (b"\xff\xd8\xff\xe1" + bytes(20), "jpeg"),
        (b"GIF89a" + bytes(20), "gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"FORM\0\0\0\0AIFFCOMM", "aiff"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "mp4"),
        (b"\0\0\0\x18ftypM4A \0\0\2\0", "m4a"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0", "mov"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", "avif"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "webm"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", "mkv"),
        (b"OggS\0\2" + bytes(22) + b"\x01\x1e\x01vorbis", "ogg"),
        (b"OggS\0\2" + bytes(22) + b"\x01\x2a\x80theora", "ogv"),
        (b"ID3\x04\0\0", "mp3"),
        (b"\xff\xfb\x90\x00" + bytes(20), "mp3"),
        (b"\xff\xf1\x50\x80" + bytes(20), "aac"),
        (b"%PDF-1.7", "pdf"),
        (b"PK\x03\x04" + bytes(26) + b"word/document.xml", "docx"),
        (b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml", "xlsx"),
        (b"PK\x03\x04" + bytes(26) + b"a.txt", "zip"),
        (b"<!DOCTYPE html><html><body><svg></svg>", "html"),
        ("Grüße, <svg> is a word here".encode(), "text"),
        (b"\xef\xbb\xbfwith a mark", "text"),
    ],
)
def test_a_file_is_what_it_begins_as(head: bytes, name: str) -> None:
    assert format_of(head, is_whole=True) is FORMATS[name]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\xef\xbb\xbf <?xml version='1.0'?><svg:svg xmlns:svg='x'>", "SVG"),
        (b"#EXTM3U\nhttp://169.254.169.254/", "playlists"),
        (b"\x00\x01\x02\x03", "no kind"),
        ("<svg/>".encode("utf-16"), "no kind"),
    ],
)
def test_what_is_not_taken_is_named(head: bytes, said: str) -> None:
    with pytest.raises(MediaRefused, match=said):
        format_of(head, is_whole=True)


def test_a_character_cut_by_the_end_of_the_head_is_no_damage() -> None:
    text = ("x" * (HEAD_BYTES - 1) + "ü").encode()
    assert format_of(text[:HEAD_BYTES]).name == "text"
    with pytest.raises(MediaRefused):
        format_of(text[:HEAD_BYTES], is_whole=True)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_known_format_or_a_refusal(head: bytes) -> None:
    with suppress(MediaRefused):
        found = format_of(head)
        assert found.kind == "document" or found.decoder


def test_operations_come_out_with_every_argument_in_place() -> None:
    assert checked(["grayscale", {"type": "resize", "width": 10}, {"type": "blur"}]) == [
        {"type": "grayscale"},
        {"type": "resize", "width": 10, "height": None, "fit": "contain"},
        {"type": "blur", "radius": 2.0},
    ]


def test_a_measurement_changes_nothing_and_a_resize_does() -> None:
    assert not changes_image(checked(["histogram", "exif"]))
    assert changes_image(checked(["histogram", {"type": "thumbnail"}]))


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ("grayscale", "list"),
        ({"type": "grayscale"}, "list"),
        ([], "1 to 32"),
        (["grayscale"] * 33, "1 to 32"),
        (["sharpen"], "no operation 'sharpen'; there are resize"),
        ([{"width": 5}], "with a type"),
        ([5], "with a type"),
        ([{"type": "resize"}], "needs width or height"),
        ([{"type": "resize", "width": 0}], "from 1 to 65535"),
        ([{"type": "resize", "width": 10.5}], "whole number"),
        ([{"type": "resize", "width": True}], "whole number"),
        ([{"type": "resize", "width": "10"}], "whole number"),
        ([{"type": "resize", "width": 10, "fit": "squash"}], "contain, cover, stretch"),
        ([{"type": "crop", "left": 1}], "crop needs width"),
        ([{"type": "rotate", "degrees": float("nan")}], "number from -360 to 360"),
        ([{"type": "rotate", "degrees": 90, "expand": 1}], "true or false"),
        ([{"type": "grayscale", "strength": 1}], "no argument 'strength'"),
        ([{"type": "convert", "format": "exe"}], "png, jpeg"),
        (["exif", "grayscale", "exif"], "once"),
    ],
)
def test_operations_that_cannot_be_done_are_named(operations: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        checked(operations)
    assert caught.value.param == "operations"


def test_every_operation_has_an_implementation() -> None:
    image_job = pytest.importorskip("modules.multimodal.image_job")
    done = set(image_job._CHANGES) | set(image_job._MEASURES) | {"convert", "exif", "ocr"}
    assert done == set(OPERATIONS)


def test_settings_are_read_from_their_sections() -> None:
    read = MultimodalSettings.read(
        {"workers": 3, "max_cache_bytes": 0, "local_directories": ["/srv/media"], "limits": {"max_media_seconds": 5.5}}
    )
    assert (read.workers, read.max_cache_bytes, read.limits.max_media_s) == (3, 0, 5.5)
    assert [str(directory) for directory in read.local_directories] == ["/srv/media"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 0}, "multimodal.workers"),
        ({"workers": 1.5}, "whole number"),
        ({"max_cache_bytes": -1}, "max_cache_bytes"),
        ({"limits": {"max_bytes": "many"}}, "limits.max_bytes"),
        ({"limits": {"timeout_seconds": 0}}, "limits.timeout_seconds"),
        ({"local_directories": "/srv"}, "must be a list"),
        ({"local_directories": ["srv"]}, "absolute"),
        ({"ocr": "rapidocr"}, "must be a section"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MultimodalSettings.read(settings)
