"""Every command that the files and pages of cluster/ and docker/ name exists, with its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import click
import pytest
from typer.main import get_command

from tapray.cli import app
from tests.test_cluster_files import COMPOSE, LAUNCHERS, MANIFESTS, ROOT, TEXTS, documents
from tests.test_cluster_scripts import SCRIPTS


def texts(value: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(item)


def commands() -> Iterator[tuple[str, str]]:
    """Every command of ours, Ray's or MLflow's in a file; of a page, in its fences and `code`."""
    for path in [*MANIFESTS, *LAUNCHERS, *COMPOSE, *SCRIPTS, *TEXTS, ROOT / "docker" / "Dockerfile"]:
        text = path.read_text()
        if path.suffix == ".yaml":
            text = "\n".join(texts(documents(path)))
        elif path.suffix == ".md":
            text = "\n".join(re.findall(r"(?ms)^```bash\n.*?^```|`[^`]+`", text)).replace(
                "--namespace tapray", ""
            )
        text = re.sub(r"\\\n\s*", "", text)
        text = re.sub(r'",\s*"', " ", text)  # a command as a list
        text = re.sub(r"(?m)^\s*(#|COPY ).*", "", text)
        found = re.findall(r"(?:^|[\s`;\"'(]|bin/)((?:tapray|ray|mlflow) (?:[a-z][a-z-]+)\b[^`\n;&|]*)", text)
        yield from ((path.name, line.strip()) for line in found)


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@cache
def programs() -> dict[str, Any]:
    from mlflow.cli import cli as mlflow
    from ray.scripts.scripts import cli as ray

    return {"tapray": get_command(app), "ray": ray, "mlflow": mlflow}


def check_command(line: str) -> str:
    """The names of program and command, if both and the options are there."""
    first, *rest = re.sub(r"[\"'\],]", "", line).split()
    command, names = programs()[first], [first]
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, line
        names.append(rest.pop(0))
        command = command.commands[names[-1]]
    rest = rest[: rest.index("--")] if "--" in rest else rest
    asked = {word.split("=")[0] for word in rest if word.startswith("--")}
    known = options(command)
    if names[-1] == "symmetric-run":
        known |= options(programs()["ray"].commands["start"])
    assert asked <= known, (line, asked - known)
    return " ".join(names[:2])


def test_every_command_named_exists() -> None:
    seen = {check_command(line) for _, line in commands()}
    assert {"tapray run", "tapray submit", "ray start", "ray symmetric-run", "mlflow server"} <= seen
    assert sum(name == "README.md" for name, _ in commands()) > 10


@pytest.mark.parametrize(
    "line", ["tapray sumbit a.yaml", "ray strat --head", "ray start --haed", "mlflow sever"]
)
def test_a_misspelt_command_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check_command(line)
