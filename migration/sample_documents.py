"""Uploaded files of every kind, their metadata, and the situational context beside them."""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from migration.sample_text import Prose
from migration.sample_tree import MINUTE, SampleTree, iso, stamp

_MIME_TYPES = {
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".png": "image/png",
}

_ONE_PIXEL_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6300010000000500010d0a2db40000000049454e44ae426082"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file as its user gave it to v2, with the marks that the store keeps of it."""

    original_name: str
    data: bytes
    listed: bool = True
    kept: bool = True
    size_in_characters: bool = False
    analysis: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None


def sanitised(name: str) -> str:
    """v2's rule for user, persona and document names."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"\s+", "_", re.sub(r"[^A-Za-z0-9_.\-\s]", "_", ascii_only)).strip("._")
    return safe or "unnamed"


def uploads(rng: Random, prose: Prose) -> list[Upload]:
    """One upload of every kind: types, names, analysis, a size in characters, and both halves of a crash."""
    article = "# Überblick\n\n" + "\n\n".join(prose.message(rng) for _ in range(4)) + "\n"
    table = "city,arrivals,share\n" + "".join(
        f"{city},{rng.randrange(900)},{rng.random():.3f}\n" for city in ("Málaga", "Gdańsk", "Zürich", "Århus")
    )
    return [
        Upload(
            original_name="Q3 report (final).pdf",
            data=one_page_pdf("Quarterly report on soil moisture"),
            analysis={
                "analysis": {"results": {"pages": 1, "language": "en"}, "timestamp": "2025-08-12T09:30:00.000042"}
            },
            metadata={"topic": "soil", "author": "Lukáš"},
        ),
        Upload(original_name="résumé – Zoë.md", data=article.encode(), size_in_characters=True),
        Upload(original_name="arrivals.csv", data=table.encode(), metadata={"type": "table"}),
        Upload(original_name="pixel.png", data=_ONE_PIXEL_PNG),
        Upload(original_name="Brief an 日本.docx", data=one_paragraph_docx(prose.message(rng))),
        Upload(original_name="notes without entry.txt", data=prose.message(rng).encode(), listed=False),
        Upload(original_name="lost on the way.txt", data=prose.message(rng).encode(), kept=False),
    ]


def write_documents(
    tree: SampleTree, session: str, user_id: str, rng: Random, files: Sequence[Upload], at: int
) -> list[str]:
    """Write ``documents/`` of the session directory *session*; returns the document ids. The caller counts them."""
    entries: dict[str, Any] = {}
    ids = []
    for number, file in enumerate(files):
        uploaded = at + number * MINUTE
        document_id = f"{rng.getrandbits(32):08x}_{sanitised(file.original_name)}"
        ids.append(document_id)
        if file.kept:
            tree.raw(f"{session}/documents/{document_id}", file.data, uploaded)
        if file.listed:
            entries[document_id] = {
                "filename": document_id,
                "original_name": file.original_name,
                "path": f"{session}/documents/{document_id}",
                "mime_type": _mime_type(document_id),
                "size": len(file.data.decode()) if file.size_in_characters else len(file.data),
                "uploaded_at": iso(uploaded),
                "uploaded_by": user_id,
                "analysis": dict(file.analysis or {}),
                "metadata": dict(file.metadata or {}),
            }
    tree.json(f"{session}/documents/metadata.json", entries, at + len(files) * MINUTE)
    return ids


def write_context(
    tree: SampleTree, session: str, rng: Random, prose: Prose, at: int, *, snapshots: int = 0, fraction: bool = True
) -> None:
    """The situational context of a session, and earlier states of it in context_history; the caller counts it."""
    for number in range(snapshots):
        taken = at - (snapshots - number) * MINUTE
        name = f"context_{stamp(taken, fraction=fraction)}.json"
        tree.json(f"{session}/context_history/{name}", _context(rng, prose, taken), taken)
    tree.json(f"{session}/situational_context.json", _context(rng, prose, at), at)


def _context(rng: Random, prose: Prose, at: int) -> dict[str, Any]:
    return {
        "summary": prose.message(rng),
        "key_points": [prose.title(rng), prose.title(rng)],
        "entities": {"topics": [prose.title(rng)], "skill_level": ["intermediate"]},
        "timestamp": iso(at),
        "confidence": round(rng.random(), 2),
        "message_range": None,
        "metadata": {},
    }


def _mime_type(name: str) -> str:
    return _MIME_TYPES.get("." + name.rpartition(".")[2], "application/octet-stream")


def one_page_pdf(text: str) -> bytes:
    """A valid PDF of one page that shows *text* (ASCII, no brackets)."""
    stream = f"BT /F1 14 Tf 72 720 Td ({text}) Tj ET"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    body = "%PDF-1.4\n"
    offsets = []
    for number, text_of_object in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text_of_object}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode("ascii")


def one_paragraph_docx(text: str) -> bytes:
    """A Word document of one paragraph: a stored (not deflated) zip, so that its bytes depend on nothing else."""
    namespace = "http://schemas.openxmlformats.org"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{namespace}/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/'
        'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{namespace}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{namespace}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
        "</Relationships>",
        "word/document.xml": f'<w:document xmlns:w="{namespace}/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        f"<w:t>{escaped}</w:t></w:r></w:p></w:body></w:document>",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), f'<?xml version="1.0" encoding="UTF-8"?>\n{part}'.encode())
    return buffer.getvalue()
