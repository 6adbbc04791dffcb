"""Movies on disk or on any file system of fsspec, read a few frames at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapray.data.axes import Layout, lay_out
from tapray.data.formats import FORMATS
from tapray.data.formats.base import Header
from tapray.entries import Reading
from tapray.errors import UserError, damage
from tapray.locations import is_remote, location

_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_BLOCK = 1 << 20  # bytes hashed at once
_AS_IS = Reading()


@dataclass(frozen=True)
class Movie:
    """A movie of one plane: shape (T, Y, X) in frames and pixels; uint8, uint16 or float32."""

    name: str
    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    format: str  # a key of FORMATS
    header: Header
    layout: Layout
    pixel_size: float | None = None  # micrometres
    frame_interval: float | None = None  # seconds

    @property
    def channels(self) -> int:
        """How many are seen together."""
        return max(1, len(self.layout.channels))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(Y, X), or of several channels (C, Y, X)."""
        lead = (self.channels,) if self.layout.channels else ()
        return (*lead, *self.shape[1:])

    def grey(self, t: int) -> NDArray[Any]:
        """A frame (Y, X); of several channels their mean, float32."""
        frame: NDArray[Any] = self.read(t, t + 1)[0]
        return frame.mean(axis=0, dtype=np.float32) if self.layout.channels else frame

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Frames [start, stop) as (stop - start, *frame_shape) in their own dtype; other frames stay unread.

        Raises UserError for a file that is damaged, has changed since it was opened or holds numbers that
        are not finite, IndexError for frames that the movie does not have.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"frames {start}..{stop} of {self.shape[0]}")
        if start == stop:
            return np.empty((0, *self.frame_shape), self.dtype)
        index = self.layout.index(start, stop)
        frames = self.layout.arrange(FORMATS[self.format].read(self.path, self.header, index))
        if frames.shape != (stop - start, *self.frame_shape) or frames.dtype != self.dtype:
            raise UserError("has changed since it was opened", where=self.path)
        if self.dtype.kind == "f":
            self._check_finite(frames, start)
        return frames

    def _check_finite(self, frames: NDArray[Any], start: int) -> None:
        fine = np.isfinite(frames).reshape(len(frames), -1).all(axis=1)
        if not fine.all():
            at = start + int(np.flatnonzero(~fine)[0])
            todo = "replace NaN and infinite pixels"
            raise UserError(f"frame {at} holds pixels that are not finite", where=self.path, todo=todo)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bytes of the files in order, whatever their names and place.

        Where a format has no list of files (OME-Zarr), of the movie's pixels, frame by frame.
        """
        digest = hashlib.sha256()
        for file in self.header.files:
            with damage(file, "file"), file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        if not self.header.files:
            for t in range(self.shape[0]):
                digest.update(np.ascontiguousarray(self.read(t, t + 1)).data)
        return digest.hexdigest()


def open_movie(path: Path, name: str = "", reading: Reading = _AS_IS) -> Movie:
    """Open a movie by reading its headers; `name` is the file's or folder's own name where not given.

    Args:
        path: a local path, or an address of fsspec as a UPath.
        reading: what the user says of axes, channel, plane, pixel size and frame interval.

    Raises UserError, naming the file: missing path, unknown format, no frames or only one, a damaged or
    truncated file, axes that are unclear, other pixels than 8 or 16 bit unsigned integers and 32 bit
    floats, frames that differ in shape or dtype, a number missing from a numbered folder.
    """
    path = location(path)
    with damage(path, "path"):
        there = path.exists()  # a folder behind http(s) is not seen, though its files are
        told = (kind for kind, one in FORMATS.items() if one.detect(path))
        kind = next(told, None) if there or is_remote(path) else None
    if kind is None and not there:
        raise UserError("no such file or folder", where=path)
    if kind is None:
        todo = "tapray reads TIFF, PNG folders, OME-Zarr and .npy"
        raise UserError("not a movie of a known format", where=path, todo=todo)
    header = FORMATS[kind].header(path)
    if header.dtype not in _DTYPES:
        todo = "save it as one of these"
        what = f"pixels are {header.dtype}, not 8 or 16 bit unsigned integers or 32 bit floats"
        raise UserError(what, where=path, todo=todo)
    layout = lay_out(header, reading, path)
    n_frames, height, width = (header.shape[layout.axes.index(axis)] for axis in "TYX")
    if n_frames < 2:
        raise UserError("holds one frame only, a movie has at least two", where=path)
    if min(height, width) < 1:
        raise UserError(f"frames of {height} x {width} pixels hold nothing", where=path)
    return Movie(
        name or path.stem,
        path,
        (n_frames, height, width),
        header.dtype,
        kind,
        header,
        layout,
        reading.pixel_size or header.pixel_size,
        reading.frame_interval or header.frame_interval,
    )
