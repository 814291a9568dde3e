"""From the bytes of a document to its text. Runs in a confined process: what it is given may be hostile.

Text and Markdown are taken as they stand, so that a span of the text is a span of the file. PDF is read by PDFium
(`pypdfium2`), the engine of a browser that meets hostile files all day; Word by `python-docx` and `lxml`, with entities
left unresolved. HTML, CSV and JSON need no more than the standard library, which has no limit on nesting for the first
and reports it for the last.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from html.parser import HTMLParser
from importlib import import_module
from typing import Any

from .errors import UnreadableDocument, imported

_LIBRARIES = ("pypdfium2", "docx", "lxml.etree")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def preload() -> None:
    """Import what parsing needs, once, so that every document after it is spared that."""
    for library in _LIBRARIES:
        with suppress(ImportError):  # the document that needs it says which one is missing
            import_module(library)


def extract(data: bytes, *, kind: str, max_characters: int) -> dict[str, Any]:
    """``{"text": str, "pages": [start of each page in the text]}``; no pages where the kind has none.

    Raises UnreadableDocument for what is broken, encrypted, without text or too long, RagNotInstalled.
    """
    gathered = _Gathered(max_characters)
    _READERS[kind](data, gathered)
    text = gathered.text()
    if not text.strip():
        raise UnreadableDocument("it holds no text" + _WITHOUT_TEXT.get(kind, ""), param="source")
    return {"text": text, "pages": gathered.pages}


class _Gathered:
    """Pieces of text, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.pages: list[int] = []
        self._pieces: list[str] = []
        self.length = 0
        self.limit = limit

    def add(self, piece: str) -> None:
        self.length += len(piece)
        if self.length > self.limit:
            raise UnreadableDocument(f"its text is longer than {self.limit} characters", param="source")
        self._pieces.append(piece)

    def begin_page(self) -> None:
        if self.pages:
            self.add("\n\n")
        self.pages.append(self.length)

    def text(self) -> str:
        # One character for one: no span moves.
        whole = "".join(self._pieces).replace("\0", "\N{REPLACEMENT CHARACTER}")
        return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", whole)


