"""The files of cluster/: up to date, allowed by their schemas, and as closed as they are said to be."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.test_cluster_scripts import SCRIPTS

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
LAUNCHERS = sorted((CLUSTER / "launcher").glob("*.yaml"))
COMPOSE = sorted((CLUSTER / "compose").glob("*.yaml"))
TEXTS = [*sorted(CLUSTER.rglob("README.md")), ROOT / "docker" / "README.md"]
REFUSED = (jsonschema.ValidationError, ValueError)  # of Kubernetes, KubeRay and Ray, and of Compose
# Mappings whose keys are names of one's own, and those of which the schema says nothing.
NAMES = {"environment", "secrets", "services", "volumes", "available_node_types", "file_mounts", "resources"}
NAMES |= {"labels", "matchLabels", "limits", "requests", "rayStartParams", "options"}
OPEN = {"node_config", "provider", "depends_on"}


def strict(schema: Any) -> Any:
    """The schema with every key refused that it does not list."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    open_ = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & set(schema)
    if isinstance(schema.get("properties"), dict) and not open_:
        made["additionalProperties"] = False
    return made


@cache
def crd(kind: str) -> jsonschema.Draft202012Validator:
    if not SCHEMAS.exists():
        pytest.skip("KubeRay's definitions (../shared/schemas) are not here")
    versions = yaml.safe_load((SCHEMAS / KINDS[kind]).read_text())["spec"]["versions"]
    schema = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    made = strict(schema)
    known = {"name": {"type": "string"}, "labels": {"type": "object"}}
    made["properties"]["metadata"] = strict({"type": "object", "properties": known})
    return jsonschema.Draft202012Validator(made)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def check_manifest(document: dict[str, Any]) -> None:
    """Raises what is wrong with an object of Kubernetes."""
    if document["kind"] in KINDS:
        crd(document["kind"]).validate(document)
    else:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def check_launcher(document: dict[str, Any]) -> None:
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(document, schema)


def check_compose(document: dict[str, Any]) -> None:
    from compose_spec import PyCompose

    text = re.sub(r"\$\{(\w+)[^}]*\}", r"/\1", yaml.safe_dump(document))  # variables are filled in before
    PyCompose.from_yaml(text).validate()


CHECKED: list[tuple[Callable[[dict[str, Any]], None], Path]] = [
    *((check_manifest, path) for path in MANIFESTS),
    *((check_launcher, path) for path in LAUNCHERS),
    *((check_compose, path) for path in COMPOSE),
]


def test_every_file_is_what_the_values_and_templates_make() -> None:
    spec = importlib.util.spec_from_file_location("render", CLUSTER / "render.py")
    assert spec is not None
    assert spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    made = dict(render.rendered())
    assert len(made) > 8
    for path, text in made.items():
        assert path.read_text() == text, f"{path.name} is stale: python cluster/render.py"
    others = {*MANIFESTS, *LAUNCHERS, *COMPOSE} - set(made)
    assert not others, f"not made from the values: {others}"


@pytest.mark.parametrize(("check", "path"), CHECKED, ids=lambda value: getattr(value, "name", ""))
def test_a_file_is_what_its_schema_allows(check: Callable[[Any], None], path: Path) -> None:
    for document in documents(path):
        check(document)


@pytest.mark.parametrize(("check", "path"), CHECKED, ids=lambda value: getattr(value, "name", ""))
def test_a_broken_copy_is_refused(check: Callable[[Any], None], path: Path) -> None:
    for document in documents(path):
        for broken in spoilt(document):
            with pytest.raises(REFUSED):
                refused(check, broken)


def refused(check: Callable[[Any], None], broken: Any) -> None:
    check(broken)
    pytest.fail(f"is allowed: {yaml.safe_dump(broken)}")


