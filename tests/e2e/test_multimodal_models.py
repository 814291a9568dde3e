"""The embedded readers and recognisers, in their child processes, on samples whose text is known."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("rapidocr", reason="needs the extra multimodal")
pytest.importorskip("pocketsphinx", reason="needs the extra audio")

import av

from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.models import speech_pocketsphinx
from modules.models.speech_pocketsphinx import PocketSphinx
from modules.multimodal import MediaTooSlow, MultimodalModule
from tests.media_files import SPEECH, SPOKEN, image_file, picture, sound_file, tone, written_text

ROOT = Path(__file__).resolve().parents[2]
LINES = ["The quick brown fox jumps over the lazy dog.", "Invoice 2024-01-15: total 1,234.56 EUR"]


async def module_with(base: Path, **config: object) -> MultimodalModule:
    module = MultimodalModule({"workers": 1, **config})
    await module.initialize(ModuleContext(storage=FlatFileStorage(base)))
    return module


@pytest.fixture
async def module(tmp_path: Path) -> AsyncIterator[MultimodalModule]:
    module = await module_with(tmp_path)
    yield module
    await module.close()


async def test_printed_text_is_read_with_its_places(module: MultimodalModule) -> None:
    upload = await module.add_upload(written_text(LINES), user_id="ada")
    image = await module.process_image(upload.id, ["ocr"], user_id="ada")
    found = image.measures["ocr"]
    assert found["text"].splitlines() == LINES
    tops = [line["box"][0][1] for line in found["lines"]]
    assert tops == sorted(tops)
    assert min(line["score"] for line in found["lines"]) > 0.9
    text = await module.extract_text(upload.id, user_id="ada")
    assert (text.text, text.provider, text.from_cache) == (found["text"], "rapidocr", True)


async def test_where_nothing_is_written_nothing_is_read(module: MultimodalModule) -> None:
    upload = await module.add_upload(image_file(picture(300, 300)))
    assert (await module.process_image(upload.id, ["ocr"])).measures["ocr"] == {"text": "", "lines": []}


async def test_speech_is_transcribed_with_its_times(module: MultimodalModule) -> None:
    upload = await module.add_upload(SPEECH.read_bytes())
    transcript = await module.transcribe_audio(upload.id, "en")
    assert (transcript.text, transcript.language, transcript.provider) == (SPOKEN, "en-us", "pocketsphinx")
    (said,) = transcript.utterances
    assert 0 <= said.start_s < said.end_s <= transcript.duration_s == pytest.approx(3.71, abs=0.05)
    assert await module.convert(upload.id, "text") == await module.extract_text(upload.id)


async def test_in_silence_nothing_is_said(module: MultimodalModule) -> None:
    upload = await module.add_upload(sound_file(tone(2.0) * 0))
    transcript = await module.transcribe_audio(upload.id)
    assert (transcript.text, transcript.utterances, transcript.duration_s) == ("", (), 2.0)


async def test_a_model_that_keeps_silent_for_too_long_is_ended(tmp_path: Path) -> None:
    module = await module_with(tmp_path, ocr={"provider": "rapidocr", "timeout_seconds": 0.05})
    try:
        upload = await module.add_upload(written_text(LINES))
        with pytest.raises(MediaTooSlow, match=r"0\.05 s"):
            await module.process_image(upload.id, ["ocr"])
        assert (await module.process_image(upload.id, ["blur_score"])).measures
    finally:
        await module.close()


def test_pieces_of_any_length_are_heard_as_one_recording() -> None:
    with av.open(str(SPEECH)) as recording:
        samples = b"".join(frame.to_ndarray().tobytes() for frame in recording.decode(audio=0))
    model = PocketSphinx()
    heard = [
        [one.text for one in model.transcribe(samples[at : at + size] for at in range(0, len(samples), size))]
        for size in (997, 64_000)
    ]
    assert heard == [[SPOKEN], [SPOKEN]]


def test_an_utterance_without_a_pause_is_cut_and_the_rest_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_pocketsphinx, "_LONGEST_UTTERANCE_BYTES", 32_000)  # a second
    with av.open(str(SPEECH)) as recording:
        samples = b"".join(frame.to_ndarray().tobytes() for frame in recording.decode(audio=0))
    heard = list(PocketSphinx().transcribe([samples]))
    assert len(heard) >= 3
    assert [one.start_s for one in heard] == sorted(one.start_s for one in heard)
    assert {"please", "coffee"} <= {word for one in heard for word in one.text.split()}


def test_nothing_is_fetched() -> None:
    """In a network name space of its own, which has no way out, the reader works as everywhere."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and the right to make name spaces")
    code = (
        "import sys, numpy as np; from io import BytesIO; from PIL import Image; "
        "from modules.models.ocr_rapid import RapidOcr; "
        "image = np.asarray(Image.open(BytesIO(sys.stdin.buffer.read())).convert('RGB')); "
        "print([line.text for line in RapidOcr().read(image)])"
    )
    command = [unshare, "-rn", sys.executable, "-c", code]
    done = subprocess.run(command, input=written_text(LINES), capture_output=True, cwd=ROOT, timeout=120)
    assert done.stdout.decode().strip() == repr(LINES), done.stderr.decode()
