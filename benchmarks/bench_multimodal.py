"""How well text is read and speech heard, and what operations cost: ``python -m benchmarks.bench_multimodal``.

Samples are made here, so their text is known. Printed sentences by Pillow, clean and spoilt; spoken ones by flite and
espeak-ng, as far as they are installed. A word error rate is the least number of words changed, left out and put in,
by the number of words that were there; letters and digits count, case and punctuation do not.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.machine import Machine
from benchmarks.tables import Table, as_markdown
from modules.core.context import ModuleContext
from modules.core.storage import FlatFileStorage
from modules.multimodal import MultimodalModule

SENTENCES = (
    "please open the front door and bring me two cups of coffee",
    "the weather today is warm with a little rain in the evening",
    "i would like to book a table for four people on friday night",
    "she wrote a long letter to her brother about the new house",
    "the train to london leaves at nine in the morning",
    "he walked down the street and waited for the bus to arrive",
    "we have to finish this report before the end of the month",
    "the children played in the garden until it was dark",
    "can you tell me how to get to the nearest hospital",
    "most of the people in the town work in the factory",
    "turn left at the corner and you will see the church",
    "the price of food has gone up again this year",
    "my father bought a small boat when he was young",
    "it takes about twenty minutes to walk to the station",
    "the doctor said that she should stay in bed for a week",
    "they are building a new bridge over the river",
    "i forgot to send the money to the bank yesterday",
    "there is a book on the table next to the window",
    "the police found the car behind the old school",
    "nobody knows what will happen after the election",
)
VOICES = {
    "flite rms": ("flite", "-voice", "rms", "-o", "OUT", "-t", "TEXT"),
    "flite awb": ("flite", "-voice", "awb", "-o", "OUT", "-t", "TEXT"),
    "flite kal16": ("flite", "-voice", "kal16", "-o", "OUT", "-t", "TEXT"),
    "flite slt": ("flite", "-voice", "slt", "-o", "OUT", "-t", "TEXT"),
    "espeak-ng en-us": ("espeak-ng", "-v", "en-us", "-s", "140", "-w", "OUT", "TEXT"),
    "espeak-ng en-us+f2": ("espeak-ng", "-v", "en-us+f2", "-s", "140", "-w", "OUT", "TEXT"),
}


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one kind of samples. ``seconds_each``: the median."""

    kind: str
    words: int
    errors: int
    seconds_each: float

    @property
    def rate(self) -> float:
        return self.errors / self.words


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein's distance, in words."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(said, 1):
        above = row
        row = [place]
        for at, other in enumerate(heard, 1):
            row.append(min(above[at] + 1, row[-1] + 1, above[at - 1] + (word != other)))
    return row[-1]


