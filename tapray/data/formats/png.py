"""PNG frames, 8 or 16 bit, grey or colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tapray.data.formats.base import Format, Header, Index
from tapray.errors import UserError, damage

SUFFIXES = (".png",)
_END = b"IEND\xaeB`\x82"  # of every whole file
_DEPTH = 24  # where a file tells the bits of a sample
_MODES = {"L": (np.uint8, ""), "I;16": (np.uint16, ""), "LA": (np.uint8, "S")}
_MODES |= {"RGB": (np.uint8, "S"), "RGBA": (np.uint8, "S")}


def _header(file: Path) -> Header:
    with damage(file, "PNG file"), file.open("rb") as stream:
        with Image.open(stream, formats=("PNG",)) as image:
            mode, (width, height), samples = image.mode, image.size, len(image.getbands())
        stream.seek(_DEPTH)
        if stream.read(1) == b"\x10" and samples > 1:  # Pillow reads colour of 16 bit as of 8
            mode += ";16"
        stream.seek(-len(_END), 2)
        if stream.read() != _END:
            raise UserError("truncated: its end is missing", where=file)
        if mode not in _MODES:
            todo = "save it as 8 or 16 bit grey, or as TIFF"
            raise UserError(f"cannot read intensities from a PNG of mode {mode}", where=file, todo=todo)
        dtype, axis = _MODES[mode]
        shape = (height, width, samples) if axis else (height, width)
        return Header("YX" + axis, shape, np.dtype(dtype), (file,))


def _read(file: Path, header: Header, index: Index) -> NDArray[Any]:
    with damage(file, "PNG file"), file.open("rb") as stream, Image.open(stream, formats=("PNG",)) as image:
        pixels: NDArray[Any] = np.asarray(image)[index]
        return pixels


FORMAT = Format(lambda path: path.suffix.lower() in SUFFIXES, _header, _read)
