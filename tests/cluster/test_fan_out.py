"""What is spread over Ray has the results of what is done in one process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from migration.engine import Engine, LocalBackend
from migration.fanout import FanOut, LocalFanOut
from migration.index_builder import build, search_messages
from migration.job import RunSettings
from migration.reverse import reverse
from migration.run import RayFanOut
from migration.sample import write_sample
from migration.v2.read import SourceError, read_regular
from migration.validate import MigrationValidator
from tests.cluster.conftest import differences, snapshot

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "v2"
    write_sample(path, users=80, sessions=2)
    return path


@pytest.fixture
def migrated(source: Path, tmp_path: Path) -> Path:
    Engine(RunSettings(os.fspath(source), os.fspath(tmp_path / "new")), LocalBackend()).run()
    return tmp_path / "new"


@pytest.fixture
def on_ray() -> FanOut:
    return RayFanOut(2)


def test_validation_finds_the_same(source: Path, migrated: Path, on_ray: FanOut) -> None:
    (changed, *_) = sorted(migrated.glob("text_chat/sessions/*/*/messages.jsonl"))
    (lost, *_) = sorted(migrated.glob("rag/documents/*/original*"))
    changed.write_bytes(changed.read_bytes().replace(b'"id"', b'"ID"', 1))
    lost.unlink()
    reports = []
    for fan_out in (LocalFanOut(), on_ray):
        report = asdict(MigrationValidator(source, migrated, fan_out=fan_out).report())
        for key in ("begun_at", "ended_at"):
            del report[key]
        report["findings"] = sorted(report["findings"], key=str)
        report["notices"] = sorted(report["notices"], key=str)
        reports.append(report)
    local, spread = reports
    assert spread == local
    assert len([row for row in spread["findings"] if row["is_error"]]) >= 2
    assert spread["root"]["source"] != spread["root"]["target"]


def test_the_way_back_writes_the_same(migrated: Path, on_ray: FanOut, tmp_path: Path) -> None:
    local = reverse(os.fspath(migrated), os.fspath(tmp_path / "local")).to_json()
    spread = reverse(os.fspath(migrated), os.fspath(tmp_path / "spread"), fan_out=on_ray).to_json()
    assert differences(snapshot(tmp_path / "spread"), snapshot(tmp_path / "local")) == []
    own = {"target", "elapsed_s"}
    assert {key: spread[key] for key in spread.keys() - own} == {key: local[key] for key in local.keys() - own}


def test_the_indices_are_the_same(migrated: Path, on_ray: FanOut) -> None:
    files = ("text_chat/indices/user_sessions.json", "rag/indices/document_registry.json", "indices/master_index.json")
    found = []
    for fan_out in (LocalFanOut(), on_ray):
        report = build(migrated, fan_out)
        hits = search_messages(migrated, "the", limit=10_000)
        found.append(
            (
                asdict(report) | {"problems": sorted(report.problems)},
                {path: (migrated / path).read_bytes() for path in files},
                sorted((hit.user_id, hit.session_id, hit.message_id) for hit in hits),
            )
        )
    local, spread = found
    assert spread == local
    assert spread[0]["messages"] > 100
    assert len(json.loads(spread[1][files[0]])) > 80
    assert spread[2]


def test_results_of_every_item_arrive_each_once(on_ray: FanOut) -> None:
    assert sorted(on_ray.map(partial(pow, 2), range(40))) == [2**number for number in range(40)]


def test_items_are_drawn_as_calls_end(on_ray: FanOut) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    results = on_ray.map(abs, items())
    next(results)
    assert len(drawn) == 3


def test_an_exception_of_a_call_arrives_as_itself(on_ray: FanOut, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        list(on_ray.map(read_regular, [os.fspath(missing)]))
    assert type(caught.value) is FileNotFoundError
    assert caught.value.filename == os.fspath(missing)


def test_an_exception_of_this_project_keeps_its_parts_and_its_text(on_ray: FanOut) -> None:
    with pytest.raises(SourceError) as caught:
        list(on_ray.map(_fail, ["users/ada"]))
    assert (caught.value.path, caught.value.is_gone) == ("users/ada", True)
    assert str(caught.value) == "users/ada: not there"


def test_no_call_is_begun_after_an_exception(on_ray: FanOut) -> None:
    drawn = []

    def items() -> Iterator[str]:
        for number in range(100):
            drawn.append(number)
            yield str(number)

    with pytest.raises(SourceError):
        list(on_ray.map(_fail, items()))
    assert len(drawn) == 3


def _fail(path: str) -> None:
    raise SourceError(path, "not there", is_gone=True)
