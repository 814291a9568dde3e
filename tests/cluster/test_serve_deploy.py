"""The application as a cluster runs it: by Serve's own command, on the file that is deployed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from config.load import load_settings
from modules.core.errors import ConfigurationError
from serve.addresses import free_port
from serve.deployment import app
from tests.cluster.conftest import CommandLine, eventually
from tests.listening import descendants, listeners

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
OFF = ("rag", "multi_agent", "tool_use", "persona", "multimodal", "topic_router", "trace_logger")


def deployed() -> dict[str, object]:
    document = yaml.safe_load((ROOT / "serve.yaml").read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_file_is_what_serve_deploys() -> None:
    schema = ServeDeploySchema.model_validate(deployed())
    assert [application.import_path for application in schema.applications] == ["serve.deployment:app"]
    # It allows fields that it does not know.
    assert set(deployed()) <= set(ServeDeploySchema.model_fields)


def test_a_cluster_is_not_served_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_HTTP__API_KEYS_FILE", raising=False)
    with pytest.raises(ConfigurationError, match="with keys only"):
        app({"base": str(tmp_path)})


def test_arguments_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bsae"):
        app({"bsae": str(tmp_path)})


@dataclass
class Cluster:
    url: str
    key: str
    process: subprocess.Popen[bytes]


@contextmanager
def served(directory: Path) -> Iterator[Cluster]:
    """`serve run` on serve.yaml, but for what belongs to a machine: paths, ports, which modules."""
    base, keys, port = directory / "base", directory / "keys.json", free_port()
    base.mkdir()
    made = subprocess.run(
        [Path(sys.executable).with_name("modchat"), "keys", "create", "--file", keys, "--name", "test", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    document = yaml.safe_load((ROOT / "serve.yaml").read_text("utf-8"))
    document["http_options"] |= {"port": port, "host": "127.0.0.1"}
    environ = document["controller_options"]["runtime_env"]["env_vars"]
    environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(Path(sys.executable).with_name("modchat-haproxy"))
    environ["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(free_port())
    [application] = document["applications"]
    application["args"]["base"] = str(base)
    application["runtime_env"]["env_vars"] |= {"CHAT_HTTP__API_KEYS_FILE": str(keys), "CHAT_HTTP__REPLICAS": "1"}
    application["runtime_env"]["env_vars"] |= {f"CHAT_MODULES__{name.upper()}__ENABLED": "false" for name in OFF}
    application["runtime_env"]["env_vars"]["CHAT_MODULES__TEXT_CHAT__MODEL__PROVIDER"] = "extractive"
    application["deployments"][0]["num_replicas"] = 1
    path = directory / "serve.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("serve"), "run", path],
            stdout=output,
            stderr=output,
            cwd=directory,
            # One machine: Ray keeps to loopback.
            env={**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"},
        )
    try:
        cluster = Cluster(f"http://127.0.0.1:{port}", json.loads(made.stdout)["key"], process)
        _until_ready(cluster, directory / "output")
        yield cluster
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            for pid in reversed(descendants(process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait(10)


def _until_ready(cluster: Cluster, output: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert cluster.process.poll() is None, output.read_text("utf-8")[-4000:]
        try:
            if httpx.get(f"{cluster.url}/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not ready: {output.read_text('utf-8')[-4000:]}")


async def test_the_file_is_served_with_keys_by_haproxy_and_its_ports_are_closed(tmp_path: Path) -> None:
    assert load_settings(environ={}).http.api_keys_file is None
    with served(tmp_path) as cluster:
        async with httpx.AsyncClient(base_url=cluster.url, trust_env=False) as client:
            assert (await client.get("/v1/models")).status_code == 401
            headers = {"Authorization": f"Bearer {cluster.key}"}
            session = await client.post("/v1/sessions", json={"user_id": "ann"}, headers=headers)
            assert session.status_code == 201, session.text
            path = f"/v1/sessions/{session.json()['id']}/messages"
            sent = await client.post(path, json={"user_id": "ann", "content": "Hello."}, headers=headers)
            assert sent.status_code == 201, sent.text
            assert sent.json()["reply"]["content"]
        found = await asyncio.to_thread(lambda: listeners(descendants(cluster.process.pid)))
        assert {8404, 9101}.isdisjoint(one.port for one in found)
        assert any("bin/haproxy" in one.title for one in found)
        assert [one for one in found if not one.is_loopback] == []


def test_a_platform_that_runs_is_joined_and_left_running(modchat: CommandLine, tmp_path: Path) -> None:
    base, configuration, port = tmp_path / "base", tmp_path / "configuration", free_port()
    base.mkdir()
    configuration.mkdir()
    modules = {name: {"enabled": False} for name in OFF} | {"text_chat": {"model": {"provider": "extractive"}}}
    (configuration / "default.json").write_text(json.dumps({"modules": modules}), "utf-8")
    up = modchat.start("up", "--base", base, "--config-dir", configuration)
    eventually(lambda: up.ended or "running on" in up.stdout, "the platform runs", 60)
    served = modchat.start("serve", "--base", base, "--config-dir", configuration, "--port", port)
    eventually(lambda: served.ended or "  health" in served.stdout, "the server runs", 90)
    assert not served.ended, served.stderr
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/sessions", json={"user_id": "ann"}, trust_env=False)
    assert answer.status_code == 201
    # Serve is part of the platform's Ray here.
    found = listeners(descendants(up.process.pid))
    assert [one for one in found if not one.is_loopback] == []
    assert any(one.port == port and "haproxy" in one.title for one in found)
    served.process.send_signal(signal.SIGTERM)
    assert served.wait(60) == 0, served.stderr
    assert served.stdout.splitlines()[-1] == "stopped"
    assert modchat.run("status", "--base", base).wait() == 0
    assert not any("ray::Serve" in _title(pid) for pid in descendants(up.process.pid))
    assert modchat.run("down", "--base", base).wait() == 0
    assert up.wait(30) == 0


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
