"""The files by which a cluster is made and served: their schemas, and that they say the same."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from config.fields import field_at
from config.settings import Http
from serve.high_throughput import PROGRAM, Places, environment, seconds_to_leave

ROOT = Path(__file__).resolve().parents[2]
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]  # type: ignore[index]

CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
SERVE = yaml.safe_load((ROOT / "serve.yaml").read_text("utf-8"))
KUBERAY = list(yaml.safe_load_all((ROOT / "kuberay.yaml").read_text("utf-8")))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def of_kind(kind: str) -> dict[str, Any]:
    [found] = [one for one in KUBERAY if one["kind"] == kind]
    assert isinstance(found, dict)
    return found


def ray_clusters() -> list[dict[str, Any]]:
    return [of_kind("RayJob")["spec"]["rayClusterSpec"], of_kind("RayService")["spec"]["rayClusterConfig"]]


def containers() -> list[dict[str, Any]]:
    groups = [group for cluster in ray_clusters() for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


# -- ray up -------------------------------------------------------------------------------------------------


def test_the_cluster_is_what_ray_up_understands() -> None:
    # Ray itself is not imported: its schema is a file in its package.
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    jsonschema.validate(CLUSTER, schema)


def test_a_machine_gets_the_versions_that_were_tested() -> None:
    commands = "\n".join(CLUSTER["setup_commands"])
    assert f"ray[default,serve]=={PINNED['ray']}" in commands
    installs = [command for command in CLUSTER["setup_commands"] if "pip install" in command]
    assert installs
    assert all("-c ~/modchat/constraints.txt" in command for command in installs)
    assert CLUSTER["file_mounts"]["~/modchat"] == "."


def test_every_machine_mounts_what_is_served() -> None:
    commands = "\n".join(CLUSTER["setup_commands"])
    assert re.search(r"mount .* /srv/modchat$", commands, re.MULTILINE)
    assert SERVE["applications"][0]["args"]["base"] == "/srv/modchat"


def test_nobody_joins_without_the_token() -> None:
    starts = [*CLUSTER["head_start_ray_commands"], *CLUSTER["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in CLUSTER["file_mounts"]


# -- serve deploy -------------------------------------------------------------------------------------------


def test_a_cluster_is_served_in_the_mode_of_one_machine() -> None:
    places = Places(Path("/tmp/modchat-12345678"), Path("/opt/modchat/bin") / PROGRAM, 8500)
    on_one_machine = environment(Http(), places, cores=2)
    of_one_machine = {name for name, value in on_one_machine.items() if str(places.directory) in value}
    of_one_machine |= {name for name in on_one_machine if name.startswith("MODCHAT_")}
    of_one_machine |= {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_HAPROXY_NBTHREAD"}
    environ = SERVE["controller_options"]["runtime_env"]["env_vars"]
    assert environ.pop("FORWARDED_ALLOW_IPS") == "*"
    assert environ == {name: value for name, value in on_one_machine.items() if name not in of_one_machine}
    environ["FORWARDED_ALLOW_IPS"] = "*"


def test_the_applications_variables_are_settings() -> None:
    [application] = SERVE["applications"]
    environ = application["runtime_env"]["env_vars"]
    assert {"CHAT_HTTP__HOST", "CHAT_HTTP__API_KEYS_FILE"} <= set(environ)
    for name in environ:
        key = tuple(name.removeprefix("CHAT_").lower().split("__"))
        assert field_at(key) is not None, name
    [deployment] = application["deployments"]
    assert deployment["num_replicas"] == int(environ["CHAT_HTTP__REPLICAS"])


def test_what_is_imported_is_there() -> None:
    module, _, name = SERVE["applications"][0]["import_path"].partition(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")
    assert re.search(rf"^def {name}\(", source, re.MULTILINE)
    assert f'name="{SERVE["applications"][0]["deployments"][0]["name"]}"' in source


# -- KubeRay ------------------------------------------------------------------------------------------------

# The fields that are used here, of the CRDs of KubeRay 1.6 (ray.io/v1) and of Kubernetes 1.33; anything else, and
# anything misspelt, is refused. A field that a CRD does not have would be dropped by the API server without a word.
TEXT, COUNT, SWITCH = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}, {"type": "boolean"}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$"}
LABELS = {"type": "object", "additionalProperties": TEXT}


def closed_object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


METADATA = closed_object({"name": TEXT, "labels": LABELS})
RESOURCES = closed_object({"requests": {"type": "object", "additionalProperties": QUANTITY}}, {"limits": LABELS})
PROBE = closed_object(
    {"httpGet": closed_object({"path": {"enum": ["/health", "/ready"]}, "port": {"const": 8000}})},
    {"periodSeconds": COUNT, "timeoutSeconds": COUNT, "failureThreshold": COUNT},
)
SECURITY = closed_object(
    {
        "runAsNonRoot": {"const": True},
        "runAsUser": COUNT,
        "allowPrivilegeEscalation": {"const": False},
        "capabilities": closed_object({"drop": {"const": ["ALL"]}}),
    }
)
CONTAINER = closed_object(
    {
        "name": {"enum": ["ray-head", "ray-worker"]},
        "image": TEXT,
        "resources": RESOURCES,
        "securityContext": SECURITY,
        "volumeMounts": list_of(closed_object({"name": TEXT, "mountPath": TEXT}, {"readOnly": SWITCH})),
    },
    {
        "ports": list_of(closed_object({"name": TEXT, "containerPort": COUNT})),
        "startupProbe": PROBE,
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
    },
)
VOLUME = closed_object(
    {"name": TEXT, "persistentVolumeClaim": closed_object({"claimName": TEXT}, {"readOnly": SWITCH})}
)
TEMPLATE = closed_object(
    {
        "metadata": closed_object({"labels": LABELS}),
        "spec": closed_object(
            {"containers": list_of(CONTAINER), "volumes": list_of(VOLUME)}, {"terminationGracePeriodSeconds": COUNT}
        ),
    }
)
# `ray start` is given these as text.
START = {"type": "object", "additionalProperties": {"type": "string"}}
CLUSTER_SPEC = closed_object(
    {
        "rayVersion": TEXT,
        "authOptions": closed_object({"mode": {"const": "token"}}),
        "headGroupSpec": closed_object({"rayStartParams": START, "template": TEMPLATE}),
        "workerGroupSpecs": list_of(
            closed_object(
                {
                    "groupName": TEXT,
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    "rayStartParams": START,
                    "template": TEMPLATE,
                }
            )
        ),
    }
)
CLAIM = closed_object(
    {
        "accessModes": list_of({"enum": ["ReadWriteMany", "ReadOnlyMany"]}),
        "resources": closed_object({"requests": closed_object({"storage": QUANTITY})}),
    }
)
SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("networking.k8s.io/v1", "NetworkPolicy"): closed_object(
        {
            "podSelector": closed_object({"matchLabels": LABELS}),
            "policyTypes": {"const": ["Ingress"]},
            "ingress": list_of(
                closed_object(
                    {},
                    {
                        "from": list_of({"type": "object"}),
                        "ports": list_of(closed_object({"protocol": {"const": "TCP"}, "port": COUNT})),
                    },
                )
            ),
        }
    ),
    ("ray.io/v1", "RayJob"): closed_object(
        {
            "entrypoint": TEXT,
            "submissionMode": {"enum": ["K8sJobMode", "HTTPMode"]},
            "backoffLimit": COUNT,
            "shutdownAfterJobFinishes": SWITCH,
            "ttlSecondsAfterFinished": COUNT,
            "rayClusterSpec": CLUSTER_SPEC,
        }
    ),
    ("ray.io/v1", "RayService"): closed_object(
        {
            "upgradeStrategy": closed_object({"type": {"enum": ["None", "NewCluster"]}}),
            "excludeHeadPodFromServeSvc": SWITCH,
            "serveConfigV2": TEXT,
            "rayClusterConfig": CLUSTER_SPEC,
        }
    ),
}


@pytest.mark.parametrize("document", KUBERAY, ids=lambda document: f"{document['kind']} {document['metadata']['name']}")
def test_every_document_is_of_a_known_shape(document: dict[str, Any]) -> None:
    spec = SPECS[document["apiVersion"], document["kind"]]
    whole = closed_object({"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "spec": spec})
    jsonschema.validate(document, whole)


def test_there_is_a_service_for_chat_and_a_job_for_the_migration() -> None:
    parts = {(one["kind"], one["metadata"]["labels"]["part"]) for one in KUBERAY}
    assert ("RayService", "chat") in parts
    assert ("RayJob", "migration") in parts
    import modchat

    words = of_kind("RayJob")["spec"]["entrypoint"].split()
    assert modchat.parser().parse_args(words[1:]).handler


def test_versions_are_the_pinned_ones_everywhere() -> None:
    assert {cluster["rayVersion"] for cluster in ray_clusters()} == {PINNED["ray"]}
    assert {container["image"] for container in containers()} == {f"modchat:{VERSION}"}
    assert f"FROM rayproject/ray:{PINNED['ray']}-py311\n" in DOCKERFILE
    assert f"docker build -t modchat:{VERSION} ." in DOCKERFILE
    assert DOCKERFILE.count("-c /home/ray/modchat/constraints.txt") == DOCKERFILE.count("pip install")


def test_kubernetes_serves_what_serve_deploy_serves() -> None:
    assert yaml.safe_load(of_kind("RayService")["spec"]["serveConfigV2"]) == SERVE


def test_every_pod_of_chat_has_the_tree_and_every_worker_its_probes() -> None:
    cluster = of_kind("RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]}
        [container] = spec["containers"]
        mounted = {mount["mountPath"]: claims[mount["name"]] for mount in container["volumeMounts"]}
        assert mounted[SERVE["applications"][0]["args"]["base"]] == "modchat"
    for group in cluster["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
        assert probes == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
        assert group["replicas"] == SERVE["applications"][0]["deployments"][0]["num_replicas"]
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > seconds_to_leave(Http())


def test_there_is_never_a_second_cluster_on_the_same_tree() -> None:
    assert of_kind("RayService")["spec"]["upgradeStrategy"] == {"type": "None"}


def test_only_chat_is_reached_from_elsewhere() -> None:
    open_to_all = [rule for rule in of_kind("NetworkPolicy")["spec"]["ingress"] if "from" not in rule]
    assert [[port["port"] for port in rule["ports"]] for rule in open_to_all] == [[8000]]
    labels = of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for cluster in ray_clusters():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert labels.items() <= group["template"]["metadata"]["labels"].items()
