"""TIFF, BigTIFF, ImageJ and OME-TIFF, checked: what is damaged or cut short is never read as zeros."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage, TiffPageSeries, xml2dict

from tapray.data.formats.base import Format, Header, Index, micrometres, seconds
from tapray.errors import UserError, damage

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

# Damage is checked and reported here; tifffile's own lines would only repeat it on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def _header(file: Path) -> Header:
    with _open(file) as tif:
        pages = [page for page in tif.pages if isinstance(page, TiffPage)]
        _check_pages(file, tif, pages)
        series, size = tif.series[0], tif.filehandle.size
        if len(pages) == len(tif.series) > 1:  # frames that were appended one by one, all alike
            axes, shape = "Q" + series.axes, (len(pages), *series.shape)
            offsets = tuple(page.offset for page in pages)
        else:
            _check_series(file, tif, pages[0])
            axes, shape, offsets = series.axes, series.shape, _offsets(series)
        dtype = series.dtype.newbyteorder("=")
        return Header(axes, shape, dtype, (file,), *_physical(tif), offsets, size)


def _check_series(file: Path, tif: TiffFile, page: TiffPage) -> None:
    """One movie, all of whose frames are there."""
    if len(tif.series) != 1:
        todo = "save each as a file of its own"
        raise UserError(f"holds {len(tif.series)} image series, not one movie", where=file, todo=todo)
    series = tif.series[0]
    n_pages = _n_pages(series, page.shape)
    offset = series.dataoffset
    in_a_row = offset is not None and offset + series.nbytes <= tif.filehandle.size
    present = sum(page is not None for page in series.pages)
    if present != n_pages and not (present == 1 and in_a_row):
        raise UserError(f"truncated: {n_pages} frames are named, {present} are there", where=file)


def _read(file: Path, header: Header, index: Index) -> NDArray[Any]:
    with _open(file) as tif:
        if header.size and tif.filehandle.size != header.size:
            raise UserError("has changed since it was opened", where=file)
        of_page = tif.pages.first.shape
        lead = len(header.shape) - len(of_page)
        wanted = np.arange(prod(header.shape[:lead])).reshape(header.shape[:lead])[index[:lead]]
        offsets = header.offsets or _offsets(tif.series[0])  # a frame of a folder has no header of its own
        row = len(offsets) < prod(header.shape[:lead])  # ImageJ: one header, then all pixels in a row
        read = _in_a_row if row else _page
        pages = [read(tif, offsets, int(page))[index[lead:]] for page in np.ravel(wanted)]
        stack: NDArray[Any] = np.stack(pages).reshape(*np.shape(wanted), *pages[0].shape)
        return stack.astype(stack.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open(file: Path) -> Iterator[TiffFile]:
    with (
        damage(file, "TIFF file"),
        file.open("rb") as stream,
        TiffFile(stream, name=file.name, _multifile=False) as tif,  # not its OME neighbours
    ):
        yield tif


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


def _n_pages(series: TiffPageSeries, of_page: tuple[int, ...]) -> int:
    """How many pages the series' shape needs; ValueError where it is not made of such pages."""
    lead = len(series.shape) - len(of_page)
    if series.shape[lead:] != of_page:
        raise ValueError(f"pages of {of_page} do not make up {series.shape}")
    return prod(series.shape[:lead])


def _offsets(series: TiffPageSeries) -> tuple[int, ...]:
    """Where each page's header begins; if there is but one for many frames, where the pixels begin."""
    if len(series.pages) < _n_pages(series, series.keyframe.shape):
        return (series.dataoffset or 0,)
    return tuple(page.offset for page in series.pages if page is not None)


def _page(tif: TiffFile, offsets: tuple[int, ...], number: int) -> NDArray[Any]:
    # By its place: to ask tifffile for the series or for page `number` reads the headers of all before it.
    tif.filehandle.seek(offsets[number])
    pixels: NDArray[Any] = TiffPage(tif, number).asarray(maxworkers=1)
    return pixels


def _in_a_row(tif: TiffFile, offsets: tuple[int, ...], number: int) -> NDArray[Any]:
    shape, dtype = tif.pages.first.shape, tif.pages.first.dtype
    if dtype is None:
        raise ValueError("pixels of an unknown type")
    n_bytes = prod(shape) * dtype.itemsize
    tif.filehandle.seek(offsets[0] + number * n_bytes)
    return np.frombuffer(tif.filehandle.read(n_bytes), dtype.newbyteorder(tif.byteorder)).reshape(shape)


def _physical(tif: TiffFile) -> tuple[float | None, float | None]:
    """Pixel size in micrometres and frame interval in seconds, as OME or ImageJ state them."""
    if tif.ome_metadata:
        image = xml2dict(tif.ome_metadata)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        size = micrometres(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "\u00b5m"))
        return size, seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    if not tif.imagej_metadata:
        return None, None  # the resolution that other programs write is that of a printer
    told, resolution = tif.imagej_metadata, tif.pages.first.tags.get("XResolution")
    numerator, denominator = resolution.value if resolution else (0, 0)
    unit = str(told.get("unit", "")).replace("\\u00B5", "\u00b5")
    size = micrometres(denominator / numerator, unit) if numerator else None
    return size, seconds(told.get("finterval"), told.get("tunit", "s"))


FORMAT = Format(lambda path: path.suffix.lower() in SUFFIXES, _header, _read)
