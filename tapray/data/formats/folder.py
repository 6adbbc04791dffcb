"""Folders of numbered frames: TIFF or PNG, one frame a file."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapray.data.formats import png, tiff
from tapray.data.formats.base import Format, Header, Index
from tapray.errors import UserError, damage

_KINDS = (tiff, png)


def _kind(file: Path) -> Format | None:
    return next((kind.FORMAT for kind in _KINDS if file.suffix.lower() in kind.SUFFIXES), None)


def _header(folder: Path) -> Header:
    files = in_order(folder)
    headers = [kind.header(file) for file in files if (kind := _kind(file))]
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        # Pages without a name may be channels or planes: where every file has them, the user can say so.
        fine = "CZYXSIQ" if len(files) > 1 and set(first.axes) & set("IQ") else "CZYXS"
        counted = [n for axis, n in zip(header.axes, header.shape, strict=True) if axis not in fine]
        if any(n > 1 for n in counted):
            todo = "give the path of the stack itself" if len(files) == 1 else "keep one frame a file"
            what = f"holds {max(counted)} frames in a folder of single frames"
            raise UserError(what, where=file, todo=todo)
        if (header.axes, header.shape, header.dtype) != (first.axes, first.shape, first.dtype):
            own, other = (f"{h.axes} {h.shape} {h.dtype}" for h in (header, first))
            what = f"is {own}, but {files[0].name} is {other}"
            raise UserError(what, where=file)
    shape = (len(files), *first.shape)
    return Header("T" + first.axes, shape, first.dtype, files, first.pixel_size, first.frame_interval)


def _read(folder: Path, header: Header, index: Index) -> NDArray[Any]:
    time, of_frame = index[0], index[1:]
    files = header.files[time] if isinstance(time, slice) else (header.files[time],)
    one = replace(header, axes=header.axes[1:], shape=header.shape[1:])
    frames = [kind.read(file, one, of_frame) for file in files if (kind := _kind(file))]
    return np.stack(frames) if isinstance(time, slice) else frames[0]


def in_order(folder: Path) -> tuple[Path, ...]:
    """The frames of a folder by the one number that differs between their names, step 1.

    Raises UserError where there are none, where names differ in more than one number or in their
    letters (several channels or positions), and where a number is missing or there twice.
    """
    with damage(folder, "folder"):
        files = [f for f in sorted(folder.iterdir()) if f.name[0] != "." and _kind(f)]
    if not files:
        raise UserError("holds no TIFF or PNG frames", where=folder)
    parts = [re.split(r"([0-9]+)", file.stem) for file in files]
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


FORMAT = Format(lambda path: path.is_dir(), _header, _read)
