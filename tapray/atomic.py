"""Files and folders that appear whole or not at all: written beside, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".tapray-tmp"  # of what is being written
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{SUFFIX}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # some file systems know no sync of folders
        os.fsync(handle)
    os.close(handle)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Writes a whole file or nothing: beside it first, then renamed. Text is UTF-8."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # by the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new empty folder that replaces ``path`` if the block ends well; else ``path`` stays as it was."""
    path = Path(path)
    temporary, old = _temporary(path), _temporary(path)
    try:
        temporary.mkdir()  # within: an interruption right after it finds it too
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        if path.exists():
            path.replace(old)  # a folder cannot be renamed onto one that is not empty
        temporary.replace(path)
        _sync(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)  # stopped between the two renames
        for rest in (temporary, old):
            shutil.rmtree(rest, ignore_errors=True)
