"""The module as a whole: users, events, erasure, the settings of its providers, and hosted by a platform."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("cv2", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")

from PIL import Image

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.bus import Envelope
from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, NotFound, ValidationError
from modules.core.loader import ModuleLoader
from modules.core.storage import FlatFileStorage
from modules.models.errors import ModelMisconfigured, ModelRefused
from modules.multimodal import MadeFile, MediaRefused, MultimodalModule, Transcript, library
from modules.multimodal.errors import MediaDamaged
from tests.hostile_media import HOSTILE
from tests.media_files import image_file, picture, sound_file, video_file


class Heard:
    """A module on a base, and every event that it emits."""

    def __init__(
        self, base: Path, config: Mapping[str, Any] | None = None, neighbours: Mapping[str, Any] | None = None
    ):
        async def resolve(name: str) -> Any | None:
            return (neighbours or {}).get(name)

        self.context = ModuleContext(storage=FlatFileStorage(base), resolve=resolve, module_name="multimodal")
        self.module = MultimodalModule({"workers": 1, **(config or {})})
        self.events: list[tuple[str, Mapping[str, Any]]] = []

        async def hear(envelope: Envelope) -> None:
            json.dumps(envelope.data)  # whoever keeps events keeps them as JSON
            self.events.append((envelope.event, envelope.data))

        self.context.bus.on("*", envelope=True)(hear)

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [data for name, data in self.events if name == event]


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    heard = Heard(tmp_path)
    await heard.module.initialize(heard.context)
    yield heard
    await heard.module.close()


@pytest.fixture
def module(heard: Heard) -> MultimodalModule:
    return heard.module


async def test_an_image_is_processed_told_of_and_remembered(heard: Heard) -> None:
    upload = await heard.module.add_upload(image_file(), user_id="ada", name="p.png")
    operations = ["histogram", {"type": "resize", "width": 60}]
    first = await heard.module.process_image(upload.id, operations, user_id="ada")
    second = await heard.module.process_image(upload.id, operations, user_id="ada")
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.output == second.output
    assert first.measures == second.measures
    assert first.output is not None
    assert (first.output.width, first.output.height, first.output.upload) == (60, 40, None)
    told = heard.of("multimodal.processed")[0]
    assert (told["user_id"], told["path"], told["operations"]) == ("ada", upload.id, ["histogram", "resize"])
    assert told["output"]["data"] is None


@pytest.mark.slow
async def test_what_is_kept_of_a_result_is_an_upload_of_the_user(module: MultimodalModule) -> None:
    upload = await module.add_upload(image_file(), user_id="ada", name="holiday.png")
    made = (await module.process_image(upload.id, [{"type": "thumbnail", "size": 10}], user_id="ada", keep=True)).output
    assert made is not None
    assert made.upload is not None
    assert (made.upload.name, made.upload.origin) == ("holiday.png", "derived")
    assert made.upload.metadata == {"derived_from": upload.id}
    assert await module.read_upload(made.upload.id, user_id="ada") == made.data
    assert made.to_dict()["data"] is None
    unkept = (await module.convert(upload.id, "jpeg", user_id="ada")).to_dict()
    assert b64decode(unkept["data"])[:2] == b"\xff\xd8"


async def test_a_wrong_name_is_found_out_by_the_content(module: MultimodalModule) -> None:
    upload = await module.add_upload(sound_file(), name="photo.jpg")
    assert (upload.kind, upload.format, upload.name) == ("audio", "wav", "photo.jpg")
    with pytest.raises(MediaRefused, match=r"audio \(wav\), not image"):
        await module.process_image(upload.id, ["histogram"])


async def test_errors_are_told_and_raised(heard: Heard) -> None:
    upload = await heard.module.add_upload(HOSTILE["png_cut_off"](), user_id="ada")
    with pytest.raises(MediaDamaged):
        await heard.module.process_image(upload.id, ["histogram"], user_id="ada")
    with pytest.raises(NotFound):
        await heard.module.transcribe_audio("media_" + "0" * 32 + "_00000000", user_id="ada")
    with pytest.raises(ValidationError):
        await heard.module.process_image(upload.id, ["no such"], user_id="ada")
    codes = [(data["operation"], data["code"], data["retryable"]) for data in heard.of("multimodal.error")]
    assert codes == [
        ("process_image", "media_damaged", False),
        ("transcribe_audio", "not_found", False),
        ("process_image", "invalid_request", False),
    ]


@pytest.mark.slow
async def test_events_ask_for_work_and_are_answered_by_events(heard: Heard) -> None:
    image = await heard.module.add_upload(image_file(), user_id="ada")
    video = await heard.module.add_upload(video_file(seconds=0.5), user_id="ada")
    emit = heard.context.emit
    about = {"user_id": "ada"}
    for event, data in (
        ("multimodal.process", {"path": image.id, "operations": ["blur_score"], **about}),
        ("multimodal.convert", {"path": image.id, "target": "webp", "keep": True, **about}),
        ("multimodal.analyze", {"path": video.id, **about}),
        ("multimodal.analyze", {"path": image.id, **about}),
        ("multimodal.generate", {"prompt": "a lighthouse", **about}),
        ("multimodal.process", {"path": image.id, **about}),
    ):
        assert (await emit(event, data)).failed == ()
    processed = heard.of("multimodal.processed")
    assert processed[0]["measures"]["blur_score"] > 0
    kept = processed[1]["upload"]["id"]
    assert (await heard.module.read_upload(kept, user_id="ada"))[8:12] == b"WEBP"
    ready = heard.of("multimodal.analysis.ready")
    assert [one["kind"] for one in ready] == ["video", "image"]
    assert ready[0]["results"]["metadata"]["width"] == 160
    assert len(ready[1]["measures"]["perceptual_hash"]) == 16
    errors = heard.of("multimodal.error")
    assert [(one["operation"], one["code"]) for one in errors] == [
        ("generate_image", "configuration_error"),
        ("process_image", "invalid_request"),
    ]
    assert errors[1]["message"] == "multimodal.process lacks operations"


async def test_uploads_are_listed_in_pages(module: MultimodalModule) -> None:
    ids = [(await module.add_upload(image_file(picture(10 + n)), user_id="ada", name=f"{n}")).id for n in range(5)]
    sound = await module.add_upload(sound_file(), user_id="ada")

    async def page(**window: Any) -> list[str]:
        return [upload.id for upload in await module.list_uploads(user_id="ada", **window)]

    assert await page() == [*ids, sound.id]
    assert await page(limit=2, after=ids[1]) == ids[2:4]
    assert await page(limit=2, before=ids[3]) == ids[1:3]
    assert await page(limit=2, order="desc") == [sound.id, ids[4]]
    assert await page(kind="audio") == [sound.id]
    assert await module.list_uploads(user_id="eve") == []
    for wrong in ({"limit": 0}, {"limit": True}, {"order": "up"}, {"kind": "hologram"}):
        with pytest.raises(ValidationError):
            await page(**wrong)
    with pytest.raises(NotFound):
        await page(after="media_nobody")


async def test_a_user_has_all_of_theirs_and_nothing_of_anothers(module: MultimodalModule) -> None:
    content = image_file()
    mine = await module.add_upload(content, user_id="ada", name="mine", metadata={"album": 7})
    await module.add_upload(content, user_id="eve", name="hers")
    export = await module.export_user("ada")
    assert json.loads(json.dumps(export)) == export
    (one,) = export["uploads"]
    assert (one["id"], one["metadata"], b64decode(one["content"])) == (mine.id, {"album": 7}, content)
    for call in (
        module.get_upload(mine.id, user_id="eve"),
        module.read_upload(mine.id, user_id="eve"),
        module.delete_upload(mine.id, user_id="eve"),
        module.process_image(mine.id, ["histogram"], user_id="eve"),
        module.extract_text(mine.id, user_id="eve"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_contents_beyond_what_an_export_can_hold_are_left_to_be_read_one_by_one(
    module: MultimodalModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_EXPORTED_BYTES", 1000)
    large = await module.add_upload(image_file(picture(40, 40), "BMP"), user_id="ada", name="large")
    small = await module.add_upload(image_file(picture(8, 8)), user_id="ada", name="small")
    exported = {one["id"]: one["content"] for one in (await module.export_user("ada"))["uploads"]}
    assert exported[large.id] is None
    assert b64decode(exported[small.id]) == await module.read_upload(small.id, user_id="ada")


async def test_an_erased_user_leaves_no_byte_behind(module: MultimodalModule, tmp_path: Path) -> None:
    content = image_file(picture(333, 77))
    for user in ("ada", "eve"):
        upload = await module.add_upload(content, user_id=user, name="unmistakable-name")
        await module.process_image(upload.id, ["thumbnail", "exif"], user_id=user, keep=True)
        await module.analyze(upload.id, user_id=user)
    erasure = await module.erase_user("ada")
    assert (erasure.uploads, erasure.results) == (2, 2)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left
    assert [path for path in left if "ada" in str(path) or b'"ada"' in path.read_bytes()] == []
    await module.erase_user("eve")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
async def test_what_was_under_way_when_a_user_was_erased_is_not_kept(module: MultimodalModule, tmp_path: Path) -> None:
    big = Image.frombytes("RGB", (3000, 3000), bytes(range(250)) * 108_000)
    upload = await module.add_upload(image_file(big, "BMP"), user_id="ada")
    turn = {"type": "rotate", "degrees": 5, "expand": False}
    work = asyncio.create_task(module.process_image(upload.id, [turn] * 4, user_id="ada", keep=True))
    await asyncio.sleep(0.3)
    await module.erase_user("ada")
    with pytest.raises(NotFound, match="erased meanwhile"):
        await work
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # Who was erased can begin anew.
    assert await module.add_upload(image_file(), user_id="ada")


@pytest.mark.slow
async def test_deleting_an_upload_forgets_what_was_found_in_it(module: MultimodalModule, tmp_path: Path) -> None:
    upload = await module.add_upload(image_file(), user_id="ada")
    await module.process_image(upload.id, ["histogram"], user_id="ada")
    assert await module.delete_upload(upload.id, user_id="ada") is True
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
async def test_results_are_not_kept_where_the_cache_has_no_room(tmp_path: Path) -> None:
    heard = Heard(tmp_path, {"max_cache_bytes": 0})
    await heard.module.initialize(heard.context)
    try:
        upload = await heard.module.add_upload(image_file())
        for _ in range(2):
            assert not (await heard.module.process_image(upload.id, ["histogram"])).from_cache
        assert not (tmp_path / "multimodal/cache").exists()
    finally:
        await heard.module.close()


async def test_a_local_file_can_be_used_and_taken_in_where_the_operator_allows_it(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "p.png").write_bytes(image_file())
    heard = Heard(tmp_path / "base", {"local_directories": [str(tmp_path / "media")]})
    await heard.module.initialize(heard.context)
    try:
        path = f"{tmp_path}/media/p.png"
        assert (await heard.module.process_image(path, ["histogram"])).width == 120
        assert (await heard.module.add_upload(path)).name == "p.png"
        with pytest.raises(ValidationError, match="local_directories"):
            await heard.module.process_image("/etc/passwd", ["histogram"])
    finally:
        await heard.module.close()


async def test_documents_are_read_by_their_own_module(tmp_path: Path) -> None:
    asked: list[tuple[bytes, str]] = []

    async def extract_text(content: bytes, *, name: str) -> Any:
        asked.append((content, name))
        return SimpleNamespace(text="what the document says")

    pdf = HOSTILE["pdf"]()
    heard = Heard(tmp_path, neighbours={"rag": SimpleNamespace(extract_text=extract_text)})
    await heard.module.initialize(heard.context)
    try:
        upload = await heard.module.add_upload(pdf, name="a.pdf")
        text = await heard.module.extract_text(upload.id)
        assert (text.text, text.provider, asked) == ("what the document says", "rag", [(pdf, "a.pdf")])
        assert await heard.module.convert(upload.id, "text") == text
    finally:
        await heard.module.close()


async def test_without_that_module_a_document_is_a_clear_error_and_plain_text_is_not(module: MultimodalModule) -> None:
    upload = await module.add_upload(HOSTILE["pdf"]())
    with pytest.raises(ConfigurationError, match="rag"):
        await module.extract_text(upload.id)
    plain = await module.add_upload("Grüße".encode())
    assert (await module.extract_text(plain.id)).text == "Grüße"


async def test_a_language_that_nobody_here_knows_is_refused_before_any_work(module: MultimodalModule) -> None:
    upload = await module.add_upload(sound_file())
    with pytest.raises(ModelRefused, match="American English") as caught:
        await module.transcribe_audio(upload.id, "de")
    assert caught.value.param == "language"
    with pytest.raises(ValidationError, match="code"):
        await module.transcribe_audio(upload.id, "de; rm -rf")


@pytest.mark.parametrize("arguments", [("",), ("  ",), ("x", "y" * 501), ("x", None, "big"), ("x", None, "0x0")])
async def test_a_picture_that_nobody_can_mean_is_refused(arguments: tuple[Any, ...], module: MultimodalModule) -> None:
    with pytest.raises(ValidationError):
        await module.generate_image(*arguments)


async def test_where_nobody_makes_images_the_error_says_what_to_set(module: MultimodalModule) -> None:
    with pytest.raises(ConfigurationError, match=r"modules\.multimodal\.image_generation"):
        await module.generate_image("a lighthouse")


@pytest.mark.slow
async def test_conversions_that_make_no_sense_are_refused(module: MultimodalModule) -> None:
    image, sound = await module.add_upload(image_file()), await module.add_upload(sound_file())
    for media_id, target in ((image.id, "mp3"), (sound.id, "png"), (sound.id, "exe")):
        with pytest.raises(ValidationError):
            await module.convert(media_id, target)
    made = await module.convert(sound.id, "flac")
    assert isinstance(made, MadeFile)
    assert made.data[:4] == b"fLaC"


@pytest.mark.parametrize(
    "settings",
    [
        {"ocr": {"provider": "elsewhere"}},
        {"speech": {"provider": "elsewhere", "base_url": "http://127.0.0.1:9/v1"}},
        {"image_generation": {"provider": "painter", "model": "m"}},
        {"ocr": {"provider": "auto"}},
    ],
)
async def test_a_provider_that_cannot_be_reached_by_its_settings_is_found_at_the_start(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    heard = Heard(tmp_path, settings)
    with pytest.raises(ModelMisconfigured):
        await heard.module.initialize(heard.context)


async def test_health_is_whether_something_can_be_kept(module: MultimodalModule, tmp_path: Path) -> None:
    assert await module.health_check()
    assert not await MultimodalModule().health_check()
    (tmp_path / "gone").write_text("a file in the way")
    heard = Heard(tmp_path / "gone")
    await heard.module.initialize(heard.context)
    assert not await heard.module.health_check()
    await heard.module.close()


async def test_the_loader_finds_the_module(tmp_path: Path) -> None:
    loader = ModuleLoader.from_mapping(
        {"modules": {"multimodal": {"enabled": True}}, "storage": {"base_path": str(tmp_path)}}
    )
    module = await loader.load_module("multimodal")
    assert isinstance(module, MultimodalModule)
    await loader.close()


@pytest.mark.slow
async def test_hosted_by_a_platform_it_does_the_same_for_every_user(tmp_path: Path) -> None:
    settings = {"modules": {"multimodal": {"enabled": True, "shards": 2, "workers": 1}}}
    platform = await Platform.start(settings, base=tmp_path, runtime=LocalRuntime(copies=True))
    try:
        ref = platform.ref("multimodal")
        for user in ("ada", "eve", "bob", ""):
            upload = await ref.ask("add_upload", image_file(), user_id=user, name="p.png")
            image = await ref.ask("process_image", upload.id, ["exif", "grayscale"], user_id=user, keep=True)
            assert image.output.upload.user_id == user
            assert await ref.ask("read_upload", upload.id, user_id=user) == image_file()
            assert len(await ref.ask("list_uploads", user_id=user)) == 2
        broken = await ref.ask("add_upload", HOSTILE["jpeg_cut_off"](), user_id="ada")
        with pytest.raises(MediaDamaged, match="cannot be read"):
            await ref.ask("process_image", broken.id, ["exif"], user_id="ada")
        sound = await ref.ask("add_upload", sound_file(), user_id="ada")
        with pytest.raises(ModelRefused):
            await ref.ask("transcribe_audio", sound.id, "de", user_id="ada")
        analysis = await ref.ask("analyze_audio", sound.id, ["metadata"], user_id="ada")
        assert analysis.results["metadata"]["duration_s"] == 1.0
        assert (await ref.ask("erase_user", "ada")).uploads == 4
        assert (await ref.ask("export_user", "eve"))["user_id"] == "eve"
        assert (await platform.health()).is_healthy
    finally:
        await platform.stop()


def test_a_transcript_turns_into_json() -> None:
    transcript = Transcript("hello", "en-us", 1.0, "pocketsphinx")
    assert json.loads(json.dumps(transcript.to_dict()))["text"] == "hello"
