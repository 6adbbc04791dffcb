"""TIFF frames, checked: a damaged or truncated file is a UserError and never a frame of zeros."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage, TiffPageSeries

from tapray.errors import UserError

# What tifffile and its decoders raise on damaged bytes; imagecodecs' own errors are RuntimeErrors.
_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)
_DEPTHS = (np.dtype(np.uint8), np.dtype(np.uint16))

# Damage is checked and reported here; tifffile's own lines would only repeat it on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

Header = tuple[tuple[int, int, int], np.dtype[Any]]  # (frames, Y, X) and the dtype


def read_header(file: Path) -> Header:
    """Shape and dtype of a TIFF file of one or more frames, from its headers alone.

    The file may have one axis longer than 1 beside Y and X, whatever the file calls it (ImageJ and
    tifffile write time as T, Z, C or Q). Raises UserError for a file that is missing, damaged, shorter
    than its headers say, of several channels, of differing frames, or not 8 or 16 bit unsigned.
    """
    with _open(file) as tif:
        pages = [page for page in tif.pages if isinstance(page, TiffPage)]
        _check_pages(file, tif, pages)
        return _stack_header(file, tif), pages[0].dtype or _DEPTHS[0]


def read_frames(file: Path, start: int, stop: int) -> NDArray[Any]:
    """Frames [start, stop) of a file that `read_header` has passed: (stop - start, Y, X), native bytes."""
    with _open(file) as tif:
        series = tif.series[0]
        n_frames = prod(series.shape[:-2])
        if len(series.pages) < n_frames:  # ImageJ's large stacks: one header, then all pixels in a row
            return _read_row(file, tif, series, start, stop)
        frames = [page.asarray(maxworkers=1) for page in series.pages[start:stop] if page is not None]
        stack: NDArray[Any] = np.stack(frames).reshape(stop - start, *series.shape[-2:])
        return stack.astype(stack.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open(file: Path) -> Iterator[TiffFile]:
    try:
        with TiffFile(file, _multifile=False) as tif:  # an OME file must not pull in its neighbours
            yield tif
    except FileNotFoundError as error:
        raise UserError("no such file", where=file) from error
    except _DAMAGE as error:
        raise UserError(f"not a readable TIFF file, or damaged ({error})", where=file) from error


def _check_pages(file: Path, tif: TiffFile, pages: list[TiffPage]) -> None:
    """Every page present, complete and alike."""
    if not pages:
        raise UserError("holds no TIFF frames", where=file)
    size = tif.filehandle.size
    first = pages[0]
    for number, page in enumerate(pages):
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            what = f"frame {number} is {page.shape} {page.dtype}, frame 0 is {first.shape} {first.dtype}"
            raise UserError(f"frames differ: {what}", where=file)
        ends = np.add(page.dataoffsets, page.databytecounts)
        short = page.compression == 1 and sum(page.databytecounts) < _n_bytes(page)
        if short or not ends.size or min(page.databytecounts) <= 0 or ends.max() > size:
            raise UserError(f"truncated: the pixels of frame {number} are not all there", where=file)
    if first.dtype not in _DEPTHS:
        raise UserError(f"pixels are {first.dtype}, not 8 or 16 bit unsigned integers", where=file)
    # The chain of page headers ends with a zero; tifffile stops quietly where it is broken.
    last = tif.pages.next_page_offset
    if last is not None:
        tif.filehandle.seek(last)
        link = tif.filehandle.read(tif.tiff.offsetsize)
        if len(link) < tif.tiff.offsetsize or any(link):
            raise UserError(f"truncated: no header after frame {len(pages) - 1}", where=file)


def _n_bytes(page: TiffPage) -> int:
    """Bytes of an uncompressed page; rows are padded to whole bytes."""
    row = (page.imagewidth * page.samplesperpixel * page.bitspersample + 7) // 8
    return row * page.imagelength


def _stack_header(file: Path, tif: TiffFile) -> tuple[int, int, int]:
    if len(tif.series) != 1:
        raise UserError(f"holds {len(tif.series)} image series, not one movie", where=file)
    series = tif.series[0]
    axes, shape = series.axes, series.shape
    long = [(axis, n) for axis, n in zip(axes[:-2], shape[:-2], strict=True) if n > 1]
    if not axes.endswith("YX") or len(long) > 1 or "S" in axes:
        raise UserError(
            f"axes {axes} of shape {shape} are not time, Y, X",
            where=file,
            todo="save one channel and one plane",
        )
    n_frames = prod(shape[:-2])
    offset = series.dataoffset
    in_a_row = offset is not None and offset + series.nbytes <= tif.filehandle.size
    present = [page for page in series.pages if page is not None]
    if len(present) != n_frames and not (len(present) == 1 and in_a_row):
        raise UserError(f"truncated: {n_frames} frames are named, {len(present)} are there", where=file)
    return n_frames, shape[-2], shape[-1]


def _read_row(file: Path, tif: TiffFile, series: TiffPageSeries, start: int, stop: int) -> NDArray[Any]:
    dtype = series.dtype.newbyteorder(tif.byteorder)
    height, width = series.shape[-2:]
    offset = (series.dataoffset or 0) + start * height * width * dtype.itemsize
    pixels = np.fromfile(file, dtype, (stop - start) * height * width, offset=offset)
    stack: NDArray[Any] = pixels.reshape(stop - start, height, width)
    return stack.astype(dtype.newbyteorder("="), copy=False)
