"""The way back of trees that nothing has touched since: every file of v2, byte for byte."""

import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.reverse import ReverseReport, reverse
from migration.sample import write_sample
from migration.v2.names import V2Names
from tests.hostile import CASES
from tests.hostile_case import HOME, Tree, document_entry, good, profile_record, session_record

T = TypeVar("T")
R = TypeVar("R")

ZONES = (None, "America/New_York")
CORPORA = os.environ.get("MODCHAT_V2_CORPORA")

# Where nothing in the migrated tree says whether a name was text or raw bytes: a person is told what was assumed.
GUESSED = {"names_that_are_not_utf8": ["name_guessed"]}


def migrate(source: Path, target: Path, names: V2Names | None = None, zone: str | None = None) -> None:
    settings = RunSettings(str(source), str(target), names or V2Names(), source_timezone=zone)
    Engine(settings, LocalBackend()).run()


def files(base: Path) -> dict[bytes, bytes]:
    """What a way back must restore: every regular file but empty locks."""
    found: dict[bytes, bytes] = {}
    root = os.fsencode(base)
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            if data or not name.endswith(b".lock"):
                found[os.path.relpath(path, root)] = data
    return found


def there_and_back(
    source: Path, tmp_path: Path, *, names: V2Names | None = None, zone: str | None = None
) -> ReverseReport:
    migrate(source, tmp_path / "new", names, zone)
    report = reverse(str(tmp_path / "new"), str(tmp_path / "back"))
    expected, found = files(source), files(tmp_path / "back")
    assert sorted(found) == sorted(expected)
    assert {path: data for path, data in found.items() if data != expected[path]} == {}
    return report


@pytest.mark.parametrize("zone", ZONES)
def test_the_sample_comes_back_whole(zone: str | None, tmp_path: Path) -> None:
    made = write_sample(tmp_path / "v2")
    report = there_and_back(tmp_path / "v2", tmp_path, zone=zone)
    assert report.findings == ()
    assert report.exit_code == 0
    counts = report.counts
    assert counts["sessions"] == made.sessions
    assert counts["messages"] == made.messages
    assert counts["archived"] == made.archived_sessions
    assert counts["documents"] == made.documents + made.archived_documents
    assert counts["vector_sets"] == made.vector_sets
    assert counts["personas"] == made.personas
    assert (counts["panels"], counts["panel_messages"]) == (made.panels, made.panel_messages)
    assert counts["attic"] == made.attic_files
    assert counts["files"] == made.source_files - made.ignored_files
    assert counts["bytes"] == sum(len(data) for data in files(tmp_path / "v2").values())
    assert (counts["new_sessions"], counts["new_messages"], counts["new_profiles"]) == (0, 0, 0)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", CASES)
def test_bad_input_comes_back_as_bad_as_it_was(name: str, zone: str | None, tmp_path: Path) -> None:
    expected = CASES[name](tmp_path / "v2")
    names = V2Names.from_config(expected.v2_config["storage"]) if expected.v2_config else None
    report = there_and_back(tmp_path / "v2", tmp_path, names=names, zone=zone)
    assert [found.kind for found in report.findings] == GUESSED.get(name, [])


@pytest.mark.skipif(CORPORA is None, reason="MODCHAT_V2_CORPORA does not name the directory of real v2 trees")
def test_real_trees_come_back_whole(tmp_path: Path) -> None:
    trees = [
        path for path in sorted(Path(CORPORA or "").glob("*/*")) if path.is_dir() and path.name != "preset_configs"
    ]
    assert trees
    for tree in trees:
        names = V2Names().with_users_dirs(("people",)) if tree.name == "g6_split_dirs" else None
        for zone in ZONES:
            there = tmp_path / tree.name / str(zone).replace("/", "-")
            there.mkdir(parents=True)
            assert there_and_back(tree, there, names=names, zone=zone).findings == ()


def test_each_part_of_a_session_gets_its_own_lines_records_and_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    other = HOME.replace("users/", "people/")
    tree.put("users/ada/profile.json", profile_record())
    tree.put("people/ada/profile.json", b"\xef\xbb\xbf" + b'{"user_id": "ada", "updated_at": "2026"}\n')
    tree.put(f"{HOME}/session.json", session_record(title="Here"))
    tree.put(f"{other}/session.json", b'{"title": "There", "updated_at": "2026"}\n')
    tree.put(f"{HOME}/messages.jsonl", good(1) + b"\nnot a message\n\n" + good(2))
    tree.put(f"{other}/messages.jsonl", b'{"id": "msg_3"}\n{"role": "user"}\n' + good(4) + b"\n")
    tree.put(f"{HOME}/x_messages.jsonl", good(1) + b"\n")
    tree.put(f"{other}/x_messages.jsonl", b"the same name")
    tree.put(f"{other}/y_messages.jsonl", good(2) + b"\n")
    tree.put(f"{other}/situational_context.json", b'{"summary": "s"}')
    tree.put(f"{HOME}/documents/metadata.json", {"1a2b3c4d_a.txt": document_entry("1a2b3c4d_a.txt")})
    tree.put(f"{other}/documents/metadata.json", {"5e6f7a8b_b.txt": document_entry("5e6f7a8b_b.txt")})
    tree.put(f"{other}/documents/5e6f7a8b_b.txt", b"text")
    report = there_and_back(tmp_path / "v2", tmp_path, names=V2Names().with_users_dirs(("people",)))
    assert report.findings == ()