def spoilt(value: Any, key: str = "") -> Iterator[Any]:
    """Copies of a part in which one mapping has a misspelt key more, or one section is of the wrong kind."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from ([*value[:number], bad, *value[number + 1 :]] for bad in spoilt(item))
    elif isinstance(value, dict) and value and key not in OPEN:
        first = next(iter(value))
        if key not in NAMES and "/" not in first:
            yield {**value, f"{first}s": value[first]}
        for name, item in value.items():
            if not name.startswith("x-"):
                yield from ({**value, name: bad} for bad in spoilt(item, name))
                yield from [{**value, name: [3]}] if key == "" and isinstance(item, dict) else []


def test_images_ports_and_machines_are_said_once() -> None:
    """No template holds a number that values.yaml has: another value there changes every file."""
    given = yaml.safe_load((CLUSTER / "values.yaml").read_text())
    for path in (CLUSTER / "templates").rglob("*.j2"):
        text = path.read_text()
        for port in given["ports"].values():
            assert not re.search(rf"(?<![\d.]){port}(?![\d.])", text), (path.name, port)
        machines = [group["type"] for cloud in ("aws", "gcp") for group in given[cloud].values()]
        for name in (given["image"], *given["images"].values(), *machines):
            assert name not in text, (path.name, name)


def test_token_authentication_is_on_everywhere() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] in KINDS:
                spec = document["spec"].get("rayClusterSpec", document["spec"])
                assert spec["authOptions"]["mode"] == "token"
    for path in LAUNCHERS:
        started = [line for line in path.read_text().splitlines() if "ray start" in line]
        assert started
        assert all("RAY_AUTH_MODE=token" in line for line in started)
    services = yaml.safe_load((CLUSTER / "compose" / "compose.yaml").read_text())["services"]
    assert services["ray"]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_MODE=token" in (CLUSTER / "slurm" / "tapray.sbatch").read_text()
    assert "RAY_AUTH_MODE=token" in (ROOT / "docker" / "Dockerfile").read_text()


def test_what_kuberay_refuses_beyond_its_schema() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            spec = document["spec"] if document["kind"] == "RayJob" else {}
            if spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling"):
                rules = spec["deletionStrategy"]["deletionRules"]
                assert all(rule["policy"] != "DeleteWorkers" for rule in rules)


def test_a_rayjob_is_one_command() -> None:
    """KubeRay puts it unquoted behind `ray job submit --`: what follows an operator runs in another pod."""
    jobs = [each for path in MANIFESTS for each in documents(path) if each["kind"] == "RayJob"]
    assert jobs
    assert not any(set("&;|$`<>") & set(job["spec"]["entrypoint"]) for job in jobs)


def test_nothing_is_open_to_the_world() -> None:
    for service in yaml.safe_load((CLUSTER / "compose" / "compose.yaml").read_text())["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for path in LAUNCHERS:
        assert "--dashboard-host=127.0.0.1" in path.read_text()
    kinds = [document for path in MANIFESTS for document in documents(path)]
    services = [each for each in kinds if each["kind"] == "Service"]
    assert all(each["spec"].get("type", "ClusterIP") == "ClusterIP" for each in services)
    assert any(each["kind"] == "NetworkPolicy" for each in kinds)


def parts(value: Any, key: str) -> Iterator[Any]:
    """What lies under a key, at any depth."""
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == key)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(item, key)


def test_network_policies_and_services_select_pods_that_there_are() -> None:
    everything = [document for path in MANIFESTS for document in documents(path)]
    policies = [each for each in everything if each["kind"] == "NetworkPolicy"]
    pods = [
        template.get("metadata", {}).get("labels", {})
        for each in everything
        for template in parts(each, "template")
    ]
    assert len(pods) > 6
    # What KubeRay, its operator's own chart and Kubernetes put on pods.
    studies = [each["metadata"]["name"] for each in everything if each["kind"] == "RayJob"]
    pods += [{**labels, "ray.io/node-type": "head"} for labels in pods]
    pods += [{"app.kubernetes.io/component": "kuberay-operator"}]
    pods += [{"batch.kubernetes.io/job-name": name} for name in studies]
    selected = [labels for each in policies for labels in parts(each, "matchLabels")]
    selected += [each["spec"]["selector"] for each in everything if each["kind"] == "Service"]
    assert len(selected) > 8
    for labels in selected:
        assert any(labels.items() <= pod.items() for pod in pods), labels
    closed = [each["spec"]["podSelector"]["matchLabels"] for each in policies]
    for pod in pods[: len(pods) // 2]:
        assert not pod or any(labels.items() <= pod.items() for labels in closed), f"is open: {pod}"


def test_containers_have_no_rights_of_their_own() -> None:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    containers = [
        each for path in MANIFESTS for found in parts(documents(path), "containers") for each in found
    ]
    assert len(containers) > 8
    assert all(each["securityContext"] == context for each in containers)
    options = [document["docker"]["run_options"] for path in LAUNCHERS[:2] for document in documents(path)]
    assert all({"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(each) for each in options)
    for service in documents(CLUSTER / "compose" / "compose.yaml")[0]["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_no_file_holds_a_secret() -> None:
    secret = re.compile(r"(?i)(password|secret|token|_key)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/_-]{16,})")
    for path in [*MANIFESTS, *LAUNCHERS, *COMPOSE, *SCRIPTS]:
        for name, value in secret.findall(path.read_text()):
            assert "/run/secrets/" in value or not any(map(str.isdigit, value)), (path.name, name, value)
