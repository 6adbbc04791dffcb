"""A copy of the run folder at an address (s3://, gs://, file://...), kept while a job goes on.

Machines that come and go lose their disks; a job that finds its run folder empty takes it from the copy and
goes on. The copy has the files by their own names, and `.mirror.json`, which says of each its size and
SHA-256. It is written after them, so that it never promises what is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from tapray.atomic import SUFFIX, atomic_write
from tapray.errors import UserError, first_line

INDEX = ".mirror.json"
EVERY_S = 60.0  # seconds between two copies while a job goes on
_OWN = ("frames", "ray")  # folders of what is made anew, or is Ray's
Index = dict[str, tuple[int, str]]  # size and SHA-256 of each file


class Mirror:
    """The copy of one run folder.

    Args:
        target: where the copy lies, an address or a path.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder, self._target = folder, target
        self._seen: dict[str, tuple[int, int]] = {}  # size and time of each file when it was copied
        self._index: Index = {}
        self._written: Index = {}  # the index as the copy has it
        self._copied = False  # anything, by this process: until then nothing is known of the copy

    def probe(self) -> None:
        """Writes a small file and removes it, so that a fault is told before anything is worked on.

        Raises:
            UserError: the copy cannot be written.
        """
        name = f".probe-{uuid.uuid4().hex[:12]}"
        self._put(name, b"")
        self._remove(name)

    def pull(self) -> int:
        """Fills a run folder that is not there yet from its copy, if there is one; returns how many files.

        Raises:
            UserError: the copy cannot be read.
        """
        here = dict(_files(self._folder))
        there, found = {} if "config.yaml" in here else self._read_index(), 0
        if set(here) - set(there):
            return 0  # it is a run folder already, or none
        broken = set[str]()
        for name in sorted(there, key=_order):
            size, digest = there[name]
            stage = name.partition("/")[0]
            data = self._get(name)
            data = data[:size] if name.endswith(".jsonl") else data  # which may have grown
            if _digest(data) != digest:  # a copying was interrupted: the stage is made again
                broken.add(stage)
            elif not (name.endswith("done.json") and stage in broken):
                atomic_write(self._folder / name, data)
                found += 1
        return found

    def push(self) -> int:
        """Copies what has changed, once a first stage is done; returns how many files.

        Raises:
            UserError: the copy cannot be written.
        """
        if not self._copied:
            self._index, self._copied = self._read_index(), True
            self._written = dict(self._index)
        files = dict(_files(self._folder))
        if not any(name.endswith("/done.json") for name in files):
            return 0
        changed = [name for name in sorted(files, key=_order) if self._seen.get(name) != files[name]]
        sent = sum(self._send(name) for name in changed)
        gone = set(self._index) - set(files)
        for name in gone:
            del self._index[name]
        if self._index != self._written:
            self._put(INDEX, json.dumps(self._index).encode())
            self._written = dict(self._index)
        for name in gone:
            self._remove(name)
        self._seen = files
        return sent

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Copies every so often within the block, and at its end, however it ends."""
        stop, thread = threading.Event(), threading.Thread(target=lambda: self._go_on(stop), daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._end(stop, thread)
            with suppress(UserError):  # what ended the block is told, not what keeps it from being copied
                self.push()
            raise
        self._end(stop, thread)
        self.push()

    def _end(self, stop: threading.Event, thread: threading.Thread) -> None:
        stop.set()
        thread.join()

    def _go_on(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            with suppress(UserError):  # storage that is away for a while; the last copying tells
                self.push()

    def _send(self, name: str) -> bool:
        """Copies a file unless the copy is the same already, or it is gone meanwhile."""
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return False
        entry = len(data), _digest(data)
        if self._index.get(name) == entry:
            return False
        self._put(name, data)
        self._index[name] = entry
        return True

    def _get(self, name: str) -> bytes:
        """A file's content, nothing if it is not there."""
        with self._reached():
            try:
                return bytes((self._target / name).read_bytes())
            except FileNotFoundError:
                return b""

    def _put(self, name: str, data: bytes) -> None:
        path = self._target / name
        with self._reached():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _remove(self, name: str) -> None:
        path = UPath(self._target / name)
        with self._reached(), suppress(FileNotFoundError):
            path.fs.rm_file(path.path)  # unlink deletes in bulk, which not every S3 store knows

    def _read_index(self) -> Index:
        text = self._get(INDEX)
        with self._reached():
            listed = json.loads(text or "{}")
            return {name: (size, digest) for name, (size, digest) in listed.items()}

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Within the block what keeps the copy from being read or written is one line."""
        try:
            yield
        except Exception as error:  # of any kind: each file system of fsspec has its own
            todo = "check mirror, and the keys in the environment"
            raise UserError(
                f"copy cannot be used ({first_line(error)})", where=self._target, todo=todo
            ) from error


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The names of what is to be copied, with size and time of each; folders may come and go meanwhile."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _OWN and not name.endswith(SUFFIX)]
        for name in names:
            path = Path(place) / name
            if name in (".lock", INDEX) or name.startswith(".preflight") or name.endswith(SUFFIX):
                continue
            with suppress(FileNotFoundError):
                found = path.stat()
                yield path.relative_to(folder).as_posix(), (found.st_size, found.st_mtime_ns)


def _order(name: str) -> tuple[bool, bool, str]:
    """What says that others are whole comes after them."""
    return name == "config.yaml", name.endswith("done.json"), name


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
