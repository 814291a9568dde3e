"""From bytes to text: what each kind of document gives, and which bytes are taken for which kind."""

from __future__ import annotations

import pytest

from modules.rag import UnreadableDocument, UnsupportedDocument
from modules.rag.extract import extract
from modules.rag.kinds import kind_of
from modules.rag.parsing import Text, located, page_of
from modules.rag.passages import Chunk
from modules.rag.settings import EXTENSIONS
from tests.rag_documents import pdf, word


def text_of(data: bytes, kind: str, limit: int = 100_000) -> str:
    return str(extract(data, kind=kind, max_characters=limit)["text"])


def test_text_and_markdown_stand_as_they_are() -> None:
    source = "# Ü\r\n\n* one\n\ttwo  "
    assert text_of(source.encode(), ".md") == source
    assert text_of(b"\xef\xbb\xbftext", ".txt") == "text"
    assert text_of("wide ü".encode("utf-16"), ".txt") == "wide ü"
    assert text_of(b"caf\xe9 \x80", ".txt") == "café €"
    assert text_of(b"caf\xe9 \x81", ".txt") == "café \x81"
    assert text_of(b"a\0b", ".txt") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_pdf_gives_its_pages_in_order() -> None:
    found = extract(pdf("first page", "second page"), kind=".pdf", max_characters=1000)
    assert found == {"text": "first page\n\nsecond page", "pages": [0, 12]}


def test_a_word_document_gives_paragraphs_tables_and_margins() -> None:
    text = text_of(word("Überschrift", "Second", table=(("a", "b"), ("c", "d")), header="In the margin"), ".docx")
    assert text.index("Überschrift") < text.index("Second") < text.index("a | b") < text.index("In the margin")
    assert "c | d" in text


def test_a_page_of_html_gives_what_is_seen_of_it() -> None:
    page = (
        b"<!doctype html><html><head><title>Birds</title><style>p{}</style><script>evil()</script></head>"
        b"<body><h1>Emus &amp; <b>rheas</b></h1><p>They   run<br>fast</p><ul><li>one<li>two</ul>"
        b"<table><tr><td>a<td>b</table><pre>  kept\n  so</pre><noscript>shown</noscript></body>"
    )
    assert text_of(page, ".html").splitlines() == [
        "Birds", "Emus & rheas", "They run", "fast", "one", "two", "a b", "  kept", "  so", "shown",
    ]  # fmt: skip
    assert text_of(b'<meta charset="koi8-r"><p>\xd4\xc5\xd3\xd4', ".html") == "тест\n" or "тест" in text_of(
        b'<meta charset="koi8-r"><p>\xd4\xc5\xd3\xd4', ".html"
    )


def test_rows_of_a_csv_file_say_what_their_cells_are() -> None:
    assert text_of("city;n\nMálaga;3\n".encode(), ".csv") == "city: Málaga, n: 3\n"
    assert text_of(b'a,b\n"x, y",2\nlonger,than,header\n', ".csv") == "a: x, y, b: 2\nlonger, than, header\n"
    assert text_of(b"1,2\n3,4\n", ".csv") == "1, 2\n3, 4\n"
    assert text_of(b"only,a header\n", ".csv") == "only, a header\n"


def test_json_gives_every_value_under_its_name() -> None:
    source = b'{"a": {"b": [1, {"c": "deep"}]}, "t": null, "t": "twice", "f": 1.50}'
    assert text_of(source, ".json").splitlines() == ["a.b: 1", "a.b.c: deep", "t: null", "t: twice", "f: 1.5"]


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", ".txt", "no text"),
        (pdf(""), ".pdf", "pictures"),
        (b"%PDF-1.4", ".pdf", "no PDF"),
        (b"PK\x03\x04", ".docx", "no Word document"),
        (b"{", ".json", "no JSON"),
        (b"[" * 100_000, ".json", "nested too deep"),
        (b"x" * 101, ".txt", "longer than 100"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, kind: str, said: str) -> None:
    with pytest.raises(UnreadableDocument, match=said):
        text_of(data, kind, 100)


@pytest.mark.parametrize(
    ("name", "content_type", "data", "kind"),
    [
        ("a.PDF", "", b"%PDF-1.4", ".pdf"),
        ("a.htm", "", b"x", ".html"),
        ("a.markdown", "", b"x", ".md"),
        ("", "text/csv; charset=utf-8", b"a,b", ".csv"),
        ("", "", b"%PDF-1.4", ".pdf"),
        ("", "", b"PK\x03\x04", ".docx"),
        ("", "", b"  <!DOCTYPE html>", ".html"),
        ("README", "", b"words", ".txt"),
        ("a.txt", "application/pdf", b"words", ".txt"),
    ],
)
def test_the_kind_is_what_the_name_says_else_the_type_else_the_bytes(
    name: str, content_type: str, data: bytes, kind: str
) -> None:
    assert kind_of(data, name=name, content_type=content_type, allowed=EXTENSIONS) == kind


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"%PDF-1.4", "called .txt and holds PDF"),
        ("a.pdf", b"PK\x03\x04", "called .pdf and holds a zip archive"),
        ("a.docx", b"words", "called .docx and holds something else"),
        ("a.json", b"\x89PNG\r\n\x1a\n", "called .json and holds a PNG image"),
        ("a.exe", b"MZ", "this one is .exe"),
        ("", b"\x7fELF", "this one is a program"),
        ("a.md", b"x", "not among the kinds"),
    ],
)
def test_bytes_that_are_something_else_are_refused(name: str, data: bytes, said: str) -> None:
    with pytest.raises(UnsupportedDocument, match=said):
        kind_of(data, name=name, allowed=[one for one in EXTENSIONS if one != ".md"])


def test_chunks_that_somebody_else_cut_are_found_again_in_the_text() -> None:
    text = Text("one two one two three", (0, 8), "text/plain")
    cut = [Chunk("d", 0, "one two"), Chunk("d", 1, "one two"), Chunk("d", 2, "four"), Chunk("d", 3, "three")]
    spans = [(chunk.start, chunk.page) for chunk in located(cut, text)]
    assert spans == [(0, 1), (8, 2), (None, None), (16, 2)]


def test_a_page_is_the_one_that_begins_last_before_a_place() -> None:
    text = Text("aa bb", (0, 3), "application/pdf")
    assert [page_of(text, at) for at in (0, 2, 3, 4)] == [1, 1, 2, 2]
    assert page_of(Text("aa", (), "text/plain"), 0) is None
