"""NumPy's own files, read in part."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tapray.data.formats.base import Format, Header, Index
from tapray.errors import UserError, damage

_AXES = {2: "YX", 3: "TYX", 4: "TCYX", 5: "TCZYX"}  # unless the movie's entry says otherwise
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def _header(file: Path) -> Header:
    header, offset = _parsed(file)
    with damage(file, "NumPy file"):
        missing = offset + prod(header.shape) * header.dtype.itemsize - file.stat().st_size
    if missing > 0:
        raise UserError(f"truncated: {missing} bytes are missing", where=file)
    return replace(header, dtype=header.dtype.newbyteorder("="))


def _parsed(file: Path) -> tuple[Header, int]:
    """The header, in the file's own byte order, and where the pixels begin."""
    with damage(file, "NumPy file"), file.open("rb") as stream:
        version = npy.read_magic(stream)
        shape, fortran, dtype = _HEADERS[version](stream)
        offset = stream.tell()
    if dtype.hasobject or len(shape) not in _AXES or (fortran and len(shape) > 1):
        what = f"an array of {dtype} and shape {shape}" + (" in Fortran order" if fortran else "")
        todo = "save numbers of axes T, Y, X with np.save(file, np.ascontiguousarray(movie))"
        raise UserError(f"{what} is not read", where=file, todo=todo)
    return Header(_AXES[len(shape)], shape, dtype, (file,)), offset


def _read(file: Path, header: Header, index: Index) -> NDArray[Any]:
    """Only the bytes between the first and the last frame are read."""
    own, offset = _parsed(file)
    shape, dtype = own.shape, own.dtype
    while isinstance(index[0], int):
        offset += index[0] * prod(shape[1:]) * dtype.itemsize
        index, shape = index[1:], shape[1:]
    start, stop, _ = index[0].indices(shape[0])
    each = prod(shape[1:]) * dtype.itemsize
    with damage(file, "NumPy file"), file.open("rb") as stream:
        stream.seek(offset + start * each)
        content = stream.read((stop - start) * each)
        block = np.frombuffer(content, dtype).reshape(stop - start, *shape[1:])
    pixels: NDArray[Any] = block[(slice(None), *index[1:])]
    return pixels.astype(dtype.newbyteorder("="))


FORMAT = Format(lambda path: path.suffix.lower() == ".npy", _header, _read)
