"""The runtime's promises, kept within one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from tests.runtime_behaviour import *  # noqa: F403 - the suite
from tests.runtime_behaviour import SETTINGS, install_probes


@pytest.fixture(scope="module", autouse=True)
def _probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    site = tmp_path_factory.mktemp("site")
    install_probes(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield


@pytest.fixture
def runtime() -> LocalRuntime:
    return LocalRuntime(copies=True)


@pytest.fixture
async def platform(tmp_path: Path, runtime: LocalRuntime) -> AsyncIterator[Platform]:
    platform = await Platform.start(SETTINGS, base=tmp_path, runtime=runtime)
    yield platform
    await platform.stop()