@pytest.mark.parametrize("open_ends", [(), (0,), (1,), (0, 1)])
def test_each_part_ends_with_or_without_a_newline_as_it_did(open_ends: tuple[int, ...], tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for number, users in enumerate(("users", "people")):
        end = b"" if number in open_ends else b"\n"
        tree.put(f"{HOME.replace('users', users)}/messages.jsonl", good(number + 1) + end)
    there_and_back(tmp_path / "v2", tmp_path, names=V2Names().with_users_dirs(("people",)))


def test_a_document_of_one_part_and_its_entry_of_another_find_their_places(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put(f"{HOME}/documents/1a2b3c4d_a.txt", b"text")
    other = f"{HOME.replace('users', 'people')}/documents/metadata.json"
    tree.put(other, {"1a2b3c4d_a.txt": document_entry("1a2b3c4d_a.txt")})
    there_and_back(tmp_path / "v2", tmp_path, names=V2Names().with_users_dirs(("people",)))


@pytest.mark.parametrize("session", [b"s%FF", b"s\xff", b"%FF\xff", b"%FF\xff" + 220 * b"x"])
def test_a_percent_sign_in_a_session_name_is_no_raw_byte(session: bytes, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put(b"users/ada/" + session + b"/messages.jsonl", good(1) + b"\n")
    tree.put(b"users/ada/" + session + b"/context_history/\xfe%FE.json", b"{}")
    tree.put(b"users/ada/" + session + b"/documents/a.txt", b"text")
    tree.put(b"users/ada/" + session + b".backup_20250801_101112/documents/a.txt", b"text")
    assert there_and_back(tmp_path / "v2", tmp_path).findings == ()


def test_raw_bytes_in_the_name_of_a_directory_that_is_no_users_home_come_back(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put(b"users/u\xff/personas/p\xfe.json", b'{"id": "p"}')
    tree.put(b"users/u\xff/sessions/s\xff/vectors/vector_index.jsonl", b'{"chunk_id": "c"}\n')
    tree.put(b"users/u\xff/profile.json", b'{"user_id": "ada"}')
    tree.put(b"users/u\xff/s/session.json", session_record("ada"))
    tree.put(b"panel_sessions/q\xff/messages.jsonl", good(1) + b"\n")
    assert there_and_back(tmp_path / "v2", tmp_path).findings == ()


def test_names_that_were_cut_come_back_whole(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    for name in ("é" * 80, "日" * 75 + "x"):
        tree.put(f"{HOME}/{name}_messages.jsonl", good(1) + b"\n")
        tree.put(f"{HOME}/context_history/{name}.json", b"{}")
        tree.put(f"panel_sessions/p/personas/{name}.json", b"{}")
        tree.put(f"users/ada/personas/{name}.json", b"{}")
    assert there_and_back(tmp_path / "v2", tmp_path).findings == ()


def test_without_a_ledger_cut_names_are_kept_as_they_are_and_said_so(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.put(f"{HOME}/context_history/{'é' * 80}.json", b"{}")
    migrate(tmp_path / "v2", tmp_path / "new")
    shutil.rmtree(tmp_path / "new/.migration")
    report = reverse(str(tmp_path / "new"), str(tmp_path / "back"))
    assert [found.kind for found in report.findings] == ["name_lost"]
    assert report.exit_code == 1
    (kept,) = (tmp_path / "back" / HOME / "context_history").iterdir()
    assert kept.read_bytes() == b"{}"


class Elsewhere:
    """Does every call as another process would, the last one first."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        for call in reversed([pickle.dumps((function, item)) for item in items]):
            sent, item = pickle.loads(call)
            yield pickle.loads(pickle.dumps(sent(item)))


def test_batches_may_be_done_elsewhere_and_in_any_order(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2")
    migrate(tmp_path / "v2", tmp_path / "new")
    reverse(str(tmp_path / "new"), str(tmp_path / "back"), fan_out=Elsewhere())
    assert files(tmp_path / "back") == files(tmp_path / "v2")


def test_the_migrated_tree_is_only_read(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2")
    migrate(tmp_path / "v2", tmp_path / "new")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "new").rglob("*")}
    reverse(str(tmp_path / "new"), str(tmp_path / "back"))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "new").rglob("*")} == before
