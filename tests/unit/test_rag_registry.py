"""The registry of documents: whatever its file looks like, what it says of others is kept when one changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.core.storage import FlatFiles
from modules.rag.documents import Document
from modules.rag.registry import KEY, Registry

HALF = "half \udc80 a character"


def saved(base: Path) -> dict[str, dict[str, object]]:
    told = json.loads((base / KEY).read_bytes().decode("utf-8", "surrogatepass"))
    entries: dict[str, dict[str, object]] = told["documents"]
    return entries


def document(name: str, user_id: str = "ann", title: str = "Title") -> Document:
    return Document(id=f"doc_{name}", user_id=user_id, title=title)


def registry(base: Path) -> Registry:
    return Registry(FlatFiles(base), lambda user_id: True)


@pytest.mark.parametrize("odd", ["plain", "ä 木", HALF])
def test_entries_come_and_go_one_by_one(tmp_path: Path, odd: str) -> None:
    one = registry(tmp_path)
    for name, title in (("a", "A"), ("b", odd), ("c", "C")):
        one.add(document(name, user_id=odd, title=title))
        assert one.save()
    another = registry(tmp_path)  # of another shard, which knows nothing of these
    another.add(document("d"))
    assert another.save()
    one.remove(odd, "doc_a")
    assert one.save()
    assert not one.save(), "nothing has changed since"
    entries = saved(tmp_path)
    assert list(entries) == ["doc_b", "doc_c", "doc_d"]
    assert (entries["doc_b"]["title"], entries["doc_b"]["user_id"]) == (odd, odd)
    assert len((tmp_path / KEY).read_bytes().splitlines()) == 2 + len(entries)


@pytest.mark.parametrize("title", ["Title", HALF])
def test_a_file_that_was_laid_out_otherwise_is_read(tmp_path: Path, title: str) -> None:
    entry = {"user_id": "ann", "title": title, "more": [1, {"a": None}]}
    told = {"documents": {"doc_a": entry, "doc_odd": 3}, "more": 1}
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps(told, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))
    one = registry(tmp_path)
    one.add(document("b"))
    assert one.save()
    assert saved(tmp_path)["doc_a"] == entry
    assert saved(tmp_path).keys() == {"doc_a", "doc_b"}
    fresh = registry(tmp_path)
    fresh.load()  # neither document is there
    assert saved(tmp_path) == {}


@pytest.mark.parametrize("damaged", [b'"user_id": "\xff"', b'"user_id": ' + b"9" * 5000, b'"user_id": null'])
def test_an_entry_that_is_damaged_is_made_again_from_its_document(tmp_path: Path, damaged: bytes) -> None:
    home = tmp_path / "rag/documents/doc_a"
    home.mkdir(parents=True)
    (home / "metadata.json").write_text('{"id": "doc_a", "user_id": "ann", "title": "A"}')
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"documents": {"doc_a": {' + damaged + b"}}}")
    one = registry(tmp_path)
    one.load()
    assert one.ids_of("ann") == {"doc_a"}
    assert saved(tmp_path)["doc_a"]["title"] == "A"
