"""Movies on disk: what a path holds, read a few frames at a time.

A further format is one more entry of `FORMATS`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tapray.data import tiff
from tapray.errors import UserError

_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_BLOCK = 1 << 20  # bytes hashed at once


@dataclass(frozen=True)
class Movie:
    """A movie of one channel: shape (T, Y, X) in frames and pixels, 8 or 16 bit unsigned."""

    name: str
    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    files: tuple[Path, ...]  # one stack, or the frames in order
    format: str  # a key of FORMATS

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Frames [start, stop) as (stop - start, Y, X) in the movie's own dtype; other frames stay unread.

        Raises UserError for a file that is damaged or has changed since it was opened, IndexError for
        frames that the movie does not have.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"frames {start}..{stop} of {self.shape[0]}")
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        frames = FORMATS[self.format].read(self.files, start, stop)
        if frames.shape != (stop - start, *self.shape[1:]) or frames.dtype != self.dtype:
            raise UserError("has changed since it was opened", where=self.path)
        return frames

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bytes of the files in order, whatever their names and place."""
        digest = hashlib.sha256()
        for file in self.files:
            try:
                with file.open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        digest.update(block)
            except OSError as error:
                raise UserError(f"cannot be read ({error.strerror})", where=file) from error
        return digest.hexdigest()


class Format(NamedTuple):
    """How one kind of movie is told, opened (headers only) and read."""

    detect: Callable[[Path], bool]
    open: Callable[[Path, str], Movie]
    read: Callable[[tuple[Path, ...], int, int], NDArray[Any]]


def open_movie(path: Path, name: str = "") -> Movie:
    """Open a movie by reading its headers; `name` is the file's or folder's own name where not given.

    Raises UserError, naming the file: missing path, unknown format, no frames or only one, a damaged or
    truncated file, other axes than time, Y, X, other pixels than 8 or 16 bit unsigned integers, frames
    that differ in shape or dtype, a number missing from a numbered folder.
    """
    path = Path(path)
    if not path.exists():
        raise UserError("no such file or folder", where=path)
    for kind in FORMATS.values():
        if kind.detect(path):
            movie = kind.open(path, name or path.stem)
            break
    else:
        raise UserError("not a TIFF stack or a folder of TIFF frames", where=path)
    if movie.shape[0] < 2:
        raise UserError("holds one frame only, a movie has at least two", where=path)
    return movie


def _open_stack(path: Path, name: str) -> Movie:
    shape, dtype = tiff.read_header(path)
    return Movie(name, path, shape, dtype, (path,), "tiff_stack")


def _read_stack(files: tuple[Path, ...], start: int, stop: int) -> NDArray[Any]:
    return tiff.read_frames(files[0], start, stop)


def _open_folder(path: Path, name: str) -> Movie:
    files = in_order(path)
    headers = [tiff.read_header(file) for file in files]
    for file, (shape, dtype) in zip(files, headers, strict=True):
        if shape[0] != 1:
            todo = "give the path of the stack itself" if len(files) == 1 else "keep one frame a file"
            raise UserError(f"holds {shape[0]} frames in a folder of single frames", where=file, todo=todo)
        if (shape, dtype) != headers[0]:
            first_shape, first_dtype = headers[0]
            what = f"is {shape[1:]} {dtype}, but {files[0].name} is {first_shape[1:]} {first_dtype}"
            raise UserError(what, where=file)
    (_, height, width), dtype = headers[0]
    return Movie(name, path, (len(files), height, width), dtype, files, "tiff_folder")


def _read_folder(files: tuple[Path, ...], start: int, stop: int) -> NDArray[Any]:
    return np.concatenate([tiff.read_frames(file, 0, 1) for file in files[start:stop]])


def in_order(folder: Path) -> tuple[Path, ...]:
    """The TIFF files of a folder by the one number that differs between their names, step 1.

    Raises UserError where there are none, where names differ in more than one number or in their
    letters (several channels or positions), and where a number is missing or there twice.
    """
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in _SUFFIXES and f.name[0] != "."]
    if not files:
        raise UserError("holds no TIFF frames", where=folder)
    parts = [re.split(r"(\d+)", file.stem) for file in files]
    if len({tuple(part[::2]) for part in parts}) > 1:
        raise UserError("names of the frames differ in more than a number", where=folder)
    columns = list(zip(*([int(n) for n in part[1::2]] for part in parts), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) > 1:
        raise UserError("names of the frames differ in more than one number", where=folder)
    if len(files) == 1:
        return tuple(files)
    count = varying[0] if varying else columns[-1]
    ordered = sorted(zip(count, files, strict=True))
    for (number, file), (following, next_file) in pairwise(ordered):
        if following != number + 1:
            fault = "have the same number" if following == number else "are neighbours, frames are missing"
            raise UserError(f"{file.name} and {next_file.name} {fault}", where=folder)
    return tuple(file for _, file in ordered)


FORMATS: dict[str, Format] = {
    "tiff_folder": Format(Path.is_dir, _open_folder, _read_folder),
    "tiff_stack": Format(lambda path: path.suffix.lower() in _SUFFIXES, _open_stack, _read_stack),
}
