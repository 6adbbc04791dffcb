"""What a result follows from besides its settings: command, commit, machine and packages."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from tapray.redaction import redact

_PATHS = ("path", "imagenet")  # keys of files
_PACKAGES = (
    "tapray",
    "ray",
    "torch",
    "mlflow",
    "optuna",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "captum",
    "umap-learn",
)


def command() -> str:
    """The command that is being run."""
    return shlex.join(map(redact, sys.argv))


def without_paths(command: str) -> str:
    """Of each path in a command only the last part, and the program's name as it is typed."""
    parts = (part.rstrip("/") for part in shlex.split(command))
    shown = shlex.join(re.sub(r"^(-[^=]*=)?.*/", r"\1", part) for part in parts)
    return re.sub(r"^__main__\.py\b", "tapray", shown)


def without_folders(value: Any, key: str = "") -> Any:
    """Of each path only the last part: a page may be sent to others."""
    if isinstance(value, dict):
        return {name: without_folders(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item, key) for item in value]
    return PurePath(value).name if key in _PATHS and isinstance(value, str) else value


def versions() -> dict[str, str | None]:
    """Of the packages that results depend on."""
    found: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for name in found:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def environment() -> dict[str, Any]:
    """Python, the machine, the commit of this program and the versions of its packages."""
    system = {"platform": platform.platform(), "cpu_count": os.cpu_count(), "git_commit": git_commit()}
    return {"python": platform.python_version(), **system, "versions": versions()}


@cache
def git_commit() -> str | None:
    """The commit of the checkout this file is tracked in; None for an installed package."""
    here = Path(__file__).absolute()
    try:
        for words in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            argv = ["git", "-C", str(here.parent), *words]
            output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.strip()
