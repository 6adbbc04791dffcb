"""Reads the configuration: plain data or YAML in, a checked `JobConfig` or one line about its faults out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tapray.config import JobConfig
from tapray.errors import UserError


def one_line(error: ValidationError) -> str:
    """All faults of a configuration as one line, each with its key."""
    parts = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        text = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        parts.append(f"{key}: {text}" if key else text)
    return "; ".join(parts)


def parse_config(data: Any, where: object = "") -> JobConfig:
    """Checks a configuration given as plain data.

    Raises:
        UserError: one line that names every faulty key.
    """
    if not isinstance(data, dict):
        raise UserError("is not a mapping of sections", where=where)
    try:
        return JobConfig.model_validate(data)
    except ValidationError as error:
        raise UserError(one_line(error), where=where) from None


def load_config(path: Path, out: Path | None = None) -> JobConfig:
    """Reads a study from YAML; paths of movies and annotations are relative to the file.

    Args:
        out: the run folder; None: the study's own `out`, or runs/<name>, in the working directory.

    Raises:
        UserError: the file is missing, is not YAML, or holds an unknown or faulty key.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise UserError(f"cannot be read ({reason})", where=path) from None
    except yaml.YAMLError as error:
        raise UserError(f"is not valid YAML ({error})", where=path) from None
    config = parse_config(data, where=path)
    base = path.resolve().parent
    movies = tuple(
        movie.model_copy(
            update={
                "path": base / movie.path,
                "annotations": tuple(
                    note.model_copy(update={"path": base / note.path}) for note in movie.annotations
                ),
            }
        )
        for movie in config.movies
    )
    given = "out" in config.model_fields_set
    folder = out or (config.out if given else Path("runs") / config.name)
    return config.model_copy(update={"movies": movies, "out": folder})
