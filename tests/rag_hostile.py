"""Documents that are broken, lie about what they are, or are made to hurt whoever reads them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.rag_documents import pdf, pdf_of, word

_NAMESPACE = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@dataclass(frozen=True)
class Hostile:
    """``readable``: whether some text is expected all the same; None where either is right."""

    name: str
    data: Callable[[], bytes]
    readable: bool | None = False


def zipped(parts: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def word_with(body: str | bytes, **parts: bytes) -> bytes:
    """A Word document whose body's XML is *body*."""
    with zipfile.ZipFile(io.BytesIO(word("x"))) as archive:
        found: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**found, "word/document.xml": body, **parts})


def document_xml(text: str, declaration: str = "") -> str:
    return f'<?xml version="1.0"?>{declaration}<w:document {_NAMESPACE}><w:body>{text}</w:body></w:document>'


def billion_laughs() -> bytes:
    entities = '<!ENTITY l0 "lol">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return word_with(document_xml("<w:p><w:r><w:t>&l9;</w:t></w:r></w:p>", f"<!DOCTYPE d [{entities}]>"))


def external_entity() -> bytes:
    declaration = '<!DOCTYPE d [<!ENTITY passwords SYSTEM "file:///etc/passwd">]>'
    return word_with(document_xml("<w:p><w:r><w:t>before &passwords; after</w:t></w:r></w:p>", declaration))


def zip_bomb() -> bytes:
    return word_with(document_xml(f"<w:p><w:r><w:t>{'A' * (200 << 20)}</w:t></w:r></w:p>"))


def bomb_beside_the_text() -> bytes:
    return word_with(document_xml("<w:p><w:r><w:t>x</w:t></w:r></w:p>"), **{"word/media/a.xml": b"\0" * (300 << 20)})


def zip_that_lies_about_sizes() -> bytes:
    data = bytearray(word_with(document_xml(f"<w:p><w:r><w:t>{'A' * (64 << 20)}</w:t></w:r></w:p>")))
    where = data.rfind(b"PK\x01\x02", 0, data.rfind(b"word/document.xml"))
    data[where + 24 : where + 28] = (10).to_bytes(4, "little")
    return bytes(data)


def pdf_page_loop() -> bytes:
    return pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R 2 0 R] /Count 2000000000 >>",
            "<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 3 0 R] /Count 2000000000 >>",
        ]
    )


def pdf_form_loop() -> bytes:
    """A form that draws itself."""
    form = "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F 5 0 R >> >> /Length 4"
    return pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R"
            " /Resources << /XObject << /F 5 0 R >> >> >>",
            "<< /Length 4 >>\nstream\n/F Do\nendstream",
            f"<< {form} >>\nstream\n/F Do\nendstream",
        ]
    )


def pdf_encrypted() -> bytes:
    whole = pdf("secret").decode("latin-1")
    keys = f"<< /Filter /Standard /V 1 /R 2 /O <{'41' * 32}> /U <{'42' * 32}> /P -44 >>"
    return whole.replace("/Root 1 0 R", f"/Root 1 0 R /Encrypt {keys} /ID [<41> <41>]").encode("latin-1")


def pdf_deflate_bomb() -> bytes:
    packed = zlib.compress(b" " * (600 << 20), 9)
    return pdf_of(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>",
            f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n{packed.decode('latin-1')}\nendstream",
        ]
    )


HOSTILE = (
    Hostile("empty.pdf", lambda: b""),
    Hostile("head-only.pdf", lambda: b"%PDF-1.7\n"),
    Hostile("garbage.pdf", lambda: b"%PDF-1.4\n" + bytes(range(256)) * 400),
    Hostile("cut-short.pdf", lambda: pdf("one", "two")[:300], readable=None),
    Hostile("page-loop.pdf", pdf_page_loop),
    Hostile("form-loop.pdf", pdf_form_loop),
    Hostile("encrypted.pdf", pdf_encrypted),
    Hostile("deflate-bomb.pdf", pdf_deflate_bomb),
    Hostile("is-a-page.pdf", lambda: b"<html><body>not a PDF</body></html>"),
    Hostile("not-a-zip.docx", lambda: b"PK\x03\x04 and nothing"),
    Hostile("zip-without-word.docx", lambda: zipped({"a.txt": "hello"})),
    Hostile("billion-laughs.docx", billion_laughs),
    Hostile("external-entity.docx", external_entity, readable=None),
    Hostile("zip-bomb.docx", zip_bomb),
    Hostile("bomb-beside.docx", bomb_beside_the_text),
    Hostile("lying-sizes.docx", zip_that_lies_about_sizes),
    Hostile("deep.docx", lambda: word_with(document_xml("<w:p>" * 100_000 + "</w:p>" * 100_000))),
    Hostile("broken-xml.docx", lambda: word_with(document_xml("<w:p><w:r>"))),
    Hostile("old-office.docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 4096),
    Hostile("deep.html", lambda: b"<div>" * 300_000 + b"at the bottom", readable=True),
    Hostile("unclosed.html", lambda: b"<script>" + b"x" * 100_000),
    Hostile("attributes.html", lambda: b"<a " + b"b=c " * 500_000 + b">text</a>", readable=None),
    Hostile("many-openings.html", lambda: b"<" * 500_000, readable=None),
    Hostile("comment.html", lambda: b"<!--" * 200_000, readable=None),
    Hostile("declarations.html", lambda: b"<![CDATA[" * 50_000 + b"<p>text", readable=None),
    Hostile("one-cell.csv", lambda: b'"' + b"x" * 25_000_000),
    Hostile("commas.csv", lambda: b"," * 10_000_000 + b"x", readable=None),
    Hostile("huge.csv", lambda: b"a,b\n" + b"1,hello world\n" * 1_500_000),
    Hostile("nested.json", lambda: b"[" * 500_000),
    Hostile("nested-closed.json", lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    Hostile("big-number.json", lambda: b"9" * 1_000_000),
    Hostile("cut-short.json", lambda: b'{"a": ["b", '),
    Hostile("million-keys.json", lambda: b"{" + b",".join(b'"k%d":[]' % n for n in range(300_000)) + b"}"),
    Hostile("nuls.txt", lambda: b"\0" * 100_000),
    Hostile("some-nuls.txt", lambda: b"text with \0 a NUL", readable=True),
    Hostile("binary.txt", lambda: bytes(range(256)) * 100),
    Hostile("not-utf8.txt", lambda: b"caf\xe9 \x81\x8d", readable=True),
    Hostile("surrogates.txt", lambda: b"a \xed\xa0\x80 b", readable=True),
    Hostile("wide.txt", lambda: "\ufeffwide text".encode("utf-16-le"), readable=True),
    Hostile("program.md", lambda: b"\x7fELF" + b"\0" * 1000),
    Hostile("one-word.md", lambda: b"a" * 5_000_000, readable=True),
    Hostile("blank.md", lambda: b" \n\t" * 100_000),
    Hostile("../../etc/escape.txt", lambda: b"a name that climbs", readable=True),
    Hostile("name\0with nul.txt", lambda: b"a name with a NUL", readable=True),
    Hostile("picture.png", lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 100),
)
