"""A Ray that is not there is said to be so within seconds; Ray itself would try for minutes."""

from __future__ import annotations

import socket
import time

import pytest

from actors.ray_runtime import RayRuntime
from modules.core.errors import Unavailable

pytestmark = pytest.mark.cluster


def test_an_address_where_nobody_listens_is_told_within_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody else takes the port, and nobody listens on it
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no Ray listens"):
            RayRuntime(address=f"127.0.0.1:{taken.getsockname()[1]}")
        assert time.monotonic() - began < 5
