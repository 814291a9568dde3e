"""Files that are broken, lie, or are made to harm: each must end in a clear error or a sound result."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from tests.media_files import image_file, picture, sound_file, video_file

_PNG = b"\x89PNG\r\n\x1a\n"
_SCRIPT = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes, *more: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", header) + b"".join(more) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _png_of_zeros(width: int, height: int) -> bytes:
    """A true image of that size, in some kilobytes."""
    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.flush()
    return _png(width, height, rows, depth=1)


def _gif(width: int, height: int, frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + frame * frames + b"\x3b"


def _tiff(*entries: tuple[int, int, int, int], next_ifd: int = 0) -> bytes:
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", next_ifd) + bytes(64)


def _tiff_sized(width: int, height: int, *, strips: int = 1, next_ifd: int = 0) -> bytes:
    return _tiff(
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, strips, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, strips, 0xFFFFFFF0), next_ifd=next_ifd,
    )  # fmt: skip


def _wav(
    *, channels: int = 1, rate: int = 16_000, bits: int = 16, claimed: int = 3200, data: bytes = bytes(3200)
) -> bytes:
    block = max(1, channels * bits // 8) & 0xFFFF
    shape = struct.pack("<HHIIHH", 1, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + shape + (
        b"data" + struct.pack("<I", claimed) + data
    )  # fmt: skip


def _atom(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(data) if size is None else size) + kind + data


def _nested_atoms(depth: int) -> bytes:
    inside = b""
    for _ in range(depth):
        inside = _atom(b"moov", inside)
    return _atom(b"ftyp", b"isom\0\0\2\0isomiso2") + inside


def _scrambled_middle(file: bytes) -> bytes:
    third = len(file) // 3
    noise = np.random.default_rng(7).integers(0, 256, third, dtype=np.uint8).tobytes()
    return file[:third] + noise + file[2 * third :]


def _zip_bomb() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(50_000_000))
    return written.getvalue()


def _exif_that_loops() -> bytes:
    # The directory of EXIF names itself as its own sub-directory.
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    exif = b"Exif\0\0" + tiff
    plain = image_file(kind="JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


def _profile_bomb() -> bytes:
    profile = b"ICC Profile\0\0" + zlib.compress(bytes(80_000_000), 9)
    return _png(8, 8, zlib.compress(bytes(72)), _chunk(b"iCCP", profile))


def _apng_of_frames(claimed: int) -> bytes:
    control = _chunk(b"acTL", struct.pack(">II", claimed, 0))
    return _png(8, 8, zlib.compress(bytes(72)), control)


def _mp4_that_names_files() -> bytes:
    mp4 = video_file(seconds=0.2)
    # The data reference "self contained" becomes the path of a file of the system.
    return mp4.replace(b"url \0\0\0\1", b"url \0\0\0\0", 1).replace(b"isom", b"qt  ", 1)


HOSTILE: Mapping[str, Callable[[], bytes]] = {
    # No kind, or another than it looks
    "nothing": lambda: b"",
    "one_byte": lambda: b"\x89",
    "noise": lambda: np.random.default_rng(1).integers(128, 256, 9000, dtype=np.uint8).tobytes(),
    "program": lambda: b"\x7fELF\x02\x01\x01" + bytes(500),
    "gzip": lambda: gzip.compress(bytes(10_000_000)),
    "svg": lambda: _SCRIPT,
    "svg_behind_a_prolog": lambda: b'<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE svg PUBLIC "x" "y">' + _SCRIPT,
    "html": lambda: b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\nshowpage",
    "portable_pixmap_of_gigabytes": lambda: b"P6 99999 99999 255\n" + bytes(range(10, 120)),
    "pdf": lambda: b"%PDF-1.7\n1 0 obj<</JS(app.alert(1))>>endobj",
    "playlist_that_names_files": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat_script": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "zip_bomb_as_office_file": _zip_bomb,
    # PNG
    "png_cut_off": lambda: image_file()[: len(image_file()) // 2],
    "png_header_alone": lambda: image_file()[:33],
    "png_scrambled": lambda: _scrambled_middle(image_file()),
    "png_of_four_gigapixels": lambda: _png(65_535, 65_535, zlib.compress(bytes(100))),
    "png_of_no_width": lambda: _png(0, 10, zlib.compress(b"")),
    "png_bomb": lambda: _png_of_zeros(30_000, 30_000),
    "png_with_less_rows": lambda: _png(4000, 4000, zlib.compress(bytes(40))),
    "png_text_bomb": lambda: _png(
        8, 8, zlib.compress(bytes(72)), *[_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))] * 8
    ),
    "png_profile_bomb": _profile_bomb,
    "apng_of_four_billion_frames": lambda: _apng_of_frames(0xFFFFFFFF),
    # JPEG, GIF, WebP, BMP, TIFF, AVIF
    "jpeg_cut_off": lambda: image_file(kind="JPEG")[:300],
    "jpeg_start_and_zeros": lambda: b"\xff\xd8\xff\xe0" + bytes(5000),
    "jpeg_of_four_gigapixels": lambda: image_file(kind="JPEG").replace(
        struct.pack(">HH", 80, 120), struct.pack(">HH", 65_500, 65_500)
    ),
    "jpeg_exif_that_loops": _exif_that_loops,
    "gif_of_four_gigapixels": lambda: _gif(65_535, 65_535, 1),
    "gif_of_many_frames": lambda: _gif(4000, 4000, 20_000),
    "gif_cut_off": lambda: image_file(kind="GIF")[:200],
    "webp_that_lies": lambda: b"RIFF" + struct.pack("<I", 4_000_000_000) + b"WEBPVP8X" + bytes(3) + b"\xff" * 40,
    "bmp_of_negative_size": lambda: b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, -5, 1 << 30, 1, 24, 0) + bytes(40),
    "bmp_of_gigapixels": lambda: b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(40),
    "tiff_that_loops": lambda: _tiff_sized(16, 16, next_ifd=8),
    "tiff_of_gigapixels": lambda: _tiff_sized(60_000, 60_000),
    "tiff_of_many_strips": lambda: _tiff_sized(16, 16, strips=0x0FFFFFFF),
    "avif_of_zeros": lambda: _atom(b"ftyp", b"avif\0\0\0\0avifmif1") + bytes(4000),
    # Sound
    "wav_header_alone": lambda: _wav(data=b""),
    "wav_that_claims_four_gigabytes": lambda: _wav(claimed=0xFFFFFFF0),
    "wav_of_many_channels": lambda: _wav(channels=65_535),
    "wav_of_no_rate": lambda: _wav(rate=0),
    "wav_of_huge_rate": lambda: _wav(rate=0xFFFFFFFF),
    "wav_of_no_bits": lambda: _wav(bits=0),
    "flac_cut_off": lambda: sound_file(kind="FLAC")[:100],
    "flac_scrambled": lambda: _scrambled_middle(sound_file(kind="FLAC")),
    "mp3_of_noise": lambda: b"\xff\xfb\x90\x00" + np.random.default_rng(3).bytes(20_000),
    "ogg_scrambled": lambda: _scrambled_middle(sound_file(kind="OGG")),
    "hours_of_silence": lambda: sound_file(np.zeros((16_000 * 60, 1), np.int16), rate=16_000, kind="FLAC"),
    # Video
    "mp4_without_index": lambda: video_file()[: len(video_file()) // 2],
    "mp4_scrambled": lambda: _scrambled_middle(video_file()),
    "mp4_atom_of_exabytes": lambda: _atom(b"ftyp", b"isom") + _atom(b"mdat", struct.pack(">Q", 1 << 63), size=1),
    "mp4_of_nested_atoms": lambda: _nested_atoms(2000),
    "mp4_that_names_files": _mp4_that_names_files,
    "mkv_of_zeros": lambda: b"\x1aE\xdf\xa3\x01" + b"\xff" * 7 + bytes(3000),
    "webm_cut_off": lambda: video_file(container="webm", codec="libvpx")[:1500],
    "avi_scrambled": lambda: _scrambled_middle(video_file(container="avi")),
    "flv_of_zeros": lambda: b"FLV\x01\x05\0\0\0\x09" + bytes(3000),
    "mpegts_of_sync_bytes": lambda: (b"\x47" + bytes(187)) * 50,
}


def noisy_image(side: int) -> bytes:
    """Incompressible, for what takes long."""
    pixels = np.random.default_rng(5).integers(0, 256, (side, side), dtype=np.uint8)
    return image_file(Image.fromarray(pixels), "BMP")


def sixteen_bit_image(side: int) -> bytes:
    """Small as a file, eight bytes a pixel while it is brought to eight bits."""
    return image_file(Image.fromarray(np.zeros((side, side), np.uint16)))


def rotated_with_place() -> bytes:
    """A JPEG as a telephone writes it: turned by its EXIF, with a position, a serial number and a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F], exif[0x0110] = "Maker", "Model 5"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (52.0, 31.0, 12.0), "E", (13.0, 24.0, 36.0)
    own = exif.get_ifd(0x8769)
    own[0x9003], own[0x829A], own[0xA431] = "2024:01:15 10:00:00", 0.008, "SERIAL-4711"
    return image_file(picture(), "JPEG", exif=exif, comment=b"SECRET-COMMENT")
