"""Arrays of features on disk, by the hash of what they were made from: each computed once for all studies.

An entry is an Arrow file (KEY.arrow) of one record batch with one column, a fixed-shape tensor for each
crop, uncompressed: all processes of a machine map the same memory. Entries are written beside and renamed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from tapray.crops.shards import tensor_column

COLUMN = "features"


@dataclass(frozen=True)
class FeatureCache:
    """A folder of entries, of not more than so many bytes after each filling."""

    folder: Path
    max_bytes: float

    def path(self, key: str) -> Path:
        """The file of an entry, there or not."""
        return self.folder / f"{key}.arrow"

    @contextmanager
    def filling(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, Path]]:
        """Blank float16 .npy files for the keys that are not there, to be filled within the block.

        They become entries when it ends well; else nothing is left. Whoever else wants one of them waits.
        Those that are there stay so only where they are `held`.

        Args:
            shapes: of each array, by key.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        with ExitStack() as stack:
            wanted = [key for key in sorted(shapes) if not self.path(key).exists()]
            for key in wanted:  # in the same order for all, so that no two wait for each other
                stack.enter_context(self._locked(f".{key}.lock", fcntl.LOCK_EX))
            missing = [key for key in wanted if not self.path(key).exists()]
            blanks = {key: self.folder / f".{key}.npy" for key in missing}
            for key, path in blanks.items():
                stack.callback(path.unlink, missing_ok=True)
                open_memmap(path, "w+", np.float16, shapes[key])
            yield blanks
            for key, path in blanks.items():
                _write(np.load(path, mmap_mode="r"), self.path(key))
        self._evict(shapes)

    @contextmanager
    def held(self, keys: Collection[str]) -> Iterator[None]:
        """Within the block these entries are not evicted, whoever fills the cache."""
        with ExitStack() as stack:
            for key in keys:
                stack.enter_context(self._locked(f".{key}.use", fcntl.LOCK_SH))
            yield

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("ab") as lock:
            fcntl.flock(lock, kind)
            yield

    def _sweep(self) -> None:
        """Removes what a killed process has left half-filled."""
        for part in (*self.folder.glob(".*.npy"), *self.folder.glob(".*.arrow")):
            with suppress(OSError), self._locked(f"{part.stem}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                part.unlink(missing_ok=True)

    def drop(self, keys: Collection[str]) -> None:
        """Removes entries, but none that somebody holds."""
        for key in keys:
            self._remove(self.path(key))

    def _remove(self, path: Path) -> bool:
        """Whether nobody held the entry."""
        with suppress(OSError), self._locked(f".{path.stem}.use", fcntl.LOCK_EX | fcntl.LOCK_NB):
            path.unlink(missing_ok=True)
            return True
        return False

    def used(self, keys: Collection[str]) -> None:
        """Notes that entries are of use, so that others are evicted first."""
        for key in keys:
            with suppress(FileNotFoundError):
                os.utime(self.path(key))

    def _evict(self, keep: Collection[str]) -> None:
        """Removes entries, those first that were not used for longest, but none that somebody holds."""
        entries = {}
        for path in self.folder.glob("[!.]*.arrow"):
            with suppress(FileNotFoundError):
                entries[path] = path.stat()
        total = sum(found.st_size for found in entries.values())
        for path in sorted(entries, key=lambda path: entries[path].st_mtime_ns):
            if total > self.max_bytes and path.stem not in keep and self._remove(path):
                total -= entries[path].st_size


def _write(values: NDArray[np.float16], path: Path) -> None:
    batch = pa.record_batch({COLUMN: tensor_column(values)})
    beside = path.with_name(f".{path.name}")
    try:
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> NDArray[np.float16]:
    """An entry's array, mapped; copy on write, since torch wants memory that it may write to."""
    with pa.memory_map(str(path)) as source:
        whole = source.read_buffer()
        column: Any = pa.ipc.open_file(whole).get_batch(0).column(0)
        start = column.storage.values.buffers()[1].address - whole.address
        shape = (len(column), *column.type.shape)
        return np.memmap(path, np.float16, "c", start, shape)