def decoded(data: bytes, declared: str | None = None) -> str:
    """Text of bytes: by their byte order mark, else UTF-8, else as declared, else Windows-1252."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    for attempt in ("utf-8", declared, "cp1252"):
        if attempt is not None:
            with suppress(UnicodeDecodeError, LookupError):
                return data.decode(attempt)
    return data.decode("latin-1")


def _text(data: bytes, gathered: _Gathered) -> None:
    gathered.add(decoded(data))


# -- PDF -----------------------------------------------------------------------------------------------------


def _pdf(data: bytes, gathered: _Gathered) -> None:
    pdfium = imported("pypdfium2")
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise UnreadableDocument(_pdf_problem(str(error)), param="source") from error
    for number in range(len(document)):
        gathered.begin_page()
        try:
            page = document[number]
            text_page = page.get_textpage()
        except pdfium.PdfiumError:
            continue  # a page that is broken has no text; the others have theirs
        gathered.add(_pdf_text(text_page.get_text_range()))
        text_page.close()
        page.close()


def _pdf_problem(said: str) -> str:
    return "it is encrypted" if "password" in said.lower() else f"it is no PDF that can be read: {said}"


def _pdf_text(raw: str) -> str:
    # U+FFFE is PDFium's sign for a hyphen that parts a word at the end of a line.
    return re.sub("\ufffe\\s*", "", raw.replace("\r\n", "\n").replace("\r", "\n"))


# -- Word ----------------------------------------------------------------------------------------------------

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # says again what Choice said
_WORD_TYPE = re.compile(
    r"application/vnd\.(openxmlformats-officedocument\.wordprocessingml|ms-word)\..*"
    r"(main|header|footer|footnotes|endnotes|comments)\+xml"
)
_WORD_SIGNS = {f"{_WORD}tab": "\t", f"{_WORD}br": "\n", f"{_WORD}cr": "\n", f"{_WORD}noBreakHyphen": "-"}
_WORD_ENDS = {f"{_WORD}p": "\n", f"{_WORD}tc": "| ", f"{_WORD}tr": "\n"}
_UNPACKED_PER_CHARACTER = 8
_UNPACKED_BESIDES = 8 << 20  # styles, themes, numbering


def _docx(data: bytes, gathered: _Gathered) -> None:
    docx, etree = imported("docx"), imported("lxml.etree")
    parse_xml = imported("docx.oxml.parser").parse_xml
    try:
        _check_unpacked_size(data, gathered)
        document = docx.Document(io.BytesIO(data))
        parts = [part for part in document.part.package.iter_parts() if _WORD_TYPE.fullmatch(part.content_type)]
        # What stands in the body comes before notes and margins.
        for part in sorted(parts, key=lambda part: part is not document.part):
            for piece in _word_pieces(part.element if hasattr(part, "element") else parse_xml(part.blob), etree):
                gathered.add(piece)
    except UnreadableDocument:
        raise
    except (KeyError, ValueError, OSError, AttributeError, zipfile.BadZipFile, etree.LxmlError) as error:
        raise UnreadableDocument(f"it is no Word document that can be read: {error}", param="source") from error
    except docx.opc.exceptions.OpcError as error:
        raise UnreadableDocument(f"it is no Word document that can be read: {error}", param="source") from error


def _check_unpacked_size(data: bytes, gathered: _Gathered) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(entry.flag_bits & 1 for entry in archive.infolist()):
            raise UnreadableDocument("it is encrypted", param="source")
        size = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith((".xml", ".rels")))
    if size > _UNPACKED_BESIDES + _UNPACKED_PER_CHARACTER * gathered.limit:
        raise UnreadableDocument(f"it unpacks to {size} bytes of XML, more than any text needs", param="source")


def _word_pieces(root: Any, etree: Any) -> Iterator[str]:
    skipped, cells = 0, 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag, starts = element.tag, event == "start"
        if tag == _FALLBACK:
            skipped += 1 if starts else -1
        elif skipped or not isinstance(tag, str):
            continue
        elif starts:
            if tag == f"{_WORD}t" and element.text:
                yield element.text
            elif tag in _WORD_SIGNS:
                yield _WORD_SIGNS[tag]
            elif tag == f"{_WORD}tc":
                cells += 1
        else:
            if tag == f"{_WORD}tc":
                cells -= 1
            if tag in _WORD_ENDS:
                yield " " if cells and tag == f"{_WORD}p" else _WORD_ENDS[tag]


# -- HTML ----------------------------------------------------------------------------------------------------

_UNSEEN = frozenset({"script", "style", "template", "iframe", "object", "noembed", "noframes"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header"}
    | {"hr", "html", "li", "main", "nav", "ol", "option", "p", "pre", "section", "select", "summary", "table"}
    | {"tbody", "tfoot", "thead", "title", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})


class _Page(HTMLParser):
    """Gives the text of a page, a line for each block."""

    def __init__(self, gathered: _Gathered) -> None:
        super().__init__(convert_charrefs=True)
        self._gathered = gathered
        self._hidden = 0
        self._at_start = True
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _UNSEEN
        self._preformatted += tag == "pre"
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN and self._hidden:
            self._hidden -= 1
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        text = data if self._preformatted else re.sub(r"\s+", " ", data)
        if self._at_start and not self._preformatted:
            text = text.lstrip()
        if text:
            self._gathered.add(text)
            self._at_start = False

    def _part(self, tag: str) -> None:
        if tag in _BLOCKS and not self._at_start:
            self._gathered.add("\n")
            self._at_start = True
        elif tag in _CELLS and not self._at_start:
            self._gathered.add(" ")


def _html(data: bytes, gathered: _Gathered) -> None:
    declared = _CHARSET.search(data[:4096])
    page = _Page(gathered)
    try:
        page.feed(decoded(data, declared[1].decode() if declared else None))
        page.close()
    except AssertionError as error:  # the parser's own, for markup declarations that it cannot make sense of
        raise UnreadableDocument(f"it is no HTML that can be read: {error}", param="source") from error


# -- CSV and JSON --------------------------------------------------------------------------------------------


def _csv(data: bytes, gathered: _Gathered) -> None:
    text = decoded(data)
    csv.field_size_limit(max(len(text), 1))
    rows = csv.reader(io.StringIO(text, newline=""), _dialect(text))
    try:
        header = next(rows, [])
        named = bool(header) and len(set(header)) == len(header) and not any(map(_is_value, header))
        if not named:
            gathered.add(", ".join(header) + "\n")
        for row in rows:
            cells = zip(header, row, strict=False) if named and len(row) <= len(header) else ()
            line = ", ".join(f"{name}: {cell}" for name, cell in cells) or ", ".join(row)
            gathered.add(line + "\n")
        if named and gathered.length == 0:
            gathered.add(", ".join(header) + "\n")
    except csv.Error as error:
        raise UnreadableDocument(f"it is no CSV that can be read: {error}", param="source") from error


def _dialect(text: str) -> type[csv.Dialect] | str:
    try:
        return csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
    except csv.Error:
        return "excel"


def _is_value(cell: str) -> bool:
    """Whether a cell is plainly no name of a column."""
    return not cell.strip() or re.fullmatch(r"[-+]?[\d.,:/ -]+%?", cell.strip()) is not None


class _Pairs(list[tuple[str, Any]]):
    """An object with all its members, also those of one name."""


def _json(data: bytes, gathered: _Gathered) -> None:
    try:
        value = json.loads(decoded(data), object_pairs_hook=_Pairs)
    except RecursionError as error:
        raise UnreadableDocument("it is nested too deep", param="source") from error
    except ValueError as error:
        raise UnreadableDocument(f"it is no JSON: {error}", param="source") from error
    for path, leaf in _leaves(value):
        shown = leaf if isinstance(leaf, str) else json.dumps(leaf)
        gathered.add(f"{path}: {shown}\n" if path else f"{shown}\n")


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of all that is no container, in its order."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, here = pending.pop()
        if isinstance(here, _Pairs):
            pending += [(f"{path}.{name}" if path else name, below) for name, below in reversed(here)]
        elif isinstance(here, list):
            pending += [(path, below) for below in reversed(here)]
        else:
            yield path, here


_READERS: dict[str, Callable[[bytes, _Gathered], None]] = {
    ".pdf": _pdf,
    ".docx": _docx,
    ".txt": _text,
    ".md": _text,
    ".html": _html,
    ".csv": _csv,
    ".json": _json,
}
_WITHOUT_TEXT = {".pdf": ": its pages may be pictures"}
