"""A study as it is sent to another machine: one piece of plain data, with nothing that must stay here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tapray.config import JobConfig
from tapray.configfile import LOCAL_PATHS, checked, merged_variants, parse_config, read_yaml, run_folder
from tapray.entries import Collection
from tapray.errors import UserError
from tapray.locations import is_remote
from tapray.redaction import redact


def sent_study(path: Path, out: Path | None = None) -> tuple[dict[str, dict[str, Any]], Path]:
    """As `merged_variants`, to be read on another machine, and the run folder.

    Paths are absolute and a collection file is taken in. Nothing is looked for: movies may lie where this
    machine does not reach.

    Args:
        out: the run folder, as in `load_config`.

    Raises:
        UserError: as `load_variants` does; or the study holds a password.
    """
    base, found, folder = path.resolve().parent, {}, Path()
    for name, data in merged_variants(path).items():
        config = parse_config(data, where=f"{path} variant {name}" if name else path)
        _sendable(config)
        sent = {**data, "name": config.name}
        if config.collection is not None and not is_remote(config.collection):
            file = base / sent.pop("collection")
            checked(Collection, listed := read_yaml(file), where=file)
            sent["movies"] = _anchored(listed["movies"], file.resolve().parent)
        elif "movies" in sent:
            sent["movies"] = _anchored(sent["movies"], base)
        for section, key in LOCAL_PATHS:
            if (sent.get(section) or {}).get(key) is not None:
                sent[section] = {**sent[section], key: _anchor(sent[section][key], base)}
        if sent.get("mirror") is not None:
            sent["mirror"] = _anchor(sent["mirror"], base)
        sent.pop("out", None)
        sent["ray"] = {key: value for key, value in (sent.get("ray") or {}).items() if key != "address"}
        found[name], folder = sent, run_folder(config, out).absolute()
    return found, folder


def _sendable(config: JobConfig) -> None:
    """Raises UserError for what a study must not hold that leaves this machine."""
    for key, value in _texts(config.model_dump(mode="json")):
        if redact(value) != value:
            what = "holds a password or token, which clusters keep in the open"
            raise UserError(
                what, where=key, todo="leave it out and set it in the environment of the machines"
            )
    uri = config.tracking.uri or ""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        what = "is a relative SQLite file, which a cluster would lose"
        raise UserError(what, where="tracking.uri", todo="name an absolute one, or a server")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain data, with its dotted key."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _anchored(movies: list[dict[str, Any]], base: Path) -> list[dict[str, Any]]:
    return [
        {
            **movie,
            "path": _anchor(movie["path"], base),
            "annotations": [
                {**note, "path": _anchor(note["path"], base)} for note in movie.get("annotations") or ()
            ],
        }
        for movie in movies
    ]


def _anchor(path: Any, base: Path) -> str:
    return str(path) if is_remote(path) else str(base / str(path))
