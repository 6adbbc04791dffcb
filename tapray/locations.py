"""Where files lie: a local path, or an address that fsspec knows (s3://, https://, memory://...)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from fsspec import get_filesystem_class
from pydantic import PlainSerializer, PlainValidator
from upath import UPath

from tapray.errors import damage


def is_remote(path: object) -> bool:
    """Whether a path is an address and not a local path."""
    return "://" in str(path)


def was_remote(path: Path) -> bool:
    """Whether a local path was made of an address, of which it keeps one of the slashes."""
    return re.match(r"[a-z][a-z0-9+]+:/", str(path)) is not None


def without_scheme(path: Path) -> Path:
    """The local path that a path made of a file:/// address names; any other as it is."""
    return Path(re.sub(r"^file:/+", "/", str(path)))


def location(value: Any) -> Path:
    """A path or address of text; ValueError for anything else, and for a file system that is not there."""
    if not isinstance(value, (str, Path, UPath)):
        raise ValueError("is not a path")
    if not is_remote(value):
        return Path(str(value))
    try:
        get_filesystem_class(str(value).partition("://")[0])
    except ImportError as error:
        raise ValueError(f"{value} needs a package that is not installed ({error})") from None
    except ValueError as error:
        raise ValueError(f"{value}: {error}") from None
    return UPath(value)  # type: ignore[return-value]


# Typed as a Path: a UPath has the methods used here.
Location = Annotated[Path, PlainValidator(location), PlainSerializer(str, when_used="json")]


def exists(path: Path) -> bool:
    """Whether there is something; behind http(s), which lists nothing, a file that can be asked for."""
    return bool(UPath(path).exists()) if is_remote(path) else path.exists()


def state(path: Path) -> list[tuple[str, int, str]]:
    """Name, size and time (or tag) of a file, or of every file below a folder: changed content shows here.

    Of what lies behind http(s), which lists no files, the address alone counts.
    """
    with damage(path, "path"):
        return _remote_state(UPath(path)) if is_remote(path) else _local_state(path)


def _local_state(path: Path) -> list[tuple[str, int, str]]:
    found = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            facts = file.stat()
            found.append((str(file.relative_to(path.parent)), facts.st_size, str(facts.st_mtime_ns)))
    return found


def _remote_state(path: UPath) -> list[tuple[str, int, str]]:
    if path.protocol in ("http", "https"):
        return [(str(path), 0, "")]
    try:
        files = path.fs.find(path.path, detail=True)
    except FileNotFoundError:
        return []
    tags = ("ETag", "etag", "LastModified", "mtime", "updated", "created")
    return [
        (name, int(facts.get("size") or 0), str(next((facts[tag] for tag in tags if tag in facts), "")))
        for name, facts in sorted(files.items())
    ]
