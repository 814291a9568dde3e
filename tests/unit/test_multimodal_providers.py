"""Reading, hearing and drawing by a server, against one in this process that speaks enough of the OpenAI API."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="models on a server need the extra local-llm")
pytest.importorskip("PIL", reason="needs the extra multimodal")
pytest.importorskip("av", reason="needs the extra multimodal")
pytest.importorskip("soundfile", reason="needs the extra audio")

import soundfile
from aiohttp import web
from PIL import Image

from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError
from modules.core.storage import FlatFileStorage
from modules.models import installed
from modules.models.errors import ModelAnswerInvalid, ModelMisconfigured, ModelNotInstalled, ModelUnavailable
from modules.models.ocr import TextLine, ocr_settings
from modules.models.ocr_rapid import RapidOcr
from modules.models.openai_compatible import Server
from modules.models.served_media import ServedImages, ServedOcr, ServedSpeech
from modules.models.speech import Utterance, check_embedded_language, speech_settings
from modules.multimodal import MultimodalModule
from modules.multimodal.uploads import Upload
from tests.media_files import image_file, sound_file, tone

KEY = "sk-very-secret"


class FakeServer:
    """Gives *replies* in order, the last one again and again; what was asked is in ``asked``."""

    def __init__(self, *replies: tuple[int, Any]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.address = ""

    async def handle(self, request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            self.asked.append(await request.json())
        else:
            form = await request.post()
            self.asked.append(
                {name: value.file.read() if isinstance(value, web.FileField) else value for name, value in form.items()}
            )
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization"))
        status, body = self.replies[min(len(self.asked), len(self.replies)) - 1]
        return web.json_response(body, status=status)


@asynccontextmanager
async def running(*replies: tuple[int, Any]) -> AsyncIterator[FakeServer]:
    server = FakeServer(*replies)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.address = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def says(text: str | None, reason: str = "stop") -> tuple[int, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def draws(image: bytes, **more: Any) -> tuple[int, Any]:
    return 200, {"created": 1, "data": [{"b64_json": b64encode(image).decode(), **more}]}


def refuses(message: str, status: int = 400) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "invalid_request_error"}}


async def no_pause(seconds: float) -> None:
    return None


def at(server: FakeServer) -> Server:
    return Server(server.address, "m", KEY, 5.0)


async def test_a_model_that_sees_reads_lines() -> None:
    async with running(says("First line\n\n  second line \n")) as server:
        reader = ServedOcr(at(server))
        assert await reader.read(image_file()) == [TextLine("First line"), TextLine("second line")]
        await reader.close()
    _, image = server.asked[0]["messages"][0]["content"]
    assert b64decode(image["image_url"]["url"].partition(",")[2]) == image_file()
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in repr(reader)


@pytest.mark.parametrize(
    "reply", [says("half of", "length"), (200, {"choices": []}), (200, {"choices": [{"message": {"content": 7}}]})]
)
async def test_an_answer_that_is_no_whole_text_is_an_error(reply: tuple[int, Any]) -> None:
    async with running(reply) as server:
        reader = ServedOcr(at(server))
        with pytest.raises(ModelAnswerInvalid):
            await reader.read(image_file())
        await reader.close()


async def test_an_image_without_text_has_no_lines() -> None:
    async with running(says(None)) as server:
        reader = ServedOcr(at(server))
        assert await reader.read(image_file()) == []
        await reader.close()


async def test_a_transcription_model_gives_text_and_times() -> None:
    segments = [{"id": 0, "text": " Guten Tag. ", "start": 0.0, "end": 1.2}]
    async with running((200, {"text": "Guten Tag.", "language": "german", "segments": segments})) as server:
        model = ServedSpeech(at(server))
        heard = await model.transcribe(sound_file(kind="FLAC"), "de")
        await model.close()
    assert (heard.text, heard.language) == ("Guten Tag.", "german")
    assert heard.utterances == (Utterance("Guten Tag.", 0.0, 1.2),)
    assert (server.asked[0]["language"], server.asked[0]["response_format"]) == ("de", "verbose_json")
    assert server.asked[0]["file"][:4] == b"fLaC"


async def test_a_model_that_knows_another_form_alone_is_asked_again_without() -> None:
    async with running(refuses("response_format 'verbose_json' is not compatible"), (200, {"text": "Hi"})) as server:
        model = ServedSpeech(at(server))
        assert (await model.transcribe(b"fLaC", None)).text == "Hi"
        await model.close()
    assert ["response_format" in one for one in server.asked] == [True, False]


async def test_failures_are_tried_again_and_then_told_without_the_key() -> None:
    async with running(refuses(f"down {KEY}", 503)) as server:
        model = ServedSpeech(at(server), sleep=no_pause)
        with pytest.raises(ModelUnavailable) as caught:
            await model.transcribe(b"fLaC", None)
        await model.close()
    assert len(server.asked) == 3
    assert KEY not in str(caught.value)


async def test_a_model_draws_and_the_file_comes_as_it_was_sent() -> None:
    async with running(draws(image_file(), revised_prompt="a tall lighthouse")) as server:
        model = ServedImages(at(server))
        drawn = await model.generate("a lighthouse", size="256x256")
        await model.close()
    assert (drawn.image, drawn.revised_prompt) == (image_file(), "a tall lighthouse")
    assert server.asked[0] == {
        "model": "m",
        "prompt": "a lighthouse",
        "size": "256x256",
        "n": 1,
        "response_format": "b64_json",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"url": "http://169.254.169.254/image.png"}]},
        {"data": []},
        {"data": [{"b64_json": "not base64!"}]},
        {"data": None},
    ],
)
async def test_a_server_that_sends_no_image_is_not_followed_elsewhere(body: dict[str, Any]) -> None:
    async with running((200, {"created": 1, **body})) as server:
        model = ServedImages(at(server))
        with pytest.raises(ModelAnswerInvalid):
            await model.generate("x", size="256x256")
        await model.close()
    assert len(server.asked) == 1


@asynccontextmanager
async def module_at(server: FakeServer, base: Path) -> AsyncIterator[MultimodalModule]:
    provider = {"provider": "served", "model": "m", "base_url": server.address, "api_key": KEY, "timeout_seconds": 5.0}
    module = MultimodalModule({"workers": 1, "ocr": provider, "speech": provider, "image_generation": provider})
    await module.initialize(ModuleContext(storage=FlatFileStorage(base)))
    try:
        yield module
    finally:
        await module.close()


@pytest.mark.slow
async def test_the_module_has_images_read_by_a_server_and_remembers_it(tmp_path: Path) -> None:
    async with running(says("EXIT")) as server, module_at(server, tmp_path) as module:
        upload = await module.add_upload(image_file())
        for _ in range(2):
            image = await module.process_image(upload.id, ["grayscale", "ocr"])
            assert image.measures["ocr"] == {"text": "EXIT", "lines": [{"text": "EXIT", "score": None, "box": None}]}
        assert (await module.extract_text(upload.id)).provider == f"m at {server.address}"
    sent = b64decode(server.asked[0]["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(sent)).mode == "L"  # as it was at its place in the operations
    assert len(server.asked) == 2


@pytest.mark.slow
async def test_the_module_has_sound_heard_by_a_server_in_any_language(tmp_path: Path) -> None:
    async with running((200, {"text": "Guten Tag."})) as server, module_at(server, tmp_path) as module:
        upload = await module.add_upload(sound_file(tone(1.0, rate=44_100, channels=2), rate=44_100))
        transcript = await module.transcribe_audio(upload.id, "de")
        assert (transcript.text, transcript.language, transcript.duration_s) == ("Guten Tag.", "de", 1.0)
    samples, rate = soundfile.read(io.BytesIO(server.asked[0]["file"]), always_2d=True)
    assert (rate, samples.shape) == (16_000, (16_000, 1))


@pytest.mark.slow
async def test_a_generated_image_is_looked_at_and_kept(tmp_path: Path) -> None:
    async with running(draws(image_file())) as server, module_at(server, tmp_path) as module:
        made = await module.generate_image("a lighthouse", style="woodcut", size="128x128", user_id="ada")
        assert server.asked[0]["prompt"] == "a lighthouse\n\nStyle: woodcut"
        assert (made.width, made.height, made.upload.origin) == (120, 80, "generated")
        assert isinstance(await module.get_upload(made.upload.id, user_id="ada"), Upload)
        assert await module.read_upload(made.upload.id, user_id="ada") == image_file()


@pytest.mark.parametrize("sent", [b"<svg onload='x'/>", b"\x89PNG\r\n\x1a\nbroken", sound_file(), b""])
async def test_what_a_server_sends_for_an_image_is_not_trusted(sent: bytes, tmp_path: Path) -> None:
    async with running(draws(sent)) as server, module_at(server, tmp_path) as module:
        with pytest.raises(ModelAnswerInvalid):
            await module.generate_image("a lighthouse")
        assert await module.list_uploads() == []


def test_settings_choose_the_embedded_models_or_a_server() -> None:
    assert ocr_settings({}).provider == "rapidocr"
    assert speech_settings({"provider": "pocketsphinx", "timeout_seconds": 3.0}).timeout_s == 3.0
    served = ocr_settings({"provider": "openai", "model": "m"})
    assert served.server().base_url.startswith("https://api.openai.com")
    for wrong in ({"provider": "x"}, {"provider": "x", "base_url": "http://h/v1"}, {"timeout_seconds": 0}):
        with pytest.raises(ModelMisconfigured):
            ocr_settings(wrong)


@pytest.mark.parametrize("language", [None, "en", "en-US", "en_us", "English"])
def test_the_embedded_recogniser_takes_american_english(language: str | None) -> None:
    check_embedded_language(language)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(ModelNotInstalled, match=r"modchat\[multimodal\]") as caught:
        RapidOcr()
    assert caught.value.extra == "multimodal"
    assert isinstance(caught.value, ConfigurationError)