def printed(lines: Sequence[str], size: int) -> Image.Image:
    image = Image.new("RGB", (50 + max(map(len, lines)) * size * 6 // 10, 40 + len(lines) * (size + 12)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * (size + 12)), line, fill="black", font=font)
    return image


def noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.int16)
    noise = np.random.default_rng(1).normal(0, 40, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def packed(image: Image.Image) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=15)
    return Image.open(written).convert("RGB")


SPOILT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "clean, 28 px": lambda image: image,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "noise": noisy,
    "JPEG of quality 15": packed,
    "turned by 3 degrees": lambda image: image.rotate(3, expand=True, fillcolor="white"),
    "white on dark": lambda image: image.point(lambda value: 255 - value),
    "pale": lambda image: image.point(lambda value: 190 + value // 4),
}


async def reading(module: MultimodalModule, sentences: Sequence[str]) -> list[Quality]:
    samples = {name: [spoil(printed(part, 28)) for part in _parts(sentences)] for name, spoil in SPOILT.items()}
    samples["clean, 14 px"] = [printed(part, 14) for part in _parts(sentences)]
    return [await _read(module, name, images, sentences) for name, images in samples.items()]


async def _read(
    module: MultimodalModule, name: str, images: Sequence[Image.Image], sentences: Sequence[str]
) -> Quality:
    words, errors, times = 0, 0, []
    for image, part in zip(images, _parts(sentences), strict=True):
        written = io.BytesIO()
        image.save(written, "PNG")
        upload = await module.add_upload(written.getvalue())
        started = time.perf_counter()
        found = (await module.process_image(upload.id, ["ocr"])).measures["ocr"]
        times.append(time.perf_counter() - started)
        there = words_of(" ".join(part))
        words += len(there)
        errors += word_errors(there, words_of(found["text"]))
    return Quality(name, words, errors, statistics.median(times))


def _parts(sentences: Sequence[str]) -> list[list[str]]:
    """Lines as they are printed: five to an image, capitalised, with what else is on a page."""
    lines = [f"{sentence.capitalize()}, {number * 37 + 1200}." for number, sentence in enumerate(sentences)]
    return [lines[start : start + 5] for start in range(0, len(lines), 5)]


async def hearing(module: MultimodalModule, sentences: Sequence[str], scratch: Path) -> list[Quality]:
    found = []
    for voice, command in VOICES.items():
        if shutil.which(command[0]) is None:
            continue
        words, errors, times = 0, 0, []
        for sentence in sentences:
            target = scratch / "said.wav"
            subprocess.run(
                [{"OUT": str(target), "TEXT": sentence}.get(part, part) for part in command],
                check=True,
                capture_output=True,
            )
            upload = await module.add_upload(target.read_bytes())
            started = time.perf_counter()
            transcript = await module.transcribe_audio(upload.id)
            times.append((time.perf_counter() - started) / transcript.duration_s)
            words += len(words_of(sentence))
            errors += word_errors(words_of(sentence), words_of(transcript.text))
        found.append(Quality(voice, words, errors, statistics.median(times)))
    return found


async def costs(module: MultimodalModule, repeat: int) -> Table:
    """Milliseconds of operations on a photograph's size, the result not remembered."""
    rows = []
    jobs: dict[str, Callable[[str], Awaitable[Any]]] = {
        "resize to 640": lambda media: module.process_image(media, [{"type": "resize", "width": 640}]),
        "thumbnail": lambda media: module.process_image(media, ["thumbnail"]),
        "perceptual_hash": lambda media: module.process_image(media, ["perceptual_hash"]),
        "blur_score": lambda media: module.process_image(media, ["blur_score"]),
        "histogram": lambda media: module.process_image(media, ["histogram"]),
        "faces": lambda media: module.process_image(media, ["faces"]),
        "to webp": lambda media: module.process_image(media, [{"type": "convert", "format": "webp"}]),
    }
    for name, job in jobs.items():
        times = []
        for _ in range(repeat):
            upload = await module.add_upload(_photograph())
            started = time.perf_counter()
            await job(upload.id)
            times.append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        await job(upload.id)
        again = (time.perf_counter() - started) * 1000
        rows.append((name, statistics.median(times), again))
    return Table(
        "costs", "One operation on a JPEG of 12 megapixels, milliseconds", ("operation", "first", "again"), tuple(rows)
    )


def _photograph() -> bytes:
    """Another one each time, so that nothing is remembered."""
    generator = np.random.default_rng(random.randrange(1 << 30))
    small = generator.integers(0, 256, (150, 200, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(small).resize((4000, 3000), Image.Resampling.BICUBIC).save(written, "JPEG", quality=85)
    return written.getvalue()


def _table(name: str, title: str, unit: str, found: Sequence[Quality]) -> Table:
    rows = [(one.kind, one.words, one.errors, round(one.rate * 100, 1), one.seconds_each) for one in found]
    return Table(name, title, ("samples", "words", "errors", "word error rate %", unit), tuple(rows))


async def measured(sentences: int, repeat: int, workers: int) -> list[Table]:
    with tempfile.TemporaryDirectory() as scratch:
        module = MultimodalModule({"workers": workers})
        await module.initialize(ModuleContext(storage=FlatFileStorage(scratch)))
        try:
            chosen = SENTENCES[:sentences]
            read = await reading(module, chosen)
            heard = await hearing(module, chosen, Path(scratch))
            tables = [_table("ocr", "Printed text, read by rapidocr", "seconds an image", read)]
            if heard:
                tables.append(_table("speech", "Speech, heard by pocketsphinx", "seconds a second", heard))
            return [*tables, await costs(module, repeat)]
        finally:
            await module.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=len(SENTENCES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    tables = asyncio.run(measured(options.sentences, options.repeat, options.workers))
    print(as_markdown([Machine.here(tempfile.gettempdir()).table(), *tables]))


if __name__ == "__main__":
    main()
