"""Documents made for tests, a model that needs no weights, and a look into every byte of a directory."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import docx
import numpy as np

from modules.core.errors import Unavailable
from modules.rag import RagModule


class HashedWords:
    """Texts that share words are near; every word has a direction of its own, the same in every process."""

    def __init__(self, name: str = "hashed-words", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.is_away = False
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Any:
        if self.is_away:
            raise Unavailable("the model is away")
        self.texts += texts
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                seed = int.from_bytes(blake2b(f"{self.name} {word}".encode(), digest_size=4).digest())
                row += np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths == 0, 1, lengths)

    async def close(self) -> None:
        """Nothing is held."""


async def opened(base: Path, model: HashedWords | None = None, **settings: Any) -> RagModule:
    """A module on *base*; a second one on the same base is a restart."""
    given = {"embedding": {"provider": "none"}, **settings}
    module = RagModule(given, base_path=base, model=model)
    await module.initialize()
    return module


def pdf(*pages: str) -> bytes:
    """A PDF with one line of ASCII on each page."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 14 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    return pdf_of(objects)


def pdf_of(objects: Sequence[str]) -> bytes:
    """A PDF of numbered objects, the first its catalog, with a cross-reference table that is right."""
    body, offsets = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode("latin-1")


def word(*paragraphs: str, table: Sequence[Sequence[str]] = (), header: str = "") -> bytes:
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if table:
        cells = document.add_table(rows=len(table), cols=len(table[0]))
        for number, row in enumerate(table):
            for place, text in enumerate(row):
                cells.cell(number, place).text = text
    if header:
        document.sections[0].header.paragraphs[0].text = header
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def files_with(base: Path, needle: str) -> list[str]:
    """Files below *base* whose bytes or name hold *needle*, in either case."""
    wanted = needle.lower().encode()
    return [
        str(path.relative_to(base))
        for path in sorted(base.rglob("*"))
        if wanted in path.name.lower().encode() or (path.is_file() and wanted in path.read_bytes().lower())
    ]


def texts_of(passages: Sequence[Any]) -> list[str]:
    return [passage.text for passage in passages]
