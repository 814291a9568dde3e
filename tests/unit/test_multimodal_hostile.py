"""Files that are broken or mean harm: each ends soon, in a clear error or a sound result, and the module goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("cv2", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")

from modules.core.context import ModuleContext
from modules.core.errors import PlatformError, ValidationError
from modules.core.storage import FlatFileStorage
from modules.multimodal import MediaRefused, MediaTooLarge, MediaTooSlow, MultimodalModule
from tests.hostile_media import HOSTILE, noisy_image, sixteen_bit_image
from tests.media_files import image_file, picture, video_file

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = {"timeout_seconds": 20.0, "max_memory_mb": 768, "max_bytes": 40_000_000, "max_media_seconds": 30.0}
SOON_S = 15.0


async def module_with(base: Path, **limits: float) -> MultimodalModule:
    module = MultimodalModule({"workers": 1, "limits": LIMITS | limits})
    await module.initialize(ModuleContext(storage=FlatFileStorage(base)))
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


# One module for all: that it goes on after each file is a part of what is tested.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module(base: Path) -> AsyncIterator[MultimodalModule]:
    module = await module_with(base)
    yield module
    await module.close()


async def everything(module: MultimodalModule, content: bytes) -> list[PlatformError]:
    """What goes wrong when *content* is uploaded and every operation is asked for."""
    try:
        media_id = (await module.add_upload(content, name="holiday.png")).id
    except PlatformError as error:
        return [error]
    errors = []
    for call in (
        module.process_image(media_id, ["thumbnail", "histogram", "blur_score", "perceptual_hash", "exif"]),
        module.analyze_video(media_id, ["metadata", "key_frames", "scenes", "motion"]),
        module.analyze_audio(media_id, ["metadata", "waveform"]),
        module.convert(media_id, "flac"),
    ):
        try:
            await call
        except PlatformError as error:
            errors.append(error)
    return errors


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_soon_in_a_clear_error_or_a_sound_result(name: str, module: MultimodalModule) -> None:
    started = time.monotonic()
    errors = await everything(module, HOSTILE[name]())
    assert time.monotonic() - started < SOON_S
    # No file is three things, and what is wrong with one is always said to be the file's own fault.
    assert errors
    assert [type(error) for error in errors if not isinstance(error, ValidationError)] == []
    assert all(error.message for error in errors)
    sound = await module.add_upload(image_file(picture(8, 8)))
    assert (await module.process_image(sound.id, ["histogram"])).width == 8


async def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 50


async def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(module: MultimodalModule) -> None:
    upload = await module.add_upload(HOSTILE["png_bomb"]())
    started = time.monotonic()
    with pytest.raises(MediaTooLarge, match="30000 x 30000"):
        await module.process_image(upload.id, ["histogram"])
    assert time.monotonic() - started < 5


async def test_a_result_of_too_many_pixels_is_refused(module: MultimodalModule) -> None:
    upload = await module.add_upload(image_file())
    with pytest.raises(MediaTooLarge, match="60000 x 60000"):
        await module.process_image(upload.id, [{"type": "resize", "width": 60_000, "height": 60_000, "fit": "stretch"}])


@pytest.mark.slow
async def test_what_takes_too_much_memory_is_refused_and_the_next_file_is_not(base: Path) -> None:
    module = await module_with(base, max_memory_mb=512)
    try:
        upload = await module.add_upload(sixteen_bit_image(7000))
        with pytest.raises(MediaTooLarge, match="memory"):
            await module.process_image(upload.id, ["thumbnail"])
        sound = await module.add_upload(image_file())
        assert (await module.process_image(sound.id, ["thumbnail"])).output
    finally:
        await module.close()


@pytest.mark.slow
async def test_what_takes_too_long_is_ended_and_the_next_file_is_not(base: Path) -> None:
    module = await module_with(base, timeout_seconds=2.0)
    try:
        sound = await module.add_upload(image_file())
        assert await module.process_image(sound.id, ["blur_score"])
        slow = await module.add_upload(noisy_image(5000))
        turns = [{"type": "rotate", "degrees": 7.0 + n, "expand": False} for n in range(30)]
        started = time.monotonic()
        with pytest.raises(MediaTooSlow, match="2 s"):
            await module.process_image(slow.id, turns)
        assert time.monotonic() - started < 4
        assert await module.process_image(sound.id, ["perceptual_hash"])
    finally:
        await module.close()


async def test_sound_is_as_long_as_its_samples_whatever_its_header_says(module: MultimodalModule) -> None:
    upload = await module.add_upload(HOSTILE["wav_that_claims_four_gigabytes"]())
    analysis = await module.analyze_audio(upload.id, ["metadata"])
    assert analysis.results["metadata"]["duration_s"] == pytest.approx(0.1, abs=0.01)
    longer = await module.add_upload(HOSTILE["hours_of_silence"]())
    with pytest.raises(MediaTooLarge, match="30 s"):
        await module.analyze_audio(longer.id)


async def test_a_video_of_too_many_pixels_is_refused(base: Path) -> None:
    module = await module_with(base, max_pixels=10_000)
    try:
        upload = await module.add_upload(video_file())
        with pytest.raises(MediaTooLarge, match="160 x 120"):
            await module.analyze_video(upload.id, ["scenes"])
    finally:
        await module.close()


async def test_a_file_of_too_many_bytes_is_refused(base: Path) -> None:
    module = await module_with(base, max_bytes=1000)
    try:
        with pytest.raises(MediaTooLarge, match="1000 at most"):
            await module.add_upload(image_file(picture(400, 400)))
    finally:
        await module.close()


@pytest.mark.slow
async def test_svg_is_refused_whatever_it_is_called(module: MultimodalModule) -> None:
    for name in ("svg", "svg_behind_a_prolog"):
        with pytest.raises(MediaRefused, match="SVG"):
            await module.add_upload(HOSTILE[name](), name="photo.jpg")
